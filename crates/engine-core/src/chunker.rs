//! Where a chunk ends: FastCDC (2020, Xia et al.) over a gear table that is the pool's secret,
//! so that chunk lengths tell nothing about known files to whoever has not the key.

use fastcdc::v2020::{Normalization, select_masks};

use crate::error::{Error, Result};
use crate::keys::NameKeys;

/// Smallest, average and largest chunk in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkSizes {
    pub min: u32,
    pub avg: u32,
    pub max: u32,
}

impl ChunkSizes {
    /// The lengths that a pool may ask for; [`Error::Invalid`] names the one that is out.
    pub fn check(self) -> Result<Self> {
        let sound = self.min >= 64
            && self.avg.is_power_of_two()
            && (256..=4 << 20).contains(&self.avg)
            && self.min <= self.avg
            && self.avg < self.max
            && self.max <= 8 << 20
            // The cut looks at bytes in pairs.
            && self.min.is_multiple_of(2)
            && self.max.is_multiple_of(2);
        if sound {
            Ok(self)
        } else {
            Err(Error::Invalid(format!(
                "chunk sizes {} / {} / {} bytes: want 64 <= min <= avg < max <= 8 MiB, all \
                 even, avg a power of two from 256 bytes to 4 MiB",
                self.min, self.avg, self.max
            )))
        }
    }
}

/// The hash at a byte is made of that byte and the 63 before it: older ones are shifted out.
const REACH: usize = 64;
/// Bytes that one lane looks through at a time. A processor works on four lanes at once, since
/// none waits for another's hash.
const STRETCH: usize = 1024;
const LANES: usize = 4;

/// Cuts data of one pool. Immutable; share it between threads.
pub struct Chunker {
    sizes: ChunkSizes,
    mask_s: u64,
    mask_l: u64,
    gear: Box<[u64; 256]>,
}

impl Chunker {
    pub fn new(keys: &NameKeys, sizes: ChunkSizes) -> Self {
        let (mask_s, mask_l) = select_masks(sizes.avg as usize, Normalization::Level1);
        Chunker { sizes, mask_s, mask_l, gear: keys.gear() }
    }

    pub fn max(&self) -> usize {
        self.sizes.max as usize
    }

    pub fn min(&self) -> usize {
        self.sizes.min as usize
    }

    /// Length of the chunk at the front of `data`. The answer holds if `data` reaches to the end
    /// of what is to be cut, or is at least [`Chunker::max`] long.
    pub fn cut(&self, data: &[u8]) -> usize {
        if data.len() <= self.min() {
            return data.len();
        }
        let data = data.get(..self.max()).unwrap_or(data);
        let end = data.len() & !1;
        let strict = end.min(self.sizes.avg as usize & !1);
        let first = self.find(data, self.min(), strict, self.mask_s);
        first.or_else(|| self.find(data, strict, end, self.mask_l)).unwrap_or(data.len())
    }

    /// The first place of `data` from `from` to `to` whose hash has none of the mask's bits.
    fn find(&self, data: &[u8], mut from: usize, to: usize, mask: u64) -> Option<usize> {
        while from + LANES * STRETCH <= to {
            let lanes: [&[u8]; LANES] =
                std::array::from_fn(|lane| lane_of(data, from + lane * STRETCH));
            let mut hashes: [u64; LANES] =
                std::array::from_fn(|lane| self.hash_before(data, from + lane * STRETCH));
            if let Some(at) = self.first_of_any(lanes, &mut hashes, mask) {
                // One of the lanes: whatever is found in an earlier one comes before it.
                return self.find_one(data, from + at, to, mask);
            }
            from += LANES * STRETCH;
        }
        self.find_one(data, from, to, mask)
    }

    /// The first step at which any of the lanes finds something; what lies before it, in each of
    /// them, is nothing.
    fn first_of_any(
        &self,
        lanes: [&[u8]; LANES],
        hashes: &mut [u64; LANES],
        mask: u64,
    ) -> Option<usize> {
        let [a, b, c, d] = lanes;
        let [mut h, mut i, mut j, mut k] = *hashes;
        for (at, (((a, b), c), d)) in a.iter().zip(b).zip(c).zip(d).enumerate() {
            h = self.step(h, *a);
            i = self.step(i, *b);
            j = self.step(j, *c);
            k = self.step(k, *d);
            if h & mask == 0 || i & mask == 0 || j & mask == 0 || k & mask == 0 {
                return Some(at);
            }
        }
        None
    }

    /// The same as [`Chunker::find`], one byte after the other.
    fn find_one(&self, data: &[u8], from: usize, to: usize, mask: u64) -> Option<usize> {
        let mut hash = self.hash_before(data, from);
        let found = data.get(from..to)?.iter().position(|byte| {
            hash = self.step(hash, *byte);
            hash & mask == 0
        });
        found.map(|at| from + at)
    }

    /// The hash that is there when `at` is looked at: hashing begins at the smallest length.
    fn hash_before(&self, data: &[u8], at: usize) -> u64 {
        let start = at.saturating_sub(REACH).max(self.min().min(at));
        let before = data.get(start..at).unwrap_or_default();
        before.iter().fold(0, |hash, byte| self.step(hash, *byte))
    }

