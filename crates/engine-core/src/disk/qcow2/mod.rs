//! A disk that is a qcow2 file of this machine, written without qemu: what of it holds data is known
//! before, so every byte has its place in the file, and is written there as into a raw file.
//!
//! What qemu finds clusters by is written first, the data in any order. Until all is written the
//! file is sound to qemu, and what is missing reads as zero.

mod layout;

use std::path::Path;
use std::sync::OnceLock;

use crate::error::{Error, Result};
use crate::tree::entry::Extent;

use self::layout::{CLUSTER, Layout};
use super::file::FileSink;
use super::{DiskSink, Part, Patience, Piece};

/// Writes a qcow2 file; nothing can be written before [`DiskSink::expect`].
pub struct Qcow2Sink {
    file: FileSink,
    size: u64,
    layout: OnceLock<Layout>,
    /// The clusters that another try wrote to, and may never have flushed.
    doubtful: OnceLock<Vec<Extent>>,
}

impl Qcow2Sink {
    /// A file that is there, whatever it holds, or a new one.
    pub fn open(path: &Path, size: u64) -> Result<Self> {
        let size = layout::disk_bytes(size);
        let (layout, doubtful) = Default::default();
        Ok(Qcow2Sink { file: FileSink::again(path, size)?, size, layout, doubtful })
    }

    fn laid_out(&self) -> Result<&Layout> {
        let missing = || Error::Invalid("nobody said what a qcow2 file is to hold".into());
        self.layout.get().ok_or_else(missing)
    }

    /// Whether the file is one that was begun for the same data.
    fn is_begun(&self, layout: &Layout) -> Result<bool> {
        if self.file.file_bytes()? != layout.file_bytes() {
            return Ok(false);
        }
        let (mut at, mut is_same) = (0, true);
        let mut found = vec![0; CLUSTER as usize];
        layout.head(&mut |cluster| {
            if is_same {
                let mut pieces = [Piece { offset: at, bytes: &mut found }];
                self.file.read(&mut pieces, &|| Ok(()))?;
                is_same = found == cluster;
                at += CLUSTER;
            }
            Ok(())
        })?;
        Ok(is_same)
    }
}

impl DiskSink for Qcow2Sink {
    fn size(&self) -> u64 {
        self.size
    }

    fn expect(&self, data: &[Extent], begin: u64) -> Result<()> {
        let layout = Layout::new(self.size, data)?;
        let again = || Error::Invalid("a disk is written once".into());
        if begin > 0 {
            if !self.is_begun(&layout)? {
                let reason = "it is not as the restore that is to go on with it began it";
                return Err(Error::integrity("the qcow2 file", reason));
            }
            let doubtful = layout.clusters_from(begin);
            self.doubtful.set(doubtful).map_err(|_| again())?;
        } else {
            self.file.begin(layout.file_bytes(), true)?;
            let mut at = 0;
            layout.head(&mut |cluster| {
                self.file.write(&[Part { offset: at, bytes: cluster }], &|| Ok(()))?;
                at += CLUSTER;
                Ok(())
            })?;
        }
        self.layout.set(layout).map_err(|_| again())
    }

    fn stale(&self) -> Vec<Extent> {
        self.doubtful.get().cloned().unwrap_or_default()
    }

    fn write(&self, parts: &[Part<'_>], patience: Patience<'_>) -> Result<()> {
        let layout = self.laid_out()?;
        let mut placed = Vec::with_capacity(parts.len());
        for part in parts {
            let (mut offset, mut rest) = (part.offset, part.bytes);
            while !rest.is_empty() {
                let (Some(place), follow) = layout.place(offset) else {
                    let text = format!("byte {offset} of a disk was to be a hole, and is not");
                    return Err(Error::Invalid(text));
                };
                let count = usize::try_from(follow).map_or(rest.len(), |most| rest.len().min(most));
                let (bytes, more) = rest.split_at(count);
                placed.push(Part { offset: place, bytes });
                offset += count as u64;
                rest = more;
            }
        }
        self.file.write(&placed, patience)
    }

    fn zero(&self, offset: u64, length: u64, patience: Patience<'_>) -> Result<()> {
        let layout = self.laid_out()?;
        let mut done = 0;
        while done < length {
            let (place, follow) = layout.place(offset + done);
            let count = follow.min(length - done);
            if let Some(place) = place {
                self.file.zero(place, count, patience)?;
            }
            done += count;
        }
        Ok(())
    }

    fn flush(&self, patience: Patience<'_>) -> Result<()> {
        self.file.flush(patience)
    }

    fn read(&self, pieces: &mut [Piece<'_>], patience: Patience<'_>) -> Result<()> {
        let layout = self.laid_out()?;
        for piece in pieces {
            let (mut offset, mut rest) = (piece.offset, &mut *piece.bytes);
            while !rest.is_empty() {
                let (place, follow) = layout.place(offset);
                let count = usize::try_from(follow).map_or(rest.len(), |most| rest.len().min(most));
                let (bytes, more) = rest.split_at_mut(count);
                match place {
                    Some(offset) => self.file.read(&mut [Piece { offset, bytes }], patience)?,
                    None => bytes.fill(0),
                }
                offset += count as u64;
                rest = more;
            }
        }
        Ok(())
    }
}
