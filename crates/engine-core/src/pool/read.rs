//! Reads chunks: index, pack footer, block, chunk. Nothing is handed on whose seal, name or
//! length is not right. Opened packs and decompressed blocks are kept for a while, since
//! neighbours are wanted together.

use std::ops::{Deref, Range};
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter};

use crate::codec::{Decompressor, Pace};
use crate::counters::{Counters, Stage};
use crate::error::{Error, Result};
use crate::ids::{Kind, Name, PackId, Ref};
use crate::index::Found;
use crate::keys::NameKeys;
use crate::pack::reader::Pack;
use crate::repository::{Repository, StoredAt};
use crate::tree::ChunkSource;

use super::Pool;

/// Decompressed blocks that are kept, in bytes.
const BLOCK_CACHE_BYTES: u64 = 32 << 20;
/// Opened packs that are kept; a footer is about 100 KiB.
const PACK_CACHE: usize = 256;
/// Blocks of one pack that lie at most this far apart are fetched in one read.
const GAP_BYTES: u64 = 128 << 10;
/// The longest single read.
const RUN_BYTES: u64 = 8 << 20;

type BlockKey = (PackId, u16);

#[derive(Clone)]
struct ByBytes;

impl Weighter<BlockKey, Arc<Vec<u8>>> for ByBytes {
    fn weight(&self, _key: &BlockKey, block: &Arc<Vec<u8>>) -> u64 {
        block.len() as u64 + 64
    }
}

/// What the reading side of a pool remembers.
pub(super) struct Reading {
    packs: Cache<PackId, Arc<Pack>>,
    blocks: Cache<BlockKey, Arc<Vec<u8>>, ByBytes>,
    decompressors: Mutex<Vec<Decompressor>>,
}

impl Default for Reading {
    fn default() -> Self {
        Reading {
            packs: Cache::new(PACK_CACHE),
            blocks: block_cache(),
            decompressors: Mutex::default(),
        }
    }
}

/// In few shards: each holds only its share of the bytes, and blocks are large.
fn block_cache() -> Cache<BlockKey, Arc<Vec<u8>>, ByBytes> {
    let options = OptionsBuilder::new()
        .estimated_items_capacity((BLOCK_CACHE_BYTES >> 20) as usize)
        .weight_capacity(BLOCK_CACHE_BYTES)
        .shards(1)
        // Blocks are wanted for a while and then no more: first in, first out.
        .hot_allocation(0.1)
        .build();
    match options {
        Ok(options) => Cache::with_options(
            options,
            ByBytes,
            DefaultHashBuilder::default(),
            DefaultLifecycle::default(),
        ),
        Err(_) => Cache::with_weighter(64, BLOCK_CACHE_BYTES, ByBytes),
    }
}

/// A chunk's plain bytes, shared with the block that they lie in.
#[derive(Clone)]
pub struct ChunkBytes {
    block: Arc<Vec<u8>>,
    range: Range<usize>,
}

impl ChunkBytes {
    /// `range` of a block.
    pub fn new(block: Arc<Vec<u8>>, range: Range<usize>) -> Self {
        ChunkBytes { block, range }
    }

    /// A part of it; nothing where it is not so long.
    #[must_use]
    pub fn part(self, part: Range<usize>) -> Self {
        let end = self.range.end.min(self.range.start + part.end);
        let start = end.min(self.range.start + part.start);
        ChunkBytes { block: self.block, range: start..end }
    }

    /// Takes in a chunk that lies right behind it in the same block; false if it does not.
    pub fn join(&mut self, next: &Self) -> bool {
        let joins = Arc::ptr_eq(&self.block, &next.block) && self.range.end == next.range.start;
        if joins {
            self.range.end = next.range.end;
        }
        joins
    }
}

impl Deref for ChunkBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.block.get(self.range.clone()).unwrap_or_default()
    }
}

impl Pool {
    /// The chunk's plain bytes, checked against its whole name and its length.
    ///
    /// An index that has become stale (packs were collected or rewritten meanwhile) is read again
    /// once. `ChunkMissing` when no pack holds the chunk; `Integrity` when what holds it is
    /// damaged.
    pub fn chunk(&self, kind: Kind, reference: &Ref, counters: &Counters) -> Result<ChunkBytes> {
        match self.try_chunk(kind, reference, counters) {
            Err(error) if error.is_missing() || matches!(error, Error::ChunkMissing { .. }) => {
                self.index().refresh()?;
                self.try_chunk(kind, reference, counters)
            }
            other => other,
        }
    }

