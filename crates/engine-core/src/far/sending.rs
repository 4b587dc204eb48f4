//! The client's way of new chunks: asked for in groups, those that the pool lacks compressed and
//! laid into bodies, bodies handed over. Several of each are under way at once, so that a link
//! with a long way costs no time; what waits at each step is bounded.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use parking_lot::Mutex;

use crate::cancel::Cancel;
use crate::chunker::Chunker;
use crate::client_key::Sealing;
use crate::codec::{Codec, Compressor};
use crate::counters::{Counters, Stage, add};
use crate::error::{Error, Result};
use crate::ids::{Kind, Name, Ref};
use crate::ingest::{BlockBuilder, Sink};
use crate::pack::footer::{ChunkInfo, PackKind};
use crate::repository::Repository;
use crate::tree::ChunkSink;

use super::claimed::Claimed;
use super::compressing::{Compress, Compressing};
use super::outgoing::Outgoing;
use super::questions::{Batch, Questions};
use super::{Far, body};

/// Questions that are under way at a time.
const ASKERS: usize = 4;
/// Bodies that are handed over at a time.
pub(super) const SENDERS: usize = 3;
/// Blocks that wait to be asked for.
const WAITING_BLOCKS: usize = 8;

/// What is gathered of several questions: chunks of blocks that are not all new, and blocks.
struct Gathering {
    loose: [BlockBuilder; 2],
    outgoing: Outgoing,
}

/// The first failure of any thread.
#[derive(Default)]
pub(super) struct Fault {
    failed: AtomicBool,
    error: Mutex<Option<Error>>,
}

impl Fault {
    pub fn note(&self, error: Error) {
        self.error.lock().get_or_insert(error);
        self.failed.store(true, Ordering::Release);
    }

    pub fn check(&self) -> Result<()> {
        if !self.failed.load(Ordering::Acquire) {
            return Ok(());
        }
        match &*self.error.lock() {
            Some(error) => Err(error.clone()),
            None => Ok(()),
        }
    }
}

/// What all threads of one backup share.
pub(super) struct Shared<'a> {
    far: &'a Far,
    level: i32,
    counters: &'a Counters,
    gathering: Mutex<Gathering>,
    compressing: Compressing,
    pub fault: Fault,
}

