//! The writing side of a pool: new chunks become blocks, blocks become packs, packs are
//! published and then indexed. In that order, so that a crash leaves at worst packs nobody names.
//!
//! [`run`] lends an [`Ingest`] to the verb that feeds it. Threads of the verb chunk, hash and
//! compress; one storing thread for each kind of pack seals and writes; a few publishing threads
//! make finished packs durable. Never decides what is backed up or kept.

mod block;
mod claims;
mod publish;
mod sink;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::Mutex;

use crate::cancel::Cancel;
use crate::chunker::Chunker;
use crate::codec::Compressor;
use crate::counters::{Counters, Stage, add};
use crate::error::{Error, Result};
use crate::ids::{Kind, Name, PackId, Ref};
use crate::pack::footer::{ChunkInfo, PackKind};
use crate::pack::writer::{Block, PackWriter, SealedPack};
use crate::pool::Pool;
use crate::pool::jobs::Job;
use crate::repository::Repository;
use crate::tree::ChunkSink;

pub use block::BlockBuilder;
pub use claims::Claims;
pub use sink::Sink;

use publish::Publisher;

/// Compressed blocks that may wait for a storing thread.
const WAITING_BLOCKS: usize = 4;
/// Packs that are made durable at a time.
const PUBLISHERS: usize = 2;

/// What a verb asks of its ingest.
pub struct Options<'a> {
    pub counters: &'a Counters,
    pub cancel: &'a Cancel,
    /// zstd level; 0 stores.
    pub level: i32,
    /// Packs that a garbage mark names: their chunks count as missing.
    pub marked: HashSet<PackId>,
    /// Whoever was declared dead lists nothing any more: what it lists may be gone.
    pub job: Option<&'a Job>,
    /// What is being stored; others may look whether a chunk is among it.
    pub claims: Arc<Claims>,
}

/// Lent to the verb while [`run`] runs. Shared by its threads.
pub struct Ingest<'a> {
    pool: &'a Pool,
    counters: &'a Counters,
    cancel: &'a Cancel,
    level: i32,
    marked: HashSet<PackId>,

    builders: [Mutex<BlockBuilder>; 2],
    compressors: Mutex<Vec<Compressor>>,
    to_store: [Sender<Block>; 2],
    publisher: &'a Publisher<'a>,
}

