//! Where the chunks of a tree of several images come from.

use std::sync::Arc;

use super::made::{MadeTrees, Part};
use crate::client_key::ClientKey;
use crate::client_key::chunk::ChunkOpener;
use crate::error::{Error, Result};
use crate::ids::{Kind, Ref};
use crate::pool::ChunkBytes;
use crate::tree::ChunkSource;

/// The pools of the images, what is made of them, and what opens sealed data.
pub(super) struct Source {
    pools: Pools,
    made: MadeTrees,
    keys: Vec<Arc<ClientKey>>,
    /// No data is in the open.
    all_sealed: bool,
    opener: ChunkOpener,
}

impl Source {
    pub(super) fn new(
        pools: Vec<Arc<dyn ChunkSource>>,
        keys: Vec<Arc<ClientKey>>,
        all_sealed: bool,
    ) -> Result<Self> {
        let (made, opener) = (MadeTrees::new()?, ChunkOpener::default());
        Ok(Source { pools: Pools(pools), made, keys, all_sealed, opener })
    }

    /// See [`MadeTrees::joined`].
    pub(super) fn joined(&self, parts: Vec<Part>) -> Option<Ref> {
        self.made.joined(parts)
    }

    fn open(&self, reference: &Ref, stored: &[u8]) -> Result<Vec<u8>> {
        let mut failed = None;
        for key in &self.keys {
            match self.opener.open(key, reference, stored) {
                Ok(plain) => return Ok(plain),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        let chunk = format!("chunk {}", reference.name);
        Err(failed.unwrap_or_else(|| Error::integrity(chunk, "a client sealed it")))
    }
}

impl ChunkSource for Source {
    fn fetch(&self, kind: Kind, reference: &Ref) -> Result<Vec<u8>> {
        if kind == Kind::Tree
            && let Some(bytes) = self.made.object(reference, &self.pools)?
        {
            return Ok(bytes);
        }
        self.shared(kind, reference).map(|bytes| bytes.to_vec())
    }

    fn shared(&self, kind: Kind, reference: &Ref) -> Result<ChunkBytes> {
        let stored = self.pools.shared(kind, reference)?;
        if kind != Kind::Data {
            return Ok(stored);
        }
        if reference.is_client_sealed() {
            let plain = self.open(reference, &stored)?;
            let length = plain.len();
            return Ok(ChunkBytes::new(Arc::new(plain), 0..length));
        }
        if self.all_sealed {
            let chunk = format!("chunk {}", reference.name);
            return Err(Error::integrity(chunk, "no client key sealed it"));
        }
        Ok(stored)
    }

    fn ahead(&self, kind: Kind, references: &[Ref]) {
        self.pools.ahead(kind, references);
    }
}

/// Several pools that name chunks alike: what one has not, or can't read, another one may have.
struct Pools(Vec<Arc<dyn ChunkSource>>);

impl Pools {
    fn first<T>(&self, ask: impl Fn(&dyn ChunkSource) -> Result<T>) -> Result<T> {
        let mut failed = None;
        for pool in &self.0 {
            match ask(&**pool) {
                Ok(found) => return Ok(found),
                // That a pool has it not says less than that one has it and can't read it.
                Err(error) if failed.is_none() || !is_missing(&error) => failed = Some(error),
                Err(_) => {}
            }
        }
        Err(failed.unwrap_or_else(|| Error::Invalid("a tree of no pool".into())))
    }
}

fn is_missing(error: &Error) -> bool {
    matches!(error, Error::ChunkMissing { .. })
}

impl ChunkSource for Pools {
    fn fetch(&self, kind: Kind, reference: &Ref) -> Result<Vec<u8>> {
        self.first(|pool| pool.fetch(kind, reference))
    }

    fn shared(&self, kind: Kind, reference: &Ref) -> Result<ChunkBytes> {
        self.first(|pool| pool.shared(kind, reference))
    }

    fn ahead(&self, kind: Kind, references: &[Ref]) {
        for pool in &self.0 {
            pool.ahead(kind, references);
        }
    }
}

/// What two trees have, for comparing them.
pub(super) struct Either(pub Arc<Source>, pub Arc<Source>);

impl ChunkSource for Either {
    fn fetch(&self, kind: Kind, reference: &Ref) -> Result<Vec<u8>> {
        let Either(one, other) = self;
        match one.fetch(kind, reference) {
            Err(error) if is_missing(&error) => other.fetch(kind, reference),
            found => found,
        }
    }
}
