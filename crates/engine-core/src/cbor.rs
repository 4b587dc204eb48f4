//! Canonical CBOR (RFC 8949): a strict reader and a writer, as far as the pool's objects use it.
//!
//! Written by hand because one encoding must have one spelling: equal trees are found by equal
//! bytes, so the reader refuses what the writer would not have written (integers longer than
//! needed, indefinite lengths, tags, floats). It borrows from its input, allocates nothing, does
//! not recurse, and trusts no length: each is checked against the bytes that are left.

use crate::error::Error;

/// Why bytes are not what they should be. The caller knows which object they came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// Offset in the bytes that were read.
    pub at: usize,
    pub reason: &'static str,
}

impl Malformed {
    pub fn within(self, object: impl Into<String>) -> Error {
        Error::integrity(object, format!("{} at byte {}", self.reason, self.at))
    }
}

pub type Parsed<T> = Result<T, Malformed>;

const UINT: u8 = 0;
const NEGATIVE: u8 = 1;
const BYTES: u8 = 2;
const TEXT: u8 = 3;
const ARRAY: u8 = 4;
const MAP: u8 = 5;
const SIMPLE: u8 = 7;
const NULL: u64 = 22;

/// Reads items one after the other.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Reader { bytes, at: 0 }
    }

    pub fn position(&self) -> usize {
        self.at
    }

    /// Bytes not yet read: an upper bound for the number of items to come.
    pub fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// What was read since `start`, a former [`Reader::position`].
    pub fn since(&self, start: usize) -> &'a [u8] {
        self.bytes.get(start..self.at).unwrap_or_default()
    }

    pub fn fail<T>(&self, reason: &'static str) -> Parsed<T> {
        Err(Malformed { at: self.at, reason })
    }

    pub fn end(&self) -> Parsed<()> {
        if self.left() == 0 { Ok(()) } else { self.fail("trailing bytes") }
    }

    #[inline]
    fn take(&mut self, count: usize) -> Parsed<&'a [u8]> {
        match self.bytes.get(self.at..).and_then(|rest| rest.get(..count)) {
            Some(taken) => {
                self.at += count;
                Ok(taken)
            }
            None => self.fail("the bytes end too early"),
        }
    }

    #[inline]
    fn argument<const N: usize>(&mut self) -> Parsed<u64> {
        let mut wide = [0; 8];
        wide[8 - N..].copy_from_slice(self.take(N)?);
        Ok(u64::from_be_bytes(wide))
    }

    #[inline]
    fn head(&mut self) -> Parsed<(u8, u64)> {
        let start = self.at;
        let Some(&first) = self.bytes.get(start) else {
            return self.fail("the bytes end too early");
        };
        self.at += 1;
        let (value, shortest) = match first & 31 {
            low @ 0..=23 => return Ok((first >> 5, u64::from(low))),
            24 => (self.argument::<1>()?, 24),
            25 => (self.argument::<2>()?, 1 << 8),
            26 => (self.argument::<4>()?, 1 << 16),
            27 => (self.argument::<8>()?, 1 << 32),
            _ => return Err(Malformed { at: start, reason: "an item of indefinite length" }),
        };
        if value < shortest {
            return Err(Malformed { at: start, reason: "a number longer than needed" });
        }
        Ok((first >> 5, value))
    }

    #[inline]
    fn expect(&mut self, major: u8, reason: &'static str) -> Parsed<u64> {
        let start = self.at;
        let (found, value) = self.head()?;
        if found == major { Ok(value) } else { Err(Malformed { at: start, reason }) }
    }

    #[inline]
    pub fn uint(&mut self) -> Parsed<u64> {
        self.expect(UINT, "not an unsigned integer")
    }

    #[inline]
    pub fn u32(&mut self) -> Parsed<u32> {
        let start = self.at;
        u32::try_from(self.uint()?)
            .map_err(|_| Malformed { at: start, reason: "a number out of range" })
    }

    #[inline]
    pub fn int(&mut self) -> Parsed<i64> {
        let start = self.at;
        let (major, value) = self.head()?;
        match (major, i64::try_from(value)) {
            (UINT, Ok(value)) => Ok(value),
            (NEGATIVE, Ok(value)) => Ok(-1 - value),
            (UINT | NEGATIVE, Err(_)) => {
                Err(Malformed { at: start, reason: "a number out of range" })
            }
            _ => Err(Malformed { at: start, reason: "not an integer" }),
        }
    }

    #[inline]
    pub fn bytes(&mut self) -> Parsed<&'a [u8]> {
        let length = self.expect(BYTES, "not a byte string")?;
        self.string(length)
    }

    #[inline]
    pub fn fixed<const N: usize>(&mut self) -> Parsed<[u8; N]> {
        let start = self.at;
        self.bytes()?
            .try_into()
            .map_err(|_| Malformed { at: start, reason: "a byte string of the wrong length" })
    }

    #[inline]
    pub fn text(&mut self) -> Parsed<&'a str> {
        let start = self.at;
        let length = self.expect(TEXT, "not a text")?;
        std::str::from_utf8(self.string(length)?)
            .map_err(|_| Malformed { at: start, reason: "a text that is not UTF-8" })
    }

    #[inline]
    fn string(&mut self, length: u64) -> Parsed<&'a [u8]> {
        match usize::try_from(length) {
            Ok(length) => self.take(length),
            Err(_) => self.fail("the bytes end too early"),
        }
    }

    /// The number of items that follow; never more than the bytes that are left.
    #[inline]
    pub fn array(&mut self) -> Parsed<usize> {
        let count = self.expect(ARRAY, "not an array")?;
        self.count(count, 1)
    }

    /// The number of pairs that follow; never more than the bytes that are left.
    #[inline]
    pub fn map(&mut self) -> Parsed<usize> {
        let count = self.expect(MAP, "not a map")?;
        self.count(count, 2)
    }

    #[inline]
    fn count(&self, count: u64, least_bytes: usize) -> Parsed<usize> {
        match usize::try_from(count) {
            Ok(count) if count <= self.left() / least_bytes => Ok(count),
            _ => self.fail("the bytes end too early"),
        }
    }

    /// An array of exactly this many items.
    pub fn tuple(&mut self, items: usize) -> Parsed<()> {
        let start = self.at;
        if self.array()? == items {
            Ok(())
        } else {
            Err(Malformed { at: start, reason: "an array of the wrong length" })
        }
    }

    /// Steps over a null; false, and nothing read, if something else comes.
    pub fn null(&mut self) -> bool {
        let null = self.bytes.get(self.at) == Some(&(SIMPLE << 5 | NULL as u8));
        self.at += usize::from(null);
        null
    }

    /// Steps over one item, whatever it holds.
    #[inline]
    pub fn skip(&mut self) -> Parsed<()> {
        let mut items = 1_u64;
        while items > 0 {
            items -= 1;
            let (major, value) = self.head()?;
            match major {
                UINT | NEGATIVE => {}
                BYTES | TEXT => {
                    self.string(value)?;
                }
                ARRAY => items = items.saturating_add(self.count(value, 1)? as u64),
                MAP => items = items.saturating_add(self.count(value, 2)? as u64 * 2),
                SIMPLE if value == NULL => {}
                _ => return self.fail("an item of unknown type"),
            }
        }
        Ok(())
    }
}

