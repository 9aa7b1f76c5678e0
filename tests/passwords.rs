//! Basic auth, rate limit and headers of the web configuration, over plain HTTP.

mod support;

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use support::{Answer, Exporter, config, request, wait_for};
use tempfile::TempDir;

/// What is logged for each password that is compared.
const COMPARED: &str = "a password was compared with a bcrypt hash";

/// So long the program goes by what it knows of the files; and a little more.
const FRESH: Duration = Duration::from_millis(120);

/// A running exporter with a web configuration.
struct Site {
    exporter: Exporter,
    web: PathBuf,
    _home: TempDir,
}

impl Site {
    fn start(web: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        let config = config(home.path(), home.path(), "");
        let file = home.path().join("web.yml");
        fs::write(&file, web).unwrap();
        let arguments = [
            "--config.file",
            config.to_str().unwrap(),
            "--web.config.file",
            file.to_str().unwrap(),
        ];
        Self {
            exporter: Exporter::start_with(&arguments),
            web: file,
            _home: home,
        }
    }

    fn address(&self) -> SocketAddr {
        self.exporter.address
    }

    fn get(&self, path: &str, pair: &str) -> Answer {
        let basic = format!("Basic {}", STANDARD.encode(pair));
        request(self.address(), "GET", path, &[("Authorization", &basic)])
    }

    /// Writes the file anew, and waits until it is looked at.
    fn edit(&self, text: &str) {
        fs::write(&self.web, text).unwrap();
        thread::sleep(FRESH);
    }

    /// How many passwords were compared.
    fn compared(&self) -> usize {
        let log = self.exporter.log();
        log.iter().filter(|line| line.contains(COMPARED)).count()
    }

    fn wait_for_log(&self, part: &str) {
        wait_for(part, || {
            let log = self.exporter.log();
            log.iter().any(|line| line.contains(part)).then_some(())
        });
    }
}

fn user(name: &str, password: &str, cost: u32) -> String {
    format!("  {name}: {}\n", bcrypt::hash(password, cost).unwrap())
}

fn users(list: &[(&str, &str)]) -> String {
    let lines = list.iter().map(|(name, password)| user(name, password, 4));
    format!("basic_auth_users:\n{}", lines.collect::<String>())
}

#[test]
fn a_user_and_the_password_are_needed_on_every_path() {
    let site = Site::start(&users(&[("alice", "open:sesame"), ("bob", "")]));
    wait_for("readiness", || {
        (site.get("/-/ready", "bob:").status == 200).then_some(())
    });
    let paths = [
        "/",
        "/metrics",
        "/-/healthy",
        "/healthz",
        "/-/ready",
        "/-/reload",
        "/none",
    ];
    for path in paths {
        for headers in [
            &[][..],
            &[("Authorization", "Basic")],
            &[("Authorization", "Basic !")],
            &[("Authorization", "Bearer YWxpY2U6b3BlbjpzZXNhbWU=")],
        ] {
            let answer = request(site.address(), "GET", path, headers);
            assert_eq!(answer.status, 401, "{path} {headers:?}");
            assert_eq!(answer.header("www-authenticate"), "Basic");
        }
        for pair in [
            "alice:wrong",
            "alice:",
            "alice:open",
            "ALICE:open:sesame",
            "mallory:open:sesame",
            "bob:x",
            ":",
        ] {
            assert_eq!(site.get(path, pair).status, 401, "{path} {pair}");
        }
        assert_ne!(site.get(path, "alice:open:sesame").status, 401, "{path}");
    }
    assert_eq!(
        request(site.address(), "POST", "/-/reload", &[]).status,
        401
    );
    assert_eq!(site.get("/-/healthy", "bob:").text(), "healthy\n");
    let metrics = site.get("/metrics", "alice:open:sesame");
    let counted =
        "cloudtrail_tls_exporter_http_requests_total{code=\"401\",path=\"/metrics\"} 11\n";
    assert!(metrics.text().contains(counted), "{}", metrics.text());
    let log = site.exporter.log().concat();
    assert!(!log.contains("sesame") && !log.contains("$2b$"), "{log}");
}

