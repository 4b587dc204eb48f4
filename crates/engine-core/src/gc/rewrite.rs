//! Copies live chunks out of packs that are to go.
//!
//! A block that is live whole is sealed anew without being decompressed: its seal has just
//! proved it. So is a block with few dead bytes, for a little of a pack may stay dead
//! ([`SPARED_PERCENT`]). Of other blocks the live chunks are packed together; each is named again
//! first, so that damage is never carried on under a good seal.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use crate::codec::Decompressor;
use crate::counters::{Stage, add};
use crate::error::{Error, Result};
use crate::ids::PackId;
use crate::ingest::{self, BlockBuilder, Ingest};
use crate::pack::footer::{ChunkInfo, PackKind};
use crate::pack::reader::Pack;
use crate::pack::writer::Block;
use crate::reach::LiveSet;

use super::Collection;

/// The longest single read.
const RUN_BYTES: u64 = 4 << 20;
/// Blocks that lie at most this far apart are fetched in one read.
const GAP_BYTES: u64 = 64 << 10;
/// A live block below this part of the usual size is packed together with others.
const SMALL_PART: u32 = 4;
/// So much of a pack's bytes may stay dead when it is copied, in the blocks with the fewest dead:
/// they are spared being compressed again. Well below what all packs together may keep dead, so
/// that each collection that finds too much dead leaves less.
const SPARED_PERCENT: u64 = 2;
/// Each thread holds up to [`RUN_BYTES`] and some blocks.
const THREADS: usize = 8;

/// A block of which something is to be copied.
struct Wanted {
    number: usize,
    place: Range<u64>,
    /// Positions among the block's chunks.
    chunks: Vec<usize>,
}

impl Collection<'_> {
    /// Copies what is live in `packs` and nowhere outside `doomed`; bytes of the new packs.
    pub(super) fn rewrite(
        &self,
        packs: &[PackId],
        doomed: &HashSet<PackId>,
        live: &LiveSet,
    ) -> Result<u64> {
        if packs.is_empty() {
            return Ok(0);
        }
        let stored = &self.counters.bytes_stored;
        let before = stored.load(Ordering::Relaxed);
        let options = ingest::Options {
            counters: self.counters,
            cancel: self.cancel,
            level: self.request.level,
            marked: doomed.clone(),
            job: Some(self.job),
            claims: Arc::default(),
        };
        let next = AtomicUsize::new(0);
        let threads = std::thread::available_parallelism().map_or(2, usize::from).min(THREADS);
        ingest::run(self.pool, options, |ingest| {
            let work = || {
                let mut copier = Copier::new(self, ingest, live)?;
                while let Some(pack) = packs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    copier.copy(pack)?;
                }
                copier.finish()
            };
            std::thread::scope(|scope| {
                let running: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
                running.into_iter().try_for_each(|thread| {
                    let died = |_| Err(Error::Invalid("a copying thread died".into()));
                    thread.join().unwrap_or_else(died)
                })
            })
        })?;
        Ok(stored.load(Ordering::Relaxed) - before)
    }
}

struct Copier<'a> {
    collection: &'a Collection<'a>,
    ingest: &'a Ingest<'a>,
    live: &'a LiveSet,
    builders: [BlockBuilder; 2],
    compressor: crate::codec::Compressor,
    decompressor: Decompressor,
}

impl<'a> Copier<'a> {
    fn new(
        collection: &'a Collection<'a>,
        ingest: &'a Ingest<'a>,
        live: &'a LiveSet,
    ) -> Result<Self> {
        let limit = collection.pool.config().block_bytes;
        Ok(Copier {
            collection,
            ingest,
            live,
            builders: [BlockBuilder::new(limit), BlockBuilder::new(limit)],
            compressor: ingest.compressor()?,
            decompressor: Decompressor::new()?,
        })
    }

