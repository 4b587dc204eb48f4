//! A pack's footer: which blocks lie where, and which chunks they hold.

use crate::codec::Codec;
use crate::error::{Error, Result};
use crate::ids::{Kind, Name};
use crate::keys::TAG_LEN;

use super::{HEADER_LEN, MAX_BLOCK_LEN, MAX_BLOCKS, MAX_CHUNKS_IN_BLOCK};

/// What the pack was filled with; neighbours of one kind come together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum PackKind {
    Data = 0,
    Metadata = 1,
}

impl PackKind {
    pub fn from_u8(value: u8) -> Option<Self> {
        match value {
            0 => Some(PackKind::Data),
            1 => Some(PackKind::Metadata),
            _ => None,
        }
    }

    /// Where a chunk of this kind goes.
    pub fn of(kind: Kind) -> Self {
        match kind {
            Kind::Data => PackKind::Data,
            Kind::Tree | Kind::List => PackKind::Metadata,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockInfo {
    /// From the start of the pack.
    pub offset: u64,
    pub sealed_len: u32,
    pub plain_len: u32,
    pub chunk_count: u32,
    pub codec: Codec,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkInfo {
    pub name: Name,
    pub length: u32,
    pub kind: Kind,
}

/// The footer of one pack, checked to be sound in itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Footer {
    pub kind: PackKind,
    blocks: Vec<BlockInfo>,
    chunks: Vec<ChunkInfo>,
    /// For each block the index of its first chunk.
    first_chunk: Vec<u32>,
}

const HEAD_LEN: usize = 16;
const BLOCK_LEN: usize = 24;
const CHUNK_LEN: usize = 40;

impl Footer {
    /// `chunks` in block order; block `n` takes the next `chunk_count` of them.
    pub fn new(kind: PackKind, blocks: Vec<BlockInfo>, chunks: Vec<ChunkInfo>) -> Result<Self> {
        let unsound = |reason: String| Err(Error::integrity("pack footer", reason));
        if blocks.len() > MAX_BLOCKS {
            return unsound(format!("{} blocks, at most {MAX_BLOCKS}", blocks.len()));
        }
        let mut first_chunk = Vec::with_capacity(blocks.len());
        let mut next = 0_usize;
        let mut end = HEADER_LEN as u64;
        for (number, block) in blocks.iter().enumerate() {
            let count = block.chunk_count as usize;
            let Some(held) = chunks.get(next..next + count) else {
                return unsound(format!("block {number} claims chunks that are not listed"));
            };
            if held.iter().any(|chunk| chunk.length == 0) {
                return unsound(format!("block {number} lists an empty chunk"));
            }
            let plain: u64 = held.iter().map(|chunk| u64::from(chunk.length)).sum();
            if plain != u64::from(block.plain_len)
                || block.plain_len as usize > MAX_BLOCK_LEN
                || count > MAX_CHUNKS_IN_BLOCK
                || (block.sealed_len as usize) < TAG_LEN
                || block.offset != end
            {
                return unsound(format!("block {number} contradicts its chunks or its place"));
            }
            if block.codec == Codec::Stored
                && block.sealed_len as usize != block.plain_len as usize + TAG_LEN
            {
                return unsound(format!(
                    "stored block {number} has another length than its chunks"
                ));
            }
            end += u64::from(block.sealed_len);
            first_chunk.push(u32::try_from(next).unwrap_or(u32::MAX));
            next += count;
        }
        if next != chunks.len() {
            return unsound(format!("{} chunks belong to no block", chunks.len() - next));
        }
        Ok(Footer { kind, blocks, chunks, first_chunk })
    }

    pub fn blocks(&self) -> &[BlockInfo] {
        &self.blocks
    }

    pub fn chunks(&self) -> &[ChunkInfo] {
        &self.chunks
    }

    /// Where the blocks end and the sealed footer begins.
    pub fn blocks_end(&self) -> u64 {
        self.blocks
            .last()
            .map_or(HEADER_LEN as u64, |block| block.offset + u64::from(block.sealed_len))
    }

    /// The chunks of a block, each with its offset in the block's plain bytes.
    pub fn chunks_of(&self, block: usize) -> impl Iterator<Item = (u32, &ChunkInfo)> {
        let range = match (self.first_chunk.get(block), self.blocks.get(block)) {
            (Some(&first), Some(info)) => {
                first as usize..first as usize + info.chunk_count as usize
            }
            _ => 0..0,
        };
        let mut offset = 0;
        self.chunks[range].iter().map(move |chunk| {
            let at = offset;
            offset += chunk.length;
            (at, chunk)
        })
    }

    /// The chunk that begins at `offset` in the plain bytes of `block`.
    pub fn chunk_at(&self, block: usize, offset: u32) -> Option<&ChunkInfo> {
        self.chunks_of(block).find(|(at, _)| *at == offset).map(|(_, chunk)| chunk)
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(
            HEAD_LEN + self.blocks.len() * BLOCK_LEN + self.chunks.len() * CHUNK_LEN,
        );
        bytes.extend_from_slice(&[self.kind as u8, 0, 0, 0, 0, 0, 0, 0]);
        bytes.extend_from_slice(&(self.blocks.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&(self.chunks.len() as u32).to_le_bytes());
        for block in &self.blocks {
            bytes.extend_from_slice(&block.offset.to_le_bytes());
            bytes.extend_from_slice(&block.sealed_len.to_le_bytes());
            bytes.extend_from_slice(&block.plain_len.to_le_bytes());
            bytes.extend_from_slice(&block.chunk_count.to_le_bytes());
            bytes.extend_from_slice(&[block.codec as u8, 0, 0, 0]);
        }
        for chunk in &self.chunks {
            bytes.extend_from_slice(&chunk.name.0);
            bytes.extend_from_slice(&chunk.length.to_le_bytes());
            bytes.extend_from_slice(&[chunk.kind as u8, 0, 0, 0]);
        }
        bytes
    }

    /// Reads a footer's plain bytes. Anything that is not exactly a footer is refused.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let unsound = |reason: &str| Error::integrity("pack footer", reason);
        let (head, rest) =
            bytes.split_at_checked(HEAD_LEN).ok_or_else(|| unsound("shorter than its own head"))?;
        let kind = PackKind::from_u8(head[0])
            .filter(|_| head[1..8] == [0; 7])
            .ok_or_else(|| unsound("unknown kind of pack"))?;
        let block_count = u32_at(head, 8) as usize;
        let chunk_count = u32_at(head, 12) as usize;
        let wanted = block_count
            .checked_mul(BLOCK_LEN)
            .and_then(|blocks| blocks.checked_add(chunk_count.checked_mul(CHUNK_LEN)?));
        if wanted != Some(rest.len()) {
            return Err(unsound("its length is not that of its tables"));
        }
        let (block_table, chunk_table) = rest.split_at(block_count * BLOCK_LEN);
        let blocks = block_table
            .chunks_exact(BLOCK_LEN)
            .map(|row| {
                Some(BlockInfo {
                    offset: u64::from(u32_at(row, 0)) | u64::from(u32_at(row, 4)) << 32,
                    sealed_len: u32_at(row, 8),
                    plain_len: u32_at(row, 12),
                    chunk_count: u32_at(row, 16),
                    codec: Codec::from_u8(row[20]).filter(|_| row[21..24] == [0; 3])?,
                })
            })
            .collect::<Option<Vec<_>>>()
            .ok_or_else(|| unsound("unknown codec"))?;
        let chunks = chunk_table
            .chunks_exact(CHUNK_LEN)
            .map(|row| {
                let mut name = [0; 32];
                name.copy_from_slice(&row[..32]);
                Some(ChunkInfo {
                    name: Name(name),
                    length: u32_at(row, 32),
                    kind: Kind::from_u8(row[36]).filter(|_| row[37..40] == [0; 3])?,
                })
            })
            .collect::<Option<Vec<_>>>()
            .ok_or_else(|| unsound("unknown kind of chunk"))?;
        Footer::new(kind, blocks, chunks)
    }
}

/// Callers have checked that the four bytes are there.
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
