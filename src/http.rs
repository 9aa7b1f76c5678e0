//! The HTTP server: listeners, limits, and the end of it. What is answered stands in [`routes`].

mod deadlines;
pub mod reload;
pub mod routes;

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioTimer;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tracing::{debug, warn};

use self::deadlines::{Answering, Deadlines};
use self::routes::App;
use crate::shutdown::Shutdown;

/// Connections that are open at once; more wait to be accepted.
const CONNECTIONS: usize = 512;
/// The longest request head in bytes.
const HEAD_BYTES: usize = 16 << 10;
/// The most headers in a request.
const HEADERS: usize = 64;
/// How long answers in progress may go on after the stop.
const DRAIN: Duration = Duration::from_secs(5);
/// The pause after a failed accept: too many open files do not go away at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Binds `address`. A port alone (`:10013`) is every address of the host, IPv6 and IPv4.
pub async fn bind(address: &str) -> io::Result<TcpListener> {
    let Some(port) = address.strip_prefix(':') else {
        return TcpListener::bind(address).await;
    };
    let port = port
        .parse()
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "the port is no number"))?;
    match TcpListener::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))).await {
        // A host without IPv6.
        Err(error) if error.raw_os_error() == Some(EAFNOSUPPORT) => {
            TcpListener::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))).await
        }
        bound => bound,
    }
}

/// Linux: address family not supported.
const EAFNOSUPPORT: i32 = 97;

/// Answers on all `listeners` until the stop, then lets answers in progress end.
pub async fn serve(listeners: Vec<TcpListener>, app: Arc<App>, shutdown: Shutdown) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS));
    let mut tasks = JoinSet::new();
    for listener in listeners {
        let (app, connections, shutdown) =
            (Arc::clone(&app), Arc::clone(&connections), shutdown.clone());
        tasks.spawn(accept(listener, app, connections, shutdown));
    }
    tasks.join_all().await;
}

async fn accept(
    listener: TcpListener,
    app: Arc<App>,
    connections: Arc<Semaphore>,
    mut shutdown: Shutdown,
) {
    let graceful = GracefulShutdown::new();
    let next = async || {
        let permit = Arc::clone(&connections).acquire_owned().await;
        (permit, listener.accept().await)
    };
    while let Some((permit, accepted)) = shutdown.unless_stopped(next()).await {
        match accepted {
            Ok((stream, _)) => {
                let connection = graceful.watch(connection(stream, Arc::clone(&app)));
                tokio::spawn(async move {
                    if let Err(error) = connection.await {
                        debug!(
                            error = &error as &dyn std::error::Error,
                            "a connection ended early"
                        );
                    }
                    drop(permit);
                });
            }
            Err(error) => {
                warn!(
                    error = &error as &dyn std::error::Error,
                    "a connection was not accepted"
                );
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    if tokio::time::timeout(DRAIN, graceful.shutdown())
        .await
        .is_err()
    {
        warn!("answers were cut off by the stop");
    }
}

fn connection(
    stream: TcpStream,
    app: Arc<App>,
) -> impl hyper_util::server::graceful::GracefulConnection<Error = hyper::Error> {
    // Answers are written whole; waiting to fill packets only delays their end.
    if let Err(error) = stream.set_nodelay(true) {
        debug!(error = &error as &dyn std::error::Error, "no TCP_NODELAY");
    }
    let answering = Answering::default();
    let deadlines = Deadlines::new(stream, answering.clone());
    let service = service_fn(move |request| {
        let (app, answering) = (Arc::clone(&app), answering.clone());
        async move { Ok::<_, std::convert::Infallible>(answering.wait(app.answer(&request)).await) }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        // The deadlines below cover the head and idle connections, each with its own limit.
        .header_read_timeout(None)
        .max_buf_size(HEAD_BYTES)
        .max_headers(HEADERS)
        .serve_connection(deadlines, service)
}
