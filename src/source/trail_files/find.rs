//! Which files of a folder are CloudTrail's log files of API calls, by their paths alone.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use globset::{Glob, GlobSet, GlobSetBuilder};
use walkdir::{DirEntry, WalkDir};

use crate::time::Timestamp;

/// What CloudTrail writes beside `CloudTrail/` that holds no API calls.
const NO_CALLS: [&str; 3] = [
    "CloudTrail-Digest",
    "CloudTrail-Insight",
    "CloudTrail-Aggregated",
];
/// Calls through VPC endpoints as the endpoint saw them: counted only when an `include` names them.
const NETWORK_ACTIVITY: &str = "CloudTrail-NetworkActivity";

/// A file that may hold records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) path: PathBuf,
    /// The path below the location, with `/`: the file's name in logs and in the store.
    pub(super) name: String,
    pub(super) version: Version,
    /// The delivery time that CloudTrail wrote into the file's name.
    pub(super) named: Option<Timestamp>,
}

impl Found {
    /// The delivery time, as far as it is known without reading the file.
    pub(super) fn delivered(&self) -> Timestamp {
        self.named.unwrap_or_else(|| self.version.modified_at())
    }
}

/// What tells one content of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Version {
    pub(super) size: u64,
    /// Modification time in nanoseconds since the epoch.
    pub(super) modified: u64,
}

impl Version {
    fn modified_at(self) -> Timestamp {
        (UNIX_EPOCH + Duration::from_nanos(self.modified)).into()
    }
}

/// The choice of files below a location; by default all log files.
#[derive(Clone, Debug, Default)]
pub struct Choice {
    /// `include` and `exclude` as they were written.
    written: [Vec<String>; 2],
    include: GlobSet,
    exclude: GlobSet,
    network_activity: bool,
}

/// The same patterns choose the same files.
impl PartialEq for Choice {
    fn eq(&self, other: &Self) -> bool {
        self.written == other.written
    }
}

impl Choice {
    /// Files that match one of `include` (all, if there are none) and none of `exclude`. As a shell's
    /// `*` passes over dot files, no pattern reaches into `CloudTrail-NetworkActivity` unless it
    /// names that folder.
    pub fn new(include: &[String], exclude: &[String]) -> Result<Self, globset::Error> {
        Ok(Self {
            written: [include, exclude].map(<[String]>::to_vec),
            include: patterns(include)?,
            exclude: patterns(exclude)?,
            network_activity: include
                .iter()
                .any(|pattern| pattern.contains(NETWORK_ACTIVITY)),
        })
    }

    /// Whether a folder or file of this name may hold API calls. Copies may have lost their folders,
    /// so the kind in a file's name (`…_CloudTrail-Digest_…`) counts too.
    fn may_hold_calls(&self, file_name: &str) -> bool {
        let kind = |kind: &&str| file_name.contains(*kind);
        !NO_CALLS.iter().any(kind) && (self.network_activity || !kind(&NETWORK_ACTIVITY))
    }

    /// Whether `exclude` leaves out all that is in the folder.
    fn excludes_folder(&self, name: &str) -> bool {
        self.exclude.is_match(name) || self.exclude.is_match(format!("{name}/"))
    }

    fn takes(&self, name: &str) -> bool {
        (name.ends_with(".json.gz") || name.ends_with(".json"))
            && (self.include.is_empty() || self.include.is_match(name))
            && !self.exclude.is_match(name)
    }
}

fn patterns(globs: &[String]) -> Result<GlobSet, globset::Error> {
    let mut set = GlobSetBuilder::new();
    for glob in globs {
        set.add(Glob::new(glob)?);
    }
    set.build()
}

/// What a walk found, and the first place that it could not look into.
#[derive(Debug, Default)]
pub(super) struct Walk {
    pub(super) found: Vec<Found>,
    pub(super) trouble: Option<(PathBuf, io::Error)>,
}

impl Walk {
    fn meet(&mut self, path: PathBuf, error: io::Error) {
        self.trouble.get_or_insert((path, error));
    }
}

