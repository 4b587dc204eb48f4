//! Chunks and trees in memory, for tests.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::build::DirectoryBuilder;
use super::codec::{self, RawEntry};
use super::entry::{Entry, EntryKind};
use super::{ChunkSink, ChunkSource};
use crate::error::{Error, Result};
use crate::ids::{Kind, Ref};
use crate::keys::PoolKeys;

/// A pool of chunks that counts what is read, and loses chunks on command.
pub struct MemoryChunks {
    keys: PoolKeys,
    chunks: Mutex<HashMap<(Kind, Ref), Vec<u8>>>,
    lost: Mutex<HashSet<Ref>>,
    fetched: AtomicU64,
}

impl Default for MemoryChunks {
    fn default() -> Self {
        MemoryChunks {
            keys: PoolKeys::derive(&[0; 32]),
            chunks: Mutex::default(),
            lost: Mutex::default(),
            fetched: AtomicU64::new(0),
        }
    }
}

impl MemoryChunks {
    pub fn new() -> Self {
        Self::default()
    }

    /// Distinct chunks.
    pub fn len(&self) -> usize {
        self.chunks.lock().len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Chunks read since the last call.
    pub fn take_fetched(&self) -> u64 {
        self.fetched.swap(0, Ordering::Relaxed)
    }

    /// Reading this chunk fails from now on.
    pub fn lose(&self, reference: &Ref) {
        self.lost.lock().insert(*reference);
    }

    /// The plain lengths of all chunks of a kind.
    pub fn lengths(&self, kind: Kind) -> Vec<usize> {
        let chunks = self.chunks.lock();
        chunks.iter().filter(|((of, _), _)| *of == kind).map(|(_, plain)| plain.len()).collect()
    }
}

impl ChunkSink for MemoryChunks {
    fn store(&self, kind: Kind, plain: &[u8]) -> Result<Ref> {
        let length = u32::try_from(plain.len())
            .ok()
            .filter(|length| *length < 1 << 24)
            .ok_or_else(|| Error::Invalid(format!("a chunk of {} bytes", plain.len())))?;
        let reference = Ref { name: self.keys.name(kind, plain), length };
        self.chunks.lock().entry((kind, reference)).or_insert_with(|| plain.to_vec());
        Ok(reference)
    }
}

impl ChunkSource for MemoryChunks {
    fn fetch(&self, kind: Kind, reference: &Ref) -> Result<Vec<u8>> {
        self.fetched.fetch_add(1, Ordering::Relaxed);
        let found = self.chunks.lock().get(&(kind, *reference)).cloned();
        found
            .filter(|_| !self.lost.lock().contains(reference))
            .ok_or_else(|| Error::ChunkMissing { name: reference.name.to_string() })
    }
}

/// Stores a tree of the entries at these paths ("a/b"); names are set from the paths, and parents
/// that are not given are plain directories. The root entry.
pub fn plant(sink: &dyn ChunkSink, entries: &BTreeMap<Vec<u8>, Entry>) -> Result<Entry> {
    let mut open: BTreeMap<Vec<u8>, BTreeMap<Vec<u8>, Entry>> = BTreeMap::new();
    open.insert(Vec::new(), BTreeMap::new());
    for (path, entry) in entries {
        let (mut parent, mut name) = split(path);
        let kept = Entry { name: name.to_vec(), ..entry.clone() };
        if kept.kind == EntryKind::Dir {
            open.entry(path.clone()).or_default();
        }
        open.entry(parent.to_vec()).or_default().insert(name.to_vec(), kept);
        while !parent.is_empty() {
            (parent, name) = split(parent);
            let mut made = Entry::new(name, EntryKind::Dir);
            made.mode = 0o755;
            open.entry(parent.to_vec()).or_default().entry(name.to_vec()).or_insert(made);
        }
    }
    // A directory's path comes before all below it, so the last one is complete.
    loop {
        let Some((path, mut children)) = open.pop_last() else {
            return Err(Error::Invalid("a tree without a root".into()));
        };
        let mut builder = DirectoryBuilder::new(sink);
        for (name, entry) in &mut children {
            let mut raw = Vec::new();
            codec::encode_entry(entry, &mut raw)?;
            builder.push(RawEntry { name, raw: &raw })?;
        }
        let subtree = Some(builder.finish()?);
        if path.is_empty() {
            let mut root = Entry::new(b"/", EntryKind::Dir);
            root.mode = 0o755;
            root.subtree = subtree;
            return Ok(root);
        }
        let (parent, name) = split(&path);
        if let Some(entry) = open.get_mut(parent).and_then(|siblings| siblings.get_mut(name)) {
            entry.subtree = subtree;
        }
    }
}

fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (&[], path),
    }
}