/// Lends an ingest to `work`, then makes everything it was given durable and indexed.
///
/// When `work` fails because it was cancelled, what it stored so far is published all the same,
/// so that the next try sends nothing twice. On any other failure no pack is written any more,
/// but those that are durable are listed if that can be done.
pub fn run<T>(
    pool: &Pool,
    options: Options<'_>,
    work: impl FnOnce(&Ingest<'_>) -> Result<T>,
) -> Result<T> {
    let Options { counters, cancel, level, marked, job, claims } = options;
    let publisher = Publisher::new(pool, counters, job, claims);
    let (data_in, data_out) = bounded(WAITING_BLOCKS);
    let (metadata_in, metadata_out) = bounded(WAITING_BLOCKS);
    let (packs_in, packs_out) = bounded::<SealedPack<'_>>(1);
    let outcome = std::thread::scope(|scope| {
        let publisher = &publisher;
        for _ in 0..PUBLISHERS {
            let packs = packs_out.clone();
            scope.spawn(move || publisher.run(packs));
        }
        drop(packs_out);
        for (kind, blocks) in [(PackKind::Data, data_out), (PackKind::Metadata, metadata_out)] {
            let packs = packs_in.clone();
            scope.spawn(move || {
                let stored = store_blocks(pool, kind, counters, publisher, &blocks, &packs);
                if let Err(error) = stored {
                    publisher.fail(error);
                }
            });
        }
        drop(packs_in);
        let ingest = Ingest {
            pool,
            counters,
            cancel,
            level,
            marked,

            builders: [(); 2].map(|()| Mutex::new(BlockBuilder::new(pool.config().block_bytes))),
            compressors: Mutex::default(),
            to_store: [data_in, metadata_in],
            publisher,
        };
        let outcome = work(&ingest);
        match &outcome {
            Ok(_) | Err(Error::Cancelled) => match ingest.flush() {
                Ok(()) => outcome,
                Err(error) => Err(error),
            },
            Err(error) => {
                publisher.fail(error.clone());
                outcome
            }
        }
    });
    // The threads have ended. The first cause wins over what followed from it.
    match publisher.into_outcome() {
        Err(error) => Err(error),
        Ok(()) => outcome,
    }
}

impl<'a> Ingest<'a> {
    pub fn pool(&self) -> &'a Pool {
        self.pool
    }

    /// `Err` once the verb was cancelled or a storing thread failed.
    pub fn check(&self) -> Result<()> {
        self.publisher.check()?;
        self.cancel.check()
    }

    /// Whether the pool lacks the chunk and the caller is the one to store it. Of several threads
    /// that ask for one name at once, one is told so.
    pub fn claim(&self, name: &Name) -> bool {
        if self.holds(name) {
            return false;
        }
        self.publisher.claims().claim(name.prefix())
    }

    /// Whether the pool holds the chunk in a pack that no mark names.
    pub fn holds(&self, name: &Name) -> bool {
        let index = self.pool.index().snapshot();
        if self.marked.is_empty() {
            index.lookup(name).is_some()
        } else {
            index.lookup_excluding(name, &self.marked).is_some()
        }
    }

    /// Whether references of an earlier image may be used again without a look at each chunk.
    pub fn may_reuse(&self) -> bool {
        self.marked.is_empty()
    }

    pub fn compressor(&self) -> Result<Compressor> {
        match self.compressors.lock().pop() {
            Some(compressor) => Ok(compressor),
            None => Compressor::new(self.level),
        }
    }

    pub fn return_compressor(&self, compressor: Compressor) {
        self.compressors.lock().push(compressor);
    }

    /// Compresses a full block and hands it to its storing thread.
    pub fn send(
        &self,
        kind: PackKind,
        plain: &[u8],
        chunks: Vec<ChunkInfo>,
        compressor: &mut Compressor,
    ) -> Result<()> {
        let started = Instant::now();
        let mut body = Vec::new();
        let codec = compressor.encode(plain, &mut body)?;
        body.shrink_to(body.len() + 64);
        add(&self.counters.bytes_new, plain.len() as u64);
        add(&self.counters.bytes_transmitted, body.len() as u64);
        let compressed = self.counters.busy(Stage::Compress, plain.len() as u64, started);
        let plain_len = u32::try_from(plain.len())
            .map_err(|_| Error::Invalid("a block of 4 GiB or more".into()))?;
        let block = Block { body, codec, plain_len, chunks };
        self.hand_over(kind, block, compressed)
    }

    /// Hands a block that is encoded already to its storing thread.
    pub fn send_encoded(&self, kind: PackKind, block: Block) -> Result<()> {
        self.hand_over(kind, block, Instant::now())
    }

    fn hand_over(&self, kind: PackKind, block: Block, since: Instant) -> Result<()> {
        if self.to_store[kind as usize].send(block).is_err() {
            self.publisher.check()?;
            return Err(Error::Invalid("the storing thread has ended".into()));
        }
        self.counters.blocked(Stage::Compress, since);
        Ok(())
    }

    /// Adds a claimed chunk to the shared builder of its kind.
    fn add(&self, name: Name, kind: Kind, plain: &[u8]) -> Result<()> {
        let pack_kind = PackKind::of(kind);
        let full = {
            let mut builder = self.builders[pack_kind as usize].lock();
            let full = if builder.fits(plain.len()) { None } else { Some(builder.take()) };
            builder.push(name, kind, plain);
            full
        };
        match full {
            Some((plain, chunks)) => self.send_full(pack_kind, &plain, chunks),
            None => Ok(()),
        }
    }

    fn send_full(&self, kind: PackKind, plain: &[u8], chunks: Vec<ChunkInfo>) -> Result<()> {
        let mut compressor = self.compressor()?;
        let sent = self.send(kind, plain, chunks, &mut compressor);
        self.return_compressor(compressor);
        sent
    }

    /// Hands on what the shared builders still hold.
    fn flush(&self) -> Result<()> {
        for kind in [PackKind::Data, PackKind::Metadata] {
            let (plain, chunks) = self.builders[kind as usize].lock().take();
            if !chunks.is_empty() {
                self.send_full(kind, &plain, chunks)?;
            }
        }
        Ok(())
    }
}

