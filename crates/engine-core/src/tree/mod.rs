//! Trees: what an image says about each file and directory. See `docs/formats/tree.md`.
//!
//! Trees are made of chunks and know nothing of packs: they are written through a [`ChunkSink`]
//! and read through a [`ChunkSource`].

pub mod build;
pub mod changes;
pub mod codec;
pub mod entry;
pub mod extents;
pub mod layout;
pub mod lists;
#[cfg(any(test, feature = "testing"))]
pub mod memory;
pub mod walk;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::error::Result;
use crate::ids::{Kind, Ref};
use crate::pool::ChunkBytes;
use crate::tree::walk::LoadedObject;

/// Where chunks go: a writing session of the pool. Called from many threads.
pub trait ChunkSink: Send + Sync {
    /// Stores the bytes unless the pool has them. At most 16 MiB - 1.
    fn store(&self, kind: Kind, plain: &[u8]) -> Result<Ref>;
}

/// Where chunks come from. Called from many threads.
pub trait ChunkSource: Send + Sync {
    /// The chunk's plain bytes, checked against its name and length.
    fn fetch(&self, kind: Kind, reference: &Ref) -> Result<Vec<u8>>;

    /// The same without a copy, where the source has the bytes anyway.
    fn shared(&self, kind: Kind, reference: &Ref) -> Result<ChunkBytes> {
        let bytes = self.fetch(kind, reference)?;
        let length = bytes.len();
        Ok(ChunkBytes::new(Arc::new(bytes), 0..length))
    }

    /// Is told what is wanted next, so that it may bring it nearer with few reads.
    fn ahead(&self, _kind: Kind, _references: &[Ref]) {}

    /// A part of a directory. A source that is asked for the same ones again and again may keep
    /// them.
    fn tree(&self, reference: &Ref) -> Result<Arc<LoadedObject>> {
        let bytes = self.fetch(Kind::Tree, reference)?;
        Ok(Arc::new(LoadedObject::parse(reference, bytes)?))
    }
}
