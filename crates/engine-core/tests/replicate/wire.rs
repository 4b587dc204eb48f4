//! Two pools with the same naming, and a link between them that counts, breaks and repeats.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use holdfast_engine_core::cancel::Cancel;
use holdfast_engine_core::counters::Counters;
use holdfast_engine_core::error::{Error, Result};
use holdfast_engine_core::far::receive::Reception;
use holdfast_engine_core::far::terms::Terms;
use holdfast_engine_core::far::{Far, Link, body, replicate};
use holdfast_engine_core::ids::Id;
use holdfast_engine_core::keys::NameKeys;
use holdfast_engine_core::manifest::Manifest;
use holdfast_engine_core::pool::{Pool, PoolConfig};
use holdfast_engine_core::store::memory::MemoryStore;
use holdfast_engine_core::store::{Store, list_sorted};

use crate::kit;

pub const OTHER_KEY: [u8; 32] = [9; 32];

pub struct Pools {
    pub source: Pool,
    pub source_store: Arc<MemoryStore>,
    pub target: Arc<Pool>,
    pub target_store: Arc<MemoryStore>,
}

pub fn sharing(store: Arc<dyn Store>, naming: &NameKeys, config: PoolConfig) -> Pool {
    Pool::create_sharing(store, &OTHER_KEY, config, 0, Some(naming), None).unwrap()
}

pub fn pools() -> Pools {
    let (source_store, target_store) = (Arc::new(MemoryStore::new()), Arc::new(MemoryStore::new()));
    let source = kit::create(Arc::clone(&source_store) as Arc<dyn Store>);
    let to = Arc::clone(&target_store) as Arc<dyn Store>;
    let target = Arc::new(sharing(to, source.keys().naming(), kit::config()));
    Pools { source, source_store, target, target_store }
}

/// Carries words, and counts; breaks at a call, or says things twice.
pub struct Wire {
    pub reception: Reception,
    pub image: Id,
    pub asked: AtomicU64,
    pub sent_chunks: AtomicU64,
    pub sent_bytes: AtomicU64,
    pub calls: AtomicUsize,
    pub fails_at: Option<usize>,
    pub twice: bool,
    pub source: Option<String>,
}

impl Wire {
    pub fn to(pool: &Arc<Pool>, image: &Manifest) -> Self {
        Wire {
            reception: Reception::begin(Arc::clone(pool), kit::now_ns()).unwrap(),
            image: image.id,
            asked: AtomicU64::new(0),
            sent_chunks: AtomicU64::new(0),
            sent_bytes: AtomicU64::new(0),
            calls: AtomicUsize::new(0),
            fails_at: None,
            twice: false,
            source: Some(image.source.name.clone()),
        }
    }

    fn call(&self) -> Result<()> {
        let call = self.calls.fetch_add(1, Ordering::SeqCst);
        match self.fails_at {
            Some(at) if call >= at => {
                let cause = Arc::new(std::io::Error::other("cut off"));
                Err(Error::Link { what: "the way to the media server", cause })
            }
            _ => Ok(()),
        }
    }

    pub fn asked(&self) -> u64 {
        self.asked.load(Ordering::SeqCst)
    }

    pub fn sent(&self) -> u64 {
        self.sent_chunks.load(Ordering::SeqCst)
    }
}

impl Link for Wire {
    fn missing(&self, names: &[u8]) -> Result<Vec<u8>> {
        self.call()?;
        self.asked.fetch_add((names.len() / 32) as u64, Ordering::SeqCst);
        self.reception.missing(names)
    }

    fn send(&self, bytes: Vec<u8>) -> Result<()> {
        self.call()?;
        let chunks: usize = body::parse(&bytes)?.iter().map(|block| block.chunks.len()).sum();
        self.sent_chunks.fetch_add(chunks as u64, Ordering::SeqCst);
        self.sent_bytes.fetch_add(bytes.len() as u64, Ordering::SeqCst);
        for _ in 0..=usize::from(self.twice) {
            self.reception.take(&bytes)?;
        }
        Ok(())
    }

    fn read(&self, _: &[u8]) -> Result<Vec<u8>> {
        panic!("a replication reads nothing from afar");
    }

    fn commit(&self, manifest: &[u8]) -> Result<Vec<u8>> {
        self.call()?;
        let adopt = || self.reception.adopt(manifest, &self.image, self.source.as_deref());
        let adopted = adopt()?;
        assert_eq!(adopt()?, adopted, "asked again");
        adopted.encode()
    }
}

pub fn send(
    wire: &Arc<Wire>,
    pool: &Pool,
    image: &Manifest,
    base: Option<&Manifest>,
) -> Result<Manifest> {
    let terms = Terms::decode(&wire.reception.terms().encode()).unwrap();
    let far = Far::new(terms, Arc::clone(wire) as Arc<dyn Link>);
    let counters = Counters::default();
    let done = replicate::run(&far, pool, &image.id, base, &counters, &Cancel::new())?;
    let seen = counters.snapshot();
    assert_eq!(seen.bytes_read, seen.bytes_total, "all that was to be done was counted as done");
    Ok(done)
}

/// Sends with a fresh reception, and says what travelled.
pub fn copy(pools: &Pools, image: &Manifest, base: Option<&Manifest>) -> Arc<Wire> {
    let wire = Arc::new(Wire::to(&pools.target, image));
    let base = base.map(|base| wire.reception.vouch(&base.id).unwrap().expect("it is there"));
    let copied = send(&wire, &pools.source, image, base.as_ref()).unwrap();
    assert_eq!(&copied, image);
    assert_eq!(&pools.target.image(&image.id).unwrap(), image);
    wire
}

/// Takes everything out of a store.
pub fn destroy(store: &MemoryStore) {
    for (key, _) in list_sorted(store, "").unwrap() {
        store.delete(&key).unwrap();
    }
}

pub fn chunks_of(pool: &Pool) -> u64 {
    pool.index().refresh().unwrap().len()
}
