//! The media server's end of a backup: says what is missing, takes blocks, proves every chunk of
//! them, seals and stores them, and commits the image.
//!
//! Nothing that a client says is believed but what it alone can know: which chunks its files are
//! made of. Whose image it is, when it was made, and its number are said here.
//!
//! An image of another pool comes the same way, and is adopted: its manifest stays as it is, and all
//! that it reaches has to be here.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use crossbeam_channel::{Receiver as Inlet, Sender, bounded};
use parking_lot::Mutex;

use crate::backup::frame::leave_record;
use crate::cancel::Cancel;
use crate::codec::{Codec, Compressor, Decompressor};
use crate::counters::{Counters, Stage, add};
use crate::error::{Error, Result};
use crate::finding::Findings;
use crate::ids::{Id, Kind, Name, PackId};
use crate::ingest::{self, Claims};
use crate::manifest::{BEGAN_READING, LABEL, Manifest, Source};
use crate::pack::footer::PackKind;
use crate::pack::writer::Block;
use crate::pool::Pool;
use crate::pool::jobs::{DEFAULT_LEASE_S, Job, JobKind};
use crate::pool::marks::{self, Marked};
use crate::upkeep::{merge, orphans};

use super::adopt;
use super::body::{self, BlockView};
use super::terms::Terms;

/// Blocks that wait to be sealed.
const WAITING_BLOCKS: usize = 8;
/// Room for what sealing appends.
const SEAL_ROOM: usize = 64;

/// What is said of an image here, whatever its draft says.
#[derive(Clone, Debug)]
pub struct Commit {
    pub source: String,
    pub host: String,
    pub labels: BTreeMap<String, String>,
    pub finished_ns: i64,
}

enum Command {
    Block(PackKind, Block),
    Finish(Box<Finish>),
}

/// What is to become of everything that came.
enum Finish {
    Commit(Manifest, Commit),
    Adopt(Manifest),
}

/// One backup that is received. May be used from many threads; dropping it abandons the backup.
pub struct Reception {
    shared: Arc<Shared>,
    to: Mutex<Option<Sender<Command>>>,
    keeper: Mutex<Option<JoinHandle<Result<Option<Manifest>>>>>,
    ended: Mutex<Option<Result<Option<Manifest>>>>,
}

struct Shared {
    pool: Arc<Pool>,
    started_ns: i64,
    clock: Instant,
    marked: Marked,
    claims: Arc<Claims>,
    counters: Counters,
    cancel: Cancel,
    decompressors: Mutex<Vec<Decompressor>>,
    /// With the levels that they have.
    compressors: Mutex<Vec<(i8, Compressor)>>,
    /// An image that was here when it was asked for: until this ends all of it stays.
    base: Mutex<Option<Manifest>>,
}

impl Reception {
    /// Begins: from now on nothing that is said to be there goes before this ends.
    pub fn begin(pool: Arc<Pool>, started_ns: i64) -> Result<Self> {
        // The record comes first, marks and index after it, as in a backup from here.
        let store = pool.shared_store();
        let record = Job::begin(store, pool.keys(), JobKind::Backup, started_ns)?;
        let marked = marks::read(pool.store(), pool.keys())?;
        pool.index().refresh()?;
        let cancel = Cancel::new();
        let lease_s = DEFAULT_LEASE_S;
        orphans::recover_from_dead_jobs(&pool, &record, &marked, started_ns, lease_s, &cancel)?;
        let shared = Arc::new(Shared {
            pool,
            started_ns,
            clock: Instant::now(),
            marked,
            claims: Arc::default(),
            counters: Counters::default(),
            cancel,
            decompressors: Mutex::default(),
            compressors: Mutex::default(),
            base: Mutex::default(),
        });
        let (to, commands) = bounded(WAITING_BLOCKS);
        let own = Arc::clone(&shared);
        let keeper = std::thread::Builder::new()
            .name("holdfast-receive".into())
            .spawn(move || own.keep(record, &commands))
            .map_err(|error| Error::io("starting a thread", error))?;
        Ok(Reception {
            shared,
            to: Mutex::new(Some(to)),
            keeper: Mutex::new(Some(keeper)),
            ended: Mutex::new(None),
        })
    }

