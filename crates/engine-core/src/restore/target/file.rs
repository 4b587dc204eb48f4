//! A regular file on its way: written in any order by any thread, and in its place only when
//! whole.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{Mode, OFlags};

use super::metadata::On;
use super::place::{Placed, remove, rename_over};
use super::{Attempt, Failure, Target, TargetDir, plain_name};
use crate::error::Result;
use crate::scan::attrs::Stat;
use crate::scan::problem::Problem;
use crate::tree::codec;
use crate::tree::entry::{Entry, Extent};
use crate::tree::layout::{self, Stretch};
use crate::writing::{self, Staged};

/// Files with this much content are written past the page cache, where that is known to be good.
const DIRECT_FROM_BYTES: u64 = 16 << 20;

/// A file that is being written. Dropping it unfinished removes it.
#[derive(Debug)]
pub struct FileTarget {
    file: File,
    /// The same file, for writing past the page cache.
    direct: Option<File>,
    dir: Arc<TargetDir>,
    name: Vec<u8>,
    temporary: Option<Vec<u8>>,
    /// Where content goes that is not just the file.
    stretches: Option<Vec<Stretch>>,
    has_holes: bool,
    size: u64,
    /// Bytes of content, with what is passed over.
    content: u64,
    /// Bytes of data expected and written so far, and the end of the furthest.
    expected: u64,
    written: AtomicU64,
    furthest: AtomicU64,
    is_done: bool,
}

impl Target {
    /// Makes the file of an entry, empty and readable by nobody else. `None` where an existing
    /// file is kept, or where a finding says why not.
    pub fn create_file(&self, dir: &Arc<TargetDir>, entry: &Entry) -> Result<Option<FileTarget>> {
        let attempt = self.try_create_file(dir, entry);
        self.settle(&|| dir.path_of(&entry.name), "restore the file", attempt)
    }

    fn try_create_file(&self, dir: &Arc<TargetDir>, entry: &Entry) -> Attempt<FileTarget> {
        plain_name(&entry.name)?;
        let (stretches, expected) = stretches_of(entry)?;
        let fd = dir.handle().fd()?;
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let create = |name: &[u8]| rustix::fs::openat(&fd, name, flags, Mode::RUSR | Mode::WUSR);
        let Some(made) = self.make(fd.as_fd(), entry, create)? else { return Ok(None) };
        let file = File::from(made.what);
        let direct = (expected >= DIRECT_FROM_BYTES).then(|| writing::direct(&file)).flatten();
        let target = FileTarget {
            file,
            direct,
            dir: Arc::clone(dir),
            name: entry.name.clone(),
            temporary: made.temporary,
            stretches,
            has_holes: entry.extents.is_some(),
            size: entry.size,
            content: codec::content_bytes(entry),
            expected,
            written: AtomicU64::new(0),
            furthest: AtomicU64::new(0),
            is_done: false,
        };
        if target.direct.is_some() {
            writing::make_room(&target.file, target.size, target.has_holes)?;
        }
        Ok(Some(target))
    }

    /// Gives a file whose content is written its size and attributes, and then its name. Whether
    /// it is in its place now; if not, a finding says why.
    pub fn finish_file(&self, file: FileTarget, entry: &Entry) -> Result<bool> {
        let dir = Arc::clone(&file.dir);
        let attempt = self.try_finish_file(file, entry);
        Ok(self.settle(&|| dir.path_of(&entry.name), "restore the file", attempt)?.is_some())
    }

    fn try_finish_file(&self, mut file: FileTarget, entry: &Entry) -> Attempt<()> {
        let written = file.written.load(Ordering::Acquire);
        if written != file.expected {
            return Err(Problem::error(
                "incomplete",
                format!(
                    "could not restore the file: only {written} of {} bytes were there",
                    file.expected
                ),
            )
            .into());
        }
        if file.furthest.load(Ordering::Acquire) < file.size {
            rustix::fs::ftruncate(&file.file, file.size)?;
        }
        let path = || file.path();
        self.apply(&On::Open(file.file.as_fd()), entry, false, file.dir.gives_acl(), &path)?;
        if file.temporary.is_some() {
            let dir = file.dir.handle().fd()?;
            rename_over(&dir, file.temporary.as_deref(), &file.name)?;
        }
        file.is_done = true;
        Ok(Some(()))
    }

