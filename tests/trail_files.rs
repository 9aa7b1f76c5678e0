//! The source `trail_files` over time: its clock and its progress are in the test's hands.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use cloudtrail_tls_exporter::batch::{Batch, ProgressChange};
use cloudtrail_tls_exporter::source::trail_files::{Choice, FilesProgress, Settings, TrailFiles};
use cloudtrail_tls_exporter::source::{Progress, Reason, Source, SourceError};
use cloudtrail_tls_exporter::time::Timestamp;
use support::ASKED_CALLERS;
use support::made::{self, Made};
use tempfile::TempDir;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

/// A folder, a source over it, and all that the source has handed out and that was committed.
struct Rig {
    folder: TempDir,
    settings: Settings,
    source: TrailFiles,
    /// What the store would hold, by key.
    rows: BTreeMap<String, Vec<u8>>,
    progress: FilesProgress,
    now: Timestamp,
    counted: BTreeMap<[String; 3], u64>,
    batches: Vec<Batch>,
}

impl Rig {
    fn new(deduplicate: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings {
            location: folder.path().to_owned(),
            choice: Choice::default(),
            deduplicate,
            lookback: DAY,
            retention: 35 * DAY,
            bucket: 5 * MINUTE,
            callers: ASKED_CALLERS,
        };
        Self {
            source: TrailFiles::new(settings.clone()),
            folder,
            settings,
            rows: BTreeMap::new(),
            progress: FilesProgress::default(),
            now: Timestamp::parse("2026-06-10T12:00:00Z").unwrap(),
            counted: BTreeMap::new(),
            batches: Vec::new(),
        }
    }

    fn path(&self, ago: Duration, unique: &str) -> PathBuf {
        made::path(self.folder.path(), self.now.minus(ago), unique)
    }

    fn records(&self, number: usize) -> Vec<Made> {
        (0..number)
            .map(|_| Made::new("s3", "GetObject", "TLSv1.2", self.now.minus(10 * MINUTE)))
            .collect()
    }

    /// Asks once, and commits what comes.
    fn ask(&mut self) -> Result<Option<Batch>, SourceError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let batch = runtime.block_on(self.source.next_batch(&self.progress, self.now))?;
        if let Some(batch) = &batch {
            self.commit(batch);
        }
        Ok(batch)
    }

    fn commit(&mut self, batch: &Batch) {
        for change in &batch.progress {
            self.progress.apply(change).unwrap();
            match &change.value {
                Some(value) => drop(self.rows.insert(change.key.clone(), value.clone())),
                None => drop(self.rows.remove(&change.key)),
            }
        }
        for (_, key, tally) in batch.counts.iter() {
            let key = [
                key.aws_service.as_str(),
                key.tls_version.label(),
                key.event_name.as_str(),
            ];
            *self.counted.entry(key.map(str::to_owned)).or_default() += tally.calls;
        }
        self.batches.push(batch.clone());
    }

    /// Asks until nothing is due, as a worker's tick does.
    fn tick(&mut self) -> Result<(), SourceError> {
        while self.ask()?.is_some() {}
        Ok(())
    }

    /// Two scans: what is there has settled and is counted.
    fn settle(&mut self) {
        self.tick().unwrap();
        self.tick().unwrap();
    }

    /// A new process over the same store.
    fn restart(&mut self) {
        self.source = TrailFiles::new(self.settings.clone());
        self.progress = FilesProgress::default();
        for (key, value) in &self.rows {
            self.progress
                .apply(&ProgressChange::put(key, value.clone()))
                .unwrap();
        }
    }

    fn calls(&self) -> u64 {
        self.counted.values().sum()
    }

    fn last(&self) -> &Batch {
        self.batches.last().unwrap()
    }
}

#[test]
fn a_file_is_read_once_it_looked_the_same_in_two_scans() {
    let mut rig = Rig::new(true);
    let path = rig.path(MINUTE, "A");
    let whole = made::content(&rig.records(3));
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    for end in [whole.len() / 3, whole.len() / 2, whole.len()] {
        fs::write(&path, &whole[..end]).unwrap();
        rig.tick().unwrap();
        assert_eq!((rig.calls(), rig.last().unreadable_files), (0, Some(0)));
    }
    rig.tick().unwrap();
    assert_eq!(rig.calls(), 3);
}