/// Walks `root` and lists the files of `choice` that were delivered at `floor` or later, as far as
/// their names tell. Folders of days before the floor are not entered.
pub(super) fn walk(root: &Path, choice: &Choice, floor: Timestamp) -> Walk {
    let mut walk = Walk::default();
    match root.metadata() {
        Ok(metadata) if metadata.is_dir() => {}
        Ok(_) => walk.trouble = Some((root.to_owned(), io::ErrorKind::NotADirectory.into())),
        Err(error) => walk.trouble = Some((root.to_owned(), error)),
    }
    let entries = WalkDir::new(root).follow_links(true).into_iter();
    for entry in entries.filter_entry(|entry| worth_entering(entry, root, choice, floor)) {
        match entry {
            Ok(entry) if entry.file_type().is_file() => match look(&entry, root, choice) {
                Ok(Some(found)) if found.named.is_none_or(|time| time >= floor) => {
                    walk.found.push(found)
                }
                Ok(_) => {}
                Err(error) => walk.meet(entry.into_path(), error),
            },
            Ok(_) => {}
            // A link to a folder above: its files are found there.
            Err(error) if error.loop_ancestor().is_some() => {}
            Err(error) => {
                let path = error.path().unwrap_or(root).to_owned();
                let error: io::Error = error.into();
                // Below the root, what is gone was removed while the walk went on.
                if error.kind() != io::ErrorKind::NotFound || path == root {
                    walk.meet(path, error);
                }
            }
        }
    }
    walk
}

fn worth_entering(entry: &DirEntry, root: &Path, choice: &Choice, floor: Timestamp) -> bool {
    if entry.depth() == 0 {
        return true;
    }
    let name = entry.file_name().to_string_lossy();
    let passed_over = || {
        let path = entry.path();
        choice.excludes_folder(&below(entry, root)) || another_service(path) || before(path, floor)
    };
    choice.may_hold_calls(&name) && !(entry.file_type().is_dir() && passed_over())
}

/// Whether a folder `…/AWSLogs/[o-id/]<account>/<service>` is not CloudTrail's: others log into the same
/// bucket (AWS Config, load balancers).
fn another_service(folder: &Path) -> bool {
    let parts: Vec<&str> = folder
        .iter()
        .map(|part| part.to_str().unwrap_or_default())
        .collect();
    let account = |part: &str| part.len() == 12 && part.bytes().all(|digit| digit.is_ascii_digit());
    match parts.as_slice() {
        [.., "AWSLogs", number, service] | [.., "AWSLogs", _, number, service]
            if account(number) =>
        {
            !service.starts_with("CloudTrail")
        }
        _ => false,
    }
}

/// Whether a folder `…/YYYY/MM/DD` is of a day that ended more than a day before `floor`.
fn before(folder: &Path, floor: Timestamp) -> bool {
    let mut parts = folder
        .iter()
        .rev()
        .map(|part| part.to_str().unwrap_or_default());
    let (Some(day), Some(month), Some(year)) = (parts.next(), parts.next(), parts.next()) else {
        return false;
    };
    let start = Timestamp::parse_compact(&format!("{year}{month}{day}T0000"));
    start.is_some_and(|start| start.plus(Duration::from_secs(2 * 86_400)) < floor)
}

/// The path below the root, with `/`.
fn below(entry: &DirEntry, root: &Path) -> String {
    let below = entry.path().strip_prefix(root).unwrap_or(entry.path());
    below
        .to_string_lossy()
        .replace(std::path::MAIN_SEPARATOR, "/")
}

fn look(entry: &DirEntry, root: &Path, choice: &Choice) -> io::Result<Option<Found>> {
    let name = below(entry, root);
    if !choice.takes(&name) {
        return Ok(None);
    }
    let metadata = match entry.metadata() {
        Ok(metadata) => metadata,
        Err(error) => {
            let error: io::Error = error.into();
            return if error.kind() == io::ErrorKind::NotFound {
                Ok(None)
            } else {
                Err(error)
            };
        }
    };
    let modified = metadata
        .modified()?
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let version = Version {
        size: metadata.len(),
        modified: u64::try_from(modified.as_nanos()).unwrap_or(u64::MAX),
    };
    let named = entry.file_name().to_str().and_then(named_time);
    Ok(Some(Found {
        path: entry.path().to_owned(),
        name,
        version,
        named,
    }))
}

