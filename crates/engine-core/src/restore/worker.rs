//! A worker of a restore: takes tasks until there are none.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use crate::client_key::DirKey;
use crate::counters::{Stage, Tally};
use crate::error::{Error, Result};
use crate::ids::{Kind, Ref};
use crate::tree::codec::{self, RawEntry};
use crate::tree::entry::{Content, Entry, EntryKind};
use crate::tree::walk::Directory;

use super::Job;
use super::file::OpenFile;
use super::gather;
use super::links::{First, Role, Waiting};
use super::selection::Selection;
use super::target::{Link, Placed, Staged, TargetDir};

/// A directory of the destination, open until everything in it is done.
pub struct Node {
    parent: Option<Arc<Node>>,
    pub dir: Arc<TargetDir>,
    /// Its stored attributes; none for the destination itself.
    entry: Option<Entry>,
    pending: AtomicUsize,
}

impl Node {
    pub fn root(dir: Arc<TargetDir>) -> Arc<Self> {
        Arc::new(Node { parent: None, dir, entry: None, pending: AtomicUsize::new(1) })
    }

    /// One more thing is to be done in it.
    pub fn begin(&self) {
        self.pending.fetch_add(1, Ordering::AcqRel);
    }
}

impl Drop for Node {
    /// Without recursion: a path may be ten thousand directories deep.
    fn drop(&mut self) {
        let mut above = self.parent.take();
        while let Some(node) = above {
            above = Arc::into_inner(node).and_then(|mut node| node.parent.take());
        }
    }
}

/// A piece of work. Each holds a pending count of its node, or of each of its nodes.
pub enum Task {
    Directory {
        node: Arc<Node>,
        entry: Box<Entry>,
        /// With what names in it are sealed, where they are.
        dir: Option<DirKey>,
        selection: Selection,
        depth: usize,
    },
    /// Files and other things, each with the directory that it goes into.
    Files(Vec<(Arc<Node>, Entry)>),
    /// A stretch of a large file.
    Segment { file: Arc<OpenFile>, offset: u64, refs: Vec<Ref> },
}

/// What a name of a directory turned out to be.
enum Name {
    Dir(Box<Entry>, Selection),
    Other,
    End,
}

/// One thread's own things.
pub struct Worker<'a> {
    pub job: &'a Job<'a>,
    pub tally: Tally,
    pub staged: Staged,
}

impl<'a> Worker<'a> {
    pub fn new(job: &'a Job<'a>) -> Self {
        Worker { job, tally: Tally::default(), staged: Staged::default() }
    }

    pub fn run(&mut self) -> Result<()> {
        let mut ended = false;
        loop {
            let waiting = Instant::now();
            let Some(task) = self.job.tasks.next(ended) else { return Ok(()) };
            self.job.counters.starved(Stage::Write, waiting);
            ended = true;
            let done = self.job.cancel.check().and_then(|()| self.work(task));
            self.job.counters.absorb(&mut self.tally);
            done?;
        }
    }

    fn work(&mut self, task: Task) -> Result<()> {
        match task {
            Task::Directory { node, entry, dir, selection, depth } => {
                self.directory(&node, &entry, dir, &selection, depth)?;
                self.ended(node)?;
                // The last directory is made: what waits can come in order.
                let last = self.job.unlisted.fetch_sub(1, Ordering::AcqRel) == 1;
                if last { self.give_gathered() } else { Ok(()) }
            }
            Task::Files(entries) => self.files(entries),
            Task::Segment { file, offset, refs } => self.segment(file, offset, &refs),
        }
    }

    /// Takes a new task or, where enough are queued, does it.
    pub fn give(&mut self, task: Task) -> Result<()> {
        match self.job.tasks.offer(task) {
            None => Ok(()),
            Some(task) => self.work(task),
        }
    }

