//! Read directories: look up a name, go through the entries, follow a path.
//!
//! A directory of a million entries is read leaf by leaf; one object of each level is held at a
//! time. What the objects say of each other is checked on the way down: the level, the first
//! name, the order of names from one leaf to the next.

use std::ops::Range;
use std::sync::Arc;

use super::ChunkSource;
use super::codec::{self, RawEntry, TreeObject};
use super::entry::{Entry, EntryKind};
use crate::error::{Error, Result};
use crate::ids::Ref;

/// A tree object in memory: its bytes and where each item lies in them.
pub struct LoadedObject {
    bytes: Vec<u8>,
    level: u8,
    items: Vec<Item>,
}

struct Item {
    name: Range<u32>,
    /// A leaf's entry; empty in a node.
    raw: Range<u32>,
    /// A node's child.
    child: Option<Ref>,
}

impl LoadedObject {
    /// Checks the bytes of the object that `reference` names.
    pub fn parse(reference: &Ref, bytes: Vec<u8>) -> Result<Self> {
        Self::parse_unnamed(bytes).map_err(|error| match error {
            Error::Integrity { object, reason } => Error::integrity(
                format!("tree chunk {}", reference.name),
                format!("{object}: {reason}"),
            ),
            other => other,
        })
    }

    fn parse_unnamed(bytes: Vec<u8>) -> Result<Self> {
        let range = |part: &[u8]| range_within(&bytes, part);
        let (level, items) = match codec::decode_object(&bytes)? {
            TreeObject::Leaf(entries) => {
                let items = entries.iter().map(|entry| Item {
                    name: range(entry.name),
                    raw: range(entry.raw),
                    child: None,
                });
                (0, items.collect())
            }
            TreeObject::Node { level, items } => {
                let items = items.iter().map(|(name, child)| Item {
                    name: range(name),
                    raw: 0..0,
                    child: Some(*child),
                });
                (level, items.collect())
            }
        };
        Ok(LoadedObject { bytes, level, items })
    }

    pub fn level(&self) -> u8 {
        self.level
    }

    pub fn len(&self) -> usize {
        self.items.len()
    }

    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// What it takes in memory.
    pub fn memory_bytes(&self) -> usize {
        self.bytes.capacity() + self.items.capacity() * size_of::<Item>()
    }

    fn part(&self, range: &Range<u32>) -> &[u8] {
        self.bytes.get(range.start as usize..range.end as usize).unwrap_or_default()
    }

    /// The name of an item; empty beyond the end.
    pub fn name(&self, index: usize) -> &[u8] {
        self.items.get(index).map_or(&[], |item| self.part(&item.name))
    }

    /// An entry of a leaf.
    pub fn entry(&self, index: usize) -> Option<RawEntry<'_>> {
        let item = self.items.get(index).filter(|item| item.child.is_none())?;
        Some(RawEntry { name: self.part(&item.name), raw: self.part(&item.raw) })
    }

    /// The object below an item of a node.
    pub fn child(&self, index: usize) -> Option<Ref> {
        self.items.get(index)?.child
    }

    /// The number of items whose names come before `name`.
    fn before(&self, name: &[u8]) -> usize {
        self.items.partition_point(|item| self.part(&item.name) < name)
    }

    /// The item that is `name`, or the child that may hold it.
    fn holding(&self, name: &[u8]) -> Option<usize> {
        let after = self.items.partition_point(|item| self.part(&item.name) <= name);
        after.checked_sub(1)
    }
}

/// Where `part` lies in the bytes that it was taken from. Chunks are below 16 MiB.
fn range_within(bytes: &[u8], part: &[u8]) -> Range<u32> {
    let start = (part.as_ptr() as usize).wrapping_sub(bytes.as_ptr() as usize) as u32;
    start..start.saturating_add(part.len() as u32)
}

