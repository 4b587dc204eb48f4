//! One regular file: open, read, cut, name, and keep what the pool does not have.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::time::Instant;

use crate::counters::Stage;
use crate::error::Error;
use crate::scan::{open, problem, sparse};
use crate::tree::entry::{Entry, Extent};
use crate::tree::lists::StreamingRefs;

use super::node::DirNode;
use super::worker::Worker;

/// Why a file is not in the image, or an error that ends the job.
pub enum Miss {
    /// It could not be opened or read: a finding, and the job goes on.
    Skipped(io::Error, &'static str),
    Fatal(Error),
}

impl From<Error> for Miss {
    fn from(error: Error) -> Self {
        Miss::Fatal(error)
    }
}

impl Worker<'_> {
    /// Backs up a regular file as it is now; its entry. Anything that moved meanwhile becomes a
    /// finding here.
    pub fn file(&mut self, node: &DirNode, name: &[u8]) -> Result<Entry, Miss> {
        let started = Instant::now();
        let unopened = |error| Miss::Skipped(error, "open it");
        let dir = node.handle.fd().map_err(unopened)?;
        let (file, stat) = open::open_file(dir.as_fd(), name).map_err(unopened)?;
        let mut entry = stat.entry(name, &self.job.names);
        self.tally.busy(Stage::Open, 0, started);
        self.contents(&file, &mut entry)?;
        self.tally.bytes_online += entry.size;
        let found = self.job.xattrs.of_fd(file.as_fd(), stat.device);
        entry.xattrs = found.pairs;
        let change = open::changed_while_read(&file, &stat, entry.size)
            .unwrap_or_else(|error| Some(problem::explain(&error, "look at it again")));
        for trouble in found.problems.into_iter().chain(change) {
            trouble.report(self.job.findings, &node.handle.path_of(name));
        }
        Ok(entry)
    }

    /// Reads all data of the file into `entry`'s content. A file that ends early makes the entry
    /// as short as what was read.
    fn contents(&mut self, file: &File, entry: &mut Entry) -> Result<(), Miss> {
        if entry.size == 0 {
            return Ok(());
        }
        let unread = |error| Miss::Skipped(error, "read it");
        let extents = sparse::data_extents(file, entry.size).map_err(unread)?;
        let whole = [Extent { offset: 0, length: entry.size }];
        let pieces = extents.as_deref().unwrap_or(&whole);
        let mut refs = StreamingRefs::new(self.sink);
        let mut filled = 0;
        let mut ended_at = None;
        'pieces: for piece in pieces {
            let mut at = piece.offset;
            let end = piece.offset + piece.length;
            while at < end {
                if filled == self.buffer.len() {
                    self.sink.check()?;
                    filled = self.cut(&mut refs, filled, false)?;
                }
                let started = Instant::now();
                let room = self.buffer.len() - filled;
                let want = usize::try_from(end - at).unwrap_or(room).min(room);
                let got =
                    read_at(file, &mut self.buffer[filled..filled + want], at).map_err(unread)?;
                self.tally.busy(Stage::Read, got as u64, started);
                self.tally.bytes_read += got as u64;
                if got == 0 {
                    ended_at = Some(at);
                    break 'pieces;
                }
                filled += got;
                at += got as u64;
            }
        }
        self.cut(&mut refs, filled, true)?;
        entry.content = refs.finish()?;
        entry.extents = extents;
        if let Some(end) = ended_at {
            entry.size = end;
            if let Some(extents) = &mut entry.extents {
                extents.retain(|piece| piece.offset < end);
                if let Some(last) = extents.last_mut() {
                    last.length = last.length.min(end - last.offset);
                }
            }
        }
        Ok(())
    }

    /// Cuts the first `filled` bytes of the buffer into chunks; keeps what may still grow, unless
    /// these are the last. Returns how many bytes stay, now at the front.
    fn cut(
        &mut self,
        refs: &mut StreamingRefs<'_>,
        filled: usize,
        last: bool,
    ) -> Result<usize, Error> {
        let data = self.buffer.get(..filled).unwrap_or_default();
        let cut = self.cutter.cut(&mut self.tally, data, last, |reference| refs.push(reference))?;
        self.buffer.copy_within(cut..filled, 0);
        Ok(filled - cut)
    }
}

fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    loop {
        match file.read_at(buffer, offset) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}
