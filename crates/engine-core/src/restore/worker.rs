//! A worker of a restore: takes tasks until there are none.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use crate::counters::{Stage, Tally};
use crate::error::{Error, Result};
use crate::ids::Ref;
use crate::tree::codec;
use crate::tree::entry::{Content, Entry, EntryKind};
use crate::tree::walk::Directory;

use super::Job;
use super::file::OpenFile;
use super::links::{First, Role, Waiting};
use super::selection::Selection;
use super::target::{Link, Placed, TargetDir};

/// Files that are restored together, and bytes of them.
const BATCH_FILES: usize = 64;
const BATCH_BYTES: u64 = 4 << 20;
/// Files of one directory that are put in order together.
const GATHERED_FILES: usize = 4096;

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

/// A piece of work. Each holds one of its node's pending counts.
pub enum Task {
    Directory {
        node: Arc<Node>,
        entry: Box<Entry>,
        selection: Selection,
        depth: usize,
    },
    Files {
        node: Arc<Node>,
        entries: Vec<Entry>,
    },
    /// A stretch of a large file.
    Segment {
        file: Arc<OpenFile>,
        offset: u64,
        refs: Vec<Ref>,
    },
}

/// One thread's own things.
pub struct Worker<'a> {
    pub job: &'a Job<'a>,
    pub tally: Tally,
}

impl<'a> Worker<'a> {
    pub fn new(job: &'a Job<'a>) -> Self {
        Worker { job, tally: Tally::default() }
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
            Task::Directory { node, entry, selection, depth } => {
                self.directory(&node, &entry, &selection, depth)?;
                self.ended(node)
            }
            Task::Files { node, entries } => {
                self.files(&node, entries)?;
                self.ended(node)
            }
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
        selection: &Selection,
        depth: usize,
    ) -> Result<()> {
        let path = || node.dir.handle().path();
        let listed = match Directory::of(self.job.pool, entry) {
            Ok(directory) => directory,
            Err(error) => return self.damaged(&path(), "list the directory", error),
        };
        let mut gathered = Vec::new();
        let mut below = Vec::new();
        for item in listed.entries() {
            let item = match item {
                Ok(item) => item,
                Err(error) => {
                    self.damaged(&path(), "list the directory", error)?;
                    break;
                }
            };
            let Some(wanted) = selection.of(&item.name) else { continue };
            if item.kind == EntryKind::Dir {
                below.push((item, wanted));
            } else if depth < self.job.strip {
                self.job.findings.warning(
                    &node.dir.path_of(&item.name),
                    "stripped",
                    format!(
                        "not restored: its path has no more than the {} leading components that \
                         are stripped",
                        self.job.strip
                    ),
                );
            } else {
                gathered.push(item);
                if gathered.len() >= GATHERED_FILES {
                    self.give_gathered(node, std::mem::take(&mut gathered))?;
                }
            }
        }
        // The last pushed is taken first.
        for (item, wanted) in below.into_iter().rev() {
            self.below(node, item, wanted, depth + 1)?;
        }
        self.give_gathered(node, gathered)
    }

    /// Files of one directory in batches, in the order in which their content is stored: names
    /// are sorted, but a backup reads in the order of inodes.
    fn give_gathered(&mut self, node: &Arc<Node>, mut entries: Vec<Entry>) -> Result<()> {
        let index = self.job.pool.index().snapshot();
        entries.sort_by_cached_key(|entry| match &entry.content {
            Content::Direct(refs) => refs
                .first()
                .and_then(|first| index.lookup(&first.name))
                .map(|found| (found.pack, found.block, found.offset)),
            _ => None,
        });
        let mut batch = Vec::new();
        let mut bytes = 0;
        for entry in entries {
            bytes += codec::data_bytes(&entry);
            batch.push(entry);
            if batch.len() >= BATCH_FILES || bytes >= BATCH_BYTES {
                bytes = 0;
                self.give_files(node, std::mem::take(&mut batch))?;
            }
        }
        self.give_files(node, batch)
    }

    fn give_files(&mut self, node: &Arc<Node>, entries: Vec<Entry>) -> Result<()> {
        if entries.is_empty() {
            return Ok(());
        }
        self.job.cancel.check()?;
        node.begin();
        let task = Task::Files { node: Arc::clone(node), entries };
        match self.job.tasks.offer(task) {
            None => Ok(()),
            Some(Task::Files { node, entries }) => {
                self.files(&node, entries)?;
                self.ended(node)
            }
            Some(_) => Ok(()),
        }
    }

    fn below(
        &mut self,
        node: &Arc<Node>,
        entry: Entry,
        selection: Selection,
        depth: usize,
    ) -> Result<()> {
        let child = if depth <= self.job.strip {
            node.begin();
            Arc::clone(node)
        } else {
            let Some(dir) = self.job.target.make_dir(&node.dir, &entry)? else { return Ok(()) };
            node.begin();
            Arc::new(Node {
                parent: Some(Arc::clone(node)),
                dir,
                entry: Some(entry.clone()),
                pending: AtomicUsize::new(1),
            })
        };
        self.job.tasks.push(Task::Directory {
            node: child,
            entry: Box::new(entry),
            selection,
            depth,
        });
        Ok(())
    }

    /// Files and other things of one directory.
    fn files(&mut self, node: &Arc<Node>, entries: Vec<Entry>) -> Result<()> {
        let refs: Vec<Ref> = entries
            .iter()
            .filter_map(|entry| match &entry.content {
                Content::Direct(refs) => Some(refs.as_slice()),
                _ => None,
            })
            .flatten()
            .copied()
            .collect();
        self.job.pool.prefetch(&refs, self.job.counters);
        for entry in entries {
            self.job.cancel.check()?;
            if entry.nlink <= 1 {
                self.one(node, entry, false)?;
                continue;
            }
            match self.job.links.role(node, entry) {
                Role::First(entry) => self.one(node, entry, true)?,
                Role::Link(first, entry) => self.link(node, &first, entry)?,
                Role::Waits => {}
            }
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
