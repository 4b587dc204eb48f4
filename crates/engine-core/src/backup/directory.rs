//! One directory of a running backup: listed, split into batches, and written as a tree object
//! when the last thing below it is done.

use std::io;
use std::ops::Range;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use parking_lot::Mutex;

use crate::client_key::{ClientKey, DirKey};
use crate::counters::Stage;
use crate::error::{Error, Result};
use crate::ids::{Kind, Ref};
use crate::scan::attrs::{self, Stat};
use crate::scan::handle::DirHandle;
use crate::scan::list::{self, NameList};
use crate::scan::problem::{self, Problem};
use crate::scan::{filesystem, rules};
use crate::tree::build;
use crate::tree::codec::{self, Peek, RawContent, RawEntry};
use crate::tree::entry::{Entry, EntryKind};

use super::file::Miss;
use super::previous::{PreviousDir, is_same};
use super::queue::Work;
use super::sealed;
use super::selection::Selection;
use super::worker::Worker;

/// Names that one worker takes at a time.
const BATCH: usize = 64;

/// A directory at work.
pub struct DirNode {
    /// Above it, and its place among the names there. `None`: the image's root.
    parent: Option<(Arc<DirNode>, usize)>,
    name: Vec<u8>,
    pub handle: Arc<DirHandle>,
    /// The path below the root of its scope; kept only where rules ask for it.
    below: Vec<u8>,
    selection: Selection,
    previous_ref: Option<Ref>,
    /// With what names in it are sealed, where names are.
    names: Option<DirKey>,
    listing: OnceLock<Listing>,
    entries: Mutex<Entries>,
    /// Batches and directories that are still to end.
    pending: AtomicUsize,
    changed: AtomicBool,
}

struct Listing {
    names: NameList,
    order: Vec<u32>,
    previous: Option<PreviousDir>,
}

/// Encoded entries, by place among the sorted names.
#[derive(Default)]
struct Entries {
    arena: Vec<u8>,
    places: Vec<Range<usize>>,
}

impl Entries {
    fn put(&mut self, place: usize, raw: &[u8]) {
        let start = self.arena.len();
        self.arena.extend_from_slice(raw);
        if let Some(range) = self.places.get_mut(place) {
            *range = start..self.arena.len();
        }
    }
}

impl DirNode {
    pub fn root(
        handle: Arc<DirHandle>,
        selection: Selection,
        previous_ref: Option<Ref>,
        names: Option<DirKey>,
    ) -> Arc<Self> {
        selection.begins(handle.stat());
        Arc::new(DirNode {
            parent: None,
            name: b"/".to_vec(),
            handle,
            below: Vec::new(),
            selection,
            previous_ref,
            names,
            listing: OnceLock::new(),
            entries: Mutex::default(),
            pending: AtomicUsize::new(0),
            changed: AtomicBool::new(false),
        })
    }

    /// Its place among the sorted names above it.
    fn place(&self) -> usize {
        self.parent.as_ref().map_or(0, |(_, place)| *place)
    }

    fn previous(&self) -> Option<&PreviousDir> {
        self.listing.get().and_then(|listing| listing.previous.as_ref())
    }
}

impl Drop for DirNode {
    /// Drops the way up without recursion: a path may be ten thousand directories deep.
    fn drop(&mut self) {
        let mut above = self.parent.take();
        while let Some((node, _)) = above {
            above = Arc::into_inner(node).and_then(|mut node| node.parent.take());
        }
    }
}

