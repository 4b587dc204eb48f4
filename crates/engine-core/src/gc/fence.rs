//! The fence: one collector at a time, and no deletion while a job runs that began before the
//! mark.

use crate::error::{Error, Result};
use crate::ids::{Id, PackId};
use crate::pool::jobs::{self, JobKind, Seen};
use crate::pool::marks::{self, Mark};

use super::Collection;

impl Collection<'_> {
    /// The mark of a collector that is gone, now ours; `None` when no mark stands. Buries dead
    /// jobs.
    pub(super) fn take_over(&self) -> Result<Option<Mark>> {
        let (store, keys) = (self.pool.store(), self.pool.keys());
        let marks = marks::list(store, keys)?;
        for job in jobs::list(store, keys)? {
            if job.is_dead(self.request.now_ns, self.request.lease_s) {
                job.bury(store)?;
            } else if marks.iter().any(|mark| mark.collector == job.id) {
                return Err(self.busy(&job.describe()));
            }
        }
        let Some(newest) = marks.last() else {
            return Ok(None);
        };
        let number = newest.number.checked_add(1).ok_or_else(|| self.busy("marks ran out"))?;
        let mark = Mark { number, collector: self.job.id(), ..newest.clone() };
        if !mark.claim(store, keys)? {
            return Err(self.busy("another collector was faster"));
        }
        for old in &marks {
            store.delete(&old.key())?;
        }
        Ok(Some(mark))
    }

    /// Marks these packs. From here on, writers that begin treat their chunks as missing.
    pub(super) fn put_mark(&self, packs: Vec<PackId>) -> Result<Mark> {
        let mark = Mark { number: 1, collector: self.job.id(), packs, blocking: None };
        if !mark.claim(self.pool.store(), self.pool.keys())? {
            return Err(self.busy("another collector was faster"));
        }
        Ok(mark)
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

    fn busy(&self, reason: &str) -> Error {
        let what = format!("garbage collection of '{}'", self.pool.store().place());
        Error::Busy { what, reason: reason.to_owned() }
    }
}