/// Loads the child at `index` and checks that it is what `parent` says. All its names come before
/// `bound`, if there is one.
fn load_child(
    source: &dyn ChunkSource,
    parent: &LoadedObject,
    index: usize,
    bound: Option<&[u8]>,
) -> Result<Arc<LoadedObject>> {
    let Some(reference) = parent.child(index) else {
        return Err(Error::Invalid("a leaf has no objects below it".into()));
    };
    let child = source.tree(&reference)?;
    let last = child.len().saturating_sub(1);
    let reason = if child.level.checked_add(1) != Some(parent.level) {
        "it is of another level than the node above says"
    } else if child.is_empty() || child.name(0) != parent.name(index) {
        "its first name is not the one that the node above says"
    } else if bound.is_some_and(|bound| child.name(last) >= bound) {
        "it holds names that belong into the next object"
    } else {
        return Ok(child);
    };
    Err(Error::integrity(format!("tree chunk {}", reference.name), reason))
}

/// A directory of an image.
#[derive(Clone)]
pub struct Directory<'a> {
    source: &'a dyn ChunkSource,
    /// `None`: a directory whose entries were not backed up.
    root: Option<Arc<LoadedObject>>,
}

impl<'a> Directory<'a> {
    pub fn open(source: &'a dyn ChunkSource, root: Ref) -> Result<Self> {
        let root = Some(source.tree(&root)?);
        Ok(Directory { source, root })
    }

    /// A directory without entries.
    pub fn empty(source: &'a dyn ChunkSource) -> Self {
        Directory { source, root: None }
    }

    /// The entries below `entry`: none if it has no subtree.
    pub fn of(source: &'a dyn ChunkSource, entry: &Entry) -> Result<Self> {
        match entry.subtree {
            Some(root) => Self::open(source, root),
            None => Ok(Self::empty(source)),
        }
    }

    /// Reads one object of each level at most.
    pub fn lookup(&self, name: &[u8]) -> Result<Option<Entry>> {
        let mut cursor = self.cursor();
        cursor.seek(name)?;
        match cursor.peek() {
            Next::Entry(entry) if entry.name == name => entry.decode().map(Some),
            _ => Ok(None),
        }
    }

    /// All entries in order of their names.
    pub fn entries(&self) -> Entries<'a> {
        Entries { cursor: self.cursor(), failed: false }
    }

    /// All entries as bytes, and the objects that hold them.
    pub fn cursor(&self) -> Cursor<'a> {
        Cursor { source: self.source, place: self.start() }
    }

    /// The place before the first entry.
    pub fn start(&self) -> Place {
        let open = self.root.iter().map(|root| Open { object: root.clone(), at: 0 }).collect();
        Place { open }
    }
}

/// The entries of a directory, decoded.
pub struct Entries<'a> {
    cursor: Cursor<'a>,
    failed: bool,
}

impl Iterator for Entries<'_> {
    type Item = Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let next = self.cursor.entry().and_then(|entry| entry.map(|raw| raw.decode()).transpose());
        self.cursor.advance();
        self.failed = next.is_err();
        next.transpose()
    }
}

/// A [`Place`] and the source that its directory comes from.
pub struct Cursor<'a> {
    source: &'a dyn ChunkSource,
    place: Place,
}

impl Cursor<'_> {
    /// See [`Place::peek`].
    pub fn peek(&self) -> Next<'_> {
        self.place.peek()
    }

    /// See [`Place::advance`].
    pub fn advance(&mut self) {
        self.place.advance();
    }

    /// See [`Place::expand`].
    pub fn expand(&mut self) -> Result<()> {
        self.place.expand(self.source)
    }

    /// See [`Place::entry`].
    pub fn entry(&mut self) -> Result<Option<RawEntry<'_>>> {
        self.place.entry(self.source)
    }

    /// See [`Place::seek`].
    pub fn seek(&mut self, name: &[u8]) -> Result<()> {
        self.place.seek(self.source, name)
    }
}

/// A place in a directory: before an entry, or before an object not opened yet.
pub struct Place {
    /// The objects that lead to the place, the highest first. Each is past the one after it.
    open: Vec<Open>,
}

