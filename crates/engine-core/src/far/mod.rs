//! A pool that is reached through somebody else: a client, which cuts, names and compresses but
//! can neither open nor remove what is stored, and a media server, which has the pool.
//!
//! Knows no network: the client is given a [`Link`], the media server answers what comes over it.
//! Bytes that pass between them: `docs/formats/transfer.md`.

mod adopt;
pub mod backup;
pub mod body;
mod claimed;
mod compressing;
pub mod deliver;
pub mod open;
mod outgoing;
mod questions;
pub mod receive;
pub mod replicate;
pub mod restore;
mod sending;
pub mod terms;
pub mod trees;
mod whole;

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter};

use crate::chunker::{ChunkSizes, Chunker};
use crate::client_key::Sealing;
use crate::codec::Decompressor;
use crate::counters::{Counters, Stage};
use crate::error::{Error, Result};
use crate::ids::{CLIENT_SEAL_BYTES, Id, Kind, Name, Ref};
use crate::keys::NameKeys;
use crate::pool::ChunkBytes;
use crate::repository::{Repository, StoredAt};
use crate::tree::ChunkSource;

pub use compressing::Compress;
use terms::Terms;
use trees::Trees;

/// Chunks that were fetched and are wanted soon, in bytes.
const NEAR_BYTES: u64 = 96 << 20;
/// Chunks of so many plain bytes are asked for at a time: the more they are, the more blocks are asked
/// for whole, and come as they are stored. Fewer where many threads ask, so that what one of them
/// fetched is not let go before it is used.
const STRETCH_BYTES: RangeInclusive<u64> = 2 << 20..=8 << 20;
/// No more chunks are asked for at a time.
const STRETCH_CHUNKS: usize = 4096;
/// How often the other side hears that there is still somebody, while nothing else is to be said.
const SIGN_EVERY: Duration = Duration::from_secs(60);

/// What carries questions and blocks to the media server. Called from many threads at once; may
/// try again by itself, since everything may be said twice.
pub trait Link: Send + Sync {
    /// Which of these chunks the pool lacks: names of 32 bytes laid end to end; the answer has a
    /// bit for each, the lowest of the first byte for the first name.
    fn missing(&self, names: &[u8]) -> Result<Vec<u8>>;

    /// Hands over a body of blocks; the other side has it when an image is committed, at the latest.
    fn send(&self, body: Vec<u8>) -> Result<()>;

    /// A body of blocks with the chunks that are wanted; see [`deliver::Wanted`].
    fn read(&self, wanted: &[u8]) -> Result<Vec<u8>>;

    /// Has an image committed; its manifest as it became.
    fn commit(&self, draft: &[u8]) -> Result<Vec<u8>>;
}

#[derive(Clone)]
struct ByBytes;

impl Weighter<Name, ChunkBytes> for ByBytes {
    fn weight(&self, _name: &Name, chunk: &ChunkBytes) -> u64 {
        chunk.len() as u64 + 64
    }
}

/// A pool far away, as a client has it.
pub struct Far {
    terms: Terms,
    chunker: Chunker,
    link: Arc<dyn Link>,
    near: Cache<Name, ChunkBytes, ByBytes>,
    stretch_bytes: AtomicU64,
    decompressors: Mutex<Vec<Decompressor>>,
    trees: Option<Trees>,
    sealing: Option<Sealing>,
    compress: Compress,
    sign_every: Duration,
}

impl Far {
    /// `terms` are what the media server said of the pool.
    pub fn new(terms: Terms, link: Arc<dyn Link>) -> Self {
        let chunker = Chunker::new(&terms.naming, terms.chunks);
        Far {
            terms,
            chunker,
            link,
            near: near_cache(),
            stretch_bytes: AtomicU64::new(*STRETCH_BYTES.start()),
            decompressors: Mutex::default(),
            trees: None,
            sealing: None,
            compress: Compress::Here,
            sign_every: SIGN_EVERY,
        }
    }

    /// As whoever has a client key uses it: what is backed up is sealed, what is restored opened.
    /// `Unsupported` where the pool's chunks differ too little in length.
    pub fn sealing(self, sealing: Sealing) -> Result<Self> {
        let sizes = self.terms.chunks;
        // Sealed, a chunk is still none that is too long for the pool.
        let max = sizes.max.saturating_sub(CLIENT_SEAL_BYTES) & !1;
        let sizes = ChunkSizes { max, ..sizes }.check().map_err(|_| {
            Error::Unsupported("client keys in a pool whose chunks are nearly of one length".into())
        })?;
        let chunker = Chunker::new(&self.terms.naming.with_gear(sealing.key.gear()), sizes);
        Ok(Far { chunker, sealing: Some(sealing), ..self })
    }

    /// With signs of life as often as that.
    #[must_use]
    pub fn signing_every(self, sign_every: Duration) -> Self {
        Far { sign_every, ..self }
    }

    /// Where new data is compressed; elsewhere than here only if the media server said that it does.
    #[must_use]
    pub fn compressing(self, compress: Compress) -> Self {
        Far { compress, ..self }
    }

    /// With directories that were seen in earlier backups.
    #[must_use]
    pub fn remembering(self, trees: Trees) -> Self {
        Far { trees: Some(trees), ..self }
    }

    /// Keeps a directory for the next backup, where such are kept.
    fn remember(&self, kind: Kind, name: Name, bytes: &[u8]) {
        if let (Kind::Tree, Some(trees)) = (kind, &self.trees) {
            trees.put(name, bytes);
        }
    }

