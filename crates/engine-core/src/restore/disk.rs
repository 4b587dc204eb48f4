//! One file of an image, written as a disk: in the order in which its chunks are stored, by several
//! threads, to wherever that disk is.
//!
//! All or nothing: what cannot be read or written ends it with an error that names the place. Holes
//! are not written where the disk reads as zero. What is said to be kept was flushed before that is
//! said: a restore that ends in the middle, however that is, can begin again from there.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

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
    pub progress: Progress,
}

/// How far a disk is, of which a part may be written already.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// What lies before was written by an earlier restore, and is not written again.
    pub begin: u64,
    /// After about so many bytes the disk is flushed, while more is written; 0: only at its end.
    pub keep_bytes: u64,
    /// All before this outlasts a loss of power. Only grows.
    pub kept_until: Arc<AtomicU64>,
}

/// A part of a chunk, where it is stored, and where it belongs.
#[derive(Clone, Copy)]
struct Item {
    place: Option<StoredAt>,
    part: Placed,
}

enum Work {
    Chunks(Vec<Item>),
    Zero(Extent),
}

struct Task {
    work: Work,
    /// Told when it is done, and not when it failed.
    done: Sender<()>,
}

/// Tasks that, once done, make all of the disk before `end` written.
struct Window {
    end: u64,
    tasks: usize,
    done: Receiver<()>,
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
    let Progress { begin, kept_until, .. } = &request.progress;
    let data: Vec<_> = layout::stretches(&entry)
        .into_iter()
        .map(|one| Extent { offset: one.offset, length: one.length })
        .collect();
    to.expect(&data, *begin)?;
    drop(data);
    kept_until.store(*begin, Ordering::Release);
    add(&counters.bytes_total, bytes_from(&entry, *begin));
    add(&counters.files_total, 1);
    let opened = key.map(|key| Opened::new(from, key));
    let from = opened.as_ref().map_or(from, |opened| opened as &dyn Repository);
    let job = Job { from, to, counters, cancel, failed: AtomicBool::new(false) };
    job.pass(&entry, request.workers, &request.progress, &|tasks| job.write(tasks))?;
    let started = Instant::now();
    to.flush(&|| cancel.check())?;
    kept_until.store(entry.size, Ordering::Release);
    counters.busy(Stage::Finish, 0, started);
    add(&counters.files, 1);
    if request.verify {
        // Also what an earlier restore wrote.
        let whole = Progress::default();
        job.pass(&entry, request.workers, &whole, &|tasks| job.compare(tasks))?;
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
        progress: &Progress,
        work: &(dyn Fn(&Receiver<Task>) -> Result<()> + Sync),
    ) -> Result<()> {
        let count = thread_count(workers, WRITERS_WAITING);
        let (to, tasks) = bounded::<Task>(2 * count);
        let (told, windows) = unbounded::<Window>();
        let fail = || self.failed.store(true, Ordering::Release);
        std::thread::scope(|scope| {
            let found = scope.spawn(move || {
                // Ends with it, and so do those who wait for more.
                let (to, told) = (to, told);
                self.plan(entry, progress, &to, &told).inspect_err(|_| fail())
            });
            let kept = scope
                .spawn(move || self.keep(&windows, &progress.kept_until).inspect_err(|_| fail()));
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
            let kept = kept.join().unwrap_or_else(died);
            // A fault is told rather than the cancellations that follow from it.
            let mut outcome = done;
            for other in [found, kept] {
                if matches!(outcome, Ok(()) | Err(Error::Cancelled)) && other.is_err() {
                    outcome = other;
                }
            }
            outcome
        })
    }

    fn check(&self) -> Result<()> {
        self.cancel.check()?;
        if self.failed.load(Ordering::Acquire) { Err(Error::Cancelled) } else { Ok(()) }
    }

    fn plan(
        &self,
        entry: &Entry,
        progress: &Progress,
        to: &Sender<Task>,
        told: &Sender<Window>,
    ) -> Result<()> {
        let mut giver = Giver::new(to, told);
        for hole in stale_holes(entry, &self.to.stale(), progress.begin) {
            giver.give(Work::Zero(hole))?;
        }
        let most = if progress.keep_bytes == 0 { u64::MAX } else { progress.keep_bytes };
        let stretch = self.from.stretch_bytes();
        let mut layout = Layout::new(entry);
        let (mut window, mut bytes) = (Vec::with_capacity(WINDOW), 0);
        for reference in Refs::new(self.from, &entry.content) {
            self.check()?;
            let reference = reference?;
            let place = self.from.stored_at(&reference.name);
            let is_whole = layout.place(reference, |part| {
                if part.end() > progress.begin {
                    bytes += u64::from(part.length);
                    window.push(Item { place, part });
                }
            });
            if !is_whole {
                return Err(layout::mismatch(entry));
            }
            if window.len() >= WINDOW || bytes >= most {
                let end = window.last().map_or(0, |item| item.part.end());
                hand_out(&mut window, stretch, &mut |work| giver.give(work))?;
                if bytes >= most {
                    giver.end(end);
                    bytes = 0;
                }
            }
        }
        layout.finish(entry)?;
        hand_out(&mut window, stretch, &mut |work| giver.give(work))
    }

