//! Hard links: the first name of a file is restored with its content, further names are linked
//! to it once it is there.
//!
//! Two names are of one file if the image says so and holds the same bytes for both: entries
//! taken over from older images may carry the device number of another file system by now, and
//! no name must ever get another file's bytes.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::tree::entry::{Content, Entry};

use super::target::{Placed, TargetDir};
use super::worker::Node;

/// A name that waits for the first of its file.
pub struct Waiting {
    pub node: Arc<Node>,
    pub entry: Entry,
}

/// The first name, which has the content.
#[derive(Clone)]
pub struct First {
    pub dir: Arc<TargetDir>,
    pub name: Vec<u8>,
    pub placed: Placed,
}

enum State {
    /// The first name is being restored; these wait.
    Coming(Vec<Waiting>),
    There(First),
}

/// What to do with a name of a file that has several.
pub enum Role {
    /// It is the first: restore it, then tell.
    First(Entry),
    /// Link it to the one that is there.
    Link(First, Entry),
    /// It was put aside and comes back when the first is told of.
    Waits,
}

/// Device and inode at the source, and a digest of what the file holds.
type Key = (u64, u64, [u8; 32]);

#[derive(Default)]
pub struct Links(Mutex<HashMap<Key, State>>);

fn key(entry: &Entry) -> Key {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&[entry.kind as u8]).update(&entry.size.to_le_bytes());
    match &entry.content {
        Content::Empty => {}
        Content::Direct(refs) => {
            for reference in refs {
                hasher.update(&reference.to_bytes());
            }
        }
        Content::Listed { depth, list } => {
            hasher.update(&[*depth]).update(&list.to_bytes());
        }
    }
    for extent in entry.extents.iter().flatten().chain(&entry.skips) {
        hasher.update(&extent.offset.to_le_bytes()).update(&extent.length.to_le_bytes());
    }
    hasher.update(entry.target.as_deref().unwrap_or_default());
    let (major, minor) = entry.rdev.unwrap_or_default();
    hasher.update(&major.to_le_bytes()).update(&minor.to_le_bytes());
    (entry.device, entry.inode, *hasher.finalize().as_bytes())
}

impl Links {
    pub fn role(&self, node: &Arc<Node>, entry: Entry) -> Role {
        let key = key(&entry);
        let mut states = self.0.lock();
        match states.get_mut(&key) {
            None => {
                states.insert(key, State::Coming(Vec::new()));
                Role::First(entry)
            }
            Some(State::There(first)) => Role::Link(first.clone(), entry),
            Some(State::Coming(waiting)) => {
                node.begin();
                waiting.push(Waiting { node: Arc::clone(node), entry });
                Role::Waits
            }
        }
    }

    /// The first name is there: those that waited can be linked to it.
    pub fn there(&self, entry: &Entry, first: First) -> Vec<Waiting> {
        let mut states = self.0.lock();
        match states.insert(key(entry), State::There(first)) {
            Some(State::Coming(waiting)) => waiting,
            _ => Vec::new(),
        }
    }

    /// The first name was not restored: another one is to try.
    pub fn failed(&self, entry: &Entry) -> Vec<Waiting> {
        match self.0.lock().remove(&key(entry)) {
            Some(State::Coming(waiting)) => waiting,
            _ => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::finding::Findings;
    use crate::ids::{Name, Ref};
    use crate::restore::target::{Options, Overwrite, Target};
    use crate::tree::entry::EntryKind;
    use std::os::unix::ffi::OsStrExt;

    #[test]
    fn names_with_one_inode_but_other_bytes_are_not_one_file() {
        let top = tempfile::tempdir().unwrap();
        let options = Options { overwrite: Overwrite::Never, numeric_owners: false };
        let to = top.path().as_os_str().as_bytes();
        let target = Target::open(to, options, Arc::new(Findings::default())).unwrap();
        let node = Node::root(Arc::clone(target.root()));
        let entry = |name: &[u8], byte| Entry {
            device: 1,
            inode: 2,
            nlink: 2,
            size: 10,
            content: Content::Direct(vec![Ref { name: Name([byte; 32]), length: 10 }]),
            ..Entry::new(name, EntryKind::File)
        };
        let links = Links::default();
        assert!(matches!(links.role(&node, entry(b"a", 1)), Role::First(_)));
        assert!(matches!(links.role(&node, entry(b"b", 1)), Role::Waits));
        assert!(matches!(links.role(&node, entry(b"c", 2)), Role::First(_)));
        assert_eq!(links.failed(&entry(b"c", 2)).len(), 0);
        let waiting = links.failed(&entry(b"a", 1));
        assert_eq!(waiting.iter().map(|one| &*one.entry.name).collect::<Vec<_>>(), [b"b"]);
    }
}
