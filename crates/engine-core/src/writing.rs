//! How the bytes of files get to the disk: through the page cache in short calls, or past it
//! (direct I/O) from memory that a disk can take them from.
//!
//! What is written once and not read soon, packs and large restored files, gains nothing from the
//! page cache: finding memory for it and copying cost more processor time than compressing, and
//! what others keep in the cache is driven out.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::FileExt;

use rustix::fs::{FallocateFlags, Mode, OFlags};
use rustix::io::Errno;

mod staged;

pub use staged::{Staged, Target};

/// Through the page cache, files are written in calls of this length at most. For longer ones it
/// takes large folios, which fresh memory has to be found for: on a virtual machine, 128 KiB a
/// call took ten times as long as 32 KiB. Shorter calls cost more than they bring.
const CALL_BYTES: usize = 32 << 10;

/// Places in a file, lengths, and memory have to be multiples of this. Disks with blocks of
/// 512 bytes take it too.
pub const ALIGNMENT: usize = 4096;

/// Memory for one direct write: a disk is kept busy, and few of them are held.
const STAGE_BYTES: usize = 1 << 20;

/// Fewer bytes than this are not worth a direct write.
const WORTH_BYTES: usize = 64 << 10;

/// The part of an object that goes through the page cache before the rest goes past it: most
/// objects are no longer.
const CACHED_BYTES: u64 = 256 << 10;

const EXT4: i64 = 0xEF53;
const XFS: i64 = 0x5846_5342;

/// Whether a file is on a file system that is known to write straight to its disk. Others may
/// take the flag and be slow for it, as network file systems are: each write waits for the server.
pub fn suits(file: impl AsFd) -> bool {
    #[allow(clippy::unnecessary_cast)] // the type differs between machines
    rustix::fs::fstatfs(file).is_ok_and(|found| [EXT4, XFS].contains(&(found.f_type as i64)))
}

/// The same file once more, to be written directly; `None` where that is not to be had, or not
/// known to be good.
pub fn direct(file: &File) -> Option<File> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let flags = OFlags::WRONLY | OFlags::DIRECT | OFlags::CLOEXEC;
    let opened = suits(file).then(|| rustix::fs::open(path, flags, Mode::empty()))?;
    opened.ok().map(File::from)
}

/// Gives a file its size, and the room for it unless it is sparse, so that direct writes need not
/// wait for each other.
pub fn make_room(file: &File, size: u64, is_sparse: bool) -> io::Result<()> {
    if !is_sparse {
        match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, size) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INTR) => {}
            result => return Ok(result?),
        }
    }
    Ok(rustix::fs::ftruncate(file, size)?)
}

/// Bytes that are next to go to the disk, in aligned memory.
pub struct Stage {
    memory: Vec<u8>,
    start: usize,
    length: usize,
}

impl Default for Stage {
    fn default() -> Self {
        let memory = vec![0; STAGE_BYTES + ALIGNMENT];
        let start = memory.as_ptr().align_offset(ALIGNMENT);
        Stage { memory, start, length: 0 }
    }
}

impl Stage {
    pub fn len(&self) -> usize {
        self.length
    }

    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    pub fn is_full(&self) -> bool {
        self.length == STAGE_BYTES
    }

    /// Takes as much of `data` as there is room for; returns the rest.
    #[must_use]
    pub fn take<'d>(&mut self, data: &'d [u8]) -> &'d [u8] {
        let count = data.len().min(STAGE_BYTES - self.length);
        let (now, later) = data.split_at(count);
        let at = self.start + self.length;
        if let Some(room) = self.memory.get_mut(at..at + count) {
            room.copy_from_slice(now);
            self.length += count;
        }
        later
    }

    pub fn clear(&mut self) {
        self.length = 0;
    }

    /// What can be written directly, and what is left of it at the end.
    pub fn parts(&self) -> (&[u8], &[u8]) {
        let all = self.memory.get(self.start..self.start + self.length).unwrap_or_default();
        all.split_at(self.length - self.length % ALIGNMENT)
    }
}

/// How many of `length` bytes lie before the next aligned place of a file.
pub fn before_aligned(offset: u64, length: usize) -> usize {
    let off = (offset % ALIGNMENT as u64) as usize;
    ((ALIGNMENT - off) % ALIGNMENT).min(length)
}