    fn try_chunk(&self, kind: Kind, reference: &Ref, counters: &Counters) -> Result<ChunkBytes> {
        let index = self.index().snapshot();
        let mut failure = None;
        for found in index.candidates(&reference.name) {
            match self.chunk_in(&found, kind, reference, counters) {
                Ok(Some(bytes)) => return Ok(bytes),
                Ok(None) => {}
                Err(error) => {
                    failure.get_or_insert(error);
                }
            }
        }
        Err(failure.unwrap_or_else(|| Error::ChunkMissing { name: reference.name.to_string() }))
    }

    /// The chunk at this place; `None` if another chunk lies there.
    fn chunk_in(
        &self,
        found: &Found,
        kind: Kind,
        reference: &Ref,
        counters: &Counters,
    ) -> Result<Option<ChunkBytes>> {
        let pack = self.pack(&found.pack)?;
        let info = pack.footer.chunk_at(usize::from(found.block), found.offset);
        let Some(info) = info.filter(|info| info.name == reference.name && info.kind == kind)
        else {
            return Ok(None);
        };
        let wanted = reference.stored_length();
        if info.length != wanted {
            return Err(Error::integrity(
                format!("chunk {}", reference.name),
                format!("{} bytes stored, {wanted} wanted", info.length),
            ));
        }
        let block = self.block(&pack, found.block, counters)?;
        let start = found.offset as usize;
        let bytes = ChunkBytes { block, range: start..start + info.length as usize };
        let started = Instant::now();
        let named = self.keys().name(kind, &bytes) == reference.name;
        counters.busy(Stage::Decompress, 0, started);
        if named && bytes.len() == wanted as usize {
            Ok(Some(bytes))
        } else {
            Err(Error::integrity(
                format!("chunk {} in {}", reference.name, pack.id.key()),
                "its bytes have another name",
            ))
        }
    }

    /// An opened pack.
    pub fn pack(&self, id: &PackId) -> Result<Arc<Pack>> {
        self.reading.packs.get_or_insert_with(id, || {
            let pack = match self.index().pack(id) {
                Some(entry) => {
                    Pack::open(self.store(), self.keys(), *id, entry.size, entry.footer_len)
                }
                None => Pack::discover(self.store(), self.keys(), *id),
            };
            pack.map(Arc::new)
        })
    }

    fn block(&self, pack: &Pack, number: u16, counters: &Counters) -> Result<Arc<Vec<u8>>> {
        self.reading.blocks.get_or_insert_with(&(pack.id, number), || {
            let info = *pack.block(usize::from(number))?;
            let started = Instant::now();
            let mut sealed =
                self.store().get_range(&pack.id.key(), info.offset, info.sealed_len as usize)?;
            counters.busy(Stage::Fetch, sealed.len() as u64, started);
            self.open_block(pack, number, &mut sealed, counters).map(Arc::new)
        })
    }

    fn open_block(
        &self,
        pack: &Pack,
        number: u16,
        sealed: &mut [u8],
        counters: &Counters,
    ) -> Result<Vec<u8>> {
        let started = Instant::now();
        let length = pack.unseal(usize::from(number), sealed)?;
        let unsealed = counters.busy(Stage::Unseal, length as u64, started);
        let mut decompressor = match self.reading.decompressors.lock().pop() {
            Some(decompressor) => decompressor,
            None => Decompressor::new()?,
        };
        let body = sealed.get(..length).unwrap_or_default();
        let plain = pack.decompress(usize::from(number), body, &mut decompressor);
        self.reading.decompressors.lock().push(decompressor);
        let plain = plain?;
        counters.busy(Stage::Decompress, plain.len() as u64, unsealed);
        Ok(plain)
    }

    /// Brings the blocks of these chunks into the cache, with as few reads as their places
    /// allow. A problem is left for [`Pool::chunk`] to tell, with the chunk that it concerns.
    ///
    /// Does nothing where a read costs no more than the bytes that it brings: on local disks the
    /// system reads ahead, and two threads would only decompress the same blocks.
    pub fn fetch_ahead(&self, references: &[Ref], counters: &Counters) {
        if self.store().local_path(super::header::KEY).is_some() {
            return;
        }
        let index = self.index().snapshot();
        let mut wanted: Vec<BlockKey> = references
            .iter()
            .filter_map(|reference| index.lookup(&reference.name))
            .map(|found| (found.pack, found.block))
            .collect();
        wanted.dedup();
        wanted.sort_unstable();
        wanted.dedup();
        wanted.retain(|key| self.reading.blocks.peek(key).is_none());
        for group in wanted.chunk_by(|a, b| a.0 == b.0) {
            if group.len() < 2 {
                continue;
            }
            let _ = self.prefetch_pack(group, counters);
        }
    }

