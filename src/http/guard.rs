//! Who comes in, by the web configuration as it is now: the file and its certificates are looked at when handshakes
//! and requests come, and read again when they changed. What is broken lets nobody in.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use hyper::StatusCode;
use hyper::header::{AUTHORIZATION, HeaderMap};
use tokio::sync::Mutex as AsyncMutex;
use tracing::{error, info};

use super::auth::{Admission, Passwords};
use super::stamps::Stamps;
use super::web_config::{self, RateLimit, Tls, WebConfig, WebProblems};

/// How old what is known of the files may be.
const FRESH: Duration = Duration::from_millis(100);

/// The web configuration, and what was learned by it.
#[derive(Debug)]
pub struct Guard {
    path: PathBuf,
    passwords: Arc<Passwords>,
    /// Whether the server speaks TLS.
    tls: bool,
    /// Locked for moments only.
    known: Mutex<Known>,
    /// Locked while the files are looked at, which may take as long as their file system likes.
    files: Arc<AsyncMutex<Files>>,
}

/// What requests are judged by.
#[derive(Debug)]
struct Known {
    rules: Result<Arc<Rules>, WebProblems>,
    /// When the look at the files began that told so.
    looked: Instant,
}

/// What is compared with the files.
#[derive(Debug)]
struct Files {
    stamps: Stamps,
    /// Kept over readings that are the same, so that none fills it up.
    bucket: Option<Arc<Bucket>>,
    protection: Protection,
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

/// What an edit of the file cannot take away while the server runs, since it was in force once: a file that is being
/// written is short of its end.
#[derive(Clone, Copy, Debug)]
struct Protection {
    certificates: bool,
    verified: bool,
    names: bool,
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
        let looked = Instant::now();
        let mut stamps = Stamps::new();
        let config = web_config::read(path, &mut stamps)?;
        let passwords = Passwords::new().map_err(|_| WebProblems {
            path: path.display().to_string(),
            lines: vec!["the system has no randomness to give".to_owned()],
        })?;
        let tls = config.tls.is_some();
        let protection = Protection::of(&config);
        let bucket = bucket(&config, None);
        let rules = Rules {
            bucket: bucket.clone(),
            config,
        };
        Ok(Self {
            path: path.to_owned(),
            passwords: Arc::new(passwords),
            tls,
            known: Mutex::new(Known {
                rules: Ok(Arc::new(rules)),
                looked,
            }),
            files: Arc::new(AsyncMutex::new(Files {
                stamps,
                bucket,
                protection,
            })),
        })
    }

    /// What the file asks for, in a few words.
    pub fn summary(&self) -> String {
        let Ok(rules) = &self.known().rules else {
            return "broken".to_owned();
        };
        let config = &rules.config;
        let mut parts = vec![if self.tls { "TLS" } else { "no TLS" }.to_owned()];
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
        self.tls
    }

    /// The problems of the file as it is now. Waits for the file system, so it is for threads that may.
    pub fn check(&self) -> Result<(), WebProblems> {
        self.look(&mut self.files.blocking_lock()).map(drop)
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

    /// The rules as they are now; none while they are broken. One of those who ask looks at the files, beside the event
    /// loop; the others go by what is known, which is all there is while a file system hangs.
    pub(super) async fn rules(self: &Arc<Self>) -> Option<Arc<Rules>> {
        let mut files = {
            let known = self.known();
            let files = Arc::clone(&self.files).try_lock_owned();
            match files {
                Ok(files) if known.looked.elapsed() >= FRESH => files,
                _ => return known.rules.as_ref().ok().cloned(),
            }
        };
        let guard = Arc::clone(self);
        // Goes on when the client is gone.
        let look = move || guard.look(&mut files).ok();
        tokio::task::spawn_blocking(look).await.ok()?
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look(&self, files: &mut Files) -> Result<Arc<Rules>, WebProblems> {
        let looked = Instant::now();
        let before = self.known().rules.clone();
        let changed = files.stamps.changed();
        let rules = if changed || !files.stamps.settled() {
            self.read(files, &before, changed)
        } else {
            before
        };
        *self.known() = Known {
            rules: rules.clone(),
            looked,
        };
        rules
    }

    fn read(
        &self,
        files: &mut Files,
        before: &Result<Arc<Rules>, WebProblems>,
        changed: bool,
    ) -> Result<Arc<Rules>, WebProblems> {
        let mut stamps = Stamps::new();
        let config = web_config::read(&self.path, &mut stamps);
        let config = config.and_then(|config| self.protected(files, config));
        let rules = config.map(|config| {
            files.bucket = bucket(&config, files.bucket.take());
            let bucket = files.bucket.clone();
            Arc::new(Rules { config, bucket })
        });
        match (&rules, before) {
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
        files.stamps = stamps.or_older(&files.stamps);
        rules
    }

    /// `config`, if it protects as much as any before; from then on no less than it.
    fn protected(&self, files: &mut Files, config: WebConfig) -> Result<WebConfig, WebProblems> {
        let new = Protection::of(&config);
        let mut lines = files.protection.missing_in(new);
        if config.tls.is_some() != self.tls {
            lines.push("tls_server_config: TLS cannot be switched on or off without a restart");
        }
        if lines.is_empty() {
            files.protection = new;
            return Ok(config);
        }
        Err(WebProblems {
            path: self.path.display().to_string(),
            lines: lines.into_iter().map(str::to_owned).collect(),
        })
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
        let tls = config.tls.as_ref();
        Self {
            certificates: tls.is_some_and(|tls| tls.wants_certificates),
            verified: tls.is_some_and(|tls| tls.verifies_certificates),
            names: tls.is_some_and(|tls| tls.wants_names),
            passwords: config.users.len() > 0,
        }
    }

    /// What `new` lacks, as it is told.
    fn missing_in(self, new: Self) -> Vec<&'static str> {
        let rules = [
            (
                self.certificates && !new.certificates,
                "tls_server_config.client_auth_type: cannot do without client certificates without a restart",
            ),
            (
                self.verified && !new.verified,
                "tls_server_config.client_auth_type: cannot do without a CA of the clients without a restart",
            ),
            (
                self.names && !new.names,
                "tls_server_config.client_allowed_sans: cannot do without names without a restart",
            ),
            (
                self.passwords && !new.passwords,
                "basic_auth_users: cannot do without passwords without a restart",
            ),
        ];
        let missing = rules.into_iter().filter(|(missing, _)| *missing);
        missing.map(|(_, rule)| rule).collect()
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
