//! A real Prometheus scrapes both formats and answers with the right numbers.

#[path = "support/certificates.rs"]
mod certificates;
#[path = "support/handmade.rs"]
mod handmade;
#[path = "support/programs.rs"]
mod programs;
mod support;

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use handmade::{ACCOUNTS, File, LONG_WINDOW, tls};
use serde_json::Value;
use support::{Answer, Exporter, config, request, wait_for};

const JOBS: [&str; 2] = ["openmetrics", "text"];

/// Between Prometheus and the exporter: hands every scrape on, and remembers what was served.
#[derive(Clone)]
struct Proxy {
    address: SocketAddr,
    served: Arc<Mutex<BTreeSet<[String; 2]>>>,
}

impl Proxy {
    /// A proxy that asks with `accept` in place of what Prometheus accepts, if there is one.
    fn start(exporter: SocketAddr, accept: Option<&'static str>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = Self {
            address: listener.local_addr().unwrap(),
            served: Arc::default(),
        };
        let shared = proxy.clone();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                shared.pass_on(stream, exporter, accept);
            }
        });
        proxy
    }

    fn pass_on(&self, mut stream: TcpStream, exporter: SocketAddr, accept: Option<&str>) {
        let lines = BufReader::new(&stream).lines().map_while(Result::ok);
        let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
        let path = head[0].split(' ').nth(1).unwrap();
        let asked = |name: &str| {
            let mut headers = head.iter().filter_map(|line| line.split_once(": "));
            let found = headers.find(|(key, _)| key.eq_ignore_ascii_case(name));
            found.map_or("", |(_, value)| value)
        };
        let headers = [
            ("Accept", accept.unwrap_or(asked("accept"))),
            ("Accept-Encoding", asked("accept-encoding")),
        ];
        let answer = request(exporter, "GET", path, &headers);
        let told = ["content-type", "content-encoding"].map(|name| answer.header(name).to_owned());
        let [content_type, encoding] = &told;
        let Answer { status, body, .. } = &answer;
        let length = body.len();
        write!(
            stream,
            "HTTP/1.1 {status} OK\r\nContent-Type: {content_type}\r\nContent-Encoding: {encoding}\r\n\
             Content-Length: {length}\r\nConnection: close\r\n\r\n"
        )
        .and_then(|()| stream.write_all(body))
        .unwrap();
        self.served.lock().unwrap().insert(told);
    }

    fn served(&self) -> Vec<[String; 2]> {
        self.served.lock().unwrap().iter().cloned().collect()
    }
}

/// A running Prometheus.
struct Prometheus {
    child: Child,
    address: SocketAddr,
    log: PathBuf,
}

impl Prometheus {
    /// Over one target for each job.
    fn start(home: &Path, targets: [SocketAddr; 2]) -> Self {
        let jobs = JOBS.iter().zip(targets);
        let jobs = jobs.map(|(job, target)| {
            format!("- {{job_name: {job}, static_configs: [{{targets: ['{target}'], labels: {{instance: exporter}}}}]}}\n")
        });
        Self::start_with(home, &jobs.collect::<String>())
    }

