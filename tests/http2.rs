//! HTTP/2 frame by frame: its limits, clients that do not take what they asked for, and the stop.

#[path = "support/certificates.rs"]
mod certificates;
mod support;

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use certificates::{Got, curl, deliver};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use support::{Exporter, PATIENCE, config, wait_for};
use tempfile::TempDir;

/// Kinds of frames.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;

/// Flags of frames; the first means END_STREAM on DATA and HEADERS.
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

/// The start of the headers of an answer with status 200.
const STATUS_200: u8 = 0x88;
/// How long a client that does something all the time pauses.
const PAUSE: Duration = Duration::from_secs(2);

/// A running exporter that speaks TLS.
struct Site {
    home: TempDir,
    exporter: Exporter,
}

impl Site {
    /// Starts one that is ready.
    fn start(arguments: &[&str]) -> Self {
        let home = tempfile::tempdir().unwrap();
        deliver(home.path());
        let web = home.path().join("web.yml");
        let keys = "tls_server_config: {cert_file: server.crt, key_file: server.key}\n";
        fs::write(&web, keys).unwrap();
        let config = config(home.path(), home.path(), "");
        let files = [
            "--config.file",
            config.to_str().unwrap(),
            "--web.config.file",
            web.to_str().unwrap(),
        ];
        let exporter = Exporter::start_with(&[&files, arguments].concat());
        let site = Self { home, exporter };
        wait_for("readiness", || {
            (site.curl("/-/ready", &[]).status() == Some(200)).then_some(())
        });
        site
    }

    fn curl(&self, path: &str, arguments: &[&str]) -> Got {
        let url = format!("https://{}{path}", self.exporter.address);
        curl(
            self.home.path(),
            &[&["--http2"], arguments, &[&url]].concat(),
        )
    }

    fn scrape_status(&self) -> Option<u16> {
        self.curl("/metrics", &[]).status()
    }

    /// A connection after the handshake.
    fn connect(&self) -> Client {
        let ca = CertificateDer::from_pem_file(self.home.path().join("ca.crt")).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(ca).unwrap();
        let mut config = ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let name = ServerName::try_from("localhost").unwrap();
        let mut session = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut stream = TcpStream::connect(self.exporter.address).unwrap();
        while session.is_handshaking() {
            session.complete_io(&mut stream).unwrap();
        }
        assert_eq!(session.alpn_protocol(), Some(&b"h2"[..]));
        Client {
            stream: StreamOwned::new(session, stream),
            unread: Vec::new(),
            open: true,
            since: Instant::now(),
        }
    }

    /// A connection that has said how much of each answer it takes without being asked again.
    fn greet(&self, window: u32) -> Client {
        let mut client = self.connect();
        client.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        client.send(
            SETTINGS,
            0,
            0,
            &[&[0, 4], &window.to_be_bytes()[..]].concat(),
        );
        client
    }
}

#[derive(Debug)]
struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

/// A client that does what it is told, and what it must: it acknowledges settings and pings.
struct Client {
    stream: StreamOwned<ClientConnection, TcpStream>,
    unread: Vec<u8>,
    open: bool,
    since: Instant,
}

impl Client {
    fn write(&mut self, bytes: &[u8]) {
        let written = self.stream.write_all(bytes);
        if written.and_then(|()| self.stream.flush()).is_err() {
            self.open = false;
        }
    }

    fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
        self.write(&[&head, payload].concat());
    }

    fn ask(&mut self, stream: u32, method: &str, path: &str) {
        let text = |name: u8, value: &str| {
            let length = u8::try_from(value.len()).unwrap();
            [&[name, length], value.as_bytes()].concat()
        };
        // Names of the static table; no value is remembered. 0x87 is https.
        let block = [text(2, method), vec![0x87], text(1, "test"), text(4, path)];
        self.send(HEADERS, END_STREAM | END_HEADERS, stream, &block.concat());
    }

    fn ping(&mut self) {
        self.send(PING, 0, 0, b"anybody?");
    }

    /// Lets so many bytes more come.
    fn take(&mut self, stream: u32, bytes: u32) {
        self.send(WINDOW_UPDATE, 0, stream, &bytes.to_be_bytes());
    }

    /// The next frame, if it comes in time and the connection is open.
    fn next(&mut self, within: Duration) -> Option<Frame> {
        let started = Instant::now();
        loop {
            if let Some(frame) = self.unread_frame() {
                if frame.flags & ACK == 0 && [SETTINGS, PING].contains(&frame.kind) {
                    let same = if frame.kind == PING {
                        &frame.payload[..]
                    } else {
                        &[]
                    };
                    self.send(frame.kind, ACK, 0, same);
                }
                return Some(frame);
            }
            let left = within.checked_sub(started.elapsed());
            let left = left.filter(|left| self.open && !left.is_zero())?;
            self.stream.sock.set_read_timeout(Some(left)).unwrap();
            let mut some = [0; 4096];
            match self.stream.read(&mut some) {
                Ok(0) => self.open = false,
                Ok(read) => self.unread.extend_from_slice(&some[..read]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                // A reset, or an end without a word, is an end.
                Err(_) => self.open = false,
            }
        }
    }

    fn unread_frame(&mut self) -> Option<Frame> {
        let &[a, b, c, kind, flags, e, f, g, h] = self.unread.first_chunk::<9>()?;
        let end = 9 + u32::from_be_bytes([0, a, b, c]) as usize;
        let payload = self.unread.get(9..end)?.to_vec();
        self.unread.drain(..end);
        let stream = u32::from_be_bytes([e, f, g, h]);
        Some(Frame {
            kind,
            flags,
            stream,
            payload,
        })
    }

    /// The next frame of a kind on a stream.
    fn wait_for(&mut self, kind: u8, stream: u32) -> Frame {
        loop {
            let frame = self.next(PATIENCE).expect("a frame");
            if frame.kind == kind && frame.stream == stream {
                return frame;
            }
        }
    }

    /// Asks for a scrape, and waits for the head of the answer alone.
    fn begin_scrape(&mut self) {
        self.ask(1, "GET", "/metrics");
        assert_eq!(self.wait_for(HEADERS, 1).payload[0], STATUS_200);
    }

    /// Does something again and again until the server closes the connection; says how long that took from the
    /// handshake on, and which frames came.
    fn until_closed(mut self, mut act: impl FnMut(&mut Self)) -> (Duration, Vec<Frame>) {
        let mut frames = Vec::new();
        while self.open {
            assert!(self.since.elapsed() < PATIENCE, "it is open still");
            act(&mut self);
            let acted = Instant::now();
            while let Some(left) = PAUSE.checked_sub(acted.elapsed())
                && self.open
            {
                frames.extend(self.next(left));
            }
        }
        (self.since.elapsed(), frames)
    }
}

#[test]
fn streams_and_heads_have_limits_and_head_has_no_body() {
    let site = Site::start(&[]);
    let mut client = site.greet(0);
    let told = client.wait_for(SETTINGS, 0).payload;
    let told: Vec<&[u8]> = told.chunks(6).collect();
    for setting in [[0, 3, 0, 0, 0, 16], [0, 6, 0, 0, 0x40, 0]] {
        assert!(told.contains(&&setting[..]), "{setting:?} of {told:?}");
    }
    // Answers that are not taken keep their streams open.
    for number in 0..16 {
        client.ask(2 * number + 1, "GET", "/-/healthy");
    }
    client.ask(33, "GET", "/-/healthy");
    let refused = client.wait_for(RST_STREAM, 33);
    assert_eq!(refused.payload, [0, 0, 0, 7], "REFUSED_STREAM");
    client.take(1, 100);
    assert_eq!(client.wait_for(DATA, 1).payload, b"healthy\n");
    client.ask(35, "HEAD", "/-/healthy");
    let head = client.wait_for(HEADERS, 35);
    assert_eq!(
        (head.payload[0], head.flags & END_STREAM),
        (STATUS_200, END_STREAM)
    );

    let head = site.curl("/-/healthy", &["--head"]);
    assert!(head.has("\ncontent-length: 8\r"), "{head:?}");
    let long = format!("X-Long: {}", "x".repeat(17_000));
    assert_eq!(site.curl("/-/healthy", &["-H", &long]).status(), Some(431));
    let short = format!("X-Long: {}", "x".repeat(15_000));
    assert_eq!(site.curl("/-/healthy", &["-H", &short]).status(), Some(200));
}

