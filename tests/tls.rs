//! TLS over the loopback, with curl as the client: who gets through with which certificate, version and cipher suite,
//! what a changed file does to a running server, and what slow clients do.

#[path = "support/certificates.rs"]
mod certificates;
mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use certificates::{Ca, Got, curl, deliver, dns, email, ip, uri};
use support::{Exporter, PATIENCE, config, request, wait_for};
use tempfile::TempDir;

const TLS: &str = "cert_file: server.crt, key_file: server.key";

/// So long the program goes by what it knows of the files; and a little more.
const FRESH: Duration = Duration::from_millis(120);

/// A running exporter with a web configuration, and a client for it.
struct Site {
    home: TempDir,
    exporter: Exporter,
}

impl Site {
    /// With these keys in `tls_server_config`, beside the certificate, and more of the file.
    fn start(keys: &str, more: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        deliver(home.path());
        Self::start_in(home, keys, more, &[])
    }

    fn start_in(home: TempDir, keys: &str, more: &str, arguments: &[&str]) -> Self {
        write(home.path(), keys, more);
        let config = config(home.path(), home.path(), "");
        let web = home.path().join("web.yml");
        let files = [
            "--config.file",
            config.to_str().unwrap(),
            "--web.config.file",
            web.to_str().unwrap(),
        ];
        let exporter = Exporter::start_with(&[&files, arguments].concat());
        Self { home, exporter }
    }

    fn url(&self, path: &str) -> String {
        format!("https://{}{path}", self.exporter.address)
    }

    fn curl(&self, arguments: &[&str]) -> Got {
        let url = self.url("/-/healthy");
        curl(self.home.path(), &[arguments, &[&url]].concat())
    }

    /// The status, or `None` where the handshake failed.
    fn status(&self, arguments: &[&str]) -> Option<u16> {
        let got = self.curl(arguments);
        // The handshake failed; with TLS 1.3 the client learns of its refusal when it writes or reads.
        assert!([0, 35, 55, 56, 98].contains(&got.code), "{got:?}");
        (got.code == 0).then(|| got.status().unwrap())
    }

    fn wait_for_log(&self, part: &str) {
        wait_for(part, || {
            let log = self.exporter.log();
            log.iter().any(|line| line.contains(part)).then_some(())
        });
    }
}

fn write(home: &Path, keys: &str, more: &str) {
    let text = format!("tls_server_config: {{{TLS}{keys}}}\n{more}");
    edit(home, &text);
}

/// Writes the file anew, and waits until it is looked at.
fn edit(home: &Path, text: &str) {
    fs::write(home.join("web.yml"), text).unwrap();
    sleep(FRESH);
}

#[test]
fn tls_is_spoken_in_both_versions_and_http_in_both() {
    let site = Site::start("", "");
    site.wait_for_log("TLS is enabled");
    for (arguments, version) in [
        (&["--http2"][..], "HTTP/2 200"),
        (&["--http1.1"], "HTTP/1.1 200"),
        (&["--http2", "--tls-max", "1.2"], "HTTP/2 200"),
        (&["--http1.1", "--tlsv1.3"], "HTTP/1.1 200"),
    ] {
        let got = site.curl(arguments);
        assert!(
            got.out.starts_with(version) && got.out.ends_with("healthy\n"),
            "{got:?}"
        );
    }
    let metrics = wait_for("readiness", || {
        let got = curl(site.home.path(), &["--compressed", &site.url("/metrics")]);
        (got.status() == Some(200)).then_some(got)
    });
    assert!(metrics.has("content-encoding: gzip"), "{metrics:?}");
    assert!(
        metrics.has("\ncloudtrail_tls_exporter_build_info{"),
        "{metrics:?}"
    );

    // OpenSSL speaks TLS 1.1 only when it is told that security does not matter.
    let old = [
        "--tlsv1.0",
        "--tls-max",
        "1.1",
        "--ciphers",
        "DEFAULT@SECLEVEL=0",
    ];
    let got = site.curl(&[&["-v"], &old[..]].concat());
    assert_eq!(got.code, 35, "{got:?}");
    assert!(got.told.contains("TLS alert"), "{got:?}");
    let plain = request(site.exporter.address, "GET", "/metrics", &[]);
    assert_eq!(
        (plain.status, plain.text().as_str()),
        (400, "this port speaks HTTPS\n")
    );
}

