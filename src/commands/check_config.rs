//! `check-config`: reads the configuration, and the web configuration if there is one, as `serve` would, offline, and
//! says every problem; a budget is compared with what the store knows.

use std::env;
use std::io::Write;
use std::time::Duration;

use bytesize::ByteSize;

use super::Failure;
use crate::cli::CheckConfig;
use crate::config::{Config, Source};
use crate::http::guard::Guard;
use crate::source::Progress as _;
use crate::source::query::QueryProgress;
use crate::store::{Remembered, remembered};

/// Checks the files.
pub fn run(file: &CheckConfig, out: &mut dyn Write) -> Result<(), Failure> {
    let path = &file.config_file;
    let config = Config::load(path, env::vars().collect());
    let web = file.web_config_file.as_deref();
    let guard = web.map(Guard::new).transpose();
    let (config, guard) = match (config, guard) {
        (Ok(config), Ok(guard)) => (config, guard),
        (Err(problems), Ok(_)) => return Err(Failure::Usage(problems.into())),
        (Ok(_), Err(problems)) => return Err(Failure::Usage(problems.into())),
        (Err(problems), Err(web)) => {
            return Err(Failure::Usage(format!("{problems}\n{web}").into()));
        }
    };
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
    if let (Some(web), Some(guard)) = (web, guard) {
        writeln!(out, "{} is valid: {}", web.display(), guard.summary())?;
    }
    for (place, source) in config.sources.iter().enumerate() {
        if let Some(warning) = budget_warning(&config, source) {
            writeln!(
                out,
                "warning: sources[{place}].budget_bytes_per_day{warning}"
            )?;
        }
    }
    Ok(())
}

/// What is to be said of a source's budget, as the store has it; nothing where that knows nothing.
fn budget_warning(config: &Config, source: &Source) -> Option<String> {
    let (budget, path) = (source.budget?, config.store.path.as_deref()?);
    let workers = match remembered(path, source.kind.type_name()) {
        Ok(workers) => workers,
        Err(error) => {
            let path = path.display();
            return Some(format!(
                ": not compared with what was scanned, as {path} cannot be read: {error}"
            ));
        }
    };
    let bucket = config.store.bucket;
    let taken = workers
        .iter()
        .filter(|worker| is_of(worker, source))
        .filter_map(|worker| taken(worker, source.interval, bucket))
        .reduce(u64::saturating_add)?;
    let [budget_text, taken_text] = [budget, taken].map(|size| ByteSize(size).display().iec());
    (taken > budget).then(|| {
        format!(
            " = {budget_text}: below what counting took lately, about {taken_text} a day: the source will fall behind, and \
             give up what is older than `catch_up_limit`"
        )
    })
}

/// Whether a stored worker is one that the source would start.
fn is_of(worker: &Remembered, source: &Source) -> bool {
    let places = source.access.places();
    let fits = |region: &Option<String>| {
        region
            .as_ref()
            .is_none_or(|region| *region == worker.region)
    };
    let mut places = places.iter();
    worker.source == source.name
        && places.any(|place| place.account() == worker.account && fits(&place.region))
}

/// The bytes that a worker's counting takes in a day, if it knows.
fn taken(worker: &Remembered, interval: Duration, bucket: Duration) -> Option<u64> {
    let mut progress = QueryProgress::default();
    for change in &worker.progress {
        progress.apply(change).ok()?;
    }
    progress.bytes_of_a_day(interval, bucket)
}
