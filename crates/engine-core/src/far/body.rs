//! Bodies of blocks: how chunks travel. See `docs/formats/transfer.md`.
//!
//! Whoever reads one trusts nothing in it: lengths are checked against each other before memory is
//! taken, and every chunk has to have its name.

use crate::codec::{Codec, Decompressor, LEFT_LEVELS, STORE_LEVEL};
use crate::error::{Error, Result};
use crate::ids::{Kind, Name};
use crate::keys::NameKeys;
use crate::pack::footer::{ChunkInfo, PackKind};
use crate::pack::{MAX_BLOCK_LEN, MAX_CHUNKS_IN_BLOCK};

pub const MAGIC: [u8; 4] = *b"HFB1";
const HEAD_LEN: usize = 8;
const BLOCK_LEN: usize = 16;
const CHUNK_LEN: usize = 40;
/// In place of a codec: as it is, to be compressed by whoever stores it.
const LEFT: u8 = 2;
/// Room that is made for a body.
const ROOM_BYTES: usize = 9 << 20;
/// What all blocks of a body hold when decompressed, at most.
pub const MAX_PLAIN_BYTES: u64 = 256 << 20;

/// Lays blocks end to end.
pub struct Writer {
    bytes: Vec<u8>,
    blocks: u32,
    plain: u64,
}

impl Default for Writer {
    fn default() -> Self {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&[0; 4]);
        Writer { bytes, blocks: 0, plain: 0 }
    }
}

impl Writer {
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.blocks == 0
    }

    /// Whether another block of so many plain bytes still belongs in.
    pub fn fits(&self, plain_len: usize) -> bool {
        self.is_empty() || self.plain + plain_len as u64 <= MAX_PLAIN_BYTES
    }

    pub fn push(&mut self, kind: PackKind, codec: Codec, chunks: &[ChunkInfo], body: &[u8]) {
        self.lay([kind as u8, codec as u8, 0, 0], chunks, body);
    }

    /// Lays a block that whoever stores it is to compress, at a level of those that may be left.
    pub fn push_left(&mut self, kind: PackKind, level: i8, chunks: &[ChunkInfo], plain: &[u8]) {
        self.lay([kind as u8, LEFT, level.cast_unsigned(), 0], chunks, plain);
    }

    fn lay(&mut self, head: [u8; 4], chunks: &[ChunkInfo], body: &[u8]) {
        let plain: u32 = chunks.iter().map(|chunk| chunk.length).sum();
        if self.is_empty() {
            // Grown by doubling it would be copied several times.
            self.bytes.reserve(ROOM_BYTES.max(body.len()));
        }
        self.bytes.reserve(BLOCK_LEN + chunks.len() * CHUNK_LEN + body.len());
        self.bytes.extend_from_slice(&head);
        for number in [chunks.len() as u32, plain, body.len() as u32] {
            self.bytes.extend_from_slice(&number.to_le_bytes());
        }
        for chunk in chunks {
            self.bytes.extend_from_slice(&chunk.name.0);
            self.bytes.extend_from_slice(&chunk.length.to_le_bytes());
            self.bytes.extend_from_slice(&[chunk.kind as u8, 0, 0, 0]);
        }
        self.bytes.extend_from_slice(body);
        self.blocks += 1;
        self.plain += u64::from(plain);
    }

    /// The body; the writer begins anew.
    pub fn take(&mut self) -> Vec<u8> {
        let Writer { mut bytes, blocks, .. } = std::mem::take(self);
        bytes[4..HEAD_LEN].copy_from_slice(&blocks.to_le_bytes());
        bytes
    }
}

/// A block of a body: sound in itself, but not yet proven to be what it says.
#[derive(Debug, PartialEq, Eq)]
pub struct BlockView<'a> {
    pub kind: PackKind,
    pub codec: Codec,
    /// At which level whoever stores it is to compress it; `None`: it stays as it is.
    pub left: Option<i8>,
    pub plain_len: u32,
    pub chunks: Vec<ChunkInfo>,
    pub body: &'a [u8],
}