/// Writes through the page cache at a place of a file.
pub fn write_cached_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    let mut at = offset;
    for part in bytes.chunks(CALL_BYTES) {
        file.write_all_at(part, at)?;
        at += part.len() as u64;
    }
    Ok(())
}

/// Writes what is staged, at an aligned place of a file. `direct` was opened with `O_DIRECT`;
/// what it can't take goes through `cached`.
pub fn write_stage_at(direct: &File, cached: &File, stage: &Stage, offset: u64) -> io::Result<()> {
    let (aligned, rest) = stage.parts();
    let done = if aligned.len() < WORTH_BYTES {
        write_cached_at(cached, aligned, offset)
    } else {
        match direct.write_all_at(aligned, offset) {
            Err(error) if is_refused(&error) => write_cached_at(cached, aligned, offset),
            result => result,
        }
    };
    done.and_then(|()| write_cached_at(cached, rest, offset + aligned.len() as u64))
}

fn is_refused(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::INVAL | Errno::OPNOTSUPP))
}

/// A file that is written from its beginning to its end. All of it is handed to the system only
/// after [`Appender::settle`]. After an error it takes nothing more, and never settles.
pub struct Appender {
    file: File,
    written: u64,
    way: Way,
    has_failed: bool,
}

enum Way {
    Cached { may_change: bool },
    Direct(Stage),
}

impl Appender {
    /// `file` is empty, and nobody else writes to it.
    pub fn new(file: File) -> Self {
        Appender { file, written: 0, way: Way::Cached { may_change: true }, has_failed: false }
    }

    pub fn file(&self) -> &File {
        &self.file
    }

    pub fn is_direct(&self) -> bool {
        matches!(self.way, Way::Direct(_))
    }

    pub fn append(&mut self, data: &[u8]) -> io::Result<()> {
        self.unless_failed(|appender| appender.try_append(data))
    }

    /// Hands to the system what it does not have yet.
    pub fn settle(&mut self) -> io::Result<()> {
        self.unless_failed(Self::flush)
    }

    fn unless_failed(&mut self, act: impl FnOnce(&mut Self) -> io::Result<()>) -> io::Result<()> {
        if self.has_failed {
            return Err(io::Error::other("an earlier write to it failed"));
        }
        let done = act(self);
        self.has_failed = done.is_err();
        done
    }

    fn try_append(&mut self, data: &[u8]) -> io::Result<()> {
        let mut rest = data;
        if let Way::Cached { may_change: true } = self.way
            && self.written + data.len() as u64 > CACHED_BYTES
        {
            let (head, after) = data.split_at(before_aligned(self.written, data.len()));
            self.append_cached(head)?;
            rest = after;
            if !rest.is_empty() {
                self.way = self.choose();
            }
        }
        loop {
            let Way::Direct(stage) = &mut self.way else { return self.append_cached(rest) };
            rest = stage.take(rest);
            if !stage.is_full() {
                return Ok(());
            }
            self.flush()?;
        }
    }

    fn choose(&self) -> Way {
        let direct =
            suits(&self.file) && rustix::fs::fcntl_setfl(&self.file, OFlags::DIRECT).is_ok();
        if direct { Way::Direct(Stage::default()) } else { Way::Cached { may_change: false } }
    }

    fn append_cached(&mut self, data: &[u8]) -> io::Result<()> {
        write_cached_at(&self.file, data, self.written)?;
        self.written += data.len() as u64;
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.flush_by(|file, bytes, offset| file.write_all_at(bytes, offset))
    }

