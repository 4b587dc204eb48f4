//! Where a chunk ends: FastCDC (2020, Xia et al.) over a gear table that is the pool's secret,
//! so that chunk lengths tell nothing about known files to whoever has not the key.

use fastcdc::v2020::{Normalization, cut_gear, select_masks};

use crate::error::{Error, Result};
use crate::keys::PoolKeys;

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

/// Cuts data of one pool. Immutable; share it between threads.
pub struct Chunker {
    sizes: ChunkSizes,
    mask_s: u64,
    mask_l: u64,
    gear: Box<[u64; 256]>,
    gear_ls: Box<[u64; 256]>,
}

impl Chunker {
    pub fn new(keys: &PoolKeys, sizes: ChunkSizes) -> Self {
        let (mask_s, mask_l) = select_masks(sizes.avg as usize, Normalization::Level1);
        let gear = keys.gear();
        let mut gear_ls = gear.clone();
        gear_ls.iter_mut().for_each(|word| *word <<= 1);
        Chunker { sizes, mask_s, mask_l, gear, gear_ls }
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
        let (_, length) = cut_gear(
            data,
            self.sizes.min as usize,
            self.sizes.avg as usize,
            self.sizes.max as usize,
            self.mask_s,
            self.mask_l,
            self.mask_s << 1,
            self.mask_l << 1,
            self.gear.as_slice(),
            self.gear_ls.as_slice(),
        );
        length.clamp(1, data.len())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
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
        let chunker = Chunker::new(&PoolKeys::derive(&[1; 32]), SIZES);
        let mut data = noise(200_000, 1);
        let before = lengths(&chunker, &data);
        data.splice(100_000..100_000, *b"inserted");
        let after = lengths(&chunker, &data);
        let same_front = before.iter().zip(&after).take_while(|(a, b)| a == b).count();
        let same_back =
            before.iter().rev().zip(after.iter().rev()).take_while(|(a, b)| a == b).count();
        assert!(same_front + same_back + 8 >= before.len());
    }

    #[test]
    fn another_key_cuts_elsewhere() {
        let data = noise(100_000, 2);
        let a = lengths(&Chunker::new(&PoolKeys::derive(&[1; 32]), SIZES), &data);
        let b = lengths(&Chunker::new(&PoolKeys::derive(&[2; 32]), SIZES), &data);
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
            let chunker = Chunker::new(&PoolKeys::derive(&[9; 32]), SIZES);
            let found = lengths(&chunker, &noise(length, seed));
            prop_assert_eq!(found.iter().sum::<usize>(), length);
            for (at, chunk) in found.iter().enumerate() {
                prop_assert!(*chunk <= 4096);
                prop_assert!(*chunk >= 256 || at + 1 == found.len());
            }
        }
    }
}
