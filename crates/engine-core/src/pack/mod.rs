//! Packs: what a pool stores on disk, in object storage and on tape. See `docs/formats/pack.md`.

pub mod footer;
pub mod reader;
pub mod writer;

/// The front of every pack: magic and format version.
pub const MAGIC: [u8; 8] = *b"HFPACK\0\x01";
/// The end of every pack.
pub const END_MAGIC: [u8; 8] = *b"HFPKEND\x01";
/// Magic and salt.
pub const HEADER_LEN: usize = 40;
/// Length of the sealed footer, four zero bytes, magic.
pub const TRAILER_LEN: usize = 16;
/// The nonce place of a footer; blocks count from 0 and never reach it.
pub const FOOTER_PLACE: u32 = u32::MAX;
/// A place in the index has 16 bits for the block.
pub const MAX_BLOCKS: usize = 1 << 16;
pub const MAX_CHUNKS_IN_BLOCK: usize = 16_384;
/// A place in the index has 24 bits for the offset in a block and for a chunk's length.
pub const MAX_BLOCK_LEN: usize = (1 << 24) - 1;
/// No footer is larger: 2^24 chunks.
pub const MAX_FOOTER_LEN: usize = 1 << 30;
