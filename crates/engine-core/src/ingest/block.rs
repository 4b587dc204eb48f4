//! Gathers new chunks until they fill a block.

use crate::ids::{Kind, Name};
use crate::pack::MAX_CHUNKS_IN_BLOCK;
use crate::pack::footer::ChunkInfo;

/// Chunks laid end to end. A chunk larger than the limit gets a block of its own.
pub struct BlockBuilder {
    plain: Vec<u8>,
    chunks: Vec<ChunkInfo>,
    limit: usize,
}

impl BlockBuilder {
    pub fn new(limit_bytes: u32) -> Self {
        BlockBuilder { plain: Vec::new(), chunks: Vec::new(), limit: limit_bytes as usize }
    }

    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Whether another chunk of this length still belongs in; if not, [`BlockBuilder::take`]
    /// what is there first.
    pub fn fits(&self, length: usize) -> bool {
        self.is_empty()
            || (self.plain.len() + length <= self.limit && self.chunks.len() < MAX_CHUNKS_IN_BLOCK)
    }

    /// Appends a chunk; its bytes are not empty.
    pub fn push(&mut self, name: Name, kind: Kind, plain: &[u8]) {
        if self.plain.capacity() == 0 {
            self.plain.reserve_exact(self.limit.max(plain.len()));
        }
        self.plain.extend_from_slice(plain);
        self.chunks.push(ChunkInfo { name, length: plain.len() as u32, kind });
    }

    /// What was gathered; the builder begins anew.
    pub fn take(&mut self) -> (Vec<u8>, Vec<ChunkInfo>) {
        (std::mem::take(&mut self.plain), std::mem::take(&mut self.chunks))
    }

    /// Gives a block's buffer back for the next one.
    pub fn reuse(&mut self, mut plain: Vec<u8>) {
        if self.plain.capacity() == 0 {
            plain.clear();
            self.plain = plain;
        }
    }
}