    pub fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    pub fn terms(&self) -> Terms {
        Terms::of(&self.shared.pool, self.shared.marked.packs.is_empty())
    }

    /// Which of these chunks the pool lacks; see [`super::Link::missing`].
    pub fn missing(&self, names: &[u8]) -> Result<Vec<u8>> {
        let (names, rest) = names.as_chunks::<32>();
        if !rest.is_empty() {
            return Err(Error::Invalid("names of chunks have 32 bytes each".into()));
        }
        let mut answer = vec![0; names.len().div_ceil(8)];
        let held = self.shared.held();
        for (at, name) in names.iter().enumerate() {
            if !held(&Name(*name))
                && let Some(byte) = answer.get_mut(at / 8)
            {
                *byte |= 1 << (at % 8);
            }
        }
        add(&self.shared.counters.chunks_looked_up, names.len() as u64);
        Ok(answer)
    }

    /// Takes a body of blocks; waits while the storage has enough to do. Everything in it may have
    /// come before. `Integrity` where a chunk is not what it says: nothing of its block is taken.
    pub fn take(&self, body: &[u8]) -> Result<()> {
        let blocks = body::parse(body)?;
        let to = self.to.lock().clone();
        let Some(to) = to else { return Err(self.ended()) };
        let mut decompressor = match self.shared.decompressors.lock().pop() {
            Some(decompressor) => decompressor,
            None => Decompressor::new()?,
        };
        for view in &blocks {
            let Some(block) = self.shared.prove(view, &mut decompressor)? else { continue };
            if to.send(Command::Block(view.kind, block)).is_err() {
                return Err(self.ended());
            }
        }
        self.shared.decompressors.lock().push(decompressor);
        Ok(())
    }

    /// Makes everything durable, then the image visible. Asked again it tells the same.
    pub fn commit(&self, draft: &[u8], commit: Commit) -> Result<Manifest> {
        let draft = Manifest::decode(draft).map_err(|error| match error {
            Error::Integrity { reason, .. } => {
                Error::Invalid(format!("this is no draft of an image: {reason}"))
            }
            other => other,
        })?;
        self.finish(Finish::Commit(draft, commit))
    }

    /// The manifest of an image that this pool has whole: what it has in common with one that is
    /// coming need not come, nor be looked for, until this ends. None where there is no such image,
    /// or where a garbage mark stands.
    pub fn vouch(&self, image: &Id) -> Result<Option<Manifest>> {
        if !self.shared.marked.packs.is_empty() {
            return Ok(None);
        }
        let found = match self.shared.pool.image(image) {
            Ok(found) => Some(found),
            Err(
                Error::ImageMissing { .. } | Error::Integrity { .. } | Error::NewerFormat { .. },
            ) => None,
            Err(other) => return Err(other),
        };
        self.shared.base.lock().clone_from(&found);
        Ok(found)
    }

    /// Makes everything durable, then an image of another pool one of this pool, too: of this id and
    /// source, as its manifest says, and whole. `Invalid` where it is not. Asked again it tells the
    /// same; so it does where the pool has this image already.
    pub fn adopt(&self, manifest: &[u8], image: &Id, source: Option<&str>) -> Result<Manifest> {
        self.finish(Finish::Adopt(adopt::announced(manifest, image, source)?))
    }

    fn finish(&self, finish: Finish) -> Result<Manifest> {
        // Taken, so that nothing comes after it.
        if let Some(to) = self.to.lock().take() {
            let _ = to.send(Command::Finish(Box::new(finish)));
        }
        self.wait()?.ok_or(Error::Cancelled)
    }

    /// Ends without an image, unless one was committed; what came stays, so that it need not come
    /// again. Tells what storing failed of, unless that was told before.
    pub fn abandon(&self) -> Result<()> {
        drop(self.to.lock().take());
        let told = self.ended.lock().is_some();
        match self.wait() {
            Err(Error::Cancelled) => Ok(()),
            Err(_) if told => Ok(()),
            other => other.map(drop),
        }
    }

