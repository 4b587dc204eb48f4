//! Merges index segments, unless a collection is under way.

use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::index::merge::{merge_fenced, merge_policy};
use crate::pool::Pool;
use crate::pool::jobs::{Job, JobKind};
use crate::pool::marks::{self, Marked};

/// Merges what the policy asks for, as part of a job that has read the marks: one that began
/// before a mark is waited for, and one that saw a mark merges nothing. True if it merged.
pub fn tidy(pool: &Pool, job: &Job, marked: &Marked, cancel: &Cancel) -> Result<bool> {
    if marked.any {
        return Ok(false);
    }
    let segments = pool.index().refresh()?.segments().to_vec();
    let Some(chosen) = merge_policy(&segments) else {
        return Ok(false);
    };
    let chosen: Vec<_> =
        segments.into_iter().filter(|segment| chosen.contains(&segment.id())).collect();
    let (store, keys, keep) = (pool.store(), pool.keys(), |_: &_| false);
    merge_fenced(store, keys, &pool.id(), &chosen, &keep, &|| job.check(), cancel)?;
    pool.index().refresh()?;
    Ok(true)
}

/// Merges all segments into one. `Busy` during a garbage collection.
pub fn merge_all(pool: &Pool, now_ns: i64, cancel: &Cancel) -> Result<()> {
    let job = Job::begin(pool.shared_store(), pool.keys(), JobKind::Index, now_ns)?;
    if marks::read(pool.store(), pool.keys())?.any {
        return Err(Error::Busy {
            what: format!("the index of '{}'", pool.store().place()),
            reason: "garbage is being collected".into(),
        });
    }
    let segments = pool.index().refresh()?.segments().to_vec();
    if segments.len() > 1 {
        let (store, keys, keep) = (pool.store(), pool.keys(), |_: &_| false);
        merge_fenced(store, keys, &pool.id(), &segments, &keep, &|| job.check(), cancel)?;
        pool.index().refresh()?;
    }
    job.end()
}
