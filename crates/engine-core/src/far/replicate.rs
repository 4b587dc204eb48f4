//! An image of a pool that is here goes to another pool, under the same id: what that lacks travels,
//! as it is compressed already, and the manifest as it stands.
//!
//! Both pools name chunks alike. Memory: two bits for each record of the index, names of packs, and
//! for each thread one question and one read.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use crossbeam_channel::{Sender, bounded};
use parking_lot::Mutex;

use crate::cancel::Cancel;
use crate::codec::{Codec, Compressor, Decompressor};
use crate::counters::{Counters, Stage, add};
use crate::error::{Error, Result};
use crate::ids::{Id, PackId, Ref};
use crate::index::Snapshot;
use crate::manifest::Manifest;
use crate::pack::footer::{BlockInfo, ChunkInfo};
use crate::pack::reader::Pack;
use crate::pool::Pool;
use crate::reach::{LiveSet, Root, Stop, Tally, vouch, walk};

use super::questions::Batch;
use super::receive::Reception;
use super::sending::{SENDERS, Shared};
use super::{Far, Link};

/// Threads that ask, read and pick out.
const WORKERS: usize = 4;
/// A question is asked when it is about so many chunks, or so many stored bytes.
const QUESTION_CHUNKS: usize = 2048;
const QUESTION_BYTES: u64 = 32 << 20;
/// Blocks that lie at most this far apart are read at once, up to so many bytes.
const GAP_BYTES: u64 = 128 << 10;
const RUN_BYTES: u64 = 4 << 20;
/// How chunks are compressed that are picked out of their blocks.
const LEVEL: i32 = 2;
/// What a collection took away meanwhile, or what is damaged in one pack, may be elsewhere.
const ATTEMPTS: usize = 3;

/// Sends an image; its manifest as it stands in the other pool. `base`: an image of which the other
/// pool has everything for as long as this takes.
pub fn run(
    far: &Far,
    pool: &Pool,
    image: &Id,
    base: Option<&Manifest>,
    counters: &Counters,
    cancel: &Cancel,
) -> Result<Manifest> {
    require_alike(far, pool)?;
    let manifest = pool.image(image)?;
    let base = base.filter(|_| far.terms.may_reuse).and_then(|base| base.root.subtree);
    if let Some(tree) = manifest.root.subtree {
        let work = Work { far, pool, manifest: &manifest, tree, base, counters, cancel };
        work.until_sent()?;
    }
    cancel.check()?;
    let committed = Manifest::decode(&far.link.commit(&manifest.encode()?)?)?;
    if committed == manifest {
        Ok(committed)
    } else {
        Err(Error::integrity(format!("image {image}"), "it is another one in the other pool"))
    }
}

/// As [`run`], into a pool that is here, too.
pub fn between(
    pool: &Pool,
    target: Arc<Pool>,
    image: &Id,
    base: Option<&Id>,
    started_ns: i64,
    counters: &Counters,
    cancel: &Cancel,
) -> Result<Manifest> {
    let reception = Reception::begin(target, started_ns)?;
    let terms = reception.terms();
    let base = match (reception.vouch(image)?, base) {
        (None, Some(base)) => reception.vouch(base)?,
        (itself, _) => itself,
    };
    let far = Far::new(terms, Arc::new(Beside { reception, image: *image }));
    run(&far, pool, image, base.as_ref(), counters, cancel)
}

/// The link to a pool in this process.
struct Beside {
    reception: Reception,
    image: Id,
}

impl Link for Beside {
    fn missing(&self, names: &[u8]) -> Result<Vec<u8>> {
        self.reception.missing(names)
    }

    fn send(&self, body: Vec<u8>) -> Result<()> {
        self.reception.take(&body)
    }

    fn read(&self, _wanted: &[u8]) -> Result<Vec<u8>> {
        Err(Error::Unsupported("reading over this link".into()))
    }

    fn commit(&self, manifest: &[u8]) -> Result<Vec<u8>> {
        self.reception.adopt(manifest, &self.image, None)?.encode()
    }
}