struct Open {
    object: Arc<LoadedObject>,
    at: usize,
}

/// What comes next at a [`Place`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next<'c> {
    Entry(RawEntry<'c>),
    /// An object of this level, whose first entry has this name.
    Object {
        level: u8,
        first_name: &'c [u8],
        reference: Ref,
    },
    End,
}

impl Place {
    /// What comes next, without reading anything.
    pub fn peek(&self) -> Next<'_> {
        let Some(Open { object, at }) = self.open.iter().rev().find(|open| !open.is_done()) else {
            return Next::End;
        };
        match (object.entry(*at), object.child(*at)) {
            (Some(entry), _) => Next::Entry(entry),
            (None, Some(reference)) => {
                let level = object.level.saturating_sub(1);
                Next::Object { level, first_name: object.name(*at), reference }
            }
            (None, None) => Next::End,
        }
    }

    /// Steps past what comes next, without reading it.
    pub fn advance(&mut self) {
        self.close_done();
        if let Some(last) = self.open.last_mut() {
            last.at += 1;
        }
    }

    /// Reads the object that comes next; does nothing before an entry or at the end. One that
    /// cannot be read is stepped past, so that a caller may go on after the error.
    pub fn expand(&mut self, source: &dyn ChunkSource) -> Result<()> {
        self.close_done();
        let Some(last) = self.open.last_mut() else { return Ok(()) };
        if last.object.child(last.at).is_none() {
            return Ok(());
        }
        last.at += 1;
        let (parent, index) = (last.object.clone(), last.at - 1);
        let after = self.open.iter().rev().find(|open| !open.is_done());
        let bound = after.map(|open| open.object.name(open.at));
        let child = load_child(source, &parent, index, bound)?;
        self.open.push(Open { object: child, at: 0 });
        Ok(())
    }

    /// The entry that comes next, reading objects as needed.
    pub fn entry(&mut self, source: &dyn ChunkSource) -> Result<Option<RawEntry<'_>>> {
        while let Next::Object { .. } = self.peek() {
            self.expand(source)?;
        }
        Ok(match self.peek() {
            Next::Entry(entry) => Some(entry),
            _ => None,
        })
    }

    /// Steps to the first entry whose name is `name` or comes after it; only ever forward. Skips
    /// objects unread where it can.
    pub fn seek(&mut self, source: &dyn ChunkSource, name: &[u8]) -> Result<()> {
        loop {
            self.close_done();
            let Some(last) = self.open.last_mut() else { return Ok(()) };
            if last.object.level == 0 {
                last.at = last.at.max(last.object.before(name));
                if !last.is_done() {
                    return Ok(());
                }
            } else {
                let index = last.object.holding(name).unwrap_or(0);
                let beyond = last.at > index;
                last.at = last.at.max(index);
                if beyond {
                    return Ok(());
                }
                self.expand(source)?;
            }
        }
    }

    /// Leaves objects that have been gone through.
    fn close_done(&mut self) {
        while self.open.last().is_some_and(Open::is_done) {
            self.open.pop();
        }
    }
}

impl Open {
    fn is_done(&self) -> bool {
        self.at >= self.object.len()
    }
}

/// The entry at `path` below `root`, which is an image's root entry. `path` is absolute or
/// relative to the root; empty parts and a slash at the end do not matter.
pub fn find(source: &dyn ChunkSource, root: &Entry, path: &[u8]) -> Result<Entry> {
    let missing = || Error::PathMissing {
        path: String::from_utf8_lossy(path).into_owned(),
        within: "the image".into(),
    };
    let mut entry = root.clone();
    for part in path.split(|byte| *byte == b'/').filter(|part| !part.is_empty()) {
        if entry.kind != EntryKind::Dir {
            return Err(missing());
        }
        entry = Directory::of(source, &entry)?.lookup(part)?.ok_or_else(missing)?;
    }
    Ok(entry)
}
