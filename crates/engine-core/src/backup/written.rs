//! An image whose directories somebody else tells, one after the other: names and attributes, and
//! no content. So what is inside a disk can be listed and searched like any image.
//!
//! A directory is told after those below it. Memory: what stands for the directories that are told
//! and whose parent is not, and a few directories on their way.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::Mutex;

use crate::cancel::Cancel;
use crate::counters::{Counters, Tally};
use crate::error::{Error, Result};
use crate::finding::Findings;
use crate::ids::{Id, Ref};
use crate::ingest::Sink;
use crate::manifest::Manifest;
use crate::pool::Pool;
use crate::tree::build;
use crate::tree::codec::{self, RawEntry, is_legal_name};
use crate::tree::entry::{Entry, EntryKind, Time};

use super::frame::{self, Order};

/// Directories that wait to be written.
const WAITING: usize = 4;
/// What chunks of directories are compressed with.
const LEVEL: i32 = 2;

/// What the manifest is to say.
#[derive(Clone, Debug)]
pub struct Request {
    pub source: String,
    pub host: String,
    pub started_ns: i64,
    pub parent: Option<Id>,
    pub labels: BTreeMap<String, String>,
    pub software: String,
}

/// One name in a directory.
#[derive(Clone, Debug)]
pub struct Row {
    pub name: Vec<u8>,
    pub kind: EntryKind,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub size: u64,
    pub mtime_ns: i64,
    pub ctime_ns: i64,
    pub inode: u64,
    /// Of a symbolic link.
    pub target: Option<Vec<u8>>,
}

enum Command {
    Dir(Vec<u8>, Vec<Row>),
    Finish,
}

/// See the module. May be used from several threads; dropping it abandons the image.
pub struct TreeWriter {
    to: Mutex<Option<Sender<Command>>>,
    keeper: Mutex<Option<JoinHandle<Result<Manifest>>>>,
    ended: Mutex<Option<Result<Manifest>>>,
}

impl TreeWriter {
    /// Begins; nothing is seen of the image before it is finished.
    pub fn begin(pool: Arc<Pool>, request: Request) -> Result<Self> {
        let (to, commands) = bounded(WAITING);
        let keeper = std::thread::Builder::new()
            .name("holdfast-index".into())
            .spawn(move || keep(&pool, &request, &commands))
            .map_err(|error| Error::io("starting a thread", error))?;
        Ok(TreeWriter {
            to: Mutex::new(Some(to)),
            keeper: Mutex::new(Some(keeper)),
            ended: Mutex::new(None),
        })
    }

    /// Tells a directory, by its absolute path: all names in it, in any order. Those that are
    /// directories were told before, or count as not read.
    pub fn add_dir(&self, path: &[u8], rows: Vec<Row>) -> Result<()> {
        let to = self.to.lock().clone();
        let path = format_path(path);
        match to.map(|to| to.send(Command::Dir(path, rows))) {
            Some(Ok(())) => Ok(()),
            _ => Err(self.why()),
        }
    }

    /// Makes all durable, then the image visible: with the directory `/`, which was told last.
    /// Asked again, it tells the same.
    pub fn finish(&self) -> Result<Manifest> {
        if let Some(to) = self.to.lock().take() {
            let _ = to.send(Command::Finish);
        }
        self.wait()
    }

    /// Ends without an image, unless it was finished.
    pub fn abandon(&self) {
        drop(self.to.lock().take());
        let _ = self.wait();
    }

    fn wait(&self) -> Result<Manifest> {
        let mut ended = self.ended.lock();
        if let Some(keeper) = self.keeper.lock().take() {
            let died = || Err(Error::Invalid("a thread of the engine died".into()));
            *ended = Some(keeper.join().unwrap_or_else(|_| died()));
        }
        ended.clone().unwrap_or(Err(Error::Cancelled))
    }

    /// Why nothing is taken any more.
    fn why(&self) -> Error {
        drop(self.to.lock().take());
        match self.wait() {
            Ok(_) | Err(Error::Cancelled) => Error::Invalid("this index has ended".into()),
            Err(error) => error,
        }
    }
}

impl Drop for TreeWriter {
    fn drop(&mut self) {
        self.abandon();
    }
}

/// The thread that has the pool's record and its ingest.
fn keep(pool: &Pool, request: &Request, commands: &Receiver<Command>) -> Result<Manifest> {
    let (counters, findings, cancel) = (Counters::default(), Findings::default(), Cancel::new());
    let order = Order {
        paths: &[b"/".to_vec()],
        source: &request.source,
        host: &request.host,
        started_ns: request.started_ns,
        level: LEVEL,
        labels: &request.labels,
        software: &request.software,
        options: Vec::new(),
    };
    let parent = || match request.parent.map(|id| pool.image(&id)) {
        None | Some(Err(Error::ImageMissing { .. })) => Ok(None),
        Some(found) => found.map(Some),
    };
    let fill = |sink: &dyn Sink, _: Option<&Manifest>| {
        fill(sink, commands, &counters, &findings, request.started_ns)
    };
    frame::make_image(pool, &order, &counters, &findings, &cancel, parent, fill)
}