    /// Gives up a file that cannot be written or whose content cannot be had: a finding tells,
    /// unless the error ends the job.
    pub fn abandon_file(&self, file: FileTarget, error: io::Error) -> Result<()> {
        let (dir, name) = (Arc::clone(&file.dir), file.name.clone());
        drop(file);
        let attempt: Attempt<()> = Err(Failure::Io(error));
        self.settle(&|| dir.path_of(&name), "restore the file", attempt).map(|_| ())
    }
}

impl FileTarget {
    /// Writes content: `offset` counts its bytes, which are the data laid end to end and, between
    /// that, what is passed over. Each byte must be written once, in any order. Some of
    /// it may wait in `staged`, until it is flushed.
    pub fn write_content_at(
        &self,
        staged: &mut Staged,
        offset: u64,
        bytes: &[u8],
    ) -> io::Result<()> {
        let end = offset.checked_add(bytes.len() as u64).filter(|end| *end <= self.content);
        if end.is_none() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the image holds more bytes for it than it has",
            ));
        }
        let Some(stretches) = &self.stretches else {
            return self.put(staged, offset, bytes);
        };
        let end = offset + bytes.len() as u64;
        let first = stretches.partition_point(|stretch| stretch.end() <= offset);
        for stretch in stretches.get(first..).unwrap_or_default() {
            if stretch.content >= end {
                break;
            }
            let (from, upto) = (stretch.content.max(offset), stretch.end().min(end));
            let part = bytes.get((from - offset) as usize..(upto - offset) as usize);
            self.put(staged, stretch.offset + (from - stretch.content), part.unwrap_or_default())?;
        }
        Ok(())
    }

    /// Writes bytes at their place in the file, at once or, for a direct write, when there are
    /// enough that belong together.
    fn put(&self, staged: &mut Staged, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let Some(direct) = &self.direct else {
            writing::write_cached_at(&self.file, bytes, offset)?;
            self.count(offset, bytes.len());
            return Ok(());
        };
        let wrote = |offset, length| self.count(offset, length);
        staged.put(writing::Target { cached: &self.file, direct, wrote: &wrote }, offset, bytes)
    }

    /// Writes what waits. Nothing waits afterwards, even if it could not be written: what comes
    /// next may be of another file.
    pub fn flush(&self, staged: &mut Staged) -> io::Result<()> {
        let Some(direct) = &self.direct else { return Ok(()) };
        let wrote = |offset, length| self.count(offset, length);
        staged.flush(writing::Target { cached: &self.file, direct, wrote: &wrote })
    }

    fn count(&self, offset: u64, length: usize) {
        let length = length as u64;
        self.furthest.fetch_max(offset.saturating_add(length), Ordering::AcqRel);
        self.written.fetch_add(length, Ordering::AcqRel);
    }

    /// Bytes of content still missing.
    pub fn missing(&self) -> u64 {
        self.expected.saturating_sub(self.written.load(Ordering::Acquire))
    }

    /// What [`Target::make_link`] needs to give this file further names.
    pub fn placed(&self) -> io::Result<Placed> {
        Ok(Placed::of(&Stat::of_fd(&self.file)?))
    }

    /// The full path that it will have.
    pub fn path(&self) -> Vec<u8> {
        self.dir.path_of(&self.name)
    }
}

impl Drop for FileTarget {
    fn drop(&mut self) {
        if !self.is_done
            && let Ok(dir) = self.dir.handle().fd()
        {
            remove(&dir, self.temporary.as_deref().unwrap_or(&self.name));
        }
    }
}

/// Where the content goes, and how much of it is data. Refuses extents that make no sense.
fn stretches_of(entry: &Entry) -> std::result::Result<(Option<Vec<Stretch>>, u64), Problem> {
    let beyond = |extent: &Extent| {
        extent.offset.checked_add(extent.length).is_none_or(|end| end > entry.size)
    };
    if entry.extents.iter().flatten().any(beyond) {
        return Err(Problem::error("damaged", "the image says data lies beyond its end"));
    }
    let is_plain = entry.extents.is_none() && entry.skips.is_empty();
    let stretches = (!is_plain).then(|| layout::stretches(entry));
    Ok((stretches, codec::data_bytes(entry)))
}