#[inline]
fn write_head(out: &mut Vec<u8>, major: u8, value: u64) {
    let major = major << 5;
    let wide = value.to_be_bytes();
    match value {
        0..=23 => out.push(major | wide[7]),
        24..=0xff => out.extend_from_slice(&[major | 24, wide[7]]),
        0x100..=0xffff => out.extend_from_slice(&[major | 25, wide[6], wide[7]]),
        0x1_0000..=0xffff_ffff => {
            out.push(major | 26);
            out.extend_from_slice(&wide[4..]);
        }
        _ => {
            out.push(major | 27);
            out.extend_from_slice(&wide);
        }
    }
}

#[inline]
pub fn write_uint(out: &mut Vec<u8>, value: u64) {
    write_head(out, UINT, value);
}

#[inline]
pub fn write_int(out: &mut Vec<u8>, value: i64) {
    match u64::try_from(value) {
        Ok(value) => write_head(out, UINT, value),
        Err(_) => write_head(out, NEGATIVE, !(value as u64)),
    }
}

#[inline]
pub fn write_bytes(out: &mut Vec<u8>, value: &[u8]) {
    write_head(out, BYTES, value.len() as u64);
    out.extend_from_slice(value);
}

/// The head of a byte string; the caller appends exactly `length` bytes.
#[inline]
pub fn write_bytes_head(out: &mut Vec<u8>, length: usize) {
    write_head(out, BYTES, length as u64);
}