impl BlockView<'_> {
    /// The plain bytes, each chunk of which has its name.
    pub fn decode(&self, naming: &NameKeys, with: &mut Decompressor) -> Result<Vec<u8>> {
        let plain = with.decode(self.codec, self.body, self.plain_len as usize);
        let plain = plain
            .ok_or_else(|| Error::integrity("a block that came", "it can't be decompressed"))?;
        self.require_names(naming, &plain)?;
        Ok(plain)
    }

    /// Fails unless each chunk has its name.
    pub fn prove(&self, naming: &NameKeys, with: &mut Decompressor) -> Result<()> {
        match self.codec {
            // Its length was found right when it was read.
            Codec::Stored => self.require_names(naming, self.body),
            Codec::Zstd => self.decode(naming, with).map(drop),
        }
    }

    fn require_names(&self, naming: &NameKeys, plain: &[u8]) -> Result<()> {
        let mut from = 0;
        for chunk in &self.chunks {
            let upto = from + chunk.length as usize;
            if naming.name(chunk.kind, plain.get(from..upto).unwrap_or_default()) != chunk.name {
                return Err(Error::integrity(
                    format!("chunk {} that came", chunk.name),
                    "its bytes have another name",
                ));
            }
            from = upto;
        }
        Ok(())
    }
}

/// The blocks of a body. What is not exactly a body is refused.
pub fn parse(bytes: &[u8]) -> Result<Vec<BlockView<'_>>> {
    let (head, mut rest) =
        bytes.split_at_checked(HEAD_LEN).ok_or_else(|| malformed("it is too short"))?;
    if head[..4] != MAGIC {
        return Err(malformed("it does not begin as one"));
    }
    let count = u32_at(head, 4) as usize;
    if count > rest.len() / BLOCK_LEN {
        return Err(malformed("it has fewer blocks than it says"));
    }
    let mut blocks = Vec::with_capacity(count);
    let mut plain = 0;
    for _ in 0..count {
        let (block, after) = parse_block(rest)?;
        plain += u64::from(block.plain_len);
        if plain > MAX_PLAIN_BYTES {
            return Err(malformed("it holds more than 256 MiB"));
        }
        blocks.push(block);
        rest = after;
    }
    if rest.is_empty() { Ok(blocks) } else { Err(malformed("bytes follow its blocks")) }
}

fn parse_block(bytes: &[u8]) -> Result<(BlockView<'_>, &[u8])> {
    let short = || malformed("a block is cut short");
    let (head, rest) = bytes.split_at_checked(BLOCK_LEN).ok_or_else(short)?;
    let kind = PackKind::from_u8(head[0]).ok_or_else(|| malformed("a block is of no kind"))?;
    let level = head[2].cast_signed();
    let (codec, left) = if head[1] == LEFT {
        (Codec::Stored, Some(level).filter(|_| may_be_left(i32::from(level))))
    } else {
        (Codec::from_u8(head[1]).ok_or_else(|| malformed("a block has no codec"))?, None)
    };
    if head[3] != 0 || (left.is_none() && head[1..3] != [codec as u8, 0]) {
        return Err(malformed("a block's head has something where nothing is"));
    }
    let (count, plain_len, body_len) =
        (u32_at(head, 4) as usize, u32_at(head, 8), u32_at(head, 12) as usize);
    if count == 0 || count > MAX_CHUNKS_IN_BLOCK || plain_len as usize > MAX_BLOCK_LEN {
        return Err(malformed("a block is too large, or empty"));
    }
    let may_be = match codec {
        Codec::Stored => body_len == plain_len as usize,
        Codec::Zstd => body_len < plain_len as usize,
    };
    if !may_be {
        return Err(malformed("a block's body is longer than what it holds"));
    }
    let (table, rest) = rest.split_at_checked(count * CHUNK_LEN).ok_or_else(short)?;
    let (body, after) = rest.split_at_checked(body_len).ok_or_else(short)?;
    let mut chunks = Vec::with_capacity(count);
    let mut plain = 0_u64;
    for row in table.chunks_exact(CHUNK_LEN) {
        let mut name = [0; 32];
        name.copy_from_slice(&row[..32]);
        let of = Kind::from_u8(row[36]).filter(|_| row[37..40] == [0; 3]);
        let of = of.filter(|of| PackKind::of(*of) == kind);
        let of = of.ok_or_else(|| malformed("a chunk is of a kind that its block is not of"))?;
        let length = u32_at(row, 32);
        if length == 0 {
            return Err(malformed("a chunk is empty"));
        }
        plain += u64::from(length);
        chunks.push(ChunkInfo { name: Name(name), length, kind: of });
    }
    if plain != u64::from(plain_len) {
        return Err(malformed("a block is not as long as its chunks"));
    }
    Ok((BlockView { kind, codec, left, plain_len, chunks, body }, after))
}

