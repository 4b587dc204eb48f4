//! Entries of a tree of which the pool sees only content, subtree and size.

use super::{ClientKey, DirKey};
use crate::error::{Error, Result};
use crate::tree::codec::{self, RawContent, RawEntry};
use crate::tree::entry::{Entry, EntryKind};

/// What is hidden is filled up to a multiple of so many bytes.
const STEP: usize = 32;
/// The name of an image's root.
const ROOT: &[u8] = b"/";

/// An entry that was opened, encoded as one that was never sealed.
pub struct OpenedEntry {
    name: Vec<u8>,
    raw: Vec<u8>,
}

impl OpenedEntry {
    pub fn as_raw(&self) -> RawEntry<'_> {
        RawEntry { name: &self.name, raw: &self.raw }
    }
}

impl ClientKey {
    /// The entry of a directory as the pool is to see it.
    pub fn seal_entry(&self, dir: &DirKey, entry: Entry) -> Result<Entry> {
        let name = self.seal_name(dir, &entry.name)?;
        self.seal_as(dir, name, entry)
    }

    /// The same of an image's root, which keeps its name.
    pub fn seal_root(&self, root: Entry) -> Result<Entry> {
        self.seal_as(&self.root_dir(), ROOT.to_vec(), root)
    }

    fn seal_as(&self, dir: &DirKey, name: Vec<u8>, entry: Entry) -> Result<Entry> {
        let mut plain = Vec::new();
        codec::encode_hidden(&entry, &mut plain)?;
        plain.resize(plain.len().next_multiple_of(STEP), 0);
        let mut hidden = Vec::new();
        self.entry.seal(&context(dir, &name), &plain, &mut hidden)?;
        let kind = if entry.kind == EntryKind::Dir { EntryKind::Dir } else { EntryKind::File };
        let size = if kind == EntryKind::File { codec::content_bytes(&entry) } else { 0 };
        let Entry { content, subtree, .. } = entry;
        Ok(Entry { size, content, subtree, hidden: Some(hidden), ..Entry::new(&name, kind) })
    }

    /// The entry that was sealed in this directory.
    pub fn open_entry(&self, dir: &DirKey, raw: &RawEntry<'_>) -> Result<OpenedEntry> {
        let seen = raw.peek()?;
        let name = self.open_name(dir, seen.name).ok_or_else(|| self.foreign(seen.name))?;
        let mut hidden = seen.hidden.ok_or_else(|| self.foreign(seen.name))?.to_vec();
        let plain = self.entry.open(&context(dir, seen.name), &mut hidden);
        let plain = plain.ok_or_else(|| self.foreign(seen.name))?;
        let entry = codec::decode_hidden(plain, &name, seen.content, seen.subtree)?;
        let mut raw = Vec::with_capacity(plain.len() + 128);
        codec::encode_entry(&entry, &mut raw)?;
        Ok(OpenedEntry { name, raw })
    }

    /// An image's root as it was before `seal_root`.
    pub fn open_root(&self, root: &Entry) -> Result<Entry> {
        let mut hidden = root.hidden.clone().ok_or_else(|| self.foreign(ROOT))?;
        let plain = self.entry.open(&context(&self.root_dir(), ROOT), &mut hidden);
        let plain = plain.ok_or_else(|| self.foreign(ROOT))?;
        codec::decode_hidden(plain, ROOT, RawContent::Empty, root.subtree)
    }

    fn foreign(&self, name: &[u8]) -> Error {
        Error::integrity(
            format!("tree entry '{}'", name.escape_ascii()),
            format!("client key {} did not seal it there", self.id()),
        )
    }
}

