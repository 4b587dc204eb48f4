//! Garbage collection in two phases with a fence. See `docs/formats/jobs-and-marks.md`.
//!
//! First a mark names the packs that may go; writers that begin after it treat their chunks as
//! missing. Once every job that began before it has ended, what images reach is found anew, unless
//! neither an image nor a part of the index has come since it was found; live chunks of these packs
//! are copied, the index is written without them, and only then are they
//! deleted. In that order: whatever step is the last before a crash, every chunk that an image
//! needs is in a pack that the index lists, and no listed pack is gone. Nothing here decides
//! which images go.
//!
//! Memory: one bit a chunk, some bytes a pack, and a few blocks.

pub(crate) mod fence;
mod plan;
mod rewrite;
mod sweep;

#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::sync::Arc;

use crate::cancel::Cancel;
use crate::counters::Counters;
use crate::error::Result;
use crate::ids::{Id, PackId};
use crate::index::Snapshot;
use crate::pool::Pool;
use crate::pool::jobs::{Job, JobKind};
use crate::reach::{LiveSet, Root, Stop, Tally, walk};

/// How to collect.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    pub now_ns: i64,
    /// Say what could be freed, change nothing.
    pub dry_run: bool,
    /// A job without a sign of life for so long counts as dead.
    pub lease_s: u64,
    /// zstd level for blocks that are packed anew.
    pub level: i32,
}

/// What a collection did; of a dry run, what it would do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    pub packs_before: u64,
    pub packs_deleted: u64,
    /// Of the deleted, those whose live chunks were copied.
    pub packs_rewritten: u64,
    /// Bytes of deleted packs less those of packs written instead.
    pub bytes_freed: u64,
    /// Plain bytes of chunks.
    pub bytes_live: u64,
    pub bytes_total: u64,
    pub chunks_live: u64,
    pub chunks_total: u64,
    /// Jobs in words that must end before anything is deleted; collect again after that.
    pub waiting_for: Vec<String>,
    pub dry_run: bool,
}

/// Collects garbage. `Busy` while another collector is at work.
pub fn collect(
    pool: &Pool,
    request: &Request,
    counters: &Counters,
    cancel: &Cancel,
) -> Result<Collected> {
    if request.dry_run {
        let survey = Survey::take(pool, &HashSet::new(), counters, cancel)?;
        let unlisted = plan::unlisted(pool, &survey.tallies)?;
        return Ok(plan::forecast(pool, &survey, &unlisted));
    }
    let job = Job::begin(pool.shared_store(), pool.keys(), JobKind::Collect, request.now_ns)?;
    let collection = Collection { pool, request, job: &job, counters, cancel };
    let collected = collection.run()?;
    job.end()?;
    Ok(collected)
}

/// What the steps of one collection share.
struct Collection<'a> {
    pool: &'a Pool,
    request: &'a Request,
    job: &'a Job,
    counters: &'a Counters,
    cancel: &'a Cancel,
}

impl Collection<'_> {
    fn run(&self) -> Result<Collected> {
        let mut collected = Collected::default();
        if let Some(mark) = self.take_over()? {
            // What an earlier collection began: deleting may have started, or may still wait.
            if !self.finish(mark, None, &mut collected)? {
                return Ok(collected);
            }
        }
        let survey = Survey::take(self.pool, &HashSet::new(), self.counters, self.cancel)?;
        let unlisted = plan::unlisted(self.pool, &survey.tallies)?;
        let candidates = plan::candidates(self.pool, &survey.tallies, &unlisted);
        survey.tell(&mut collected, unlisted.len());
        if candidates.is_empty() {
            return Ok(collected);
        }
        let mark = self.put_mark(candidates)?;
        self.finish(mark, Some(survey), &mut collected)?;
        Ok(collected)
    }
}

/// What images reach at one moment, and what each pack is worth.
struct Survey {
    images: HashSet<Id>,
    live: LiveSet,
    tallies: Vec<Tally>,
}

impl Survey {
    /// Fails on an image that is not whole: while it is not known what an image needs, nothing
    /// may go.
    fn take(
        pool: &Pool,
        excluded: &HashSet<PackId>,
        counters: &Counters,
        cancel: &Cancel,
    ) -> Result<Self> {
        // Images first: then the index knows every chunk that they name.
        let images = pool.images()?;
        let snapshot = pool.index().refresh()?;
        let live = LiveSet::new(Arc::clone(&snapshot), excluded);
        let roots = images.iter().filter_map(|image| {
            let tree = image.root.subtree?;
            Some(Root { image: format!("image {}", image.id), tree })
        });
        walk(pool, &live, roots, &Stop, counters, cancel)?;
        let tallies = live.tallies();
        let images = images.iter().map(|image| image.id).collect();
        Ok(Survey { images, live, tallies })
    }

    /// Whether nothing can be reached now that it does not know: no image has come, and the index
    /// is as it was. What images name never changes. Of those that went, it knows too much, which
    /// costs room and no more.
    fn holds(&self, pool: &Pool) -> Result<bool> {
        // Images first, as above.
        let is_known = pool.image_ids()?.iter().all(|id| self.images.contains(id));
        let now = pool.index().refresh()?;
        let ids = |snapshot: &Snapshot| snapshot.segments().iter().map(|one| one.id()).collect();
        let (before, now): (Vec<Id>, Vec<Id>) = (ids(self.live.snapshot()), ids(&now));
        Ok(is_known && before == now)
    }

    fn tell(&self, collected: &mut Collected, unlisted: usize) {
        collected.packs_before = (self.tallies.len() + unlisted) as u64;
        collected.chunks_live = self.live.count();
        collected.chunks_total = self.tallies.iter().map(|tally| tally.chunks).sum();
        collected.bytes_live = self.tallies.iter().map(|tally| tally.live_bytes).sum();
        collected.bytes_total = self.tallies.iter().map(|tally| tally.bytes).sum();
    }
}
