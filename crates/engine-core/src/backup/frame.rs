//! What is the same for every image, whatever fills it: the job's record before anything else, the
//! ingest, and the manifest after everything that it names is durable.
//!
//! Never looks at what is backed up. The same for a pool far away: `far::backup`.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Instant;

use crate::cancel::Cancel;
use crate::counters::Counters;
use crate::error::{Error, Result};
use crate::finding::Findings;
use crate::ids::Id;
use crate::ingest::{self, Sink};
use crate::manifest::{LABEL, Manifest, Source, Status};
use crate::pool::{Pool, jobs, marks};
use crate::tree::entry::Entry;
use crate::upkeep::{merge, orphans};

/// What a manifest says of how it came to be.
pub(crate) struct Order<'a> {
    pub paths: &'a [Vec<u8>],
    pub source: &'a str,
    pub host: &'a str,
    pub started_ns: i64,
    /// zstd level; 0 stores.
    pub level: i32,
    pub labels: &'a BTreeMap<String, String>,
    pub software: &'a str,
    /// What else is to stand among the options.
    pub options: Vec<(&'static str, String)>,
}

/// Makes an image: `parent` finds what to compare with once nothing of it can go any more, `fill`
/// hands to the sink what it does not have, and gives the root.
pub(crate) fn make_image(
    pool: &Pool,
    order: &Order<'_>,
    counters: &Counters,
    findings: &Findings,
    cancel: &Cancel,
    parent: impl FnOnce() -> Result<Option<Manifest>>,
    fill: impl FnOnce(&dyn Sink, Option<&Manifest>) -> Result<Entry>,
) -> Result<Manifest> {
    let clock = Instant::now();
    // The record comes first, marks and index after it: a collector that does not see the record
    // has a mark that is seen here.
    let record = jobs::Job::begin(
        pool.shared_store(),
        pool.keys(),
        jobs::JobKind::Backup,
        order.started_ns,
    )?;
    let marked = marks::read(pool.store(), pool.keys())?;
    pool.index().refresh()?;
    let (started_ns, lease_s) = (order.started_ns, jobs::DEFAULT_LEASE_S);
    orphans::recover_from_dead_jobs(pool, &record, &marked, started_ns, lease_s, cancel)?;
    let now = || {
        let elapsed = i64::try_from(clock.elapsed().as_nanos()).unwrap_or(i64::MAX);
        order.started_ns.saturating_add(elapsed)
    };
    let packs = marked.packs.clone();
    let work = || {
        let parent = parent()?;
        let level = order.level;
        let (marked, job, claims) = (packs, Some(&record), std::sync::Arc::default());
        let options = ingest::Options { counters, cancel, level, marked, job, claims };
        let root = ingest::run(pool, options, |ingest| fill(ingest, parent.as_ref()))?;
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
        ..draft(order, root, parent, counters, findings)
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

/// What whoever filled it says of an image; its id and number are given to it later.
pub(crate) fn draft(
    order: &Order<'_>,
    root: Entry,
    parent: Option<Id>,
    counters: &Counters,
    findings: &Findings,
) -> Manifest {
    Manifest {
        id: Id([0; 16]),
        number: 0,
        source: Source {
            host: order.host.to_owned(),
            name: order.source.to_owned(),
            paths: order.paths.to_vec(),
        },
        started_ns: order.started_ns,
        finished_ns: order.started_ns,
        root,
        parent,
        status: if findings.errors() > 0 { Status::CompletedWithErrors } else { Status::Completed },
        stats: stats(counters, findings),
        findings: findings.kept(),
        findings_total: findings.total(),
        options: options(order),
        software: order.software.to_owned(),
    }
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

fn options(order: &Order<'_>) -> BTreeMap<String, String> {
    let mut options = BTreeMap::from([("compression".to_owned(), order.level.to_string())]);
    for (name, value) in &order.options {
        options.insert((*name).to_owned(), value.clone());
    }
    for (name, value) in order.labels {
        options.insert(format!("{LABEL}{name}"), value.clone());
    }
    options
}