    fn copy(&mut self, id: &PackId) -> Result<()> {
        let pool = self.collection.pool;
        let pack = pool.pack(id)?;
        let wanted = self.wanted(&pack);
        let mut rest = &wanted[..];
        while let Some((run, after)) = next_run(rest) {
            self.ingest.check()?;
            let started = Instant::now();
            let length = (run.1.end - run.1.start) as usize;
            let mut bytes = pool.store().get_range(&id.key(), run.1.start, length)?;
            self.collection.counters.busy(Stage::Fetch, length as u64, started);
            add(&self.collection.counters.bytes_read, length as u64);
            for block in run.0 {
                let place = (block.place.start - run.1.start) as usize
                    ..(block.place.end - run.1.start) as usize;
                let sealed = bytes
                    .get_mut(place)
                    .ok_or_else(|| Error::integrity(id.key(), "a read came back short"))?;
                self.copy_block(&pack, block, sealed)?;
            }
            rest = after;
        }
        Ok(())
    }

    /// What of the pack is to be copied by this thread: live, or dead in a block that is spared,
    /// and claimed before all others.
    fn wanted(&self, pack: &Pack) -> Vec<Wanted> {
        let spared = self.spared(pack);
        let mut wanted = Vec::new();
        for (number, block) in pack.footer.blocks().iter().enumerate() {
            let is_spared = spared.contains(&number);
            let chunks: Vec<usize> = pack
                .footer
                .chunks_of(number)
                .enumerate()
                .filter(|(_, (_, chunk))| {
                    (is_spared || self.live.is_live(&chunk.name)) && self.ingest.claim(&chunk.name)
                })
                .map(|(at, _)| at)
                .collect();
            if !chunks.is_empty() {
                let place = block.offset..block.offset + u64::from(block.sealed_len);
                wanted.push(Wanted { number, place, chunks });
            }
        }
        wanted
    }

    /// Blocks of which something is dead that are copied as they are.
    fn spared(&self, pack: &Pack) -> HashSet<usize> {
        let blocks = pack.footer.blocks().iter().enumerate();
        let shares = blocks.map(|(number, block)| {
            let live = |(_, chunk): &(u32, &ChunkInfo)| self.live.is_live(&chunk.name);
            let live = pack.footer.chunks_of(number).filter(live);
            let live: u64 = live.map(|(_, chunk)| u64::from(chunk.length)).sum();
            (live, u64::from(block.plain_len))
        });
        spared(&shares.collect::<Vec<_>>())
    }

    fn copy_block(&mut self, pack: &Pack, wanted: &Wanted, sealed: &mut [u8]) -> Result<()> {
        let counters = self.collection.counters;
        let info = *pack.block(wanted.number)?;
        let started = Instant::now();
        let length = pack.unseal(wanted.number, sealed)?;
        let unsealed = counters.busy(Stage::Unseal, length as u64, started);
        let body = sealed.get(..length).unwrap_or_default();
        let whole = wanted.chunks.len() == info.chunk_count as usize;
        if whole && info.plain_len >= self.collection.pool.config().block_bytes / SMALL_PART {
            let chunks: Vec<ChunkInfo> =
                pack.footer.chunks_of(wanted.number).map(|(_, chunk)| *chunk).collect();
            let (codec, plain_len) = (info.codec, info.plain_len);
            let block = Block { body: body.to_vec(), codec, plain_len, chunks };
            return self.ingest.send_encoded(pack.footer.kind, block);
        }
        let plain = pack.decompress(wanted.number, body, &mut self.decompressor)?;
        counters.busy(Stage::Decompress, plain.len() as u64, unsealed);
        let mut chosen = wanted.chunks.iter().peekable();
        for (at, (offset, chunk)) in pack.footer.chunks_of(wanted.number).enumerate() {
            if chosen.next_if(|chosen| **chosen == at).is_none() {
                continue;
            }
            let from = offset as usize;
            let bytes = plain.get(from..from + chunk.length as usize).unwrap_or_default();
            if self.collection.pool.keys().name(chunk.kind, bytes) != chunk.name {
                let object = format!("chunk {} in {}", chunk.name, pack.id.key());
                return Err(Error::integrity(object, "its bytes have another name"));
            }
            self.push(chunk, bytes)?;
        }
        Ok(())
    }

