//! What a backup compares with and a restore reads from: a pool that is here, or one far away.

use crate::counters::Counters;
use crate::error::Result;
use crate::ids::{Kind, Name, PackId, Ref};
use crate::keys::NameKeys;
use crate::pool::ChunkBytes;
use crate::tree::ChunkSource;

/// Where a chunk is stored: pack, block, offset. Files are restored in this order.
pub type StoredAt = (PackId, u16, u32);

/// The reading side of a pool. Called from many threads.
pub trait Repository: ChunkSource {
    /// What chunks are named with.
    fn naming(&self) -> &NameKeys;

    /// The chunk's plain bytes, checked against its whole name and its length.
    fn chunk(&self, kind: Kind, reference: &Ref, counters: &Counters) -> Result<ChunkBytes>;

    /// Brings chunks nearer that are wanted next, with few reads. A problem is left for
    /// [`Repository::chunk`] to tell, with the chunk that it concerns.
    fn prefetch(&self, kind: Kind, references: &[Ref], counters: &Counters);

    /// For a pool that is far: of how many plain bytes it is good to ask for chunks at a time.
    fn stretch_bytes(&self) -> Option<u64>;

    /// Where the chunk is stored, if that is known here.
    fn stored_at(&self, name: &Name) -> Option<StoredAt>;
}
