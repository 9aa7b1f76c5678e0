//! Reads log files into counts: in parallel, and never more of them in memory at once than a budget.

mod callers;
mod count;

use std::fs::File;
use std::io::{self, Read};
use std::num::NonZero;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;

use xxhash_rust::xxh3::xxh3_64;

pub(super) use self::count::FileCounts;
use self::count::{MetKeys, count};
use super::find::Found;
use crate::call::{AskedCallers, CallKey};
use crate::record::RecordError;
use crate::source::Reason;
use crate::time::Timestamp;

/// The largest file that is read, uncompressed. CloudTrail's own are at most 50 MB before compression.
const LARGEST: usize = 256 << 20;
/// How much file content the readers hold at once. One larger file is read while no other is.
const IN_MEMORY: usize = 64 << 20;
/// A reader keeps its buffers from file to file unless they grew over this.
const KEPT_BUFFER: usize = 16 << 20;
/// Deflate cannot compress better than about 1 : 1032, so a trailer that says more is broken.
const DEFLATE_LIMIT: usize = 1100;

/// Why a file is not counted.
#[derive(Debug, thiserror::Error)]
pub(super) enum FileError {
    /// Gone, or other than when it was found: the next scan tells.
    #[error("the file changed while it was read")]
    Moved,
    #[error("the file cannot be read")]
    Io(#[source] io::Error),
    #[error("the gzip data are broken or cut off")]
    Gzip,
    #[error("more than {} MiB uncompressed, the largest file that is read", LARGEST >> 20)]
    TooLarge,
    #[error("the text is not UTF-8")]
    Utf8,
    #[error(transparent)]
    Records(#[from] RecordError),
    #[error(
        "the file changed after its event ids left the horizon of {} records",
        super::recent_ids::RecentIds::HORIZON
    )]
    ForgottenIds,
    #[error("the name says it was delivered in the future: {0}")]
    Future(Timestamp),
}

impl FileError {
    /// The `reason` label.
    pub(super) fn reason(&self) -> Reason {
        match self {
            Self::Io(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                Reason::AccessDenied
            }
            Self::TooLarge => Reason::TooLarge,
            _ => Reason::Unreadable,
        }
    }
}

impl From<io::Error> for FileError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::Moved,
            _ => Self::Io(error),
        }
    }
}

/// What was read of some files.
pub(super) struct Answers {
    /// What each holds, in their order.
    pub(super) files: Vec<Result<FileCounts, FileError>>,
    /// The keys that each reader met, by their number there.
    pub(super) keys: Vec<Vec<Arc<CallKey>>>,
}

/// Reads `files` on all processors. Records after `latest` are an error of their file.
pub(super) fn read_all(files: &[Found], latest: Timestamp, asked: AskedCallers) -> Answers {
    let processors = thread::available_parallelism().map_or(1, NonZero::get);
    let gate = Gate {
        free: Mutex::new(IN_MEMORY),
        changed: Condvar::new(),
    };
    let queue = Mutex::new(files.iter().enumerate());
    let read_some = &|number: usize| {
        let mut reader = Reader::new(number, asked);
        let mut answers = Vec::new();
        loop {
            let next = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some((place, file)) = next else {
                return (reader.keys.keys, answers);
            };
            answers.push((place, reader.read(file, latest, &gate)));
        }
    };
    let (keys, answers): (Vec<_>, Vec<_>) = thread::scope(|scope| {
        let readers: Vec<_> = (1..processors.min(files.len()))
            .map(|number| scope.spawn(move || read_some(number)))
            .collect();
        let others = readers.into_iter().map(|reader| {
            reader
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        let own = read_some(0);
        std::iter::once(own).chain(others).unzip()
    });
    let mut files = answers.into_iter().flatten().collect::<Vec<_>>();
    files.sort_unstable_by_key(|(place, _)| *place);
    Answers {
        files: files.into_iter().map(|(_, answer)| answer).collect(),
        keys,
    }
}

/// Lets files in as long as their content fits into the budget, and a larger one when it is alone.
struct Gate {
    free: Mutex<usize>,
    changed: Condvar,
}

impl Gate {
    fn enter(&self, bytes: usize) -> Held<'_> {
        let bytes = bytes.min(IN_MEMORY);
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free = self
            .changed
            .wait_while(free, |free| *free < bytes)
            .unwrap_or_else(PoisonError::into_inner);
        *free -= bytes;
        Held { gate: self, bytes }
    }
}

struct Held<'g> {
    gate: &'g Gate,
    bytes: usize,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        *self
            .gate
            .free
            .lock()
            .unwrap_or_else(PoisonError::into_inner) += self.bytes;
        self.gate.changed.notify_all();
    }
}

