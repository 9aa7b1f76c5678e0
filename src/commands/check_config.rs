//! `check-config`: reads the configuration as `serve` would, offline, and says every problem.

use std::env;
use std::io::Write;

use super::Failure;
use crate::cli::ConfigFile;
use crate::config::Config;

/// Checks one file.
pub fn run(file: &ConfigFile, out: &mut dyn Write) -> Result<(), Failure> {
    let path = &file.config_file;
    let config = Config::load(path, env::vars().collect())
        .map_err(|problems| Failure::Usage(problems.into()))?;
    writeln!(
        out,
        "{} is valid: {} source(s)",
        path.display(),
        config.sources.len()
    )?;
    for source in &config.sources {
        writeln!(
            out,
            "  {} ({}), every {}",
            source.name,
            source.kind.type_name(),
            humantime::format_duration(source.interval)
        )?;
    }
    Ok(())
}
