//! The `[[sources]]` tables.

mod logs_insights;

use std::time::Duration;

use super::keys::{Keys, Problem};
use crate::source::trail_files::{self, Choice};
use crate::source::{Terms, logs_insights as insights, query};
use crate::tls::TlsVersion;

/// One `[[sources]]` table.
#[derive(Clone, Debug)]
pub struct Source {
    /// The `source` label.
    pub name: String,
    /// How often it is asked.
    pub interval: Duration,
    /// When its windows settle, and what its bytes cost.
    pub terms: Terms,
    /// What it is.
    pub kind: Kind,
}

/// The settings of a source by its `type`.
#[derive(Clone, Debug)]
pub enum Kind {
    /// CloudTrail's own log files.
    TrailFiles(trail_files::Settings),
    /// CloudWatch Logs Insights: what it shares with other query sources, and its own.
    LogsInsights(query::Settings, insights::Settings),
}

impl Kind {
    /// The `type` in the file.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::TrailFiles(_) => "trail_files",
            Self::LogsInsights(..) => "logs_insights",
        }
    }
}

/// What the sources need to know of the rest.
pub(super) struct Shared {
    pub(super) bucket: Duration,
    pub(super) window: Duration,
    pub(super) retention: Duration,
    pub(super) minimum_version: TlsVersion,
}

const TYPES: &str = "must be `logs_insights` or `trail_files`";

/// Reads every table; what is wrong with one does not hide what is wrong with another.
pub(super) fn sources(keys: &mut Keys, shared: &Shared) -> Vec<Source> {
    let number = keys.tables("sources");
    if number == 0 {
        keys.problem(Problem::bare(
            "no [[sources]]: at least one must be configured, in the file",
        ));
    }
    let mut sources: Vec<Source> = Vec::new();
    for place in 0..number {
        let key = |name: &str| format!("sources[{place}].{name}");
        let name = keys.required(&key("name"));
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let ok = name.is_empty() || name.len() <= 64 && name.chars().all(plain);
        keys.check(
            ok,
            &key("name"),
            "must be at most 64 letters, digits, `-`, `_` or `.`",
        );
        let unique = name.is_empty() || sources.iter().all(|source| source.name != name);
        keys.check(
            unique,
            &key("name"),
            "must be unique: it tells one source's series from another's",
        );
        let kind = keys.required(&key("type"));
        match kind.as_str() {
            "trail_files" => sources.push(Source {
                name,
                interval: interval(keys, &key("interval"), "10s"),
                terms: Terms::default(),
                kind: Kind::TrailFiles(trail_files(keys, place, shared)),
            }),
            "logs_insights" => sources.push(logs_insights::source(keys, place, name, shared)),
            // A missing `type` has been told already.
            "" => keys.ignore(&format!("sources[{place}]")),
            _ => {
                keys.check(false, &key("type"), TYPES);
                keys.ignore(&format!("sources[{place}]"));
            }
        }
    }
    sources
}

fn interval(keys: &mut Keys, key: &str, default: &str) -> Duration {
    let interval = keys.duration(key, default);
    let enough = interval >= Duration::from_secs(1);
    keys.check(enough, key, "must be at least 1s");
    interval
}

/// How much of the past is counted at the first start; the default gives way to a shorter retention.
fn lookback(keys: &mut Keys, key: &str, shared: &Shared) -> Duration {
    let lookback = keys.duration(key, "24h");
    let fits = lookback <= shared.retention || !keys.is_set(key);
    keys.check(fits, key, "must not be longer than `state.retention`");
    lookback.min(shared.retention)
}

fn trail_files(keys: &mut Keys, place: usize, shared: &Shared) -> trail_files::Settings {
    let key = |name: &str| format!("sources[{place}].{name}");
    let location = keys.required(&key("location"));
    keys.check(
        !location.starts_with("s3://"),
        &key("location"),
        "must be a folder: this build does not read buckets",
    );
    let lookback = lookback(keys, &key("lookback"), shared);
    let include = keys.texts(&key("include"), &[]);
    let exclude = keys.texts(&key("exclude"), &[]);
    let choice = Choice::new(&include, &exclude);
    for (name, globs) in [("include", &include), ("exclude", &exclude)] {
        if let Err(error) = Choice::new(globs, &[]) {
            keys.check(
                false,
                &key(name),
                &format!("must be glob patterns: {error}"),
            );
        }
    }
    trail_files::Settings {
        location: location.into(),
        choice: choice.unwrap_or_default(),
        deduplicate: keys.flag(&key("deduplicate"), true),
        lookback,
        retention: shared.retention,
        bucket: shared.bucket,
    }
}
