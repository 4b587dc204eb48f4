//! One file of an image, written as a disk: in the order in which its chunks are stored, by several
//! threads, to wherever that disk is.
//!
//! All or nothing: what cannot be read or written ends it with an error that names the place. Holes
//! are not written where the disk is fresh.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::cancel::Cancel;
use crate::client_key::opened::Opened;
use crate::client_key::{ClientKey, Names};
use crate::counters::{Counters, Stage, Tally, add};
use crate::disk::{DiskSink, Part, Piece};
use crate::error::{Error, Result};
use crate::ids::{Kind, Ref};
use crate::manifest::Manifest;
use crate::pool::ChunkBytes;
use crate::repository::{Repository, StoredAt};
use crate::tasks::{in_threads, thread_count};
use crate::tree::codec::{self, RawEntry, data_bytes};
use crate::tree::entry::{Entry, EntryKind, Extent};
use crate::tree::layout::{self, Layout, Placed};
use crate::tree::lists::Refs;
use crate::tree::walk::{self, Directory};

use super::Outcome;

/// Threads that wait for the disk or the pool beside those that compute.
const WRITERS_WAITING: usize = 2;
/// Chunks that are put in order at a time: 2 GiB of a disk, and 8 MiB of memory.
const WINDOW: usize = 1 << 16;
/// Bytes that a thread takes at a time, about.
const BATCH_BYTES: u64 = 4 << 20;
/// Zeroes that a thread takes at a time.
const ZERO_BYTES: u64 = 256 << 20;

/// What to restore, and how.
#[derive(Clone, Debug)]
pub struct Request {
    /// Of the file in the image.
    pub path: Vec<u8>,
    /// Read again what was written, and compare it with the image.
    pub verify: bool,
    /// 0: as many as suit the machine.
    pub workers: usize,
}

/// A part of a chunk, where it is stored, and where it belongs.
#[derive(Clone, Copy)]
struct Item {
    place: Option<StoredAt>,
    part: Placed,
}

enum Task {
    Chunks(Vec<Item>),
    Zero(Extent),
}

/// The entry of an image's file, in plain attributes. `ClientKeyNeeded` for one that is sealed with a
/// client key which is not given; `Integrity` where one is given and the image is not its.
pub fn find(
    from: &dyn Repository,
    image: &Manifest,
    path: &[u8],
    key: Option<&ClientKey>,
) -> Result<Entry> {
    let Some(key) = key else {
        image.require_readable()?;
        return walk::find(from, &image.root, path);
    };
    if key.prove(image, from.naming())? == Names::Open {
        return walk::find(from, &image.root, path);
    }
    let missing = || Error::PathMissing {
        path: String::from_utf8_lossy(path).into_owned(),
        within: "the image".into(),
    };
    let (mut entry, mut names) = (image.root.clone(), key.root_dir());
    for part in path.split(|byte| *byte == b'/').filter(|part| !part.is_empty()) {
        let sealed = key.seal_name(&names, part)?;
        let found = Directory::of(from, &entry)?.lookup(&sealed)?.ok_or_else(missing)?;
        let mut raw = Vec::new();
        codec::encode_entry(&found, &mut raw)?;
        let raw = RawEntry { name: &found.name, raw: &raw };
        entry = key.open_entry(&names, &raw)?.as_raw().decode()?;
        names = names.child(part);
    }
    Ok(entry)
}

