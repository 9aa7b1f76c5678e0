//! Who comes in, by the web configuration as it is now: the file and its certificates are looked at for each handshake
//! and each request, and read again when they changed. What is broken lets nobody in.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use hyper::StatusCode;
use hyper::header::{AUTHORIZATION, HeaderMap};
use tracing::{error, info};

use super::auth::{Admission, Passwords};
use super::stamps::Stamps;
use super::web_config::{self, RateLimit, Tls, WebConfig, WebProblems};

/// The web configuration, and what was learned by it.
#[derive(Debug)]
pub struct Guard {
    path: PathBuf,
    passwords: Arc<Passwords>,
    /// What protected the server at its start.
    start: Protection,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    stamps: Stamps,
    rules: Result<Arc<Rules>, WebProblems>,
    /// Kept over readings that are the same, so that none fills it up.
    bucket: Option<Arc<Bucket>>,
}

/// What holds for a connection or a request.
#[derive(Debug)]
pub(super) struct Rules {
    config: WebConfig,
    bucket: Option<Arc<Bucket>>,
}

/// The requests that may still come.
#[derive(Debug)]
struct Bucket {
    limit: RateLimit,
    tokens: DefaultDirectRateLimiter,
}

/// What an edit of the file cannot take away while the server runs: a file that is being written is short of its end.
#[derive(Clone, Copy, Debug)]
struct Protection {
    tls: bool,
    certificates: bool,
    passwords: bool,
}

/// What becomes of a request.
#[derive(Debug)]
pub(super) struct Verdict {
    /// Why it is not answered.
    pub(super) refusal: Option<StatusCode>,
    rules: Option<Arc<Rules>>,
}

impl Guard {
    /// Reads the file at `path`.
    pub fn new(path: &Path) -> Result<Self, WebProblems> {
        let mut stamps = Stamps::new();
        let config = web_config::read(path, &mut stamps)?;
        let passwords = Passwords::new().map_err(|_| WebProblems {
            path: path.display().to_string(),
            lines: vec!["the system has no randomness to give".to_owned()],
        })?;
        let bucket = bucket(&config, None);
        let rules = Rules {
            bucket: bucket.clone(),
            config,
        };
        Ok(Self {
            path: path.to_owned(),
            passwords: Arc::new(passwords),
            start: Protection::of(&rules.config),
            state: Mutex::new(State {
                stamps,
                rules: Ok(Arc::new(rules)),
                bucket,
            }),
        })
    }

    /// What the file asks for, in a few words.
    pub fn summary(&self) -> String {
        let Ok(rules) = self.read() else {
            return "broken".to_owned();
        };
        let config = &rules.config;
        let mut parts = vec![if self.start.tls { "TLS" } else { "no TLS" }.to_owned()];
        if let Some(tls) = &config.tls {
            let http2 = tls.server.alpn_protocols.iter().any(|name| name == b"h2");
            parts.extend(http2.then(|| "HTTP/2".to_owned()));
            let wanted = tls.wants_certificates;
            parts.extend(wanted.then(|| "client certificates required".to_owned()));
        }
        let (users, headers) = (config.users.len(), config.headers.len());
        parts.extend((users > 0).then(|| format!("{users} user(s)")));
        parts.extend((headers > 0).then(|| format!("{headers} header(s)")));
        parts.extend(config.rate_limit.map(|limit| {
            let interval = humantime::format_duration(limit.interval);
            format!("one request in {interval}, {} at once", limit.burst)
        }));
        parts.join(", ")
    }

    /// Whether the server speaks TLS. That it does not change is a rule.
    pub fn has_tls(&self) -> bool {
        self.start.tls
    }

    /// The problems of the file as it is now.
    pub fn check(&self) -> Result<(), WebProblems> {
        self.read().map(drop)
    }

