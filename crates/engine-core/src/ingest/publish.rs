//! Makes finished packs durable and then known: pack first, index segment after it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crossbeam_channel::Receiver;
use parking_lot::Mutex;

use crate::counters::{Counters, Stage, add};
use crate::error::{Error, Result};
use crate::ids::Prefix;
use crate::index::{PackEntry, Record, records_of, segment, write_segment};
use crate::pack::writer::{PublishedPack, SealedPack};
use crate::pool::Pool;
use crate::pool::jobs::Job;

use super::claims::Claims;

/// Chunks that are indexed together; the memory of it is 48 bytes a chunk.
const SEGMENT_CHUNKS: usize = 1 << 20;

/// Shared by the publishing threads of one ingest; also remembers its first failure.
pub struct Publisher<'a> {
    pool: &'a Pool,
    counters: &'a Counters,
    job: Option<&'a Job>,
    claims: Arc<Claims>,
    published: Mutex<Vec<PublishedPack>>,
    failed: AtomicBool,
    fault: Mutex<Option<Error>>,
}

impl<'a> Publisher<'a> {
    pub fn new(
        pool: &'a Pool,
        counters: &'a Counters,
        job: Option<&'a Job>,
        claims: Arc<Claims>,
    ) -> Self {
        Publisher {
            pool,
            counters,
            job,
            claims,
            published: Mutex::default(),
            failed: AtomicBool::new(false),
            fault: Mutex::default(),
        }
    }

    pub fn claims(&self) -> &Claims {
        &self.claims
    }

    /// Ends the ingest; the first error is the one that is told.
    pub fn fail(&self, error: Error) {
        self.fault.lock().get_or_insert(error);
        self.failed.store(true, Ordering::Release);
    }

    pub fn check(&self) -> Result<()> {
        if !self.failed.load(Ordering::Acquire) {
            return Ok(());
        }
        match &*self.fault.lock() {
            Some(error) => Err(error.clone()),
            None => Ok(()),
        }
    }

    /// A publishing thread. After a failure it only empties the channel.
    pub fn run(&self, packs: Receiver<SealedPack<'a>>) {
        for pack in packs {
            if self.check().is_ok()
                && let Err(error) = self.publish(pack)
            {
                self.fail(error);
            }
        }
    }

    fn publish(&self, pack: SealedPack<'a>) -> Result<()> {
        let started = Instant::now();
        let pack = pack.publish()?;
        add(&self.counters.bytes_stored, pack.size);
        self.counters.busy(Stage::Store, 0, started);
        let ready = {
            let mut published = self.published.lock();
            published.push(pack);
            let chunks: usize = published.iter().map(|pack| pack.footer.chunks().len()).sum();
            if chunks >= SEGMENT_CHUNKS { std::mem::take(&mut *published) } else { Vec::new() }
        };
        self.index(ready)
    }

    /// Writes a segment of these packs and lets lookups see it.
    fn index(&self, packs: Vec<PublishedPack>) -> Result<()> {
        if packs.is_empty() {
            return Ok(());
        }
        let started = Instant::now();
        let (entries, records) = rows(&packs);
        let pool = self.pool;
        let names: Vec<Prefix> = records.iter().map(|record| record.prefix).collect();
        let segment = write_segment(pool.store(), pool.keys(), &pool.id(), &entries, records)?;
        // A collection that has declared the job dead may have deleted these packs already.
        if let Some(Err(error)) = self.job.map(Job::check) {
            pool.store().delete(&segment::key(&segment))?;
            return Err(error);
        }
        pool.index().refresh()?;
        self.claims.release(names.iter());
        self.counters.busy(Stage::Store, 0, started);
        Ok(())
    }

    /// After all threads have ended: indexes the rest. After a failure too, as well as it can, so
    /// that the next try finds what is durable; the failure is told all the same.
    pub fn into_outcome(self) -> Result<()> {
        let outcome = self.check();
        let rest = std::mem::take(&mut *self.published.lock());
        match outcome {
            Ok(()) => self.index(rest),
            Err(error @ Error::Fenced { .. }) => Err(error),
            Err(error) => {
                let _ = self.index(rest);
                Err(error)
            }
        }
    }
}

/// What a segment says of these packs.
fn rows(packs: &[PublishedPack]) -> (Vec<PackEntry>, Vec<Record>) {
    let entries = packs
        .iter()
        .map(|pack| PackEntry {
            id: pack.id,
            size: pack.size,
            footer_len: pack.footer_len,
            kind: pack.footer.kind as u8,
        })
        .collect();
    let records = packs
        .iter()
        .enumerate()
        .flat_map(|(ordinal, pack)| records_of(&pack.footer, ordinal as u32))
        .collect();
    (entries, records)
}
