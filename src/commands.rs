//! What the commands share: how they fail, how they are chosen, and the configuration with its flags.

pub mod check_config;
pub mod demo;
pub mod doctor;
pub mod serve;

use std::env;
use std::error::Error;
use std::io::{self, Write};

use crate::cli::{Arguments, Command, Web};
use crate::config::Config;
use crate::metrics;

/// Why a command ended without success.
#[derive(Debug)]
pub enum Failure {
    /// Wrong arguments or configuration: exit code 2.
    Usage(Box<dyn Error>),
    /// Anything else: exit code 1.
    Failed(Box<dyn Error>),
}

impl<E: Into<Box<dyn Error>>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// Runs the command of `arguments`; what it has to say goes to `out`.
pub fn run(arguments: Arguments, out: &mut dyn Write) -> Result<(), Failure> {
    if arguments.version {
        return Ok(version(out)?);
    }
    match arguments.command.unwrap_or(Command::Serve(arguments.serve)) {
        Command::Serve(serve) => serve::run(&serve),
        Command::CheckConfig(file) => check_config::run(&file, out),
        Command::Doctor(flags) => doctor::run(&flags, out),
        Command::Demo(demo) => demo::run(&demo, out),
    }
}

fn version(out: &mut dyn Write) -> io::Result<()> {
    let (version, revision, rustc) = (metrics::VERSION, metrics::REVISION, metrics::RUSTC);
    writeln!(
        out,
        "cloudtrail-tls-exporter, version {version} (revision: {revision})"
    )?;
    writeln!(out, "  rustc:    {rustc}")?;
    writeln!(out, "  platform: {}/{}", env::consts::OS, env::consts::ARCH)
}

/// Lays the flags over the configuration.
fn with_flags(mut config: Config, flags: &Web) -> Config {
    if !flags.listen_addresses.is_empty() {
        config.listen_addresses.clone_from(&flags.listen_addresses);
    }
    config.log.level = flags.log_level.unwrap_or(config.log.level);
    config.log.format = flags.log_format.unwrap_or(config.log.format);
    config
}