    /// Writes what is staged: what is aligned by `direct`, the rest, or all if that is refused,
    /// through the page cache, where the file stays from then on.
    fn flush_by(&mut self, direct: impl Fn(&File, &[u8], u64) -> io::Result<()>) -> io::Result<()> {
        let Way::Direct(stage) = &mut self.way else { return Ok(()) };
        let (aligned, rest) = stage.parts();
        let refused = match direct(&self.file, aligned, self.written) {
            Err(error) if is_refused(&error) => true,
            result => {
                result?;
                self.written += aligned.len() as u64;
                false
            }
        };
        if !refused && rest.is_empty() {
            stage.clear();
            return Ok(());
        }
        let way = std::mem::replace(&mut self.way, Way::Cached { may_change: false });
        rustix::fs::fcntl_setfl(&self.file, OFlags::empty())?;
        let Way::Direct(stage) = way else { return Ok(()) };
        let (aligned, rest) = stage.parts();
        if refused {
            self.append_cached(aligned)?;
        }
        self.append_cached(rest)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn noise(length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        blake3::Hasher::new().update(&length.to_le_bytes()).finalize_xof().fill(&mut bytes);
        bytes
    }

    fn empty() -> (tempfile::NamedTempFile, Appender) {
        let file = tempfile::NamedTempFile::new().unwrap();
        let appender = Appender::new(file.reopen().unwrap());
        (file, appender)
    }

    /// As on a file system that is known to be good, whatever this one is.
    fn make_direct(appender: &mut Appender) {
        appender.way = Way::Direct(Stage::default());
        // Refused here and there: then the writes are aligned, and go through the page cache.
        let _ = rustix::fs::fcntl_setfl(&appender.file, OFlags::DIRECT);
    }

    #[test]
    fn what_is_appended_is_there_whatever_the_lengths() {
        let lengths = [1, 40, 4095, 4096, 4097, 65_536, 300_001, STAGE_BYTES, STAGE_BYTES + 1];
        for part in lengths {
            for total in [part, 256 << 10, (256 << 10) + 1, 1 << 20, 3_000_017] {
                if total / part > 5000 {
                    continue;
                }
                for forced in [false, true] {
                    let (file, mut appender) = empty();
                    if forced {
                        make_direct(&mut appender);
                    }
                    let bytes = noise(total);
                    for piece in bytes.chunks(part) {
                        appender.append(piece).unwrap();
                    }
                    appender.settle().unwrap();
                    let found = std::fs::read(file.path()).unwrap();
                    assert!(found == bytes, "{total} bytes in parts of {part}, forced: {forced}");
                }
            }
        }
    }

    #[test]
    fn more_can_be_appended_after_settling() {
        let (file, mut appender) = empty();
        let bytes = noise(5_000_003);
        for piece in bytes.chunks(1_000_001) {
            appender.append(piece).unwrap();
            appender.settle().unwrap();
        }
        assert!(std::fs::read(file.path()).unwrap() == bytes);
    }

    #[test]
    fn a_direct_write_that_is_refused_halfway_goes_through_the_cache() {
        let (file, mut appender) = empty();
        make_direct(&mut appender);
        let bytes = noise(STAGE_BYTES - 1);
        appender.append(&bytes).unwrap();
        let refusing = |file: &File, bytes: &[u8], offset| {
            write_cached_at(file, &bytes[..8192], offset)?;
            Err(Errno::INVAL.into())
        };
        let _ = rustix::fs::fcntl_setfl(&appender.file, OFlags::empty());
        appender.flush_by(refusing).unwrap();
        appender.append(&bytes).unwrap();
        appender.settle().unwrap();
        assert!(std::fs::read(file.path()).unwrap() == [bytes.clone(), bytes].concat());
    }

    #[test]
    fn a_disk_that_is_full_is_no_refusal() {
        let (file, mut appender) = empty();
        make_direct(&mut appender);
        appender.append(&noise(8192)).unwrap();
        let full = |_: &File, _: &[u8], _| Err(Errno::NOSPC.into());
        let failed = appender.unless_failed(|appender| appender.flush_by(full)).unwrap_err();
        assert_eq!(failed.kind(), io::ErrorKind::StorageFull);
        assert_eq!(file.as_file().metadata().unwrap().len(), 0);
        // What is missing in its middle is never taken for whole.
        assert!(appender.append(b"more").is_err());
        assert!(appender.settle().is_err());
    }

    #[test]
    fn a_stage_is_aligned_and_tells_its_parts() {
        let mut stage = Stage::default();
        let bytes = noise(10_000);
        assert!(stage.take(&bytes).is_empty());
        let (aligned, rest) = stage.parts();
        assert_eq!(aligned.as_ptr().align_offset(ALIGNMENT), 0);
        assert_eq!((aligned, rest), bytes.split_at(8192));
        let more = noise(STAGE_BYTES);
        assert_eq!(stage.take(&more).len(), 10_000);
        assert!(stage.is_full());
    }

    #[test]
    fn the_bytes_before_an_aligned_place_are_counted() {
        assert_eq!(before_aligned(0, 10), 0);
        assert_eq!(before_aligned(1, 10), 10);
        assert_eq!(before_aligned(1, 5000), 4095);
        assert_eq!(before_aligned(8191, 5000), 1);
    }
}
