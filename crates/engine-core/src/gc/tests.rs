#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use super::*;
use crate::error::Error;
use crate::ids::Id;
use crate::manifest::Manifest;
use crate::pool::PoolConfig;
use crate::pool::marks;
use crate::pool::marks::Mark;
use crate::store::Store;
use crate::store::faulty::{Fault, FaultyStore, Gate, Operation, Rule};
use crate::store::memory::MemoryStore;
use crate::store::posix::PosixStore;
use crate::store::simdisk::{Loss, SimDisk};
use crate::testing::images::{self, Files, back_up, files, packs, read_back};

const NOW: i64 = 1_000_000_000_000;
const REQUEST: Request = Request { now_ns: NOW, dry_run: false, lease_s: 60, level: 1 };

fn run(pool: &Pool, request: &Request) -> Result<Collected> {
    collect(pool, request, &Counters::default(), &Cancel::new())
}

fn gc(pool: &Pool) -> Collected {
    run(pool, &REQUEST).unwrap()
}

fn bytes_of_packs(store: &dyn Store) -> u64 {
    crate::store::list_sorted(store, "packs/").unwrap().iter().map(|(_, size)| size).sum()
}

fn nothing_is_left_over(store: &dyn Store) {
    for prefix in ["marks/", "jobs/"] {
        assert_eq!(crate::store::list_sorted(store, prefix).unwrap(), []);
    }
}

/// What the index lists is what the store holds.
fn index_and_packs_agree(pool: &Pool) {
    pool.index().refresh().unwrap();
    let mut listed: Vec<_> = pool.index().packs().iter().map(|pack| pack.id.key()).collect();
    listed.sort();
    assert_eq!(listed, packs(pool.store()));
}

/// Two images of which each has files of its own and files that it shares with the other.
fn two_images(pool: &Pool) -> (Id, Id, Files) {
    let shared = files("shared", 3, 10, 3000);
    let with = |seed| shared.clone().into_iter().chain(files(seed, 5, 10, 3000)).collect();
    let kept: Files = with("kept");
    let gone = back_up(pool, 1, &with("gone")).unwrap();
    (gone, back_up(pool, 2, &kept).unwrap(), kept)
}

#[test]
fn what_only_an_expired_image_needed_is_freed_and_the_other_restores_whole() {
    let store = Arc::new(MemoryStore::new());
    let pool = images::pool(store.clone()).unwrap();
    let (gone, kept, content) = two_images(&pool);
    let before = bytes_of_packs(&*store);
    assert_eq!(gc(&pool).packs_deleted, 0, "while both stand nothing goes");
    assert_eq!(bytes_of_packs(&*store), before);

    pool.expire(&gone).unwrap();
    let forecast = run(&pool, &Request { dry_run: true, ..REQUEST }).unwrap();
    assert_eq!(bytes_of_packs(&*store), before, "a dry run changes nothing");
    nothing_is_left_over(&*store);

    let collected = gc(&pool);
    let after = bytes_of_packs(&*store);
    assert_eq!(collected.bytes_freed, before - after);
    assert!(after < before * 3 / 4, "{after} of {before} bytes are left");
    assert!(collected.packs_rewritten > 0 && collected.packs_deleted > collected.packs_rewritten);
    assert_eq!(collected.waiting_for, Vec::<String>::new());
    assert_eq!(forecast.packs_deleted, collected.packs_deleted);
    assert!(forecast.bytes_freed.abs_diff(collected.bytes_freed) < before / 10);
    nothing_is_left_over(&*store);
    index_and_packs_agree(&pool);
    assert_eq!(read_back(&pool, &kept).unwrap(), content);
    assert_eq!(read_back(&images::open(store).unwrap(), &kept).unwrap(), content);
    let again = gc(&pool);
    assert_eq!((again.packs_deleted, again.chunks_live), (0, again.chunks_total));
}

