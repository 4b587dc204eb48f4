//! Files that lie inside of an image's disks, beside the image's own.
//!
//! Their names come from an index image: a tree of names and attributes without content. Their bytes
//! come from somebody who reads file systems, which the engine does not. Both trees are shown as one:
//! what both have at the top is the image's own.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::error::{Error, Result};
use crate::ids::{Kind, Name, Ref};
use crate::pool::ChunkBytes;
use crate::tree::codec::RawEntry;
use crate::tree::entry::Entry;
use crate::tree::walk::Directory;
use crate::tree::{ChunkSink, ChunkSource, build};

/// Extended attributes: names and values.
pub type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// Reads what is inside. Called from several threads.
pub trait InsideFiles: Send + Sync {
    /// `length` bytes of a file from `offset` on; fewer only at its end. Holes are zeros.
    fn read(
        &self,
        path: &[u8],
        inode: u64,
        size: u64,
        offset: u64,
        length: usize,
    ) -> Result<Vec<u8>>;

    /// Its extended attributes.
    fn xattrs(&self, path: &[u8], inode: u64) -> Result<Xattrs>;
}

/// What is shown beside an image's own files.
pub struct Inside {
    /// The index image's root.
    pub root: Entry,
    pub files: Arc<dyn InsideFiles>,
}

/// One file that is open.
pub(super) struct InsideFile {
    pub files: Arc<dyn InsideFiles>,
    pub path: Vec<u8>,
    pub inode: u64,
    pub size: u64,
}

impl InsideFile {
    pub(super) fn read_at(&self, offset: u64, length: usize) -> Result<Vec<u8>> {
        let left = usize::try_from(self.size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let length = left.min(length);
        if length == 0 {
            return Ok(Vec::new());
        }
        let bytes = self.files.read(&self.path, self.inode, self.size, offset, length)?;
        if bytes.len() != length {
            let path = self.path.escape_ascii();
            let reason = format!("gave {} bytes at byte {offset}, not {length}", bytes.len());
            return Err(Error::integrity(format!("'{path}'"), reason));
        }
        Ok(bytes)
    }
}

/// The two trees as one: the top directory is made here, all else comes from below.
pub(super) struct Joined {
    below: Arc<dyn ChunkSource>,
    made: HashMap<Ref, Vec<u8>>,
}

/// What shows two trees as one.
pub(super) struct Joint {
    pub source: Arc<dyn ChunkSource>,
    pub root: Entry,
    /// Names in the root that lead inside.
    pub tops: HashSet<Vec<u8>>,
}

/// A root with what both roots have.
pub(super) fn join(below: Arc<dyn ChunkSource>, own: &Entry, index: &Entry) -> Result<Joint> {
    let mut entries: HashMap<Vec<u8>, Vec<u8>> = HashMap::new();
    let mut tops = HashSet::new();
    for (root, is_index) in [(own, false), (index, true)] {
        let directory = Directory::of(&*below, root)?;
        let mut cursor = directory.cursor();
        while let Some(RawEntry { name, raw }) = cursor.entry()? {
            if !entries.contains_key(name) {
                if is_index {
                    tops.insert(name.to_vec());
                }
                entries.insert(name.to_vec(), raw.to_vec());
            }
            cursor.advance();
        }
    }
    let mut sorted: Vec<_> = entries.iter().collect();
    sorted.sort();
    let kept = Kept::default();
    let rows = sorted.into_iter().map(|(name, raw)| RawEntry { name, raw });
    let subtree = build::write_directory(&kept, rows)?;
    let root = Entry { subtree: Some(subtree), ..own.clone() };
    let joined = Joined { below, made: kept.0.into_inner() };
    Ok(Joint { source: Arc::new(joined), root, tops })
}

/// Keeps a directory in memory. Its chunks are named by what nobody else would name chunks by.
#[derive(Default)]
struct Kept(Mutex<HashMap<Ref, Vec<u8>>>);

impl ChunkSink for Kept {
    fn store(&self, _: Kind, plain: &[u8]) -> Result<Ref> {
        let name = Name(blake3::derive_key("holdfast mount: a directory of its own", plain));
        let length = u32::try_from(plain.len())
            .map_err(|_| Error::Invalid("a directory of too many entries".into()))?;
        let reference = Ref { name, length };
        self.0.lock().insert(reference, plain.to_vec());
        Ok(reference)
    }
}

impl ChunkSource for Joined {
    fn fetch(&self, kind: Kind, reference: &Ref) -> Result<Vec<u8>> {
        match self.made.get(reference).filter(|_| kind == Kind::Tree) {
            Some(bytes) => Ok(bytes.clone()),
            None => self.below.fetch(kind, reference),
        }
    }

    fn shared(&self, kind: Kind, reference: &Ref) -> Result<ChunkBytes> {
        self.below.shared(kind, reference)
    }

    fn ahead(&self, kind: Kind, references: &[Ref]) {
        self.below.ahead(kind, references);
    }
}
