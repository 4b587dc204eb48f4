//! Where a sparse file holds data: pairs of LEB128 numbers, the gap since the end of the extent
//! before and the extent's length.
//!
//! Extents are in order, none is empty, and none touches the next (only the first may have a gap
//! of 0), so that one file has one spelling.

use crate::cbor::{Malformed, Parsed};
use crate::error::{Error, Result};
use crate::tree::entry::Extent;

/// The most extents of a file. [`simplify`] brings a list below it.
pub const MAX_EXTENTS: usize = 1 << 18;

/// Merges the extents with the smallest holes between them until at most `limit` are left, and
/// such as touch or overlap; drops empty ones. What was a hole then counts as data (zeros). To be
/// called before a file is read, as the content covers exactly the extents.
pub fn simplify(extents: &mut Vec<Extent>, limit: usize) {
    let limit = limit.max(1);
    extents.retain(|extent| extent.length > 0);
    extents.sort_unstable_by_key(|extent| extent.offset);
    merge_below(extents, 1);
    if extents.len() <= limit {
        return;
    }
    let mut gaps: Vec<u64> =
        extents.windows(2).map(|pair| pair[1].offset - end(&pair[0])).collect();
    // The gaps that stay are the largest `limit - 1`; equal ones may fall together.
    let merged = gaps.len() - (limit - 1);
    let (_, largest_merged, _) = gaps.select_nth_unstable(merged - 1);
    let keep_from = largest_merged.saturating_add(1);
    merge_below(extents, keep_from);
}

fn end(extent: &Extent) -> u64 {
    extent.offset.saturating_add(extent.length)
}

fn merge_below(extents: &mut Vec<Extent>, smallest_gap: u64) {
    extents.dedup_by(|next, kept| {
        let near = next.offset.saturating_sub(end(kept)) < smallest_gap;
        if near {
            kept.length = end(next).max(end(kept)) - kept.offset;
        }
        near
    });
}

/// Bytes of data in all.
pub fn data_bytes(extents: &[Extent]) -> u64 {
    extents.iter().fold(0, |sum, extent| sum.saturating_add(extent.length))
}

/// Appends the stored form. Refuses extents out of order, touching, empty, or beyond `size`.
pub(super) fn encode(extents: &[Extent], size: u64, out: &mut Vec<u8>) -> Result<()> {
    if extents.len() > MAX_EXTENTS {
        return Err(Error::Invalid(format!(
            "{} extents in a file; at most {MAX_EXTENTS} can be stored",
            extents.len()
        )));
    }
    let mut at = 0;
    for (index, extent) in extents.iter().enumerate() {
        let gap = extent.offset.checked_sub(at).filter(|gap| *gap > 0 || index == 0);
        let next = extent.offset.checked_add(extent.length).filter(|next| *next <= size);
        let (Some(gap), Some(next), 1..) = (gap, next, extent.length) else {
            return Err(Error::Invalid(format!(
                "extents of a file of {size} bytes are out of order or beyond its end"
            )));
        };
        write_number(gap, out);
        write_number(extent.length, out);
        at = next;
    }
    Ok(())
}

/// The extents of a file of `size` bytes.
pub fn decode(bytes: &[u8], size: u64) -> Parsed<Vec<Extent>> {
    // Each extent takes two bytes at least.
    let mut extents = Vec::with_capacity((bytes.len() / 2).min(MAX_EXTENTS));
    let mut read = Numbers { bytes, at: 0 };
    let mut position = 0_u64;
    while read.at < bytes.len() {
        let at = read.at;
        let refuse = |reason| Err(Malformed { at, reason });
        let gap = read.next()?;
        let length = read.next()?;
        if extents.len() == MAX_EXTENTS {
            return refuse("more extents than a file may have");
        }
        if length == 0 || (gap == 0 && !extents.is_empty()) {
            return refuse("an empty extent or hole");
        }
        let Some(offset) = position.checked_add(gap) else {
            return refuse("an extent beyond the end of the file");
        };
        match offset.checked_add(length) {
            Some(end) if end <= size => position = end,
            _ => return refuse("an extent beyond the end of the file"),
        }
        extents.push(Extent { offset, length });
    }
    Ok(extents)
}

/// Appends lengths of which none is 0, each as one number.
pub(super) fn encode_lengths(lengths: &[u64], out: &mut Vec<u8>) -> Result<()> {
    if lengths.len() > MAX_EXTENTS || lengths.contains(&0) {
        return Err(Error::Invalid(format!("{} lists of a file cannot be told", lengths.len())));
    }
    lengths.iter().for_each(|length| write_number(*length, out));
    Ok(())
}