#[test]
fn blocks_with_little_that_is_dead_are_copied_as_they_are() {
    let store = Arc::new(MemoryStore::new());
    let config = PoolConfig { block_bytes: 64 << 10, pack_bytes: 1 << 20, ..PoolConfig::default() };
    let pool = Pool::create(store.clone(), &images::KEY, config, 0, None).unwrap();
    let all = files("a", 1, 1000, 2000);
    let gone = back_up(&pool, 1, &all).unwrap();
    let mut kept = all.clone();
    for (number, name) in all["a-0"].keys().enumerate() {
        // A third of the first files, and then few.
        if number % if number < 330 { 3 } else { 100 } == 0 {
            kept.get_mut("a-0").unwrap().remove(name);
        }
    }
    let second = back_up(&pool, 2, &kept).unwrap();
    pool.expire(&gone).unwrap();
    let before = bytes_of_packs(&*store);
    let collected = gc(&pool);
    assert!(collected.packs_rewritten > 0);
    assert!(collected.bytes_freed > 100 * 2000 && collected.bytes_freed < before / 4);

    let after = run(&pool, &Request { dry_run: true, ..REQUEST }).unwrap();
    let rewritten = (1 << 20) / 100 * 2;
    let dead = after.bytes_total - after.bytes_live;
    assert!(dead > 7 * 2000, "all that was dead is gone, so nothing was spared: {dead}");
    assert!(dead < 7 * 2000 + rewritten, "{dead}");
    assert_eq!(after.packs_deleted, 0, "what was spared is no reason to collect again");
    assert_eq!(read_back(&pool, &second).unwrap(), kept);
    index_and_packs_agree(&pool);
}

#[test]
fn without_images_everything_goes() {
    let store = Arc::new(MemoryStore::new());
    let pool = images::pool(store.clone()).unwrap();
    let image = back_up(&pool, 1, &files("a", 4, 10, 3000)).unwrap();
    pool.expire(&image).unwrap();
    gc(&pool);
    assert!(packs(&*store).is_empty());
    assert!(pool.index().refresh().unwrap().is_empty());
    let content = files("a", 4, 10, 3000);
    let image = back_up(&pool, 2, &content).unwrap();
    assert_eq!(read_back(&pool, &image).unwrap(), content);
}

#[test]
fn a_running_job_holds_deletion_back_and_what_it_commits_is_kept() {
    let store = Arc::new(MemoryStore::new());
    let pool = images::pool(store.clone()).unwrap();
    let content = files("a", 4, 10, 3000);
    let first = back_up(&pool, 1, &content).unwrap();
    let job = Job::begin(store.clone(), pool.keys(), JobKind::Backup, NOW).unwrap();
    // It found all its chunks in the pool; then the only image that names them goes.
    let manifest = images::store(&pool, 2, &content, HashSet::new()).unwrap();
    pool.expire(&first).unwrap();
    let before = packs(&*store);
    let waiting = gc(&pool);
    assert_eq!(waiting.waiting_for.len(), 1);
    assert!(waiting.waiting_for[0].contains(&job.id().to_string()));
    assert_eq!(packs(&*store), before);
    assert_eq!(gc(&pool).waiting_for.len(), 1, "it still waits");

    pool.commit_image(&manifest, &job).unwrap();
    job.end().unwrap();
    assert_eq!(gc(&pool).waiting_for, Vec::<String>::new());
    assert_eq!(read_back(&pool, &manifest.id).unwrap(), content);
    nothing_is_left_over(&*store);
    index_and_packs_agree(&pool);
}

