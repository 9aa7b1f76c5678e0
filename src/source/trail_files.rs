//! Counts the records of CloudTrail's own log files in a folder.
//!
//! Buckets are by delivery: the time in a file's name, else the newest `eventTime` in it. A file is
//! read once it looked the same in two scans, whole or not at all; what cannot be read is tried
//! again ever more rarely and stops nothing else. A record counts once within the horizon of
//! recent event ids, over all files and restarts.

mod assemble;
mod find;
mod progress;
mod read;
mod recent_ids;
mod seen_ids;

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;

use self::assemble::Part;
pub use self::find::Choice;
use self::find::{Found, Version, Walk};
pub use self::progress::FilesProgress;
use self::progress::{FileState, Outcome, ScanState};
use self::read::Answers;
use self::seen_ids::SeenIds;
use crate::batch::Batch;
use crate::call::AskedCallers;
use crate::source::{Reason, Source, SourceError};
use crate::time::Timestamp;
use crate::window::Window;

/// A batch holds at most so many files …
const BATCH_FILES: usize = 1000;
/// … and so many bytes of them as they lie on the disk.
const BATCH_BYTES: u64 = 64 << 20;
/// How far ahead of the host's clock a delivery or a record may be: clocks differ.
const AHEAD: Duration = Duration::from_secs(15 * 60);
/// The wait before an unreadable file is tried again; doubled with each attempt …
const FIRST_RETRY: Duration = Duration::from_secs(60);
/// … up to this.
const LAST_RETRY: Duration = Duration::from_secs(6 * 3600);
/// The grain of the floor, so that its row changes once an hour.
const FLOOR_GRAIN: Duration = Duration::from_secs(3600);

/// The settings of one `trail_files` source.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The folder.
    pub location: PathBuf,
    /// Which files below it.
    pub choice: Choice,
    /// Whether a record counts once however often it is delivered.
    pub deduplicate: bool,
    /// At the first start, files delivered up to this long ago are counted.
    pub lookback: Duration,
    /// Files delivered longer ago than this are never counted again.
    pub retention: Duration,
    /// The grid of time.
    pub bucket: Duration,
    /// Whose calls are told.
    pub callers: AskedCallers,
}

/// The source `trail_files` over a folder.
#[derive(Debug)]
pub struct TrailFiles {
    settings: Arc<Settings>,
    /// Files that the last scan saw and that were not counted as they are: a file is read when the
    /// next scan sees the same.
    unsettled: HashMap<String, Version>,
    round: Option<Round>,
    /// The index over the progress's event ids and those of the batch handed out last.
    seen: Option<SeenIds>,
}

/// What one scan found, worked off in batches.
#[derive(Debug)]
struct Round {
    scanned: Timestamp,
    floor: Timestamp,
    due: VecDeque<Found>,
    /// The oldest delivery among the files that have not settled yet.
    unsettled: Option<Timestamp>,
    forget: Vec<String>,
    trouble: Option<SourceError>,
    /// The number of the batch handed out last.
    handed_out: Option<u64>,
    last: bool,
}

impl Source for TrailFiles {
    type Progress = FilesProgress;

    async fn next_batch(
        &mut self,
        progress: &FilesProgress,
        now: Timestamp,
    ) -> Result<Option<Batch>, SourceError> {
        // A batch that was handed out and is not in the progress was not committed: scan anew.
        let committed = progress.scan.as_ref().map(|scan| scan.batch);
        let lost = |round: &mut Round| round.handed_out.is_some() && round.handed_out != committed;
        if self.round.take_if(lost).is_some() {
            self.seen = None;
        }
        if let Some(Round { trouble, .. }) = self.round.take_if(|round| round.last) {
            return trouble.map_or(Ok(None), Err);
        }
        let mut round = match self.round.take() {
            Some(round) => round,
            None => self.scan(progress, now).await?,
        };
        let files = round.take_files();
        round.last = round.due.is_empty();
        if round.last && files.is_empty() && round.trouble.is_some() {
            return round.trouble.map_or(Ok(None), Err);
        }
        let asked = self.settings.callers;
        let (files, answers) = in_background(move || {
            let answers = read::read_all(&files, now.plus(AHEAD), asked);
            (files, answers)
        })
        .await?;
        let batch = self.assemble(&mut round, progress, files, answers, now);
        self.round = Some(round);
        Ok(Some(batch))
    }
}

