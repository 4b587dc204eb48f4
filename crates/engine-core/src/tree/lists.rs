//! The references of a file's content: in the entry itself while they are few, else in list
//! chunks, and in lists of lists.
//!
//! Lists are cut where a reference's name says so, so that a change in the middle of a huge file
//! rewrites one list of each depth. A reader holds one list of each depth at a time.

use crate::error::{Error, Result};
use crate::ids::{Kind, Ref};
use crate::tree::codec::{MAX_DIRECT_REFS, MAX_LIST_DEPTH};
use crate::tree::entry::Content;
use crate::tree::{ChunkSink, ChunkSource};

/// The most references in one list.
pub const MAX_REFS: usize = 4096;
/// Below this many references a list is not cut.
pub const CUT_FROM_REFS: usize = 512;
/// One name in so many is a place to cut.
pub const CUT_ONE_IN: u16 = 1024;

/// Takes the references of a file in order, and stores lists as it goes.
pub struct StreamingRefs<'a> {
    sink: &'a dyn ChunkSink,
    /// `levels[0]` gathers references to data, `levels[d]` references to lists of depth d.
    levels: Vec<Vec<Ref>>,
    /// Bytes of data that each list of depth 1 has.
    lengths: Vec<u64>,
}

impl<'a> StreamingRefs<'a> {
    pub fn new(sink: &'a dyn ChunkSink) -> Self {
        StreamingRefs { sink, levels: vec![Vec::new()], lengths: Vec::new() }
    }

    pub fn push(&mut self, reference: Ref) -> Result<()> {
        self.push_at(0, reference)
    }

    /// Takes a list of depth 1 that is stored already, and has so many bytes of data.
    pub fn push_list(&mut self, list: Ref, bytes: u64) -> Result<()> {
        if !self.levels[0].is_empty() {
            let stored = self.store(0)?;
            self.push_at(1, stored)?;
        }
        self.lengths.push(bytes);
        self.push_at(1, list)
    }

    fn push_at(&mut self, level: usize, reference: Ref) -> Result<()> {
        let mut added = reference;
        let mut level = level;
        loop {
            while level >= self.levels.len() {
                self.levels.push(Vec::new());
            }
            let list = &mut self.levels[level];
            list.push(added);
            if !is_full(list, &added) {
                return Ok(());
            }
            added = self.store(level)?;
            level += 1;
        }
    }

    /// Stores what was gathered of a level.
    fn store(&mut self, level: usize) -> Result<Ref> {
        let list = &mut self.levels[level];
        let stored = store_list(self.sink, list)?;
        if level == 0 {
            let bytes = list.iter().map(|reference| u64::from(reference.plain_length()));
            self.lengths.push(bytes.sum());
        }
        list.clear();
        Ok(stored)
    }

    pub fn finish(self) -> Result<Content> {
        self.finish_measured().map(|(content, _)| content)
    }

    /// The content, and how many bytes of data each list of depth 1 has.
    pub fn finish_measured(mut self) -> Result<(Content, Vec<u64>)> {
        if self.levels.len() == 1 && self.levels[0].len() <= MAX_DIRECT_REFS {
            let refs = self.levels.remove(0);
            let content = if refs.is_empty() { Content::Empty } else { Content::Direct(refs) };
            return Ok((content, Vec::new()));
        }
        let mut level = 0;
        loop {
            if level > 0 && level + 1 == self.levels.len() && self.levels[level].len() == 1 {
                let depth = u8::try_from(level)
                    .ok()
                    .filter(|depth| *depth <= MAX_LIST_DEPTH)
                    .ok_or_else(|| Error::Invalid("a file of too many chunks".into()))?;
                return Ok((Content::Listed { depth, list: self.levels[level][0] }, self.lengths));
            }
            if !self.levels[level].is_empty() {
                let stored = self.store(level)?;
                if level + 1 == self.levels.len() {
                    self.levels.push(Vec::new());
                }
                self.levels[level + 1].push(stored);
            }
            level += 1;
        }
    }
}

/// Whether to cut after the reference just added.
fn is_full(list: &[Ref], last: &Ref) -> bool {
    let hash = u16::from_le_bytes([last.name.0[0], last.name.0[1]]);
    list.len() >= MAX_REFS || (list.len() >= CUT_FROM_REFS && hash.is_multiple_of(CUT_ONE_IN))
}

fn store_list(sink: &dyn ChunkSink, refs: &[Ref]) -> Result<Ref> {
    let mut bytes = Vec::with_capacity(refs.len() * Ref::SIZE);
    for reference in refs {
        bytes.extend_from_slice(&reference.to_bytes());
    }
    sink.store(Kind::List, &bytes)
}

/// The content that these references to data make.
pub fn write_refs(sink: &dyn ChunkSink, refs: &[Ref]) -> Result<Content> {
    let mut streaming = StreamingRefs::new(sink);
    for reference in refs {
        streaming.push(*reference)?;
    }
    streaming.finish()
}

/// The references to data, in order. Memory: one list of each depth.
pub struct Refs<'a> {
    source: &'a dyn ChunkSource,
    /// Lists being read, the outermost first, with the depth of each; 0 stands in an entry.
    open: Vec<(u8, std::vec::IntoIter<Ref>)>,
    failed: bool,
}

impl<'a> Refs<'a> {
    pub fn new(source: &'a dyn ChunkSource, content: &Content) -> Self {
        let first = match content {
            Content::Empty => (1, Vec::new()),
            Content::Direct(refs) => (1, refs.clone()),
            Content::Listed { depth, list } => (depth.saturating_add(1), vec![*list]),
        };
        Refs { source, open: vec![(first.0, first.1.into_iter())], failed: false }
    }

    fn step(&mut self) -> Result<Option<Ref>> {
        while let Some((depth, list)) = self.open.last_mut() {
            let depth = *depth;
            match list.next() {
                None => {
                    self.open.pop();
                }
                Some(reference) if depth <= 1 => return Ok(Some(reference)),
                Some(reference) => {
                    let refs = read_list(self.source, &reference)?;
                    self.open.push((depth - 1, refs.into_iter()));
                }
            }
        }
        Ok(None)
    }
}

impl Iterator for Refs<'_> {
    type Item = Result<Ref>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let next = self.step().transpose();
        self.failed = matches!(next, Some(Err(_)));
        next
    }
}

/// The references in one list chunk, which is never empty.
pub fn read_list(source: &dyn ChunkSource, list: &Ref) -> Result<Vec<Ref>> {
    let bytes = source.fetch(Kind::List, list)?;
    decode_list(&bytes).ok_or_else(|| {
        Error::integrity(
            format!("list chunk {}", list.name),
            format!("{} bytes are no list of references", bytes.len()),
        )
    })
}

/// The references in the bytes of a list chunk; `None` if that is not what they are.
pub fn decode_list(bytes: &[u8]) -> Option<Vec<Ref>> {
    let refs = Ref::iter(bytes)?;
    if refs.len() == 0 || refs.len() > MAX_REFS {
        return None;
    }
    let refs: Vec<Ref> = refs.collect();
    refs.iter().all(|reference| reference.plain_length() > 0).then_some(refs)
}

/// All references to data. For files known to be small; see [`Refs`] for the others.
pub fn read_refs(source: &dyn ChunkSource, content: &Content) -> Result<Vec<Ref>> {
    Refs::new(source, content).collect()
}
