//! The configuration: valid by construction, or every problem at once.
//!
//! `keys` reads single values by name and collects what is wrong with them; here is what the keys mean
//! and how they depend on each other.

mod callers;
mod keys;
mod restart;
mod sources;

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};

use config::{Environment, File, FileFormat};

use self::callers::callers;
use self::keys::{Keys, Problem};
pub use self::sources::{Kind, Source};
use self::sources::{Shared, sources};
use crate::call::AskedCallers;
use crate::tls::TlsVersion;
use crate::{exposition, logging, series, store};

/// The prefix of environment variables that set keys: `CLOUDTRAIL_TLS__WINDOW__LENGTH`.
const PREFIX: &str = "CLOUDTRAIL_TLS";
/// The grids of time that fit into an hour and that every source can follow.
const BUCKETS: [u64; 6] = [60, 300, 600, 900, 1800, 3600];
/// A finer grid, which only files can follow.
const FILES_BUCKET: u64 = 10;
/// Where the store lies without `state.path` and `$STATE_DIRECTORY`.
const STATE_DIRECTORY: &str = "/var/lib/cloudtrail-tls-exporter";

/// A valid configuration: the settings of each module.
#[derive(Clone, Debug)]
pub struct Config {
    /// The store.
    pub store: store::Settings,
    /// The data block of the scrape.
    pub exposition: exposition::Settings,
    /// The log.
    pub log: logging::Settings,
    /// Where the server listens.
    pub listen_addresses: Vec<String>,
    /// The sources, at least one.
    pub sources: Vec<Source>,
}

/// Everything that is wrong with a configuration, one line each.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Problems(pub Vec<String>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (number, plural) = (self.0.len(), if self.0.len() == 1 { "" } else { "s" });
        write!(f, "the configuration has {number} problem{plural}")?;
        self.0
            .iter()
            .try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

impl Config {
    /// Reads the file at `path`, with the environment's variables over it.
    pub fn load(path: &Path, environment: HashMap<String, String>) -> Result<Self, Problems> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| Problems(vec![format!("cannot read {}: {error}", path.display())]))?;
        Self::parse(&text, environment)
    }

    /// Reads TOML, with the environment's variables over it.
    pub fn parse(toml: &str, environment: HashMap<String, String>) -> Result<Self, Problems> {
        let (config, problems, _) = read(toml, environment);
        if problems.is_empty() {
            config.ok_or(Problems(problems))
        } else {
            Err(Problems(problems))
        }
    }
}

/// The configuration as far as it could be read, what is wrong with it, and every key there is.
fn read(
    toml: &str,
    environment: HashMap<String, String>,
) -> (Option<Config>, Vec<String>, Vec<String>) {
    let state_directory = environment.get("STATE_DIRECTORY").cloned();
    let (environment, odd): (HashMap<_, _>, HashMap<_, _>) = environment
        .into_iter()
        .partition(|(name, _)| is_variable(name));
    let variables = Environment::with_prefix(PREFIX)
        .prefix_separator("__")
        .separator("__")
        .source(Some(environment));
    let merged = config::Config::builder()
        .add_source(File::from_str(toml, FileFormat::Toml))
        .add_source(variables)
        .build()
        .and_then(|merged| merged.cache.into_table());
    let mut keys = match merged {
        Ok(table) => Keys::new(table),
        Err(error) => return (None, vec![error.to_string()], Vec::new()),
    };
    for name in odd.keys() {
        keys.problem(Problem::bare(&format!("{name}: no such key")));
    }
    let config = config(&mut keys, state_directory.as_deref());
    let (problems, known) = keys.finish();
    (Some(config), problems, known)
}

/// Whether a variable could set a key, or is none of ours. The `config` package would follow brackets and any depth.
fn is_variable(name: &str) -> bool {
    let ours = name
        .get(..PREFIX.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(PREFIX));
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    !ours || name.chars().all(plain) && name.matches("__").count() <= 3
}

/// Whether `address` is a port with or without a host before it.
fn is_address(address: &str) -> bool {
    let Some((host, port)) = address.rsplit_once(':') else {
        return false;
    };
    let bracketed = host.starts_with('[') && host.ends_with(']');
    port.parse::<u16>().is_ok() && (bracketed || !host.contains(':'))
}