    fn wait(&self) -> Result<Option<Manifest>> {
        let mut ended = self.ended.lock();
        if let Some(keeper) = self.keeper.lock().take() {
            let died = || Err(Error::Invalid("a thread of the engine died".into()));
            *ended = Some(keeper.join().unwrap_or_else(|_| died()));
        }
        ended.clone().unwrap_or(Ok(None))
    }

    /// Why nothing is taken any more.
    fn ended(&self) -> Error {
        match self.wait() {
            Ok(_) | Err(Error::Cancelled) => Error::Invalid("this backup has ended".into()),
            Err(error) => error,
        }
    }
}

impl Drop for Reception {
    fn drop(&mut self) {
        let _ = self.abandon();
    }
}

impl Shared {
    /// Whether a chunk need not come.
    fn held(&self) -> impl Fn(&Name) -> bool {
        let index = self.pool.index().snapshot();
        let packs: &HashSet<PackId> = &self.marked.packs;
        move |name| {
            self.claims.has(&name.prefix())
                || if packs.is_empty() {
                    index.lookup(name).is_some()
                } else {
                    index.lookup_excluding(name, packs).is_some()
                }
        }
    }

    /// A block whose chunks are what they say; none where all of them are there.
    fn prove(&self, view: &BlockView<'_>, with: &mut Decompressor) -> Result<Option<Block>> {
        let config = self.pool.config();
        let longest = |chunk: &crate::pack::footer::ChunkInfo| {
            chunk.kind == Kind::Data && chunk.length > config.chunks.max
        };
        if let Some(chunk) = view.chunks.iter().find(|chunk| longest(chunk)) {
            return Err(Error::Invalid(format!(
                "chunk {} has {} bytes; this pool's have {} at most",
                chunk.name, chunk.length, config.chunks.max
            )));
        }
        {
            let held = self.held();
            if view.chunks.iter().all(|chunk| held(&chunk.name)) {
                return Ok(None);
            }
        }
        let started = Instant::now();
        view.prove(self.pool.keys().naming(), with)?;
        self.counters.busy(Stage::Hash, u64::from(view.plain_len), started);
        add(&self.counters.bytes_new, u64::from(view.plain_len));
        add(&self.counters.bytes_transmitted, view.body.len() as u64);
        for chunk in &view.chunks {
            self.claims.claim(chunk.name.prefix());
        }
        let mut body = Vec::new();
        let mut codec = view.codec;
        if let Some(level) = view.left {
            codec = self.compress(level, view.body, &mut body)?;
        }
        if codec == Codec::Stored || view.left.is_none() {
            body = Vec::with_capacity(view.body.len() + SEAL_ROOM);
            body.extend_from_slice(view.body);
        }
        body.shrink_to(body.len() + SEAL_ROOM);
        let (plain_len, chunks) = (view.plain_len, view.chunks.clone());
        Ok(Some(Block { body, codec, plain_len, chunks }))
    }

    /// Compresses what the client left to be compressed here.
    fn compress(&self, level: i8, plain: &[u8], body: &mut Vec<u8>) -> Result<Codec> {
        let started = Instant::now();
        let kept = self.compressors.lock().pop().filter(|(of, _)| *of == level);
        let mut compressor = match kept {
            Some((_, compressor)) => compressor,
            None => Compressor::new(i32::from(level))?,
        };
        let shrunk = compressor.shrink(plain, body)?;
        self.compressors.lock().push((level, compressor));
        add(&self.counters.bytes_left, plain.len() as u64);
        self.counters.busy(Stage::Compress, plain.len() as u64, started);
        Ok(if shrunk { Codec::Zstd } else { Codec::Stored })
    }

    fn now_ns(&self) -> i64 {
        let elapsed = i64::try_from(self.clock.elapsed().as_nanos()).unwrap_or(i64::MAX);
        self.started_ns.saturating_add(elapsed)
    }

