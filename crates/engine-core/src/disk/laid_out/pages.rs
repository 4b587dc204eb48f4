//! The beginning of a file, handed on in pages as it is made, whoever writes or compares them.

use crate::error::Result;

/// Bytes of a page. What comes before the data is a multiple of this in every format.
pub const PAGE_BYTES: u64 = 64 << 10;

/// Takes a page, and its place in the file.
pub type Take<'t> = dyn FnMut(u64, &[u8]) -> Result<()> + 't;

static ZEROES: [u8; 4096] = [0; 4096];

/// Gathers the bytes of a file from its first one on.
pub struct Pages<'t> {
    take: &'t mut Take<'t>,
    page: Vec<u8>,
    handed: u64,
}

impl<'t> Pages<'t> {
    pub fn new(take: &'t mut Take<'t>) -> Self {
        Pages { take, page: Vec::with_capacity(PAGE_BYTES as usize), handed: 0 }
    }

    /// How many bytes there are.
    fn at(&self) -> u64 {
        self.handed + self.page.len() as u64
    }

    /// Appends bytes.
    pub fn put(&mut self, bytes: &[u8]) -> Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let room = PAGE_BYTES as usize - self.page.len();
            let (now, later) = rest.split_at(room.min(rest.len()));
            self.page.extend_from_slice(now);
            if self.page.len() as u64 == PAGE_BYTES {
                (self.take)(self.handed, &self.page)?;
                self.handed += PAGE_BYTES;
                self.page.clear();
            }
            rest = later;
        }
        Ok(())
    }

    /// Appends zeroes until there are so many bytes.
    pub fn zero_to(&mut self, at: u64) -> Result<()> {
        while self.at() < at {
            let count = (at - self.at()).min(ZEROES.len() as u64) as usize;
            self.put(ZEROES.get(..count).unwrap_or_default())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_byte_is_handed_on_once_at_its_place() {
        let mut found = Vec::new();
        let mut take = |at: u64, page: &[u8]| {
            assert_eq!((at, page.len() as u64), (found.len() as u64, PAGE_BYTES));
            found.extend_from_slice(page);
            Ok(())
        };
        let mut pages = Pages::new(&mut take);
        pages.put(&[1; 3]).unwrap();
        pages.zero_to(2).unwrap();
        pages.zero_to(PAGE_BYTES - 1).unwrap();
        pages.put(&vec![2; PAGE_BYTES as usize + 5]).unwrap();
        pages.zero_to(4 * PAGE_BYTES).unwrap();
        let page = PAGE_BYTES as usize;
        let mut expected = vec![0; 4 * page];
        expected[..3].fill(1);
        expected[page - 1..2 * page + 4].fill(2);
        assert!(found == expected);
    }
}