/// Lends a sink to `work`, then hands over everything that it was given.
///
/// When `work` fails because it was cancelled, what it gave so far is handed over all the same,
/// so that the next try sends nothing twice.
pub fn run<T>(
    far: &Far,
    level: i32,
    counters: &Counters,
    cancel: &Cancel,
    work: impl FnOnce(&Sending<'_>) -> Result<T>,
) -> Result<T> {
    let builder = || BlockBuilder::new(far.terms.block_bytes);
    let shared = Shared::new(far, level, counters);
    let outcome = std::thread::scope(|scope| {
        let (shared, (to_ask, asked)) = (&shared, bounded::<Batch>(WAITING_BLOCKS));
        let (working, ended) = bounded::<()>(0);
        scope.spawn(move || shared.sign(&ended));
        let (to_send, sent) = bounded::<Vec<u8>>(1);
        for _ in 0..SENDERS {
            let sent = sent.clone();
            scope.spawn(move || shared.hand_over(&sent));
        }
        drop(sent);
        // Dropped with the last who asks: whoever has something to ask then hears of it.
        let questions = Arc::new(Questions::new(asked));
        let askers = [(); ASKERS].map(|()| {
            let (questions, to_send) = (Arc::clone(&questions), to_send.clone());
            scope.spawn(move || shared.ask_all(&questions, &to_send))
        });
        drop(questions);
        let builders = [Mutex::new(builder()), Mutex::new(builder())];
        let claimed = Claimed::default();
        let sending = Sending { shared, cancel, claimed, builders, to_ask };
        let outcome = work(&sending);
        drop(working);
        let flushed = match &outcome {
            Ok(_) | Err(Error::Cancelled) => sending.flush(),
            Err(error) => Err(error.clone()),
        };
        drop(sending);
        for asker in askers {
            if asker.join().is_err() {
                shared.fault.note(Error::Invalid("a thread of the engine died".into()));
            }
        }
        let ended = flushed.and_then(|()| shared.finish(&to_send));
        if let Err(error) = ended {
            shared.fault.note(error);
        }
        outcome
    });
    // The threads have ended. The first cause wins over what followed from it.
    shared.fault.check().and(outcome)
}

impl<'a> Shared<'a> {
    pub fn new(far: &'a Far, level: i32, counters: &'a Counters) -> Self {
        let builder = || BlockBuilder::new(far.terms.block_bytes);
        let gathering = Gathering { loose: [builder(), builder()], outgoing: Outgoing::default() };
        let sealed = far.sealing.is_some();
        let way = if !sealed && body::may_be_left(level) { far.compress } else { Compress::Here };
        Shared {
            far,
            level,
            counters,
            gathering: Mutex::new(gathering),
            compressing: Compressing::new(way, SENDERS),
            fault: Fault::default(),
        }
    }

    /// Gives signs of life until told that it has `ended`: what is found out before anything is
    /// asked may take longer than the other side would wait.
    pub fn sign(&self, ended: &Receiver<()>) {
        while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(self.far.sign_every) {
            if let Err(error) = self.far.link.missing(&[]) {
                return self.fault.note(error);
            }
        }
    }

    /// An asking thread. After a failure it only empties the channel.
    fn ask_all(&self, questions: &Questions, to_send: &Sender<Vec<u8>>) {
        let mut compressor = None;
        let mut waiting = Instant::now();
        while let Some(batches) = questions.next() {
            self.counters.starved(Stage::Send, waiting);
            let answer = self.fault.check().and_then(|()| self.ask(&batches));
            questions.answered();
            let done = answer.and_then(|missing| {
                let compressor = match &mut compressor {
                    Some(compressor) => compressor,
                    empty => empty.insert(Compressor::new(self.level)?),
                };
                self.hand_on(batches, missing, compressor, to_send)
            });
            if let Err(error) = done {
                self.fault.note(error);
            }
            waiting = Instant::now();
        }
    }

    /// Asks what of these the pool lacks.
    fn ask(&self, batches: &[Batch]) -> Result<Vec<bool>> {
        let count: usize = batches.iter().map(|batch| batch.chunks.len()).sum();
        let mut names = Vec::with_capacity(count * 32);
        for chunk in batches.iter().flat_map(|batch| &batch.chunks) {
            names.extend_from_slice(&chunk.name.0);
        }
        self.missing(&names)
    }

    /// Hands on what the pool lacks of these.
    fn hand_on(
        &self,
        batches: Vec<Batch>,
        missing: Vec<bool>,
        compressor: &mut Compressor,
        to_send: &Sender<Vec<u8>>,
    ) -> Result<()> {
        let mut answer = missing.into_iter();
        for batch in batches {
            let missing: Vec<bool> = answer.by_ref().take(batch.chunks.len()).collect();
            let lacking = missing.iter().filter(|missing| **missing).count();
            add(&self.counters.chunks_hit, (missing.len() - lacking) as u64);
            if lacking == missing.len() {
                self.encode(&batch, compressor, to_send)?;
            } else if lacking > 0 {
                self.gather(&batch, &missing, compressor, to_send)?;
            }
        }
        Ok(())
    }

    /// Of each of these chunks whether the pool lacks it.
    pub fn missing(&self, names: &[u8]) -> Result<Vec<bool>> {
        let count = names.len() / 32;
        let started = Instant::now();
        let answer = self.far.link.missing(names)?;
        self.counters.busy(Stage::Send, names.len() as u64, started);
        if answer.len() != count.div_ceil(8) {
            return Err(Error::Invalid(format!(
                "asked for {count} chunks, the media server answered for {}",
                answer.len() * 8
            )));
        }
        let bits = answer.iter().flat_map(|byte| (0..8).map(move |bit| byte >> bit & 1 == 1));
        Ok(bits.take(count).collect())
    }

    /// Takes the missing chunks of a batch to those of others.
    pub fn gather(
        &self,
        batch: &Batch,
        missing: &[bool],
        compressor: &mut Compressor,
        to_send: &Sender<Vec<u8>>,
    ) -> Result<()> {
        let mut from = 0;
        for (chunk, is_missing) in batch.chunks.iter().zip(missing) {
            let upto = from + chunk.length as usize;
            let plain = batch.plain.get(from..upto).unwrap_or_default();
            from = upto;
            if !is_missing {
                continue;
            }
            let full = {
                let mut gathering = self.gathering.lock();
                let Some(loose) = gathering.loose.get_mut(batch.kind as usize) else { continue };
                let full = (!loose.fits(plain.len())).then(|| loose.take());
                loose.push(chunk.name, chunk.kind, plain);
                full
            };
            if let Some((plain, chunks)) = full {
                self.encode(&Batch { kind: batch.kind, plain, chunks }, compressor, to_send)?;
            }
        }
        Ok(())
    }

    /// Compresses a block of missing chunks and lays it into the body; hands over one that is full.
    fn encode(
        &self,
        batch: &Batch,
        compressor: &mut Compressor,
        to_send: &Sender<Vec<u8>>,
    ) -> Result<()> {
        let plain_len = batch.plain.len();
        let is_data = batch.kind == PackKind::Data;
        if is_data && self.compressing.leaves() {
            self.compressing.note(plain_len, None);
            add(&self.counters.bytes_left, plain_len as u64);
            let laid = |body: &mut body::Writer| {
                // Only levels that fit are left.
                let level = i8::try_from(self.level).unwrap_or(1);
                body.push_left(batch.kind, level, &batch.chunks, &batch.plain);
            };
            return self.lay_with(plain_len, plain_len, laid, to_send);
        }
        let started = Instant::now();
        let mut shrunk = Vec::new();
        // What does not shrink goes as it is, without another copy.
        let is_sealed = is_data && self.far.sealing.is_some();
        let (codec, encoded) = match !is_sealed && compressor.shrink(&batch.plain, &mut shrunk)? {
            true => (Codec::Zstd, shrunk.as_slice()),
            false => (Codec::Stored, batch.plain.as_slice()),
        };
        let now = self.counters.busy(Stage::Compress, plain_len as u64, started);
        if is_data {
            self.compressing.note(plain_len, Some((encoded.len(), now - started)));
        }
        self.lay(batch.kind, codec, &batch.chunks, plain_len, encoded, to_send)
    }

    /// Lays an encoded block of missing chunks into the body; hands over one that is full.
    pub fn lay(
        &self,
        kind: PackKind,
        codec: Codec,
        chunks: &[ChunkInfo],
        plain_len: usize,
        encoded: &[u8],
        to_send: &Sender<Vec<u8>>,
    ) -> Result<()> {
        let laid = |body: &mut body::Writer| body.push(kind, codec, chunks, encoded);
        self.lay_with(plain_len, encoded.len(), laid, to_send)
    }

    fn lay_with(
        &self,
        plain_len: usize,
        length: usize,
        lay: impl FnOnce(&mut body::Writer),
        to_send: &Sender<Vec<u8>>,
    ) -> Result<()> {
        add(&self.counters.bytes_new, plain_len as u64);
        add(&self.counters.bytes_transmitted, length as u64);
        let full = self.gathering.lock().outgoing.lay(plain_len, lay);
        let Some(body) = full else { return Ok(()) };
        let waiting = Instant::now();
        let sent = self.give(body, to_send);
        self.counters.blocked(Stage::Compress, waiting);
        sent
    }

    fn give(&self, body: Vec<u8>, to_send: &Sender<Vec<u8>>) -> Result<()> {
        if to_send.send(body).is_ok() {
            return Ok(());
        }
        self.fault.check()?;
        Err(Error::Invalid("the sending threads have ended".into()))
    }

    /// Hands on what was gathered and fills nothing any more. The askers have ended.
    pub fn finish(&self, to_send: &Sender<Vec<u8>>) -> Result<()> {
        self.fault.check()?;
        let mut compressor = Compressor::new(self.level)?;
        for kind in [PackKind::Data, PackKind::Metadata] {
            let taken = self.gathering.lock().loose.get_mut(kind as usize).map(BlockBuilder::take);
            if let Some((plain, chunks)) = taken.filter(|(_, chunks)| !chunks.is_empty()) {
                self.encode(&Batch { kind, plain, chunks }, &mut compressor, to_send)?;
            }
        }
        let body = self.gathering.lock().outgoing.take();
        body.map_or(Ok(()), |body| self.give(body, to_send))
    }

    /// A sending thread. After a failure it only empties the channel.
    pub fn hand_over(&self, bodies: &Receiver<Vec<u8>>) {
        let mut waiting = Instant::now();
        for body in bodies {
            if self.fault.check().is_err() {
                continue;
            }
            self.compressing.waited(waiting);
            let (started, length) = (Instant::now(), body.len() as u64);
            match self.far.link.send(body) {
                Ok(()) => {
                    add(&self.counters.bytes_stored, length);
                    self.counters.busy(Stage::Send, length, started);
                }
                Err(error) => self.fault.note(error),
            }
            waiting = Instant::now();
        }
    }
}

/// Lent to the walk.
pub struct Sending<'a> {
    shared: &'a Shared<'a>,
    cancel: &'a Cancel,
    claimed: Claimed,
    builders: [Mutex<BlockBuilder>; 2],
    to_ask: Sender<Batch>,
}