#[test]
fn what_comes_between_the_search_and_the_mark_is_found_before_anything_goes() {
    let store = Arc::new(FaultyStore::new(MemoryStore::new()));
    let pool = images::pool(store.clone()).unwrap();
    let content = files("a", 4, 10, 3000);
    let first = back_up(&pool, 1, &content).unwrap();
    pool.expire(&first).unwrap();
    let gate = Gate::new();
    store.add(Rule::new(Fault::Hold(gate.clone())).on(Operation::PutIfAbsent).under("marks/"));
    let (second, collected) = std::thread::scope(|scope| {
        let collecting = scope.spawn(|| gc(&pool));
        assert!(gate.wait_until_reached());
        // All of it is in packs that are about to be marked; the job ends before it could block.
        let other = Pool::open(store.clone(), &images::KEY, None).unwrap();
        let second = back_up(&other, 2, &content).unwrap();
        gate.open();
        (second, collecting.join().unwrap())
    });
    assert_eq!(collected.waiting_for, Vec::<String>::new());
    assert_eq!(read_back(&pool, &second).unwrap(), content);
    index_and_packs_agree(&pool);
}

#[test]
fn where_nothing_has_come_images_are_read_once() {
    let store = Arc::new(FaultyStore::new(MemoryStore::new()));
    let pool = images::pool(store.clone()).unwrap();
    let (gone, kept, content) = two_images(&pool);
    pool.expire(&gone).unwrap();
    let key = Manifest::key(&kept);
    let read =
        || store.calls().iter().filter(|call| **call == (Operation::Get, key.clone())).count();
    let before = read();
    assert!(gc(&pool).packs_deleted > 0);
    assert_eq!(read(), before + 1);
    assert_eq!(read_back(&pool, &kept).unwrap(), content);
}

#[test]
fn a_job_that_begins_after_the_mark_blocks_nothing_and_relies_on_no_marked_pack() {
    let store = Arc::new(MemoryStore::new());
    let pool = images::pool(store.clone()).unwrap();
    let content = files("a", 4, 10, 3000);
    let first = back_up(&pool, 1, &content).unwrap();
    let old = Job::begin(store.clone(), pool.keys(), JobKind::Backup, NOW).unwrap();
    pool.expire(&first).unwrap();
    assert_eq!(gc(&pool).waiting_for.len(), 1);

    let new = Job::begin(store.clone(), pool.keys(), JobKind::Backup, NOW).unwrap();
    let marked = marks::read(&*store, pool.keys()).unwrap();
    let manifest = images::store(&pool, 2, &content, marked.packs).unwrap();
    old.end().unwrap();
    // The first mark's packs go; those of the new job, which no image names yet, are marked next.
    let waiting = gc(&pool);
    assert!(waiting.packs_deleted > 0);
    assert_eq!(waiting.waiting_for.len(), 1);
    assert!(waiting.waiting_for[0].contains(&new.id().to_string()));
    pool.commit_image(&manifest, &new).unwrap();
    new.end().unwrap();
    assert_eq!(read_back(&pool, &manifest.id).unwrap(), content);
    let last = gc(&pool);
    assert_eq!((last.waiting_for.len(), last.packs_deleted), (0, 0));
    assert_eq!(read_back(&pool, &manifest.id).unwrap(), content);
    index_and_packs_agree(&pool);
}

#[test]
fn a_job_declared_dead_is_fenced_before_its_chunks_go() {
    let store = Arc::new(MemoryStore::new());
    let pool = images::pool(store.clone()).unwrap();
    let content = files("a", 4, 10, 3000);
    let first = back_up(&pool, 1, &content).unwrap();
    let elsewhere = dead_job(&pool);
    pool.expire(&first).unwrap();
    let silent = Request { now_ns: NOW + 61_000_000_000, ..REQUEST };
    assert_eq!(gc(&pool).waiting_for.len(), 1, "its lease runs");
    assert_eq!(run(&pool, &silent).unwrap().waiting_for, Vec::<String>::new());
    assert!(store.size(&crate::pool::jobs::key(&elsewhere)).unwrap().is_none());
    assert!(packs(&*store).is_empty());
}

/// The record of a job on a machine that is out of sight, last seen now.
fn dead_job(pool: &Pool) -> Id {
    let mut process = crate::pool::process::Process::current();
    process.boot = "another machine".into();
    crate::pool::jobs::tests::put_record(pool.store(), pool.keys(), process, NOW)
}

