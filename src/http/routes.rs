//! What each path answers, and whom. Knows no socket.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use hyper::header::{
    ACCEPT, ACCEPT_ENCODING, ALLOW, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderName,
    HeaderValue, RETRY_AFTER, VARY, WWW_AUTHENTICATE,
};
use hyper::{Method, Request, Response, StatusCode};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::guard::Guard;
use super::reload::Reloader;
use crate::exposition::Publisher;
use crate::exposition::negotiate::{Format, gzip_accepted};
use crate::metrics::{self, Metrics};
use crate::status::Status;
use crate::time::Timestamp;

/// Everything that answers need.
#[derive(Debug)]
pub struct App {
    publisher: Publisher,
    metrics: Metrics,
    status: Status,
    reloader: Option<Reloader>,
    ready: AtomicBool,
    scrapes: Arc<Semaphore>,
    now: fn() -> Timestamp,
}

impl App {
    /// An app that answers at most `scrapes` scrapes at once and is not ready yet. Without a `reloader` there is
    /// no `/-/reload`.
    pub fn new(
        publisher: Publisher,
        metrics: Metrics,
        status: Status,
        reloader: Option<Reloader>,
        scrapes: usize,
        now: fn() -> Timestamp,
    ) -> Self {
        let scrapes = Arc::new(Semaphore::new(scrapes));
        Self {
            publisher,
            metrics,
            status,
            reloader,
            ready: AtomicBool::new(false),
            scrapes,
            now,
        }
    }

    /// From now on `/-/ready` says so. A source that fails does not take it back: it shows in the metrics.
    pub fn set_ready(&self) {
        self.ready.store(true, Ordering::Release);
    }

    /// Answers one request.
    pub async fn answer<B>(&self, request: &Request<B>) -> Response<Slices> {
        let started = Instant::now();
        let path = self.known(request);
        let response = self.route(path, request).await;
        self.count(path, &response, started);
        response
    }

    /// Answers one request, if the guard lets it in.
    pub(super) async fn answer_guarded<B>(
        &self,
        guard: &Arc<Guard>,
        request: &Request<B>,
        peer: IpAddr,
    ) -> Response<Slices> {
        let started = Instant::now();
        let path = self.known(request);
        let verdict = guard.judge(request.headers(), peer).await;
        let mut response = match verdict.refusal {
            Some(status) => refused(status),
            None => self.route(path, request).await,
        };
        verdict.dress(response.headers_mut());
        self.count(path, &response, started);
        response
    }

    /// Answers one request where health and readiness are all that is told.
    pub(super) fn answer_probe<B>(&self, request: &Request<B>) -> Response<Slices> {
        let started = Instant::now();
        let path = match self.known(request) {
            path @ ("/-/healthy" | "/-/ready") => path,
            _ => "other",
        };
        let response = self.page(path, request);
        self.count(path, &response, started);
        response
    }

    fn count(&self, path: &'static str, response: &Response<Slices>, started: Instant) {
        let status = response.status().as_u16();
        self.metrics
            .request_answered(path, status, started.elapsed());
    }

