//! The server around the scrape: its pages, what it says before there are data, and its limits.

#[path = "support/handmade.rs"]
mod handmade;
mod support;

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use cloudtrail_tls_exporter::source::Reason;
use handmade::LONG_WINDOW;
use support::{Exporter, PATIENCE, Scrape, config, request};

/// So many series with long names that no connection's buffers hold a scrape of them.
const MANY: u32 = 10_000;

fn connect(exporter: &Exporter) -> TcpStream {
    let stream = TcpStream::connect(exporter.address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// All that the server sends until it closes the connection.
fn until_closed(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => {}
        // Closed with bytes of ours unread.
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        Err(error) => panic!("{error}"),
    }
    String::from_utf8(answer).unwrap()
}

/// A trail of [`MANY`] series and an exporter that has counted it.
fn with_many(home: &Path, arguments: &[&str]) -> Exporter {
    let trail = home.join("trail");
    handmade::deliver_many(&trail, MANY);
    let config = config(home, &trail, LONG_WINDOW);
    let arguments = [&["--config.file", config.to_str().unwrap()], arguments].concat();
    let exporter = Exporter::start_with(&arguments);
    exporter.scrape_until("all calls", |scrape| {
        (scrape.sum("cloudtrail_tls_calls_total", &[]) >= f64::from(MANY)).then_some(())
    });
    exporter
}

/// Asks for a scrape and reads nothing of it but the start of the head.
fn stuck_reader(exporter: &Exporter) -> TcpStream {
    let mut reader = connect(exporter);
    write!(reader, "GET /metrics HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    let mut start = [0; 15];
    reader.read_exact(&mut start).unwrap();
    assert_eq!(&start, b"HTTP/1.1 200 OK");
    reader
}

#[test]
fn each_path_answers_get_and_head_alone() {
    let home = tempfile::tempdir().unwrap();
    let trail = home.path().join("trail");
    handmade::deliver_golden(&trail);
    let exporter = Exporter::start(&config(home.path(), &trail, LONG_WINDOW));
    for (path, body) in [
        ("/-/healthy", "healthy\n"),
        ("/healthz", "healthy\n"),
        ("/-/ready", "ready\n"),
        ("/readyz", "ready\n"),
        ("/-/ready?verbose=1", "ready\n"),
    ] {
        let answer = exporter.get(path, &[]);
        assert_eq!((answer.status, answer.text().as_str()), (200, body));
        assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8");
    }
    for path in ["/metrics/", "/favicon.ico", "/-/", "//metrics"] {
        assert_eq!(exporter.get(path, &[]).status, 404, "{path}");
    }
    for path in ["/", "/metrics", "/-/healthy", "/-/ready", "/healthz"] {
        for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"] {
            let answer = request(exporter.address, method, path, &[]);
            assert_eq!(answer.status, 405, "{method} {path}");
            assert_eq!(answer.header("allow"), "GET, HEAD");
        }
    }
    assert_eq!(request(exporter.address, "POST", "/other", &[]).status, 404);

    let counted = |path, code| {
        let labels = [("path", path), ("code", code)];
        exporter
            .scrape()
            .value("cloudtrail_tls_exporter_http_requests_total", &labels)
    };
    assert_eq!(counted("other", "404"), Some(5.0), "no path of a client's");
    assert_eq!(
        counted("/-/healthy", "405"),
        Some(10.0),
        "one series with its alias"
    );
}

#[test]
fn the_landing_page_tells_version_and_state_and_escapes_what_it_shows() {
    let home = tempfile::tempdir().unwrap();
    let trail = home.path().join("trail");
    handmade::deliver_golden(&trail);
    let exporter = Exporter::start(&config(home.path(), &trail, LONG_WINDOW));
    exporter.scrape_until("the first success", |scrape| {
        (scrape.sum("cloudtrail_tls_exporter_source_up", &[]) == 1.0).then_some(())
    });
    let answer = exporter.get("/", &[]);
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), "text/html; charset=utf-8");
    let page = answer.text();
    for part in [
        concat!("Version ", env!("CARGO_PKG_VERSION")),
        "<td>trail</td><td>up</td>",
        "counted up to 2",
        "<a href=\"/metrics\">",
        "<a href=\"/-/healthy\">",
        "<a href=\"/-/ready\">",
    ] {
        assert!(page.contains(part), "no {part} in {page}");
    }
    drop(exporter);

    let odd = home.path().join("<script>&\"x\"");
    let exporter = Exporter::start(&config(home.path(), &odd, ""));
    exporter.scrape_until("the failure", |scrape| {
        let failures = [("reason", "not_found")];
        let found = scrape.sum("cloudtrail_tls_exporter_batch_failures_total", &failures);
        (found > 0.0).then_some(())
    });
    let page = exporter.get("/", &[]).text();
    assert!(page.contains("&lt;script&gt;&amp;&quot;x&quot;"), "{page}");
    assert!(page.contains("<td>failing: "), "{page}");
    assert!(!page.contains("<script>"), "{page}");
}