    fn directory(
        &mut self,
        node: &Arc<Node>,
        entry: &Entry,
        dir: Option<DirKey>,
        selection: &Selection,
        depth: usize,
    ) -> Result<()> {
        let path = || node.dir.handle().path();
        let listed = match Directory::of(self.job.pool, entry) {
            Ok(directory) => directory,
            Err(error) => return self.damaged(&path(), "list the directory", error),
        };
        let mut names = listed.cursor();
        let mut below = Vec::new();
        loop {
            match self.name(node, names.entry(), dir.as_ref(), selection, depth) {
                Ok(Name::Dir(entry, wanted)) => below.push((entry, wanted)),
                Ok(Name::Other) => {}
                Ok(Name::End) => break,
                Err(error) => {
                    self.damaged(&path(), "list the directory", error)?;
                    break;
                }
            }
            names.advance();
            if self.job.gathered.lock().is_full() {
                self.give_gathered()?;
            }
        }
        // The last pushed is taken first.
        for (item, wanted) in below.into_iter().rev() {
            let dir = dir.map(|dir| dir.child(&item.name));
            self.below(node, *item, dir, wanted, depth + 1)?;
        }
        Ok(())
    }

    /// Looks at the next name of a directory; what is no directory is gathered.
    fn name(
        &self,
        node: &Arc<Node>,
        next: Result<Option<RawEntry<'_>>>,
        dir: Option<&DirKey>,
        selection: &Selection,
        depth: usize,
    ) -> Result<Name> {
        let Some(entry) = next? else { return Ok(Name::End) };
        let opened;
        let entry = match (self.job.names, dir) {
            (Some(key), Some(dir)) => {
                opened = key.open_entry(dir, &entry)?;
                opened.as_raw()
            }
            _ => entry,
        };
        let Some(wanted) = selection.of(entry.name) else { return Ok(Name::Other) };
        let seen = entry.peek()?;
        if seen.kind == EntryKind::Dir {
            return Ok(Name::Dir(Box::new(entry.decode()?), wanted));
        }
        if depth < self.job.strip {
            self.job.findings.warning(
                &node.dir.path_of(entry.name),
                "stripped",
                format!(
                    "not restored: its path has no more than the {} leading components that are \
                     stripped",
                    self.job.strip
                ),
            );
        } else {
            let place = gather::place(self.job.pool, &seen);
            node.begin();
            self.job.gathered.lock().add(node, entry.raw, seen.size, place);
        }
        Ok(Name::Other)
    }

    /// Has all restored that was gathered.
    fn give_gathered(&mut self) -> Result<()> {
        let gathered = std::mem::take(&mut *self.job.gathered.lock());
        gathered.hand_out(|batch| {
            self.job.cancel.check()?;
            let mut entries = Vec::with_capacity(batch.len());
            for (node, raw) in batch {
                match codec::decode_entry(raw) {
                    Ok(entry) => entries.push((node, entry)),
                    Err(error) => {
                        self.damaged(&node.dir.handle().path(), "list the directory", error)?;
                        self.ended(node)?;
                    }
                }
            }
            self.give(Task::Files(entries))
        })
    }

    fn below(
        &mut self,
        node: &Arc<Node>,
        entry: Entry,
        dir: Option<DirKey>,
        selection: Selection,
        depth: usize,
    ) -> Result<()> {
        let child = if depth <= self.job.strip {
            node.begin();
            Arc::clone(node)
        } else {
            let Some(made) = self.job.target.make_dir(&node.dir, &entry)? else { return Ok(()) };
            node.begin();
            Arc::new(Node {
                parent: Some(Arc::clone(node)),
                dir: made,
                entry: Some(entry.clone()),
                pending: AtomicUsize::new(1),
            })
        };
        self.job.unlisted.fetch_add(1, Ordering::AcqRel);
        self.job.tasks.push(Task::Directory {
            node: child,
            entry: Box::new(entry),
            dir,
            selection,
            depth,
        });
        Ok(())
    }

