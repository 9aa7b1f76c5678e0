//! The `[[sources]]` tables.

mod athena;
mod event_history;
mod lake;
mod logs_insights;
mod table;

use std::time::Duration;

use self::table::Table;
use super::keys::{Keys, Problem};
use crate::aws::Access;
use crate::call::AskedCallers;
use crate::source::trail_files::{self, Choice};
use crate::source::{self as of, Terms, query};
use crate::tls::TlsVersion;

/// One `[[sources]]` table.
#[derive(Clone, Debug, PartialEq)]
pub struct Source {
    /// The `source` label.
    pub name: String,
    /// How it reaches AWS, and by how many workers.
    pub access: Access,
    /// How often it is asked.
    pub interval: Duration,
    /// When its windows settle, and what its bytes cost.
    pub terms: Terms,
    /// The most bytes that AWS may bill for its queries of a day.
    pub budget: Option<u64>,
    /// What it is.
    pub kind: Kind,
}

impl Source {
    /// The source at each of its places: what each of its workers is told.
    pub fn by_place(&self) -> Vec<Self> {
        let at = |place| Self {
            access: self.access.to(place),
            ..self.clone()
        };
        self.access.places().into_iter().map(at).collect()
    }
}

/// The settings of a source by its `type`.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// CloudTrail's own log files.
    TrailFiles(trail_files::Settings),
    /// CloudWatch Logs Insights: what it shares with other query sources, and its own.
    LogsInsights(query::Settings, of::logs_insights::Settings),
    /// CloudTrail Lake.
    Lake(query::Settings, of::lake::Settings),
    /// Athena.
    Athena(query::Settings, of::athena::Settings),
    /// CloudTrail's event history.
    EventHistory(of::event_history::Settings),
}

impl Kind {
    /// The `type` in the file.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::TrailFiles(_) => "trail_files",
            Self::LogsInsights(..) => "logs_insights",
            Self::Lake(..) => "lake",
            Self::Athena(..) => "athena",
            Self::EventHistory(_) => "event_history",
        }
    }
}

/// What the sources need to know of the rest.
pub(super) struct Shared {
    pub(super) bucket: Duration,
    pub(super) window: Duration,
    pub(super) retention: Duration,
    pub(super) minimum_version: TlsVersion,
    pub(super) callers: AskedCallers,
}

const TYPES: &str = "must be `athena`, `event_history`, `lake`, `logs_insights` or `trail_files`";

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
        let mut table = Table {
            keys,
            place,
            shared,
        };
        match kind.as_str() {
            "athena" => sources.push(athena::source(&mut table, name)),
            "event_history" => sources.push(event_history::source(&mut table, name)),
            "lake" => sources.push(lake::source(&mut table, name)),
            "logs_insights" => sources.push(logs_insights::source(&mut table, name)),
            "trail_files" => sources.push(Source {
                name,
                access: Access::default(),
                interval: table.interval("10s"),
                terms: Terms::default(),
                budget: table.no_budget(),
                kind: Kind::TrailFiles(trail_files(&mut table)),
            }),
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

fn trail_files(table: &mut Table<'_>) -> trail_files::Settings {
    let location = table.required("location");
    table.check(
        !location.starts_with("s3://"),
        "location",
        "must be a folder: this build does not read buckets",
    );
    let lookback = table.lookback("24h");
    let include = table.texts("include");
    let exclude = table.texts("exclude");
    let choice = Choice::new(&include, &exclude);
    for (name, globs) in [("include", &include), ("exclude", &exclude)] {
        if let Err(error) = Choice::new(globs, &[]) {
            table.check(false, name, &format!("must be glob patterns: {error}"));
        }
    }
    trail_files::Settings {
        location: location.into(),
        choice: choice.unwrap_or_default(),
        deduplicate: table.flag("deduplicate", true),
        lookback,
        retention: table.shared.retention,
        bucket: table.shared.bucket,
        callers: table.shared.callers,
    }
}
