//! What the index costs: bytes a chunk, lookups, marking, merging, and memory.
//!
//! `cargo run --release --example index_bench -- [CHUNKS] [DIRECTORY]`; 10 million chunks and a
//! temporary directory by default. Chunks are synthetic: only their names and places exist.

#![allow(clippy::unwrap_used)]

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use holdfast_engine_core::cancel::Cancel;
use holdfast_engine_core::error::Result;
use holdfast_engine_core::ids::{Id, Kind, Name, PackId};
use holdfast_engine_core::index::write::write_sorted;
use holdfast_engine_core::index::{Index, PackEntry, Place, Record, Snapshot, merge};
use holdfast_engine_core::keys::PoolKeys;
use holdfast_engine_core::reach::LiveSet;
use holdfast_engine_core::store::Store;
use holdfast_engine_core::store::posix::PosixStore;

const POOL: Id = Id([7; 16]);
/// Segments before they are merged.
const SEGMENTS: u64 = 8;
const CHUNKS_IN_PACK: u64 = 2048;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let chunks: u64 = arguments.next().map_or(10_000_000, |text| text.parse().unwrap());
    let place = arguments.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let place = place.join(format!("index-bench-{}", std::process::id()));
    let store: Arc<dyn Store> = Arc::new(PosixStore::create(&place)?);
    let outcome = run(&store, chunks);
    let _ = std::fs::remove_dir_all(&place);
    outcome
}

fn run(store: &Arc<dyn Store>, chunks: u64) -> Result<()> {
    let keys = PoolKeys::derive(&[1; 32]);
    let threads = std::thread::available_parallelism().map_or(2, |count| count.get() as u64);
    println!("{chunks} chunks in {SEGMENTS} segments, {threads} threads");

    let started = Started::now();
    for segment in 0..SEGMENTS {
        write_part(&**store, &keys, chunks, segment)?;
    }
    report("write the segments", started, chunks);
    forget_peak();
    memory("after writing");

    let index = Index::load(Arc::clone(store), keys.clone(), POOL, None)?;
    measure(&index.snapshot(), chunks, threads);

    let started = Started::now();
    let cancel = Cancel::new();
    merge::merge(&**store, &keys, &POOL, &index.segments(), &|_| false, &cancel)?;
    report("merge them", started, chunks);
    memory("after merging");
    forget_peak();
    let index = Index::load(Arc::clone(store), keys, POOL, None)?;
    let snapshot = index.snapshot();
    println!(
        "one segment: {:.2} bytes a chunk on disk",
        snapshot.size() as f64 / snapshot.len() as f64
    );
    measure(&snapshot, chunks, threads);
    Ok(())
}

fn measure(snapshot: &Arc<Snapshot>, chunks: u64, threads: u64) {
    let asked = chunks.min(4_000_000);
    let started = Started::now();
    let found = (0..asked).filter(|at| snapshot.lookup(&name(at * 31 % chunks)).is_some()).count();
    assert_eq!(found as u64, asked);
    report("  look up chunks that are there", started, asked);
    let started = Started::now();
    let found = (0..asked).filter(|at| snapshot.lookup(&name(chunks + at)).is_some()).count();
    assert_eq!(found, 0);
    report("  look up chunks that are not", started, asked);

    let live = LiveSet::new(Arc::clone(snapshot), &HashSet::new());
    for what in ["  mark all chunks", "  mark them again"] {
        let started = Started::now();
        std::thread::scope(|scope| {
            for thread in 0..threads {
                let live = &live;
                scope.spawn(move || {
                    let from = chunks * thread / threads;
                    let to = chunks * (thread + 1) / threads;
                    for part in (from..to).step_by(4096) {
                        let names: Vec<Name> = (part..to.min(part + 4096))
                            .map(|at| name(at * 7_919 % chunks))
                            .collect();
                        let marked = live.mark_all(Kind::Data, &names, &mut |_, _| Ok(()));
                        assert!(marked.is_ok());
                    }
                });
            }
        });
        report(what, started, chunks);
    }
    let started = Started::now();
    let tallies = live.tallies();
    report("  tally the packs", started, chunks);
    assert_eq!(tallies.iter().map(|tally| tally.live_chunks).sum::<u64>(), live.count());
    memory("  after marking");
}

/// Every [`SEGMENTS`]-th chunk.
fn write_part(store: &dyn Store, keys: &PoolKeys, chunks: u64, segment: u64) -> Result<Id> {
    let mut numbers: Vec<(Name, u64)> = (0..chunks)
        .filter(|number| number % SEGMENTS == segment)
        .map(|number| (name(number), number))
        .collect();
    numbers.sort_unstable();
    let packs: Vec<PackEntry> = (0..=numbers.len() as u64 / CHUNKS_IN_PACK)
        .map(|number| {
            let mut id = [0; 32];
            id[..8].copy_from_slice(&number.to_be_bytes());
            id[8] = segment as u8;
            PackEntry { id: PackId(id), size: 64 << 20, footer_len: 80 << 10, kind: 0 }
        })
        .collect();
    let records = || {
        Ok(numbers.iter().map(|(name, number)| {
            let pack = (number / SEGMENTS / CHUNKS_IN_PACK) as u32;
            let place = Place { block: 1, offset: 0, length: 32 << 10 };
            Ok(Record { prefix: name.prefix(), pack, place })
        }))
    };
    write_sorted(store, keys, &POOL, &packs, numbers.len() as u64, records)
}

/// A name as evenly spread as a hash, faster.
fn name(number: u64) -> Name {
    let mut bytes = [0; 32];
    for (part, word) in bytes.chunks_exact_mut(8).zip(1_u64..) {
        let mut mixed = number.wrapping_add(word.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        part.copy_from_slice(&(mixed ^ mixed >> 31).to_le_bytes());
    }
    Name(bytes)
}

/// A moment on the clock and on the processors, which others may be using too.
struct Started {
    clock: Instant,
    cpu_s: f64,
}

impl Started {
    fn now() -> Self {
        Started { clock: Instant::now(), cpu_s: cpu_s() }
    }
}

/// Processor time of all threads so far; the system counts in hundredths of a second.
fn cpu_s() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after = stat.rsplit(')').next().unwrap_or_default();
    let ticks = after.split_ascii_whitespace().skip(11).take(2);
    ticks.filter_map(|text| text.parse::<f64>().ok()).sum::<f64>() / 100.0
}

fn report(what: &str, started: Started, count: u64) {
    let (clock, cpu) = (started.clock.elapsed().as_secs_f64(), cpu_s() - started.cpu_s);
    let each = |seconds: f64| seconds * 1e9 / count as f64;
    println!(
        "{what}: {clock:.2} s, {:.2} M/s; {cpu:.2} s of processors, {:.0} ns each",
        count as f64 / clock / 1e6,
        each(cpu)
    );
}

/// Memory of this process that is its own (maps of the index are the system's cache).
fn memory(when: &str) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let value = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_ascii_whitespace().nth(1).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0)
    };
    let (own, mapped, peak) = (value("RssAnon:"), value("RssFile:"), value("VmHWM:"));
    println!("{when}: {} MiB own, {} MiB mapped, peak {} MiB", own >> 10, mapped >> 10, peak >> 10);
}

/// Counts the peak from here on.
fn forget_peak() {
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}