    /// The thread that has the pool's record and its ingest.
    fn keep(&self, record: Job, commands: &Inlet<Command>) -> Result<Option<Manifest>> {
        let stored = record.keep_alive(|| self.now_ns(), || self.store(&record, commands));
        let finish = match stored {
            Ok(wanted) => *wanted,
            Err(error) => {
                leave_record(record, &error, true);
                return Err(error);
            }
        };
        let manifest = match finish {
            Finish::Commit(draft, commit) => {
                let manifest = self.manifest(draft, commit)?;
                self.pool.commit_image(&manifest, &record)?;
                manifest
            }
            Finish::Adopt(manifest) => {
                record.keep_alive(|| self.now_ns(), || self.adopt(&manifest, &record))?;
                manifest
            }
        };
        // The image stands whatever becomes of the merge and of the record.
        let _ = merge::tidy(&self.pool, &record, &self.marked, &self.cancel);
        let _ = record.end();
        Ok(Some(manifest))
    }

    /// Makes an image of another pool, of which everything came, one of this pool.
    fn adopt(&self, manifest: &Manifest, record: &Job) -> Result<()> {
        if self.has(manifest)? {
            return Ok(());
        }
        let base = self.base.lock().clone();
        let (pool, marked) = (&self.pool, &self.marked.packs);
        let (counters, cancel) = (&self.counters, &self.cancel);
        adopt::require_whole(pool, manifest, base.as_ref(), marked, counters, cancel)?;
        // Images that are made here from now on come after it.
        pool.keep_numbers_above(manifest.number)?;
        match pool.commit_image(manifest, record) {
            Err(Error::ObjectExists { .. }) if self.has(manifest)? => Ok(()),
            other => other,
        }
    }

    /// Whether the pool has this image. One of its id that is another is refused.
    fn has(&self, manifest: &Manifest) -> Result<bool> {
        match self.pool.image(&manifest.id) {
            Ok(found) if found == *manifest => Ok(true),
            Ok(_) => Err(Error::Invalid(format!(
                "image {} is in this pool already, and is another one",
                manifest.id
            ))),
            Err(Error::ImageMissing { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn store(&self, record: &Job, commands: &Inlet<Command>) -> Result<Box<Finish>> {
        let options = ingest::Options {
            counters: &self.counters,
            cancel: &self.cancel,
            level: 0,
            marked: self.marked.packs.clone(),
            job: Some(record),
            claims: Arc::clone(&self.claims),
        };
        ingest::run(&self.pool, options, |ingest| {
            loop {
                match commands.recv() {
                    Ok(Command::Block(kind, block)) => ingest.send_encoded(kind, block)?,
                    Ok(Command::Finish(wanted)) => return Ok(wanted),
                    Err(_) => return Err(Error::Cancelled),
                }
            }
        })
    }

    fn manifest(&self, draft: Manifest, commit: Commit) -> Result<Manifest> {
        let Commit { source, host, labels, finished_ns } = commit;
        if let Some(root) = &draft.root.subtree {
            // An image without a root is none, whoever says that it was handed over.
            self.pool.chunk(Kind::Tree, root, &self.counters)?;
        }
        let mut stats = draft.stats;
        let stored = self.counters.snapshot().bytes_stored;
        stats.insert("bytes_stored".to_owned(), stored);
        let mut options = draft.options;
        options.retain(|name, _| !name.starts_with(LABEL) && name != BEGAN_READING);
        options.extend(labels.into_iter().map(|(name, value)| (format!("{LABEL}{name}"), value)));
        if draft.started_ns != self.started_ns {
            options.insert(BEGAN_READING.to_owned(), draft.started_ns.to_string());
        }
        let above = match &draft.parent {
            Some(parent) => self.pool.image(parent).map_or(0, |image| image.number),
            None => 0,
        };
        let mut findings = draft.findings;
        findings.truncate(Findings::KEPT);
        Ok(Manifest {
            id: Id::random()?,
            number: self.pool.claim_number(above)?,
            source: Source { host, name: source, paths: draft.source.paths },
            started_ns: self.started_ns,
            finished_ns,
            root: draft.root,
            parent: draft.parent,
            status: draft.status,
            stats,
            findings,
            findings_total: draft.findings_total,
            options,
            software: draft.software,
        })
    }
}
