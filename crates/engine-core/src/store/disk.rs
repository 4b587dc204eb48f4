//! The file operations that the POSIX store is made of, and the system's own disk.
//!
//! The seam where a simulated disk stands in for the system's to show what a power cut leaves.
//! Holds no knowledge of keys or pools; durable is only what was synced.

use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use std::{fmt, fs};

use rustix::fs::{self as sys, Advice, AtFlags, FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::temporary::Writer;
use crate::writing::Appender;

/// A file that nobody wrote to for this long has no living writer, wherever it may have run.
const LEASE: Duration = Duration::from_secs(24 * 60 * 60);

/// What a folder holds under a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    File {
        size: u64,
    },
    Folder,
    /// A link, device, socket: nothing of a store.
    Other,
}

/// Room on a disk, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    pub free: u64,
    pub total: u64,
}

impl fmt::Display for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} free of {}", Bytes(self.free), Bytes(self.total))
    }
}

/// A number of bytes in words, rounded down.
#[derive(Clone, Copy)]
pub struct Bytes(pub u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
        let mut shown = (self.0, "bytes");
        for unit in UNITS {
            if shown.0 < 1024 {
                break;
            }
            shown = (shown.0 / 1024, unit);
        }
        write!(f, "{} {}", shown.0, shown.1)
    }
}

/// One folder tree. Paths are relative to its top, '/'-separated; "" is the top. Links are never
/// followed. Everything may be called from many threads.
pub trait Disk: Send + Sync {
    /// An open file; readable or writable as it was opened.
    type File: Send;

    /// The top in words, for messages.
    fn place(&self) -> String;

    /// Who writes here now: goes into the names of temporary files.
    fn writer(&self) -> Writer;

    /// Whether the file at `path`, made by `writer`, will never be finished.
    fn is_abandoned(&self, path: &str, writer: &Writer) -> io::Result<bool>;

    /// Makes a file for writing; `AlreadyExists` if the name is taken.
    fn create(&self, path: &str) -> io::Result<Self::File>;

    /// Appends all of `data`.
    fn write(&self, file: &mut Self::File, data: &[u8]) -> io::Result<()>;

    /// Asks for these bytes to be on their way to the disk, so that a later sync is short.
    /// Promises nothing.
    fn start_writeback(&self, _file: &Self::File, _offset: u64, _length: u64) {}

    /// On return the file's bytes survive a power cut; its name may not.
    fn sync_file(&self, file: &mut Self::File) -> io::Result<()>;

    /// Moves a file, in one step, over what may be there.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Moves a file, in one step; `AlreadyExists` if the name is taken.
    fn rename_noreplace(&self, from: &str, to: &str) -> io::Result<()>;

    /// On return the names in this folder survive a power cut, if the folder itself does.
    fn sync_dir(&self, path: &str) -> io::Result<()>;

    fn mkdir(&self, path: &str) -> io::Result<()>;

    fn unlink(&self, path: &str) -> io::Result<()>;

    /// Opens a regular file for reading, and tells its size; anything else is `NotFound`.
    fn open(&self, path: &str) -> io::Result<(Self::File, u64)>;

    /// Fills `buffer` from `offset`; fewer bytes only at the end of the file.
    fn read_at(&self, file: &Self::File, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// What lies at `path`; `None` for nothing.
    fn stat(&self, path: &str) -> io::Result<Option<Found>>;

    /// Visits what the folder holds, in no particular order, until `visit` breaks. Names that are
    /// not UTF-8 are passed over.
    fn list(
        &self,
        path: &str,
        visit: &mut dyn FnMut(&str, Found) -> ControlFlow<()>,
    ) -> io::Result<()>;

    fn space(&self) -> Option<Space> {
        None
    }

    /// Where the operating system sees `path`, if it does.
    fn local_path(&self, _path: &str) -> Option<PathBuf> {
        None
    }
}

/// An open file of the operating system.
pub enum SystemFile {
    Reading(File),
    Writing(Appender),
}

impl SystemFile {
    fn file(&self) -> &File {
        match self {
            SystemFile::Reading(file) => file,
            SystemFile::Writing(appender) => appender.file(),
        }
    }

    fn appender(&mut self) -> io::Result<&mut Appender> {
        match self {
            SystemFile::Writing(appender) => Ok(appender),
            SystemFile::Reading(_) => Err(io::ErrorKind::PermissionDenied.into()),
        }
    }
}

/// A folder of the operating system.
pub struct SystemDisk {
    top: OwnedFd,
    path: PathBuf,
    writer: Writer,
}

impl SystemDisk {
    /// Opens the folder at `path`, which must exist. It is held open: a folder that is moved
    /// stays the same disk.
    pub fn open(path: &Path) -> io::Result<Self> {
        let path = std::path::absolute(path)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let top = sys::open(&path, flags, Mode::empty())?;
        Ok(SystemDisk { top, path, writer: Writer::this_process() })
    }

    fn open_folder(&self, path: &str) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(sys::openat(&self.top, or_top(path), flags, Mode::empty())?)
    }
}

fn or_top(path: &str) -> &str {
    if path.is_empty() { "." } else { path }
}

fn found(stat: &sys::Stat) -> Found {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Found::File { size: u64::try_from(stat.st_size).unwrap_or(0) },
        FileType::Directory => Found::Folder,
        _ => Found::Other,
    }
}

