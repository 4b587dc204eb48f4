//! The second phase: copies what is live in marked packs, then lets them go.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::error::{Error, Result};
use crate::ids::PackId;
use crate::index::{Segment, merge};
use crate::pool::Pool;
use crate::pool::marks::Mark;

use super::plan::{self, Verdict};
use super::{Collected, Collection, Survey};

/// Threads that delete: object stores answer slowly.
const DELETERS: usize = 8;
/// How often the index is written again when others change it meanwhile.
const ATTEMPTS: usize = 8;

/// Marked packs, by what becomes of them.
#[derive(Default)]
struct Doomed {
    delete: Vec<PackId>,
    rewrite: Vec<PackId>,
    /// In the store, but listed by no segment.
    unlisted: Vec<PackId>,
    bytes: u64,
}

impl Doomed {
    fn judge(&mut self, mark: &HashSet<PackId>, pool: &Pool, survey: &Survey) {
        for (tally, verdict) in survey.tallies.iter().zip(plan::verdicts(pool, &survey.tallies)) {
            let to = match verdict {
                _ if !mark.contains(&tally.pack.id) => continue,
                // A job that began before the mark has given it life.
                Verdict::Keep => continue,
                Verdict::Delete => &mut self.delete,
                Verdict::Rewrite => &mut self.rewrite,
            };
            to.push(tally.pack.id);
            self.bytes += tally.pack.size;
        }
    }

    fn listed(&self) -> HashSet<PackId> {
        self.delete.iter().chain(&self.rewrite).copied().collect()
    }

    fn all(&self) -> Vec<PackId> {
        self.delete.iter().chain(&self.rewrite).chain(&self.unlisted).copied().collect()
    }
}

impl Collection<'_> {
    /// Ends the collection that this mark began. False: jobs are in the way, the mark stays.
    /// `survey`: what was found before the mark was made.
    pub(super) fn finish(
        &self,
        mut mark: Mark,
        survey: Option<Survey>,
        collected: &mut Collected,
    ) -> Result<bool> {
        let blocking = self.blocking(&mut mark)?;
        if !blocking.is_empty() {
            collected.waiting_for = blocking.iter().map(|job| job.describe()).collect();
            return Ok(false);
        }
        if !mark.packs.is_empty() {
            self.sweep(&mark, survey, collected)?;
        }
        self.pool.store().delete(&mark.key())?;
        Ok(true)
    }

    fn sweep(&self, mark: &Mark, before: Option<Survey>, collected: &mut Collected) -> Result<()> {
        let marked: HashSet<PackId> = mark.packs.iter().copied().collect();
        let survey = match before {
            Some(survey) if survey.holds(self.pool)? => survey,
            _ => Survey::take(self.pool, &marked, self.counters, self.cancel)?,
        };
        // The trees that were read take as much memory as copying does.
        self.pool.forget();
        let mut doomed = Doomed::default();
        doomed.judge(&marked, self.pool, &survey);
        let unlisted = plan::unlisted(self.pool, &survey.tallies)?;
        survey.tell(collected, unlisted.len());
        for pack in unlisted.iter().filter(|pack| marked.contains(&pack.id)) {
            doomed.unlisted.push(pack.id);
            doomed.bytes += pack.size;
        }
        let listed = doomed.listed();
        let before = self.pool.index().segments();
        let written = self.rewrite(&doomed.rewrite, &listed, &survey.live)?;
        drop(survey);
        self.write_index(&listed, &before)?;
        self.job.check()?;
        self.delete(&doomed.all())?;
        self.pool.forget();
        collected.packs_deleted += doomed.all().len() as u64;
        collected.packs_rewritten += doomed.rewrite.len() as u64;
        collected.bytes_freed += doomed.bytes.saturating_sub(written);
        Ok(())
    }

    /// Replaces every segment that lists a doomed pack, along with the segments written since
    /// `before`, by one that lists none.
    fn write_index(&self, doomed: &HashSet<PackId>, before: &[Arc<Segment>]) -> Result<()> {
        let pool = self.pool;
        for _ in 0..ATTEMPTS {
            self.cancel.check()?;
            let segments = pool.index().refresh()?.segments().to_vec();
            let stale = |segment: &Segment| segment.packs().any(|pack| doomed.contains(&pack.id));
            if !segments.iter().any(|segment| stale(segment)) {
                return Ok(());
            }
            let replaced: Vec<_> = segments
                .into_iter()
                .filter(|segment| {
                    stale(segment) || !before.iter().any(|known| known.id() == segment.id())
                })
                .collect();
            self.job.check()?;
            let drop = |pack: &PackId| doomed.contains(pack);
            merge::merge(pool.store(), pool.keys(), &pool.id(), &replaced, &drop, self.cancel)?;
        }
        Err(Error::Busy {
            what: format!("the index of '{}'", pool.store().place()),
            reason: "it changed each time it was written".into(),
        })
    }

    fn delete(&self, packs: &[PackId]) -> Result<()> {
        let next = AtomicUsize::new(0);
        let work = || -> Result<()> {
            while let Some(pack) = packs.get(next.fetch_add(1, Ordering::Relaxed)) {
                self.cancel.check()?;
                self.pool.store().delete(&pack.key())?;
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let threads = DELETERS.min(packs.len());
            let running: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            running.into_iter().try_for_each(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|_| Err(Error::Invalid("a deleting thread died".into())))
            })
        })
    }
}
