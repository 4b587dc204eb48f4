//! A disk that is a raw file or a block device of this machine.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::OnceLock;
use std::time::UNIX_EPOCH;

use parking_lot::Mutex;
use rustix::fs::{Advice, FallocateFlags, SeekFrom};
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::tree::entry::Extent;
use crate::writing::{self, Staged};

use super::{DiskSink, DiskSource, Part, Patience, Piece, at, zeroes};

/// Reads a raw file or a block device. Its size is what it is when it is opened.
pub struct FileSource {
    file: File,
    size: u64,
}

impl FileSource {
    pub fn open(path: &Path) -> Result<Self> {
        let unopened = |error| Error::io(format!("opening the disk '{}'", path.display()), error);
        let file = File::open(path).map_err(unopened)?;
        let size = size_of(&file).map_err(unopened)?;
        // Several threads read stretches of it: the system would not see that all is read.
        let _ = rustix::fs::fadvise(&file, 0, None, Advice::Sequential);
        Ok(FileSource { file, size })
    }
}

/// Bytes of a file or a block device; directories and streams have none.
pub(super) fn size_of(file: &File) -> io::Result<u64> {
    let kind = file.metadata()?.file_type();
    if kind.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    Ok(rustix::fs::seek(file, SeekFrom::End(0))?)
}

impl DiskSource for FileSource {
    fn size(&self) -> u64 {
        self.size
    }