#[test]
fn versions_suites_and_curves_are_those_of_the_file() {
    let inline = |home: &Path, key: &str, file: &str| {
        let pem = fs::read_to_string(home.join(file)).unwrap();
        let lines: String = pem.lines().map(|line| format!("    {line}\n")).collect();
        format!("  {key}: |\n{lines}")
    };
    let site = Site::start("", "");
    let home = site.home.path();
    let pems = inline(home, "cert", "server.crt") + &inline(home, "key", "server.key");
    let rewrite = |more: &str| {
        let text = format!("tls_server_config:\n{pems}{more}\n");
        edit(home, &text);
    };
    let suite = |got: &Got| {
        let line = got
            .told
            .lines()
            .find(|line| line.contains("SSL connection using"));
        line.map(|line| line.rsplit(' ').next().unwrap().to_owned())
    };
    // The same preference that curl has, turned round.
    let both = [
        "-v",
        "--tls-max",
        "1.2",
        "--ciphers",
        "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-ECDSA-AES128-GCM-SHA256",
    ];
    let suites = "  cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384]\n";
    rewrite(suites);
    assert_eq!(
        suite(&site.curl(&both)).unwrap(),
        "ECDHE-ECDSA-AES128-GCM-SHA256"
    );
    rewrite(&format!("{suites}  prefer_server_cipher_suites: false"));
    assert_eq!(
        suite(&site.curl(&both)).unwrap(),
        "ECDHE-ECDSA-AES256-GCM-SHA384"
    );
    rewrite("  cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256]");
    let other = [
        "--tls-max",
        "1.2",
        "--ciphers",
        "ECDHE-ECDSA-AES256-GCM-SHA384",
    ];
    assert_eq!(site.status(&other), None);
    assert_eq!(
        site.status(&["--tlsv1.3"]),
        Some(200),
        "TLS 1.3 has suites of its own"
    );

    rewrite("  min_version: TLS13");
    assert_eq!(site.status(&["--tls-max", "1.2"]), None);
    assert_eq!(site.status(&["--tlsv1.3"]), Some(200));
    rewrite("  max_version: TLS12");
    assert_eq!(site.status(&["--tlsv1.3"]), None);
    assert_eq!(site.status(&["--tls-max", "1.2"]), Some(200));

    rewrite("  curve_preferences: [CurveP384]");
    assert_eq!(site.status(&["--curves", "X25519"]), None);
    assert_eq!(site.status(&["--curves", "P-384"]), Some(200));

    rewrite("http_server_config: {http2: false}");
    assert!(site.curl(&["--http2"]).out.starts_with("HTTP/1.1 200"));
}

