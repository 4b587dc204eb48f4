//! One regular file: its chunks are fetched and written, then it gets its attributes and name.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use crate::counters::Stage;
use crate::error::{Error, Result};
use crate::ids::{Kind, Ref};
use crate::scan::open;
use crate::tree::entry::{Content, Entry};
use crate::tree::layout::{Layout, Placed as Part};
use crate::tree::lists::Refs;

use super::target::{FileTarget, Placed};
use super::worker::{Node, Task, Worker};

/// Content that is fetched and written at a time.
const SEGMENT_BYTES: u64 = 8 << 20;

/// A file of which several threads may write parts. Whoever lets go of it last finishes it.
pub struct OpenFile {
    node: Arc<Node>,
    entry: Entry,
    target: FileTarget,
    linked: bool,
    failure: Mutex<Option<Failure>>,
}

enum Failure {
    Writing(io::Error),
    Reading(Error),
}

impl Worker<'_> {
    /// Restores a file; a large one in parts that others may take.
    pub fn file(&mut self, node: &Arc<Node>, entry: Entry, linked: bool) -> Result<()> {
        let started = Instant::now();
        let target = self.job.target.create_file(&node.dir, &entry)?;
        self.tally.busy(Stage::Finish, 0, started);
        let Some(target) = target else {
            return if linked { self.tell(&node.dir, &entry, None) } else { Ok(()) };
        };
        node.begin();
        let content = entry.content.clone();
        let node = Arc::clone(node);
        let file = Arc::new(OpenFile { node, entry, target, linked, failure: Mutex::new(None) });
        match content {
            Content::Empty => self.close(file),
            Content::Direct(refs) => self.segment(file, 0, &refs),
            Content::Listed { .. } => self.listed(file, &content),
        }
    }

    /// A file with a long list of chunks, in segments.
    fn listed(&mut self, file: Arc<OpenFile>, content: &Content) -> Result<()> {
        let mut refs = Vec::new();
        let (mut offset, mut length) = (0, 0);
        for reference in Refs::new(self.job.pool, content) {
            match reference {
                Ok(reference) => {
                    length += u64::from(reference.plain_length());
                    refs.push(reference);
                }
                Err(error) => {
                    file.failure.lock().get_or_insert(Failure::Reading(error));
                    break;
                }
            }
            if length >= SEGMENT_BYTES {
                let refs = std::mem::take(&mut refs);
                self.give(Task::Segment { file: Arc::clone(&file), offset, refs })?;
                offset += length;
                length = 0;
                self.job.cancel.check()?;
            }
        }
        self.segment(file, offset, &refs)
    }

    /// Writes chunks from `offset` in the content on.
    pub fn segment(&mut self, file: Arc<OpenFile>, offset: u64, refs: &[Ref]) -> Result<()> {
        let mut at = offset;
        let mut near = 0;
        for (place, reference) in refs.iter().enumerate() {
            if place >= near {
                near = self.bring_near(refs, place);
            }
            self.job.cancel.check()?;
            if file.failure.lock().is_some() {
                break;
            }
            match self.job.pool.chunk(Kind::Data, reference, self.job.counters) {
                Err(error) => {
                    file.failure.lock().get_or_insert(Failure::Reading(error));
                }
                Ok(bytes) => {
                    let started = Instant::now();
                    if let Err(error) = file.target.write_content_at(&mut self.staged, at, &bytes) {
                        file.failure.lock().get_or_insert(Failure::Writing(error));
                    }
                    at += bytes.len() as u64;
                    self.tally.busy(Stage::Write, bytes.len() as u64, started);
                    self.tally.bytes_read += bytes.len() as u64;
                }
            }
        }
        // Also after a failure: what is staged belongs to this file.
        let started = Instant::now();
        if let Err(error) = file.target.flush(&mut self.staged) {
            file.failure.lock().get_or_insert(Failure::Writing(error));
        }
        self.tally.busy(Stage::Write, 0, started);
        self.close(file)
    }

    /// Has the chunks from `place` on fetched together, as far as is good; up to which.
    fn bring_near(&self, refs: &[Ref], place: usize) -> usize {
        let mut left = self.job.pool.stretch_bytes().unwrap_or(u64::MAX);
        let rest = refs.get(place..).unwrap_or_default();
        let fits = |reference: &&Ref| {
            let length = u64::from(reference.stored_length());
            let fits = left > 0;
            left = left.saturating_sub(length);
            fits
        };
        let count = rest.iter().take_while(fits).count().max(1);
        if count > 1 {
            let wanted = rest.get(..count).unwrap_or_default();
            self.job.pool.prefetch(Kind::Data, wanted, self.job.counters);
        }
        place + count
    }

    /// Lets go of the file; the last to do so gives it its attributes.
    fn close(&mut self, file: Arc<OpenFile>) -> Result<()> {
        let Some(OpenFile { node, entry, target, linked, failure }) = Arc::into_inner(file) else {
            return Ok(());
        };
        let path = node.dir.path_of(&entry.name);
        let placed = match failure.into_inner() {
            Some(Failure::Writing(error)) => {
                self.job.target.abandon_file(target, error)?;
                None
            }
            Some(Failure::Reading(error)) => {
                drop(target);
                self.damaged(&path, "restore the file", error)?;
                None
            }
            None => self.finish(&node, &entry, target, &path)?,
        };
        if linked {
            self.tell(&node.dir, &entry, placed)?;
        }
        self.ended(node)
    }

    fn finish(
        &mut self,
        node: &Node,
        entry: &Entry,
        target: FileTarget,
        path: &[u8],
    ) -> Result<Option<Placed>> {
        let started = Instant::now();
        // Only further names ask which file it became.
        let placed = (entry.nlink > 1).then(|| target.placed().ok()).flatten();
        let done = self.job.target.finish_file(target, entry)?;
        self.tally.busy(Stage::Finish, 0, started);
        if !done {
            return Ok(None);
        }
        self.tally.files += 1;
        if self.job.verify {
            match self.compare(node, entry) {
                Ok(None) => self.tally.files_unchanged += 1,
                Ok(Some(difference)) => self.job.findings.error(path, "verify", difference),
                Err(error) => self.damaged(path, "compare it with the image", error)?,
            }
        }
        Ok(placed)
    }

    /// Reads a restored file again; what differs from the image, in words.
    fn compare(&self, node: &Node, entry: &Entry) -> Result<Option<String>> {
        let again =
            node.dir.handle().fd().and_then(|dir| open::open_file(dir.as_fd(), &entry.name));
        let (file, stat) = match again {
            Ok(opened) => opened,
            Err(error) => return Ok(Some(format!("cannot be read again: {error}"))),
        };
        if stat.size != entry.size {
            return Ok(Some(format!("has {} bytes, the image {}", stat.size, entry.size)));
        }
        let mut layout = Layout::new(entry);
        let (mut bytes, mut parts) = (Vec::new(), Vec::new());
        for reference in Refs::new(self.job.pool, &entry.content) {
            self.job.cancel.check()?;
            let reference = reference?;
            let at = layout.content();
            parts.clear();
            layout.place(reference, |part| parts.push(part));
            bytes.clear();
            for part in &parts {
                let start = bytes.len();
                bytes.resize(start + part.length as usize, 0);
                let buffer = bytes.get_mut(start..).unwrap_or_default();
                if let Err(error) = file.read_exact_at(buffer, part.offset) {
                    return Ok(Some(format!("cannot be read again: {error}")));
                }
            }
            let is_same = match bytes.len() == reference.plain_length() as usize {
                true => self.is_chunk(&reference, &bytes)?,
                false => self.is_of_chunk(&reference, &parts, &bytes)?,
            };
            if !is_same {
                return Ok(Some(format!("differs from the image at byte {at} of its data")));
            }
        }
        Ok(None)
    }
}

impl Worker<'_> {
    /// Whether these are the plain bytes of a chunk. What was sealed has the name of its sealed
    /// bytes, so it comes once more.
    fn is_chunk(&self, reference: &Ref, bytes: &[u8]) -> Result<bool> {
        let pool = self.job.pool;
        if !reference.is_client_sealed() {
            return Ok(pool.naming().name(Kind::Data, bytes) == reference.name);
        }
        Ok(*pool.chunk(Kind::Data, reference, self.job.counters)? == *bytes)
    }

    /// Whether these bytes are those parts of a chunk.
    fn is_of_chunk(&self, reference: &Ref, parts: &[Part], bytes: &[u8]) -> Result<bool> {
        let chunk = self.job.pool.chunk(Kind::Data, reference, self.job.counters)?;
        let mut rest = bytes;
        Ok(parts.iter().all(|part| {
            let (now, later) = rest.split_at((part.length as usize).min(rest.len()));
            rest = later;
            let from = part.skip as usize;
            chunk.get(from..from + part.length as usize) == Some(now)
        }))
    }
}
