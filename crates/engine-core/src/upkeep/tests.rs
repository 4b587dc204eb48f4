#![allow(clippy::unwrap_used)]

use std::collections::HashSet;
use std::sync::Arc;

use super::merge::{merge_all, tidy};
use super::orphans::{recover, recover_from_dead_jobs};
use super::rebuild::{Rebuilt, rebuild};
use crate::cancel::Cancel;
use crate::counters::Counters;
use crate::error::{Error, Result};
use crate::finding::Findings;
use crate::index::merge::MOST_SEGMENTS;
use crate::pool::Pool;
use crate::pool::jobs::{Job, JobKind};
use crate::pool::marks::{self, Mark, Marked};
use crate::pool::process::Process;
use crate::store::Store;
use crate::store::faulty::FaultyStore;
use crate::store::memory::MemoryStore;
use crate::testing::images::{self, back_up, files, packs, read_back};

fn new_pool() -> (Arc<MemoryStore>, Pool) {
    let store = Arc::new(MemoryStore::new());
    let pool = images::pool(store.clone()).unwrap();
    (store, pool)
}

fn rebuild_now(pool: &Pool, findings: &Findings) -> Result<Rebuilt> {
    rebuild(pool, 0, 60, &Counters::default(), findings, &Cancel::new())
}

fn segments(store: &dyn Store) -> Vec<String> {
    crate::store::list_sorted(store, "index/").unwrap().into_iter().map(|(key, _)| key).collect()
}

fn job(pool: &Pool) -> Job {
    Job::begin(pool.shared_store(), pool.keys(), JobKind::Backup, 0).unwrap()
}

#[test]
fn an_index_that_is_lost_is_rebuilt_and_answers_as_before() {
    let (store, pool) = new_pool();
    let content = files("a", 3, 10, 5000);
    let image = back_up(&pool, 1, &content).unwrap();
    let chunks = pool.index().snapshot().len();
    for key in segments(&*store) {
        store.delete(&key).unwrap();
    }
    let pool = images::open(store.clone()).unwrap();
    assert!(read_back(&pool, &image).is_err());
    let rebuilt = rebuild_now(&pool, &Findings::default()).unwrap();
    assert_eq!((rebuilt.chunks, rebuilt.segments, rebuilt.unreadable), (chunks, 1, 0));
    assert_eq!(rebuilt.packs as usize, packs(&*store).len());
    assert_eq!(read_back(&pool, &image).unwrap(), content);
    assert!(!marks::read(&*store, pool.keys()).unwrap().any);
}

#[test]
fn a_damaged_index_stops_a_backup_in_words_and_a_rebuild_mends_it() {
    let (store, pool) = new_pool();
    let content = files("a", 3, 10, 5000);
    let image = back_up(&pool, 1, &content).unwrap();
    let key = segments(&*store).remove(0);
    let mut bytes = store.get(&key).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    store.put(&key, &bytes).unwrap();
    let pool = images::open(store.clone()).unwrap();
    let told = pool.index().refresh().err().unwrap();
    assert!(told.to_string().contains(&key), "{told}");
    rebuild_now(&pool, &Findings::default()).unwrap();
    assert_eq!(read_back(&pool, &image).unwrap(), content);
    assert!(!segments(&*store).contains(&key));
}

#[test]
fn a_pack_whose_footer_is_damaged_is_named_and_the_rest_is_indexed() {
    let (store, pool) = new_pool();
    back_up(&pool, 1, &files("a", 3, 10, 5000)).unwrap();
    let all = packs(&*store);
    let mut bytes = store.get(&all[0]).unwrap();
    let footer = bytes.len() - 40;
    bytes[footer] ^= 1;
    store.put(&all[0], &bytes).unwrap();
    let findings = Findings::default();
    let rebuilt = rebuild_now(&pool, &findings).unwrap();
    assert_eq!((rebuilt.packs as usize, rebuilt.unreadable), (all.len() - 1, 1));
    assert_eq!(findings.kept()[0].path, all[0].as_bytes());
}