#[test]
fn each_password_is_compared_once_and_that_of_nobody_as_well() {
    let site = Site::start(&users(&[("alice", "sesame"), ("bob", "other")]));
    let mut expected = 0;
    for (pair, status) in [
        ("alice:sesame", 200),
        ("alice:wrong", 401),
        ("bob:sesame", 401),
        ("mallory:sesame", 401),
        ("mallory:wrong", 401),
        ("bob:other", 200),
    ] {
        expected += 1;
        for _ in 0..3 {
            assert_eq!(site.get("/-/healthy", pair).status, status, "{pair}");
        }
        wait_for("the log", || (site.compared() >= expected).then_some(()));
        assert_eq!(site.compared(), expected, "{pair}");
    }
    // Without a password there is nothing to compare.
    assert_eq!(
        request(site.address(), "GET", "/-/healthy", &[]).status,
        401
    );
    assert_eq!(site.compared(), expected);

    // Many at once with the same one wait for the first, instead of computing the same.
    let fresh: Vec<u16> = thread::scope(|scope| {
        let asked: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| site.get("/-/healthy", "alice:fresh").status))
            .collect();
        asked
            .into_iter()
            .map(|asked| asked.join().unwrap())
            .collect()
    });
    assert_eq!(fresh, [401; 8]);
    wait_for("the log", || (site.compared() > expected).then_some(()));
    assert_eq!(site.compared(), expected + 1);
}

#[test]
fn slow_hashes_hold_up_neither_others_nor_those_who_are_known() {
    let slow = user("slow", "sesame", 13);
    let site = Site::start(&format!(
        "basic_auth_users:\n{slow}{}",
        user("quick", "sesame", 4)
    ));
    assert_eq!(site.get("/-/healthy", "quick:sesame").status, 200);
    let started = Instant::now();
    thread::scope(|scope| {
        let site = &site;
        let guessing: Vec<_> = (0..4)
            .map(|n| scope.spawn(move || site.get("/-/healthy", &format!("slow:{n}")).status))
            .collect();
        let mut answered = 0;
        while !guessing.iter().all(thread::ScopedJoinHandle::is_finished) {
            assert_eq!(site.get("/-/healthy", "quick:sesame").status, 200);
            answered += 1;
        }
        let took = started.elapsed();
        // Four hashes of that cost, one after the other, take long; an answer takes a moment.
        assert!(answered > 20, "{answered} answers in {took:?}");
        for guess in guessing {
            assert_eq!(guess.join().unwrap(), 401);
        }
    });
}

#[test]
fn users_change_while_it_runs_but_cannot_be_done_without() {
    let site = Site::start(&users(&[("alice", "first")]));
    assert_eq!(site.get("/", "alice:first").status, 200);
    site.edit(&users(&[("alice", "second"), ("bob", "his")]));
    assert_eq!(
        site.get("/", "alice:first").status,
        401,
        "remembered for the old hash alone"
    );
    assert_eq!(site.get("/", "alice:second").status, 200);
    assert_eq!(site.get("/", "bob:his").status, 200);
    thread::sleep(Duration::from_millis(1500));
    site.edit(&users(&[("bob", "his")]));
    assert_eq!(site.get("/", "alice:second").status, 401);
    assert_eq!(site.get("/", "bob:his").status, 200);

    // Cut short while it is written, or broken: the door stays shut.
    for text in [
        "",
        "basic_auth_users: {}\n",
        "basic_auth_users: {bob: x}\n",
        "basic_auth_users",
        "{",
    ] {
        site.edit(text);
        let answer = site.get("/", "bob:his");
        assert_eq!(answer.status, 500, "{text}");
        assert_eq!(
            answer.text(),
            "the web configuration is broken, see the log\n"
        );
        assert_eq!(
            request(site.address(), "GET", "/metrics", &[]).status,
            500,
            "{text}"
        );
    }
    site.wait_for_log("cannot do without passwords without a restart");
    site.wait_for_log("nobody is let in until the web configuration is mended");
    let told = || {
        let log = site.exporter.log();
        let lines = log.iter().filter(|line| line.contains("nobody is let in"));
        lines.count()
    };
    // Each problem once, not at each request; the first two texts have the same.
    wait_for("the log", || (told() >= 4).then_some(()));
    assert_eq!(told(), 4);
    site.edit(&users(&[("bob", "his")]));
    assert_eq!(site.get("/", "bob:his").status, 200);

    let open = Site::start("");
    assert_eq!(
        request(open.address(), "GET", "/-/healthy", &[]).status,
        200
    );
    open.edit(&users(&[("bob", "his")]));
    assert_eq!(
        request(open.address(), "GET", "/-/healthy", &[]).status,
        401,
        "more is always possible"
    );
    // From then on it cannot be taken away either.
    for text in ["", "basic_auth_users: {}\n"] {
        open.edit(text);
        for pair in ["bob:his", "nobody:"] {
            assert_eq!(open.get("/-/healthy", pair).status, 500, "{text}");
        }
    }
    open.wait_for_log("cannot do without passwords without a restart");
    open.edit("tls_server_config: {cert_file: none.crt, key_file: none.key}\n");
    assert_eq!(open.get("/-/healthy", "bob:his").status, 500);
}

