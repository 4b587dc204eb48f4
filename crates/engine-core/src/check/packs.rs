//! Reads packs: footers always, blocks if asked for.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use crate::codec::Decompressor;
use crate::counters::{Stage, add};
use crate::error::{Error, Result};
use crate::index::{PackEntry, Place, Snapshot};
use crate::pack::HEADER_LEN;
use crate::pack::reader::Pack;
use crate::reach::LiveSet;

use super::Check;
use super::damage::Damage;
use super::index::Matched;

/// The longest single read, unless a block is longer.
const RUN_BYTES: u64 = 8 << 20;
const THREADS: usize = 16;

/// What is asked of each pack.
pub(super) struct Examination<'a> {
    pub snapshot: &'a Snapshot,
    /// Only blocks with chunks of this set are read; `None`: every byte of the pack.
    pub live: Option<&'a LiveSet>,
    /// To be compared with the index.
    pub matched: Option<&'a Matched>,
}

impl Check<'_> {
    /// Examines packs by several threads; how many chunks they have.
    pub(super) fn examine(
        &self,
        packs: &[PackEntry],
        wanted: &Examination<'_>,
        damage: &Damage,
    ) -> Result<u64> {
        let whole = wanted.live.is_none() && self.request.read_data;
        let size = |pack: &PackEntry| if whole { pack.size } else { u64::from(pack.footer_len) };
        add(&self.counters.bytes_total, packs.iter().map(size).sum());
        let (next, chunks) = (AtomicUsize::new(0), AtomicU64::new(0));
        let work = || -> Result<()> {
            let mut reader =
                Reader { check: self, wanted, damage, decompressor: Decompressor::new()? };
            while let Some(pack) = packs.get(next.fetch_add(1, Ordering::Relaxed)) {
                self.cancel.check()?;
                chunks.fetch_add(reader.pack(pack)?, Ordering::Relaxed);
            }
            Ok(())
        };
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        std::thread::scope(|scope| {
            let threads = (cores * 2).min(THREADS).min(packs.len());
            let running: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            running.into_iter().try_for_each(|thread| {
                let died = |_| Err(Error::Invalid("a checking thread died".into()));
                thread.join().unwrap_or_else(died)
            })
        })?;
        Ok(chunks.into_inner())
    }
}

struct Reader<'a> {
    check: &'a Check<'a>,
    wanted: &'a Examination<'a>,
    damage: &'a Damage,
    decompressor: Decompressor,
}