    /// Flushes the disk each time when all is written up to somewhere, and says so.
    fn keep(&self, windows: &Receiver<Window>, kept_until: &AtomicU64) -> Result<()> {
        for window in windows {
            for _ in 0..window.tasks {
                // One that failed says nothing, and then nobody does.
                window.done.recv().map_err(|_| Error::Cancelled)?;
            }
            self.to.flush(&|| self.check())?;
            kept_until.fetch_max(window.end, Ordering::Release);
        }
        Ok(())
    }

    fn write(&self, tasks: &Receiver<Task>) -> Result<()> {
        let mut tally = Tally::default();
        let patience = || self.check();
        for task in tasks {
            self.check()?;
            match task.work {
                Work::Zero(hole) => {
                    let started = Instant::now();
                    self.to.zero(hole.offset, hole.length, &patience)?;
                    tally.busy(Stage::Write, 0, started);
                }
                Work::Chunks(items) => {
                    let runs = self.runs(&items)?;
                    let mut parts: Vec<Part<'_>> = runs
                        .iter()
                        .map(|(offset, bytes)| Part { offset: *offset, bytes })
                        .collect();
                    // Side by side on the disk, though several cells shared a block.
                    parts.sort_by_key(|part| part.offset);
                    let started = Instant::now();
                    self.to.write(&parts, &patience)?;
                    let bytes = parts.iter().map(|part| part.bytes.len() as u64).sum();
                    tally.busy(Stage::Write, bytes, started);
                    tally.bytes_read += bytes;
                }
            }
            self.counters.absorb(&mut tally);
            let _ = task.done.send(());
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
            let Work::Chunks(items) = task.work else { continue };
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

/// Gives tasks to threads, and says which of them have to be done for a part of the disk.
struct Giver<'a> {
    to: &'a Sender<Task>,
    told: &'a Sender<Window>,
    tasks: usize,
    done: (Sender<()>, Receiver<()>),
}

impl<'a> Giver<'a> {
    fn new(to: &'a Sender<Task>, told: &'a Sender<Window>) -> Self {
        Giver { to, told, tasks: 0, done: unbounded() }
    }

    fn give(&mut self, work: Work) -> Result<()> {
        self.tasks += 1;
        let task = Task { work, done: self.done.0.clone() };
        self.to.send(task).map_err(|_| Error::Cancelled)
    }

    /// What was given since the last time is all there is before `end`.
    fn end(&mut self, end: u64) {
        let (_, done) = std::mem::replace(&mut self.done, unbounded());
        let window = Window { end, tasks: std::mem::take(&mut self.tasks), done };
        let _ = self.told.send(window);
    }
}

/// Bytes of data from a place of the file on.
fn bytes_from(entry: &Entry, begin: u64) -> u64 {
    if begin == 0 {
        return data_bytes(entry);
    }
    let upto =
        layout::stretches(entry).into_iter().map(|one| (one.offset, one.offset + one.length));
    upto.map(|(from, upto)| upto.saturating_sub(from.max(begin))).sum()
}

/// The holes of a file from a place on, as far as they may read as something else than zero.
fn stale_holes(entry: &Entry, stale: &[Extent], begin: u64) -> Vec<Extent> {
    if stale.is_empty() {
        return Vec::new();
    }
    let whole = [Extent { offset: 0, length: entry.size }];
    let whole = if entry.size == 0 { &whole[..0] } else { &whole[..] };
    let extents = entry.extents.as_deref().unwrap_or(whole);
    let (mut found, mut at, mut first) = (Vec::new(), begin, 0);
    let ends = [Extent { offset: entry.size, length: 0 }];
    for extent in extents.iter().chain(&ends) {
        for one in stale.get(first..).unwrap_or_default() {
            let upto = one.offset.saturating_add(one.length);
            if one.offset >= extent.offset {
                break;
            }
            let (mut from, end) = (one.offset.max(at), upto.min(extent.offset));
            while from < end {
                let length = (end - from).min(ZERO_BYTES);
                found.push(Extent { offset: from, length });
                from += length;
            }
            if upto <= extent.offset {
                first += 1;
            }
        }
        at = at.max(extent.offset.saturating_add(extent.length));
    }
    found
}

/// Hands out what was gathered, in the order in which it is stored; from afar in the order of the
/// disk, as much at a time as is good to ask for.
fn hand_out(
    window: &mut Vec<Item>,
    stretch: Option<u64>,
    give: &mut dyn FnMut(Work) -> Result<()>,
) -> Result<()> {
    window.sort_by_key(|item| item.place);
    let most = stretch.unwrap_or(BATCH_BYTES);
    let (mut batch, mut bytes) = (Vec::new(), 0);
    for item in window.drain(..) {
        let block = |item: &Item| item.place.map(|(pack, block, _)| (pack, block));
        let is_apart =
            batch.last().is_none_or(|last| block(last) != block(&item) || block(last).is_none());
        if bytes >= most && is_apart {
            give(Work::Chunks(std::mem::take(&mut batch)))?;
            bytes = 0;
        }
        bytes += u64::from(item.part.length);
        batch.push(item);
    }
    if batch.is_empty() { Ok(()) } else { give(Work::Chunks(batch)) }
}