fn require_alike(far: &Far, pool: &Pool) -> Result<()> {
    let (from, to) = (pool.id(), far.terms.pool);
    let (longest, most) = (pool.config().chunks.max, far.terms.chunks.max);
    let reason = if from == to {
        "it is the same pool".to_owned()
    } else if far.terms.naming != *pool.keys().naming() {
        "each names chunks in its own way".to_owned()
    } else if longest > most {
        format!("its chunks have up to {longest} bytes, and there {most} at most")
    } else {
        return Ok(());
    };
    Err(Error::Invalid(format!("no image goes from pool {from} to pool {to}: {reason}")))
}

/// What one replication works with.
struct Work<'a> {
    far: &'a Far,
    pool: &'a Pool,
    manifest: &'a Manifest,
    tree: Ref,
    base: Option<Ref>,
    counters: &'a Counters,
    cancel: &'a Cancel,
}

impl Work<'_> {
    fn until_sent(&self) -> Result<()> {
        let mut bad = HashSet::new();
        let mut snapshot = self.pool.index().refresh()?;
        for attempt in 1.. {
            let found = Mutex::new(HashSet::new());
            let error = match self.send(&snapshot, &bad, &found) {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            let of_data = matches!(
                error,
                Error::ObjectMissing { .. } | Error::ChunkMissing { .. } | Error::Integrity { .. }
            );
            if !of_data || attempt == ATTEMPTS {
                return Err(error);
            }
            // Gone altogether?
            self.pool.image(&self.manifest.id)?;
            self.pool.forget();
            let before = snapshot;
            snapshot = self.pool.index().refresh()?;
            let known = bad.len();
            bad.extend(found.into_inner());
            if bad.len() == known && same(&before, &snapshot) {
                return Err(error);
            }
        }
        Ok(())
    }

    /// Sends what the other pool lacks, as far as this snapshot tells. Packs that can't be opened
    /// are noted as `bad`.
    fn send(
        &self,
        snapshot: &Arc<Snapshot>,
        excluded: &HashSet<PackId>,
        bad: &Mutex<HashSet<PackId>>,
    ) -> Result<()> {
        let shared = Shared::new(self.far, LEVEL, self.counters);
        let live = std::thread::scope(|scope| {
            let (working, ended) = bounded::<()>(0);
            let shared = &shared;
            scope.spawn(move || shared.sign(&ended));
            let live = self.wanted(snapshot, excluded);
            drop(working);
            live
        });
        shared.fault.check()?;
        let live = live?;
        let packs = live.shares();
        let bytes = packs.iter().map(|share| share.live_bytes).sum();
        self.counters.bytes_total.store(bytes, Ordering::Relaxed);
        self.counters.bytes_read.store(0, Ordering::Relaxed);
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            let (to_send, bodies) = bounded::<Vec<u8>>(1);
            let shared = &shared;
            for _ in 0..SENDERS {
                let bodies = bodies.clone();
                scope.spawn(move || shared.hand_over(&bodies));
            }
            drop(bodies);
            let (live, packs, next) = (&live, &packs, &next);
            let workers = [(); WORKERS].map(|()| {
                let to_send = to_send.clone();
                scope.spawn(move || {
                    let worker = Worker::new(self, live, shared, bad, to_send);
                    worker.and_then(|mut worker| worker.run(packs, next))
                })
            });
            let died = || Err(Error::Invalid("a thread of the engine died".into()));
            let mut outcome = Ok(());
            for worker in workers {
                if let Err(error) = worker.join().unwrap_or_else(|_| died()) {
                    outcome = Err(error.clone());
                    if !matches!(error, Error::Cancelled) {
                        shared.fault.note(error);
                    }
                }
            }
            // Also when it was cancelled: so that the next try sends nothing twice.
            let ended = shared.finish(&to_send);
            outcome.and(ended)
        })?;
        shared.fault.check()
    }

    /// What is to be asked for: all that the image reaches, less what the base has.
    fn wanted(&self, snapshot: &Arc<Snapshot>, excluded: &HashSet<PackId>) -> Result<LiveSet> {
        let live = LiveSet::new(Arc::clone(snapshot), excluded);
        if let Some(base) = self.base {
            vouch(self.pool, &live, base, self.tree, self.cancel)?;
        }
        let aside = live.aside();
        let root = Root { image: format!("image {}", self.manifest.id), tree: self.tree };
        walk(self.pool, &live, [root], &Stop, self.counters, self.cancel)?;
        live.forget(&aside);
        Ok(live)
    }
}