    /// The path of a request as the metrics have it: one of ours, or `other`.
    fn known<B>(&self, request: &Request<B>) -> &'static str {
        match request.uri().path() {
            "/" => "/",
            "/metrics" => "/metrics",
            "/-/healthy" | "/healthz" => "/-/healthy",
            "/-/ready" | "/readyz" => "/-/ready",
            "/-/reload" if self.reloader.is_some() => "/-/reload",
            _ => "other",
        }
    }

    async fn route<B>(&self, path: &'static str, request: &Request<B>) -> Response<Slices> {
        match &self.reloader {
            Some(reloader) if path == "/-/reload" => reload(reloader, request.method()).await,
            _ => self.page(path, request),
        }
    }

    fn page<B>(&self, path: &'static str, request: &Request<B>) -> Response<Slices> {
        if path == "other" {
            return text(StatusCode::NOT_FOUND, "not found\n");
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let refused = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
            return with(refused, ALLOW, "GET, HEAD");
        }
        match path {
            // A scrape without the stored series would resolve alerts that still hold.
            "/metrics" if self.ready.load(Ordering::Acquire) => self.scrape(request),
            "/-/healthy" if self.status.store_is_stuck(Instant::now()) => text(
                StatusCode::SERVICE_UNAVAILABLE,
                "the store has not answered for 5 minutes\n",
            ),
            "/-/healthy" => text(StatusCode::OK, "healthy\n"),
            "/-/ready" if self.ready.load(Ordering::Acquire) => text(StatusCode::OK, "ready\n"),
            "/-/ready" | "/metrics" => text(
                StatusCode::SERVICE_UNAVAILABLE,
                "not ready: the store is being loaded\n",
            ),
            _ => self.landing_page(),
        }
    }

    fn scrape<B>(&self, request: &Request<B>) -> Response<Slices> {
        let Ok(permit) = Arc::clone(&self.scrapes).try_acquire_owned() else {
            let busy = text(
                StatusCode::SERVICE_UNAVAILABLE,
                "too many scrapes at once, see --web.max-requests\n",
            );
            return with(busy, RETRY_AFTER, "1");
        };
        let format = Format::accepted(&header(request, ACCEPT));
        let gzip = gzip_accepted(&header(request, ACCEPT_ENCODING));
        let slices = self
            .publisher
            .newest()
            .body(&self.metrics.gather(), format, gzip);
        let mut response = Response::new(Slices {
            slices: slices.into(),
            _permit: Some(permit),
        });
        let headers = response.headers_mut();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static(format.content_type()),
        );
        headers.insert(VARY, HeaderValue::from_static("Accept, Accept-Encoding"));
        if gzip {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        response
    }

    fn landing_page(&self) -> Response<Slices> {
        let now = (self.now)();
        let rows: String = self
            .status
            .all()
            .into_iter()
            .map(|(worker, status)| {
                let name = worker
                    .iter()
                    .filter(|part| !part.is_empty())
                    .map(|part| escaped(part))
                    .collect::<Vec<_>>()
                    .join(" / ");
                let state = match (status.up, &status.error) {
                    (Some(true), _) => "up".to_owned(),
                    (None, _) => "starting".to_owned(),
                    (Some(false), error) => format!(
                        "failing: {}",
                        escaped(error.as_deref().unwrap_or("unknown"))
                    ),
                };
                let age = status
                    .watermark
                    .map_or("no data yet".to_owned(), |watermark| {
                        format!(
                            "{} (counted up to {watermark})",
                            humantime::format_duration(now.since(watermark))
                        )
                    });
                let files = status.unreadable_files;
                format!("<tr><td>{name}</td><td>{state}</td><td>{age}</td><td>{files}</td></tr>\n")
            })
            .collect();
        let version = metrics::VERSION;
        let revision = metrics::REVISION;
        let page = format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><title>cloudtrail-tls-exporter</title>\n\
             <style>body{{font-family:sans-serif;margin:2em}}td,th{{text-align:left;padding:.3em 1em .3em 0}}</style></head>\n\
             <body>\n<h1>cloudtrail-tls-exporter</h1>\n\
             <p>Which AWS API calls use which TLS version, counted from CloudTrail. Version {version} ({revision}).</p>\n\
             <ul><li><a href=\"/metrics\">Metrics</a></li><li><a href=\"/-/healthy\">Health</a></li>\
             <li><a href=\"/-/ready\">Readiness</a></li></ul>\n\
             <table><tr><th>Source</th><th>State</th><th>Data age</th><th>Unreadable files</th></tr>\n{rows}</table>\n\
             </body>\n</html>\n"
        );
        with(
            text(StatusCode::OK, page),
            CONTENT_TYPE,
            "text/html; charset=utf-8",
        )
    }
}

/// Leaves an answer's head, as HEAD asks for, with the length of the body. hyper does so itself only on HTTP/1.
pub(super) fn leave_body_out(answer: &mut Response<Slices>) {
    if let Some(length) = answer.body().size_hint().exact() {
        answer.headers_mut().insert(CONTENT_LENGTH, length.into());
    }
    answer.body_mut().slices.clear();
}

/// What is told to whom the guard does not let in.
fn refused(status: StatusCode) -> Response<Slices> {
    let why = match status {
        StatusCode::UNAUTHORIZED => "unauthorized: a user and the password are needed\n",
        StatusCode::TOO_MANY_REQUESTS => {
            "too many requests, see rate_limit of the web configuration\n"
        }
        StatusCode::SERVICE_UNAVAILABLE => {
            "too many passwords of your address are being compared\n"
        }
        _ => "the web configuration is broken, see the log\n",
    };
    let response = text(status, why);
    if status == StatusCode::UNAUTHORIZED {
        return with(response, WWW_AUTHENTICATE, "Basic");
    }
    response
}

async fn reload(reloader: &Reloader, method: &Method) -> Response<Slices> {
    if !matches!(*method, Method::POST | Method::PUT) {
        let refused = text(StatusCode::METHOD_NOT_ALLOWED, "only POST and PUT\n");
        return with(refused, ALLOW, "POST, PUT");
    }
    match reloader.reload().await {
        Some(Ok(())) => text(StatusCode::OK, "reloaded\n"),
        Some(Err(problems)) => text(StatusCode::INTERNAL_SERVER_ERROR, problems + "\n"),
        None => text(StatusCode::SERVICE_UNAVAILABLE, "the exporter is ending\n"),
    }
}

/// All values of a header as one list; what is not text counts as absent.
fn header<B>(request: &Request<B>, name: HeaderName) -> String {
    let values: Vec<&str> = request
        .headers()
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .collect();
    values.join(",")
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Slices> {
    let mut response = Response::new(Slices {
        slices: VecDeque::from([body.into()]),
        _permit: None,
    });
    *response.status_mut() = status;
    with(response, CONTENT_TYPE, "text/plain; charset=utf-8")
}

fn with(mut response: Response<Slices>, name: HeaderName, value: &'static str) -> Response<Slices> {
    response
        .headers_mut()
        .insert(name, HeaderValue::from_static(value));
    response
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

/// A body of shared slices, sent one after the other without a copy.
#[derive(Debug)]
pub struct Slices {
    slices: VecDeque<Bytes>,
    /// A scrape's place among the concurrent ones, free again when its body is sent or given up.
    _permit: Option<OwnedSemaphorePermit>,
}

impl Body for Slices {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.slices.pop_front().map(|slice| Ok(Frame::data(slice))))
    }

    fn is_end_stream(&self) -> bool {
        self.slices.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.slices.iter().map(|slice| slice.len() as u64).sum())
    }
}