impl Sending<'_> {
    fn to_ask(&self, batch: Batch) -> Result<()> {
        let started = Instant::now();
        if self.to_ask.send(batch).is_err() {
            self.shared.fault.check()?;
            return Err(Error::Invalid("the asking threads have ended".into()));
        }
        self.shared.counters.blocked(Stage::Hash, started);
        self.shared.fault.check()
    }

    /// Adds a claimed chunk to the shared builder of its kind.
    fn add(&self, name: Name, kind: Kind, plain: &[u8]) -> Result<()> {
        let pack_kind = PackKind::of(kind);
        let full = {
            let Some(builder) = self.builders.get(pack_kind as usize) else { return Ok(()) };
            let mut builder = builder.lock();
            let full = (!builder.fits(plain.len())).then(|| builder.take());
            builder.push(name, kind, plain);
            full
        };
        match full {
            Some((plain, chunks)) => self.to_ask(Batch { kind: pack_kind, plain, chunks }),
            None => Ok(()),
        }
    }

    /// Hands on what the shared builders still hold.
    fn flush(&self) -> Result<()> {
        for (builder, kind) in self.builders.iter().zip([PackKind::Data, PackKind::Metadata]) {
            let (plain, chunks) = builder.lock().take();
            if !chunks.is_empty() {
                self.to_ask(Batch { kind, plain, chunks })?;
            }
        }
        Ok(())
    }
}

