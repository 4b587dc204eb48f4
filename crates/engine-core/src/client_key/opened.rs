//! A pool as whoever has a client key sees it: chunks that were sealed come in plain bytes.

use std::sync::Arc;

use super::ClientKey;
use super::chunk::ChunkOpener;
use crate::counters::Counters;
use crate::error::Result;
use crate::ids::{Kind, Name, Ref};
use crate::keys::NameKeys;
use crate::pool::ChunkBytes;
use crate::repository::{Repository, StoredAt};
use crate::tree::ChunkSource;

/// See the module. Everything but sealed data is as it is in the pool.
pub struct Opened<'a> {
    from: &'a dyn Repository,
    key: &'a ClientKey,
    opener: ChunkOpener,
}

impl<'a> Opened<'a> {
    pub fn new(from: &'a dyn Repository, key: &'a ClientKey) -> Self {
        Opened { from, key, opener: ChunkOpener::default() }
    }
}

impl Repository for Opened<'_> {
    fn naming(&self) -> &NameKeys {
        self.from.naming()
    }

    fn chunk(&self, kind: Kind, reference: &Ref, counters: &Counters) -> Result<ChunkBytes> {
        let stored = self.from.chunk(kind, reference, counters)?;
        if kind != Kind::Data || !reference.is_client_sealed() {
            return Ok(stored);
        }
        let plain = self.opener.open(self.key, reference, &stored)?;
        let length = plain.len();
        Ok(ChunkBytes::new(Arc::new(plain), 0..length))
    }

    fn prefetch(&self, kind: Kind, references: &[Ref], counters: &Counters) {
        self.from.prefetch(kind, references, counters);
    }

    fn stretch_bytes(&self) -> Option<u64> {
        self.from.stretch_bytes()
    }

    fn stored_at(&self, name: &Name) -> Option<StoredAt> {
        self.from.stored_at(name)
    }
}

impl ChunkSource for Opened<'_> {
    fn fetch(&self, kind: Kind, reference: &Ref) -> Result<Vec<u8>> {
        self.chunk(kind, reference, &Counters::default()).map(|bytes| bytes.to_vec())
    }
}