    /// Files and other things.
    fn files(&mut self, entries: Vec<(Arc<Node>, Entry)>) -> Result<()> {
        let refs: Vec<Ref> = entries
            .iter()
            .filter_map(|(_, entry)| match &entry.content {
                Content::Direct(refs) => Some(refs.as_slice()),
                _ => None,
            })
            .flatten()
            .copied()
            .collect();
        self.job.pool.prefetch(Kind::Data, &refs, self.job.counters);
        for (node, entry) in entries {
            self.job.cancel.check()?;
            if entry.nlink <= 1 {
                self.one(&node, entry, false)?;
            } else {
                match self.job.links.role(&node, entry) {
                    Role::First(entry) => self.one(&node, entry, true)?,
                    Role::Link(first, entry) => self.link(&node, &first, entry)?,
                    Role::Waits => {}
                }
            }
            self.ended(node)?;
        }
        Ok(())
    }

    /// A file with its content, or another thing. `linked`: others wait for it.
    fn one(&mut self, node: &Arc<Node>, entry: Entry, linked: bool) -> Result<()> {
        if entry.kind == EntryKind::File {
            return self.file(node, entry, linked);
        }
        let started = Instant::now();
        let placed = self.job.target.make_other(&node.dir, &entry)?;
        self.tally.busy(Stage::Finish, 0, started);
        if placed.is_some() {
            self.tally.others += 1;
        }
        if linked { self.tell(&node.dir, &entry, placed) } else { Ok(()) }
    }

    /// The first of several names is there, or will not be.
    pub fn tell(
        &mut self,
        dir: &Arc<TargetDir>,
        entry: &Entry,
        placed: Option<Placed>,
    ) -> Result<()> {
        let Some(placed) = placed else {
            let mut waiting = self.job.links.failed(entry).into_iter();
            // The next one tries; the rest wait for it.
            for Waiting { node, entry } in waiting.by_ref() {
                match self.job.links.role(&node, entry) {
                    Role::First(entry) => self.one(&node, entry, true)?,
                    Role::Link(first, entry) => self.link(&node, &first, entry)?,
                    Role::Waits => {}
                }
                self.ended(node)?;
            }
            return Ok(());
        };
        let first = First { dir: Arc::clone(dir), name: entry.name.clone(), placed };
        for Waiting { node, entry } in self.job.links.there(entry, first.clone()) {
            self.link(&node, &first, entry)?;
            self.ended(node)?;
        }
        Ok(())
    }

    fn link(&mut self, node: &Arc<Node>, first: &First, entry: Entry) -> Result<()> {
        let started = Instant::now();
        let made =
            self.job.target.make_link(&node.dir, &entry, &first.dir, &first.name, first.placed)?;
        self.tally.busy(Stage::Finish, 0, started);
        match made {
            Link::Made if entry.kind == EntryKind::File => self.tally.files += 1,
            Link::Made => self.tally.others += 1,
            Link::Kept | Link::Failed => {}
            Link::NotPossible => return self.one(node, entry, false),
        }
        Ok(())
    }

    /// One thing in the directory is done; the last one finishes it, and so upwards.
    pub fn ended(&mut self, node: Arc<Node>) -> Result<()> {
        let mut node = node;
        while node.pending.fetch_sub(1, Ordering::AcqRel) == 1 {
            if let Some(entry) = &node.entry {
                let started = Instant::now();
                self.job.target.finish_dir(&node.dir, entry)?;
                self.tally.busy(Stage::Finish, 0, started);
                self.tally.dirs += 1;
            }
            let Some(above) = node.parent.clone() else { return Ok(()) };
            node = above;
        }
        Ok(())
    }

    /// Stored bytes that are not what they were are told for each file; anything else that keeps
    /// the pool from being read ends the job.
    pub fn damaged(&self, path: &[u8], doing: &str, error: Error) -> Result<()> {
        match error {
            Error::Integrity { .. } | Error::ChunkMissing { .. } | Error::ObjectMissing { .. } => {
                self.job.findings.error(path, error.code(), format!("could not {doing}: {error}"));
                Ok(())
            }
            other => Err(other),
        }
    }
}