#[test]
fn of_two_collectors_one_is_told_that_the_other_is_at_work() {
    let store = Arc::new(MemoryStore::new());
    let pool = images::pool(store.clone()).unwrap();
    let (gone, kept, content) = two_images(&pool);
    pool.expire(&gone).unwrap();
    let other = Job::begin(store.clone(), pool.keys(), JobKind::Collect, NOW).unwrap();
    let mark = Mark { number: 1, collector: other.id(), packs: Vec::new(), blocking: None };
    assert!(mark.claim(&*store, pool.keys()).unwrap());
    let before = packs(&*store);
    assert!(matches!(run(&pool, &REQUEST), Err(Error::Busy { .. })));
    assert_eq!(packs(&*store), before);
    // The other dies: its mark is taken over, and what is to go goes.
    drop(other);
    assert!(gc(&pool).packs_deleted > 0);
    nothing_is_left_over(&*store);
    assert_eq!(read_back(&pool, &kept).unwrap(), content);
}

#[test]
fn many_small_packs_become_few() {
    let store = Arc::new(MemoryStore::new());
    let pool = images::pool(store.clone()).unwrap();
    let all: Vec<_> = (0..12)
        .map(|number| {
            let content = files(&format!("s{number}"), 1, 1, 2500);
            (back_up(&pool, number, &content).unwrap(), content)
        })
        .collect();
    assert_eq!(packs(&*store).len(), 24);
    let collected = gc(&pool);
    assert_eq!(collected.packs_rewritten, 24);
    assert!(packs(&*store).len() <= 4);
    for (image, content) in &all {
        assert_eq!(read_back(&pool, image).unwrap(), *content);
    }
    index_and_packs_agree(&pool);
    assert_eq!(gc(&pool).packs_rewritten, 0, "and stay as they are");
}

#[test]
fn packs_that_nobody_lists_go_but_not_before_the_job_that_may_be_writing_them() {
    let store = Arc::new(MemoryStore::new());
    let pool = images::pool(store.clone()).unwrap();
    let image = back_up(&pool, 1, &files("a", 2, 10, 3000)).unwrap();
    for segment in pool.index().segments() {
        store.delete(&segment.key()).unwrap();
    }
    pool.expire(&image).unwrap();
    let job = Job::begin(store.clone(), pool.keys(), JobKind::Backup, NOW).unwrap();
    assert_eq!(gc(&pool).waiting_for.len(), 1);
    assert!(!packs(&*store).is_empty());
    job.end().unwrap();
    assert!(gc(&pool).packs_deleted > 0);
    assert!(packs(&*store).is_empty());
}

#[test]
fn while_an_image_is_not_whole_nothing_goes_and_the_file_is_named() {
    let store = Arc::new(MemoryStore::new());
    let pool = images::pool(store.clone()).unwrap();
    let (gone, kept, _) = two_images(&pool);
    pool.expire(&gone).unwrap();
    // The segment of the second image is lost.
    let segments = pool.index().segments();
    let smallest = segments.iter().min_by_key(|segment| segment.len()).unwrap();
    store.delete(&smallest.key()).unwrap();
    let before = packs(&*store);
    let error = run(&pool, &REQUEST).unwrap_err();
    assert_eq!(error.code(), "integrity");
    assert!(error.to_string().contains(&kept.to_string()), "{error}");
    assert_eq!(packs(&*store), before);
    nothing_is_left_over(&*store);
}

#[test]
fn damage_is_not_copied_under_a_good_seal() {
    let store = Arc::new(MemoryStore::new());
    let pool = images::pool(store.clone()).unwrap();
    let (gone, _, _) = two_images(&pool);
    pool.expire(&gone).unwrap();
    for key in packs(&*store) {
        let mut bytes = store.get(&key).unwrap();
        // In the first block, behind the header.
        bytes[100] ^= 1;
        store.put(&key, &bytes).unwrap();
    }
    assert_eq!(run(&pool, &REQUEST).unwrap_err().code(), "integrity");
}