    fn push(&mut self, chunk: &ChunkInfo, bytes: &[u8]) -> Result<()> {
        let kind = PackKind::of(chunk.kind);
        if !self.builders[kind as usize].fits(bytes.len()) {
            self.flush(kind)?;
        }
        self.builders[kind as usize].push(chunk.name, chunk.kind, bytes);
        Ok(())
    }

    fn flush(&mut self, kind: PackKind) -> Result<()> {
        let builder = &mut self.builders[kind as usize];
        if builder.is_empty() {
            return Ok(());
        }
        let (plain, chunks) = builder.take();
        self.ingest.send(kind, &plain, chunks, &mut self.compressor)?;
        self.builders[kind as usize].reuse(plain);
        Ok(())
    }

    fn finish(mut self) -> Result<()> {
        self.flush(PackKind::Data)?;
        self.flush(PackKind::Metadata)?;
        self.ingest.return_compressor(self.compressor);
        Ok(())
    }
}

/// The blocks to be spared of those with so many live of so many bytes: the ones with the least
/// dead, as many as [`SPARED_PERCENT`] allows, and none of which much is dead.
fn spared(shares: &[(u64, u64)]) -> HashSet<usize> {
    let all: u64 = shares.iter().map(|(_, bytes)| bytes).sum();
    let mut left = all.saturating_mul(SPARED_PERCENT) / 100;
    let mut mixed: Vec<(u64, usize)> = shares
        .iter()
        .enumerate()
        .filter(|(_, (live, bytes))| live < bytes && live.saturating_mul(4) >= bytes * 3)
        .map(|(number, (live, bytes))| (bytes - live, number))
        .collect();
    mixed.sort_unstable();
    let fits = |(dead, _): &(u64, usize)| {
        let fits = *dead <= left;
        left = left.saturating_sub(*dead);
        fits
    };
    mixed.into_iter().take_while(fits).map(|(_, number)| number).collect()
}

type Run<'w> = (&'w [Wanted], Range<u64>);

/// Blocks that one read fetches, and those that remain.
fn next_run(wanted: &[Wanted]) -> Option<(Run<'_>, &[Wanted])> {
    let first = wanted.first()?.place.clone();
    let mut range = first;
    let mut count = 1;
    for block in &wanted[1..] {
        if block.place.start.saturating_sub(range.end) > GAP_BYTES
            || block.place.end - range.start > RUN_BYTES
        {
            break;
        }
        range.end = block.place.end;
        count += 1;
    }
    let (run, rest) = wanted.split_at(count);
    Some(((run, range), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(shares: &[(u64, u64)]) -> Vec<usize> {
        let mut chosen: Vec<usize> = spared(shares).into_iter().collect();
        chosen.sort_unstable();
        chosen
    }

    #[test]
    fn blocks_with_the_fewest_dead_bytes_are_spared_within_the_bound() {
        let mut shares = vec![(1000, 1000); 90];
        shares.extend([(990, 1000), (500, 1000), (0, 1000), (980, 1000), (10, 1000)]);
        shares.extend([(1000, 1000); 5]);
        assert_eq!(chosen(&shares), [90, 93], "of others too little is live");
        shares[91] = (1500, 2000);
        assert_eq!(chosen(&shares), [90, 91, 93], "530 of the 2020 that may stay");
        shares[92] = (6000, 8000);
        assert_eq!(chosen(&shares), [90, 91, 93], "2000 more would be too many");
    }

    #[test]
    fn what_is_spared_is_never_more_than_may_stay() {
        for dead in 1..60 {
            let shares = vec![(1000 - dead, 1000); 40];
            let stays = dead * spared(&shares).len() as u64;
            assert!(stays <= 40_000 * SPARED_PERCENT / 100, "{dead}: {stays}");
        }
        assert_eq!(chosen(&[(999, 1000)]), [0]);
        assert_eq!(chosen(&[(900, 1000)]), [0; 0]);
        assert_eq!(chosen(&[]), [0; 0]);
    }
}