#[test]
fn clients_get_through_by_their_certificates() {
    let site = Site::start("", "");
    let home = site.home.path();
    Ca::new(home, "other_ca").issue("stranger", &[dns("client.example.org")]);
    let none: &[&str] = &[];
    let client = &["--cert", "client.crt", "--key", "client.key"][..];
    let stranger = &["--cert", "stranger.crt", "--key", "stranger.key"][..];
    let mut wrong = Vec::new();
    for (policy, ca, [without, own, foreign]) in [
        ("NoClientCert", false, [true, true, true]),
        ("RequestClientCert", false, [true, true, true]),
        ("RequestClientCert", true, [true, true, true]),
        ("VerifyClientCertIfGiven", true, [true, true, false]),
        ("RequireAnyClientCert", false, [false, true, true]),
        ("RequireClientCert", true, [false, true, true]),
        ("RequireAndVerifyClientCert", true, [false, true, false]),
    ] {
        let ca = if ca { ", client_ca_file: ca.crt" } else { "" };
        write(home, &format!(", client_auth_type: {policy}{ca}"), "");
        for tls in ["1.2", "1.3"] {
            let found = [none, client, stranger].map(|shown| {
                let version = ["--tls-max", tls];
                site.status(&[&version, shown].concat()) == Some(200)
            });
            if found != [without, own, foreign] {
                wrong.push(format!("{policy}{ca} TLS {tls}: {found:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn clients_must_have_one_of_the_allowed_names() {
    let home = tempfile::tempdir().unwrap();
    let ca = deliver(home.path());
    let others = [
        dns("prometheus.example.org.example.net"),
        dns("*.example.org"),
    ];
    ca.issue("stranger", &others);
    ca.issue("nameless", &[]);
    ca.issue("by_dns", &[dns("a"), dns("prometheus.example.org")]);
    ca.issue("by_ip", &[ip("10.1.2.3")]);
    ca.issue("by_ipv6", &[ip("2001:db8::1")]);
    ca.issue("by_uri", &[uri("spiffe://example.org/prometheus")]);
    ca.issue("by_email", &[email("prometheus@example.org")]);
    let keys = ", client_auth_type: RequireAndVerifyClientCert, client_ca_file: ca.crt, client_allowed_sans: \
                [prometheus.example.org, 10.1.2.3, '2001:db8::1', 'spiffe://example.org/prometheus', \
                prometheus@example.org]";
    let site = Site::start_in(home, keys, "", &[]);
    for name in [
        "by_dns", "by_ip", "by_ipv6", "by_uri", "by_email", "client", "stranger", "nameless",
    ] {
        let (cert, key) = (format!("{name}.crt"), format!("{name}.key"));
        let status = site.status(&["--cert", &cert, "--key", &key]);
        assert_eq!(status, name.starts_with("by_").then_some(200), "{name}");
    }
    assert_eq!(site.status(&[]), None);
}

#[test]
fn certificates_and_file_are_read_again_without_a_restart() {
    let site = Site::start("", "");
    let home = site.home.path();
    let trusted = |ca: &str| curl(home, &["--cacert", ca, &site.url("/-/healthy")]).code == 0;
    assert!(trusted("ca.crt"));

    // In place, at once, and of the same length or not.
    let second = Ca::new(home, "second");
    second.issue("server", &[ip("127.0.0.1")]);
    sleep(FRESH);
    assert!(trusted("second.crt") && !trusted("ca.crt"));
    // By rename, as Kubernetes does with its links, long after the last look.
    sleep(Duration::from_millis(1500));
    assert!(trusted("second.crt"));
    let third = Ca::new(home, "third");
    third.issue("next", &[ip("127.0.0.1")]);
    fs::rename(home.join("next.crt"), home.join("server.crt")).unwrap();
    sleep(FRESH);
    // A certificate without its key is broken for as long as it takes: nobody gets through.
    assert!(!trusted("third.crt") && !trusted("second.crt"));
    site.wait_for_log("a problem of the web configuration");
    site.wait_for_log("cannot be used together");
    fs::rename(home.join("next.key"), home.join("server.key")).unwrap();
    sleep(FRESH);
    assert!(trusted("third.crt"));
    site.wait_for_log("the web configuration was read anew");

    for (text, problem) in [
        ("", "TLS cannot be switched on or off"),
        ("basic_auth_users: {}\n", "TLS cannot be switched on or off"),
        (
            "tls_server_config: {cert_file: none.crt, key_file: server.key}\n",
            "No such file",
        ),
        ("tls_server_config: [", "web.yml"),
    ] {
        edit(home, text);
        assert!(!trusted("third.crt"), "{text}");
        site.wait_for_log(problem);
    }
    fs::remove_file(home.join("web.yml")).unwrap();
    sleep(FRESH);
    assert!(!trusted("third.crt"));
    site.wait_for_log("cannot be read");
    write(home, "", "");
    assert!(trusted("third.crt"));
}

/// Each step demands more of clients than the one before, and lets through `client` of the CA with its name.
#[test]
fn what_is_demanded_of_clients_can_be_raised_by_an_edit_but_not_lowered() {
    let any = ", client_auth_type: RequireAnyClientCert";
    let verified = ", client_auth_type: RequireAndVerifyClientCert, client_ca_file: ca.crt";
    let names = ", client_allowed_sans: [client.example.org]";
    let certificates = "client_auth_type: cannot do without client certificates without a restart";
    let cas = "client_auth_type: cannot do without a CA of the clients without a restart";
    let no_names = "client_allowed_sans: cannot do without names without a restart";

    let client = ["--cert", "client.crt", "--key", "client.key"];
    let stranger = ["--cert", "stranger.crt", "--key", "stranger.key"];
    for (before, more, less, problem) in [
        ("", any.to_owned(), "", certificates),
        (any, format!("{any}{names}"), any, no_names),
        (any, verified.to_owned(), any, cas),
    ] {
        let site = Site::start(before, "");
        let home = site.home.path();
        Ca::new(home, "other_ca").issue("stranger", &[dns("other.example.org")]);
        assert_eq!(site.status(&stranger), Some(200), "{before}");
        write(home, &more, "");
        assert_eq!(site.status(&client), Some(200), "{more}");
        if more != any {
            assert_eq!(site.status(&stranger), None, "{more}");
        }
        assert_eq!(site.status(&[]), None, "{more}");
        write(home, less, "");
        for shown in [&client[..], &stranger, &[]] {
            assert_eq!(site.status(shown), None, "{more} to {less}: {shown:?}");
        }
        site.wait_for_log(problem);
        write(home, &more, "");
        assert_eq!(site.status(&client), Some(200), "{more} again");
    }
}

#[test]
fn a_reload_tells_of_a_broken_web_configuration() {
    let site = Site::start("", "");
    let post = || curl(site.home.path(), &["-X", "POST", &site.url("/-/reload")]).status();
    assert_eq!(post(), Some(200));
    edit(site.home.path(), "{");
    site.exporter.signal("HUP");
    site.wait_for_log(
        "not reloaded: the configuration before goes on, and nobody is let in until the web configuration is mended",
    );
    write(site.home.path(), "", "");
    assert_eq!(post(), Some(200));
}

#[test]
fn probes_are_answered_in_plain_http_and_nothing_else_is() {
    let home = tempfile::tempdir().unwrap();
    deliver(home.path());
    let keys = ", client_auth_type: RequireAndVerifyClientCert, client_ca_file: ca.crt";
    let arguments = ["--probe.listen-address=127.0.0.1:0"];
    let site = Site::start_in(
        home,
        keys,
        "http_server_config: {headers: {X-Frame-Options: deny}}\n",
        &arguments,
    );
    assert_eq!(site.status(&[]), None);
    let log = site.exporter.log();
    let line = log
        .iter()
        .find(|line| line.contains("listening for probes"))
        .unwrap();
    let address: SocketAddr = line
        .split("address=")
        .nth(1)
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    wait_for("readiness", || {
        (request(address, "GET", "/-/ready", &[]).status == 200).then_some(())
    });
    for (path, status) in [
        ("/-/healthy", 200),
        ("/healthz", 200),
        ("/-/ready", 200),
        ("/readyz", 200),
        ("/metrics", 404),
        ("/", 404),
        ("/-/reload", 404),
    ] {
        let answer = request(address, "GET", path, &[]);
        assert_eq!(answer.status, status, "{path}");
        assert_eq!(answer.header("x-frame-options"), "");
    }
    assert_eq!(request(address, "POST", "/-/reload", &[]).status, 404);
    assert_eq!(request(address, "POST", "/-/ready", &[]).status, 405);
}

#[test]
fn who_dawdles_in_the_handshake_holds_up_nobody_and_is_cut_off() {
    let site = Site::start("", "");
    let started = Instant::now();
    let connect = || {
        let stream = TcpStream::connect(site.exporter.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    };
    let mut silent = connect();
    let mut half = connect();
    // The start of a ClientHello that is promised to be longer.
    half.write_all(&[0x16, 3, 1, 1, 0, 1, 0, 0, 0xfc]).unwrap();
    let mut trickling = connect();
    trickling
        .write_all(&[0x16, 3, 1, 1, 0, 1, 0, 0, 0xfc])
        .unwrap();
    let mut feeder = trickling.try_clone().unwrap();
    let feeder = std::thread::spawn(move || {
        while feeder.write_all(&[3]).is_ok() && started.elapsed() < PATIENCE {
            sleep(Duration::from_millis(500));
        }
    });
    assert_eq!(site.status(&[]), Some(200));
    for stream in [&mut silent, &mut half, &mut trickling] {
        // A reset is an end, too.
        stream.read_to_end(&mut Vec::new()).ok();
        let after = started.elapsed();
        assert!(
            after > Duration::from_secs(8) && after < Duration::from_secs(40),
            "{after:?}"
        );
    }
    feeder.join().unwrap();

    let _waiting = connect();
    site.wait_for_log("took too long");
    assert_eq!(site.status(&[]), Some(200));
    let (status, took, log) = site.exporter.end_with("TERM");
    assert!(status.success());
    assert!(took < Duration::from_secs(4), "{took:?}");
    assert!(
        !log.iter().any(|line| line.contains("cut off by the stop")),
        "{log:?}"
    );
}

#[test]
fn connections_are_kept_between_scrapes() {
    let site = Site::start("", "");
    let url = site.url("/-/healthy");
    let twice = |version| {
        // Twelve seconds between them: longer than a request may take to arrive.
        let format = "connections=%{num_connects}\n";
        let arguments = [version, "--rate", "5/m", "-w", format, &url, &url];
        let got = curl(site.home.path(), &arguments);
        let lines = got
            .out
            .lines()
            .filter(|line| line.starts_with("connections="));
        let lines: Vec<&str> = lines.collect();
        assert_eq!(
            lines,
            ["connections=1", "connections=0"],
            "{version}: {got:?}"
        );
    };
    std::thread::scope(|scope| {
        scope.spawn(|| twice("--http1.1"));
        scope.spawn(|| twice("--http2"));
    });
}