    /// Looks at a request from `peer`.
    pub(super) async fn judge(self: &Arc<Self>, headers: &HeaderMap, peer: IpAddr) -> Verdict {
        let Some(rules) = self.rules().await else {
            return Verdict {
                refusal: Some(StatusCode::INTERNAL_SERVER_ERROR),
                rules: None,
            };
        };
        let users = &rules.config.users;
        let full = |bucket: &Arc<Bucket>| bucket.tokens.check().is_err();
        let refusal = if rules.bucket.as_ref().is_some_and(full) {
            Some(StatusCode::TOO_MANY_REQUESTS)
        } else if users.len() == 0 {
            None
        } else {
            let brought = headers.get(AUTHORIZATION);
            match self.passwords.admit(users, brought, peer).await {
                Admission::Right => None,
                Admission::Wrong => Some(StatusCode::UNAUTHORIZED),
                Admission::TooMany => Some(StatusCode::SERVICE_UNAVAILABLE),
            }
        };
        Verdict {
            refusal,
            rules: Some(rules),
        }
    }

    /// The rules as they are now, read beside the event loop; none while they are broken.
    pub(super) async fn rules(self: &Arc<Self>) -> Option<Arc<Rules>> {
        let guard = Arc::clone(self);
        let rules = tokio::task::spawn_blocking(move || guard.read().ok());
        rules.await.ok()?
    }

    fn read(&self) -> Result<Arc<Rules>, WebProblems> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = state.stamps.changed();
        if !changed && state.stamps.settled() {
            return state.rules.clone();
        }
        let mut stamps = Stamps::new();
        let config = web_config::read(&self.path, &mut stamps);
        let config = config.and_then(|config| self.start.kept_by(config, &self.path));
        let rules = config.map(|config| {
            state.bucket = bucket(&config, state.bucket.take());
            let bucket = state.bucket.clone();
            Arc::new(Rules { config, bucket })
        });
        match (&rules, &state.rules) {
            (Err(new), Err(old)) if new == old => {}
            (Err(problems), _) => {
                for problem in &problems.lines {
                    error!(
                        file = problems.path,
                        problem, "a problem of the web configuration"
                    );
                }
                error!("nobody is let in until the web configuration is mended");
            }
            (Ok(_), Ok(_)) if !changed => {}
            (Ok(_), _) => info!("the web configuration was read anew"),
        }
        state.stamps = stamps.or_older(&state.stamps);
        state.rules = rules.clone();
        rules
    }
}

impl Rules {
    /// TLS, where there is any.
    pub(super) fn tls(&self) -> Option<&Tls> {
        self.config.tls.as_ref()
    }
}

impl Verdict {
    /// Adds the headers that every answer has.
    pub(super) fn dress(&self, headers: &mut HeaderMap) {
        let own = self.rules.iter().flat_map(|rules| &rules.config.headers);
        for (name, value) in own {
            headers.insert(name, value.clone());
        }
    }
}

impl Protection {
    fn of(config: &WebConfig) -> Self {
        Self {
            tls: config.tls.is_some(),
            certificates: config
                .tls
                .as_ref()
                .is_some_and(|tls| tls.wants_certificates),
            passwords: config.users.len() > 0,
        }
    }

    /// `config`, if it protects as much.
    fn kept_by(self, config: WebConfig, path: &Path) -> Result<WebConfig, WebProblems> {
        let new = Self::of(&config);
        let mut lines = Vec::new();
        if new.tls != self.tls {
            lines.push("tls_server_config: TLS cannot be switched on or off without a restart");
        }
        if self.certificates && !new.certificates {
            lines.push("tls_server_config.client_auth_type: cannot do without client certificates without a restart");
        }
        if self.passwords && !new.passwords {
            lines.push("basic_auth_users: cannot do without passwords without a restart");
        }
        if lines.is_empty() {
            return Ok(config);
        }
        Err(WebProblems {
            path: path.display().to_string(),
            lines: lines.into_iter().map(str::to_owned).collect(),
        })
    }
}

/// The bucket of the configuration's rate limit: the one before, if the limit is the same.
fn bucket(config: &WebConfig, before: Option<Arc<Bucket>>) -> Option<Arc<Bucket>> {
    let limit = config.rate_limit?;
    if let Some(before) = before.filter(|before| before.limit == limit) {
        return Some(before);
    }
    let quota = Quota::with_period(limit.interval)?.allow_burst(limit.burst);
    let tokens = RateLimiter::direct(quota);
    Some(Arc::new(Bucket { limit, tokens }))
}
