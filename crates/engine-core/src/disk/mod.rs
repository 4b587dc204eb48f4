//! Virtual disks: what one is read by, and what one is written by, wherever it lies.
//!
//! Knows nothing of images. How disks are cut is `docs/formats/tree.md`, how one becomes part of
//! an image `backup::machine`.

mod file;
mod zero;

use crate::error::{Error, Result};

pub use file::FileSource;
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
}

/// An error of the system with a disk, at a place.
fn at(doing: &str, offset: u64, error: std::io::Error) -> Error {
    Error::io(format!("{doing} at byte {offset}"), error)
}