#[test]
fn who_takes_nothing_is_cut_off_whatever_else_it_sends() {
    let site = Site::start(&["--web.max-requests=3"]);
    let seconds = |(from, to), took: Duration| {
        let limits = Duration::from_secs(from)..Duration::from_secs(to);
        assert!(limits.contains(&took), "{took:?}");
    };
    thread::scope(|scope| {
        // Without a request a connection is young for ten seconds, and pings do not make it older.
        scope.spawn(|| {
            let mut silent = site.connect();
            let sock = &silent.stream.sock;
            sock.set_read_timeout(Some(PATIENCE)).unwrap();
            silent.stream.read_to_end(&mut Vec::new()).ok();
            seconds((8, 28), silent.since.elapsed());
        });
        scope.spawn(|| {
            let (took, frames) = site.greet(0).until_closed(Client::ping);
            seconds((8, 28), took);
            assert!(frames.iter().any(|frame| frame.kind == PING), "{frames:?}");
        });

        let mut slow = site.greet(0);
        slow.begin_scrape();
        let mut pinging = site.greet(0);
        pinging.begin_scrape();
        let mut busy = site.greet(0);
        busy.begin_scrape();
        assert_eq!(site.scrape_status(), Some(503), "all places are taken");
        let pinging = scope.spawn(|| pinging.until_closed(Client::ping));
        let busy = scope.spawn(|| {
            let mut stream = 1;
            busy.until_closed(|client| {
                stream += 2;
                client.ask(stream, "GET", "/-/healthy");
                client.take(stream, 100);
            })
        });
        while !(pinging.is_finished() && busy.is_finished()) {
            slow.take(1, 50);
            assert_eq!(slow.wait_for(DATA, 1).payload.len(), 50);
            thread::sleep(PAUSE);
        }
        let (took, frames) = pinging.join().unwrap();
        seconds((28, 60), took);
        let pongs = frames.iter().filter(|frame| frame.kind == PING).count();
        assert!(pongs > 5, "{frames:?}");
        let (took, frames) = busy.join().unwrap();
        seconds((28, 60), took);
        let taken = frames.iter().filter(|frame| frame.payload == b"healthy\n");
        assert!(taken.count() > 5, "{frames:?}");

        assert_eq!(site.scrape_status(), Some(200), "their places are free");
        // Slow is not stuck.
        slow.take(0, 1 << 30);
        slow.take(1, 1 << 30);
        while slow.wait_for(DATA, 1).flags & END_STREAM == 0 {}
    });
}

#[test]
fn an_answer_in_progress_at_the_stop_is_sent_to_its_end() {
    let site = Site::start(&[]);
    let mut client = site.greet(0);
    client.begin_scrape();
    let stopped = Instant::now();
    site.exporter.signal("TERM");
    client.wait_for(GOAWAY, 0);
    client.take(0, 1 << 30);
    client.take(1, 1 << 30);
    let mut scrape = Vec::new();
    loop {
        let part = client.wait_for(DATA, 1);
        scrape.extend(part.payload);
        if part.flags & END_STREAM != 0 {
            break;
        }
    }
    let scrape = String::from_utf8(scrape).unwrap();
    assert!(
        scrape.contains("\ncloudtrail_tls_exporter_build_info{"),
        "{scrape}"
    );
    // Reads on, and so answers what the server asks before it closes.
    let (_, frames) = client.until_closed(|_| {});
    assert!(
        frames.iter().all(|frame| frame.kind != RST_STREAM),
        "{frames:?}"
    );
    let (status, _, log) = site.exporter.end_with("TERM");
    assert!(status.success(), "{log:?}");
    let took = stopped.elapsed();
    assert!(took < Duration::from_secs(4), "{took:?}");
    assert!(
        !log.iter().any(|line| line.contains("cut off by the stop")),
        "{log:?}"
    );
}
