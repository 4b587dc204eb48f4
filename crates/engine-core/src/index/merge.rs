//! Merging segments, so that a lookup asks few of them.
//!
//! Streams: memory does not grow with the records. The merged segment is durable before the old
//! ones are deleted, so every record is listed at every moment; two that merge at once only
//! leave records twice. A merge carries the records of *all* packs forward, so it must not run
//! while a collection deletes packs: callers hold a job record that is older than any mark
//! ([`crate::pool`]), and see no mark.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::ids::{Id, PackId, Prefix};
use crate::index::segment::{self, PackEntry, Record, Segment};
use crate::index::write;
use crate::keys::PoolKeys;
use crate::store::Store;

/// More segments than this are always merged.
pub const MOST_SEGMENTS: usize = 16;
/// So many of about one size are merged.
const ALIKE: usize = 8;
/// Below this many records, segments count as one size.
const SMALL: u64 = 65_536;

/// Which segments to merge now, if any. Sizes grow in tiers, so a record is copied a number of
/// times that is logarithmic in the pool.
pub fn merge_policy(segments: &[Arc<Segment>]) -> Option<Vec<Id>> {
    let sizes: Vec<_> = segments.iter().map(|segment| (segment.len(), segment.id())).collect();
    policy(sizes)
}

fn policy(mut segments: Vec<(u64, Id)>) -> Option<Vec<Id>> {
    segments.sort_unstable();
    let mut run = 0;
    let mut sum = 0;
    for (size, _) in &segments {
        if *size > SMALL.max(sum / ALIKE as u64 * 4) && run >= 2 {
            break;
        }
        sum += size;
        run += 1;
    }
    let excess = segments.len().saturating_sub(MOST_SEGMENTS / 2);
    let count = match (run >= ALIKE, segments.len() > MOST_SEGMENTS) {
        (false, false) => return None,
        (true, false) => run,
        (_, true) => run.max(excess + 1),
    };
    Some(segments.iter().take(count).map(|(_, id)| *id).collect())
}

/// Writes one segment with the records of `segments`, then deletes them. Records of packs that
/// `drop` names are left out, and so are these packs. `None`: another got there first, or there
/// was nothing to keep.
pub fn merge(
    store: &dyn Store,
    keys: &PoolKeys,
    pool: &Id,
    segments: &[Arc<Segment>],
    drop: &dyn Fn(&PackId) -> bool,
    cancel: &Cancel,
) -> Result<Option<Id>> {
    merge_fenced(store, keys, pool, segments, drop, &|| Ok(()), cancel)
}

/// As [`merge`] for a job that others may declare dead: `fence` is asked once the merged segment
/// stands; if it fails, that segment goes and the old ones stay.
pub fn merge_fenced(
    store: &dyn Store,
    keys: &PoolKeys,
    pool: &Id,
    segments: &[Arc<Segment>],
    drop: &dyn Fn(&PackId) -> bool,
    fence: &dyn Fn() -> Result<()>,
    cancel: &Cancel,
) -> Result<Option<Id>> {
    let merged = write_merged(store, keys, pool, segments, drop, cancel)?;
    let withdraw = || match merged {
        Some(merged) => store.delete(&segment::key(&merged)),
        None => Ok(()),
    };
    if let Err(error) = fence() {
        withdraw()?;
        return Err(error);
    }
    // A segment that is gone was merged or collected by another: what it lists may be out of
    // date by now, so this result must not outlive it.
    for segment in segments {
        if store.size(&segment.key())?.is_none() {
            withdraw()?;
            return Ok(None);
        }
    }
    for segment in segments {
        store.delete(&segment.key())?;
    }
    Ok(merged)
}

/// Writes one segment with the records of `segments` and deletes nothing. `None` when no pack is
/// left to list.
pub fn write_merged(
    store: &dyn Store,
    keys: &PoolKeys,
    pool: &Id,
    segments: &[Arc<Segment>],
    drop: &dyn Fn(&PackId) -> bool,
    cancel: &Cancel,
) -> Result<Option<Id>> {
    for segment in segments {
        segment.verify(keys)?;
    }
    let plan = Plan::new(segments, drop)?;
    if plan.packs.is_empty() {
        return Ok(None);
    }
    let mut count = 0;
    for record in Merged::new(segments, &plan.ordinals) {
        record?;
        count += 1;
        if count % (1 << 16) == 0 {
            cancel.check()?;
        }
    }
    let records = || Ok(Merged::new(segments, &plan.ordinals));
    write::write_sorted(store, keys, pool, &plan.packs, count, records).map(Some)
}

/// Packs of the merged segment, and for each old segment the new position of each of its packs.
struct Plan {
    packs: Vec<PackEntry>,
    ordinals: Vec<Vec<Option<u32>>>,
}

impl Plan {
    fn new(segments: &[Arc<Segment>], drop: &dyn Fn(&PackId) -> bool) -> Result<Self> {
        let mut packs: Vec<PackEntry> = segments
            .iter()
            .flat_map(|segment| segment.packs())
            .filter(|pack| !drop(&pack.id))
            .collect();
        packs.sort_unstable_by_key(|pack| pack.id);
        packs.dedup_by_key(|pack| pack.id);
        if u32::try_from(packs.len()).is_err() {
            return Err(Error::Invalid("too many packs for one index segment".into()));
        }
        let position = |pack: PackEntry| {
            packs.binary_search_by_key(&pack.id, |pack| pack.id).ok().map(|at| at as u32)
        };
        let ordinals =
            segments.iter().map(|segment| segment.packs().map(position).collect()).collect();
        Ok(Plan { packs, ordinals })
    }
}

/// The records of several segments in order, each prefix once.
struct Merged<'a> {
    segments: &'a [Arc<Segment>],
    ordinals: &'a [Vec<Option<u32>>],
    /// The next prefix of each segment that has one, and its position there.
    heads: BinaryHeap<Reverse<(Prefix, usize, u64)>>,
    last: Option<Prefix>,
}

impl<'a> Merged<'a> {
    fn new(segments: &'a [Arc<Segment>], ordinals: &'a [Vec<Option<u32>>]) -> Self {
        let heads = segments.iter().enumerate().filter_map(|(segment, open)| {
            open.prefix(0).map(|prefix| Reverse((prefix, segment, 0)))
        });
        Merged { segments, ordinals, heads: heads.collect(), last: None }
    }
}

impl Iterator for Merged<'_> {
    type Item = Result<Record>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let mut head = self.heads.peek_mut()?;
            let Reverse((prefix, at, position)) = *head;
            let segment = &self.segments[at];
            match segment.prefix(position + 1) {
                Some(next) => *head = Reverse((next, at, position + 1)),
                None => {
                    std::collections::binary_heap::PeekMut::pop(head);
                }
            }
            if self.last == Some(prefix) {
                continue;
            }
            let record = segment.record(position)?;
            match self.ordinals[at].get(record.pack as usize) {
                Some(Some(pack)) => {
                    self.last = Some(prefix);
                    return Some(Ok(Record { pack: *pack, ..record }));
                }
                Some(None) => {}
                None => {
                    let reason = "a record names no pack";
                    return Some(Err(Error::integrity(segment.key(), reason)));
                }
            }
        }
    }
}
