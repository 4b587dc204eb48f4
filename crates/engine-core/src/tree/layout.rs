//! Where the content of a file goes: what of it is passed over, and which place of the file the rest
//! has.
//!
//! Invariant: stretches come in order, both of the content and of the file, and none is empty.

use crate::error::{Error, Result};
use crate::ids::Ref;

use super::codec;
use super::entry::{Entry, Extent};

/// A part of the content that lies in one piece in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// Where it begins in the content, and where in the file.
    pub content: u64,
    pub offset: u64,
    pub length: u64,
}

impl Stretch {
    /// Where it ends in the content.
    pub fn end(&self) -> u64 {
        self.content.saturating_add(self.length)
    }
}

/// All stretches of a regular file.
pub fn stretches(entry: &Entry) -> Vec<Stretch> {
    let whole = [Extent { offset: 0, length: entry.size }];
    let whole = if entry.size == 0 { &whole[..0] } else { &whole[..] };
    let extents = entry.extents.as_deref().unwrap_or(whole);
    let mut found = Vec::with_capacity(extents.len() + entry.skips.len());
    let mut skips = entry.skips.iter().peekable();
    let mut content = 0_u64;
    for extent in extents {
        let Extent { mut offset, mut length } = *extent;
        while length > 0 {
            while let Some(skip) = skips.next_if(|skip| skip.offset <= content) {
                content = content.max(skip.offset.saturating_add(skip.length));
            }
            let room = skips.peek().map_or(u64::MAX, |skip| skip.offset - content);
            let now = length.min(room);
            found.push(Stretch { content, offset, length: now });
            content = content.saturating_add(now);
            offset = offset.saturating_add(now);
            length -= now;
        }
    }
    found
}

/// A part of a chunk, and its place in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    pub reference: Ref,
    /// Where in the chunk it begins.
    pub skip: u32,
    pub length: u32,
    pub offset: u64,
}

impl Placed {
    /// Where it ends in the file.
    pub fn end(&self) -> u64 {
        self.offset + u64::from(self.length)
    }
}

/// Lays chunks out, one after the other.
pub struct Layout {
    stretches: Vec<Stretch>,
    /// The first that is not passed.
    next: usize,
    /// Where the next chunk begins in the content.
    content: u64,
    end: u64,
}

impl Layout {
    pub fn new(entry: &Entry) -> Self {
        let (stretches, end) = (stretches(entry), codec::content_bytes(entry));
        Layout { stretches, next: 0, content: 0, end }
    }

    pub fn stretches(&self) -> &[Stretch] {
        &self.stretches
    }

    /// Where the next chunk begins in the content.
    pub fn content(&self) -> u64 {
        self.content
    }

    /// Bytes of content that there should be.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// The place in the file of what comes at `content` or, where that is passed over, after it.
    pub fn offset_at(&self, content: u64) -> Option<u64> {
        let at = self.stretches.partition_point(|stretch| stretch.end() <= content);
        let stretch = self.stretches.get(at)?;
        Some(stretch.offset + content.saturating_sub(stretch.content))
    }

    /// Goes on, or back, to a chunk that begins there.
    pub fn seek(&mut self, content: u64) {
        self.content = content;
        self.next = self.stretches.partition_point(|stretch| stretch.end() <= content);
    }

    /// Tells where the next chunk goes, part by part; false where the content is longer than it
    /// should be.
    pub fn place(&mut self, reference: Ref, mut tell: impl FnMut(Placed)) -> bool {
        let start = self.content;
        let end = start.saturating_add(u64::from(reference.plain_length()));
        while let Some(stretch) = self.stretches.get(self.next).filter(|one| one.content < end) {
            let (from, upto) = (stretch.content.max(start), stretch.end().min(end));
            if from < upto {
                let offset = stretch.offset + (from - stretch.content);
                let (skip, length) = ((from - start) as u32, (upto - from) as u32);
                tell(Placed { reference, skip, length, offset });
            }
            if stretch.end() > end {
                break;
            }
            self.next += 1;
        }
        self.content = end;
        end <= self.end
    }

    /// `Integrity` unless everything that the file has came.
    pub fn finish(&self, entry: &Entry) -> Result<()> {
        if self.content == self.end { Ok(()) } else { Err(mismatch(entry)) }
    }
}

/// That the chunks of a file are not as many bytes as it has.
pub fn mismatch(entry: &Entry) -> Error {
    Error::integrity(
        format!("the content of '{}'", entry.name.escape_ascii()),
        "its chunks do not cover it",
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::ids::Name;
    use crate::tree::entry::EntryKind;

    fn extent(offset: u64, length: u64) -> Extent {
        Extent { offset, length }
    }

    fn chunk(length: u32) -> Ref {
        Ref { name: Name([7; 32]), length }
    }

    #[test]
    fn what_is_passed_over_belongs_to_no_place() {
        let entry = Entry {
            size: 1000,
            extents: Some(vec![extent(100, 10), extent(200, 10)]),
            skips: vec![extent(0, 5), extent(9, 20), extent(45, 5)],
            ..Entry::new(b"disk", EntryKind::File)
        };
        let mut layout = Layout::new(&entry);
        let stretch = |content, offset, length| Stretch { content, offset, length };
        let expected = [stretch(5, 100, 4), stretch(29, 104, 6), stretch(35, 200, 10)];
        assert_eq!(layout.stretches(), expected);
        assert_eq!(layout.offset_at(0), Some(100));
        assert_eq!(layout.offset_at(10), Some(104));
        assert_eq!(layout.offset_at(36), Some(201));
        assert_eq!(layout.offset_at(45), None);
        let mut placed = Vec::new();
        for length in [10, 20, 20] {
            assert!(
                layout.place(chunk(length), |one| placed.push((one.skip, one.length, one.offset)))
            );
        }
        assert_eq!(placed, [(5, 4, 100), (19, 1, 104), (0, 5, 105), (5, 10, 200)]);
        layout.finish(&entry).unwrap();
        assert!(!layout.place(chunk(1), |_| ()));
        layout.seek(30);
        assert_eq!(layout.content(), 30);
        let mut again = Vec::new();
        layout.place(chunk(20), |one| again.push((one.skip, one.length, one.offset)));
        assert_eq!(again, placed[2..]);
    }

    #[test]
    fn a_file_without_holes_is_one_stretch_and_one_without_bytes_none() {
        let whole = Entry { size: 7, ..Entry::new(b"file", EntryKind::File) };
        assert_eq!(stretches(&whole), [Stretch { content: 0, offset: 0, length: 7 }]);
        assert_eq!(stretches(&Entry::new(b"file", EntryKind::File)), []);
    }
}
