//! A directory as the previous image has it, for recognising what did not change.

use std::ops::Range;
use std::sync::Arc;

use crate::client_key::{ClientKey, DirKey};
use crate::counters::Counters;
use crate::error::{Error, Result};
use crate::ids::{Kind, Ref};
use crate::pool::ChunkBytes;
use crate::repository::Repository;
use crate::scan::attrs::Stat;
use crate::scan::list::NameList;
use crate::tree::codec::{self, Marks, Peek, RawEntry, TreeObject};
use crate::tree::entry::{EntryKind, Time};

/// All entries of one directory, sorted by name. Keeps the stored bytes; entries point into them.
pub struct PreviousDir {
    objects: Vec<ChunkBytes>,
    items: Vec<Item>,
}

struct Item {
    object: u32,
    name: Range<u32>,
    raw: Range<u32>,
}

impl PreviousDir {
    /// Reads a directory; with a client key and what names in it are sealed with, one that was
    /// sealed, as what it was before.
    pub fn load(
        from: &dyn Repository,
        root: &Ref,
        counters: &Counters,
        sealed: Option<(&ClientKey, &DirKey)>,
    ) -> Result<Self> {
        let mut dir = PreviousDir { objects: Vec::new(), items: Vec::new() };
        let mut open = vec![*root];
        while let Some(reference) = open.pop() {
            let bytes = from.chunk(Kind::Tree, &reference, counters)?;
            match codec::decode_object(&bytes)? {
                TreeObject::Leaf(entries) if sealed.is_some() => {
                    let Some((key, names)) = sealed else { continue };
                    dir.open_entries(&entries, key, names)?;
                }
                TreeObject::Leaf(entries) => {
                    let object = dir.objects.len() as u32;
                    dir.items.extend(entries.iter().map(|entry| Item {
                        object,
                        name: range_in(&bytes, entry.name),
                        raw: range_in(&bytes, entry.raw),
                    }));
                    dir.objects.push(bytes.clone());
                }
                TreeObject::Node { level, items } => {
                    if usize::from(level) > 16 || open.len() > 1 << 20 {
                        return Err(Error::integrity(
                            format!("tree {}", reference.name),
                            "its levels do not end",
                        ));
                    }
                    // The last pushed is read first.
                    open.extend(items.iter().rev().map(|(_, child)| *child));
                }
            }
        }
        if sealed.is_some() {
            // They came in the order of their sealed names.
            let mut items = std::mem::take(&mut dir.items);
            items.sort_by(|a, b| dir.bytes(a.object, &a.name).cmp(dir.bytes(b.object, &b.name)));
            dir.items = items;
        }
        Ok(dir)
    }

    /// Adds entries that were sealed, as what they were before.
    fn open_entries(
        &mut self,
        entries: &[RawEntry<'_>],
        key: &ClientKey,
        names: &DirKey,
    ) -> Result<()> {
        let object = self.objects.len() as u32;
        let mut bytes = Vec::new();
        for entry in entries {
            let opened = key.open_entry(names, entry)?;
            let RawEntry { name, raw } = opened.as_raw();
            let start = bytes.len() as u32;
            bytes.extend_from_slice(name);
            let middle = bytes.len() as u32;
            bytes.extend_from_slice(raw);
            let end = bytes.len() as u32;
            self.items.push(Item { object, name: start..middle, raw: middle..end });
        }
        let length = bytes.len();
        self.objects.push(ChunkBytes::new(Arc::new(bytes), 0..length));
        Ok(())
    }

    pub fn len(&self) -> usize {
        self.items.len()
    }

    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Where the directories in it are stored.
    pub fn subtrees(&self) -> Vec<Ref> {
        self.items.iter().filter_map(|item| self.raw(item).peek().ok()?.subtree).collect()
    }

    /// The entry at a place in the order of names.
    pub fn entry(&self, at: usize) -> Option<RawEntry<'_>> {
        self.items.get(at).map(|item| self.raw(item))
    }

    /// The entry of this name.
    pub fn find(&self, name: &[u8]) -> Option<RawEntry<'_>> {
        let at = self.items.binary_search_by(|item| self.bytes(item.object, &item.name).cmp(name));
        self.entry(at.ok()?)
    }

    /// For each of these names, the place of its entry here.
    pub fn matches(&self, names: &NameList) -> Vec<Option<u32>> {
        let mut places = (0..).zip(&self.items).peekable();
        let mut found = Vec::with_capacity(names.len());
        // Both are in order: one pass.
        for named in names.iter() {
            let before = |item: &Item| self.bytes(item.object, &item.name);
            while places.next_if(|(_, item)| before(item) < named.name).is_some() {}
            let place = places.next_if(|(_, item)| before(item) == named.name);
            found.push(place.map(|(place, _)| place));
        }
        found
    }

    /// The entry of this name, if it can be read.
    pub fn peek(&self, name: &[u8]) -> Option<(RawEntry<'_>, Peek<'_>)> {
        let entry = self.find(name)?;
        entry.peek().ok().map(|seen| (entry, seen))
    }

    fn raw(&self, item: &Item) -> RawEntry<'_> {
        RawEntry {
            name: self.bytes(item.object, &item.name),
            raw: self.bytes(item.object, &item.raw),
        }
    }

    fn bytes(&self, object: u32, range: &Range<u32>) -> &[u8] {
        self.objects
            .get(object as usize)
            .and_then(|bytes| bytes.get(range.start as usize..range.end as usize))
            .unwrap_or_default()
    }
}

/// Whether a file is as the previous image has it: kind, size, mtime, ctime and inode as before,
/// and the last change old enough that a later one must have another ctime.
pub fn is_same(stat: &Stat, seen: &Marks, trusted_before: Time) -> bool {
    stat.kind == seen.kind
        && (stat.kind != EntryKind::File || stat.size == seen.size)
        && stat.mtime == seen.mtime
        && stat.ctime == seen.ctime
        && stat.inode == seen.inode
        && stat.ctime < trusted_before
}

/// Where `part`, which is a slice of `whole`, lies in it.
fn range_in(whole: &[u8], part: &[u8]) -> Range<u32> {
    let start = (part.as_ptr() as usize).wrapping_sub(whole.as_ptr() as usize) as u32;
    start..start.wrapping_add(part.len() as u32)
}
