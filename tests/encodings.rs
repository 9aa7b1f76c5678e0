//! A scrape's way to its readers: gzip, headers, HEAD.

#[path = "support/golden.rs"]
mod golden;
#[path = "support/handmade.rs"]
mod handmade;
#[path = "support/programs.rs"]
mod programs;
mod support;

use std::collections::BTreeMap;
use std::process::Command;

use golden::{Home, data_block, order, scrape};
use programs::{OPEN_METRICS, TEXT, python, run_well, samples};

/// What `urllib` gets: the body read as gzip of any number of members, and as one member alone.
const URLLIB: &str = r#"
import gzip, sys, urllib.request, zlib
request = urllib.request.Request(sys.argv[1], headers={"Accept-Encoding": "gzip", "Accept": sys.argv[2]})
with urllib.request.urlopen(request) as answer:
    assert answer.headers["Content-Encoding"] == "gzip", answer.headers
    body = answer.read()
one = zlib.decompressobj(wbits=31)
text = one.decompress(body)
assert one.eof and not one.unused_data, "not one member"
assert gzip.decompress(body) == text
sys.stdout.buffer.write(text)
"#;

#[test]
fn gzip_is_read_by_curl_and_python_and_is_the_same_text() {
    let home = Home::new();
    // Enough for many blocks of deflate, and more than its window of 32 KiB.
    handmade::deliver_many(&home.folder.path().join("trail"), 2000);
    let exporter = home.start();
    exporter.scrape_until("all calls", |scrape| {
        (scrape.sum("cloudtrail_tls_calls_total", &[]) >= 2000.0).then_some(())
    });
    exporter.wait_for_scans(2);
    let url = format!("http://{}/metrics", exporter.address);
    for format in [TEXT, OPEN_METRICS] {
        let plain = scrape(&exporter, format);
        assert!(plain.len() > 1_000_000, "{}", plain.len());
        let accept = format!("Accept: {}", format.1);
        let curl = ["-fsS", "--compressed", "-H", &accept, &url];
        let by_curl = run_well(Command::new("curl").args(curl), b"");
        let by_python = run_well(python().args(["-c", URLLIB, &url, format.1]), b"");
        for unpacked in [by_curl, by_python] {
            assert!(
                data_block(&unpacked) == data_block(&plain),
                "{}: other data",
                format.0
            );
            assert_eq!(order(&unpacked), order(&plain));
            samples(format.0, &unpacked);
        }
    }
}

#[test]
fn headers_tell_format_encoding_and_length_and_head_sends_no_body() {
    let home = Home::new();
    let exporter = home.start_and_count();
    let headers = |method, encoding| {
        let accept = [("Accept", OPEN_METRICS.1), ("Accept-Encoding", encoding)];
        let answer = support::request(exporter.address, method, "/metrics", &accept);
        assert_eq!(answer.status, 200);
        let length: usize = answer.header("content-length").parse().unwrap();
        match method {
            "HEAD" => assert!(answer.body.is_empty()),
            _ => assert_eq!(answer.body.len(), length),
        }
        let mut headers: BTreeMap<String, String> = answer.headers;
        headers.retain(|name, _| name != "date" && name != "content-length");
        (headers, length)
    };
    for encoding in ["gzip", "identity"] {
        let (of_get, length) = headers("GET", encoding);
        let (of_head, told) = headers("HEAD", encoding);
        assert_eq!(of_get, of_head);
        // The live block is another at each scrape.
        assert!(told.abs_diff(length) < 200, "{told} {length}");
        assert_eq!(of_get["vary"], "Accept, Accept-Encoding");
        assert_eq!(
            of_get["content-type"],
            "application/openmetrics-text; version=1.0.0; charset=utf-8"
        );
        assert_eq!(
            of_get.get("content-encoding").map(String::as_str),
            (encoding == "gzip").then_some("gzip")
        );
    }
    let (_, packed) = headers("GET", "gzip");
    let (_, plain) = headers("GET", "identity");
    assert!(packed * 2 < plain, "{packed} of {plain}");
    for path in ["/-/healthy", "/-/ready", "/nothing"] {
        let of = |method| support::request(exporter.address, method, path, &[]);
        let (get, head) = (of("GET"), of("HEAD"));
        assert_eq!((get.status, head.body.len()), (head.status, 0));
        assert_eq!(
            get.header("content-length"),
            head.header("content-length"),
            "{path}"
        );
        assert_eq!(get.header("content-length"), get.body.len().to_string());
    }
}
