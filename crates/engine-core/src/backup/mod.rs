//! Backs up files: walks what was asked for, takes over what did not change since the previous
//! image, stores what is new, and commits a manifest.
//!
//! A problem with one file is a finding; the image is then "completed with errors". Nothing of an
//! image is visible before its manifest is, and the manifest comes after everything it names is
//! durable.

mod directory;
mod file;
mod job;
pub mod previous;
mod queue;
mod roots;
mod sealed;
mod selection;
mod worker;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use crate::cancel::Cancel;
use crate::client_key::Sealing;
use crate::counters::Counters;
use crate::error::{Error, Result};
use crate::finding::Findings;
use crate::ids::Id;
use crate::ingest::{self, Sink};
use crate::manifest::{LABEL, Manifest, Source, Status};
use crate::pool::{Pool, jobs, marks};
use crate::scan::handle::DirHandle;
use crate::tasks::{in_threads, thread_count};
use crate::tree::entry::{Entry, Time};
use crate::upkeep::{merge, orphans};

use directory::DirNode;
use job::Job;
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
    let clock = Instant::now();
    let prepared = Prepared::new(request)?;
    // The record comes first, marks and index after it: a collector that does not see the record
    // has a mark that is seen here.
    let record = jobs::Job::begin(
        pool.shared_store(),
        pool.keys(),
        jobs::JobKind::Backup,
        request.started_ns,
    )?;
    let marked = marks::read(pool.store(), pool.keys())?;
    pool.index().refresh()?;
    let (started_ns, lease_s) = (request.started_ns, jobs::DEFAULT_LEASE_S);
    orphans::recover_from_dead_jobs(pool, &record, &marked, started_ns, lease_s, cancel)?;
    let now = || {
        let elapsed = i64::try_from(clock.elapsed().as_nanos()).unwrap_or(i64::MAX);
        request.started_ns.saturating_add(elapsed)
    };
    let packs = marked.packs.clone();
    let work = || {
        let parent = if request.read_all { None } else { parent_of(pool, request)? };
        let level = request.level;
        let (marked, job, claims) = (packs, Some(&record), Arc::default());
        let options = ingest::Options { counters, cancel, level, marked, job, claims };
        let root = ingest::run(pool, options, |ingest| {
            walk_into(ingest, request, prepared, parent.as_ref(), counters, findings)
        })?;
        Ok((root, parent))
    };
    let (root, parent) = match record.keep_alive(now, work) {
        Ok(done) => done,
        Err(error) => {
            leave_record(record, &error, counters.bytes_new.load(Ordering::Relaxed) > 0);
            return Err(error);
        }
    };
    cancel.check()?;
    let number = pool.claim_number(parent.as_ref().map_or(0, |image| image.number))?;
    let parent = parent.map(|image| image.id);
    let manifest = Manifest {
        id: Id::random()?,
        number,
        finished_ns: now(),
        ..draft(request, root, parent, counters, findings)
    };
    pool.commit_image(&manifest, &record)?;
    // The image stands whatever becomes of the merge.
    if let Err(error) = merge::tidy(pool, &record, &marked, cancel) {
        findings.warning(b"", "index-not-merged", format!("the index was not merged: {error}"));
    }
    // The image stands; a record that stays behind is found dead.
    let _ = record.end();
    Ok(manifest)
}

/// Ends the record of a backup that failed: what a cancelled one stored is listed; what another
/// stored may not be, and whoever is next has to look for it.
pub(crate) fn leave_record(record: jobs::Job, error: &Error, has_stored: bool) {
    let listed = matches!(error, Error::Cancelled | Error::Fenced { .. });
    if !listed && has_stored {
        record.leave();
    }
}

/// What is to be walked, looked at before anything is announced.
pub(crate) struct Prepared {
    selection: Selection,
    root: Arc<DirHandle>,
}

impl Prepared {
    pub(crate) fn new(request: &Request) -> Result<Self> {
        let selection = roots::select(&request.paths, &request.exclude, request.one_file_system)?;
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

/// What whoever read the files says of an image; its id and number are given to it later.
pub(crate) fn draft(
    request: &Request,
    root: Entry,
    parent: Option<Id>,
    counters: &Counters,
    findings: &Findings,
) -> Manifest {
    Manifest {
        id: Id([0; 16]),
        number: 0,
        source: Source {
            host: request.host.clone(),
            name: request.source.clone(),
            paths: request.paths.clone(),
        },
        started_ns: request.started_ns,
        finished_ns: request.started_ns,
        root,
        parent,
        status: if findings.errors() > 0 { Status::CompletedWithErrors } else { Status::Completed },
        stats: stats(counters, findings),
        findings: findings.kept(),
        findings_total: findings.total(),
        options: options(request),
        software: request.software.clone(),
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

fn stats(counters: &Counters, findings: &Findings) -> BTreeMap<String, u64> {
    let mut stats: BTreeMap<String, u64> = counters
        .snapshot()
        .totals()
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
    stats.insert("findings".into(), findings.total());
    stats.insert("errors".into(), findings.errors());
    stats
}

fn options(request: &Request) -> BTreeMap<String, String> {
    let mut options = BTreeMap::from([
        ("compression".to_owned(), request.level.to_string()),
        ("one_file_system".to_owned(), request.one_file_system.to_string()),
        ("read_all".to_owned(), request.read_all.to_string()),
    ]);
    for (name, value) in &request.labels {
        options.insert(format!("{LABEL}{name}"), value.clone());
    }
    if !request.exclude.is_empty() {
        options.insert("exclude".to_owned(), request.exclude.join("\n"));
    }
    options
}