impl<'a> Worker<'a> {
    /// Lists a directory and queues its names.
    pub fn directory(&mut self, node: &Arc<DirNode>) -> Result<()> {
        let started = Instant::now();
        let listing = self.list(node)?;
        let count = listing.names.len();
        node.entries.lock().places.resize(count, 0..0);
        let previous_count = listing.previous.as_ref().map(PreviousDir::len);
        if previous_count != Some(count) {
            node.changed.store(true, Ordering::Relaxed);
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
        let order = names.by_inode();
        Ok(Listing { names, order, previous })
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
        let mut own = Entries { arena: Vec::new(), places: Vec::new() };
        let mut done: Vec<(usize, Range<usize>)> = Vec::with_capacity(range.len());
        let mut below = Vec::new();
        for place in listing.order.get(range).unwrap_or_default() {
            let place = *place as usize;
            let Some(raw_name) = listing.names.get(place) else { continue };
            self.sink.check()?;
            let start = own.arena.len();
            match self.name(node, place, raw_name.name, &mut own.arena)? {
                Outcome::Entry => done.push((place, start..own.arena.len())),
                Outcome::Below(child) => below.push(child),
                Outcome::LeftOut => {
                    own.arena.truncate(start);
                    if node.previous().is_some_and(|dir| dir.find(raw_name.name).is_some()) {
                        node.changed.store(true, Ordering::Relaxed);
                    }
                }
            }
        }
        {
            let mut entries = node.entries.lock();
            let base = entries.arena.len();
            entries.arena.extend_from_slice(&own.arena);
            for (place, range) in done {
                if let Some(slot) = entries.places.get_mut(place) {
                    *slot = base + range.start..base + range.end;
                }
            }
        }
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

    /// One name: its entry is appended to `out`, or its directory is to be visited.
    fn name(
        &mut self,
        node: &Arc<DirNode>,
        place: usize,
        name: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Outcome> {
        let started = Instant::now();
        let dir = match node.handle.fd() {
            Ok(dir) => dir,
            Err(error) => return Ok(self.missed(node, name, &error, "open its directory")),
        };
        let stat = match Stat::of_name(dir.as_fd(), name) {
            Ok(stat) => stat,
            Err(error) => return Ok(self.missed(node, name, &error, "look at it")),
        };
        self.tally.busy(Stage::Find, 0, started);
        if self.is_excluded(node, name, stat.kind == EntryKind::Dir) {
            return Ok(Outcome::LeftOut);
        }
        match stat.kind {
            EntryKind::Dir => return Ok(self.below(node, place, name, &stat)),
            EntryKind::File => {
                self.tally.files += 1;
                self.tally.bytes_found += stat.size;
            }
            _ => self.tally.others += 1,
        }
        if let Some((raw, seen)) = node.previous().and_then(|dir| dir.peek(name))
            && self.is_unchanged(&stat, &seen)?
        {
            if stat.kind == EntryKind::File {
                self.tally.files_unchanged += 1;
            }
            out.extend_from_slice(raw.raw);
            return Ok(Outcome::Entry);
        }
        node.changed.store(true, Ordering::Relaxed);
        let entry = if stat.kind == EntryKind::File {
            self.tally.files_changed += 1;
            match self.file(node, name) {
                Ok(entry) => entry,
                Err(Miss::Fatal(error)) => return Err(error),
                Err(Miss::Skipped(error, doing)) => {
                    return Ok(self.missed(node, name, &error, doing));
                }
            }
        } else {
            match attrs::entry_of(dir.as_fd(), name, &stat, &self.job.names) {
                Ok(mut entry) => {
                    let found = self.job.xattrs.of_name(dir.as_fd(), name, stat.kind, stat.device);
                    entry.xattrs = found.pairs;
                    self.report(node, name, found.problems);
                    entry
                }
                Err(error) => return Ok(self.missed(node, name, &error, "read it")),
            }
        };
        let encoded = codec::encode_entry(&entry, out);
        encoded.map_err(|error| self.unnamed(node, name, error))?;
        Ok(Outcome::Entry)
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
    fn is_unchanged(&self, stat: &Stat, seen: &Peek<'_>) -> Result<bool> {
        if !is_same(stat, seen, self.job.trusted_before) {
            return Ok(false);
        }
        if self.sink.may_reuse() { Ok(true) } else { self.is_held(seen) }
    }

    /// Whether the pool holds all chunks of an entry outside of packs that are to go.
    fn is_held(&self, seen: &Peek<'_>) -> Result<bool> {
        match seen.content {
            RawContent::Empty => Ok(true),
            RawContent::Direct(refs) => match Ref::iter(refs) {
                Some(mut refs) => self.sink.holds(&mut refs),
                None => Ok(false),
            },
            // Reading it again costs less than walking its lists.
            RawContent::Listed { .. } => Ok(false),
        }
    }

    /// A directory below this one, to be visited: as an empty one where it is on another file
    /// system that is not wanted, or on one that the kernel makes up, unless it was asked for.
    fn below(&mut self, node: &Arc<DirNode>, place: usize, name: &[u8], stat: &Stat) -> Outcome {
        let (selection, is_asked_for) = node.selection.of(name, stat);
        let has_rules = selection.scope().is_some_and(|scope| !scope.rules().is_empty());
        let below = if has_rules && !is_asked_for { joined(&node.below, name) } else { Vec::new() };
        let handle = match node.handle.child(name) {
            Ok(handle) => handle,
            Err(error) => return self.missed(node, name, &error, "open the directory"),
        };
        let is_made_up = !is_asked_for
            && handle.stat().is_on_other_file_system(node.handle.stat())
            && handle.fd().and_then(filesystem::is_made_up).unwrap_or(false);
        let selection = if is_made_up { selection.asked_for_only() } else { selection };
        let previous_ref =
            node.previous().and_then(|dir| dir.peek(name)).and_then(|(_, seen)| seen.subtree);
        Outcome::Below(Arc::new(DirNode {
            parent: Some((Arc::clone(node), place)),
            name: name.to_vec(),
            handle,
            below,
            selection,
            previous_ref,
            names: node.names.map(|names| names.child(name)),
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
        let subtree = match (reusable, node.listing.get()) {
            (Some(same), _) => same,
            (None, Some(listing)) => {
                let raw = entries
                    .places
                    .iter()
                    .enumerate()
                    .filter(|(_, range)| !range.is_empty())
                    .filter_map(|(place, range)| {
                        let name = listing.names.get(place)?.name;
                        Some(RawEntry { name, raw: entries.arena.get(range.clone())? })
                    });
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
        let mut entry = stat.entry(&node.name, &self.job.names);
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
        if above.previous().and_then(|dir| dir.find(&entry.name)).map(|old| old.raw) != Some(&raw) {
            above.changed.store(true, Ordering::Relaxed);
        }
        above.entries.lock().put(place, &raw);
        Ok(())
    }
}

/// What became of a name.
enum Outcome {
    Entry,
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
