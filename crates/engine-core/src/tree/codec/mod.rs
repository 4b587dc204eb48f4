//! Bytes of entries and tree objects. See `docs/formats/tree.md`.
//!
//! One entry has one spelling, so an unchanged entry is recognised and copied as bytes. Decoding
//! refuses whatever encoding would not have written; it allocates only in proportion to its
//! input. [`peek`] allocates nothing: it runs for every file of every backup.

mod decode;
mod encode;
mod hidden;
mod object;

pub use decode::{decode_entry, decode_root, decode_xattrs, marks, peek};
pub use encode::{encode_entry, encode_root};
pub use hidden::{decode_hidden, encode_hidden, is_nothing_but_hidden};
pub use object::{TREE_VERSION, TreeObject, decode_object};
pub(crate) use object::{write_node_item, write_object_head};

use crate::error::Result;
use crate::ids::Ref;
use crate::tree::entry::{Content, Entry, EntryKind, Time};
use crate::tree::extents;

/// The most bytes of one encoded entry. Far above what a file system gives, except for a file
/// with megabytes of extended attributes.
pub const MAX_ENTRY_BYTES: usize = 8 << 20;
/// The longest name.
pub const MAX_NAME_BYTES: usize = 4096;
/// The most references that stand in the entry itself.
pub const MAX_DIRECT_REFS: usize = 32;
/// The deepest list of references.
pub const MAX_LIST_DEPTH: u8 = 8;
/// The highest node of one directory.
pub const MAX_NODE_LEVEL: u8 = 16;

const NAME: u64 = 1;
const KIND: u64 = 2;
const MODE: u64 = 3;
const UID: u64 = 4;
const GID: u64 = 5;
const USER: u64 = 6;
const GROUP: u64 = 7;
const MTIME: u64 = 8;
const CTIME: u64 = 9;
const INODE: u64 = 10;
const DEVICE: u64 = 11;
const NLINK: u64 = 12;
const SIZE: u64 = 13;
const CONTENT: u64 = 14;
const CONTENT_LIST: u64 = 15;
const EXTENTS: u64 = 16;
const SUBTREE: u64 = 17;
const TARGET: u64 = 18;
const RDEV: u64 = 19;
const XATTRS: u64 = 20;
const HIDDEN: u64 = 21;
const SKIPS: u64 = 22;
const LISTS: u64 = 23;
/// The last key of an entry in a leaf of version 1.
const LAST_OF_FIRST: u64 = HIDDEN;

/// What stands where a file's content is described, as stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum RawContent<'a> {
    #[default]
    Empty,
    /// References laid end to end, for [`Ref::iter`].
    Direct(&'a [u8]),
    Listed {
        depth: u8,
        list: Ref,
    },
}

/// An entry seen without copying. What it borrows is checked in form only: extents and extended
/// attributes are read by [`decode_entry`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peek<'a> {
    pub name: &'a [u8],
    pub kind: EntryKind,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub user: Option<&'a str>,
    pub group: Option<&'a str>,
    pub mtime: Time,
    pub ctime: Time,
    pub inode: u64,
    pub device: u64,
    pub nlink: u64,
    pub size: u64,
    pub content: RawContent<'a>,
    /// Encoded extents; see [`extents::decode`].
    pub extents: Option<&'a [u8]>,
    /// Encoded as extents are, in places of the content.
    pub skips: Option<&'a [u8]>,
    /// See [`extents::decode_lengths`].
    pub lists: Option<&'a [u8]>,
    pub subtree: Option<Ref>,
    pub target: Option<&'a [u8]>,
    pub rdev: Option<(u32, u32)>,
    /// The encoded map of extended attributes, for [`decode_xattrs`].
    pub xattrs: Option<&'a [u8]>,
    /// See [`Entry::hidden`].
    pub hidden: Option<&'a [u8]>,
}

/// What of an entry tells whether a file changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marks {
    pub kind: EntryKind,
    pub mtime: Time,
    pub ctime: Time,
    pub inode: u64,
    /// 0 where it is no regular file.
    pub size: u64,
}

impl Peek<'_> {
    pub fn marks(&self) -> Marks {
        let Peek { kind, mtime, ctime, inode, size, .. } = *self;
        Marks { kind, mtime, ctime, inode, size }
    }
}

/// One entry of a leaf: its name, and all its bytes for [`peek`] or [`decode_entry`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawEntry<'a> {
    pub name: &'a [u8],
    pub raw: &'a [u8],
}

impl<'a> RawEntry<'a> {
    pub fn peek(&self) -> Result<Peek<'a>> {
        peek(self.raw)
    }

    pub fn marks(&self) -> Result<Marks> {
        marks(self.raw)
    }

    pub fn decode(&self) -> Result<Entry> {
        decode_entry(self.raw)
    }

    /// All that is stored of the entry but its name, which must borrow from `raw`.
    pub fn after_name(&self) -> &'a [u8] {
        let start = (self.name.as_ptr() as usize).wrapping_sub(self.raw.as_ptr() as usize);
        self.raw.get(start.wrapping_add(self.name.len())..).unwrap_or_default()
    }
}

/// Whether a directory may hold this name.
pub fn is_legal_name(name: &[u8]) -> bool {
    !name.is_empty()
        && name.len() <= MAX_NAME_BYTES
        && name != b"."
        && name != b".."
        && !name.iter().any(|byte| *byte == b'/' || *byte == 0)
}

fn is_legal_target(target: &[u8]) -> bool {
    !target.is_empty() && !target.contains(&0)
}

fn is_legal_xattr_name(name: &[u8]) -> bool {
    !name.is_empty() && !name.contains(&0)
}

/// Bytes of a file that are no holes.
pub fn data_bytes(entry: &Entry) -> u64 {
    entry.extents.as_ref().map_or(entry.size, |list| extents::data_bytes(list))
}

/// Bytes that the content of a file must yield: its data, and what is passed over.
pub fn content_bytes(entry: &Entry) -> u64 {
    data_bytes(entry).saturating_add(extents::data_bytes(&entry.skips))
}

/// The version of the leaf in which an entry has to stand.
pub fn version_for(entry: &Entry) -> u64 {
    if entry.skips.is_empty() && entry.lists.is_empty() { 1 } else { TREE_VERSION }
}

/// Whether what describes the content fits it.
fn is_content_lawful(entry: &Entry) -> bool {
    let content = content_bytes(entry);
    // Their order is seen to where they are read and written.
    let upto = entry.skips.last().map_or(0, |last| last.offset.saturating_add(last.length));
    upto <= content
        && (entry.skips.is_empty() || data_bytes(entry) > 0)
        && covers(&entry.content, content)
        && (entry.lists.is_empty()
            || (matches!(entry.content, Content::Listed { .. })
                && extents::sum(&entry.lists) == Some(content)))
}

fn covers(content: &Content, data: u64) -> bool {
    match content {
        Content::Empty => data == 0,
        Content::Direct(refs) => {
            !refs.is_empty()
                && refs.len() <= MAX_DIRECT_REFS
                && refs.iter().all(|reference| reference.plain_length() > 0)
                && refs.iter().map(|reference| u64::from(reference.plain_length())).sum::<u64>()
                    == data
        }
        // Whether it yields as much is known to those who read the lists.
        Content::Listed { depth, .. } => (1..=MAX_LIST_DEPTH).contains(depth) && data > 0,
    }
}