impl Reader<'_> {
    /// Chunks of the pack.
    fn pack(&mut self, entry: &PackEntry) -> Result<u64> {
        let (pool, key) = (self.check.pool, entry.id.key());
        let opened = Pack::open(pool.store(), pool.keys(), entry.id, entry.size, entry.footer_len);
        let pack = match opened {
            Ok(pack) => pack,
            Err(error) => {
                self.damage.pack(entry.id);
                return self.check.problem(&key, error).map(|()| 0);
            }
        };
        self.check.read(entry.footer_len as usize + HEADER_LEN);
        if pack.footer.kind as u8 != entry.kind {
            let message = "it is of another kind than the index says";
            self.check.findings.error(key.as_bytes(), "index-disagrees", message);
        }
        if let Some(matched) = self.wanted.matched {
            self.compare(&pack, matched);
        }
        if self.check.request.read_data {
            self.data(&pack)?;
        }
        Ok(pack.footer.chunks().len() as u64)
    }

    fn compare(&self, pack: &Pack, matched: &Matched) {
        let mut unknown = 0;
        for block in 0..pack.footer.blocks().len() {
            for (offset, chunk) in pack.footer.chunks_of(block) {
                let place = Place { block: block as u16, offset, length: chunk.length };
                unknown += u64::from(!matched.find(self.wanted.snapshot, &pack.id, chunk, place));
            }
        }
        if unknown > 0 {
            let message = format!("no index segment lists {unknown} of its chunks");
            self.check.findings.error(pack.id.key().as_bytes(), "index-incomplete", message);
        }
    }

    fn data(&mut self, pack: &Pack) -> Result<()> {
        let key = pack.id.key();
        // Whoever reads all of it can name it, too; that finds damage between the blocks.
        let mut name = self.wanted.live.is_none().then(blake3::Hasher::new);
        if let Some(name) = &mut name {
            match self.check.pool.store().get_range(&key, 0, HEADER_LEN) {
                Ok(header) => name.update(&header),
                Err(error) => return self.check.problem(&key, error),
            };
        }
        let (mut from, mut sound) = (0, true);
        while from < pack.footer.blocks().len() {
            self.check.cancel.check()?;
            let (to, range) = self.run(pack, from);
            if let Some(range) = range {
                sound &= self.blocks(pack, from..to, range, &mut name)?;
            }
            from = to;
        }
        if let Some(mut name) = name {
            let end = pack.footer.blocks_end();
            match self.check.pool.store().get_range(&key, end, (pack.size - end) as usize) {
                Ok(tail) => name.update(&tail),
                Err(error) => return self.check.problem(&key, error),
            };
            // A block that was told of explains another name.
            if sound && *name.finalize().as_bytes() != pack.id.0 {
                let message = "its bytes have another name";
                self.check.findings.error(key.as_bytes(), "pack-damaged", message);
            }
        }
        Ok(())
    }

    /// Where the run of blocks that begins at `from` ends, and its bytes; no bytes for a block
    /// that nobody asks for.
    fn run(&self, pack: &Pack, from: usize) -> (usize, Option<Range<u64>>) {
        let mut range: Option<Range<u64>> = None;
        for (at, block) in pack.footer.blocks().iter().enumerate().skip(from) {
            let end = block.offset + u64::from(block.sealed_len);
            let full = range.as_ref().is_some_and(|range| end - range.start > RUN_BYTES);
            if full || !self.is_wanted(pack, at) {
                let to = if range.is_none() { at + 1 } else { at };
                return (to, range);
            }
            range = Some(range.map_or(block.offset, |range| range.start)..end);
        }
        (pack.footer.blocks().len(), range)
    }

    fn is_wanted(&self, pack: &Pack, block: usize) -> bool {
        self.wanted.live.is_none_or(|live| {
            pack.footer.chunks_of(block).any(|(_, chunk)| live.is_live(&chunk.name))
        })
    }

    /// Reads a run of blocks; whether all were sound.
    fn blocks(
        &mut self,
        pack: &Pack,
        blocks: Range<usize>,
        range: Range<u64>,
        name: &mut Option<blake3::Hasher>,
    ) -> Result<bool> {
        let (key, counters) = (pack.id.key(), self.check.counters);
        let started = Instant::now();
        let length = (range.end - range.start) as usize;
        let mut bytes = match self.check.pool.store().get_range(&key, range.start, length) {
            Ok(bytes) => bytes,
            Err(error) => {
                blocks.for_each(|block| self.damaged(pack, block));
                return self.check.problem(&key, error).map(|()| false);
            }
        };
        counters.busy(Stage::Fetch, length as u64, started);
        self.check.read(length);
        if let Some(name) = name {
            name.update(&bytes);
        }
        let mut sound = true;
        for block in blocks {
            let info = *pack.block(block)?;
            let start = (info.offset - range.start) as usize;
            let sealed = bytes.get_mut(start..start + info.sealed_len as usize);
            let examined = match sealed {
                Some(sealed) => self.block(pack, block, sealed),
                None => Err(Error::integrity(&key, "a read came back short")),
            };
            if let Err(error) = examined {
                self.damaged(pack, block);
                self.check.problem(&key, error)?;
                sound = false;
            }
        }
        Ok(sound)
    }

    /// Unseals, decompresses and names one block's chunks.
    fn block(&mut self, pack: &Pack, block: usize, sealed: &mut [u8]) -> Result<()> {
        let counters = self.check.counters;
        let started = Instant::now();
        let length = pack.unseal(block, sealed)?;
        let unsealed = counters.busy(Stage::Unseal, length as u64, started);
        let body = sealed.get(..length).unwrap_or_default();
        let plain = pack.decompress(block, body, &mut self.decompressor)?;
        let opened = counters.busy(Stage::Decompress, plain.len() as u64, unsealed);
        for (offset, chunk) in pack.footer.chunks_of(block) {
            let start = offset as usize;
            let bytes = plain.get(start..start + chunk.length as usize).unwrap_or_default();
            if self.check.pool.keys().name(chunk.kind, bytes) != chunk.name {
                let reason = format!("block {block}: chunk {} has another name", chunk.name);
                return Err(Error::integrity(pack.id.key(), reason));
            }
        }
        counters.busy(Stage::Hash, plain.len() as u64, opened);
        Ok(())
    }

    /// Remembers the chunks of a block that have no other place.
    fn damaged(&self, pack: &Pack, block: usize) {
        for (_, chunk) in pack.footer.chunks_of(block) {
            if self.wanted.snapshot.positions(&chunk.name).count() < 2 {
                self.damage.chunk(&chunk.name);
            }
        }
    }
}
