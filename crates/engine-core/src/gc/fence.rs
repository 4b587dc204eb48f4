//! The fence: one collector at a time, and no deletion while a job runs that began before the
//! mark.

use crate::error::{Error, Result};
use crate::ids::{Id, PackId};
use crate::pool::Pool;
use crate::pool::jobs::{self, Job, JobKind, Seen};
use crate::pool::marks::{self, Mark};

use super::Collection;

/// Keeps collectors and merges of the index away from a pool until [`Exclusive::end`].
pub(crate) struct Exclusive {
    job: Job,
    mark: Mark,
}

impl Exclusive {
    /// Takes a collector's place, with a mark that names no pack. A mark whose collector is gone
    /// is withdrawn, which is safe at any moment. `Busy` while a collector is at work.
    pub(crate) fn begin(pool: &Pool, now_ns: i64, lease_s: u64) -> Result<Self> {
        let job = Job::begin(pool.shared_store(), pool.keys(), JobKind::Collect, now_ns)?;
        let withdrawn = |_: &Mark| (Vec::new(), Some(Vec::new()));
        let mark = match take_over(pool, &job, now_ns, lease_s, withdrawn)? {
            Some(mark) => mark,
            None => claim(pool, &job, Vec::new())?,
        };
        Ok(Exclusive { job, mark })
    }

    pub(crate) fn job(&self) -> &Job {
        &self.job
    }

    pub(crate) fn end(self, pool: &Pool) -> Result<()> {
        pool.store().delete(&self.mark.key())?;
        self.job.end()
    }
}

/// The mark of a collector that is gone, now the job's, with the packs and blocking jobs that
/// `keep` says; `None` when no mark stands. Buries dead jobs.
fn take_over(
    pool: &Pool,
    job: &Job,
    now_ns: i64,
    lease_s: u64,
    keep: impl Fn(&Mark) -> (Vec<PackId>, Option<Vec<Id>>),
) -> Result<Option<Mark>> {
    let (store, keys) = (pool.store(), pool.keys());
    let marks = marks::list(store, keys)?;
    for job in jobs::list(store, keys)? {
        if job.is_dead(now_ns, lease_s) {
            job.bury(store)?;
        } else if marks.iter().any(|mark| mark.collector == job.id) {
            return Err(busy(pool, &job.describe()));
        }
    }
    let Some(newest) = marks.last() else {
        return Ok(None);
    };
    let number = newest.number.checked_add(1).ok_or_else(|| busy(pool, "marks ran out"))?;
    let (packs, blocking) = keep(newest);
    let mark = Mark { number, collector: job.id(), packs, blocking };
    if !mark.claim(store, keys)? {
        return Err(busy(pool, "another collector was faster"));
    }
    for old in &marks {
        store.delete(&old.key())?;
    }
    Ok(Some(mark))
}

/// A new mark where none stands.
fn claim(pool: &Pool, job: &Job, packs: Vec<PackId>) -> Result<Mark> {
    let mark = Mark { number: 1, collector: job.id(), packs, blocking: None };
    if !mark.claim(pool.store(), pool.keys())? {
        return Err(busy(pool, "another collector was faster"));
    }
    Ok(mark)
}

fn busy(pool: &Pool, reason: &str) -> Error {
    let what = format!("garbage collection of '{}'", pool.store().place());
    Error::Busy { what, reason: reason.to_owned() }
}

impl Collection<'_> {
    /// What a collector that is gone has left to be completed.
    pub(super) fn take_over(&self) -> Result<Option<Mark>> {
        let (now_ns, lease_s) = (self.request.now_ns, self.request.lease_s);
        let all = |mark: &Mark| (mark.packs.clone(), mark.blocking.clone());
        take_over(self.pool, self.job, now_ns, lease_s, all)
    }

    /// Marks these packs. From here on, writers that begin treat their chunks as missing.
    pub(super) fn put_mark(&self, packs: Vec<PackId>) -> Result<Mark> {
        claim(self.pool, self.job, packs)
    }

    /// Jobs that must end before the mark's packs may go. Buries those that are dead.
    pub(super) fn blocking(&self, mark: &mut Mark) -> Result<Vec<Seen>> {
        let (store, keys) = (self.pool.store(), self.pool.keys());
        let (request, own) = (self.request, self.job.id());
        let mut blocking = Vec::new();
        for job in jobs::list(store, keys)? {
            let began_before = mark.blocking.as_ref().is_none_or(|jobs| jobs.contains(&job.id));
            if job.id == own || job.kind == JobKind::Collect || !began_before {
                continue;
            }
            if job.is_dead(request.now_ns, request.lease_s) {
                job.bury(store)?;
            } else {
                blocking.push(job);
            }
        }
        let ids: Vec<Id> = blocking.iter().map(|job| job.id).collect();
        if mark.blocking.as_ref() != Some(&ids) {
            mark.blocking = Some(ids);
            mark.update(store, keys)?;
        }
        Ok(blocking)
    }
}