#[test]
fn a_changed_file_adds_only_the_records_that_were_not_seen() {
    for deduplicate in [true, false] {
        let mut rig = Rig::new(deduplicate);
        let path = rig.path(MINUTE, "A");
        let mut records = rig.records(3);
        if !deduplicate {
            records.push(records[0].clone());
        }
        made::deliver(&path, &records);
        rig.settle();
        let before = records.len() as u64;
        assert_eq!(rig.calls(), before);
        rig.restart();

        records.extend(rig.records(2));
        records.remove(1);
        made::deliver(&path, &records);
        rig.settle();
        assert_eq!(rig.calls(), before + 2, "deduplicate = {deduplicate}");
    }
}

#[test]
fn a_record_in_two_files_counts_once_over_batches_and_restarts() {
    let mut rig = Rig::new(true);
    let records = rig.records(5);
    made::deliver(&rig.path(3 * MINUTE, "A"), &records);
    made::deliver(&rig.path(3 * MINUTE, "B"), &records[..3]);
    rig.settle();
    assert_eq!(rig.calls(), 5);
    rig.restart();
    made::deliver(&rig.path(2 * MINUTE, "C"), &records[2..]);
    rig.settle();
    assert_eq!(rig.calls(), 5);
    assert_eq!(
        rig.batches
            .iter()
            .map(|batch| batch.duplicates)
            .sum::<u64>(),
        6
    );
}

#[test]
fn what_cannot_be_read_is_tried_ever_more_rarely_and_counts_when_it_is_mended() {
    let mut rig = Rig::new(true);
    let path = rig.path(MINUTE, "A");
    let whole = made::content(&rig.records(4));
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, &whole[..whole.len() - 9]).unwrap();
    made::deliver(&rig.path(MINUTE, "B"), &rig.records(1));
    rig.settle();
    assert_eq!(
        (rig.calls(), rig.last().unreadable_files),
        (1, Some(1)),
        "it stops nothing else"
    );
    rig.restart();

    let mut attempts = Vec::new();
    let start = rig.now;
    for minute in 1..=600 {
        rig.now = start.plus(minute * MINUTE);
        rig.batches.clear();
        rig.tick().unwrap();
        if rig.batches.iter().any(|batch| !batch.rejected.is_empty()) {
            attempts.push(minute);
        }
    }
    assert_eq!(attempts, [1, 3, 7, 15, 31, 63, 127, 255, 511]);

    fs::write(&path, whole).unwrap();
    rig.settle();
    assert_eq!((rig.calls(), rig.last().unreadable_files), (5, Some(0)));
}

#[test]
fn an_unreadable_file_that_is_removed_is_forgotten() {
    let mut rig = Rig::new(true);
    let path = rig.path(MINUTE, "A");
    made::deliver(&path, &[]);
    fs::write(&path, "no gzip").unwrap();
    rig.settle();
    assert_eq!(rig.last().unreadable_files, Some(1));
    fs::remove_file(path).unwrap();
    rig.tick().unwrap();
    assert_eq!(rig.last().unreadable_files, Some(0));
}

#[test]
fn nothing_from_the_future_counts_before_its_time() {
    let mut rig = Rig::new(true);
    let now = rig.now;
    made::deliver(
        &made::path(rig.folder.path(), now.plus(HOUR), "A"),
        &rig.records(1),
    );
    let ahead = Made::new("kms", "Decrypt", "TLSv1.2", now.plus(HOUR));
    made::deliver(&rig.path(MINUTE, "B"), &[rig.records(1).remove(0), ahead]);
    let skewed = Made::new("sts", "AssumeRole", "TLSv1.2", now.plus(10 * MINUTE));
    made::deliver(
        &made::path(rig.folder.path(), now.plus(5 * MINUTE), "C"),
        &[skewed],
    );
    rig.settle();
    assert_eq!(
        rig.calls(),
        1,
        "a few minutes ahead are a clock's, not the future"
    );
    let errors: Vec<_> = rig
        .batches
        .iter()
        .flat_map(|batch| &batch.rejected)
        .map(|rejected| &rejected.error)
        .collect();
    assert_eq!(
        errors,
        [
            "record 2 is from the future: 2026-06-10T13:00:00Z",
            "the name says it was delivered in the future: 2026-06-10T13:00:00Z",
        ]
    );
    assert!(
        rig.last().covered.unwrap().to <= now,
        "it moves no progress"
    );

    rig.now = now.plus(2 * HOUR);
    rig.settle();
    assert_eq!(rig.calls(), 4);
}

