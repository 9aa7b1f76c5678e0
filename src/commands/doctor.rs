//! `doctor`: tries each source as the exporter would use it, says what was found, and what to do where it fails.
//!
//! It asks by the exporter's own engines, over as little time as proves something, and writes to no store.

mod athena;
mod budget;
mod event_history;
mod lake;
mod logs_insights;
mod place;
mod query;
mod report;
mod seen;
mod trail_files;

use std::env;
use std::io::Write;

use tokio::runtime;

use self::place::Aws;
use self::report::{Report, Section, Verdict};
use super::Failure;
use crate::aws::Place;
use crate::cli::Doctor;
use crate::config::{Config, Kind, Source};

/// Looks at every source, or at one.
pub fn run(flags: &Doctor, out: &mut dyn Write) -> Result<(), Failure> {
    let config = Config::load(&flags.config_file, env::vars().collect())
        .map_err(|problems| Failure::Usage(problems.into()))?;
    let wanted = |source: &&Source| {
        flags
            .source
            .as_ref()
            .is_none_or(|name| *name == source.name)
    };
    let sources: Vec<&Source> = config.sources.iter().filter(wanted).collect();
    if sources.is_empty() {
        let names = config.sources.iter().map(|source| source.name.as_str());
        let names = names.collect::<Vec<_>>().join(", ");
        let name = flags.source.as_deref().unwrap_or_default();
        let message = format!("no source is named `{name}`; there are: {names}");
        return Err(Failure::Usage(message.into()));
    }
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut report = Report::default();
    for source in sources {
        for place in source.access.places() {
            let section = runtime.block_on(look_at(source, &place));
            if !flags.json {
                section.text(out)?;
                out.flush()?;
            }
            report.0.push(section);
        }
    }
    match flags.json {
        true => report.json(out)?,
        false => report.summary(out)?,
    }
    match report.number(Verdict::Failed) {
        0 => Ok(()),
        1 => Err(Failure::Failed("1 check failed".into())),
        number => Err(Failure::Failed(format!("{number} checks failed").into())),
    }
}

/// All checks of a source in one place.
async fn look_at(source: &Source, place: &Place) -> Section {
    let mut section = Section {
        source: source.name.clone(),
        source_type: source.kind.type_name(),
        role: place.role.as_ref().map(|role| role.arn.clone()),
        region: None,
        checks: Vec::new(),
    };
    let checks = match &source.kind {
        Kind::TrailFiles(_) => trail_files::checks(),
        Kind::LogsInsights(_, settings) => logs_insights::checks(settings),
        Kind::Lake(..) => lake::checks(),
        Kind::Athena(..) => athena::checks(),
        Kind::EventHistory(_) => event_history::checks(),
    };
    if let Kind::TrailFiles(settings) = &source.kind {
        trail_files::run(settings, &mut section).await;
    } else {
        let aws = Aws::find(&source.access, place, &mut section).await;
        if let Some(aws) = aws {
            ask(&aws, source, &mut section).await;
            budget::check(source, &mut section);
        }
        place::judge_identity(&mut section);
    }
    section.skip_the_rest(&checks);
    section
}

/// The checks of a source that asks AWS.
async fn ask(aws: &Aws, source: &Source, section: &mut Section) {
    match &source.kind {
        Kind::TrailFiles(_) => {}
        Kind::LogsInsights(query, settings) => {
            logs_insights::run(aws, source, query, settings, section).await;
        }
        Kind::Lake(query, settings) => lake::run(aws, source, query, settings, section).await,
        Kind::Athena(query, settings) => athena::run(aws, source, query, settings, section).await,
        Kind::EventHistory(settings) => event_history::run(aws, source, settings, section).await,
    }
}
