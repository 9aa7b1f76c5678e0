//! The TLS handshake of a new connection. It has a deadline of its own, and holds up nobody but its connection.

use std::io;
use std::net::IpAddr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::warn;

use super::answering::Answering;
use super::deadlines::Deadlines;
use super::guard::Guard;

/// From the connection to the end of the handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// What is said to who speaks HTTP where TLS is spoken.
const NO_TLS: &[u8] = b"HTTP/1.0 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n\
    this port speaks HTTPS\n";

/// So often the log tells of a handshake that failed: who may not enter cannot fill it.
const TOLD_EVERY: Duration = Duration::from_secs(5);

/// A connection on which TLS is spoken.
pub(super) struct Encrypted {
    pub(super) stream: TokioIo<TlsStream<TokioIo<Deadlines>>>,
    /// Whether both sides chose HTTP/2.
    pub(super) http2: bool,
}

/// Takes the server's part in a handshake, by the web configuration as it is now.
pub(super) async fn handshake(
    stream: TcpStream,
    guard: &Arc<Guard>,
    answering: Answering,
) -> io::Result<Encrypted> {
    let shaken = timeout(HANDSHAKE, shake(stream, guard, answering)).await;
    shaken.unwrap_or_else(|_| {
        Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "the handshake took too long",
        ))
    })
}

async fn shake(
    stream: TcpStream,
    guard: &Arc<Guard>,
    answering: Answering,
) -> io::Result<Encrypted> {
    let mut first = [0];
    stream.peek(&mut first).await?;
    if first[0].is_ascii_uppercase() {
        refuse(&stream).await?;
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "HTTP without TLS",
        ));
    }
    let rules = guard.rules().await;
    let tls = rules.as_ref().and_then(|rules| rules.tls());
    let Some(tls) = tls else {
        return Err(io::Error::other("the web configuration is broken"));
    };
    let acceptor = TlsAcceptor::from(Arc::clone(&tls.server));
    let deadlines = TokioIo::new(Deadlines::new(stream, answering));
    let mut stream = acceptor.accept(deadlines).await?;
    let (deadlines, session) = stream.get_mut();
    let http2 = session.alpn_protocol() == Some(b"h2");
    deadlines.inner_mut().begin(http2);
    Ok(Encrypted {
        stream: TokioIo::new(stream),
        http2,
    })
}

/// Tells the operator why a client did not get in; not of one that went without a word, as port scans and probes do.
pub(super) fn tell(error: &io::Error, peer: IpAddr) {
    static TOLD: LazyLock<Option<DefaultDirectRateLimiter>> =
        LazyLock::new(|| Quota::with_period(TOLD_EVERY).map(RateLimiter::direct));
    let went = matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset
    );
    if !went && TOLD.as_ref().is_some_and(|told| told.check().is_ok()) {
        warn!(
            error = error as &dyn std::error::Error,
            %peer, "a TLS handshake failed"
        );
    }
}

/// Answers the request, whatever it is, so that a person sees what is wrong.
async fn refuse(stream: &TcpStream) -> io::Result<()> {
    // What is left unread would throw the answer away.
    let mut request = [0; 4096];
    let mut read = 0;
    while read < request.len() && !request.windows(4).any(|end| end == b"\r\n\r\n") {
        stream.readable().await?;
        match stream.try_read(&mut request[read..]) {
            Ok(0) => break,
            Ok(more) => read += more,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    stream.writable().await?;
    stream.try_write(NO_TLS)?;
    Ok(())
}