/// A pipe that nobody writes to is there as a file on a hung mount is, and reading it never ends either.
#[test]
fn a_file_that_is_never_read_holds_up_one_request_and_nothing_else() {
    let site = Site::start(&users(&[("alice", "sesame")]));
    let get = || site.get("/-/healthy", "alice:sesame").status;
    assert_eq!(get(), 200);
    fs::remove_file(&site.web).unwrap();
    let made = Command::new("mkfifo").arg(&site.web).status().unwrap();
    assert!(made.success());
    thread::sleep(FRESH);
    let mut first = TcpStream::connect(site.address()).unwrap();
    first
        .write_all(b"GET /-/healthy HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .unwrap();
    first
        .set_read_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    let nothing = first.read(&mut [0]).unwrap_err();
    assert_eq!(nothing.kind(), ErrorKind::WouldBlock);
    // What was read before holds.
    for _ in 0..20 {
        assert_eq!(get(), 200);
        assert_eq!(site.get("/-/healthy", "alice:wrong").status, 401);
    }
    let basic = format!("Basic {}", STANDARD.encode("alice:sesame"));
    let headers = [("Authorization", basic.as_str())];
    let reload = request(site.address(), "POST", "/-/reload", &headers);
    assert_ne!(reload.status, 200);
    assert!(
        reload.text().contains("took too long to be read"),
        "{}",
        reload.text()
    );
    assert_eq!(get(), 200);
    drop(first);
    let (status, took, log) = site.exporter.end_with("TERM");
    assert!(status.success(), "{log:#?}");
    assert!(took < Duration::from_secs(9), "{took:?}");
}

#[test]
fn headers_stand_in_every_answer() {
    let headers = "http_server_config:\n  headers:\n    X-Frame-Options: deny\n    X-Content-Type-Options: nosniff\n    \
                   X-XSS-Protection: ''\n    Content-Security-Policy: \"default-src 'self'\"\n    \
                   Strict-Transport-Security: max-age=1\n";
    let limit = "rate_limit: {interval: 1h, burst: 3}\n";
    let site = Site::start(&[headers, limit, &users(&[("alice", "sesame")])].concat());
    let check = |answer: Answer, status: u16| {
        assert_eq!(answer.status, status);
        let names = [
            "x-frame-options",
            "x-content-type-options",
            "content-security-policy",
            "strict-transport-security",
        ];
        let found = names.map(|name| answer.header(name).to_owned());
        assert_eq!(
            found,
            ["deny", "nosniff", "default-src 'self'", "max-age=1"],
            "{status}"
        );
        assert!(
            !answer.headers.contains_key("x-xss-protection"),
            "blank is not set"
        );
    };
    check(site.get("/-/healthy", "alice:sesame"), 200);
    check(site.get("/none", "alice:sesame"), 404);
    check(request(site.address(), "GET", "/metrics", &[]), 401);
    check(site.get("/-/healthy", "alice:sesame"), 429);
}

#[test]
fn requests_over_the_rate_limit_are_refused_until_its_interval_is_over() {
    let limit = |interval: &str, more: &str| {
        format!("rate_limit: {{interval: {interval}, burst: 2}}\n{more}")
    };
    let site = Site::start(&limit("1h", ""));
    let statuses = || [(); 4].map(|()| request(site.address(), "GET", "/-/healthy", &[]).status);
    assert_eq!(statuses(), [200, 200, 429, 429]);
    let answer = request(site.address(), "GET", "/-/healthy", &[]);
    assert_eq!(
        answer.text(),
        "too many requests, see rate_limit of the web configuration\n"
    );
    // Another file with the same limit does not fill the bucket; another limit is a new one.
    site.edit(&limit(
        "1h",
        "http_server_config: {headers: {X-Frame-Options: deny}}\n",
    ));
    assert_eq!(statuses(), [429; 4]);
    site.edit(&limit("2h", ""));
    assert_eq!(statuses(), [200, 200, 429, 429]);
    site.edit(&limit("100ms", ""));
    assert_eq!(statuses()[..2], [200, 200]);
    wait_for("the interval", || {
        (request(site.address(), "GET", "/-/healthy", &[]).status == 200).then_some(())
    });
    site.edit("");
    assert_eq!(statuses(), [200; 4]);
}
