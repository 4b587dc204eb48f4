//! One directory of a running backup: listed, split into batches, and written as a tree object
//! when the last thing below it is done.

use std::io;
use std::iter;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use parking_lot::Mutex;

use crate::client_key::{ClientKey, DirKey};
use crate::counters::{Stage, Tally};
use crate::error::{Error, Result};
use crate::ids::{Kind, Ref};
use crate::scan::attrs::{self, Stat};
use crate::scan::handle::DirHandle;
use crate::scan::list::{self, NameList, RawName};
use crate::scan::problem::{self, Problem};
use crate::scan::{filesystem, rules};
use crate::tree::build;
use crate::tree::codec::{self, RawContent, RawEntry};
use crate::tree::entry::{Entry, EntryKind};

use super::file::Miss;
use super::node::{DirNode, Listing, Slot};
use super::previous::{PreviousDir, is_same};
use super::queue::Work;
use super::sealed;
use super::worker::Worker;

/// Names that one worker takes at a time.
const BATCH: usize = 64;

impl<'a> Worker<'a> {
    /// Lists a directory and queues its names.
    pub fn directory(&mut self, node: &Arc<DirNode>) -> Result<()> {
        let started = Instant::now();
        let listing = self.list(node)?;
        let count = listing.names.len();
        node.entries.lock().expect(count);
        if !listing.has_all_before() {
            node.differs();
        }
        let _ = node.listing.set(listing);
        self.tally.busy(Stage::Find, 0, started);
        // One for the listing itself, so that the directory does not end before it is queued.
        node.pending.store(1 + count.div_ceil(BATCH), Ordering::Release);
        if count > BATCH {
            let starts = (0..count).step_by(BATCH).skip(1).rev();
            self.job.queue.push(starts.map(|from| Work::Batch {
                node: Arc::clone(node),
                from,
                to: count.min(from + BATCH),
            }));
        }
        if count > 0 {
            self.batch(node, 0..count.min(BATCH))?;
        }
        self.one_ended(node)
    }

    /// Reads names, what the previous image knows, and whether the directory asks to be left out.
    fn list(&mut self, node: &Arc<DirNode>) -> Result<Listing> {
        let asked_for = node.selection.asked_for();
        let names = if node.selection.scope().is_none() {
            NameList::of(asked_for)
        } else {
            let all = list::read_names(&node.handle).unwrap_or_else(|error| {
                problem::explain(&error, "list the directory")
                    .report(self.job.findings, &node.handle.path());
                NameList::default()
            });
            match node.handle.fd().ok().and_then(|fd| rules::mark(fd.as_fd(), &all)) {
                Some(mark) => NameList::of(asked_for.chain([mark.file_name()])),
                None => all,
            }
        };
        let previous = match node.previous_ref {
            None => None,
            Some(reference) => {
                let from = self.sink.repository();
                let sealed = self.sealed(node);
                match PreviousDir::load(from, &reference, self.job.counters, sealed) {
                    Ok(previous) => {
                        self.bring_near(&previous);
                        Some(previous)
                    }
                    Err(error) => {
                        self.job.findings.warning(
                            &node.handle.path(),
                            "previous-unreadable",
                            format!(
                                "the previous image's directory cannot be read, so every file \
                                 in it is read again: {error}"
                            ),
                        );
                        None
                    }
                }
            }
        };
        Ok(Listing::new(names, previous))
    }

    /// From a pool far away, what the directories below were comes in one go.
    fn bring_near(&self, previous: &PreviousDir) {
        let from = self.sink.repository();
        if from.stretch_bytes().is_some() {
            let below = previous.subtrees();
            if below.len() > 1 {
                from.prefetch(Kind::Tree, &below, self.job.counters);
            }
        }
    }

