//! The web configuration: the YAML file that Prometheus' exporters read by `--web.config.file`, with the keys and
//! meanings of exporter-toolkit. Here are its keys and rules; what stands below `tls_server_config` becomes TLS in
//! `tls`.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hyper::header::{HeaderName, HeaderValue};
use rustls::ServerConfig;
use serde::Deserialize;

use super::auth::{Users, hash_problem};
use super::stamps::Stamps;
use super::tls;

/// The headers that may be set, and the values that they may have; none means any.
const HEADERS: [(&str, &[&str]); 5] = [
    ("Strict-Transport-Security", &[]),
    ("X-Content-Type-Options", &["nosniff"]),
    ("X-Frame-Options", &["deny", "sameorigin"]),
    ("X-XSS-Protection", &[]),
    ("Content-Security-Policy", &[]),
];

/// The longest interval of a rate limit, and the largest burst: enough for all, and their product can be counted.
const LONGEST_INTERVAL: Duration = Duration::from_secs(86_400);
const MOST_BURST: u32 = 100_000;

/// What a valid file says.
#[derive(Debug)]
pub(super) struct WebConfig {
    /// TLS, if there is to be any.
    pub(super) tls: Option<Tls>,
    /// Headers of every answer.
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    /// Who may ask; empty: everybody.
    pub(super) users: Users,
    /// How often may be asked, by all together.
    pub(super) rate_limit: Option<RateLimit>,
}

/// TLS as the server speaks it.
#[derive(Debug)]
pub(super) struct Tls {
    pub(super) server: Arc<ServerConfig>,
    /// Whether clients must show a certificate.
    pub(super) wants_certificates: bool,
    /// Whether these must come from one of the CAs.
    pub(super) verifies_certificates: bool,
    /// Whether one of certain names must stand in them.
    pub(super) wants_names: bool,
}

/// One request for each `interval`, and `burst` at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RateLimit {
    pub(super) interval: Duration,
    pub(super) burst: NonZeroU32,
}

/// Everything that is wrong with a web configuration, one line each.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct WebProblems {
    /// The file.
    pub path: String,
    /// What is wrong with it.
    pub lines: Vec<String>,
}

impl fmt::Display for WebProblems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (number, path) = (self.lines.len(), &self.path);
        let plural = if number == 1 { "" } else { "s" };
        write!(
            f,
            "the web configuration {path} has {number} problem{plural}"
        )?;
        self.lines
            .iter()
            .try_for_each(|line| write!(f, "\n  {line}"))
    }
}