/// Writes a file of an image as a disk.
pub fn run(
    from: &dyn Repository,
    image: &Manifest,
    request: &Request,
    key: Option<&ClientKey>,
    to: &dyn DiskSink,
    counters: &Counters,
    cancel: &Cancel,
) -> Result<Outcome> {
    let entry = find(from, image, &request.path, key)?;
    let shown = request.path.escape_ascii();
    if entry.kind != EntryKind::File {
        let kind = entry.kind.as_str();
        return Err(Error::Invalid(format!("'{shown}' is not a disk but a {kind}")));
    }
    if to.size() < entry.size {
        return Err(Error::Invalid(format!(
            "'{shown}' has {} bytes, and is to become a disk of {}",
            entry.size,
            to.size()
        )));
    }
    add(&counters.bytes_total, data_bytes(&entry));
    add(&counters.files_total, 1);
    let opened = key.map(|key| Opened::new(from, key));
    let from = opened.as_ref().map_or(from, |opened| opened as &dyn Repository);
    let job = Job { from, to, counters, cancel, failed: AtomicBool::new(false) };
    job.pass(&entry, request.workers, &|tasks| job.write(tasks))?;
    let started = Instant::now();
    to.flush(&|| cancel.check())?;
    counters.busy(Stage::Finish, 0, started);
    add(&counters.files, 1);
    if request.verify {
        job.pass(&entry, request.workers, &|tasks| job.compare(tasks))?;
    }
    let bytes = counters.snapshot().bytes_read;
    let verified_files = u64::from(request.verify);
    Ok(Outcome { files: 1, bytes, verified_files, ..Outcome::default() })
}

/// What the threads of one restore share.
struct Job<'a> {
    from: &'a dyn Repository,
    to: &'a dyn DiskSink,
    counters: &'a Counters,
    cancel: &'a Cancel,
    failed: AtomicBool,
}

