//! Brings files back: directories first, files in the order in which they are stored, links
//! when their first name is there, attributes of directories last.
//!
//! A file that cannot be restored whole is not left behind: it is a finding. What is written was
//! unsealed and has the name under which it was stored.

pub mod disk;
mod file;
mod gather;
mod links;
mod selection;
pub mod target;
mod worker;

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use parking_lot::Mutex;

use crate::cancel::Cancel;
use crate::client_key::opened::Opened;
use crate::client_key::{ClientKey, Names};
use crate::counters::Counters;
use crate::error::Result;
use crate::finding::Findings;
use crate::ids::Id;
use crate::manifest::Manifest;
use crate::pool::Pool;
use crate::repository::Repository;
use crate::tasks::{Tasks, in_threads, thread_count};

use gather::Gathered;
use links::Links;
use selection::Selection;
use target::{Options, Overwrite, Target};
use worker::{Node, Task, Worker};

/// Threads that wait for a disk: with fewer, fast ones are idle between direct writes.
const WRITERS_WAITING: usize = 6;

/// What to restore, and where.
#[derive(Clone, Debug)]
pub struct Request {
    pub image: Id,
    /// Absolute paths in the image; none for everything.
    pub paths: Vec<Vec<u8>>,
    /// An absolute directory; made where it is missing.
    pub to: Vec<u8>,
    pub overwrite: Overwrite,
    /// Leading components of each path that are left away.
    pub strip_components: usize,
    /// Read each restored file again and compare it with the image.
    pub verify: bool,
    /// 0: as many as suit the machine.
    pub workers: usize,
}

impl Request {
    /// In how many threads it is done.
    pub fn threads(&self) -> usize {
        thread_count(self.workers, WRITERS_WAITING)
    }
}

/// What was restored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    pub files: u64,
    pub dirs: u64,
    pub bytes: u64,
    pub verified_files: u64,
    /// Files that were there and were kept.
    pub kept: u64,
}

/// What the workers of one restore share.
pub(crate) struct Job<'a> {
    pub pool: &'a dyn Repository,
    /// What opens names, where they are sealed.
    pub names: Option<&'a ClientKey>,
    pub target: Target,
    pub tasks: Tasks<Task>,
    /// Directories that are not listed yet.
    pub unlisted: AtomicUsize,
    pub gathered: Mutex<Gathered>,
    pub links: Links,
    pub counters: &'a Counters,
    pub findings: &'a Arc<Findings>,
    pub cancel: &'a Cancel,
    pub strip: usize,
    pub verify: bool,
}

/// Restores an image of a pool.
pub fn run(
    pool: &Pool,
    request: &Request,
    counters: &Counters,
    findings: &Arc<Findings>,
    cancel: &Cancel,
) -> Result<Outcome> {
    run_with(pool, request, None, counters, findings, cancel)
}

/// Restores an image of a pool, by a client key if it was sealed with one.
pub fn run_with(
    pool: &Pool,
    request: &Request,
    key: Option<&ClientKey>,
    counters: &Counters,
    findings: &Arc<Findings>,
    cancel: &Cancel,
) -> Result<Outcome> {
    run_from(pool, pool.image(&request.image)?, request, key, counters, findings, cancel)
}

/// Restores an image from wherever its chunks are. `ClientKeyNeeded` for one that is sealed with a
/// client key which is not given; `Integrity` where one is given and the image is not its.
pub fn run_from(
    pool: &dyn Repository,
    image: Manifest,
    request: &Request,
    key: Option<&ClientKey>,
    counters: &Counters,
    findings: &Arc<Findings>,
    cancel: &Cancel,
) -> Result<Outcome> {
    let Some(key) = key else {
        image.require_readable()?;
        return restore(pool, image, request, None, counters, findings, cancel);
    };
    let names = key.prove(&image, pool.naming())?;
    let opened = Opened::new(pool, key);
    let names = (names == Names::Sealed).then_some(key);
    restore(&opened, image, request, names, counters, findings, cancel)
}

fn restore(
    pool: &dyn Repository,
    image: Manifest,
    request: &Request,
    names: Option<&ClientKey>,
    counters: &Counters,
    findings: &Arc<Findings>,
    cancel: &Cancel,
) -> Result<Outcome> {
    let selection = Selection::new(pool, &image.root, &request.paths, names)?;
    if request.paths.is_empty() {
        let goal = |name: &str| image.stats.get(name).copied().unwrap_or(0);
        crate::counters::add(&counters.bytes_total, goal("bytes_found"));
        crate::counters::add(&counters.files_total, goal("files"));
    }
    let options = Options { overwrite: request.overwrite, numeric_owners: false };
    let target = Target::open(&request.to, options, Arc::clone(findings))?;
    let node = Node::root(Arc::clone(target.root()));
    let dir = names.map(ClientKey::root_dir);
    let first = Task::Directory { node, entry: Box::new(image.root), dir, selection, depth: 0 };
    let job = Job {
        pool,
        names,
        target,
        tasks: Tasks::new(first),
        unlisted: AtomicUsize::new(1),
        gathered: Mutex::default(),
        links: Links::default(),
        counters,
        findings,
        cancel,
        strip: request.strip_components,
        verify: request.verify,
    };
    let work = || Worker::new(&job).run();
    in_threads(request.threads(), work, || job.tasks.abandon())?;
    let seen = counters.snapshot();
    Ok(Outcome {
        files: seen.files,
        dirs: seen.dirs,
        bytes: seen.bytes_read,
        verified_files: seen.files_unchanged,
        kept: job.target.kept(),
    })
}
