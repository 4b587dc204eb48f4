//! Chunks in memory, for tests.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

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