fn fill(
    sink: &dyn Sink,
    commands: &Receiver<Command>,
    counters: &Counters,
    findings: &Findings,
    started_ns: i64,
) -> Result<Entry> {
    let mut dirs: HashMap<Vec<u8>, Ref> = HashMap::new();
    loop {
        match commands.recv() {
            Err(_) => return Err(Error::Cancelled),
            Ok(Command::Dir(path, rows)) => {
                sink.check()?;
                let mut tally = Tally::default();
                let stored = directory(sink, &path, rows, &mut dirs, &mut tally, findings)?;
                counters.absorb(&mut tally);
                if dirs.insert(path.clone(), stored).is_some() {
                    let path = path.escape_ascii();
                    return Err(Error::Invalid(format!("directory '/{path}' was told twice")));
                }
            }
            Ok(Command::Finish) => {
                let Some(root) = dirs.remove(&b""[..]) else {
                    return Err(Error::Invalid("the directory '/' was not told".into()));
                };
                if let Some(path) = dirs.keys().min() {
                    let path = path.escape_ascii();
                    return Err(Error::Invalid(format!(
                        "directory '/{path}' is in no directory that was told after it"
                    )));
                }
                let now = time(started_ns);
                return Ok(Entry {
                    mode: 0o755,
                    mtime: now,
                    ctime: now,
                    subtree: Some(root),
                    ..Entry::new(b"/", EntryKind::Dir)
                });
            }
        }
    }
}

/// Stores a directory. A name that no image can have is a finding.
fn directory(
    sink: &dyn Sink,
    path: &[u8],
    mut rows: Vec<Row>,
    dirs: &mut HashMap<Vec<u8>, Ref>,
    tally: &mut Tally,
    findings: &Findings,
) -> Result<Ref> {
    rows.sort_by(|a, b| a.name.cmp(&b.name));
    let mut raw: Vec<(Vec<u8>, Vec<u8>)> = Vec::with_capacity(rows.len());
    for row in rows {
        let whole = [path, b"/", &row.name].concat();
        let shown = || [b"/", whole.strip_prefix(b"/").unwrap_or(&whole)].concat();
        if !is_legal_name(&row.name) || raw.last().is_some_and(|(last, _)| *last == row.name) {
            findings.warning(&shown(), "illegal-name", "not listed: no image can have this name");
            continue;
        }
        let kind = row.kind;
        let key = if path.is_empty() { row.name.clone() } else { whole.clone() };
        let is_file = kind == EntryKind::File;
        let entry = Entry {
            mode: row.mode & 0o7777,
            uid: row.uid,
            gid: row.gid,
            mtime: time(row.mtime_ns),
            ctime: time(row.ctime_ns),
            inode: row.inode,
            size: if is_file { row.size } else { 0 },
            // No byte of it is here: all of it is a hole.
            extents: (is_file && row.size > 0).then(Vec::new),
            subtree: if kind == EntryKind::Dir { dirs.remove(&key) } else { None },
            target: if kind == EntryKind::Symlink { row.target } else { None },
            rdev: matches!(kind, EntryKind::Char | EntryKind::Block).then_some((0, 0)),
            ..Entry::new(&row.name, kind)
        };
        let mut bytes = Vec::new();
        if let Err(error) = codec::encode_entry(&entry, &mut bytes) {
            findings.warning(&shown(), "not-listed", format!("not listed: {error}"));
            continue;
        }
        match kind {
            EntryKind::File => {
                tally.files += 1;
                tally.bytes_found += entry.size;
            }
            EntryKind::Dir => {}
            _ => tally.others += 1,
        }
        raw.push((row.name, bytes));
    }
    tally.dirs += 1;
    build::write_directory(sink, raw.iter().map(|(name, raw)| RawEntry { name, raw }))
}

/// A path without slashes at its ends, and none twice.
fn format_path(path: &[u8]) -> Vec<u8> {
    let parts: Vec<&[u8]> =
        path.split(|byte| *byte == b'/').filter(|part| !part.is_empty()).collect();
    parts.join(&b"/"[..])
}

fn time(ns: i64) -> Time {
    Time { sec: ns.div_euclid(1_000_000_000), nsec: ns.rem_euclid(1_000_000_000) as u32 }
}