    /// Looks at some names and backs up what they stand for.
    pub fn batch(&mut self, node: &Arc<DirNode>, range: Range<usize>) -> Result<()> {
        let Some(listing) = node.listing.get() else {
            return Err(Error::Invalid("a batch of a directory that was not listed".into()));
        };
        let places = listing.order.get(range).unwrap_or_default();
        let mut arena = Vec::new();
        let mut slots = Vec::with_capacity(places.len());
        let mut below = Vec::new();
        let mut looking = Looking::begin();
        // Held for as long as these few names take.
        let dir = node.handle.fd();
        for place in places {
            let place = *place as usize;
            let Some(named) = listing.names.get(place) else { continue };
            self.sink.check()?;
            looking.names += 1;
            let outcome = match &dir {
                Ok(dir) => self.name(node, dir.as_fd(), place, named, &mut arena, &mut looking)?,
                Err(error) => self.missed(node, named.name, error, "open its directory"),
            };
            match outcome {
                Outcome::Entry(slot) => slots.push((place, slot)),
                Outcome::Below(child) => below.push(child),
                Outcome::LeftOut if listing.before(place).is_some() => node.differs(),
                Outcome::LeftOut => {}
            }
        }
        looking.stop(&mut self.tally);
        node.entries.lock().put_all(&arena, slots.into_iter());
        self.job.counters.absorb(&mut self.tally);
        if !below.is_empty() {
            node.pending.fetch_add(below.len(), Ordering::AcqRel);
            // The last pushed is taken first. A restore goes by name, and wants neighbours in one
            // block.
            below.sort_by_key(|child| std::cmp::Reverse(child.place()));
            self.job.queue.push(below.into_iter().map(Work::Directory));
        }
        self.one_ended(node)
    }

    /// One name: its entry is the one before or is appended to `out`, or its directory is to be
    /// visited.
    fn name(
        &mut self,
        node: &Arc<DirNode>,
        dir: BorrowedFd<'_>,
        place: usize,
        named: RawName<'_>,
        out: &mut Vec<u8>,
        looking: &mut Looking,
    ) -> Result<Outcome> {
        let name = named.name;
        if named.kind_hint == Some(EntryKind::Dir) {
            if self.is_excluded(node, name, true) {
                return Ok(Outcome::LeftOut);
            }
            // Opening it tells all about it. What is wrong with it is found out below.
            if let Ok(handle) = node.handle.child(name) {
                return Ok(self.below(node, place, handle));
            }
        }
        let stat = match Stat::of_name(dir, name) {
            Ok(stat) => stat,
            Err(error) => return Ok(self.missed(node, name, &error, "look at it")),
        };
        if self.is_excluded(node, name, stat.kind == EntryKind::Dir) {
            return Ok(Outcome::LeftOut);
        }
        match stat.kind {
            EntryKind::Dir => {
                return Ok(match node.handle.child(name) {
                    Ok(handle) => self.below(node, place, handle),
                    Err(error) => self.missed(node, name, &error, "open the directory"),
                });
            }
            EntryKind::File => {
                self.tally.files += 1;
                self.tally.bytes_found += stat.size;
            }
            _ => self.tally.others += 1,
        }
        if let Some(before) = node.before(place)
            && self.is_unchanged(&stat, &before)?
        {
            if stat.kind == EntryKind::File {
                self.tally.files_unchanged += 1;
            }
            return Ok(Outcome::Entry(Slot::Before));
        }
        node.differs();
        let entry = if stat.kind == EntryKind::File {
            self.tally.files_changed += 1;
            looking.stop(&mut self.tally);
            let read = self.file(node, name);
            *looking = Looking::begin();
            match read {
                Ok(entry) => entry,
                Err(Miss::Fatal(error)) => return Err(error),
                Err(Miss::Skipped(error, doing)) => {
                    return Ok(self.missed(node, name, &error, doing));
                }
            }
        } else {
            match attrs::entry_of(dir, name, &stat, &self.job.names) {
                Ok(mut entry) => {
                    let found = self.job.xattrs.of_name(dir, name, stat.kind, stat.device);
                    entry.xattrs = found.pairs;
                    self.report(node, name, found.problems);
                    entry
                }
                Err(error) => return Ok(self.missed(node, name, &error, "read it")),
            }
        };
        let start = out.len();
        let encoded = codec::encode_entry(&entry, out);
        encoded.map_err(|error| self.unnamed(node, name, error))?;
        Ok(Outcome::Entry(Slot::Own(start..out.len())))
    }