fn config(keys: &mut Keys, state_directory: Option<&str>) -> Config {
    let minimum_version = keys.value("tls.minimum_version", "TLSv1.2", |text| {
        let version = TlsVersion::from_label(text).filter(|version| version.known());
        version.ok_or_else(|| "must be `TLSv1`, `TLSv1.1`, `TLSv1.2` or `TLSv1.3`".to_owned())
    });
    let bucket = keys.duration("window.bucket", "5m");
    let window = keys.duration("window.length", "24h");
    let quiet_period = keys.duration("regression.quiet_period", "7d");
    let retention = keys.duration("state.retention", "35d");
    let known = bucket.as_secs() == FILES_BUCKET || BUCKETS.contains(&bucket.as_secs());
    keys.check(
        known && bucket.subsec_nanos() == 0,
        "window.bucket",
        "must be 10s, 1m, 5m, 10m, 15m, 30m or 1h",
    );
    let whole = !bucket.is_zero() && window.as_secs().is_multiple_of(bucket.as_secs());
    keys.check(
        whole && window >= bucket,
        "window.length",
        "must be a whole number of `window.bucket`s, at least one",
    );
    keys.check(
        retention >= window,
        "state.retention",
        "must not be shorter than `window.length`",
    );
    keys.check(
        quiet_period >= bucket,
        "regression.quiet_period",
        "must not be shorter than `window.bucket`",
    );
    keys.check(
        retention >= quiet_period,
        "state.retention",
        "must not be shorter than `regression.quiet_period`",
    );

    let labels = keys.texts("series.labels", &["account_id"]);
    let known = labels
        .iter()
        .all(|label| ["account_id", "aws_region"].contains(&label.as_str()));
    keys.check(
        known,
        "series.labels",
        "may hold `account_id` and `aws_region`",
    );
    let has = |label: &str| labels.iter().any(|name| name == label);
    let series = series::Settings {
        limit: keys.number(
            "series.limit",
            series::Settings::default().limit,
            series::MOST,
        ),
        label_account: has("account_id"),
        label_region: has("aws_region"),
    };
    let callers = callers(keys);
    let exposition = exposition::Settings {
        minimum_version,
        window,
        retention,
        quiet_period,
        series: series.clone(),
        callers,
    };
    let log = logging::Settings {
        level: keys.value("log.level", "info", str::parse),
        format: keys.value("log.format", "logfmt", str::parse),
    };
    let listen_addresses = keys.texts("web.listen_addresses", &[":10013"]);
    keys.check(
        !listen_addresses.is_empty(),
        "web.listen_addresses",
        "must name at least one address",
    );
    keys.check(
        listen_addresses.iter().all(|address| is_address(address)),
        "web.listen_addresses",
        "must be addresses such as `:10013` or `127.0.0.1:10013`",
    );
    // systemd separates several state directories by colons.
    let directory = state_directory.and_then(|directories| directories.split(':').next());
    let directory = directory.unwrap_or(STATE_DIRECTORY);
    let path = keys.value("state.path", &format!("{directory}/state.db"), |text| {
        Ok(PathBuf::from(text))
    });
    keys.check(path != Path::new(""), "state.path", "must not be empty");
    let ephemeral = keys.flag("state.ephemeral", false);
    let store = store::Settings {
        path: (!ephemeral).then_some(path),
        retention,
        window,
        bucket,
        minimum_version,
        quiet_period,
        series,
        callers: callers.labels,
    };
    let shared = Shared {
        bucket,
        window,
        retention,
        minimum_version,
        callers: AskedCallers {
            below: minimum_version,
            labels: callers.labels,
        },
    };
    let sources = sources(keys, &shared);
    let least = series::LEAST * sources.len().max(1);
    let rule = format!("must be at least {} for each source", series::LEAST);
    keys.check(store.series.limit >= least, "series.limit", &rule);
    let room = store.series.limit.saturating_sub(least);
    keys.check(
        exposition.callers.limit <= room || store.series.limit < least,
        "callers.limit",
        &format!("must leave {least} of `series.limit` to other series"),
    );
    let all_files = sources
        .iter()
        .all(|source| matches!(source.kind, Kind::TrailFiles(_)));
    keys.check(
        bucket.as_secs() != FILES_BUCKET || all_files,
        "window.bucket",
        "10s is for `trail_files` alone",
    );
    Config {
        store,
        exposition,
        log,
        listen_addresses,
        sources,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use std::time::Duration;

    use super::*;

    const EXAMPLE: &str = include_str!("../config.example.toml");
    const LEAST: &str = "[[sources]]\nname = \"trail\"\ntype = \"trail_files\"\nlocation = \"/var/log/cloudtrail\"\n";
    const LEAST_LOGS: &str = "[[sources]]\nname = \"logs\"\ntype = \"logs_insights\"\nlog_groups = [\"aws-cloudtrail-logs\"]\n";
    const LEAST_LAKE: &str = "[[sources]]\nname = \"lake\"\ntype = \"lake\"\nevent_data_store = \"01234567-89ab-cdef-0123-456789abcdef\"\n";
    const LEAST_ATHENA: &str =
        "[[sources]]\nname = \"athena\"\ntype = \"athena\"\ntable = \"cloudtrail_logs\"\n";
    const LEAST_HISTORY: &str = "[[sources]]\nname = \"history\"\ntype = \"event_history\"\n";

    fn problems(toml: &str, environment: &[(&str, &str)]) -> Vec<String> {
        let environment = environment
            .iter()
            .map(|(key, value)| (key.to_string(), value.to_string()))
            .collect();
        Config::parse(toml, environment).map_or_else(|problems| problems.0, |_| Vec::new())
    }

    #[test]
    fn the_example_holds_every_key_at_its_default() {
        let (example, problems, known) = read(EXAMPLE, HashMap::new());
        assert_eq!(problems, Vec::<String>::new());
        let least = [LEAST, LEAST_LOGS, LEAST_LAKE, LEAST_ATHENA, LEAST_HISTORY].concat();
        let (least, problems, _) = read(&least, HashMap::new());
        assert_eq!(problems, Vec::<String>::new());
        assert_eq!(format!("{example:#?}"), format!("{least:#?}"));

        let mut table = String::new();
        let mut sources = 0..;
        let written: Vec<String> = EXAMPLE
            .lines()
            .filter_map(|line| {
                if line == "[[sources]]" {
                    table = format!("sources[{}]", sources.next().unwrap());
                } else if let Some(name) = line.strip_prefix('[') {
                    name.trim_end_matches(']').clone_into(&mut table);
                }
                let (key, _) = line
                    .split_once(" = ")
                    .filter(|(key, _)| !key.starts_with('#'))?;
                Some(format!("{table}.{key}"))
            })
            .collect();
        let missing: Vec<_> = known.iter().filter(|key| !written.contains(key)).collect();
        assert_eq!(
            missing,
            Vec::<&String>::new(),
            "keys that config.example.toml does not show"
        );
    }

    #[test]
    fn every_problem_is_told_at_once_with_key_value_and_rule() {
        let toml = "
            [tls]
            minimum_version = \"TLSv1.5\"
            [windw]
            length = \"24h\"
            [window]
            bucket = \"7m\"
            lenght = \"1h\"
            [state]
            retention = \"1h\"
            ephemeral = \"perhaps\"
            [series]
            labels = [\"account_id\", \"colour\"]
            [[sources]]
            name = \"trail\"
            type = \"trail_files\"
            location = 7
            interval = \"often\"
            include = [\"a/{b\"]
            [[sources]]
            name = \"trail\"
            type = \"trail_file\"
            [[sources]]
            type = \"trail_files\"
        ";
        assert_eq!(
            problems(toml, &[]),
            [
                "series.labels = [\"account_id\", \"colour\"]: may hold `account_id` and `aws_region`",
                "sources[0].include = [\"a/{b\"]: must be glob patterns: error parsing glob 'a/{b': unclosed alternate group; missing '}' (maybe escape '{' with '[{]'?)",
                "sources[0].interval = \"often\": must be a duration such as \"5m\" or \"24h\": expected number at 0",
                "sources[0].location = 7: must be a text",
                "sources[1].name = \"trail\": must be unique: it tells one source's series from another's",
                "sources[1].type = \"trail_file\": must be `athena`, `event_history`, `lake`, `logs_insights` or `trail_files`",
                "sources[2].location: is missing",
                "sources[2].name: is missing",
                "state.ephemeral = \"perhaps\": must be true or false",
                "state.retention = \"1h\": must not be shorter than `regression.quiet_period`",
                "state.retention = \"1h\": must not be shorter than `window.length`",
                "tls.minimum_version = \"TLSv1.5\": must be `TLSv1`, `TLSv1.1`, `TLSv1.2` or `TLSv1.3`",
                "window.bucket = \"7m\": must be 10s, 1m, 5m, 10m, 15m, 30m or 1h",
                "window.lenght: no such key; did you mean `window.length`?",
                "window.length: must be a whole number of `window.bucket`s, at least one",
                "windw.length: no such key; did you mean `window.length`?",
            ]
        );
    }

    #[test]
    fn a_file_that_is_no_toml_is_told_with_its_line() {
        let told = problems("[tls\n", &[]).join("\n");
        assert!(told.contains("line 1"), "{told}");
    }

    #[test]
    fn the_environment_sets_scalars_over_the_file_and_its_mistakes_are_told() {
        let toml = format!("[window]\nlength = \"48h\"\n{LEAST}");
        let variables = [
            ("CLOUDTRAIL_TLS__WINDOW__LENGTH", "12h"),
            ("CLOUDTRAIL_TLS__STATE__EPHEMERAL", "true"),
        ];
        let environment = variables
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into();
        let config = Config::parse(&toml, environment).unwrap();
        assert_eq!(config.exposition.window, Duration::from_secs(12 * 3600));
        assert_eq!(config.store.path, None);

        let wrong = [
            ("CLOUDTRAIL_TLS__WINDOW__LENGHT", "12h"),
            ("CLOUDTRAIL_TLS__LOG__LEVEL", "loud"),
        ];
        assert_eq!(
            problems(LEAST, &wrong),
            [
                "log.level = \"loud\" (from the environment): must be `debug`, `info`, `warn` or `error`",
                "window.lenght (from the environment): no such key; did you mean `window.length`?",
            ]
        );
    }

    #[test]
    fn the_store_lies_in_the_state_directory_that_systemd_gives() {
        let path = |environment| {
            Config::parse(LEAST, environment)
                .unwrap()
                .store
                .path
                .unwrap()
        };
        assert_eq!(
            path(HashMap::new()),
            Path::new("/var/lib/cloudtrail-tls-exporter/state.db")
        );
        let systemd = HashMap::from([(
            "STATE_DIRECTORY".to_owned(),
            "/var/lib/private/x".to_owned(),
        )]);
        assert_eq!(path(systemd), Path::new("/var/lib/private/x/state.db"));
    }

    /// Every key there is, with the sources of `config.example.toml` as tables without a number.
    fn known() -> Vec<String> {
        let (_, _, known) = read(EXAMPLE, HashMap::new());
        let mut names: Vec<String> = known
            .into_iter()
            .map(|key| match key.split_once("].") {
                Some((_, name)) => format!("sources.{name}"),
                None => key,
            })
            .collect();
        names.dedup();
        names
    }

    /// What stands behind `=`: of each of TOML's types, and texts that are nearly right.
    fn value() -> impl Strategy<Value = String> {
        prop_oneof![
            r#""[0-9]{1,20}(ns|ms|s|m|h|d|w|month|y)""#,
            r#""(off|all|outdated|event|delivery|TLSv1.[0-9]|10s|1m|1h|24h|35d|info|json|:80|\[::1\]:80)""#,
            "-?[0-9]{1,19}([.][0-9]{1,3})?",
            "true|false|nan|-?inf|2026-06-01|[{][}]|\\[\\]",
            r#"\[("[a-z0-9:*{\[-]{0,9}",?){0,3}\]"#,
            r#"\[[{]arn="[a-z:0-9/]{0,30}"[}]\]"#,
            r#""[^"\\\n]{0,20}""#,
            ".{0,9}",
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn no_values_make_the_configuration_fail_but_with_problems(
            least in prop::sample::select(vec![LEAST, LEAST_LOGS, LEAST_LAKE, LEAST_ATHENA, LEAST_HISTORY]),
            lines in prop::collection::vec((prop::sample::select(known()), value()), 0..6),
            variables in prop::collection::vec((prop::sample::select(known()), value()), 0..3),
            odd in prop::collection::vec(("[A-Z_.0-9\\[\\]]{0,12}", ".{0,9}"), 0..2),
        ) {
            let mut toml = String::new();
            let mut of_source = least.to_owned();
            for (key, value) in lines {
                match key.strip_prefix("sources.") {
                    Some(name) => of_source += &format!("{name} = {value}\n"),
                    None => toml += &format!("{key} = {value}\n"),
                }
            }
            let variables = variables.into_iter().map(|(key, value)| (key.to_uppercase().replace('.', "__"), value));
            let environment = variables.chain(odd).map(|(key, value)| (format!("{PREFIX}__{key}"), value));
            match Config::parse(&(toml + &of_source), environment.collect()) {
                Err(problems) => prop_assert!(!problems.0.is_empty()),
                Ok(config) => prop_assert_eq!(config.sources.len(), 1),
            }
        }

        #[test]
        fn no_text_makes_the_configuration_fail_but_with_problems(
            text in r#"([\[\]{}=."'#,\\\n ]|tls|window|sources|length|"24h"|1e9|'{3}|\\u00|é|-){0,60}"#,
        ) {
            if let Err(problems) = Config::parse(&text, HashMap::new()) {
                prop_assert!(!problems.0.is_empty());
            }
        }
    }

    #[test]
    fn depth_is_a_problem_and_no_overflow() {
        let deep = 50_000;
        for toml in [
            format!("a = {}", "[".repeat(deep)),
            format!("a = {}", "{a=".repeat(deep)),
            format!("a{} = 1", ".a".repeat(deep)),
            format!("[a{}]\nb = 1", ".a".repeat(deep)),
        ] {
            assert_eq!(problems(&toml, &[]).len(), 1);
        }
        let variable = format!("{PREFIX}{}", "__A".repeat(deep));
        assert!(!problems(LEAST, &[(&variable, "1")]).is_empty());
        let variable = format!("{PREFIX}__SOURCES[4000000000]__NAME");
        assert!(!problems(LEAST, &[(&variable, "1")]).is_empty());
    }
}