impl Job<'_> {
    /// Goes through a file once: one thread finds out what to do, others do it.
    fn pass(
        &self,
        entry: &Entry,
        workers: usize,
        work: &(dyn Fn(&Receiver<Task>) -> Result<()> + Sync),
    ) -> Result<()> {
        let count = thread_count(workers, WRITERS_WAITING);
        let (to, tasks) = bounded::<Task>(2 * count);
        let fail = || self.failed.store(true, Ordering::Release);
        std::thread::scope(|scope| {
            let found = scope.spawn(move || {
                // Ends with it, and so do those who wait for more.
                let to = to;
                self.plan(entry, &to).inspect_err(|_| fail())
            });
            let one = || {
                let done = work(&tasks);
                if done.is_err() {
                    fail();
                    // What is on its way is dropped, so that nobody waits for room.
                    tasks.iter().for_each(drop);
                }
                done
            };
            let done = in_threads(count, one, fail);
            let died = |_| Err(Error::Invalid("a thread of the engine died".into()));
            let found = found.join().unwrap_or_else(died);
            match (found, done) {
                (Err(error), Ok(()) | Err(Error::Cancelled)) => Err(error),
                (_, done) => done,
            }
        })
    }

    fn check(&self) -> Result<()> {
        self.cancel.check()?;
        if self.failed.load(Ordering::Acquire) { Err(Error::Cancelled) } else { Ok(()) }
    }

    fn plan(&self, entry: &Entry, to: &Sender<Task>) -> Result<()> {
        let give = |task| to.send(task).map_err(|_| Error::Cancelled);
        let whole = [Extent { offset: 0, length: entry.size }];
        let whole = if entry.size == 0 { &whole[..0] } else { &whole[..] };
        let extents = entry.extents.as_deref().unwrap_or(whole);
        if !self.to.is_fresh() {
            let mut at = 0;
            let ends = [Extent { offset: entry.size, length: 0 }];
            for extent in extents.iter().chain(&ends) {
                while at < extent.offset {
                    let length = (extent.offset - at).min(ZERO_BYTES);
                    give(Task::Zero(Extent { offset: at, length }))?;
                    at += length;
                }
                at = extent.offset + extent.length;
            }
        }
        let mut layout = Layout::new(entry);
        let mut window = Vec::with_capacity(WINDOW);
        for reference in Refs::new(self.from, &entry.content) {
            self.check()?;
            let reference = reference?;
            let place = self.from.stored_at(&reference.name);
            if !layout.place(reference, |part| window.push(Item { place, part })) {
                return Err(layout::mismatch(entry));
            }
            if window.len() >= WINDOW {
                hand_out(&mut window, self.from.stretch_bytes(), &give)?;
            }
        }
        layout.finish(entry)?;
        hand_out(&mut window, self.from.stretch_bytes(), &give)
    }

    fn write(&self, tasks: &Receiver<Task>) -> Result<()> {
        let mut tally = Tally::default();
        let patience = || self.check();
        for task in tasks {
            self.check()?;
            match task {
                Task::Zero(hole) => {
                    let started = Instant::now();
                    self.to.zero(hole.offset, hole.length, &patience)?;
                    tally.busy(Stage::Write, 0, started);
                }
                Task::Chunks(items) => {
                    let runs = self.runs(&items)?;
                    let parts: Vec<Part<'_>> = runs
                        .iter()
                        .map(|(offset, bytes)| Part { offset: *offset, bytes })
                        .collect();
                    let started = Instant::now();
                    self.to.write(&parts, &patience)?;
                    let bytes = parts.iter().map(|part| part.bytes.len() as u64).sum();
                    tally.busy(Stage::Write, bytes, started);
                    tally.bytes_read += bytes;
                }
            }
            self.counters.absorb(&mut tally);
        }
        Ok(())
    }

    /// The bytes of items; such as lie side by side in a block and on the disk are one run.
    fn runs(&self, items: &[Item]) -> Result<Vec<(u64, ChunkBytes)>> {
        let refs: Vec<Ref> = items.iter().map(|item| item.part.reference).collect();
        self.from.prefetch(Kind::Data, &refs, self.counters);
        let mut runs: Vec<(u64, ChunkBytes)> = Vec::new();
        for Item { part: item, .. } in items {
            self.check()?;
            let bytes = self.from.chunk(Kind::Data, &item.reference, self.counters)?;
            let part = item.skip as usize..(item.skip + item.length) as usize;
            let bytes = bytes.part(part);
            match runs.last_mut() {
                Some((offset, run)) if *offset + run.len() as u64 == item.offset => {
                    if !run.join(&bytes) {
                        runs.push((item.offset, bytes));
                    }
                }
                _ => runs.push((item.offset, bytes)),
            }
        }
        Ok(runs)
    }

    /// Reads what was written again.
    fn compare(&self, tasks: &Receiver<Task>) -> Result<()> {
        let patience = || self.check();
        for task in tasks {
            let Task::Chunks(items) = task else { continue };
            for (offset, expected) in self.runs(&items)? {
                let mut bytes = vec![0; expected.len()];
                self.to.read(&mut [Piece { offset, bytes: &mut bytes }], &patience)?;
                if let Some(at) = bytes.iter().zip(&*expected).position(|(a, b)| a != b) {
                    return Err(Error::integrity(
                        "the restored disk",
                        format!("it differs from the image at byte {}", offset + at as u64),
                    ));
                }
            }
        }
        Ok(())
    }
}

/// Hands out what was gathered, in the order in which it is stored; from afar in the order of the
/// disk, as much at a time as is good to ask for.
fn hand_out(
    window: &mut Vec<Item>,
    stretch: Option<u64>,
    give: &dyn Fn(Task) -> Result<()>,
) -> Result<()> {
    window.sort_by_key(|item| item.place);
    let most = stretch.unwrap_or(BATCH_BYTES);
    let (mut batch, mut bytes) = (Vec::new(), 0);
    for item in window.drain(..) {
        let block = |item: &Item| item.place.map(|(pack, block, _)| (pack, block));
        let is_apart =
            batch.last().is_none_or(|last| block(last) != block(&item) || block(last).is_none());
        if bytes >= most && is_apart {
            give(Task::Chunks(std::mem::take(&mut batch)))?;
            bytes = 0;
        }
        bytes += u64::from(item.part.length);
        batch.push(item);
    }
    if batch.is_empty() { Ok(()) } else { give(Task::Chunks(batch)) }
}