impl TrailFiles {
    /// A source over the folder of `settings`.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings: Arc::new(settings),
            unsettled: HashMap::new(),
            round: None,
            seen: None,
        }
    }

    async fn scan(
        &mut self,
        progress: &FilesProgress,
        now: Timestamp,
    ) -> Result<Round, SourceError> {
        let floor = self.floor(progress, now);
        let settings = Arc::clone(&self.settings);
        let Walk { mut found, trouble } =
            in_background(move || find::walk(&settings.location, &settings.choice, floor)).await?;
        let trouble = trouble.map(|(path, error)| walk_error(path, error));
        let forget = if trouble.is_none() {
            forgotten(progress, &found, floor)
        } else {
            Vec::new()
        };
        found.retain(|file| due(progress.files.get(&file.name), file.version, now));
        let before = std::mem::take(&mut self.unsettled);
        let mut oldest_unsettled: Option<Timestamp> = None;
        found.retain(|file| {
            let known = progress.files.get(&file.name).map(|state| &state.version);
            let settled = before.get(&file.name).or(known) == Some(&file.version);
            if !settled {
                let delivered = file.delivered().max(floor);
                oldest_unsettled = earliest(oldest_unsettled, delivered);
            }
            self.unsettled.insert(file.name.clone(), file.version);
            settled
        });
        found.sort_unstable_by(|a, b| (a.delivered(), &a.name).cmp(&(b.delivered(), &b.name)));
        Ok(Round {
            scanned: now,
            floor,
            due: found.into(),
            unsettled: oldest_unsettled,
            forget,
            trouble,
            handed_out: None,
            last: false,
        })
    }

    /// Before which delivery files are left out for good. In another folder the same files have other
    /// names, so nothing that was counted before is counted there.
    fn floor(&self, progress: &FilesProgress, now: Timestamp) -> Timestamp {
        let oldest = now.minus(self.settings.retention);
        match &progress.scan {
            Some(scan) if scan.location != self.location() => scan.watermark.max(scan.floor),
            Some(scan) => scan.floor.max(oldest.floor(FLOOR_GRAIN)),
            None => now
                .minus(self.settings.lookback)
                .max(oldest)
                .floor(FLOOR_GRAIN),
        }
    }

    fn location(&self) -> String {
        self.settings.location.to_string_lossy().into_owned()
    }

    fn assemble(
        &mut self,
        round: &mut Round,
        progress: &FilesProgress,
        files: Vec<Found>,
        answers: Answers,
        now: Timestamp,
    ) -> Batch {
        let mut part = Part::new(&self.settings, progress, round.floor, now);
        for name in round.forget.drain(..) {
            part.forget(&name);
        }
        let mut seen = self.seen.take();
        if self.settings.deduplicate {
            seen.get_or_insert_with(|| SeenIds::over(&progress.ids));
        }
        part.take(files, answers, seen.as_mut());
        let before = progress.scan.as_ref().map(|scan| scan.watermark);
        let waiting = round
            .due
            .front()
            .map(Found::delivered)
            .into_iter()
            .chain(round.unsettled)
            .chain(part.moved());
        let counted_to = waiting.fold(round.scanned, Timestamp::min);
        // With a place that could not be looked into, nobody knows what is there.
        let to = if round.trouble.is_some() {
            before.unwrap_or(round.floor)
        } else {
            counted_to
        };
        let watermark = before.map_or(to, |before| before.max(to));
        // A floor above the watermark: what lies between was never counted, and never will be.
        let from = match before {
            Some(before) => before.max(round.floor),
            None => part.first_delivery().unwrap_or(watermark),
        };
        let from = from.min(watermark);
        let number = progress
            .scan
            .as_ref()
            .map_or(0, |scan| scan.batch.wrapping_add(1));
        round.handed_out = Some(number);
        let batch = part.finish(
            &ScanState {
                floor: round.floor,
                watermark,
                batch: number,
                location: self.location(),
            },
            Window {
                from,
                to: watermark,
            },
            seen.as_mut(),
        );
        self.seen = seen;
        batch
    }
}

impl Round {
    fn take_files(&mut self) -> Vec<Found> {
        let mut bytes = 0;
        let fits = self.due.iter().take(BATCH_FILES).take_while(|file| {
            bytes += file.version.size;
            bytes <= BATCH_BYTES
        });
        let number = fits.count().max(1).min(self.due.len());
        self.due.drain(..number).collect()
    }
}

/// The earlier of `time` and the earliest known before, if there is one.
fn earliest(known: Option<Timestamp>, time: Timestamp) -> Option<Timestamp> {
    Some(known.map_or(time, |known| known.min(time)))
}

/// Whether a file is to be read: it is new, has changed, or could not be read and waited long enough.
fn due(state: Option<&FileState>, version: Version, now: Timestamp) -> bool {
    match state {
        Some(state) if state.version == version => match state.outcome {
            Outcome::Counted { .. } => false,
            Outcome::Rejected { next, .. } => next <= now,
        },
        _ => true,
    }
}

/// Files whose rows are no longer needed: below the floor, which keeps them out by their names, or
/// gone from the folder while nothing of them was counted.
fn forgotten(progress: &FilesProgress, found: &[Found], floor: Timestamp) -> Vec<String> {
    let stale = |state: &FileState| state.delivered < floor || state.rejected();
    let candidates = progress.files.iter().filter(|(_, state)| stale(state));
    let mut candidates: Vec<_> = candidates.collect();
    if candidates.is_empty() {
        return Vec::new();
    }
    let present: HashSet<&str> = found.iter().map(|file| file.name.as_str()).collect();
    candidates.retain(|(name, state)| {
        let below = state.delivered < floor && state.named;
        below
            || !present.contains(name.as_str())
                && (state.delivered < floor || state.ids().is_empty())
    });
    candidates
        .into_iter()
        .map(|(name, _)| name.clone())
        .collect()
}

fn walk_error(path: PathBuf, error: io::Error) -> SourceError {
    let reason = match error.kind() {
        io::ErrorKind::PermissionDenied => Reason::AccessDenied,
        io::ErrorKind::NotFound => Reason::NotFound,
        _ => Reason::Unreadable,
    };
    SourceError::because(
        reason,
        format!("cannot look into {}", path.display()),
        error,
    )
}

async fn in_background<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, SourceError> {
    spawn_blocking(work).await.map_err(|error| {
        SourceError::because(Reason::Internal, "the reading of files ended early", error)
    })
}
