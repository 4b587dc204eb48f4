//! Backs up a virtual machine: some small files that describe it, and its disks, each of which is
//! a file of the image like any other.
//!
//! What the disks are read by, and which ranges of them are as in the parent, is told by whoever
//! asks. A disk that cannot be read ends the backup: half a disk is worth nothing. Ranges that are
//! as before take over the parent's chunks; only where such a range ends inside a chunk is the
//! rest of that chunk read again.

mod cell;
mod parent;
mod plan;
mod ranges;
mod rows;
mod tree;

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::cancel::Cancel;
use crate::counters::{Counters, add};
use crate::disk::DiskSource;
use crate::error::{Error, Result};
use crate::finding::Findings;
use crate::ids::Id;
use crate::ingest::Sink;
use crate::manifest::Manifest;
use crate::pool::Pool;
use crate::tasks::{in_threads, thread_count};
use crate::tree::codec::is_legal_name;
use crate::tree::entry::Entry;

use super::frame::{self, Order};
use cell::Worker;
use parent::{ParentDisk, ParentImage};
use plan::Plan;
use rows::Rows;

pub use ranges::{Range, What};

/// The directory of an image that has the disks.
pub const DISKS: &str = "disks";

/// Threads that wait for a disk beside those that compute.
const READERS_WAITING: usize = 2;

/// One disk, and what of it is to be read.
#[derive(Clone)]
pub struct DiskInput {
    /// What its file is called.
    pub name: String,
    pub size: u64,
    /// Ascending, without gaps, from 0 to the size.
    pub ranges: Vec<Range>,
    pub source: Arc<dyn DiskSource>,
    pub mtime_ns: i64,
}

/// What to back up, and how.
#[derive(Clone)]
pub struct Request {
    /// Small files by their paths: `machine.json`, `definitions/domain.xml`.
    pub files: BTreeMap<String, Vec<u8>>,
    pub disks: Vec<DiskInput>,
    /// What relates this image to those before it.
    pub source: String,
    pub host: String,
    pub started_ns: i64,
    /// zstd level; 0 stores.
    pub level: i32,
    /// 0: as many as suit the machine.
    pub workers: usize,
    /// The image that ranges are the same as.
    pub parent: Option<Id>,
    pub labels: BTreeMap<String, String>,
    pub software: String,
}

impl Request {
    /// `Invalid` for names and ranges that no image can have.
    pub fn check(&self) -> Result<()> {
        for path in self.files.keys() {
            let mut parts = path.split('/');
            let sound = parts.clone().count() <= 2
                && parts.clone().all(|part| is_legal_name(part.as_bytes()))
                && parts.next() != Some(DISKS);
            let is_taken = self.files.keys().any(|other| {
                other.strip_prefix(path.as_str()).is_some_and(|rest| rest.starts_with('/'))
            });
            if !sound || is_taken {
                return Err(Error::Invalid(format!("'{path}' is no path of a machine's file")));
            }
        }
        for (at, disk) in self.disks.iter().enumerate() {
            let name = &disk.name;
            if !is_legal_name(name.as_bytes()) {
                return Err(Error::Invalid(format!("'{name}' is no name of a disk")));
            }
            if self.disks.iter().skip(at + 1).any(|other| other.name == *name) {
                return Err(Error::Invalid(format!("disk '{name}' is given twice")));
            }
            if disk.source.size() < disk.size {
                return Err(Error::Invalid(format!(
                    "disk '{name}' is to have {} bytes, and there are {}",
                    disk.size,
                    disk.source.size()
                )));
            }
            ranges::check(name, &disk.ranges, disk.size)?;
        }
        Ok(())
    }
}

/// What the manifest says of a backup of a machine.
pub(crate) fn order(request: &Request) -> Order<'_> {
    Order {
        paths: std::slice::from_ref(&ROOT),
        source: &request.source,
        host: &request.host,
        started_ns: request.started_ns,
        level: request.level,
        labels: &request.labels,
        software: &request.software,
        options: Vec::new(),
    }
}

static ROOT: std::sync::LazyLock<Vec<u8>> = std::sync::LazyLock::new(|| b"/".to_vec());

/// Runs a backup and returns the manifest that it committed. `Invalid` where a range is as in a
/// parent that is not there, or that has no such disk.
pub fn run(
    pool: &Pool,
    request: &Request,
    counters: &Counters,
    findings: &Findings,
    cancel: &Cancel,
) -> Result<Manifest> {
    request.check()?;
    let parent = || match request.parent.map(|id| pool.image(&id)) {
        None => Ok(None),
        // What a client sealed is no use to whoever can't open it.
        Some(Ok(image)) => Ok(Some(image).filter(|image| image.client_key().is_none())),
        Some(Err(
            Error::ImageMissing { .. } | Error::Integrity { .. } | Error::NewerFormat { .. },
        )) => Ok(None),
        Some(Err(other)) => Err(other),
    };
    let fill = |sink: &dyn Sink, parent: Option<&Manifest>| {
        self::fill(sink, request, parent, counters, findings)
    };
    frame::make_image(pool, &order(request), counters, findings, cancel, parent, fill)
}

/// Hands to the sink what it does not have of the machine; the image's root.
pub(crate) fn fill(
    sink: &dyn Sink,
    request: &Request,
    parent: Option<&Manifest>,
    counters: &Counters,
    findings: &Findings,
) -> Result<Entry> {
    let image = ParentImage::new(sink, parent, counters, findings);
    let parents = parent_disks(&image, request, findings)?;
    let to_read = |disk: &DiskInput| ranges::data_bytes(&disk.ranges);
    add(&counters.bytes_total, request.disks.iter().map(to_read).sum());
    add(&counters.files_total, (request.files.len() + request.disks.len()) as u64);
    let plan = Mutex::new(Plan::new(sink, &request.disks, parents, findings)?);
    let rows = Rows::new(sink, &request.disks);
    let work = || Worker::new(sink, request, counters)?.run(&plan, &rows);
    in_threads(thread_count(request.workers, READERS_WAITING), work, || rows.abandon())?;
    tree::write(sink, request, rows.finish()?, &image, counters)
}

/// For each disk the parent's, where something of it is the same.
fn parent_disks<'a>(
    image: &ParentImage<'a>,
    request: &Request,
    findings: &Findings,
) -> Result<Vec<Option<ParentDisk<'a>>>> {
    let find = |disk: &DiskInput| {
        let Some(upto) = ranges::same_upto(&disk.ranges) else { return Ok(None) };
        let name = &disk.name;
        let Some(found) = image.disk(name.as_bytes())? else {
            if image.is_damaged() {
                return Ok(None);
            }
            return Err(Error::Invalid(format!(
                "disk '{name}' is partly as in an image that is not there or does not have it"
            )));
        };
        if upto > found.size {
            return Err(Error::Invalid(format!(
                "disk '{name}' had {} bytes, and is said to be the same up to byte {upto}",
                found.size
            )));
        }
        match image.open(&found, &disk.ranges) {
            Ok(parent) => Ok(Some(parent)),
            Err(error) => {
                parent::tell_unreadable(findings, name, &error);
                Ok(None)
            }
        }
    };
    request.disks.iter().map(find).collect()
}
