//! Inode numbers, and what the kernel holds of them.
//!
//! A number is a hash, so that a name has the same one each time though the table forgets what
//! the kernel forgets. Names of one inode share a number if all that is stored of them is the
//! same: a file that changed between two of its names was backed up as two.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::error::Result;
use crate::tree::codec::{self, RawEntry};
use crate::tree::entry::EntryKind;

pub(super) const ROOT: u64 = 1;

/// An entry that the kernel knows.
#[derive(Clone)]
pub(super) struct Node {
    /// The encoded entry.
    pub raw: Arc<[u8]>,
    pub parent: u64,
    /// It lies inside of one of the image's disks.
    pub inside: bool,
}

pub(super) struct Inodes {
    table: Mutex<HashMap<u64, (Node, u64)>>,
    /// The names at the top that lead inside of disks.
    tops: HashSet<Vec<u8>>,
}

impl Inodes {
    /// `root` is encoded with any lawful name, which is never shown.
    pub(super) fn new(root: &[u8], tops: HashSet<Vec<u8>>) -> Self {
        let node = Node { raw: root.into(), parent: ROOT, inside: false };
        Inodes { table: Mutex::new(HashMap::from([(ROOT, (node, 1))])), tops }
    }

    /// Whether a name of a directory lies inside of a disk.
    pub(super) fn is_inside(&self, parent: u64, name: &[u8]) -> bool {
        if parent == ROOT {
            return self.tops.contains(name);
        }
        !self.tops.is_empty() && self.table.lock().get(&parent).is_some_and(|(node, _)| node.inside)
    }

    pub(super) fn get(&self, ino: u64) -> Option<Node> {
        self.table.lock().get(&ino).map(|(node, _)| node.clone())
    }

    /// The number of an entry, which the kernel will hold once more.
    pub(super) fn hold(&self, parent: u64, entry: RawEntry<'_>) -> Result<u64> {
        let linked = is_linked(entry)?;
        let inside = self.is_inside(parent, entry.name);
        let mut ino = number_of(parent, entry, linked);
        let mut table = self.table.lock();
        loop {
            match table.get_mut(&ino) {
                Some((node, holds)) if is_same(node, parent, entry, linked) => {
                    *holds += 1;
                    return Ok(ino);
                }
                // Two hashes fell together: the next number is free with certainty near 1.
                Some(_) => ino = next(ino),
                None => {
                    table.insert(ino, (Node { raw: entry.raw.into(), parent, inside }, 1));
                    return Ok(ino);
                }
            }
        }
    }

    pub(super) fn release(&self, ino: u64, count: u64) {
        let mut table = self.table.lock();
        if let Some((_, holds)) = table.get_mut(&ino).filter(|_| ino != ROOT) {
            *holds = holds.saturating_sub(count);
            if *holds == 0 {
                table.remove(&ino);
            }
        }
    }

    /// The number that `hold` would give, but for a collision.
    pub(super) fn number(&self, parent: u64, entry: RawEntry<'_>) -> Result<u64> {
        Ok(number_of(parent, entry, is_linked(entry)?))
    }

    /// The path of a node and of a name in it, as far as it is known.
    pub(super) fn path(&self, ino: u64, name: Option<&[u8]>) -> Vec<u8> {
        let table = self.table.lock();
        let mut parts: Vec<Vec<u8>> = name.iter().map(|name| name.to_vec()).collect();
        let mut at = ino;
        while at != ROOT {
            let Some((node, _)) = table.get(&at) else { break };
            match codec::peek(&node.raw) {
                Ok(seen) => parts.push(seen.name.to_vec()),
                Err(_) => break,
            }
            at = node.parent;
        }
        parts.reverse();
        [b"/", parts.join(&b'/').as_slice()].concat()
    }
}

fn is_linked(entry: RawEntry<'_>) -> Result<bool> {
    let seen = entry.peek()?;
    Ok(seen.nlink > 1 && seen.kind != EntryKind::Dir)
}

fn number_of(parent: u64, entry: RawEntry<'_>, linked: bool) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&[u8::from(linked)]);
    if linked {
        hasher.update(entry.after_name());
    } else {
        hasher.update(&parent.to_le_bytes());
        hasher.update(entry.name);
    }
    let mut bytes = [0; 8];
    hasher.finalize_xof().fill(&mut bytes);
    match u64::from_le_bytes(bytes) {
        0..=ROOT => ROOT + 1,
        number => number,
    }
}

fn next(ino: u64) -> u64 {
    ino.checked_add(1).unwrap_or(ROOT + 1)
}

fn is_same(node: &Node, parent: u64, entry: RawEntry<'_>, linked: bool) -> bool {
    if !linked {
        return node.parent == parent && *node.raw == *entry.raw;
    }
    codec::peek(&node.raw).is_ok_and(|seen| {
        RawEntry { name: seen.name, raw: &node.raw }.after_name() == entry.after_name()
    })
}