#[test]
fn a_collection_stopped_at_any_operation_loses_nothing_and_the_next_completes_it() {
    let original = Arc::new(MemoryStore::new());
    let (gone, kept, content) = two_images(&images::pool(original.clone()).unwrap());
    images::open(original.clone()).unwrap().expire(&gone).unwrap();
    let mut stopped = 0;
    for count in 0.. {
        let store = Arc::new(FaultyStore::new(copy(&original)));
        let pool = images::open(store.clone()).unwrap();
        store.stop_after(count);
        let outcome = run(&pool, &REQUEST);
        store.mend();
        drop(pool);
        let pool = images::open(store.clone()).unwrap();
        assert_eq!(read_back(&pool, &kept).unwrap(), content, "stopped after {count}");
        every_listed_pack_is_there(&pool);
        gc(&pool);
        assert_eq!(read_back(&pool, &kept).unwrap(), content, "completed after {count}");
        nothing_is_left_over(&*store);
        index_and_packs_agree(&pool);
        assert!(gc(&pool).packs_deleted == 0);
        if outcome.is_ok() {
            break;
        }
        stopped += 1;
    }
    assert!(stopped > 10, "only {stopped} steps");
}

fn every_listed_pack_is_there(pool: &Pool) {
    for pack in pool.index().packs() {
        assert_eq!(pool.store().size(&pack.id.key()).unwrap(), Some(pack.size));
    }
}

fn copy(store: &MemoryStore) -> MemoryStore {
    let copy = MemoryStore::new();
    for prefix in ["packs/", "index/", "images/", "jobs/", "marks/"] {
        for (key, _) in crate::store::list_sorted(store, prefix).unwrap() {
            copy.put(&key, &store.get(&key).unwrap()).unwrap();
        }
    }
    copy.put("pool", &store.get("pool").unwrap()).unwrap();
    copy
}

#[test]
fn a_power_cut_at_any_disk_operation_of_a_collection_loses_nothing() {
    let disk = SimDisk::new();
    let pool = images::pool(Arc::new(PosixStore::on(disk.clone()))).unwrap();
    let (gone, kept, content) = two_images(&pool);
    pool.expire(&gone).unwrap();
    drop(pool);
    let mut cuts = 0;
    for count in 0.. {
        let disk = disk.copy();
        let pool = images::open(Arc::new(PosixStore::on(disk.clone()))).unwrap();
        disk.reset_operations();
        disk.power_off_after(count);
        let outcome = run(&pool, &REQUEST);
        drop(pool);
        disk.crash([Loss::AllUnsynced, Loss::UnsyncedBytes, Loss::Some(count as u64)][count % 3]);
        let store = Arc::new(PosixStore::on(disk.clone()));
        let pool = images::open(store.clone()).unwrap();
        every_listed_pack_is_there(&pool);
        assert_eq!(read_back(&pool, &kept).unwrap(), content, "cut after {count}");
        gc(&pool);
        assert_eq!(read_back(&pool, &kept).unwrap(), content, "completed after {count}");
        nothing_is_left_over(&*store);
        index_and_packs_agree(&pool);
        if outcome.is_ok() {
            break;
        }
        cuts += 1;
    }
    assert!(cuts > 30, "only {cuts} cuts");
}

#[test]
fn a_cancelled_collection_ends_promptly_and_the_next_completes_it() {
    let store = Arc::new(MemoryStore::new());
    let pool = images::pool(store.clone()).unwrap();
    let (gone, kept, content) = two_images(&pool);
    pool.expire(&gone).unwrap();
    let cancel = Cancel::new();
    cancel.cancel();
    let cancelled = collect(&pool, &REQUEST, &Counters::default(), &cancel);
    assert!(matches!(cancelled, Err(Error::Cancelled)));
    assert!(gc(&pool).packs_deleted > 0);
    assert_eq!(read_back(&pool, &kept).unwrap(), content);
}