/// Whether nothing was added and nothing went.
fn same(before: &Snapshot, after: &Snapshot) -> bool {
    let ids = |snapshot: &Snapshot| -> Vec<Id> {
        snapshot.segments().iter().map(|segment| segment.id()).collect()
    };
    ids(before) == ids(after)
}

/// A block, and which of its chunks are asked for.
struct Part {
    pack: Arc<Pack>,
    block: u16,
    info: BlockInfo,
    chunks: Vec<ChunkInfo>,
    wanted: Vec<bool>,
}

/// A thread that asks what of some packs is missing, and has that sent.
struct Worker<'a> {
    work: &'a Work<'a>,
    live: &'a LiveSet,
    shared: &'a Shared<'a>,
    bad: &'a Mutex<HashSet<PackId>>,
    to_send: Sender<Vec<u8>>,
    compressor: Compressor,
    decompressor: Decompressor,
    parts: Vec<Part>,
    names: Vec<u8>,
    stored: u64,
}

impl<'a> Worker<'a> {
    fn new(
        work: &'a Work<'a>,
        live: &'a LiveSet,
        shared: &'a Shared<'a>,
        bad: &'a Mutex<HashSet<PackId>>,
        to_send: Sender<Vec<u8>>,
    ) -> Result<Self> {
        Ok(Worker {
            work,
            live,
            shared,
            bad,
            to_send,
            compressor: Compressor::new(LEVEL)?,
            decompressor: Decompressor::new()?,
            parts: Vec::new(),
            names: Vec::new(),
            stored: 0,
        })
    }

    fn run(&mut self, packs: &[Tally], next: &AtomicUsize) -> Result<()> {
        while let Some(share) = packs.get(next.fetch_add(1, Ordering::Relaxed)) {
            let done = self.pack(&share.pack.id).inspect_err(|_| {
                // The others need not begin another.
                next.store(packs.len(), Ordering::Relaxed);
            });
            done?;
        }
        self.ask()
    }

    fn check(&self) -> Result<()> {
        self.shared.fault.check()?;
        self.work.cancel.check()
    }

    fn pack(&mut self, id: &PackId) -> Result<()> {
        let pack = self.work.pool.pack(id).inspect_err(|_| {
            self.bad.lock().insert(*id);
        })?;
        let blocks = pack.footer.blocks().len();
        for number in 0..blocks {
            let chunks: Vec<ChunkInfo> =
                pack.footer.chunks_of(number).map(|(_, chunk)| *chunk).collect();
            let block = u16::try_from(number).unwrap_or(u16::MAX);
            let wanted = self.live.standing_in(id, block, &chunks);
            if !wanted.contains(&true) {
                continue;
            }
            for (chunk, _) in chunks.iter().zip(&wanted).filter(|(_, wanted)| **wanted) {
                self.names.extend_from_slice(&chunk.name.0);
            }
            let info = *pack.block(number)?;
            self.stored += u64::from(info.sealed_len);
            let pack = Arc::clone(&pack);
            self.parts.push(Part { pack, block, info, chunks, wanted });
            if self.names.len() >= QUESTION_CHUNKS * 32 || self.stored >= QUESTION_BYTES {
                self.ask()?;
            }
        }
        Ok(())
    }

    /// Asks which of the chunks are missing, and sends those.
    fn ask(&mut self) -> Result<()> {
        let (mut parts, names) = (std::mem::take(&mut self.parts), std::mem::take(&mut self.names));
        self.stored = 0;
        if parts.is_empty() {
            return Ok(());
        }
        self.check()?;
        let mut answer = self.shared.missing(&names)?.into_iter();
        let counters = self.work.counters;
        let mut held = 0;
        for part in &mut parts {
            for (wanted, chunk) in part.wanted.iter_mut().zip(&part.chunks) {
                if *wanted && !answer.next().unwrap_or(true) {
                    *wanted = false;
                    held += 1;
                    add(&counters.bytes_read, u64::from(chunk.length));
                }
            }
        }
        add(&counters.chunks_hit, held);
        parts.retain(|part| part.wanted.contains(&true));
        let mut rest = parts.as_slice();
        while !rest.is_empty() {
            self.check()?;
            let (run, later) = rest.split_at(run_length(rest));
            self.send_run(run)?;
            rest = later;
        }
        Ok(())
    }