    /// Where names are sealed, what ends the job names no file either.
    fn unnamed(&self, node: &DirNode, name: &[u8], error: Error) -> Error {
        match (self.sealed(node), error) {
            (Some((key, _)), Error::Invalid(_)) => {
                let path = key.seal_path(&node.handle.path_of(name));
                let shown = String::from_utf8_lossy(&path).into_owned();
                Error::Invalid(format!("what describes '{shown}' cannot be stored"))
            }
            (_, error) => error,
        }
    }

    fn report(&self, node: &DirNode, name: &[u8], problems: Vec<Problem>) {
        for problem in problems {
            problem.report(self.job.findings, &node.handle.path_of(name));
        }
    }

    fn missed(&self, node: &DirNode, name: &[u8], error: &io::Error, doing: &str) -> Outcome {
        problem::explain(error, doing).report(self.job.findings, &node.handle.path_of(name));
        Outcome::LeftOut
    }

    fn is_excluded(&self, node: &DirNode, name: &[u8], is_dir: bool) -> bool {
        let Some(scope) = node.selection.scope() else { return false };
        !scope.rules().is_empty()
            && !node.selection.is_asked_for(name)
            && scope.rules().excluded(&joined(&node.below, name), is_dir)
    }

    /// As before, and all that it holds is held.
    fn is_unchanged(&self, stat: &Stat, before: &RawEntry<'_>) -> Result<bool> {
        // What can't be read is read from the file again.
        let Ok(marks) = before.marks() else { return Ok(false) };
        if !is_same(stat, &marks, self.job.trusted_before) {
            return Ok(false);
        }
        if self.sink.may_reuse() { Ok(true) } else { self.is_held(before) }
    }

    /// Whether the pool holds all chunks of an entry outside of packs that are to go.
    fn is_held(&self, before: &RawEntry<'_>) -> Result<bool> {
        match before.peek().map(|seen| seen.content) {
            Ok(RawContent::Empty) => Ok(true),
            Ok(RawContent::Direct(refs)) => match Ref::iter(refs) {
                Some(mut refs) => self.sink.holds(&mut refs),
                None => Ok(false),
            },
            // Reading it again costs less than walking its lists.
            Ok(RawContent::Listed { .. }) | Err(_) => Ok(false),
        }
    }

    /// A directory below this one, to be visited: as an empty one where it is on another file
    /// system that is not wanted, or on one that the kernel makes up, unless it was asked for.
    fn below(&self, node: &Arc<DirNode>, place: usize, handle: Arc<DirHandle>) -> Outcome {
        let name = handle.name();
        let (selection, is_asked_for) = node.selection.of(name, handle.stat());
        let has_rules = selection.scope().is_some_and(|scope| !scope.rules().is_empty());
        let below = if has_rules && !is_asked_for { joined(&node.below, name) } else { Vec::new() };
        let is_made_up = !is_asked_for
            && handle.stat().is_on_other_file_system(node.handle.stat())
            && handle.fd().and_then(filesystem::is_made_up).unwrap_or(false);
        let selection = if is_made_up { selection.asked_for_only() } else { selection };
        let previous_ref =
            node.before(place).and_then(|before| before.peek().ok()).and_then(|seen| seen.subtree);
        let names = node.names.map(|names| names.child(name));
        Outcome::Below(Arc::new(DirNode {
            parent: Some((Arc::clone(node), place)),
            handle,
            below,
            selection,
            previous_ref,
            names,
            listing: OnceLock::new(),
            entries: Mutex::default(),
            pending: AtomicUsize::new(0),
            changed: AtomicBool::new(false),
        }))
    }

    /// Counts one thing below `node` as ended; ends the directory with its last, and so upwards.
    fn one_ended(&mut self, node: &Arc<DirNode>) -> Result<()> {
        let mut node = Arc::clone(node);
        loop {
            if node.pending.fetch_sub(1, Ordering::AcqRel) != 1 {
                return Ok(());
            }
            let Some(above) = self.end(&node)? else { return Ok(()) };
            node = above;
        }
    }