impl ChunkSink for Sending<'_> {
    fn store(&self, kind: Kind, plain: &[u8]) -> Result<Ref> {
        self.check()?;
        let counters = self.shared.counters;
        let started = Instant::now();
        let name = self.shared.far.naming().name(kind, plain);
        counters.busy(Stage::Hash, plain.len() as u64, started);
        self.shared.far.remember(kind, name, plain);
        add(&counters.chunks_looked_up, 1);
        if self.claim(&name) {
            self.add(name, kind, plain)?;
        } else {
            add(&counters.chunks_hit, 1);
        }
        let length = u32::try_from(plain.len())
            .map_err(|_| Error::Invalid("a chunk of 4 GiB or more".into()))?;
        Ok(Ref { name, length })
    }
}

impl Sink for Sending<'_> {
    fn repository(&self) -> &dyn Repository {
        self.shared.far
    }

    fn chunker(&self) -> &Chunker {
        &self.shared.far.chunker
    }

    fn sealing(&self) -> Option<&Sealing> {
        self.shared.far.sealing.as_ref()
    }

    fn block_bytes(&self) -> u32 {
        self.shared.far.terms.block_bytes
    }

    fn check(&self) -> Result<()> {
        self.shared.fault.check()?;
        self.cancel.check()
    }

    fn claim(&self, name: &Name) -> bool {
        self.claimed.claim(name)
    }

    fn holds(&self, references: &mut dyn Iterator<Item = Ref>) -> Result<bool> {
        let names: Vec<u8> = references.flat_map(|reference| reference.name.0).collect();
        let answer = self.shared.far.link.missing(&names)?;
        Ok(answer.len() == (names.len() / 32).div_ceil(8) && answer.iter().all(|byte| *byte == 0))
    }

    fn may_reuse(&self) -> bool {
        self.shared.far.terms.may_reuse
    }

    fn compressor(&self) -> Result<Compressor> {
        // Whoever asks what is missing compresses.
        Compressor::new(0)
    }

    fn send(
        &self,
        kind: PackKind,
        plain: Vec<u8>,
        chunks: Vec<ChunkInfo>,
        _compressor: &mut Compressor,
    ) -> Result<Option<Vec<u8>>> {
        self.to_ask(Batch { kind, plain, chunks }).map(|()| None)
    }
}
