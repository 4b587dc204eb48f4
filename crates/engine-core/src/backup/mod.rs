//! Backs up files: walks what was asked for, takes over what did not change since the previous
//! image, stores what is new, and commits a manifest.
//!
//! A problem with one file is a finding; the image is then "completed with errors". Nothing of an
//! image is visible before its manifest is, and the manifest comes after everything it names is
//! durable.

mod cutter;
mod directory;
mod file;
pub(crate) mod frame;
mod job;
pub mod machine;
mod node;
pub mod previous;
mod queue;
mod roots;
mod sealed;
mod selection;
mod worker;
pub mod written;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::cancel::Cancel;
use crate::client_key::{Names, Sealing};
use crate::counters::Counters;
use crate::error::{Error, Result};
use crate::finding::Findings;
use crate::ids::Id;
use crate::ingest::Sink;
use crate::manifest::Manifest;
use crate::pool::Pool;
use crate::scan::handle::DirHandle;
use crate::tasks::{in_threads, thread_count};
use crate::tree::entry::{Entry, Time};

use frame::Order;
use job::Job;
use node::DirNode;
use queue::Work;
use selection::Selection;
use worker::Worker;

/// Threads that wait for a disk to find or open something.
const READERS_WAITING: usize = 2;

/// What to back up, and how.
#[derive(Clone, Debug)]
pub struct Request {
    /// Absolute paths.
    pub paths: Vec<Vec<u8>>,
    /// What relates this image to those before it.
    pub source: String,
    pub host: String,
    pub started_ns: i64,
    /// gitignore syntax, relative to each path.
    pub exclude: Vec<String>,
    pub one_file_system: bool,
    /// zstd level; 0 stores.
    pub level: i32,
    /// 0: as many as suit the machine.
    pub workers: usize,
    /// The image to compare with; `None`, or one that is gone: the newest of the same source.
    pub parent: Option<Id>,
    /// Compare with no image: every file is read, whatever its times say.
    pub read_all: bool,
    /// What whoever ordered the backup wants to find in its manifest.
    pub labels: BTreeMap<String, String>,
    pub software: String,
}

/// Clocks that stamp files may be this coarse.
const STAMP_GRAIN_NS: i64 = 50_000_000;

/// Runs a backup and returns the manifest that it committed.
pub fn run(
    pool: &Pool,
    request: &Request,
    counters: &Counters,
    findings: &Findings,
    cancel: &Cancel,
) -> Result<Manifest> {
    let prepared = Prepared::new(request, None)?;
    let parent = || if request.read_all { Ok(None) } else { parent_of(pool, request) };
    let fill = |sink: &dyn Sink, parent: Option<&Manifest>| {
        walk_into(sink, request, prepared, parent, counters, findings)
    };
    frame::make_image(pool, &order(request), counters, findings, cancel, parent, fill)
}

/// What is to be walked, looked at before anything is announced.
pub(crate) struct Prepared {
    selection: Selection,
    root: Arc<DirHandle>,
}

impl Prepared {
    /// Where names are sealed, rules may have sealed ones; what is kept of them has those.
    pub(crate) fn new(request: &Request, sealing: Option<&Sealing>) -> Result<Self> {
        let Request { paths, exclude, one_file_system, .. } = request;
        let sealed = sealing.filter(|sealing| sealing.names == Names::Sealed);
        let opened = sealed.map(|sealing| sealing.key.open_rules(paths, exclude)).transpose()?;
        let rules = opened.as_deref().unwrap_or(exclude);
        let selection = roots::select(paths, rules, *one_file_system)?;
        let root = DirHandle::open_root(b"/").map_err(|error| Error::io("opening '/'", error))?;
        Ok(Prepared { selection, root })
    }
}

/// Walks what was asked for, and hands to the sink what it does not have; the image's root.
pub(crate) fn walk_into(
    sink: &dyn Sink,
    request: &Request,
    prepared: Prepared,
    parent: Option<&Manifest>,
    counters: &Counters,
    findings: &Findings,
) -> Result<Entry> {
    let trusted_before = parent.map_or(Time { sec: i64::MIN, nsec: 0 }, |image| {
        let ns = image.began_reading_ns().saturating_sub(STAMP_GRAIN_NS);
        Time { sec: ns.div_euclid(1_000_000_000), nsec: ns.rem_euclid(1_000_000_000) as u32 }
    });
    let previous = parent.and_then(|image| image.root.subtree);
    let job = Job::new(counters, findings, trusted_before, request.level);
    let Prepared { selection, root } = prepared;
    let dir = sink.sealing().and_then(Sealing::root_dir);
    job.queue.push([Work::Directory(DirNode::root(root, selection, previous, dir))]);
    let work = || Worker::new(&job, sink).and_then(|mut worker| worker.run());
    let workers = thread_count(request.workers, READERS_WAITING);
    in_threads(workers, work, || job.queue.abandon())?;
    job.take_root().ok_or(Error::Cancelled)
}

/// What the manifest says of a backup of files.
pub(crate) fn order(request: &Request) -> Order<'_> {
    let mut options = vec![
        ("one_file_system", request.one_file_system.to_string()),
        ("read_all", request.read_all.to_string()),
    ];
    if !request.exclude.is_empty() {
        options.push(("exclude", request.exclude.join("\n")));
    }
    Order {
        paths: &request.paths,
        source: &request.source,
        host: &request.host,
        started_ns: request.started_ns,
        level: request.level,
        labels: &request.labels,
        software: &request.software,
        options,
    }
}

/// The image to compare with. One that is named costs one object to read; the newest of a source
/// is found among all images, and so is another where the named one is gone or damaged.
fn parent_of(pool: &Pool, request: &Request) -> Result<Option<Manifest>> {
    if let Some(id) = &request.parent {
        match pool.image(id) {
            // What a client sealed is no use to whoever can't open it.
            Ok(image) => return Ok(Some(image).filter(|image| image.client_key().is_none())),
            Err(
                Error::ImageMissing { .. } | Error::Integrity { .. } | Error::NewerFormat { .. },
            ) => {}
            Err(other) => return Err(other),
        }
    }
    let images = pool.readable_images()?;
    let may_be =
        |image: &Manifest| image.source.name == request.source && image.client_key().is_none();
    Ok(images.into_iter().rfind(may_be))
}