    /// Writes a directory whose last thing has ended. Returns the one above it.
    fn end(&mut self, node: &Arc<DirNode>) -> Result<Option<Arc<DirNode>>> {
        let started = Instant::now();
        self.tally.dirs += 1;
        let entries = std::mem::take(&mut *node.entries.lock());
        let reusable = node
            .previous_ref
            .filter(|_| !node.changed.load(Ordering::Relaxed))
            .filter(|_| self.sink.may_reuse());
        if reusable.is_some()
            && let Some((above, place)) = &node.parent
            && self.is_directory_unchanged(node)
        {
            self.tally.busy(Stage::Find, 0, started);
            above.entries.lock().put_all(&[], iter::once((*place, Slot::Before)));
            return Ok(Some(Arc::clone(above)));
        }
        let subtree = match (reusable, node.listing.get()) {
            (Some(same), _) => same,
            (None, Some(listing)) => {
                let raw = entries.raw(listing);
                match self.sealed(node) {
                    None => build::write_directory(self.sink, raw)?,
                    Some((key, names)) => sealed::write_directory(self.sink, key, names, raw)?,
                }
            }
            (None, None) => {
                return Err(Error::Invalid("a directory ended before it was listed".into()));
            }
        };
        let stat = node.handle.stat();
        let mut entry = stat.entry(node.handle.name(), &self.job.names);
        entry.nlink = 1;
        entry.subtree = Some(subtree);
        match node.handle.fd() {
            Ok(fd) => {
                let found = self.job.xattrs.of_fd(fd.as_fd(), stat.device);
                entry.xattrs = found.pairs;
                self.report(node, b".", found.problems);
            }
            Err(error) => problem::explain(&error, "read its attributes")
                .report(self.job.findings, &node.handle.path()),
        }
        self.tally.busy(Stage::Find, 0, started);
        match &node.parent {
            None => {
                let root = match self.sealed(node) {
                    None => entry,
                    Some((key, _)) => key.seal_root(entry)?,
                };
                self.job.set_root(root);
                Ok(None)
            }
            Some((above, place)) => {
                self.hand_up(above, *place, &entry)?;
                Ok(Some(Arc::clone(above)))
            }
        }
    }

    /// Whether a directory's own entry is the one before, as far as its attributes go: those that
    /// are read by further calls can't have changed without another ctime.
    fn is_directory_unchanged(&self, node: &DirNode) -> bool {
        let Some(seen) = node.own_before().and_then(|before| before.peek().ok()) else {
            return false;
        };
        let stat = node.handle.stat();
        stat.device == seen.device && is_same(stat, &seen.marks(), self.job.trusted_before)
    }

    /// With what the names of a directory are sealed, where they are.
    fn sealed<'n>(&self, node: &'n DirNode) -> Option<(&'n ClientKey, &'n DirKey)>
    where
        'a: 'n,
    {
        Some((&self.sink.sealing()?.key, node.names.as_ref()?))
    }

    /// Gives a finished directory's entry to the one above.
    fn hand_up(&mut self, above: &DirNode, place: usize, entry: &Entry) -> Result<()> {
        let mut raw = Vec::new();
        let encoded = codec::encode_entry(entry, &mut raw);
        encoded.map_err(|error| self.unnamed(above, &entry.name, error))?;
        if above.before(place).map(|before| before.raw) != Some(&raw) {
            above.differs();
        }
        let slot = Slot::Own(0..raw.len());
        above.entries.lock().put_all(&raw, iter::once((place, slot)));
        Ok(())
    }
}

/// Since when a worker looks at names, and at how many: time that goes into reading is not of it.
struct Looking {
    since: Instant,
    names: u64,
}

impl Looking {
    fn begin() -> Self {
        Looking { since: Instant::now(), names: 0 }
    }

    fn stop(&self, tally: &mut Tally) {
        tally.busy_with(Stage::Find, self.names, 0, self.since);
    }
}

/// What became of a name.
enum Outcome {
    Entry(Slot),
    Below(Arc<DirNode>),
    LeftOut,
}

fn joined(below: &[u8], name: &[u8]) -> Vec<u8> {
    let mut path = Vec::with_capacity(below.len() + 1 + name.len());
    path.extend_from_slice(below);
    if !below.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
    path
}
