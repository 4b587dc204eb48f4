//! Write a directory as tree objects.
//!
//! A directory that is small is one leaf. A large one is cut where the hash of a name says so,
//! so that a change in one place rewrites one leaf and the nodes above it, and equal runs of
//! entries are the same chunk in every image.

use crate::error::{Error, Result};
use crate::ids::{Kind, Ref};
use crate::tree::ChunkSink;
use crate::tree::codec::{self, MAX_NODE_LEVEL, RawEntry};

/// Below this many bytes of entries an object is not cut.
pub const CUT_FROM_BYTES: usize = 16 << 10;
/// From this many bytes of entries an object is cut whatever the name.
pub const CUT_ALWAYS_BYTES: usize = 192 << 10;
/// One name in so many is a place to cut.
pub const CUT_ONE_IN: u16 = 128;

/// Takes a directory's entries in order of their names and stores it as it goes. Holds at most
/// one unfinished object of each level.
pub struct DirectoryBuilder<'a> {
    sink: &'a dyn ChunkSink,
    levels: Vec<Level>,
    last_name: Vec<u8>,
}

/// The unfinished object of one level: its items, encoded end to end.
#[derive(Default)]
struct Level {
    items: Vec<u8>,
    count: usize,
    first_name: Vec<u8>,
    /// Leaves: the version that an entry needs; 0 as long as none does.
    version: u64,
    /// Objects of this level stored already.
    stored: usize,
    /// Nodes: what the last item refers to.
    last: Option<Ref>,
}

impl<'a> DirectoryBuilder<'a> {
    pub fn new(sink: &'a dyn ChunkSink) -> Self {
        DirectoryBuilder { sink, levels: vec![Level::default()], last_name: Vec::new() }
    }

    /// Adds an encoded entry, whose name must come after all before it.
    pub fn push(&mut self, entry: RawEntry<'_>) -> Result<()> {
        self.push_as(entry, 1)
    }

    /// The same of one that needs a leaf of this version; see [`codec::version_for`].
    pub fn push_as(&mut self, entry: RawEntry<'_>, version: u64) -> Result<()> {
        // No legal name is empty, so the first one comes after the initial `last_name`.
        if entry.name <= self.last_name.as_slice() {
            return Err(Error::Invalid(format!(
                "'{}' was added to a directory after '{}'",
                entry.name.escape_ascii(),
                self.last_name.escape_ascii()
            )));
        }
        self.last_name.clear();
        self.last_name.extend_from_slice(entry.name);
        self.levels[0].add(entry.name, |items| items.extend_from_slice(entry.raw));
        self.levels[0].version = self.levels[0].version.max(version);
        if self.levels[0].is_full(entry.name) { self.store_level(0) } else { Ok(()) }
    }

    /// Stores what is left; the directory's reference.
    pub fn finish(mut self) -> Result<Ref> {
        let mut level = 0;
        loop {
            let top = level + 1 == self.levels.len();
            let here = &mut self.levels[level];
            if top && here.stored == 0 {
                return match here.last {
                    // The level below was one object: no node stands above it alone.
                    Some(only) if here.count == 1 => Ok(only),
                    _ => store_object(self.sink, level, here),
                };
            }
            if here.count > 0 {
                self.store_level(level)?;
            }
            level += 1;
        }
    }

    fn store_level(&mut self, first: usize) -> Result<()> {
        let mut level = first;
        loop {
            let here = &mut self.levels[level];
            let reference = store_object(self.sink, level, here)?;
            let first_name = std::mem::take(&mut here.first_name);
            here.items.clear();
            here.count = 0;
            here.version = 0;
            here.stored += 1;
            if level + 1 == self.levels.len() {
                self.levels.push(Level::default());
            }
            level += 1;
            let above = &mut self.levels[level];
            above.add(&first_name, |items| codec::write_node_item(items, &first_name, &reference));
            above.last = Some(reference);
            if !above.is_full(&first_name) {
                return Ok(());
            }
        }
    }
}

impl Level {
    fn add(&mut self, name: &[u8], write: impl FnOnce(&mut Vec<u8>)) {
        if self.count == 0 {
            self.first_name.clear();
            self.first_name.extend_from_slice(name);
        }
        self.count += 1;
        write(&mut self.items);
    }

    /// Whether to cut after the item just added, which has this name.
    fn is_full(&self, name: &[u8]) -> bool {
        self.items.len() >= CUT_ALWAYS_BYTES || (self.items.len() >= CUT_FROM_BYTES && is_cut(name))
    }
}

fn is_cut(name: &[u8]) -> bool {
    let hash = blake3::hash(name);
    let bytes = hash.as_bytes();
    u16::from_le_bytes([bytes[0], bytes[1]]).is_multiple_of(CUT_ONE_IN)
}

fn store_object(sink: &dyn ChunkSink, level: usize, items: &Level) -> Result<Ref> {
    let level = u8::try_from(level)
        .ok()
        .filter(|level| *level <= MAX_NODE_LEVEL)
        .ok_or_else(|| Error::Invalid("a directory of too many entries".into()))?;
    let mut object = Vec::with_capacity(items.items.len() + 16);
    codec::write_object_head(&mut object, items.version.max(1), level, items.count);
    object.extend_from_slice(&items.items);
    sink.store(Kind::Tree, &object)
}

/// Stores a directory of encoded entries that are sorted by name.
pub fn write_directory<'e>(
    sink: &dyn ChunkSink,
    entries: impl IntoIterator<Item = RawEntry<'e>>,
) -> Result<Ref> {
    let mut builder = DirectoryBuilder::new(sink);
    for entry in entries {
        builder.push(entry)?;
    }
    builder.finish()
}
