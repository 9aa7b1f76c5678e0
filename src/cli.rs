//! The arguments as typed, in the manner of Prometheus' exporters. Help texts are the doc comments.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::logging::{Format, Level};

/// Counts AWS API calls by TLS version, from CloudTrail, and serves the counts to Prometheus
#[derive(Debug, Parser)]
#[command(
    name = "cloudtrail-tls-exporter",
    disable_version_flag = true,
    args_conflicts_with_subcommands = true
)]
pub struct Arguments {
    /// What to do; `serve` if nothing is said.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// The flags of `serve`.
    #[command(flatten)]
    pub serve: Serve,
    /// Print the version and end
    #[arg(long)]
    pub version: bool,
}

/// What the program does.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Count and serve (the default)
    Serve(Serve),
    /// Check a configuration, offline: every problem at once
    CheckConfig(CheckConfig),
    /// Try each source: credentials, permissions, what it reads, what arrives and what it costs
    Doctor(Doctor),
    /// Try it without AWS: a sample trail in a temporary folder, counted and served
    Demo(Demo),
}

/// Flags of `serve`.
#[derive(Clone, Debug, Default, Args)]
pub struct Serve {
    /// The configuration file
    #[arg(long = "config.file", value_name = "FILE")]
    pub config_file: Option<PathBuf>,
    /// The web configuration: TLS, passwords, headers and rate limit, in the YAML of Prometheus' exporters
    #[arg(long = "web.config.file", value_name = "FILE")]
    pub web_config_file: Option<PathBuf>,
    /// Address of health and readiness alone, in plain HTTP and without a password, for a kubelet's probes
    #[arg(long = "probe.listen-address", value_name = "ADDRESS")]
    pub probe_address: Option<String>,
    /// Flags about serving and logging.
    #[command(flatten)]
    pub web: Web,
}

/// Flags of `check-config`.
#[derive(Clone, Debug, Args)]
pub struct CheckConfig {
    /// The configuration file
    #[arg(long = "config.file", value_name = "FILE")]
    pub config_file: PathBuf,
    /// The web configuration, and the certificates that it names
    #[arg(long = "web.config.file", value_name = "FILE")]
    pub web_config_file: Option<PathBuf>,
}

/// Flags of `doctor`.
#[derive(Clone, Debug, Args)]
pub struct Doctor {
    /// The configuration file
    #[arg(long = "config.file", value_name = "FILE")]
    pub config_file: PathBuf,
    /// Tell it as one JSON document
    #[arg(long)]
    pub json: bool,
    /// This source alone
    #[arg(long, value_name = "NAME")]
    pub source: Option<String>,
}

/// Flags about serving and logging; they win over the configuration.
#[derive(Clone, Debug, Args)]
pub struct Web {
    /// Address to serve on, such as `:10013` or `127.0.0.1:10013`; may be repeated
    #[arg(long = "web.listen-address", value_name = "ADDRESS")]
    pub listen_addresses: Vec<String>,
    /// The most scrapes that are answered at once
    #[arg(long = "web.max-requests", value_name = "NUMBER", default_value_t = 40, value_parser = at_least_one)]
    pub max_requests: usize,
    /// debug, info, warn or error
    #[arg(long = "log.level", value_name = "LEVEL")]
    pub log_level: Option<Level>,
    /// logfmt or json
    #[arg(long = "log.format", value_name = "FORMAT")]
    pub log_format: Option<Format>,
}

impl Default for Web {
    fn default() -> Self {
        Self {
            listen_addresses: Vec::new(),
            max_requests: 40,
            log_level: None,
            log_format: None,
        }
    }
}

/// Flags of `demo`.
#[derive(Clone, Debug, Args)]
pub struct Demo {
    /// Flags about serving and logging.
    #[command(flatten)]
    pub web: Web,
    /// When a caller on TLS 1.1 turns up, after the start
    #[arg(long = "demo.legacy-after", value_name = "DURATION", default_value = "20s", value_parser = duration)]
    pub legacy_after: Duration,
}

fn duration(text: &str) -> Result<Duration, humantime::DurationError> {
    humantime::parse_duration(text)
}

fn at_least_one(text: &str) -> Result<usize, String> {
    text.parse()
        .ok()
        .filter(|number| *number > 0)
        .ok_or_else(|| "must be a whole number from 1".to_owned())
}
