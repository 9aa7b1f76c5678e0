//! What tells that a file has changed since it was read, without reading it again.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// For so long after they were taken, stamps prove nothing: a file may change twice within a tick of the clock by which
/// the file system counts.
const UNSETTLED: Duration = Duration::from_secs(1);

/// The files that were read, each as it was before it was read.
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

    /// Reads a file, and remembers which it was.
    pub(super) fn read(&mut self, path: &Path) -> io::Result<Vec<u8>> {
        self.files.push((path.to_owned(), stamp(path)));
        fs::read(path)
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