    /// Fetches blocks of one pack, sorted by number, into the cache.
    fn prefetch_pack(&self, keys: &[BlockKey], counters: &Counters) -> Result<()> {
        let Some((id, _)) = keys.first() else { return Ok(()) };
        let pack = self.pack(id)?;
        let numbers: Vec<u16> = keys.iter().map(|(_, number)| *number).collect();
        self.read_runs(&pack, &numbers, counters, |number, sealed| {
            let plain = self.open_block(&pack, number, sealed, counters)?;
            self.reading.blocks.insert((pack.id, number), Arc::new(plain));
            Ok(())
        })
    }

    /// Hands out blocks of one pack, sorted by number, as they are stored but for their seal: with
    /// as few reads as their places allow.
    pub fn stored_blocks(
        &self,
        pack: &Pack,
        numbers: &[u16],
        counters: &Counters,
        mut give: impl FnMut(u16, &[u8]) -> Result<()>,
    ) -> Result<()> {
        self.read_runs(pack, numbers, counters, |number, sealed| {
            let started = Instant::now();
            let length = pack.unseal(usize::from(number), sealed)?;
            counters.busy(Stage::Unseal, length as u64, started);
            give(number, sealed.get(..length).unwrap_or_default())
        })
    }

    /// How fast blocks are compressed here for those who read them from afar.
    pub fn pace(&self) -> &Pace {
        &self.pace
    }

    /// Reads sealed blocks of one pack in runs.
    fn read_runs(
        &self,
        pack: &Pack,
        numbers: &[u16],
        counters: &Counters,
        mut give: impl FnMut(u16, &mut [u8]) -> Result<()>,
    ) -> Result<()> {
        let mut run: Vec<(u16, Range<u64>)> = Vec::new();
        for number in numbers {
            let info = pack.block(usize::from(*number))?;
            let range = info.offset..info.offset + u64::from(info.sealed_len);
            let joins = match (run.first(), run.last()) {
                (Some((_, first)), Some((_, last))) => {
                    range.start.saturating_sub(last.end) <= GAP_BYTES
                        && range.end - first.start <= RUN_BYTES
                }
                _ => true,
            };
            if !joins {
                self.read_run(pack, &run, counters, &mut give)?;
                run.clear();
            }
            run.push((*number, range));
        }
        self.read_run(pack, &run, counters, &mut give)
    }

    fn read_run(
        &self,
        pack: &Pack,
        run: &[(u16, Range<u64>)],
        counters: &Counters,
        give: &mut impl FnMut(u16, &mut [u8]) -> Result<()>,
    ) -> Result<()> {
        let (Some((_, first)), Some((_, last))) = (run.first(), run.last()) else {
            return Ok(());
        };
        let started = Instant::now();
        let length = (last.end - first.start) as usize;
        let mut bytes = self.store().get_range(&pack.id.key(), first.start, length)?;
        counters.busy(Stage::Fetch, length as u64, started);
        for (number, range) in run {
            let place = (range.start - first.start) as usize..(range.end - first.start) as usize;
            if let Some(sealed) = bytes.get_mut(place) {
                give(*number, sealed)?;
            }
        }
        Ok(())
    }

    /// Keeps so many bytes of decompressed blocks, rather than few: for whoever reads here and
    /// there for long, as a machine that starts from its image does.
    pub fn keep_blocks(&self, bytes: u64) {
        self.reading.blocks.set_capacity(bytes.max(BLOCK_CACHE_BYTES));
    }

    /// Forgets opened packs and blocks, so that the next read sees what the store holds now.
    pub fn forget(&self) {
        self.reading.packs.clear();
        self.reading.blocks.clear();
    }
}

impl Repository for Pool {
    fn naming(&self) -> &NameKeys {
        self.keys().naming()
    }

    fn chunk(&self, kind: Kind, reference: &Ref, counters: &Counters) -> Result<ChunkBytes> {
        Pool::chunk(self, kind, reference, counters)
    }

    fn prefetch(&self, _kind: Kind, references: &[Ref], counters: &Counters) {
        self.fetch_ahead(references, counters);
    }

    fn stretch_bytes(&self) -> Option<u64> {
        None
    }

    fn stored_at(&self, name: &Name) -> Option<StoredAt> {
        let found = self.index().lookup(name)?;
        Some((found.pack, found.block, found.offset))
    }
}

impl ChunkSource for Pool {
    fn fetch(&self, kind: Kind, reference: &Ref) -> Result<Vec<u8>> {
        self.shared(kind, reference).map(|bytes| bytes.to_vec())
    }

    fn shared(&self, kind: Kind, reference: &Ref) -> Result<ChunkBytes> {
        self.chunk(kind, reference, &Counters::default())
    }

    fn ahead(&self, _kind: Kind, references: &[Ref]) {
        self.fetch_ahead(references, &Counters::default());
    }
}
