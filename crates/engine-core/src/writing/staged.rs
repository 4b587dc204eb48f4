//! Bytes on their way to many places of one file that is written past the page cache: what belongs
//! together waits until it is worth a direct write, borders that are not aligned go through the
//! cache.
//!
//! Several threads write to one file, each with what it has staged for itself: no page is written
//! both directly and through the cache.

use std::fs::File;
use std::io;

use super::{Stage, before_aligned, write_cached_at, write_stage_at};

/// A file that is written at many places.
#[derive(Clone, Copy)]
pub struct Target<'f> {
    pub cached: &'f File,
    /// The same file, opened by [`super::direct`].
    pub direct: &'f File,
    /// Told of each stretch that was written: its place, and its length.
    pub wrote: &'f dyn Fn(u64, usize),
}

/// What waits for more of the same place. Empty again after [`Staged::flush`].
#[derive(Default)]
pub struct Staged {
    stage: Option<Stage>,
    /// Where in the file what is staged goes.
    offset: u64,
}

impl Staged {
    /// Writes bytes at their place, at once or when there are enough that belong together.
    pub fn put(&mut self, to: Target<'_>, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let waits = self.stage.as_ref().map_or(0, |stage| stage.len() as u64);
        if waits > 0 && self.offset + waits != offset {
            self.flush(to)?;
        }
        let (mut offset, mut rest) = (offset, bytes);
        while !rest.is_empty() {
            let stage = self.stage.get_or_insert_default();
            if stage.is_empty() {
                let (head, after) = rest.split_at(before_aligned(offset, rest.len()));
                write_cached_at(to.cached, head, offset)?;
                (to.wrote)(offset, head.len());
                offset += head.len() as u64;
                rest = after;
                self.offset = offset;
            }
            let left = stage.take(rest);
            offset += (rest.len() - left.len()) as u64;
            rest = left;
            if stage.is_full() {
                self.flush(to)?;
            }
        }
        Ok(())
    }

    /// Writes what waits. Nothing waits afterwards, even if it could not be written: what comes
    /// next may be of another file.
    pub fn flush(&mut self, to: Target<'_>) -> io::Result<()> {
        let Some(stage) = &mut self.stage else { return Ok(()) };
        let length = stage.len();
        let written = write_stage_at(to.direct, to.cached, stage, self.offset);
        stage.clear();
        written?;
        (to.wrote)(self.offset, length);
        Ok(())
    }
}