/// The delivery time in `<account>_CloudTrail_<region>_YYYYMMDDTHHmmZ_<unique>.json.gz`.
fn named_time(file_name: &str) -> Option<Timestamp> {
    file_name
        .split(['_', '.'])
        .find_map(|part| Timestamp::parse_compact(part.strip_suffix('Z')?))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const DAY: &str = "AWSLogs/o-abc/111122223333/CloudTrail/eu-west-1/2026/06/01";
    const FILE: &str = "111122223333_CloudTrail_eu-west-1_20260601T1005Z_AAAAAAAAAAAAAAAA.json.gz";

    fn found(files: &[&str], include: &[&str], exclude: &[&str], floor: &str) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "{}").unwrap();
        }
        let text = |globs: &[&str]| globs.iter().map(ToString::to_string).collect::<Vec<_>>();
        let choice = Choice::new(&text(include), &text(exclude)).unwrap();
        let walk = walk(folder.path(), &choice, Timestamp::parse(floor).unwrap());
        assert!(walk.trouble.is_none(), "{:?}", walk.trouble);
        let mut names: Vec<_> = walk.found.into_iter().map(|found| found.name).collect();
        names.sort();
        names
    }

    #[test]
    fn log_files_are_found_in_clouddtrails_layout_and_outside_it() {
        let log = format!("{DAY}/{FILE}");
        let files = [
            log.as_str(),
            "flat.json",
            "notes.txt",
            "half.json.gz.Tmp1",
            "prefix/AWSLogs/x.json.gz",
        ];
        let names = found(&files, &[], &[], "2026-06-01T00:00:00Z");
        assert_eq!(
            names,
            [log.as_str(), "flat.json", "prefix/AWSLogs/x.json.gz"]
        );
    }

    #[test]
    fn what_holds_no_calls_is_passed_over_and_network_activity_must_be_named() {
        let kinds = [
            "CloudTrail-Digest",
            "CloudTrail-Insight",
            "CloudTrail-Aggregated",
            "CloudTrail-NetworkActivity",
        ];
        let folders = kinds.map(|kind| format!("AWSLogs/1/{kind}/a.json.gz"));
        let flat = kinds.map(|kind| format!("1_{kind}_r_20260601T1005Z_A.json.gz"));
        let files: Vec<&str> = folders.iter().chain(&flat).map(String::as_str).collect();
        assert_eq!(
            found(&files, &[], &[], "2026-06-01T00:00:00Z"),
            Vec::<String>::new()
        );
        assert_eq!(
            found(&files, &["**"], &[], "2026-06-01T00:00:00Z"),
            Vec::<String>::new()
        );
        let named = found(
            &files,
            &["**/CloudTrail-NetworkActivity/**"],
            &[],
            "2026-06-01T00:00:00Z",
        );
        assert_eq!(named, [folders[3].as_str()]);
    }

    #[test]
    fn folders_of_other_services_are_not_entered() {
        let files = [
            "AWSLogs/111122223333/Config/eu-west-1/2026/6/1/ConfigSnapshot/a.json.gz",
            "AWSLogs/o-abc/111122223333/elasticloadbalancing/a.json.gz",
            "AWSLogs/o-abc/111122223333/CloudTrail/a.json.gz",
            "AWSLogs/copies/here/a.json.gz",
        ];
        assert_eq!(
            found(&files, &[], &[], "2026-06-01T00:00:00Z"),
            [files[3], files[2]]
        );
    }

    #[test]
    fn include_and_exclude_are_patterns_of_the_path_below_the_location() {
        let files = ["a/1.json", "a/2.json", "b/1.json"];
        assert_eq!(
            found(&files, &["a/**"], &["**/2.json"], "2026-06-01T00:00:00Z"),
            ["a/1.json"]
        );
    }

    #[test]
    fn files_and_days_before_the_floor_are_left_out() {
        let log = format!("{DAY}/{FILE}");
        let unnamed = format!("{DAY}/export.json");
        let files = [log.as_str(), unnamed.as_str()];
        assert_eq!(
            found(&files, &[], &[], "2026-06-01T10:05:00Z"),
            [log.as_str(), unnamed.as_str()]
        );
        assert_eq!(
            found(&files, &[], &[], "2026-06-01T10:06:00Z"),
            [unnamed.as_str()]
        );
        assert_eq!(
            found(&files, &[], &[], "2026-06-03T00:00:01Z"),
            Vec::<String>::new()
        );
    }

    #[test]
    fn a_missing_location_is_trouble() {
        let choice = Choice::new(&[], &[]).unwrap();
        let walk = walk(
            Path::new("/nonexistent/trail"),
            &choice,
            Timestamp::default(),
        );
        assert_eq!(
            walk.trouble.map(|(_, error)| error.kind()),
            Some(io::ErrorKind::NotFound)
        );
    }
}