    fn read(&self, pieces: &mut [Piece<'_>], patience: Patience<'_>) -> Result<()> {
        read(&self.file, pieces, patience)
    }
}

fn read(file: &File, pieces: &mut [Piece<'_>], patience: Patience<'_>) -> Result<()> {
    for piece in pieces {
        patience()?;
        let reading = |error| at("reading", piece.offset, error);
        file.read_exact_at(piece.bytes, piece.offset).map_err(reading)?;
    }
    Ok(())
}

/// Writes a new sparse file, or over a block device; a file past the page cache, where that is known
/// to be good.
pub struct FileSink {
    file: File,
    /// The same file, for writing past the page cache.
    direct: Option<File>,
    /// What threads write by that have done so before.
    idle: Mutex<Vec<Staged>>,
    size: u64,
    is_device: bool,
    /// A restore made it, and it may hold something.
    is_used: bool,
    /// What of it is allocated of what another try wrote, and may never have flushed.
    doubtful: OnceLock<Vec<Extent>>,
    /// The system has one thread at a time write to a file, and lets the others spin.
    turn: Mutex<()>,
}

impl FileSink {
    /// A file is made, and gets its size; one that is there has to be empty. `Invalid` where it is
    /// not, and for a device that is too small.
    pub fn open(path: &Path, size: u64) -> Result<Self> {
        let unopened = |error| Error::io(format!("opening the disk '{}'", path.display()), error);
        let sink = Self::opened(path, size)?;
        let found = size_of(&sink.file).map_err(unopened)?;
        if sink.is_device && found < size {
            return Err(Error::Invalid(format!(
                "the disk has {size} bytes, the device '{}' {found}",
                path.display()
            )));
        }
        if !sink.is_device {
            if found > 0 {
                return Err(Error::Invalid(format!(
                    "'{}' exists already, and is not empty",
                    path.display()
                )));
            }
            sink.file.set_len(size).map_err(unopened)?;
        }
        Ok(sink)
    }

    /// A file that a restore made, whatever it holds now. `Invalid` for anything but a file.
    pub fn again(path: &Path, size: u64) -> Result<Self> {
        let sink = Self::opened(path, size)?;
        if sink.is_device {
            let text = format!("'{}' is no file", path.display());
            return Err(Error::Invalid(text));
        }
        Ok(FileSink { is_used: true, ..sink })
    }

    fn opened(path: &Path, size: u64) -> Result<Self> {
        let unopened = |error| Error::io(format!("opening the disk '{}'", path.display()), error);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(path).map_err(unopened)?;
        let kind = file.metadata().map_err(unopened)?.file_type();
        let is_device = kind.is_block_device();
        let direct = if is_device { None } else { writing::direct(&file) };
        let (idle, turn, doubtful) = Default::default();
        Ok(FileSink { file, direct, idle, size, is_device, is_used: false, doubtful, turn })
    }

    /// Bytes of the file.
    pub(super) fn file_bytes(&self) -> Result<u64> {
        size_of(&self.file).map_err(|error| at("reading", 0, error))
    }

    /// What tells the file from another at its place: its inode, and when it was made, in nanoseconds;
    /// 0 where nobody knows.
    pub(super) fn known_by(&self) -> Result<(u64, u128)> {
        let found = self.file.metadata().map_err(|error| at("reading", 0, error))?;
        let made = found.created().ok().and_then(|made| made.duration_since(UNIX_EPOCH).ok());
        Ok((found.ino(), made.map_or(0, |made| made.as_nanos())))
    }

    /// Has the file hold so many zeroes, and nothing else; with room for them where it is not to be
    /// sparse.
    pub(super) fn begin(&self, bytes: u64, is_sparse: bool) -> Result<()> {
        let made =
            self.file.set_len(0).and_then(|()| writing::make_room(&self.file, bytes, is_sparse));
        made.map_err(|error| Error::io(format!("giving the disk its {bytes} bytes"), error))
    }

    /// What of the file is not a hole from there on.
    fn allocated(&self, begin: u64) -> io::Result<Vec<Extent>> {
        let (mut found, mut at) = (Vec::new(), begin);
        while at < self.size {
            let from = match rustix::fs::seek(&self.file, SeekFrom::Data(at)) {
                Ok(from) => from,
                Err(Errno::NXIO) => break,
                Err(error) => return Err(error.into()),
            };
            at = rustix::fs::seek(&self.file, SeekFrom::Hole(from))?;
            found.push(Extent { offset: from, length: at.saturating_sub(from) });
        }
        Ok(found)
    }

    fn write_past(&self, direct: &File, parts: &[Part<'_>], patience: Patience<'_>) -> Result<()> {
        let to = writing::Target { cached: &self.file, direct, wrote: &|_, _| () };
        let mut staged = self.idle.lock().pop().unwrap_or_default();
        let mut last = 0;
        for part in parts {
            patience()?;
            last = part.offset;
            staged.put(to, last, part.bytes).map_err(|error| at("writing", last, error))?;
        }
        staged.flush(to).map_err(|error| at("writing", last, error))?;
        self.idle.lock().push(staged);
        Ok(())
    }
}

impl DiskSink for FileSink {
    fn size(&self) -> u64 {
        self.size
    }

    fn expect(&self, _data: &[Extent], begin: u64) -> Result<()> {
        if !self.is_used {
            return Ok(());
        }
        if begin == 0 {
            return self.begin(self.size, true);
        }
        if self.file_bytes()? != self.size {
            let reason = "it is not as the restore that is to go on with it began it";
            return Err(Error::integrity("the file of the disk", reason));
        }
        let found = self.allocated(begin).map_err(|error| at("reading", begin, error))?;
        let again = || Error::Invalid("a disk is written once".into());
        self.doubtful.set(found).map_err(|_| again())
    }

    fn stale(&self) -> Vec<Extent> {
        let whole = Extent { offset: 0, length: self.size };
        let doubtful = || self.doubtful.get().cloned().unwrap_or_default();
        if self.is_device { vec![whole] } else { doubtful() }
    }

    fn write(&self, parts: &[Part<'_>], patience: Patience<'_>) -> Result<()> {
        if let Some(direct) = &self.direct {
            return self.write_past(direct, parts, patience);
        }
        for part in parts {
            patience()?;
            let _turn = (!self.is_device).then(|| self.turn.lock());
            writing::write_cached_at(&self.file, part.bytes, part.offset)
                .map_err(|error| at("writing", part.offset, error))?;
        }
        Ok(())
    }

    fn zero(&self, offset: u64, length: u64, patience: Patience<'_>) -> Result<()> {
        patience()?;
        // A file stays sparse.
        let how =
            if self.is_device { FallocateFlags::ZERO_RANGE } else { FallocateFlags::PUNCH_HOLE };
        let flags = how | FallocateFlags::KEEP_SIZE;
        match rustix::fs::fallocate(&self.file, flags, offset, length) {
            Ok(()) => Ok(()),
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL | Errno::NODEV) => {
                zeroes(offset, length, |part| self.write(&[part], patience))
            }
            Err(error) => Err(at("writing", offset, error.into())),
        }
    }

    fn flush(&self, _patience: Patience<'_>) -> Result<()> {
        self.file.sync_all().map_err(|error| Error::io("flushing the disk", error))
    }

    fn read(&self, pieces: &mut [Piece<'_>], patience: Patience<'_>) -> Result<()> {
        read(&self.file, pieces, patience)
    }
}
