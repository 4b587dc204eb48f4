//! A disk whose restore ended in the middle, and goes on from what was kept.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::cast_possible_truncation)]

mod kit;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use holdfast_engine_core::counters::Counters;
use holdfast_engine_core::disk::{DiskSink, Part, Patience, Piece};
use holdfast_engine_core::error::{Error, Result};
use holdfast_engine_core::manifest::Manifest;
use holdfast_engine_core::pool::Pool;
use holdfast_engine_core::restore::disk::{self, Progress, Request};
use holdfast_engine_core::store::memory::MemoryStore;
use holdfast_engine_core::tree::entry::Extent;
use kit::disk::{MemoryDisk, back_up, machine, unknown};
use kit::noise;
use parking_lot::Mutex;

const SIZE: usize = 3_000_001;

/// A disk whose power fails at some write: only what was flushed is surely there, anything else may
/// be there or not.
struct Mains {
    now: Mutex<Vec<u8>>,
    flushed: Mutex<Vec<u8>>,
    stale: Vec<Extent>,
    /// Writes until it fails.
    left: AtomicU64,
    written: AtomicU64,
}

impl Mains {
    fn new(bytes: Vec<u8>, stale: Vec<Extent>, left: u64) -> Self {
        let (now, flushed) = (Mutex::new(bytes.clone()), Mutex::new(bytes));
        Mains { now, flushed, stale, left: AtomicU64::new(left), written: AtomicU64::new(0) }
    }

    fn spend(&self) -> Result<()> {
        let spent =
            self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
        let broken = |_| Error::io("writing", std::io::Error::from_raw_os_error(5));
        spent.map(drop).map_err(broken)
    }
}

impl DiskSink for Mains {
    fn size(&self) -> u64 {
        SIZE as u64
    }

    fn stale(&self) -> Vec<Extent> {
        self.stale.clone()
    }

    fn write(&self, parts: &[Part<'_>], _patience: Patience<'_>) -> Result<()> {
        for part in parts {
            self.spend()?;
            let from = part.offset as usize;
            self.now.lock()[from..from + part.bytes.len()].copy_from_slice(part.bytes);
            self.written.fetch_add(part.bytes.len() as u64, Ordering::SeqCst);
        }
        Ok(())
    }

    fn zero(&self, offset: u64, length: u64, _patience: Patience<'_>) -> Result<()> {
        self.spend()?;
        self.now.lock()[offset as usize..(offset + length) as usize].fill(0);
        Ok(())
    }

    fn flush(&self, _patience: Patience<'_>) -> Result<()> {
        let now = self.now.lock().clone();
        self.spend()?;
        *self.flushed.lock() = now;
        Ok(())
    }

    fn read(&self, pieces: &mut [Piece<'_>], _patience: Patience<'_>) -> Result<()> {
        for piece in pieces {
            let from = piece.offset as usize;
            let upto = from + piece.bytes.len();
            piece.bytes.copy_from_slice(&self.now.lock()[from..upto]);
        }
        Ok(())
    }
}

fn pool_with(bytes: &[u8]) -> (Arc<Pool>, Manifest) {
    let pool = kit::create(Arc::new(MemoryStore::new()));
    let source = MemoryDisk::new(bytes.to_vec());
    let image = back_up(&pool, &machine(vec![unknown(&source)], None)).unwrap();
    (Arc::new(pool), image)
}

fn holed() -> Vec<u8> {
    let mut bytes = noise(SIZE, 1);
    bytes[700_000..1_200_000].fill(0);
    bytes[2_000_000..2_200_000].fill(0);
    bytes[2_900_000..].fill(0);
    bytes
}

fn run(pool: &Pool, image: &Manifest, to: &Mains, progress: &Progress) -> Result<u64> {
    let (path, progress) = (b"/disks/vda".to_vec(), progress.clone());
    let request = Request { path, verify: true, workers: 3, progress };
    let (counters, cancel) = (Counters::default(), Default::default());
    let done = disk::run(pool, image, &request, None, to, &counters, &cancel);
    done.map(|_| counters.snapshot().bytes_total)
}

#[test]
fn a_restore_that_fails_anywhere_goes_on_from_what_was_flushed() {
    let bytes = holed();
    let (pool, image) = pool_with(&bytes);
    let whole = Mains::new(vec![0; SIZE], vec![], u64::MAX);
    let progress = Progress { keep_bytes: 300_000, ..Progress::default() };
    let total = run(&pool, &image, &whole, &progress).unwrap();
    assert_eq!(progress.kept_until.load(Ordering::SeqCst), SIZE as u64);
    let writes = u64::MAX - whole.left.load(Ordering::SeqCst);
    let mut went_on = 0;
    for left in (0..writes).step_by(1 + writes as usize / 24) {
        let first = Mains::new(vec![0; SIZE], vec![], left);
        let progress = Progress { keep_bytes: 300_000, ..Progress::default() };
        if run(&pool, &image, &first, &progress).is_ok() {
            continue;
        }
        let kept = progress.kept_until.load(Ordering::SeqCst) as usize;
        // What was not kept is anything: what is behind is not believed at all.
        let mut torn = first.flushed.lock().clone();
        assert!(torn[..kept] == bytes[..kept], "failed after {left} writes");
        torn[kept..].fill(9);
        let stale = Extent { offset: kept as u64, length: (SIZE - kept) as u64 };
        let second = Mains::new(torn, vec![stale], u64::MAX);
        let progress = Progress { begin: kept as u64, ..progress };
        let rest = run(&pool, &image, &second, &progress).unwrap();
        assert!(*second.flushed.lock() == bytes, "failed after {left} writes");
        assert!(second.written.load(Ordering::SeqCst) <= rest + (64 << 10));
        went_on += u64::from(kept > 0 && rest < total);
    }
    assert!(went_on > 3, "{went_on} of {writes}");
}

#[test]
fn only_holes_that_may_hold_something_are_written() {
    let bytes = holed();
    let (pool, image) = pool_with(&bytes);
    let mut dirty = vec![0; SIZE];
    dirty[800_000..900_000].fill(7);
    dirty[1_150_000..1_500_000].fill(7);
    let extent = |offset, upto| Extent { offset, length: upto - offset };
    let stale = vec![extent(800_000, 900_000), extent(1_150_000, 1_500_000)];
    let to = Mains::new(dirty, stale, u64::MAX);
    run(&pool, &image, &to, &Progress::default()).unwrap();
    assert!(*to.flushed.lock() == bytes);
    let begun = Mains::new(bytes.clone(), vec![], u64::MAX);
    let progress = Progress { begin: SIZE as u64, ..Progress::default() };
    assert_eq!(run(&pool, &image, &begun, &progress).unwrap(), 0);
    assert_eq!(begun.written.load(Ordering::SeqCst), 0);
    // What is believed is compared all the same, where that is asked for.
    let mut wrong = bytes;
    wrong[42] ^= 1;
    let wrong = Mains::new(wrong, vec![], u64::MAX);
    assert_eq!(run(&pool, &image, &wrong, &progress).unwrap_err().code(), "integrity");
}