/// The file as it is written. A key without a value is as good as none.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct File {
    tls_server_config: Option<tls::Keys>,
    http_server_config: Option<HttpKeys>,
    basic_auth_users: Option<BTreeMap<String, String>>,
    rate_limit: Option<RateKeys>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct HttpKeys {
    http2: Option<bool>,
    headers: Option<BTreeMap<String, Option<String>>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RateKeys {
    interval: Option<String>,
    burst: Option<i64>,
}

/// What is wrong, as it is found.
#[derive(Debug, Default)]
pub(super) struct Problems(pub(super) Vec<String>);

impl Problems {
    /// `key` has a `value` that breaks `rule`.
    pub(super) fn of(&mut self, key: &str, value: &str, rule: &str) {
        self.0.push(format!("{key} = {value:?}: {rule}"));
    }

    /// `key` breaks `rule`; its value is missing, or a secret.
    pub(super) fn bare(&mut self, key: &str, rule: &str) {
        self.0.push(format!("{key}: {rule}"));
    }
}

/// Reads the file at `path` and the files that it names, which leave their stamps. Relative names start at the file's
/// folder.
pub(super) fn read(path: &Path, stamps: &mut Stamps) -> Result<WebConfig, WebProblems> {
    let told = |lines| WebProblems {
        path: path.display().to_string(),
        lines,
    };
    let text = stamps
        .read(path)
        .map_err(|error| told(vec![format!("cannot be read: {error}")]))?;
    let file = parse(&text).map_err(|problem| told(vec![problem]))?;
    let mut problems = Problems::default();
    let folder = path.parent().unwrap_or(Path::new(""));
    let config = config(file, folder, stamps, &mut problems);
    match config {
        Some(config) if problems.0.is_empty() => Ok(config),
        _ => Err(told(problems.0)),
    }
}

fn parse(text: &[u8]) -> Result<File, String> {
    let text = std::str::from_utf8(text).map_err(|_| "is not UTF-8".to_owned())?;
    // What stands in the file may be a secret: the place is told, not the line.
    let options = serde_saphyr::options! { with_snippet: false };
    let file = serde_saphyr::from_str_with_options::<Option<File>>(text, options)
        .map_err(|error| error.render_with_formatter(&serde_saphyr::UserMessageFormatter))?;
    Ok(file.unwrap_or_default())
}

fn config(
    file: File,
    folder: &Path,
    stamps: &mut Stamps,
    problems: &mut Problems,
) -> Option<WebConfig> {
    let http = file.http_server_config.unwrap_or_default();
    let http2 = http.http2.unwrap_or(true);
    let headers = headers(http.headers.unwrap_or_default(), problems);
    let users = file.basic_auth_users.unwrap_or_default();
    for (user, hash) in &users {
        if let Some(problem) = hash_problem(hash) {
            problems.bare(&format!("basic_auth_users.{user}"), &problem);
        }
    }
    let rate_limit = rate_limit(file.rate_limit.unwrap_or_default(), problems);
    let keys = file.tls_server_config.unwrap_or_default();
    keys.check_names(problems);
    let tls = if keys.is_enabled() {
        Some(keys.build(folder, http2, stamps, problems)?)
    } else {
        None
    };
    Some(WebConfig {
        tls,
        headers,
        users: Users::new(users),
        rate_limit,
    })
}

fn headers(
    headers: BTreeMap<String, Option<String>>,
    problems: &mut Problems,
) -> Vec<(HeaderName, HeaderValue)> {
    let mut valid = Vec::new();
    for (name, value) in headers {
        let (key, value) = (
            format!("http_server_config.headers.{name}"),
            value.unwrap_or_default(),
        );
        let Some((_, allowed)) = HEADERS.iter().find(|(known, _)| *known == name) else {
            let names = HEADERS.map(|(name, _)| name).join(", ");
            problems.bare(&key, &format!("cannot be configured; can be: {names}"));
            continue;
        };
        if !allowed.is_empty() && !allowed.contains(&value.as_str()) {
            problems.of(&key, &value, &format!("must be {}", allowed.join(" or ")));
        } else if value.is_empty() {
            // Blank is not set.
        } else if let (Ok(name), Ok(value)) = (name.parse(), HeaderValue::from_str(&value)) {
            valid.push((name, value));
        } else {
            problems.of(&key, &value, "cannot be the value of a header");
        }
    }
    valid
}

fn rate_limit(keys: RateKeys, problems: &mut Problems) -> Option<RateLimit> {
    let text = keys.interval.unwrap_or_default();
    let interval = if text.is_empty() {
        Some(Duration::ZERO)
    } else {
        duration(&text)
    };
    let Some(interval) = interval else {
        let rule = "must be a duration such as \"1s\" or \"1m30s\", from 0 to 24h";
        problems.of("rate_limit.interval", &text, rule);
        return None;
    };
    if interval.is_zero() {
        return None;
    }
    let burst = keys.burst.unwrap_or_default();
    let burst = u32::try_from(burst)
        .ok()
        .filter(|burst| *burst <= MOST_BURST);
    let burst = burst.and_then(NonZeroU32::new);
    if burst.is_none() {
        let value = keys.burst.unwrap_or_default().to_string();
        let rule = format!("must be from 1 to {MOST_BURST} where there is an interval");
        problems.of("rate_limit.burst", &value, &rule);
    }
    Some(RateLimit {
        interval,
        burst: burst?,
    })
}

/// Reads a duration as Go writes it: `1h2m3.5s`; a number alone is of nanoseconds.
fn duration(text: &str) -> Option<Duration> {
    const UNITS: [(&str, f64); 7] = [
        ("ns", 1e-9),
        ("us", 1e-6),
        ("µs", 1e-6),
        ("ms", 1e-3),
        ("s", 1.0),
        ("m", 60.0),
        ("h", 3600.0),
    ];
    let mut rest = text;
    let mut seconds = 0.0;
    if let Ok(nanoseconds) = text.parse::<u64>() {
        return Some(Duration::from_nanos(nanoseconds)).filter(|time| *time <= LONGEST_INTERVAL);
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(end);
        let end = after.find(|c: char| c.is_ascii_digit() || c == '.');
        let (unit, after) = after.split_at(end.unwrap_or(after.len()));
        let (_, scale) = UNITS.iter().find(|(name, _)| *name == unit)?;
        seconds += number.parse::<f64>().ok()? * scale;
        rest = after;
    }
    (seconds <= LONGEST_INTERVAL.as_secs_f64()).then(|| Duration::from_secs_f64(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_writes_them() {
        for (text, milliseconds) in [
            ("0", 0),
            ("1s", 1000),
            ("1m30s", 90_000),
            ("1.5h", 5_400_000),
            ("250ms", 250),
            ("2000us", 2),
            ("3000000", 3),
        ] {
            assert_eq!(
                duration(text),
                Some(Duration::from_millis(milliseconds)),
                "{text}"
            );
        }
        assert_eq!(duration("1"), Some(Duration::from_nanos(1)));
        for text in [
            "-1s",
            "-1",
            "s",
            "1 s",
            "1d",
            "soon",
            "1s1",
            ".s",
            "9e9h",
            "25h",
            "99999999999999999999",
        ] {
            assert_eq!(duration(text), None, "{text}");
        }
    }
}
