//! Logs: one event a line on stderr, as logfmt or JSON.

use std::io;
use std::str::FromStr;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::Registry;
use tracing_subscriber::reload::{self, Handle};
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

/// How a line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// `ts=… level=info msg=…`, as Prometheus' own programs write.
    #[default]
    Logfmt,
    /// One JSON object a line.
    Json,
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "logfmt" => Ok(Self::Logfmt),
            "json" => Ok(Self::Json),
            _ => Err("must be `logfmt` or `json`".to_owned()),
        }
    }
}

/// The least important events that are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level(LevelFilter);

impl Default for Level {
    fn default() -> Self {
        Self(LevelFilter::INFO)
    }
}

impl FromStr for Level {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "debug" => Ok(Self(LevelFilter::DEBUG)),
            "info" => Ok(Self(LevelFilter::INFO)),
            "warn" => Ok(Self(LevelFilter::WARN)),
            "error" => Ok(Self(LevelFilter::ERROR)),
            _ => Err("must be `debug`, `info`, `warn` or `error`".to_owned()),
        }
    }
}

/// The settings of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// The least important events that are written.
    pub level: Level,
    /// How a line looks.
    pub format: Format,
}

impl Format {
    /// As it stands in the configuration.
    pub fn label(self) -> &'static str {
        match self {
            Self::Logfmt => "logfmt",
            Self::Json => "json",
        }
    }
}

/// The log that is being written.
#[derive(Clone, Debug)]
pub struct Log(Handle<LevelFilter, Registry>);

impl Log {
    /// From now on writes events of this level and above.
    pub fn set_level(&self, level: Level) {
        // It fails only when the log itself is gone.
        self.0.reload(level.0).ok();
    }
}

/// Starts the log; once per process.
pub fn start(settings: Settings) -> Result<Log, TryInitError> {
    let (level, handle) = reload::Layer::new(settings.level.0);
    // h2 would tell of every frame of every scrape.
    let ours = filter_fn(|event| event.target().split("::").next() != Some("h2"));
    let registry = tracing_subscriber::registry().with(level).with(ours);
    match settings.format {
        Format::Logfmt => {
            let lines = tracing_logfmt::builder()
                .with_target(false)
                .with_span_name(false)
                .with_span_path(false);
            registry
                .with(lines.layer().with_writer(io::stderr))
                .try_init()?;
        }
        Format::Json => {
            let lines = tracing_subscriber::fmt::layer()
                .json()
                .flatten_event(true)
                .with_target(false);
            registry.with(lines.with_writer(io::stderr)).try_init()?;
        }
    }
    Ok(Log(handle))
}