#[inline]
pub fn write_text(out: &mut Vec<u8>, value: &str) {
    write_head(out, TEXT, value.len() as u64);
    out.extend_from_slice(value.as_bytes());
}

#[inline]
pub fn write_array(out: &mut Vec<u8>, items: usize) {
    write_head(out, ARRAY, items as u64);
}

#[inline]
pub fn write_map(out: &mut Vec<u8>, pairs: usize) {
    write_head(out, MAP, pairs as u64);
}

pub fn write_null(out: &mut Vec<u8>) {
    write_head(out, SIMPLE, NULL);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_are_written_in_the_fewest_bytes_and_read_only_so() {
        for (value, length) in
            [(0, 1), (23, 1), (24, 2), (255, 2), (256, 3), (65_535, 3), (65_536, 5), (1 << 32, 9)]
        {
            let mut out = Vec::new();
            write_uint(&mut out, value);
            assert_eq!(out.len(), length);
            assert_eq!(Reader::new(&out).uint(), Ok(value));
        }
        for longer in [&[0x18, 23][..], &[0x19, 0, 255], &[0x1a, 0, 0, 255, 255]] {
            assert!(Reader::new(longer).uint().is_err());
        }
    }

    #[test]
    fn indefinite_lengths_tags_and_floats_are_refused() {
        for refused in [&[0x9f, 0xff][..], &[0xc0, 0x00], &[0xf9, 0, 0], &[0xf5], &[0x5f, 0xff]] {
            assert!(Reader::new(refused).skip().is_err(), "{refused:x?}");
        }
    }

    #[test]
    fn a_length_beyond_the_input_is_refused_before_anything_is_reserved() {
        for huge in
            [[0x5b, 255, 255, 255, 255, 255, 255, 255, 255], [0x9b, 127, 0, 0, 0, 0, 0, 0, 0]]
        {
            assert!(Reader::new(&huge).bytes().is_err());
            assert!(Reader::new(&huge).array().is_err());
            assert!(Reader::new(&huge).skip().is_err());
        }
    }

    #[test]
    fn a_million_nested_arrays_are_stepped_over_without_recursion() {
        let mut nested = vec![0x81; 1_000_000];
        nested.push(0);
        let mut reader = Reader::new(&nested);
        reader.skip().unwrap();
        assert_eq!(reader.end(), Ok(()));
    }

    proptest! {
        #[test]
        fn integers_agree_with_an_independent_codec(value in any::<i64>()) {
            let mut out = Vec::new();
            write_int(&mut out, value);
            prop_assert_eq!(&out, &minicbor::to_vec(value).unwrap());
            prop_assert_eq!(Reader::new(&out).int(), Ok(value));
        }

        #[test]
        fn strings_agree_with_an_independent_codec(text in ".{0,300}") {
            let mut out = Vec::new();
            write_text(&mut out, &text);
            prop_assert_eq!(&out, &minicbor::to_vec(&text).unwrap());
            prop_assert_eq!(Reader::new(&out).text(), Ok(text.as_str()));
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut reader = Reader::new(&bytes);
            while reader.skip().is_ok() {}
            prop_assert!(reader.position() <= bytes.len());
        }
    }
}
