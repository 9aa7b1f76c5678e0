//! The HTTP server: listeners, limits, and the end of it. What is answered stands in [`routes`], who may ask in
//! [`guard`].

mod answering;
mod auth;
mod client_certificates;
mod deadlines;
pub mod guard;
mod handshake;
pub mod reload;
pub mod routes;
mod stamps;
mod tls;
mod web_config;

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::rt::{Read, Write};
use hyper::server::conn::{http1, http2};
use hyper::service::{Service, service_fn};
use hyper::{Method, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tracing::{debug, warn};

use self::answering::{Answering, Sending};
use self::deadlines::Deadlines;
use self::guard::Guard;
use self::handshake::Encrypted;
use self::routes::{App, Slices};
pub use self::web_config::WebProblems;
use crate::shutdown::Shutdown;

/// Connections that are open at once; more wait to be accepted.
const CONNECTIONS: usize = 512;
/// The longest request head in bytes.
const HEAD_BYTES: u32 = 16 << 10;
/// The most headers in a request.
const HEADERS: usize = 64;
/// The most requests at once on a connection of HTTP/2.
const STREAMS: u32 = 16;
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

/// Who may ask for what at a listener.
#[derive(Clone, Debug)]
pub enum Entrance {
    /// Everybody, for everything.
    Open,
    /// Who passes the guard, for everything; by TLS, if the web configuration says so.
    Guarded(Arc<Guard>),
    /// Everybody, for health and readiness alone.
    Probes,
}

/// Answers on all `listeners` until the stop, then lets answers in progress end.
pub async fn serve(
    listeners: Vec<TcpListener>,
    app: Arc<App>,
    entrance: Entrance,
    shutdown: Shutdown,
) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS));
    let mut tasks = JoinSet::new();
    for listener in listeners {
        let door = Door {
            app: Arc::clone(&app),
            entrance: entrance.clone(),
            shutdown: shutdown.clone(),
        };
        tasks.spawn(accept(listener, door, Arc::clone(&connections)));
    }
    tasks.join_all().await;
}

/// What every connection of a listener needs.
#[derive(Clone)]
struct Door {
    app: Arc<App>,
    entrance: Entrance,
    shutdown: Shutdown,
}

async fn accept(listener: TcpListener, mut door: Door, connections: Arc<Semaphore>) {
    let graceful = GracefulShutdown::new();
    let next = async || {
        let permit = Arc::clone(&connections).acquire_owned().await;
        (permit, listener.accept().await)
    };
    while let Some((permit, accepted)) = door.shutdown.unless_stopped(next()).await {
        match accepted {
            Ok((stream, peer)) => {
                let watcher = graceful.watcher();
                let connection = door.clone().connection(stream, peer.ip(), watcher);
                tokio::spawn(async move {
                    if let Err(error) = connection.await {
                        debug!(error = error.as_ref(), %peer, "a connection ended early");
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

type Ended = Result<(), Box<dyn std::error::Error + Send + Sync>>;

impl Door {
    /// The life of a connection, after a handshake where there is to be one.
    async fn connection(mut self, stream: TcpStream, peer: IpAddr, watcher: Watcher) -> Ended {
        // Answers are written whole; waiting to fill packets only delays their end.
        if let Err(error) = stream.set_nodelay(true) {
            debug!(error = &error as &dyn std::error::Error, "no TCP_NODELAY");
        }
        let answering = Answering::default();
        let guard = match &self.entrance {
            Entrance::Guarded(guard) if guard.has_tls() => Arc::clone(guard),
            _ => {
                let deadlines = Deadlines::new(stream, answering.clone());
                return Ok(watcher
                    .watch(http1(deadlines, self.service(peer, answering)))
                    .await?);
            }
        };
        let shaken = handshake::handshake(stream, &guard, answering.clone());
        let Some(shaken) = self.shutdown.unless_stopped(shaken).await else {
            return Ok(());
        };
        let Encrypted { stream, http2 } =
            shaken.inspect_err(|error| handshake::tell(error, peer))?;
        let service = self.service(peer, answering.clone());
        if http2 {
            let connection = http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .max_header_list_size(HEAD_BYTES)
                .max_concurrent_streams(STREAMS)
                .serve_connection(stream, service);
            tokio::select! {
                ended = watcher.watch(connection) => Ok(ended?),
                () = answering.stuck(deadlines::WRITE) => {
                    Err("the client took nothing of an answer for too long".into())
                }
            }
        } else {
            Ok(watcher.watch(http1(stream, service)).await?)
        }
    }

    /// What answers the requests of a connection.
    fn service(
        self,
        peer: IpAddr,
        answering: Answering,
    ) -> impl Service<
        Request<Incoming>,
        Response = Response<Sending<Slices>>,
        Error = Infallible,
        Future: Send + 'static,
    > {
        let Self { app, entrance, .. } = self;
        service_fn(move |request| {
            let (app, entrance, answering) =
                (Arc::clone(&app), entrance.clone(), answering.clone());
            async move {
                let answer = async {
                    match &entrance {
                        Entrance::Open => app.answer(&request).await,
                        Entrance::Guarded(guard) => app.answer_guarded(guard, &request, peer).await,
                        Entrance::Probes => app.answer_probe(&request),
                    }
                };
                let mut answer = answering.wait(answer).await;
                if request.method() == Method::HEAD {
                    routes::leave_body_out(&mut answer);
                }
                Ok(answer.map(|body| answering.send(body)))
            }
        })
    }
}

fn http1<I, S>(stream: I, service: S) -> http1::Connection<I, S>
where
    I: Read + Write + Unpin + 'static,
    S: Service<Request<Incoming>, Response = Response<Sending<Slices>>, Error = Infallible>,
{
    http1::Builder::new()
        .timer(TokioTimer::new())
        // The deadlines cover the head and idle connections, each with its own limit.
        .header_read_timeout(None)
        .max_buf_size(HEAD_BYTES as usize)
        .max_headers(HEADERS)
        .serve_connection(stream, service)
}