/// What [`Entry::lists`](crate::tree::entry::Entry::lists) is made of.
pub fn decode_lengths(bytes: &[u8]) -> Parsed<Vec<u64>> {
    let mut lengths = Vec::new();
    let mut read = Numbers { bytes, at: 0 };
    while read.at < bytes.len() {
        let at = read.at;
        let length = read.next()?;
        if length == 0 || lengths.len() == MAX_EXTENTS {
            return Err(Malformed { at, reason: "an empty list, or more than a file may tell of" });
        }
        lengths.push(length);
    }
    Ok(lengths)
}

/// All of them together; `None` above 64 bits.
pub(super) fn sum(lengths: &[u64]) -> Option<u64> {
    lengths.iter().try_fold(0_u64, |sum, length| sum.checked_add(*length))
}

fn write_number(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

struct Numbers<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Numbers<'_> {
    fn next(&mut self) -> Parsed<u64> {
        let start = self.at;
        let refuse = |reason| Err(Malformed { at: start, reason });
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let Some(&byte) = self.bytes.get(self.at) else {
                return refuse("the bytes end too early");
            };
            self.at += 1;
            let part = u64::from(byte & 0x7f);
            if part << shift >> shift != part {
                return refuse("a number out of range");
            }
            value |= part << shift;
            if byte & 0x80 == 0 {
                return if byte == 0 && shift > 0 {
                    refuse("a number longer than needed")
                } else {
                    Ok(value)
                };
            }
        }
        refuse("a number out of range")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn extent(offset: u64, length: u64) -> Extent {
        Extent { offset, length }
    }

    #[test]
    fn extents_have_one_spelling() {
        let refused: [&[u8]; 7] = [
            &[0],                                                   // no length
            &[0, 0],                                                // empty
            &[0, 5, 0, 5],                                          // touching
            &[0x80, 0, 5],                                          // longer than needed
            &[0, 101],                                              // beyond the end
            &[0xff; 20],                                            // endless
            &[255, 255, 255, 255, 255, 255, 255, 255, 255, 127, 1], // above 64 bits
        ];
        for bytes in refused {
            assert!(decode(bytes, 100).is_err(), "{bytes:?}");
        }
        assert_eq!(decode(&[0, 100], 100).unwrap(), [extent(0, 100)]);
        assert_eq!(decode(&[], 100).unwrap(), []);
    }

    #[test]
    fn what_cannot_be_read_back_is_not_written() {
        for wrong in [
            vec![extent(5, 5), extent(10, 5)],
            vec![extent(5, 5), extent(0, 2)],
            vec![extent(0, 0)],
            vec![extent(90, 11)],
            vec![extent(u64::MAX, 2)],
        ] {
            assert!(encode(&wrong, 100, &mut Vec::new()).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn the_smallest_holes_are_given_up_first() {
        let mut extents = vec![extent(0, 10), extent(12, 8), extent(120, 5), extent(130, 10)];
        simplify(&mut extents, 2);
        assert_eq!(extents, [extent(0, 20), extent(120, 20)]);
        simplify(&mut extents, 1);
        assert_eq!(extents, [extent(0, 140)]);
        let mut touching = vec![extent(5, 5), extent(0, 5), extent(20, 0)];
        simplify(&mut touching, 9);
        assert_eq!(touching, [extent(0, 10)]);
    }

    proptest! {
        #[test]
        fn simplified_extents_survive_and_cover_what_they_did(
            mut extents in proptest::collection::vec(
                (0..10_000_u64, 0..50_u64).prop_map(|(offset, length)| extent(offset, length)), 0..60),
            limit in 1..40_usize,
        ) {
            let before = extents.clone();
            simplify(&mut extents, limit);
            prop_assert!(extents.len() <= limit);
            for old in before.iter().filter(|old| old.length > 0) {
                prop_assert!(extents.iter().any(|new|
                    new.offset <= old.offset && end(old) <= end(new)));
            }
            let mut out = Vec::new();
            encode(&extents, 20_000, &mut out).unwrap();
            prop_assert_eq!(decode(&out, 20_000).unwrap(), extents);
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            if let Ok(extents) = decode(&bytes, u64::MAX) {
                let mut out = Vec::new();
                encode(&extents, u64::MAX, &mut out).unwrap();
                prop_assert_eq!(out, bytes);
            }
        }
    }
}
