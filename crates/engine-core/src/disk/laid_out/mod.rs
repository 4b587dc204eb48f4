//! A disk that is a file of some format for virtual disks, on this machine, written without qemu: what
//! of it holds data is known before, so every byte has its place in the file, and is written there as
//! into a raw file.
//!
//! What readers find clusters by is written first, the data in any order. Until all is written the
//! file is sound to qemu, and what is missing reads as zero. Nothing in a file is believed: what is
//! there is compared with what would be written.

mod clusters;
mod identity;
mod pages;
mod qcow2;
#[cfg(test)]
mod tests;
mod vdi;
mod vhdx;
mod vmdk;

use std::path::Path;
use std::sync::OnceLock;

use crate::error::{Error, Result};
use crate::tree::entry::Extent;

use self::clusters::Clusters;
use self::identity::Identity;
use self::pages::{PAGE_BYTES, Pages, Take};
use self::qcow2::Qcow2;
use self::vdi::Vdi;
use self::vhdx::Vhdx;
use self::vmdk::Vmdk;
use super::file::FileSink;
use super::{DiskSink, Part, Patience, Piece, is_zero};

/// All formats count the bytes of disks in these.
const SECTOR: u64 = 512;

/// Formats of files that are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Qcow2,
    Vmdk,
    Vhdx,
    Vdi,
}

impl Format {
    pub const ALL: [Format; 4] = [Format::Qcow2, Format::Vmdk, Format::Vhdx, Format::Vdi];

    /// What qemu calls it.
    pub fn name(self) -> &'static str {
        match self {
            Format::Qcow2 => "qcow2",
            Format::Vmdk => "vmdk",
            Format::Vhdx => "vhdx",
            Format::Vdi => "vdi",
        }
    }

    /// The one that qemu calls so.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.name() == name)
    }

    /// `Invalid` where the data does not lie on the disk, and for a disk that no file of this format
    /// can be.
    fn lay_out(self, disk: &Disk, data: &[Extent]) -> Result<Box<dyn Layout>> {
        Ok(match self {
            Format::Qcow2 => Box::new(Qcow2::new(disk, data)?),
            Format::Vmdk => Box::new(Vmdk::new(disk, data)?),
            Format::Vhdx => Box::new(Vhdx::new(disk, data)?),
            Format::Vdi => Box::new(Vdi::new(disk, data)?),
        })
    }
}

/// A disk that a file is made of.
#[derive(Clone, Debug)]
struct Disk {
    /// Whole sectors.
    size: u64,
    /// Of the file.
    name: String,
    identity: Identity,
}

/// Where everything of a file lies: first what readers find clusters by, then the clusters that hold
/// data. Pure: the same disk with the same data gives the same bytes, so that a restore that goes on
/// can tell whether a file is the one that it began.
trait Layout: Send + Sync {
    /// Where data lies. What comes before is a multiple of [`PAGE_BYTES`].
    fn clusters(&self) -> &Clusters;

    /// Gives all that comes before the data; zeroes at its end may be left away.
    fn head(&self, to: &mut Pages<'_>) -> Result<()>;
}

/// Hands over all that comes before the data, page by page.
fn hand_over(layout: &dyn Layout, take: &mut Take<'_>) -> Result<()> {
    let mut pages = Pages::new(take);
    layout.head(&mut pages)?;
    pages.zero_to(layout.clusters().data_at())
}

fn too_large(size: u64, format: &str) -> Error {
    Error::Invalid(format!("a disk of {size} bytes is too large for a {format} file"))
}

/// Writes a file of a format; nothing can be written before [`DiskSink::expect`].
pub struct LaidOutSink {
    file: FileSink,
    format: Format,
    disk: Disk,
    layout: OnceLock<Box<dyn Layout>>,
    /// The clusters that another try wrote to, and may never have flushed.
    doubtful: OnceLock<Vec<Extent>>,
}

impl LaidOutSink {
    /// A file that is there, whatever it holds, or a new one.
    pub fn open(path: &Path, format: Format, size: u64) -> Result<Self> {
        let size = size.div_ceil(SECTOR).saturating_mul(SECTOR);
        let file = FileSink::again(path, size)?;
        let (inode, made_ns) = file.known_by()?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let disk = Disk { size, name, identity: Identity::of(path, inode, made_ns) };
        let (layout, doubtful) = Default::default();
        Ok(LaidOutSink { file, format, disk, layout, doubtful })
    }

    fn clusters(&self) -> Result<&Clusters> {
        let missing = || Error::Invalid("nobody said what the file of a disk is to hold".into());
        Ok(self.layout.get().ok_or_else(missing)?.clusters())
    }

    /// Whether the file is one that was begun for the same data.
    fn is_begun(&self, layout: &dyn Layout) -> Result<bool> {
        if self.file.file_bytes()? != layout.clusters().file_bytes() {
            return Ok(false);
        }
        let mut is_same = true;
        let mut found = vec![0; PAGE_BYTES as usize];
        hand_over(layout, &mut |offset, page| {
            if is_same {
                let mut pieces = [Piece { offset, bytes: &mut found }];
                self.file.read(&mut pieces, &|| Ok(()))?;
                is_same = found == page;
            }
            Ok(())
        })?;
        Ok(is_same)
    }

    /// Makes the file anew, without data.
    fn begin(&self, layout: &dyn Layout) -> Result<()> {
        self.file.begin(layout.clusters().file_bytes(), true)?;
        hand_over(layout, &mut |offset, page| {
            if is_zero(page) {
                return Ok(());
            }
            self.file.write(&[Part { offset, bytes: page }], &|| Ok(()))
        })
    }
}

impl DiskSink for LaidOutSink {
    fn size(&self) -> u64 {
        self.disk.size
    }

    fn expect(&self, data: &[Extent], begin: u64) -> Result<()> {
        let layout = self.format.lay_out(&self.disk, data)?;
        let again = || Error::Invalid("a disk is written once".into());
        if begin > 0 {
            if !self.is_begun(&*layout)? {
                let reason = "it is not as the restore that is to go on with it began it";
                return Err(Error::integrity(format!("the {} file", self.format.name()), reason));
            }
            self.doubtful.set(layout.clusters().held_from(begin)).map_err(|_| again())?;
        } else {
            self.begin(&*layout)?;
        }
        self.layout.set(layout).map_err(|_| again())
    }

    fn stale(&self) -> Vec<Extent> {
        self.doubtful.get().cloned().unwrap_or_default()
    }

    fn write(&self, parts: &[Part<'_>], patience: Patience<'_>) -> Result<()> {
        let clusters = self.clusters()?;
        let mut placed = Vec::with_capacity(parts.len());
        for part in parts {
            let (mut offset, mut rest) = (part.offset, part.bytes);
            while !rest.is_empty() {
                let (Some(place), follow) = clusters.place(offset) else {
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
        let clusters = self.clusters()?;
        let mut done = 0;
        while done < length {
            let (place, follow) = clusters.place(offset + done);
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
        let clusters = self.clusters()?;
        for piece in pieces {
            let (mut offset, mut rest) = (piece.offset, &mut *piece.bytes);
            while !rest.is_empty() {
                let (place, follow) = clusters.place(offset);
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