#[test]
fn files_older_than_the_retention_are_never_counted_again() {
    let mut rig = Rig::new(true);
    let unnamed = rig.folder.path().join("export.json");
    fs::write(&unnamed, content_plain(&rig.records(2))).unwrap();
    made::deliver(&rig.path(MINUTE, "A"), &rig.records(3));
    rig.settle();
    assert_eq!(rig.calls(), 5);

    rig.now = rig.now.plus(36 * DAY);
    rig.settle();
    rig.restart();
    rig.settle();
    assert_eq!(rig.calls(), 5);
    let files: Vec<_> = rig
        .rows
        .keys()
        .filter(|key| key.starts_with("file/"))
        .collect();
    assert_eq!(
        files,
        ["file/export.json"],
        "only a file whose name tells no time must be remembered"
    );
    let retried = rig
        .batches
        .iter()
        .filter(|batch| batch.scanned.records > 0)
        .count();
    assert_eq!(retried, 1, "and it is not read again");
}

fn content_plain(records: &[Made]) -> String {
    let mut text = String::new();
    let packed = made::content(records);
    std::io::Read::read_to_string(
        &mut flate2::read::GzDecoder::new(packed.as_slice()),
        &mut text,
    )
    .unwrap();
    text
}

#[test]
fn at_the_first_start_files_before_the_lookback_stay_out_for_good() {
    let mut rig = Rig::new(true);
    made::deliver(&rig.path(2 * DAY, "A"), &rig.records(1));
    made::deliver(&rig.path(HOUR, "B"), &rig.records(2));
    rig.settle();
    rig.settings.lookback = 5 * DAY;
    rig.restart();
    rig.settle();
    assert_eq!(rig.calls(), 2);
}

#[test]
fn a_batch_that_was_not_committed_is_handed_out_again() {
    let mut rig = Rig::new(true);
    made::deliver(&rig.path(MINUTE, "A"), &rig.records(3));
    rig.tick().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let lost = runtime
        .block_on(rig.source.next_batch(&rig.progress, rig.now))
        .unwrap()
        .unwrap();
    assert_eq!(lost.counts.calls(), 3);
    rig.tick().unwrap();
    assert_eq!(rig.calls(), 3);
}

#[test]
fn files_are_counted_oldest_first_and_the_watermark_passes_none_that_waits() {
    let mut rig = Rig::new(true);
    // More than a batch takes.
    for number in 0..1050 {
        let ago = Duration::from_secs(60 * (1050 - number));
        made::deliver(&rig.path(ago, &format!("{number:04}")), &rig.records(1));
    }
    rig.settle();
    let batches: Vec<_> = rig
        .batches
        .iter()
        .filter(|batch| batch.counts.calls() > 0)
        .collect();
    let covered: Vec<_> = batches.iter().map(|batch| batch.covered.unwrap()).collect();
    assert_eq!(
        batches
            .iter()
            .map(|batch| batch.counts.calls())
            .collect::<Vec<_>>(),
        [1000, 50]
    );
    assert_eq!(covered[0].to, rig.now.minus(50 * MINUTE));
    assert_eq!((covered[1].from, covered[1].to), (covered[0].to, rig.now));
}

#[test]
fn a_place_that_cannot_be_looked_into_is_a_failure_and_not_a_zero() {
    let mut rig = Rig::new(true);
    let root = rig.folder.path().to_owned();
    fs::remove_dir(&root).unwrap();
    assert_eq!(rig.tick().unwrap_err().reason, Reason::NotFound);
    fs::write(&root, "a file").unwrap();
    assert_eq!(rig.tick().unwrap_err().reason, Reason::Unreadable);
    assert!(rig.batches.is_empty());
    fs::remove_file(&root).unwrap();
    fs::create_dir(&root).unwrap();
    rig.tick().unwrap();
    assert_eq!(rig.last().covered.unwrap().to, rig.now);
}

#[test]
fn a_changed_file_whose_ids_are_forgotten_is_refused_rather_than_counted_twice() {
    const HORIZON: usize = 1_800_000;
    let mut rig = Rig::new(true);
    let path = rig.path(MINUTE, "A");
    let mut records = rig.records(3);
    made::deliver(&path, &records);
    rig.settle();
    let ids: Vec<u8> = (0..HORIZON as u128).flat_map(u128::to_be_bytes).collect();
    let others = Batch {
        progress: vec![ProgressChange::put(format!("ids/{:016x}", 3), ids)],
        ..Batch::default()
    };
    rig.commit(&others);
    made::deliver(&rig.path(MINUTE, "B"), &rig.records(1));
    rig.settle();
    assert_eq!(
        rig.batches.iter().map(|batch| batch.evicted).sum::<u64>(),
        3 + HORIZON as u64
    );

    // With a new time stamp alone it is known by its bytes.
    made::deliver(&path, &records);
    rig.settle();
    assert_eq!((rig.calls(), rig.last().unreadable_files), (4, Some(0)));

    records.extend(rig.records(1));
    made::deliver(&path, &records);
    rig.settle();
    assert_eq!(rig.calls(), 4);
    assert_eq!(rig.last().unreadable_files, Some(1));
}