/// Failures by reason, and whether the source is up; there must be no series about calls.
fn blind(scrape: &Scrape) -> (Vec<(&'static str, f64)>, Option<f64>) {
    let data = |name: &&String| {
        name.starts_with("cloudtrail_tls_") && !name.starts_with("cloudtrail_tls_exporter_")
    };
    let data: Vec<_> = scrape.0.keys().map(|(name, _)| name).filter(data).collect();
    assert!(data.is_empty(), "{data:?}");
    let failures = Reason::ALL.map(|reason| {
        let labels = [("reason", reason.label())];
        let name = "cloudtrail_tls_exporter_batch_failures_total";
        let value = scrape.value(name, &labels);
        (reason.label(), value.expect("created at zero"))
    });
    let failed = failures.into_iter().filter(|(_, value)| *value != 0.0);
    let up = scrape.value("cloudtrail_tls_exporter_source_up", &[]);
    (failed.collect(), up)
}

#[test]
fn before_any_data_a_scrape_tells_of_the_exporter_and_nothing_of_calls() {
    let home = tempfile::tempdir().unwrap();
    let trail = home.path().join("trail");
    let missing = Exporter::start(&config(home.path(), &trail, ""));
    let (failed, up) = missing.scrape_until("the failure", |scrape| {
        let (failed, up) = blind(scrape);
        (!failed.is_empty()).then_some((failed, up))
    });
    assert_eq!(up, Some(0.0));
    assert_eq!(failed.len(), 1);
    assert_eq!(failed[0].0, "not_found");

    // The same source, once its folder is there: empty is no failure, and still no data.
    fs::create_dir(&trail).unwrap();
    missing.scrape_until("the empty folder", |scrape| {
        (blind(scrape).1 == Some(1.0)).then_some(())
    });
    drop(missing);
    let empty = Exporter::start(&config(home.path(), &trail, ""));
    let (failed, _) = blind(&empty.scrape());
    assert_eq!(failed, []);
    empty.wait_for_scans(2);
    assert_eq!(blind(&empty.scrape()), (Vec::new(), Some(1.0)));
}

#[test]
fn too_long_a_head_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let exporter = Exporter::start(&config(home.path(), home.path(), ""));
    let head =
        |filling: &str| format!("GET /metrics HTTP/1.1\r\nConnection: close\r\n{filling}\r\n");
    let long = format!("X-Long: {}\r\n", "x".repeat(100_000));
    let many: String = (0..200).map(|n| format!("X-{n}: x\r\n")).collect();
    for head in [
        head(&long),
        head(&many),
        format!("GET /{} HTTP/1.0\r\n\r\n", "x".repeat(30_000)),
    ] {
        let mut stream = connect(&exporter);
        // The server may close while this is being written.
        stream.write_all(head.as_bytes()).ok();
        let answer = until_closed(&mut stream);
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 431 "),
            "{answer}"
        );
    }
    let mut stream = connect(&exporter);
    stream.write_all(b"\x16\x03\x01 no HTTP\r\n\r\n").unwrap();
    let answer = until_closed(&mut stream);
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert_eq!(exporter.get("/metrics", &[]).status, 200);
}

#[test]
fn half_a_head_is_waited_for_ten_seconds_however_it_trickles_in() {
    let home = tempfile::tempdir().unwrap();
    let exporter = Exporter::start(&config(home.path(), home.path(), ""));
    let started = Instant::now();
    let mut silent = connect(&exporter);
    let mut half = connect(&exporter);
    let mut trickling = connect(&exporter);
    write!(half, "GET /metrics HTTP/1.1\r\nHost: te").unwrap();
    write!(trickling, "GET /metrics HTTP/1.1\r\nX-Slow: ").unwrap();
    let mut feeder = trickling.try_clone().unwrap();
    let feeder = thread::spawn(move || {
        while feeder.write_all(b"x").is_ok() && started.elapsed() < PATIENCE {
            thread::sleep(Duration::from_millis(500));
        }
    });
    assert_eq!(exporter.get("/metrics", &[]).status, 200);
    for stream in [&mut silent, &mut half, &mut trickling] {
        assert_eq!(until_closed(stream), "");
        let after = started.elapsed();
        assert!(
            after > Duration::from_secs(9) && after < Duration::from_secs(40),
            "{after:?}"
        );
    }
    feeder.join().unwrap();
    assert_eq!(exporter.get("/metrics", &[]).status, 200);
}

#[test]
fn a_reader_that_is_stuck_holds_its_place_until_it_is_cut_off() {
    let home = tempfile::tempdir().unwrap();
    let exporter = with_many(home.path(), &["--web.max-requests=1"]);
    let status = || exporter.get("/metrics", &[]);

    let gone = stuck_reader(&exporter);
    let refused = status();
    assert_eq!(refused.status, 503);
    assert_eq!(refused.header("retry-after"), "1");
    assert!(refused.text().contains("--web.max-requests"));
    for path in ["/-/healthy", "/-/ready", "/"] {
        assert_eq!(exporter.get(path, &[]).status, 200, "{path}");
    }
    drop(gone);
    support::wait_for("the place of a reader that went", || {
        (status().status == 200).then_some(())
    });

    let mut stuck = stuck_reader(&exporter);
    let started = Instant::now();
    assert_eq!(status().status, 503);
    let scrape = support::wait_for("the place of a reader that is stuck", || {
        Some(status()).filter(|answer| answer.status == 200)
    });
    assert!(
        started.elapsed() > Duration::from_secs(20),
        "slow is not stuck"
    );
    let mut rest = Vec::new();
    stuck.read_to_end(&mut rest).ok();
    assert!(rest.len() < scrape.body.len(), "it was cut off");
    let refusals = [("path", "/metrics"), ("code", "503")];
    let counted = exporter
        .scrape()
        .sum("cloudtrail_tls_exporter_http_requests_total", &refusals);
    assert!(counted >= 2.0);
}
