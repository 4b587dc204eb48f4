//! What is known of a disk before it is read.

use crate::error::{Error, Result};

/// What a range of a disk is. The numbers are those of the Python side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum What {
    /// Nothing but zeroes.
    Hole = 0,
    /// To be read.
    Data = 1,
    /// As in the parent.
    Same = 2,
}

impl What {
    pub fn from_u8(value: u8) -> Option<Self> {
        Some(match value {
            0 => What::Hole,
            1 => What::Data,
            2 => What::Same,
            _ => return None,
        })
    }
}

/// A range of a disk, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    pub offset: u64,
    pub length: u64,
    pub what: What,
}

/// `Invalid` unless the ranges cover the disk, in order, without a gap.
pub fn check(disk: &str, ranges: &[Range], size: u64) -> Result<()> {
    let mut at = 0_u64;
    for range in ranges {
        let next = at.checked_add(range.length).filter(|next| *next <= size);
        let (true, Some(next)) = (range.offset == at, next) else {
            return Err(Error::Invalid(format!(
                "the ranges of disk '{disk}' have {} bytes at {} where byte {at} of {size} is next",
                range.length, range.offset
            )));
        };
        at = next;
    }
    if at == size {
        return Ok(());
    }
    Err(Error::Invalid(format!("the ranges of disk '{disk}' end at byte {at} of {size}")))
}

/// Bytes that are to be read.
pub fn data_bytes(ranges: &[Range]) -> u64 {
    let data = ranges.iter().filter(|range| range.what == What::Data);
    data.map(|range| range.length).sum()
}

/// Up to where something is as in the parent; none where nothing is.
pub fn same_upto(ranges: &[Range]) -> Option<u64> {
    let last = ranges.iter().rfind(|range| range.what == What::Same && range.length > 0)?;
    Some(last.offset + last.length)
}

/// Up to where the disk is as in the parent from `from` on: `from` itself where it is not.
pub fn same_from(ranges: &[Range], from: u64) -> u64 {
    let first = ranges.partition_point(|range| range.offset + range.length <= from);
    let mut at = from;
    for range in ranges.get(first..).unwrap_or_default() {
        if range.what != What::Same && range.length > 0 {
            break;
        }
        at = range.offset + range.length;
    }
    at
}

/// Goes through the ranges of a disk from its beginning to its end.
#[derive(Clone)]
pub struct Cursor<'a> {
    rest: &'a [Range],
}

impl<'a> Cursor<'a> {
    pub fn new(ranges: &'a [Range]) -> Self {
        Cursor { rest: ranges }
    }

    /// What is between `from` and `upto`, in order, neighbours of one sort as one. Never goes back.
    pub fn take(&mut self, from: u64, upto: u64, out: &mut Vec<Range>) {
        out.clear();
        while let Some((first, later)) = self.rest.split_first() {
            if first.offset >= upto {
                return;
            }
            let end = first.offset + first.length;
            let (start, stop) = (first.offset.max(from), end.min(upto));
            if start < stop {
                match out.last_mut() {
                    Some(last) if last.what == first.what => last.length += stop - start,
                    _ => out.push(Range { offset: start, length: stop - start, what: first.what }),
                }
            }
            if end > upto {
                return;
            }
            self.rest = later;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn range(offset: u64, length: u64, what: What) -> Range {
        Range { offset, length, what }
    }

    #[test]
    fn ranges_cover_the_disk_or_are_refused() {
        let (a, b) = (range(0, 10, What::Data), range(10, 5, What::Same));
        check("d", &[a, b], 15).unwrap();
        check("d", &[], 0).unwrap();
        for (ranges, size) in [
            (vec![a, b], 16),
            (vec![a, b], 14),
            (vec![b], 15),
            (vec![a, range(11, 4, What::Hole)], 15),
            (vec![a, range(9, 6, What::Hole)], 15),
            (vec![a, range(10, u64::MAX, What::Hole)], 15),
        ] {
            assert!(check("d", &ranges, size).is_err(), "{ranges:?} {size}");
        }
    }

    #[test]
    fn how_far_a_disk_is_the_same_is_found_from_any_place() {
        let ranges = [
            range(0, 10, What::Data),
            range(10, 10, What::Same),
            range(20, 0, What::Data),
            range(20, 5, What::Same),
            range(25, 5, What::Hole),
        ];
        for (from, upto) in [(0, 0), (9, 9), (10, 25), (24, 25), (25, 25), (30, 30)] {
            assert_eq!(same_from(&ranges, from), upto, "{from}");
        }
        assert_eq!(same_from(&[], 3), 3);
    }

    #[test]
    fn a_cursor_clips_and_joins() {
        let ranges = [
            range(0, 10, What::Data),
            range(10, 0, What::Hole),
            range(10, 10, What::Data),
            range(20, 30, What::Same),
        ];
        let mut cursor = Cursor::new(&ranges);
        let mut out = Vec::new();
        cursor.take(0, 15, &mut out);
        assert_eq!(out, [range(0, 15, What::Data)]);
        cursor.take(15, 30, &mut out);
        assert_eq!(out, [range(15, 5, What::Data), range(20, 10, What::Same)]);
        cursor.take(30, 60, &mut out);
        assert_eq!(out, [range(30, 20, What::Same)]);
    }
}