/// One thread's decompressor, buffers, and the keys it has met: most files have the same ones.
struct Reader {
    number: usize,
    asked: AskedCallers,
    inflate: libdeflater::Decompressor,
    stored: Vec<u8>,
    text: Vec<u8>,
    keys: MetKeys,
}

impl Reader {
    fn new(number: usize, asked: AskedCallers) -> Self {
        Self {
            number,
            asked,
            inflate: libdeflater::Decompressor::new(),
            stored: Vec::new(),
            text: Vec::new(),
            keys: MetKeys::default(),
        }
    }

    fn read(
        &mut self,
        file: &Found,
        latest: Timestamp,
        gate: &Gate,
    ) -> Result<FileCounts, FileError> {
        let answer = self.read_whole(file, latest, gate);
        for buffer in [&mut self.stored, &mut self.text] {
            if buffer.capacity() > KEPT_BUFFER {
                *buffer = Vec::new();
            }
        }
        answer
    }

    fn read_whole(
        &mut self,
        file: &Found,
        latest: Timestamp,
        gate: &Gate,
    ) -> Result<FileCounts, FileError> {
        let compressed = file.name.ends_with(".gz");
        let mut handle = File::open(&file.path)?;
        let size = usize::try_from(file.version.size).map_err(|_| FileError::TooLarge)?;
        let unpacked = if compressed {
            told_size(&handle, size)?
        } else {
            0
        };
        if size.max(unpacked) > LARGEST {
            return Err(FileError::TooLarge);
        }
        let held = gate.enter(size + unpacked);
        self.stored.clear();
        handle.read_to_end(&mut self.stored)?;
        if self.stored.len() != size {
            return Err(FileError::Moved);
        }
        let _held = if compressed && !self.one_member() {
            // Nobody knows how much it will be: no other file is unpacked meanwhile.
            drop(held);
            gate.enter(IN_MEMORY)
        } else {
            held
        };
        let bytes = if compressed {
            let length = self.unpack(unpacked)?;
            self.text.get(..length).unwrap_or_default()
        } else {
            &self.stored
        };
        let text = simdutf8::basic::from_utf8(bytes).map_err(|_| FileError::Utf8)?;
        let mut counts = count(text, latest, self.asked, file, &mut self.keys)?;
        counts.reader = self.number;
        counts.digest = xxh3_64(&self.stored);
        Ok(counts)
    }

    /// Whether `stored` has one gzip member for sure. libdeflate stops after one: where the bytes that open
    /// another stand anywhere behind the first, the slower reader decides.
    fn one_member(&self) -> bool {
        let rest = self.stored.get(1..).unwrap_or_default();
        memchr::memmem::find(rest, &[0x1f, 0x8b, 8]).is_none()
    }

    /// Unpacks `stored` into the start of `text` and tells how much it is.
    fn unpack(&mut self, told: usize) -> Result<usize, FileError> {
        if self.one_member() {
            if self.text.len() < told {
                self.text.resize(told, 0);
            }
            let room = self.text.get_mut(..told).unwrap_or_default();
            // Also where there is more than the trailer tells: how much, nobody knows.
            let unpacked = self.inflate.gzip_decompress(&self.stored, room);
            return unpacked.map_err(|_| FileError::Gzip);
        }
        self.text.clear();
        let limit = LARGEST as u64 + 1;
        let mut members = flate2::bufread::MultiGzDecoder::new(self.stored.as_slice()).take(limit);
        members
            .read_to_end(&mut self.text)
            .map_err(|_| FileError::Gzip)?;
        if self.text.len() > LARGEST {
            Err(FileError::TooLarge)
        } else {
            Ok(self.text.len())
        }
    }
}

/// The uncompressed size that a gzip file's last four bytes tell, modulo 4 GiB.
fn told_size(file: &File, size: usize) -> Result<usize, FileError> {
    let mut trailer = [0; 4];
    let at = size
        .checked_sub(trailer.len())
        .ok_or(RecordError::Empty)
        .map_err(|empty| match size {
            0 => FileError::Records(empty),
            _ => FileError::Gzip,
        })?;
    file.read_exact_at(&mut trailer, at as u64)?;
    let told = u32::from_le_bytes(trailer) as usize;
    if told / DEFLATE_LIMIT > size {
        Err(FileError::Gzip)
    } else {
        Ok(told)
    }
}