    fn remembered(&self, kind: Kind, reference: &Ref) -> Option<ChunkBytes> {
        let trees = self.trees.as_ref().filter(|_| kind == Kind::Tree)?;
        let bytes = trees.get(reference, &self.terms.naming)?;
        let length = bytes.len();
        Some(ChunkBytes::new(Arc::new(bytes), 0..length))
    }

    /// Whether asking for it brings it from afar.
    fn is_away(&self, kind: Kind, name: &Name) -> bool {
        let trees = self.trees.as_ref().filter(|_| kind == Kind::Tree);
        !self.near.contains_key(name) && !trees.is_some_and(|trees| trees.has(name))
    }

    /// Has as much asked for at a time as is good where so many threads read.
    fn read_by(&self, threads: usize) {
        let each = NEAR_BYTES / 2 / threads.max(1) as u64;
        let stretch_bytes = each.clamp(*STRETCH_BYTES.start(), *STRETCH_BYTES.end());
        self.stretch_bytes.store(stretch_bytes, Ordering::Relaxed);
    }

    pub fn pool_id(&self) -> Id {
        self.terms.pool
    }

    /// Asks for chunks and keeps those that come, each only if it has its name; the first of them,
    /// if it came. What is kept may be let go at any time.
    fn bring(
        &self,
        kind: Kind,
        references: &[Ref],
        counters: &Counters,
    ) -> Result<Option<ChunkBytes>> {
        let mut first = None;
        let started = Instant::now();
        let body = self.link.read(&deliver::Wanted::encode(kind, references))?;
        let mut now = counters.busy(Stage::Fetch, body.len() as u64, started);
        let mut decompressor = match self.decompressors.lock().pop() {
            Some(decompressor) => decompressor,
            None => Decompressor::new()?,
        };
        for block in body::parse(&body)? {
            let plain = Arc::new(block.decode(&self.terms.naming, &mut decompressor)?);
            let mut from = 0;
            for chunk in &block.chunks {
                let upto = from + chunk.length as usize;
                let bytes = ChunkBytes::new(Arc::clone(&plain), from..upto);
                self.remember(chunk.kind, chunk.name, &bytes);
                if references.first().is_some_and(|wanted| wanted.name == chunk.name) {
                    first = Some(bytes.clone());
                }
                self.near.insert(chunk.name, bytes);
                from = upto;
            }
            now = counters.busy(Stage::Decompress, plain.len() as u64, now);
        }
        self.decompressors.lock().push(decompressor);
        Ok(first)
    }
}

/// In one shard: chunks are wanted for a while and then no more, first in, first out.
fn near_cache() -> Cache<Name, ChunkBytes, ByBytes> {
    let options = OptionsBuilder::new()
        .estimated_items_capacity((NEAR_BYTES >> 15) as usize)
        .weight_capacity(NEAR_BYTES)
        .shards(1)
        .hot_allocation(0.1)
        .build();
    match options {
        Ok(options) => Cache::with_options(
            options,
            ByBytes,
            DefaultHashBuilder::default(),
            DefaultLifecycle::default(),
        ),
        Err(_) => Cache::with_weighter(4096, NEAR_BYTES, ByBytes),
    }
}

impl Repository for Far {
    fn naming(&self) -> &NameKeys {
        &self.terms.naming
    }

    fn chunk(&self, kind: Kind, reference: &Ref, counters: &Counters) -> Result<ChunkBytes> {
        if let Some(found) = self.remembered(kind, reference) {
            return Ok(found);
        }
        let missing = || Error::ChunkMissing { name: reference.name.to_string() };
        let found = match self.near.get(&reference.name) {
            Some(found) => found,
            None => {
                let came = self.bring(kind, std::slice::from_ref(reference), counters)?;
                came.ok_or_else(missing)?
            }
        };
        if found.len() == reference.stored_length() as usize {
            Ok(found)
        } else {
            Err(Error::integrity(
                format!("chunk {}", reference.name),
                format!("{} bytes stored, {} wanted", found.len(), reference.stored_length()),
            ))
        }
    }

    fn prefetch(&self, kind: Kind, references: &[Ref], counters: &Counters) {
        let stretch_bytes = self.stretch_bytes.load(Ordering::Relaxed);
        let mut wanted = Vec::with_capacity(references.len());
        let mut bytes = 0;
        for reference in references {
            if !self.is_away(kind, &reference.name) {
                continue;
            }
            wanted.push(*reference);
            bytes += u64::from(reference.stored_length());
            if bytes >= stretch_bytes || wanted.len() == STRETCH_CHUNKS {
                let _ = self.bring(kind, &wanted, counters);
                wanted.clear();
                bytes = 0;
            }
        }
        if wanted.len() > 1 {
            let _ = self.bring(kind, &wanted, counters);
        }
    }

    fn stretch_bytes(&self) -> Option<u64> {
        Some(self.stretch_bytes.load(Ordering::Relaxed))
    }

    fn stored_at(&self, _name: &Name) -> Option<StoredAt> {
        None
    }
}

impl ChunkSource for Far {
    fn fetch(&self, kind: Kind, reference: &Ref) -> Result<Vec<u8>> {
        self.shared(kind, reference).map(|bytes| bytes.to_vec())
    }

    fn shared(&self, kind: Kind, reference: &Ref) -> Result<ChunkBytes> {
        self.chunk(kind, reference, &Counters::default())
    }

    fn ahead(&self, kind: Kind, references: &[Ref]) {
        self.prefetch(kind, references, &Counters::default());
    }
}
