//! Where a backup's chunks go: into a pool that is here, or to one far away.

use crate::chunker::Chunker;
use crate::client_key::Sealing;
use crate::codec::Compressor;
use crate::error::Result;
use crate::ids::{Name, Ref};
use crate::pack::footer::{ChunkInfo, PackKind};
use crate::repository::Repository;
use crate::tree::ChunkSink;

/// The writing side of a pool, for the length of one verb. Shared by its threads.
pub trait Sink: ChunkSink {
    /// What was stored before.
    fn repository(&self) -> &dyn Repository;

    fn chunker(&self) -> &Chunker;

    /// With what data is sealed before it is named, where it is.
    fn sealing(&self) -> Option<&Sealing> {
        None
    }

    /// Plain bytes of chunks that are compressed together.
    fn block_bytes(&self) -> u32;

    /// `Err` once the verb was cancelled or something that stores failed.
    fn check(&self) -> Result<()>;

    /// Whether the caller is the one to hand the chunk on, as far as is known. Of several threads
    /// that ask for one name at once, one is told so.
    fn claim(&self, name: &Name) -> bool;

    /// Whether the pool holds all of these in packs that no mark names.
    fn holds(&self, references: &mut dyn Iterator<Item = Ref>) -> Result<bool>;

    /// Whether references of an earlier image may be used again without a look at each chunk.
    fn may_reuse(&self) -> bool;

    fn compressor(&self) -> Result<Compressor>;

    /// Hands on a full block; may give its buffer back, for the next one.
    fn send(
        &self,
        kind: PackKind,
        plain: Vec<u8>,
        chunks: Vec<ChunkInfo>,
        compressor: &mut Compressor,
    ) -> Result<Option<Vec<u8>>>;
}
