//! Virtual disks: what one is read by, and what one is written by, wherever it lies.
//!
//! Knows nothing of images. How disks are cut is `docs/formats/tree.md`, how one becomes part of
//! an image `backup::machine`.

mod file;
pub mod laid_out;
pub mod map;
pub mod nbd;
mod zero;

use crate::error::{Error, Result};
use crate::tree::entry::Extent;

pub use file::{FileSink, FileSource};
pub use laid_out::LaidOutSink;
pub use zero::is_zero;

/// No chunk of a disk crosses a multiple of this: a change in one cell leaves the others' chunks
/// as they are, and cells are cut by several threads.
pub const CELL_BYTES: u64 = 4 << 20;
/// What is wholly zero and so long, at a multiple of its own length, is a hole.
pub const GRAIN_BYTES: u64 = 64 << 10;

/// A stretch of a disk that is to be filled with what is there.
pub struct Piece<'b> {
    pub offset: u64,
    pub bytes: &'b mut [u8],
}

/// A stretch of a disk and what is to be written there.
#[derive(Clone, Copy)]
pub struct Part<'b> {
    pub offset: u64,
    pub bytes: &'b [u8],
}

/// Asked every now and then while a disk makes somebody wait; its error ends the waiting.
pub type Patience<'p> = &'p (dyn Fn() -> Result<()> + Sync);

/// What a disk is read by. Called from many threads at once.
pub trait DiskSource: Send + Sync {
    /// Bytes of the disk.
    fn size(&self) -> u64;

    /// Fills all pieces, in any order. An error names the place.
    fn read(&self, pieces: &mut [Piece<'_>], patience: Patience<'_>) -> Result<()>;

    /// The bytes from `offset` on: `length` of them, fewer only at the end of the disk.
    fn read_at(&self, offset: u64, length: usize, patience: Patience<'_>) -> Result<Vec<u8>> {
        let left = self.size().saturating_sub(offset);
        let length = usize::try_from(left).unwrap_or(length).min(length);
        let mut bytes = vec![0; length];
        if length > 0 {
            self.read(&mut [Piece { offset, bytes: &mut bytes }], patience)?;
        }
        Ok(bytes)
    }

    /// Lets go of what it is read by; nothing is read after.
    fn close(&self) {}
}

/// What a disk is written by. Called from many threads at once, for different places.
pub trait DiskSink: Send + Sync {
    /// Bytes of the disk.
    fn size(&self) -> u64;

    /// Told once, before anything is written, what is going to be data, ascending and apart; what
    /// comes before `begin` is there already. Where it can't go on with that it is an error.
    fn expect(&self, _data: &[Extent], _begin: u64) -> Result<()> {
        Ok(())
    }

    /// What may read as something else than zero before anything is written: ascending, apart.
    fn stale(&self) -> Vec<Extent>;

    /// Writes all parts, in any order. An error names the place.
    fn write(&self, parts: &[Part<'_>], patience: Patience<'_>) -> Result<()>;

    /// Has a stretch read as zero.
    fn zero(&self, offset: u64, length: u64, patience: Patience<'_>) -> Result<()>;

    /// Has everything that was written outlast a loss of power.
    fn flush(&self, patience: Patience<'_>) -> Result<()>;

    /// Reads what was written.
    fn read(&self, pieces: &mut [Piece<'_>], patience: Patience<'_>) -> Result<()>;

    /// Lets go of what it is written by; nothing is written after.
    fn close(&self) {}
}

/// Zeroes that are written at a time where there is no other way.
static ZEROES: [u8; 1 << 20] = [0; 1 << 20];

/// Writes zeroes as any other bytes.
fn zeroes(offset: u64, length: u64, mut write: impl FnMut(Part<'_>) -> Result<()>) -> Result<()> {
    let mut done = 0;
    while done < length {
        let count = (length - done).min(ZEROES.len() as u64) as usize;
        write(Part { offset: offset + done, bytes: ZEROES.get(..count).unwrap_or_default() })?;
        done += count as u64;
    }
    Ok(())
}

/// An error of the system with a disk, at a place.
fn at(doing: &str, offset: u64, error: std::io::Error) -> Error {
    Error::io(format!("{doing} at byte {offset}"), error)
}