    /// Reads blocks that lie beside each other, and hands on what of them is missing.
    fn send_run(&mut self, run: &[Part]) -> Result<()> {
        let (Some(first), Some(last)) = (run.first(), run.last()) else { return Ok(()) };
        let (pool, counters) = (self.work.pool, self.work.counters);
        let start = first.info.offset;
        let length = (place(&last.info).end - start) as usize;
        let started = Instant::now();
        let read = pool.store().get_range(&first.pack.id.key(), start, length);
        counters.busy(Stage::Fetch, length as u64, started);
        let mut bytes = match read {
            Ok(bytes) => bytes,
            Err(error) if error.is_missing() => Vec::new(),
            Err(error) => return Err(error),
        };
        for part in run {
            let at = place(&part.info);
            let range = (at.start - start) as usize..(at.end - start) as usize;
            let sent = match bytes.get_mut(range) {
                Some(sealed) => self.send_part(part, sealed),
                None => Err(Error::ObjectMissing { key: part.pack.id.key() }),
            };
            match sent {
                // Another pack may have them.
                Err(Error::Integrity { .. } | Error::ObjectMissing { .. }) => {
                    self.one_by_one(part)?
                }
                other => other?,
            }
            let missing = part.chunks.iter().zip(&part.wanted).filter(|(_, wanted)| **wanted);
            let plain = missing.map(|(chunk, _)| u64::from(chunk.length)).sum();
            add(&counters.bytes_read, plain);
        }
        Ok(())
    }

    /// Sends a block as it is where all of it is missing; else what is missing of it.
    fn send_part(&mut self, part: &Part, sealed: &mut [u8]) -> Result<()> {
        let (pack, number, counters) = (&part.pack, usize::from(part.block), self.work.counters);
        let started = Instant::now();
        let length = pack.unseal(number, sealed)?;
        let unsealed = counters.busy(Stage::Unseal, length as u64, started);
        let body = sealed.get(..length).unwrap_or_default();
        let plain_len = part.info.plain_len as usize;
        let shrunk = part.info.codec == Codec::Stored || length < plain_len;
        let kind = pack.footer.kind;
        if shrunk && !part.wanted.contains(&false) {
            let (shared, codec) = (self.shared, part.info.codec);
            return shared.lay(kind, codec, &part.chunks, plain_len, body, &self.to_send);
        }
        let plain = pack.decompress(number, body, &mut self.decompressor)?;
        counters.busy(Stage::Decompress, plain.len() as u64, unsealed);
        let batch = Batch { kind, plain, chunks: part.chunks.clone() };
        self.shared.gather(&batch, &part.wanted, &mut self.compressor, &self.to_send)
    }

    /// Sends the missing chunks of a block that can't be read, from wherever else they are.
    fn one_by_one(&mut self, part: &Part) -> Result<()> {
        let (pool, counters) = (self.work.pool, self.work.counters);
        for (chunk, _) in part.chunks.iter().zip(&part.wanted).filter(|(_, wanted)| **wanted) {
            let reference = Ref { name: chunk.name, length: chunk.length };
            let plain = pool.chunk(chunk.kind, &reference, counters)?.to_vec();
            let batch = Batch { kind: part.pack.footer.kind, plain, chunks: vec![*chunk] };
            self.shared.gather(&batch, &[true], &mut self.compressor, &self.to_send)?;
        }
        Ok(())
    }
}

fn place(info: &BlockInfo) -> Range<u64> {
    info.offset..info.offset + u64::from(info.sealed_len)
}

/// How many of these blocks, at least one, are read at once.
fn run_length(parts: &[Part]) -> usize {
    let Some(first) = parts.first() else { return 0 };
    let mut end = place(&first.info).end;
    let joins = |part: &&Part| {
        let at = place(&part.info);
        let is_near = part.pack.id == first.pack.id
            && at.start.saturating_sub(end) <= GAP_BYTES
            && at.end - first.info.offset <= RUN_BYTES;
        end = at.end;
        is_near
    };
    1 + parts.iter().skip(1).take_while(joins).count()
}
