//! `trail_files`: the folder, what can be read of its files, and what is in the newest.

use std::time::Duration;

use super::report::{Check, Section, size};
use super::seen::{self, Seen};
use crate::batch::Rejected;
use crate::source::trail_files::{FilesProgress, Settings, TrailFiles};
use crate::source::{Progress, Reason, Source, SourceError};
use crate::time::Timestamp;
use crate::window::Window;
use crate::worker::chain;

const HOUR: Duration = Duration::from_secs(3600);
/// CloudTrail writes a file every 5 minutes where calls are made; a copy may come each hour.
const LATE: Duration = Duration::from_secs(2 * 3600);
const NOTHING: &str = "does the trail log, does the copy run, and does `location` hold what it writes? Look at `include` and \
                       `exclude` too";

pub(super) fn checks() -> Vec<&'static str> {
    let mut checks = vec!["folder", "files", "newest_delivery", "unreadable"];
    checks.extend(seen::CHECKS);
    checks.push("cost");
    checks
}

pub(super) async fn run(settings: &Settings, section: &mut Section) {
    let now = Timestamp::now();
    let folder = settings.location.display();
    let mut read = Read::default();
    // The newest files alone, as far as there are any: older ones take time and prove no more.
    let lookbacks = [
        HOUR,
        6 * HOUR,
        24 * HOUR,
        settings.lookback,
        settings.retention,
    ];
    for lookback in lookbacks {
        read = match Read::files(settings, lookback, now).await {
            Ok(read) => read,
            Err(error) => {
                let hint = match error.reason {
                    Reason::NotFound => {
                        "look at `location`: is the bucket mounted, has the copy begun?"
                    }
                    Reason::AccessDenied => {
                        "let the exporter's user read the files and enter the folders (chmod, or its group)"
                    }
                    _ => "look at `location`: a folder that can be read",
                };
                section.push(Check::failed("folder", chain(&error)).hint(hint));
                return;
            }
        };
        if read.files > 0 {
            break;
        }
    }
    let (files, bad) = (read.files, read.rejected.len());
    section.push(
        Check::ok("folder", format!("{folder} can be read")).fact("location", folder.to_string()),
    );
    if files == 0 {
        let span = humantime::format_duration(settings.retention);
        section
            .push(Check::failed("files", format!("no log file of the last {span}")).hint(NOTHING));
        return;
    }
    let found = format!(
        "{files} from {} on, {} read",
        read.window.from,
        size(read.bytes)
    );
    section.push(
        Check::ok("files", found)
            .fact("files", files)
            .fact("from", read.window.from.to_string())
            .fact("bytes", read.bytes),
    );
    section.push(newest(read.newest, now));
    section.push(unreadable(&read.rejected, files));
    if bad >= files {
        return;
    }
    read.seen.check(read.window, now, NOTHING, section);
    section.push(Check::ok(
        "cost",
        "AWS bills nothing for reading files that lie here",
    ));
}

fn newest(newest: Option<Timestamp>, now: Timestamp) -> Check {
    let name = "newest_delivery";
    let Some(newest) = newest else {
        return Check::warning(name, "no file tells when it was delivered");
    };
    let age = now.since(newest);
    let found = format!("{newest}, {} ago", humantime::format_duration(age));
    let check = match age > LATE {
        true => Check::warning(name, found).hint(
            "the account was at rest, or the copy has stopped: the exporter cannot tell them apart",
        ),
        false => Check::ok(name, found),
    };
    check
        .fact("newest", newest.to_string())
        .fact("age_seconds", age.as_secs())
}

fn unreadable(rejected: &[Rejected], files: usize) -> Check {
    let name = "unreadable";
    let Some(first) = rejected.first() else {
        return Check::ok(name, "none");
    };
    let number = rejected.len();
    let found = format!(
        "{number} of {files}; the first is {}: {}",
        first.name, first.error
    );
    let check = match number < files {
        true => Check::warning(name, found),
        false => Check::failed(name, found),
    };
    let hint = match first.reason {
        Reason::AccessDenied => "let the exporter's user read the files (chmod, or its group)",
        Reason::TooLarge => "CloudTrail writes none so large: leave it out by `exclude`",
        _ => "was it copied whole? What is no CloudTrail file can be left out by `exclude`",
    };
    check.hint(hint).fact("unreadable", number)
}

#[derive(Default)]
struct Read {
    seen: Seen,
    window: Window,
    files: usize,
    newest: Option<Timestamp>,
    bytes: u64,
    rejected: Vec<Rejected>,
}

impl Read {
    /// Reads the files of the last `lookback` by the exporter's own means, and stores nothing.
    async fn files(
        settings: &Settings,
        lookback: Duration,
        now: Timestamp,
    ) -> Result<Self, SourceError> {
        let mut settings = settings.clone();
        settings.lookback = lookback.min(settings.retention);
        let mut read = Self {
            window: Window {
                from: now.minus(settings.lookback).floor(HOUR),
                to: now,
            },
            ..Self::default()
        };
        let mut source = TrailFiles::new(settings);
        let mut progress = FilesProgress::default();
        // A file is read once it looked the same in two scans.
        for _ in 0..2 {
            while let Some(batch) = source.next_batch(&progress, now).await? {
                for change in &batch.progress {
                    let bad = |error| {
                        SourceError::because(
                            Reason::Internal,
                            "the progress is not readable",
                            error,
                        )
                    };
                    progress.apply(change).map_err(bad)?;
                }
                read.seen.add(&batch.counts);
                read.bytes += batch.scanned.bytes;
                read.rejected.extend(batch.rejected);
            }
        }
        (read.files, read.newest) = progress.files();
        Ok(read)
    }
}
