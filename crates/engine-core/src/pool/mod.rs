//! A pool: one store, its keys, its index, and the reading of chunks. Writing goes through
//! [`crate::ingest`]; what is kept and what goes is decided elsewhere.

pub mod header;
mod images;
pub mod jobs;
pub mod marks;
mod numbers;
pub mod process;
mod read;
mod stats;

use std::path::Path;
use std::sync::Arc;

use crate::chunker::Chunker;
use crate::codec::Pace;
use crate::error::{Error, Result};
use crate::ids::Id;
use crate::index::Index;
use crate::keys::{NameKeys, PoolKeys};
use crate::store::Store;

pub use header::{Header, PoolConfig};
pub use read::ChunkBytes;
use read::Reading;
pub use stats::Stats;

/// An open pool. Share it between threads and verbs.
pub struct Pool {
    store: Arc<dyn Store>,
    keys: PoolKeys,
    header: Header,
    chunker: Chunker,
    index: Index,
    reading: Reading,
    pace: Pace,
}

impl Pool {
    /// Makes a pool in an empty store and opens it. The header is written last and only once:
    /// of two creators at a time one fails with `PoolExists`.
    pub fn create(
        store: Arc<dyn Store>,
        pool_key: &[u8; 32],
        config: PoolConfig,
        created_ns: i64,
        cache_dir: Option<&Path>,
    ) -> Result<Self> {
        Self::create_sharing(store, pool_key, config, created_ns, None, cache_dir)
    }

    /// As [`Pool::create`]; `naming` is that of the pools with which images are to be exchanged.
    pub fn create_sharing(
        store: Arc<dyn Store>,
        pool_key: &[u8; 32],
        config: PoolConfig,
        created_ns: i64,
        naming: Option<&NameKeys>,
        cache_dir: Option<&Path>,
    ) -> Result<Self> {
        let config = config.check()?;
        let mut keys = PoolKeys::derive(pool_key);
        let mut header = Header { id: Id::random()?, config, created_ns, naming: None };
        if let Some(naming) = naming {
            header = header.sharing(naming, &keys)?;
            keys = keys.with_naming(naming.clone());
        }
        if !store.put_if_absent(header::KEY, &header.encode(&keys))? {
            return Err(Error::PoolExists { place: store.place() });
        }
        Self::with_header(store, keys, header, cache_dir)
    }

    /// Opens a pool. `cache_dir` keeps copies of index segments of a remote store.
    pub fn open(
        store: Arc<dyn Store>,
        pool_key: &[u8; 32],
        cache_dir: Option<&Path>,
    ) -> Result<Self> {
        let bytes = Header::load(store.as_ref())?;
        let header = Header::decode(&store.place(), &bytes)?;
        let keys = PoolKeys::derive(pool_key);
        Header::prove(&bytes, &keys)?;
        let keys = header.open_naming(keys)?;
        Self::with_header(store, keys, header, cache_dir)
    }

    /// The header of the pool in a store, unproven: no key is needed.
    pub fn peek(store: &dyn Store) -> Result<Header> {
        Header::decode(&store.place(), &Header::load(store)?)
    }

    fn with_header(
        store: Arc<dyn Store>,
        keys: PoolKeys,
        header: Header,
        cache_dir: Option<&Path>,
    ) -> Result<Self> {
        let index = Index::load(Arc::clone(&store), keys.clone(), header.id, cache_dir)?;
        let chunker = Chunker::new(keys.naming(), header.config.chunks);
        let (reading, pace) = (Reading::default(), Pace::default());
        Ok(Pool { store, keys, header, chunker, index, reading, pace })
    }

    pub fn id(&self) -> Id {
        self.header.id
    }

    pub fn config(&self) -> &PoolConfig {
        &self.header.config
    }

    pub fn store(&self) -> &dyn Store {
        self.store.as_ref()
    }

    pub fn shared_store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.store)
    }

    pub fn keys(&self) -> &PoolKeys {
        &self.keys
    }

    pub fn index(&self) -> &Index {
        &self.index
    }

    pub fn chunker(&self) -> &Chunker {
        &self.chunker
    }
}
