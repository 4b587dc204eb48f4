//! The filter in front of each index segment: Parquet's split-block Bloom filter.
//!
//! Names are keyed hashes, so their first 8 bytes are the hash. They are read big-endian: the
//! upper half picks the block, so records in sorted order touch the blocks in order, and a
//! filter of any size is written as a stream. Never says "no" for a record that was inserted.
//!
//! Source: Parquet format, BloomFilter.md (blocks of eight 32-bit words, one bit in each).

use crate::error::{Error, Result};
use crate::ids::Prefix;

/// Bytes of a block.
pub const BLOCK: usize = 32;
/// Bits of filter for each record; about 1.2 % of absent names pass.
pub const BITS_PER_RECORD: u64 = 10;

const SALTS: [u32; 8] = [
    0x47b6_137b,
    0x4497_4d91,
    0x8824_ad5b,
    0xa2b7_289d,
    0x7054_95c7,
    0x2df1_424b,
    0x9efc_4947,
    0x5c6b_fb31,
];

/// Blocks that a segment of this many records has.
pub fn blocks_for(records: u64) -> Result<u32> {
    let bits = records.checked_mul(BITS_PER_RECORD);
    bits.and_then(|bits| u32::try_from(bits.div_ceil(8 * BLOCK as u64)).ok())
        .ok_or_else(|| Error::Invalid(format!("{records} records are too many for one segment")))
}

/// What the filter sees of a name.
pub fn hash(prefix: &Prefix) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = *prefix;
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

/// The block of `hash` in a filter of `blocks` blocks; less than `blocks` unless that is 0.
pub fn block_of(hash: u64, blocks: u32) -> u32 {
    (((hash >> 32) * u64::from(blocks)) >> 32) as u32
}

/// Sets the eight bits of `hash` in its block.
pub fn insert(block: &mut [u8; BLOCK], hash: u64) {
    for (word, salt) in block.chunks_exact_mut(4).zip(SALTS) {
        let bit = bit_of(hash, salt);
        word[(bit / 8) as usize] |= 1 << (bit % 8);
    }
}

/// False only when no record of this hash was inserted. An empty filter tells nothing.
pub fn may_contain(filter: &[u8], hash: u64) -> bool {
    let blocks = u32::try_from(filter.len() / BLOCK).unwrap_or(u32::MAX);
    let from = block_of(hash, blocks) as usize * BLOCK;
    let Some(block) = filter.get(from..from + BLOCK) else {
        return true;
    };
    let mut missing = 0;
    for (word, salt) in block.chunks_exact(4).zip(SALTS) {
        let word = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
        missing |= !word & (1 << bit_of(hash, salt));
    }
    missing == 0
}

/// Which of a word's 32 bits (little endian: bit `n` is in byte `n / 8`).
fn bit_of(hash: u64, salt: u32) -> u32 {
    (hash as u32).wrapping_mul(salt) >> 27
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn prefix(number: u64) -> Prefix {
        let mut prefix = [0; 16];
        prefix.copy_from_slice(&blake3::hash(&number.to_le_bytes()).as_bytes()[..16]);
        prefix
    }

    #[test]
    fn what_was_inserted_passes_and_little_else_does() {
        let records = 20_000;
        let blocks = blocks_for(records).unwrap();
        let mut filter = vec![0; blocks as usize * BLOCK];
        for number in 0..records {
            let hash = hash(&prefix(number));
            let from = block_of(hash, blocks) as usize * BLOCK;
            insert((&mut filter[from..from + BLOCK]).try_into().unwrap(), hash);
        }
        assert!((0..records).all(|number| may_contain(&filter, hash(&prefix(number)))));
        let wrong = (records..2 * records)
            .filter(|number| may_contain(&filter, hash(&prefix(*number))))
            .count();
        assert!(wrong < 600, "{wrong} of {records} absent names passed");
    }

    #[test]
    fn an_empty_filter_lets_all_pass() {
        assert!(may_contain(&[], 7));
    }
}
