//! Packs that no segment lists: a job stored them and ended before it could list them. Indexing
//! them lets the next backup find what was sent already.

use crate::cancel::Cancel;
use crate::counters::Counters;
use crate::error::{Error, Result};
use crate::ids::PackId;
use crate::pool::Pool;
use crate::pool::jobs::{self, Job, JobKind};
use crate::pool::marks::Marked;

use super::footers;

/// Indexes what dead backups have stored, as part of a job that has read the marks; does nothing
/// when there are none, or while a mark stands. Call it before the backup looks anything up.
/// Packs whose footer cannot be read are left to a check.
pub fn recover_from_dead_jobs(
    pool: &Pool,
    job: &Job,
    marked: &Marked,
    now_ns: i64,
    lease_s: u64,
    cancel: &Cancel,
) -> Result<u64> {
    if marked.any {
        return Ok(0);
    }
    let dead: Vec<_> = jobs::list(pool.store(), pool.keys())?
        .into_iter()
        .filter(|seen| seen.kind == JobKind::Backup && seen.is_dead(now_ns, lease_s))
        .collect();
    if dead.is_empty() {
        return Ok(0);
    }
    let recovered = recover(pool, job, cancel)?;
    for job in dead {
        job.bury(pool.store())?;
    }
    Ok(recovered)
}

/// Indexes all unlisted packs; how many there were. The job began before any mark. Packs that
/// another job is about to list are listed twice then, which harms nothing.
pub fn recover(pool: &Pool, job: &Job, cancel: &Cancel) -> Result<u64> {
    let snapshot = pool.index().refresh()?;
    let listed = snapshot.packs();
    let mut orphans = Vec::new();
    pool.store().list("packs/", &mut |key, _size| {
        let id = PackId::from_key(key);
        orphans.extend(id.filter(|id| listed.binary_search_by_key(id, |pack| pack.id).is_err()));
        Ok(())
    })?;
    if orphans.is_empty() {
        return Ok(0);
    }
    let unreadable = |_: &PackId, error: Error| match error {
        Error::Integrity { .. } | Error::NewerFormat { .. } => Ok(()),
        other => Err(other),
    };
    let indexed =
        footers::index(pool, &orphans, &unreadable, &|| job.check(), &Counters::default(), cancel)?;
    pool.index().refresh()?;
    Ok(indexed.packs)
}