    /// With these jobs, as its file has them.
    fn start_with(home: &Path, jobs: &str) -> Self {
        let yaml =
            format!("global: {{scrape_interval: 1s, scrape_timeout: 1s}}\nscrape_configs:\n{jobs}");
        fs::write(home.join("prometheus.yml"), yaml).unwrap();
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let log = home.join("prometheus.log");
        let child = Command::new("prometheus")
            .arg(format!(
                "--config.file={}",
                home.join("prometheus.yml").display()
            ))
            .arg(format!(
                "--storage.tsdb.path={}",
                home.join("data").display()
            ))
            .arg(format!("--web.listen-address={address}"))
            .arg("--log.level=debug")
            .stderr(fs::File::create(&log).unwrap())
            .stdout(Stdio::null())
            .spawn()
            .expect("Debian's package `prometheus` is installed by tests/run");
        let prometheus = Self {
            child,
            address,
            log,
        };
        wait_for("Prometheus", || {
            ureq::get(prometheus.url("/-/ready")).call().ok()
        });
        prometheus
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The value of an instant query that has at most one answer.
    fn ask(&self, query: &str) -> Option<f64> {
        let asked = ureq::get(self.url("/api/v1/query")).query("query", query);
        let text = asked.call().unwrap().body_mut().read_to_string().unwrap();
        let answer: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(answer["warnings"], Value::Null, "{query}");
        let results = answer["data"]["result"].as_array().unwrap();
        assert!(results.len() <= 1, "{query}: {text}");
        let value = results.first()?["value"][1].as_str().unwrap();
        Some(value.parse().unwrap())
    }

    /// Waits until both jobs have this value; `JOB` in the query is the matcher of the job.
    fn expect(&self, query: &str, value: f64) {
        for job in JOBS {
            let query = query.replace("JOB", &format!("job=\"{job}\""));
            wait_for(&format!("{query} == {value}"), || {
                (self.ask(&query) == Some(value)).then_some(())
            });
        }
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[test]
fn prometheus_reads_both_formats_and_answers_with_the_right_numbers() {
    let home = tempfile::tempdir().unwrap();
    let trail = home.path().join("trail");
    handmade::deliver_golden(&trail);
    let exporter = Exporter::start(&config(home.path(), &trail, LONG_WINDOW));
    let negotiated = Proxy::start(exporter.address, None);
    let forced = Proxy::start(exporter.address, Some("text/plain;version=0.0.4"));
    let prometheus = Prometheus::start(home.path(), [negotiated.address, forced.address]);

    let legacy =
        r#"{JOB,source="trail",aws_service="s3",event_name="GetObject",tls_version="TLSv1.1"}"#;
    let counter = format!("cloudtrail_tls_calls_total{legacy}");
    let gauge = format!("cloudtrail_tls_window_calls{legacy}");
    prometheus.expect(&counter, 2.0);
    prometheus.expect(&gauge, 2.0);
    prometheus.expect(
        "sum(cloudtrail_tls_calls_total{JOB})",
        handmade::GOLDEN_CALLS,
    );
    prometheus.expect(
        "sum(cloudtrail_tls_window_calls{JOB})",
        handmade::GOLDEN_CALLS,
    );
    for (account, outdated) in ACCOUNTS.into_iter().zip([3.0, 0.0, 0.0]) {
        let query = format!(
            r#"cloudtrail_tls_account_outdated_window_calls{{JOB,account_id="{account}"}}"#
        );
        prometheus.expect(&query, outdated);
    }
    let odd = r#"count(cloudtrail_tls_calls_total{JOB,event_name="Get \"Odd\"\\ Name\nin {two} lines, #1"})"#;
    prometheus.expect(odd, 1.0);
    let share = |side| {
        format!(r#"sum(cloudtrail_tls_key_exchange_calls_total{{JOB,post_quantum="{side}"}})"#)
    };
    prometheus.expect(&share("yes"), 5.0);
    prometheus.expect(&share("no"), 5.0);

    let again = tls("TLSv1.1", "ECDHE-RSA-AES128-SHA", "");
    File::new(ACCOUNTS[0], "eu-west-1", "20250303T1405Z")
        .call("s3", "GetObject", &again)
        .call("s3", "GetObject", &again)
        .call("s3", "GetObject", &again)
        .deliver(&trail);
    prometheus.expect(&counter, 5.0);
    prometheus.expect(&gauge, 5.0);
    prometheus.expect("sum(resets(cloudtrail_tls_calls_total{JOB}[10m]))", 0.0);
    prometheus.expect(
        "sum(increase(cloudtrail_tls_calls_total{JOB}[10m])) > bool 0",
        1.0,
    );

    prometheus.expect("up{JOB}", 1.0);
    prometheus.expect("min_over_time(up{JOB}[10m])", 1.0);
    let samples = exporter.scrape().0.len() as f64;
    prometheus.expect("scrape_samples_scraped{JOB}", samples);
    prometheus.expect("scrape_samples_post_metric_relabeling{JOB}", samples);
    prometheus.expect(
        "absent(cloudtrail_tls_exporter_build_info{JOB}) or vector(0)",
        0.0,
    );

    let served = |content_type: &str| vec![[content_type.to_owned(), "gzip".to_owned()]];
    assert_eq!(
        negotiated.served(),
        served("application/openmetrics-text; version=1.0.0; charset=utf-8")
    );
    assert_eq!(
        forced.served(),
        served("text/plain; version=0.0.4; charset=utf-8")
    );
    let log = fs::read_to_string(&prometheus.log).unwrap();
    assert!(log.contains("Server is ready"), "{log}");
    let failed = |line: &str| line.contains("scrape manager") && line.contains("err=");
    let complaint =
        |line: &&str| line.contains("level=warn") || line.contains("level=error") || failed(line);
    let complaints: Vec<&str> = log.lines().filter(complaint).collect();
    assert!(complaints.is_empty(), "{complaints:#?}");
    programs::promtool_is_content(&exporter.get("/metrics", &[]).text());
}

/// As the README says it under "TLS and passwords".
#[test]
fn prometheus_scrapes_by_tls_with_its_certificate_and_a_password() {
    let home = tempfile::tempdir().unwrap();
    let trail = home.path().join("trail");
    handmade::deliver_golden(&trail);
    certificates::deliver(home.path());
    let hash = bcrypt::hash("sesame", 10).unwrap();
    let web = format!(
        "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n  \
         client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.crt\n\
         basic_auth_users:\n  prometheus: {hash}\n"
    );
    let file = home.path().join("web.yml");
    fs::write(&file, web).unwrap();
    let config = config(home.path(), &trail, LONG_WINDOW);
    let exporter = Exporter::start_with(&[
        "--config.file",
        config.to_str().unwrap(),
        "--web.config.file",
        file.to_str().unwrap(),
    ]);
    let job = |name: &str, http2: bool, password: &str| {
        let (folder, target) = (home.path().display(), exporter.address);
        format!(
            "- job_name: {name}\n  scheme: https\n  enable_http2: {http2}\n  \
             tls_config: {{ca_file: {folder}/ca.crt, cert_file: {folder}/client.crt, key_file: {folder}/client.key}}\n  \
             basic_auth: {{username: prometheus, password: {password}}}\n  \
             static_configs: [{{targets: ['{target}'], labels: {{instance: exporter}}}}]\n"
        )
    };
    let jobs = [
        job(JOBS[0], true, "sesame"),
        job(JOBS[1], false, "sesame"),
        job("wrong", true, "guess"),
    ];
    let prometheus = Prometheus::start_with(home.path(), &jobs.concat());
    prometheus.expect("up{JOB}", 1.0);
    prometheus.expect(
        "sum(cloudtrail_tls_calls_total{JOB})",
        handmade::GOLDEN_CALLS,
    );
    wait_for("a refusal", || {
        (prometheus.ask("up{job=\"wrong\"}") == Some(0.0)).then_some(())
    });
    // All scrapes of a job go by one connection and one comparison.
    wait_for("some scrapes", || {
        let scrapes = "count_over_time(up{job=\"openmetrics\"}[10m])";
        (prometheus.ask(scrapes)? >= 5.0).then_some(())
    });
    let compared = exporter.log();
    let compared = compared
        .iter()
        .filter(|line| line.contains("was compared with"));
    assert_eq!(
        compared.count(),
        2,
        "one password that is right and one that is wrong"
    );
}
