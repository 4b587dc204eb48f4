//! Makes the index again from the packs' footers, whatever has become of it.
//!
//! Holds off collections while it runs; backups go on. New segments are durable before the old
//! ones are deleted, so a rebuild that is stopped anywhere leaves an index that is no worse.

use crate::cancel::Cancel;
use crate::counters::Counters;
use crate::error::{Error, Result};
use crate::finding::Findings;
use crate::gc::fence::Exclusive;
use crate::ids::PackId;
use crate::index::merge::merge_fenced;
use crate::index::{segment, set};
use crate::pool::Pool;

use super::footers;

/// What a rebuild found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rebuilt {
    pub packs: u64,
    /// Chunks in these packs; one that lies in two packs counts twice.
    pub chunks: u64,
    pub segments: u64,
    /// Packs whose footer cannot be read: a finding each.
    pub unreadable: u64,
}

/// Rebuilds the index. `Busy` while garbage is collected.
pub fn rebuild(
    pool: &Pool,
    now_ns: i64,
    lease_s: u64,
    counters: &Counters,
    findings: &Findings,
    cancel: &Cancel,
) -> Result<Rebuilt> {
    let exclusive = Exclusive::begin(pool, now_ns, lease_s)?;
    let rebuilt = run(pool, &exclusive, counters, findings, cancel);
    let ended = exclusive.end(pool);
    let rebuilt = rebuilt?;
    ended?;
    Ok(rebuilt)
}

fn run(
    pool: &Pool,
    exclusive: &Exclusive,
    counters: &Counters,
    findings: &Findings,
    cancel: &Cancel,
) -> Result<Rebuilt> {
    let (store, keys) = (pool.store(), pool.keys());
    // First the segments, then the packs: what a segment lists was in the store before it.
    let old = set::list(store)?;
    let mut packs = Vec::new();
    store.list("packs/", &mut |key, _size| {
        packs.extend(PackId::from_key(key));
        Ok(())
    })?;
    // A store that fails for a moment must not cost the index what lies there.
    let unreadable = |id: &PackId, error: Error| match error {
        Error::Integrity { .. } | Error::NewerFormat { .. } => {
            findings.error(id.key().as_bytes(), "pack-damaged", error.to_string());
            Ok(())
        }
        other => Err(other),
    };
    let before = findings.errors();
    let fence = || exclusive.job().check();
    let indexed = footers::index(pool, &packs, &unreadable, &fence, counters, cancel)?;
    fence()?;
    for id in &old {
        store.delete(&segment::key(id))?;
    }
    let snapshot = pool.index().refresh()?;
    let new: Vec<_> = snapshot
        .segments()
        .iter()
        .filter(|segment| indexed.segments.contains(&segment.id()))
        .cloned()
        .collect();
    if new.len() > 1 {
        merge_fenced(store, keys, &pool.id(), &new, &|_| false, &fence, cancel)?;
    }
    pool.forget();
    Ok(Rebuilt {
        packs: indexed.packs,
        chunks: indexed.chunks,
        segments: pool.index().refresh()?.segments().len() as u64,
        unreadable: findings.errors() - before,
    })
}
