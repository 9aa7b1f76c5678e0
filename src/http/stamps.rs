//! What tells that a file has changed since it was read, without reading it again.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// For so long after they were taken, stamps prove nothing: a file may change twice within a tick of the clock by which
/// the file system counts.
const UNSETTLED: Duration = Duration::from_secs(1);

/// The files that were read, each as it was before it was read; without a stamp, if it could not be.
#[derive(Debug)]
pub(super) struct Stamps {
    files: Vec<(PathBuf, Option<Stamp>)>,
    taken: Instant,
}

/// Device, inode, size, and the times of the last change of contents and of the inode.
type Stamp = (u64, u64, u64, [i64; 4]);

impl Stamps {
    /// No file yet.
    pub(super) fn new() -> Self {
        Self {
            files: Vec::new(),
            taken: Instant::now(),
        }
    }

    /// Reads a file, and remembers which it was. One that is there but was not read is another one at the next look:
    /// what was in the way, such as too many open files, leaves no trace in a stamp when it is gone.
    pub(super) fn read(&mut self, path: &Path) -> io::Result<Vec<u8>> {
        let stamp = stamp(path);
        let read = fs::read(path);
        let stamp = stamp.filter(|_| read.is_ok());
        self.files.push((path.to_owned(), stamp));
        read
    }

    /// Whether a file is another one than it was.
    pub(super) fn changed(&self) -> bool {
        let mut files = self.files.iter();
        files.any(|(path, before)| stamp(path) != *before)
    }

    /// Whether an unchanged stamp proves that its file is unchanged.
    pub(super) fn settled(&self) -> bool {
        self.taken.elapsed() > UNSETTLED
    }

    /// What is known anew, unless it is what was known: then its age counts on.
    pub(super) fn or_older(self, older: &Self) -> Self {
        let taken = if self.files == older.files {
            older.taken
        } else {
            self.taken
        };
        Self { taken, ..self }
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let known = fs::metadata(path).ok()?;
    let times = [
        known.mtime(),
        known.mtime_nsec(),
        known.ctime(),
        known.ctime_nsec(),
    ];
    Some((known.dev(), known.ino(), known.size(), times))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_but_cannot_be_read_is_read_again() {
        let home = tempfile::tempdir().unwrap();
        let (folder, none, file) = (
            home.path().join("folder"),
            home.path().join("none"),
            home.path().join("file"),
        );
        fs::create_dir(&folder).unwrap();
        fs::write(&file, "text").unwrap();
        for (path, readable, changed) in [
            (&file, true, false),
            (&none, false, false),
            (&folder, false, true),
        ] {
            let mut stamps = Stamps::new();
            assert_eq!(stamps.read(path).is_ok(), readable, "{path:?}");
            assert_eq!(stamps.changed(), changed, "{path:?}");
        }
    }
}