impl Sink for Ingest<'_> {
    fn repository(&self) -> &dyn Repository {
        self.pool
    }

    fn chunker(&self) -> &Chunker {
        self.pool.chunker()
    }

    fn block_bytes(&self) -> u32 {
        self.pool.config().block_bytes
    }

    fn check(&self) -> Result<()> {
        Ingest::check(self)
    }

    fn claim(&self, name: &Name) -> bool {
        Ingest::claim(self, name)
    }

    fn holds(&self, references: &mut dyn Iterator<Item = Ref>) -> Result<bool> {
        let mut references = references;
        Ok(Iterator::all(&mut references, |reference| Ingest::holds(self, &reference.name)))
    }

    fn may_reuse(&self) -> bool {
        Ingest::may_reuse(self)
    }

    fn compressor(&self) -> Result<Compressor> {
        Ingest::compressor(self)
    }

    fn send(
        &self,
        kind: PackKind,
        plain: Vec<u8>,
        chunks: Vec<ChunkInfo>,
        compressor: &mut Compressor,
    ) -> Result<Option<Vec<u8>>> {
        Ingest::send(self, kind, &plain, chunks, compressor).map(|()| Some(plain))
    }
}

impl ChunkSink for Ingest<'_> {
    fn store(&self, kind: Kind, plain: &[u8]) -> Result<Ref> {
        self.check()?;
        let started = Instant::now();
        let name = self.pool.keys().name(kind, plain);
        self.counters.busy(Stage::Hash, plain.len() as u64, started);
        add(&self.counters.chunks_looked_up, 1);
        if self.claim(&name) {
            self.add(name, kind, plain)?;
        } else {
            add(&self.counters.chunks_hit, 1);
        }
        let length = u32::try_from(plain.len())
            .map_err(|_| Error::Invalid("a chunk of 4 GiB or more".into()))?;
        Ok(Ref { name, length })
    }
}

/// A storing thread: seals and writes blocks, hands finished packs to the publishers.
fn store_blocks<'a>(
    pool: &'a Pool,
    kind: PackKind,
    counters: &Counters,
    publisher: &Publisher<'a>,
    blocks: &Receiver<Block>,
    packs: &Sender<SealedPack<'a>>,
) -> Result<()> {
    let mut open: Option<PackWriter<'a>> = None;
    let mut waiting = Instant::now();
    for mut block in blocks {
        let mut now = counters.starved(Stage::Store, waiting);
        publisher.check()?;
        let mut writer = match open.take() {
            Some(writer) => writer,
            None => PackWriter::new(pool.keys(), kind, pool.store().upload()?)?,
        };
        writer.seal(&mut block)?;
        let length = block.body.len() as u64;
        now = counters.busy(Stage::Seal, length, now);
        writer.append(block)?;
        now = counters.busy(Stage::Store, length, now);
        if writer.is_full(pool.config().pack_bytes) {
            hand_on(writer, packs, publisher)?;
            now = counters.blocked(Stage::Store, now);
        } else {
            open = Some(writer);
        }
        waiting = now;
    }
    publisher.check()?;
    match open {
        Some(writer) => hand_on(writer, packs, publisher),
        None => Ok(()),
    }
}

fn hand_on<'a>(
    writer: PackWriter<'a>,
    packs: &Sender<SealedPack<'a>>,
    publisher: &Publisher<'_>,
) -> Result<()> {
    if packs.send(writer.finish()?).is_err() {
        publisher.check()?;
        return Err(Error::Invalid("the publishing threads have ended".into()));
    }
    Ok(())
}