#[test]
fn a_rebuild_stopped_at_any_operation_leaves_every_image_readable() {
    let content = files("a", 3, 10, 5000);
    for count in 0.. {
        let store = Arc::new(FaultyStore::new(MemoryStore::new()));
        let pool = images::pool(store.clone()).unwrap();
        let image = back_up(&pool, 1, &content).unwrap();
        store.stop_after(count);
        let outcome = rebuild_now(&pool, &Findings::default());
        store.mend();
        drop(pool);
        let pool = images::open(store).unwrap();
        assert_eq!(read_back(&pool, &image).unwrap(), content, "stopped after {count}");
        rebuild_now(&pool, &Findings::default()).unwrap();
        assert_eq!(read_back(&pool, &image).unwrap(), content);
        if outcome.is_ok() {
            return;
        }
    }
}

#[test]
fn a_collector_at_work_keeps_rebuild_and_merge_away() {
    let (store, pool) = new_pool();
    back_up(&pool, 1, &files("a", 1, 1, 5000)).unwrap();
    let other = Job::begin(store.clone(), pool.keys(), JobKind::Collect, 0).unwrap();
    let mark = Mark { number: 1, collector: other.id(), packs: Vec::new(), blocking: None };
    mark.claim(&*store, pool.keys()).unwrap();
    let busy = rebuild_now(&pool, &Findings::default());
    assert!(matches!(busy, Err(Error::Busy { .. })));
    assert!(matches!(merge_all(&pool, 0, &Cancel::new()), Err(Error::Busy { .. })));
    drop(other);
    rebuild_now(&pool, &Findings::default()).unwrap();
    merge_all(&pool, 0, &Cancel::new()).unwrap();
}

#[test]
fn segments_stay_few_over_many_jobs_and_a_job_that_saw_a_mark_merges_nothing() {
    let (store, pool) = new_pool();
    let mut all = Vec::new();
    for number in 0..30 {
        let content = files(&format!("{number}"), 1, 1, 3000);
        all.push((back_up(&pool, number, &content).unwrap(), content));
        let before = segments(&*store);
        let any = Marked { any: true, ..Marked::default() };
        assert!(!tidy(&pool, &job(&pool), &any, &Cancel::new()).unwrap());
        assert_eq!(segments(&*store), before);
        tidy(&pool, &job(&pool), &Marked::default(), &Cancel::new()).unwrap();
        assert!(segments(&*store).len() <= MOST_SEGMENTS);
    }
    merge_all(&pool, 0, &Cancel::new()).unwrap();
    assert_eq!(segments(&*store).len(), 1);
    for (image, content) in all {
        assert_eq!(read_back(&pool, &image).unwrap(), content);
    }
}

#[test]
fn a_merge_of_a_job_declared_dead_is_withdrawn() {
    let (store, pool) = new_pool();
    for number in 0..8 {
        back_up(&pool, number, &files(&format!("{number}"), 1, 1, 3000)).unwrap();
    }
    let before = segments(&*store);
    let job = job(&pool);
    store.delete(&crate::pool::jobs::key(&job.id())).unwrap();
    let fenced = tidy(&pool, &job, &Marked::default(), &Cancel::new());
    assert!(matches!(fenced, Err(Error::Fenced { .. })));
    assert_eq!(segments(&*store), before);
}

#[test]
fn what_a_killed_backup_stored_is_found_by_the_next_one() {
    let (store, pool) = new_pool();
    let content = files("a", 3, 10, 5000);
    images::store(&pool, 1, &content, HashSet::new()).unwrap();
    for key in segments(&*store) {
        store.delete(&key).unwrap();
    }
    // Its process is gone, its record stayed.
    let mut gone = Process::current();
    gone.started += 1;
    crate::pool::jobs::tests::put_record(&*store, pool.keys(), gone, 0);
    let before = packs(&*store);

    let pool = images::open(store.clone()).unwrap();
    let next = job(&pool);
    let seen = marks::read(&*store, pool.keys()).unwrap();
    let recover_now =
        || recover_from_dead_jobs(&pool, &next, &seen, 0, 60, &Cancel::new()).unwrap();
    assert_eq!(recover_now() as usize, before.len());
    assert_eq!(recover_now(), 0, "the dead job is buried");
    let image = back_up(&pool, 2, &content).unwrap();
    assert_eq!(packs(&*store), before, "nothing was stored twice");
    assert_eq!(read_back(&pool, &image).unwrap(), content);
    assert_eq!(recover(&pool, &next, &Cancel::new()).unwrap(), 0);
}