#[test]
fn records_without_an_event_id_count_once_per_file() {
    let mut rig = Rig::new(true);
    let mut records = rig.records(2);
    for record in &mut records {
        record.id = String::new();
    }
    made::deliver(&rig.path(MINUTE, "A"), &records);
    made::deliver(&rig.path(MINUTE, "B"), &records);
    rig.settle();
    assert_eq!(rig.calls(), 4);
    fs::File::options()
        .append(true)
        .open(rig.path(MINUTE, "A"))
        .unwrap()
        .set_modified(std::time::SystemTime::UNIX_EPOCH + 50 * DAY)
        .unwrap();
    rig.settle();
    assert_eq!(rig.calls(), 4);
}

#[test]
fn a_large_file_is_refused_before_it_is_unpacked() {
    let mut rig = Rig::new(true);
    let path = rig.path(MINUTE, "A");
    let mut bomb = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    for _ in 0..300 {
        std::io::Write::write_all(&mut bomb, &[b' '; 1 << 20]).unwrap();
    }
    made::deliver(&path, &[]);
    fs::write(&path, bomb.finish().unwrap()).unwrap();
    rig.settle();
    let reasons: Vec<_> = rig
        .batches
        .iter()
        .flat_map(|batch| &batch.rejected)
        .map(|rejected| rejected.reason)
        .collect();
    assert_eq!(reasons, [Reason::TooLarge]);
}

#[test]
fn in_another_folder_nothing_counts_again() {
    for deduplicate in [true, false] {
        let mut rig = Rig::new(deduplicate);
        made::deliver(&rig.path(HOUR, "A"), &rig.records(3));
        rig.settle();
        rig.settings.location = rig.folder.path().join("AWSLogs");
        rig.now = rig.now.plus(10 * MINUTE);
        rig.restart();
        made::deliver(&rig.path(MINUTE, "B"), &rig.records(2));
        rig.settle();
        assert_eq!(rig.calls(), 5, "deduplicate = {deduplicate}");
    }
}

#[test]
fn a_file_delivered_ahead_of_the_clock_is_not_counted_again_at_the_floor() {
    let mut rig = Rig::new(false);
    // The clock is seconds behind the minute that CloudTrail wrote into the name.
    let delivered = rig.now;
    rig.now = rig.now.minus(Duration::from_secs(10));
    made::deliver(
        &made::path(rig.folder.path(), delivered, "A"),
        &rig.records(3),
    );
    rig.settle();
    assert_eq!(rig.calls(), 3);
    for hours in 0..3 {
        rig.now = delivered.plus(35 * DAY + HOUR * hours);
        rig.restart();
        rig.settle();
    }
    assert_eq!(rig.calls(), 3);
}

#[test]
fn time_that_was_never_counted_is_a_gap() {
    let mut rig = Rig::new(true);
    made::deliver(&rig.path(MINUTE, "A"), &rig.records(1));
    rig.settle();
    let watermark = rig.now;
    rig.now = rig.now.plus(40 * DAY);
    rig.restart();
    rig.settle();
    let covered = rig.batches[rig.batches.len() - 2].covered.unwrap();
    assert_eq!(covered.from, rig.now.minus(35 * DAY));
    assert!(covered.from > watermark);
}

#[test]
fn an_excluded_folder_is_not_entered() {
    let mut rig = Rig::new(true);
    rig.settings.choice =
        Choice::new(&[], &["lost+found/**".to_owned(), "broken".to_owned()]).unwrap();
    for folder in ["lost+found", "broken"] {
        let folder = rig.folder.path().join(folder);
        fs::create_dir(&folder).unwrap();
        // What cannot be looked into: a link to itself is an error wherever it is met.
        std::os::unix::fs::symlink("loop.json", folder.join("loop.json")).unwrap();
    }
    rig.restart();
    rig.settle();
    fs::rename(
        rig.folder.path().join("broken"),
        rig.folder.path().join("entered"),
    )
    .unwrap();
    assert_eq!(rig.tick().unwrap_err().reason, Reason::Unreadable);
}