fn stat_at(folder: impl AsFd, path: impl rustix::path::Arg) -> io::Result<Option<Found>> {
    match sys::statat(folder, path, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(found(&stat))),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

impl Disk for SystemDisk {
    type File = SystemFile;

    fn place(&self) -> String {
        self.path.display().to_string()
    }

    fn writer(&self) -> Writer {
        self.writer.clone()
    }

    fn is_abandoned(&self, path: &str, writer: &Writer) -> io::Result<bool> {
        let (file, _) = self.open(path)?;
        // A living writer holds its lock, also where its process cannot be seen (another
        // container, a network file system). Not every file system has locks.
        let file = file.file();
        if sys::flock(file, FlockOperation::NonBlockingLockExclusive) == Err(Errno::WOULDBLOCK) {
            return Ok(false);
        }
        if writer.is_gone() == Some(true) {
            return Ok(true);
        }
        let age = SystemTime::now().duration_since(file.metadata()?.modified()?);
        Ok(age.is_ok_and(|age| age > LEASE))
    }

    fn create(&self, path: &str) -> io::Result<SystemFile> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = File::from(sys::openat(&self.top, path, flags, Mode::RUSR | Mode::WUSR)?);
        // See `is_abandoned`; without locks the name and the age have to do.
        let _ = sys::flock(&file, FlockOperation::NonBlockingLockExclusive);
        Ok(SystemFile::Writing(Appender::new(file)))
    }

    fn write(&self, file: &mut SystemFile, data: &[u8]) -> io::Result<()> {
        file.appender()?.append(data)
    }

    fn start_writeback(&self, file: &SystemFile, offset: u64, length: u64) {
        if matches!(file, SystemFile::Writing(appender) if appender.is_direct()) {
            return;
        }
        // Linux starts to write out dirty pages that it is told are not needed. What this drops
        // from the cache was written long ago and is not read again soon.
        let _ =
            sys::fadvise(file.file(), offset, std::num::NonZeroU64::new(length), Advice::DontNeed);
    }

    fn sync_file(&self, file: &mut SystemFile) -> io::Result<()> {
        let appender = file.appender()?;
        appender.settle()?;
        appender.file().sync_data()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        Ok(sys::renameat(&self.top, from, &self.top, to)?)
    }

    fn rename_noreplace(&self, from: &str, to: &str) -> io::Result<()> {
        let flags = sys::RenameFlags::NOREPLACE;
        match sys::renameat_with(&self.top, from, &self.top, to, flags) {
            // Network file systems lack it; a second name is as exclusive.
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
                sys::linkat(&self.top, from, &self.top, to, AtFlags::empty())?;
                Ok(sys::unlinkat(&self.top, from, AtFlags::empty())?)
            }
            result => Ok(result?),
        }
    }

    fn sync_dir(&self, path: &str) -> io::Result<()> {
        let folder = self.open_folder(path)?;
        match sys::fsync(&folder) {
            // Some file systems cannot sync one folder: then all of them.
            Err(Errno::INVAL | Errno::NOTSUP) => Ok(sys::syncfs(&folder)?),
            result => Ok(result?),
        }
    }

    fn mkdir(&self, path: &str) -> io::Result<()> {
        Ok(sys::mkdirat(&self.top, path, Mode::RWXU)?)
    }

    fn unlink(&self, path: &str) -> io::Result<()> {
        Ok(sys::unlinkat(&self.top, path, AtFlags::empty())?)
    }

    fn open(&self, path: &str) -> io::Result<(SystemFile, u64)> {
        // Without NONBLOCK a FIFO that someone left here would hang the reader.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(sys::openat(&self.top, path, flags, Mode::empty())?);
        match found(&sys::fstat(&file)?) {
            Found::File { size } => Ok((SystemFile::Reading(file), size)),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn read_at(&self, file: &SystemFile, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match file.file().read_at(rest, offset.saturating_add(filled as u64)) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn stat(&self, path: &str) -> io::Result<Option<Found>> {
        stat_at(&self.top, or_top(path))
    }

    fn list(
        &self,
        path: &str,
        visit: &mut dyn FnMut(&str, Found) -> ControlFlow<()>,
    ) -> io::Result<()> {
        let folder = self.open_folder(path)?;
        for entry in sys::Dir::read_from(&folder)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().to_str() else { continue };
            if name == "." || name == ".." {
                continue;
            }
            let what = match entry.file_type() {
                FileType::Directory => Some(Found::Folder),
                FileType::RegularFile | FileType::Unknown => stat_at(&folder, entry.file_name())?,
                _ => Some(Found::Other),
            };
            // `None`: gone since the folder was read.
            if what.is_some_and(|what| visit(name, what).is_break()) {
                break;
            }
        }
        Ok(())
    }

    fn space(&self) -> Option<Space> {
        let stat = sys::fstatvfs(&self.top).ok()?;
        Some(Space {
            free: stat.f_bavail.saturating_mul(stat.f_frsize),
            total: stat.f_blocks.saturating_mul(stat.f_frsize),
        })
    }

    fn local_path(&self, path: &str) -> Option<PathBuf> {
        Some(self.path.join(path))
    }
}

/// Makes the folder at `path` and those above it that are missing, each durable before the next.
pub fn make_folders(path: &Path) -> io::Result<()> {
    let path = std::path::absolute(path)?;
    let missing: Vec<&Path> = path.ancestors().take_while(|folder| !folder.exists()).collect();
    for folder in missing.into_iter().rev() {
        match fs::DirBuilder::new().create(folder) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            result => result?,
        }
        if let Some(above) = folder.parent() {
            File::open(above)?.sync_all()?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_told_in_the_largest_unit_they_fill() {
        let told = |bytes| Bytes(bytes).to_string();
        assert_eq!(told(0), "0 bytes");
        assert_eq!(told(1023), "1023 bytes");
        assert_eq!(told(3 << 20), "3 MiB");
        assert_eq!(told(u64::MAX), "16777215 TiB");
        assert_eq!(Space { free: 1024, total: 5 << 30 }.to_string(), "1 KiB free of 5 GiB");
    }
}