fn context(dir: &DirKey, name: &[u8]) -> Vec<u8> {
    [dir.bytes().as_slice(), name].concat()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::ids::{Name, Ref};
    use crate::tree::entry::{Content, Extent, Time};
    use proptest::prelude::*;

    fn encoded(entry: &Entry) -> Vec<u8> {
        let mut raw = Vec::new();
        codec::encode_entry(entry, &mut raw).unwrap();
        raw
    }

    fn reference(seed: u8, plain: u32) -> Ref {
        Ref { name: Name([seed; 32]), length: Ref::sealed_length(plain, plain / 2 + 60) }
    }

    /// One of each kind, with all that it can have.
    fn entries() -> Vec<Entry> {
        let base = |name: &[u8], kind| Entry {
            mode: 0o4755,
            uid: 1000,
            gid: 0xffff_ffff,
            user: Some("somebody".into()),
            mtime: Time { sec: -3, nsec: 999_999_999 },
            ctime: Time { sec: 1 << 33, nsec: 1 },
            inode: u64::MAX,
            device: 7,
            ..Entry::new(name, kind)
        };
        let mut file = base(b"file", EntryKind::File);
        file.nlink = 2;
        file.size = 300;
        file.content = Content::Direct(vec![reference(1, 100), reference(2, 200)]);
        file.xattrs = vec![(b"user.a".to_vec(), b"value".to_vec())];
        let mut sparse = base(b"sparse", EntryKind::File);
        sparse.size = 1 << 40;
        sparse.extents = Some(vec![Extent { offset: 4096, length: 100 }]);
        sparse.content = Content::Direct(vec![reference(1, 100)]);
        let mut listed = base(b"listed", EntryKind::File);
        listed.size = 1 << 30;
        listed.content =
            Content::Listed { depth: 2, list: Ref { name: Name([5; 32]), length: 720 } };
        let mut sliced = listed.clone();
        sliced.name = b"sliced".to_vec();
        sliced.skips = vec![Extent { offset: 5, length: 1 << 20 }];
        sliced.lists = vec![1 << 30, 1 << 20];
        let mut hole = base(b"hole", EntryKind::File);
        hole.size = 5;
        hole.extents = Some(Vec::new());
        let mut dir = base(b"dir", EntryKind::Dir);
        dir.subtree = Some(Ref { name: Name([6; 32]), length: 99 });
        let mut link = base(b"link", EntryKind::Symlink);
        link.target = Some(b"../secret place".to_vec());
        let mut device = base(b"device", EntryKind::Block);
        device.rdev = Some((8, 1));
        let fifo = base(b"fifo", EntryKind::Fifo);
        vec![file, sparse, listed, sliced, hole, dir, link, device, fifo]
    }

    #[test]
    fn every_kind_of_entry_comes_back_and_shows_nothing_meanwhile() {
        let key = ClientKey::derive(&[1; 32]);
        let dir = key.root_dir().child(b"home");
        for entry in entries() {
            let sealed = key.seal_entry(&dir, entry.clone()).unwrap();
            let raw = encoded(&sealed);
            assert_eq!(codec::decode_entry(&raw).unwrap(), sealed);
            for secret in [&entry.name[..], b"somebody", b"user.a", b"secret"] {
                assert!(!raw.windows(secret.len()).any(|part| part == secret));
            }
            let opened = key.open_entry(&dir, &RawEntry { name: &sealed.name, raw: &raw }).unwrap();
            assert_eq!(codec::decode_entry(opened.as_raw().raw).unwrap(), entry);
            assert_eq!(opened.as_raw().raw, encoded(&entry));
        }
    }

    #[test]
    fn an_entry_that_was_changed_or_moved_is_refused() {
        let key = ClientKey::derive(&[1; 32]);
        let dir = key.root_dir();
        let [first, second] = [0, 1].map(|at| {
            let sealed = key.seal_entry(&dir, entries()[at].clone()).unwrap();
            (sealed.clone(), encoded(&sealed))
        });
        let elsewhere = key.root_dir().child(b"x");
        let open = |dir: &DirKey, sealed: &Entry| {
            let raw = encoded(sealed);
            key.open_entry(dir, &RawEntry { name: &sealed.name, raw: &raw }).map(drop)
        };
        open(&dir, &first.0).unwrap();
        assert_eq!(open(&elsewhere, &first.0).unwrap_err().code(), "integrity");
        let swapped = Entry { hidden: second.0.hidden.clone(), ..first.0.clone() };
        assert_eq!(open(&dir, &swapped).unwrap_err().code(), "integrity");
        let bare = Entry { hidden: None, ..first.0.clone() };
        assert_eq!(open(&dir, &bare).unwrap_err().code(), "integrity");
        // What is in the clear has to fit what is hidden.
        let short = Entry { size: 0, content: Content::Empty, ..first.0.clone() };
        assert_eq!(open(&dir, &short).unwrap_err().code(), "integrity");
    }

    #[test]
    fn no_attribute_stands_beside_hidden_ones() {
        let key = ClientKey::derive(&[1; 32]);
        let sealed = key.seal_entry(&key.root_dir(), entries()[0].clone()).unwrap();
        let mut raw = Vec::new();
        for bad in [
            Entry { mode: 1, ..sealed.clone() },
            Entry { nlink: 2, ..sealed.clone() },
            Entry { user: Some("u".into()), ..sealed.clone() },
            Entry { kind: EntryKind::Fifo, size: 0, content: Content::Empty, ..sealed },
        ] {
            assert!(codec::encode_entry(&bad, &mut raw).is_err());
        }
    }

    #[test]
    fn a_root_keeps_its_name() {
        let key = ClientKey::derive(&[1; 32]);
        let mut root = Entry::new(b"/", EntryKind::Dir);
        root.mode = 0o755;
        let sealed = key.seal_root(root).unwrap();
        assert_eq!((sealed.name.as_slice(), sealed.mode), (&b"/"[..], 0));
        let mut raw = Vec::new();
        codec::encode_root(&sealed, &mut raw).unwrap();
        let opened = key.open_root(&sealed).unwrap();
        assert_eq!((opened.name.as_slice(), opened.mode), (&b"/"[..], 0o755));
        let other = ClientKey::derive(&[2; 32]);
        assert_eq!(other.open_root(&sealed).unwrap_err().code(), "integrity");
    }

    proptest! {
        #[test]
        fn any_attributes_come_back(
            mode in 0..=0o7777_u32, uid: u32, sec: i64, nsec in 0..1_000_000_000_u32, inode: u64,
            name in "[^/\0]{1,60}", target in proptest::option::of("[^\0]{1,90}"),
            value in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            prop_assume!(name != "." && name != "..");
            let kind = if target.is_some() { EntryKind::Symlink } else { EntryKind::Socket };
            let mut entry = Entry::new(name.as_bytes(), kind);
            (entry.mode, entry.uid, entry.inode) = (mode, uid, inode);
            entry.mtime = Time { sec, nsec };
            entry.target = target.map(String::into_bytes);
            entry.xattrs = vec![(b"user.x".to_vec(), value)];
            let key = ClientKey::derive(&[9; 32]);
            let dir = key.root_dir();
            let sealed = key.seal_entry(&dir, entry.clone()).unwrap();
            let raw = encoded(&sealed);
            prop_assert_eq!(sealed.hidden.as_ref().unwrap().len() % STEP, super::super::BOX_BYTES % STEP);
            let opened = key.open_entry(&dir, &RawEntry { name: &sealed.name, raw: &raw }).unwrap();
            prop_assert_eq!(codec::decode_entry(opened.as_raw().raw).unwrap(), entry);
        }
    }
}