/// Whether blocks may be left to be compressed at this level.
pub fn may_be_left(level: i32) -> bool {
    level != STORE_LEVEL && LEFT_LEVELS.contains(&level)
}

fn malformed(reason: &str) -> Error {
    Error::Invalid(format!("this is no body of blocks: {reason}"))
}

/// Callers have checked that the four bytes are there.
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::codec::Compressor;
    use crate::keys::PoolKeys;

    fn body(level: i32) -> (NameKeys, Vec<u8>, Vec<u8>) {
        let naming = PoolKeys::derive(&[1; 32]).naming().clone();
        let plain = b"again and again and again and again and ".repeat(50);
        let (first, second) = plain.split_at(700);
        let info = |bytes: &[u8]| ChunkInfo {
            name: naming.name(Kind::Data, bytes),
            length: bytes.len() as u32,
            kind: Kind::Data,
        };
        let mut encoded = Vec::new();
        let codec = Compressor::new(level).unwrap().encode(&plain, &mut encoded).unwrap();
        let mut writer = Writer::default();
        assert!(writer.is_empty());
        writer.push(PackKind::Data, codec, &[info(first), info(second)], &encoded);
        let bytes = writer.take();
        assert!(writer.is_empty());
        (naming, plain, bytes)
    }

    #[test]
    fn what_was_written_is_read() {
        for level in [0, 3] {
            let (naming, plain, bytes) = body(level);
            let blocks = parse(&bytes).unwrap();
            assert_eq!(blocks.len(), 1);
            let mut decompressor = Decompressor::new().unwrap();
            assert_eq!(blocks[0].decode(&naming, &mut decompressor).unwrap(), plain);
        }
    }

    fn left_body(level: i8) -> Vec<u8> {
        let naming = PoolKeys::derive(&[1; 32]).naming().clone();
        let plain = b"left as it is, and left as it is";
        let name = naming.name(Kind::Data, plain);
        let chunk = ChunkInfo { name, length: plain.len() as u32, kind: Kind::Data };
        let mut writer = Writer::default();
        writer.push_left(PackKind::Data, level, &[chunk], plain);
        writer.take()
    }

    #[test]
    fn a_block_that_is_left_says_at_which_level_it_is_to_be_compressed() {
        for level in i8::MIN..=i8::MAX {
            let bytes = left_body(level);
            let read = parse(&bytes);
            if may_be_left(i32::from(level)) {
                let blocks = read.unwrap();
                assert_eq!((blocks[0].codec, blocks[0].left), (Codec::Stored, Some(level)));
            } else {
                assert_eq!(read.unwrap_err().code(), "invalid", "{level}");
            }
        }
        let mut bytes = left_body(2);
        bytes[HEAD_LEN + 3] = 1;
        assert_eq!(parse(&bytes).unwrap_err().code(), "invalid");
    }

    #[test]
    fn no_other_content_passes_for_a_chunk() {
        for level in [0, 3] {
            let (naming, plain, bytes) = body(level);
            let mut decompressor = Decompressor::new().unwrap();
            for at in 0..bytes.len() {
                let mut bad = bytes.clone();
                bad[at] ^= 1;
                let read = parse(&bad).and_then(|blocks| {
                    blocks.iter().map(|block| block.decode(&naming, &mut decompressor)).collect()
                });
                // A zstd frame has bits that change nothing of what it holds.
                let read: Result<Vec<Vec<u8>>> = read;
                assert!(read.is_err() || read.unwrap() == std::slice::from_ref(&plain), "{at}");
            }
        }
    }

    #[test]
    fn a_body_that_is_cut_or_goes_on_is_refused() {
        let (_, _, bytes) = body(3);
        for upto in 0..bytes.len() {
            assert_eq!(parse(&bytes[..upto]).unwrap_err().code(), "invalid");
        }
        let longer = [bytes.as_slice(), b"x"].concat();
        assert_eq!(parse(&longer).unwrap_err().code(), "invalid");
    }

    #[test]
    fn a_body_of_many_small_blocks_that_hold_much_is_refused_before_any_is_opened() {
        let chunk = ChunkInfo { name: Name([1; 32]), length: 8 << 20, kind: Kind::Data };
        let mut writer = Writer::default();
        for _ in 0..=32 {
            writer.push(PackKind::Data, Codec::Zstd, &[chunk], b"little");
        }
        assert!(!writer.fits(1));
        let error = parse(&writer.take()).unwrap_err();
        assert!(error.to_string().contains("256 MiB"), "{error}");
    }
}