    #[inline(always)]
    fn step(&self, hash: u64, byte: u8) -> u64 {
        (hash << 1).wrapping_add(self.gear[usize::from(byte)])
    }
}

fn lane_of(data: &[u8], from: usize) -> &[u8] {
    data.get(from..from + STRETCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::keys::PoolKeys;
    use proptest::prelude::*;

    const SIZES: ChunkSizes = ChunkSizes { min: 256, avg: 1024, max: 4096 };

    fn noise(length: usize, seed: u8) -> Vec<u8> {
        let mut data = vec![0; length];
        blake3::Hasher::new_keyed(&[seed; 32]).finalize_xof().fill(&mut data);
        data
    }

    fn lengths(chunker: &Chunker, mut data: &[u8]) -> Vec<usize> {
        let mut found = Vec::new();
        while !data.is_empty() {
            let length = chunker.cut(&data[..data.len().min(chunker.max())]);
            found.push(length);
            data = &data[length..];
        }
        found
    }

    #[test]
    fn a_change_moves_only_the_cuts_around_it() {
        let chunker = Chunker::new(PoolKeys::derive(&[1; 32]).naming(), SIZES);
        let mut data = noise(200_000, 1);
        let before = lengths(&chunker, &data);
        data.splice(100_000..100_000, *b"inserted");
        let after = lengths(&chunker, &data);
        let same_front = before.iter().zip(&after).take_while(|(a, b)| a == b).count();
        let same_back =
            before.iter().rev().zip(after.iter().rev()).take_while(|(a, b)| a == b).count();
        assert!(same_front + same_back + 8 >= before.len());
    }

    /// The published algorithm, a byte after the other.
    fn reference(chunker: &Chunker, data: &[u8]) -> usize {
        let sizes = chunker.sizes;
        if data.len() <= chunker.min() {
            return data.len();
        }
        let twice: Vec<u64> = chunker.gear.iter().map(|word| word << 1).collect();
        let (_, length) = fastcdc::v2020::cut_gear(
            data,
            sizes.min as usize,
            sizes.avg as usize,
            sizes.max as usize,
            chunker.mask_s,
            chunker.mask_l,
            chunker.mask_s << 1,
            chunker.mask_l << 1,
            chunker.gear.as_slice(),
            &twice,
        );
        length.clamp(1, data.len())
    }

    #[test]
    fn cuts_are_those_of_the_published_algorithm() {
        let default = ChunkSizes { min: 8 << 10, avg: 32 << 10, max: 128 << 10 };
        for (seed, sizes) in (0..).zip([default, default, default, SIZES, SIZES]) {
            let chunker = Chunker::new(PoolKeys::derive(&[seed; 32]).naming(), sizes);
            let mut data = noise(3_000_001, seed);
            // A stretch in which no border is ever found, and one that repeats.
            data[500_000..800_000].fill(7);
            data.copy_within(1_000_000..1_100_000, 2_000_000);
            let mut at = 0;
            while at < data.len() {
                let rest = &data[at..];
                let length = chunker.cut(rest);
                assert_eq!(length, reference(&chunker, rest), "at {at}");
                for shorter in [length / 2, length - 1, length + 1, length + 4097] {
                    let rest = &rest[..shorter.min(rest.len())];
                    assert_eq!(chunker.cut(rest), reference(&chunker, rest), "{shorter} at {at}");
                }
                at += length;
            }
        }
    }

    #[test]
    fn another_key_cuts_elsewhere() {
        let data = noise(100_000, 2);
        let a = lengths(&Chunker::new(PoolKeys::derive(&[1; 32]).naming(), SIZES), &data);
        let b = lengths(&Chunker::new(PoolKeys::derive(&[2; 32]).naming(), SIZES), &data);
        assert_ne!(a, b);
    }

    #[test]
    fn sizes_that_are_odd_or_out_of_order_are_refused() {
        SIZES.check().unwrap();
        for (min, avg, max) in [(255, 1024, 4096), (256, 1024, 4095), (256, 1000, 4096)] {
            assert!(ChunkSizes { min, avg, max }.check().is_err(), "{min} {avg} {max}");
        }
        assert!(ChunkSizes { min: 2048, ..SIZES }.check().is_err());
        assert!(ChunkSizes { max: 1024, ..SIZES }.check().is_err());
    }

    proptest! {
        #[test]
        fn chunks_keep_to_their_sizes_and_cover_all(length in 0usize..50_000, seed: u8) {
            let chunker = Chunker::new(PoolKeys::derive(&[9; 32]).naming(), SIZES);
            let found = lengths(&chunker, &noise(length, seed));
            prop_assert_eq!(found.iter().sum::<usize>(), length);
            for (at, chunk) in found.iter().enumerate() {
                prop_assert!(*chunk <= 4096);
                prop_assert!(*chunk >= 256 || at + 1 == found.len());
            }
        }
    }
}
