//! Proves that a pool, or some of its images, can be restored; names what cannot and why.
//!
//! Every problem is a finding: the object or the file ("IMAGE:/path"), a code, and the cause.
//! Nothing is changed, and nothing damaged is passed over: what cannot be read is a problem too.
//! Memory: one bit a chunk, some bytes a pack, and for each thread what one read fetches.

mod damage;
mod index;
mod packs;

#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::cancel::Cancel;
use crate::counters::{Counters, add};
use crate::error::{Error, Result};
use crate::finding::Findings;
use crate::ids::Id;
use crate::index::{PackEntry, Snapshot};
use crate::manifest::Manifest;
use crate::pool::{Pool, jobs, marks};
use crate::reach::{LiveSet, Root, Trouble, walk};

use damage::{Again, Damage, First};
use packs::Examination;

/// How thorough to be.
#[derive(Clone, Copy, Debug, Default)]
pub struct Request {
    /// Reads, unseals, decompresses and names all data, not only what describes it.
    pub read_data: bool,
}

/// What was examined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    pub images: u64,
    pub chunks: u64,
    pub packs: u64,
    pub bytes_read: u64,
}

/// What a check works with.
struct Check<'a> {
    pool: &'a Pool,
    request: Request,
    counters: &'a Counters,
    findings: &'a Findings,
    cancel: &'a Cancel,
}

/// Checks the whole pool: its index, all packs, all images, records of jobs, marks.
pub fn check(
    pool: &Pool,
    request: Request,
    counters: &Counters,
    findings: &Findings,
    cancel: &Cancel,
) -> Result<Checked> {
    let check = Check { pool, request, counters, findings, cancel };
    // What was read before may have been damaged since.
    pool.forget();
    check.records()?;
    // Images before the index: then it knows every chunk that they name.
    let images = check.images(pool.image_ids()?)?;
    let snapshot = check.open_index()?;
    check.verify_segments(&snapshot)?;
    let damage = Damage::default();
    let listed = check.compare_with_store(&snapshot, &damage)?;
    let matched = index::Matched::new(&snapshot);
    let wanted = Examination { snapshot: &snapshot, live: None, matched: Some(&matched) };
    let chunks = check.examine(&listed, &wanted, &damage)?;
    matched.compare(&snapshot, &damage, findings);
    let live = LiveSet::new(Arc::clone(&snapshot), &damage.packs());
    check.walk(&images, &live, &First { findings, damage: &damage })?;
    Ok(check.done(&images, chunks, listed.len()))
}

/// Checks images (all if `None`) and what they need of the pool. `ImageMissing` if one is not
/// there.
pub fn verify(
    pool: &Pool,
    images: Option<&[Id]>,
    request: Request,
    counters: &Counters,
    findings: &Findings,
    cancel: &Cancel,
) -> Result<Checked> {
    let check = Check { pool, request, counters, findings, cancel };
    pool.forget();
    let ids = match images {
        Some(ids) => {
            for id in ids {
                if pool.store().size(&Manifest::key(id))?.is_none() {
                    return Err(Error::ImageMissing { image: id.to_string() });
                }
            }
            ids.to_vec()
        }
        None => pool.image_ids()?,
    };
    let images = check.images(ids)?;
    let snapshot = check.open_index()?;
    let damage = Damage::default();
    let live = LiveSet::new(Arc::clone(&snapshot), &HashSet::new());
    check.walk(&images, &live, &First { findings, damage: &damage })?;
    let needed: Vec<PackEntry> = live
        .tallies()
        .into_iter()
        .filter(|tally| tally.live_chunks > 0)
        .map(|tally| tally.pack)
        .collect();
    let present = check.present(&needed, &damage)?;
    let wanted = Examination { snapshot: &snapshot, live: Some(&live), matched: None };
    check.examine(&present, &wanted, &damage)?;
    if !damage.is_empty() {
        // Once more, to name the files that are hurt.
        let again = LiveSet::new(Arc::clone(&snapshot), &damage.packs());
        check.walk(&images, &again, &Again { findings, damage: &damage })?;
    }
    Ok(check.done(&images, live.count(), needed.len()))
}

impl Check<'_> {
    fn done(&self, images: &[Manifest], chunks: u64, packs: usize) -> Checked {
        Checked {
            images: images.len() as u64,
            chunks,
            packs: packs as u64,
            bytes_read: self.counters.bytes_read.load(Ordering::Relaxed),
        }
    }

    /// A problem with an object of the store. What is no fault of stored data ends the check.
    fn problem(&self, key: &str, error: Error) -> Result<()> {
        let code = match &error {
            Error::Integrity { .. } => "damaged",
            Error::NewerFormat { .. } => "newer-format",
            Error::ObjectMissing { .. } => "missing",
            Error::Io { .. } | Error::NoPermission { .. } => "unreadable",
            _ => return Err(error),
        };
        self.findings.error(key.as_bytes(), code, error.to_string());
        Ok(())
    }

    /// Records of jobs and marks open.
    fn records(&self) -> Result<()> {
        let (store, keys) = (self.pool.store(), self.pool.keys());
        if let Err(error) = jobs::list(store, keys) {
            self.problem(jobs::KEYS, error)?;
        }
        match marks::list(store, keys) {
            Ok(_) => Ok(()),
            Err(error) => self.problem(marks::KEYS, error),
        }
    }

    /// Manifests that open. One that was expired meanwhile is left out.
    fn images(&self, ids: Vec<Id>) -> Result<Vec<Manifest>> {
        let mut images = Vec::new();
        for id in ids {
            self.cancel.check()?;
            match self.pool.image(&id) {
                Ok(image) => images.push(image),
                Err(Error::ImageMissing { .. }) => {}
                Err(error) => self.problem(&Manifest::key(&id), error)?,
            }
        }
        images.sort_by_key(|image| (image.number, image.id));
        Ok(images)
    }

    fn open_index(&self) -> Result<Arc<Snapshot>> {
        let snapshot = self.pool.index().reread()?;
        for (id, error) in snapshot.damaged() {
            self.problem(&crate::index::segment::key(id), error.clone())?;
        }
        Ok(snapshot)
    }

    fn walk(&self, images: &[Manifest], live: &LiveSet, trouble: &dyn Trouble) -> Result<()> {
        let mut roots = Vec::new();
        for image in images {
            if let Some(tree) = image.root.subtree {
                roots.push(Root { image: format!("image {}", image.id), tree });
            }
        }
        walk(self.pool, live, roots, trouble, self.counters, self.cancel)
    }

    fn read(&self, bytes: usize) {
        add(&self.counters.bytes_read, bytes as u64);
    }
}
