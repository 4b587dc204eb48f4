//! What every store promises, asked of each in turn.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Barrier;
use std::thread;

use holdfast_engine_core::error::{Error, Result};
use holdfast_engine_core::store::faulty::FaultyStore;
use holdfast_engine_core::store::memory::MemoryStore;
use holdfast_engine_core::store::posix::PosixStore;
use holdfast_engine_core::store::simdisk::SimDisk;
use holdfast_engine_core::store::{Store, list_sorted};

/// A store to ask, and what has to stay alive for it.
struct Subject {
    store: Arc<dyn Store>,
    /// Another way in to the same objects, as a second process would have.
    other: Arc<dyn Store>,
    _keep: Option<tempfile::TempDir>,
}

fn memory() -> Subject {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    Subject { other: store.clone(), store, _keep: None }
}

fn posix() -> Subject {
    let folder = tempfile::tempdir().unwrap();
    let open = || Arc::new(PosixStore::open(folder.path()).unwrap());
    Subject { store: open(), other: open(), _keep: Some(folder) }
}

fn simulated() -> Subject {
    let disk = SimDisk::new();
    let open = || Arc::new(PosixStore::on(disk.clone()));
    Subject { store: open(), other: open(), _keep: None }
}

/// The faulty store without a rule.
fn faultless() -> Subject {
    let store: Arc<dyn Store> = Arc::new(FaultyStore::new(MemoryStore::new()));
    Subject { other: store.clone(), store, _keep: None }
}

fn collect(store: &dyn Store, prefix: &str) -> BTreeMap<String, u64> {
    let list = list_sorted(store, prefix).unwrap();
    let (count, map) = (list.len(), BTreeMap::from_iter(list));
    assert_eq!(map.len(), count, "a key was listed twice");
    map
}

fn missing<T: std::fmt::Debug>(result: Result<T>) {
    match result {
        Err(Error::ObjectMissing { .. }) => {}
        other => panic!("expected ObjectMissing, got {other:?}"),
    }
}

fn damaged<T: std::fmt::Debug>(result: Result<T>) {
    match result {
        Err(Error::Integrity { .. }) => {}
        other => panic!("expected Integrity, got {other:?}"),
    }
}

fn invalid<T: std::fmt::Debug>(result: Result<T>) {
    match result {
        Err(Error::Invalid(_)) => {}
        other => panic!("expected Invalid, got {other:?}"),
    }
}

/// Bytes that differ from place to place.
fn bytes(length: usize, seed: u8) -> Vec<u8> {
    let mut data = vec![0; length];
    blake3::Hasher::new_keyed(&[seed; 32]).finalize_xof().fill(&mut data);
    data
}

mod suite {
    use super::*;

    pub fn what_was_put_is_read_back_whole(subject: &Subject) {
        let Subject { store, other, .. } = subject;
        for (key, length) in [("pool", 0), ("a/b", 1), ("packs/ab/abcd", 300_000)] {
            let data = bytes(length, 1);
            store.put(key, &data).unwrap();
            for reader in [store, other] {
                assert_eq!(reader.get(key).unwrap(), data);
                assert_eq!(reader.size(key).unwrap(), Some(length as u64));
            }
        }
    }

    pub fn a_second_put_replaces_the_first(subject: &Subject) {
        let store = &subject.store;
        store.put("keys/a", b"a longer first version").unwrap();
        store.put("keys/a", b"second").unwrap();
        assert_eq!(store.get("keys/a").unwrap(), b"second");
        assert_eq!(collect(&**store, "keys/"), BTreeMap::from([("keys/a".into(), 6)]));
    }

    pub fn what_is_not_there_is_missing_in_every_way(subject: &Subject) {
        let store = &subject.store;
        store.put("images/aa/bb", b"x").unwrap();
        for key in ["images/none", "none/none/none", "images/aa", "images/aa/bb/cc"] {
            missing(store.get(key));
            missing(store.get_range(key, 0, 1));
            missing(store.get_range(key, 0, 0));
            assert_eq!(store.size(key).unwrap(), None, "{key}");
            store.delete(key).unwrap();
        }
        assert_eq!(store.get("images/aa/bb").unwrap(), b"x");
    }

    pub fn a_range_is_exact_or_an_integrity_error(subject: &Subject) {
        let store = &subject.store;
        let data = bytes(10_000, 2);
        store.put("packs/x", &data).unwrap();
        for (offset, length) in [(0, 10_000), (0, 0), (9_999, 1), (10_000, 0), (4_000, 5_000)] {
            let want = &data[offset..offset + length];
            assert_eq!(store.get_range("packs/x", offset as u64, length).unwrap(), want);
        }
        for (offset, length) in [(0, 10_001), (9_999, 2), (10_000, 1), (20_000, 1)] {
            damaged(store.get_range("packs/x", offset, length));
        }
        for offset in [u64::MAX, u64::MAX - 1, i64::MAX as u64] {
            assert!(store.get_range("packs/x", offset, 5).is_err());
        }
        assert!(store.get_range("packs/x", 0, usize::MAX).is_err());
    }

    pub fn put_if_absent_keeps_the_first(subject: &Subject) {
        let store = &subject.store;
        assert!(store.put_if_absent("jobs/1", b"first").unwrap());
        assert!(!store.put_if_absent("jobs/1", b"second").unwrap());
        assert!(!subject.other.put_if_absent("jobs/1", b"third").unwrap());
        assert_eq!(store.get("jobs/1").unwrap(), b"first");
        store.delete("jobs/1").unwrap();
        assert!(store.put_if_absent("jobs/1", b"fourth").unwrap());
        assert_eq!(store.get("jobs/1").unwrap(), b"fourth");
    }

    pub fn exactly_one_of_many_racing_writers_wins(subject: &Subject) {
        const WRITERS: usize = 8;
        for round in 0..20 {
            let key = format!("images/{round}");
            let start = Barrier::new(WRITERS);
            let race = |writer: usize| {
                let store = [&subject.store, &subject.other][writer % 2];
                start.wait();
                store.put_if_absent(&key, &[writer as u8; 1000]).unwrap()
            };
            let winners: Vec<usize> = thread::scope(|scope| {
                let race = &race;
                let threads: Vec<_> =
                    (0..WRITERS).map(|writer| scope.spawn(move || race(writer))).collect();
                let won = threads.into_iter().map(|thread| thread.join().unwrap());
                won.enumerate().filter_map(|(writer, won)| won.then_some(writer)).collect()
            });
            assert_eq!(winners.len(), 1, "winners of round {round}: {winners:?}");
            assert_eq!(subject.store.get(&key).unwrap(), vec![winners[0] as u8; 1000]);
        }
        assert_eq!(collect(&*subject.store, "images/").len(), 20);
    }

    pub fn readers_of_a_replaced_object_see_one_version_or_the_other(subject: &Subject) {
        let versions: Vec<Vec<u8>> = (0..4).map(|seed| bytes(50_000, seed)).collect();
        subject.store.put("marks/m", &versions[0]).unwrap();
        thread::scope(|scope| {
            let writer = scope.spawn(|| {
                for round in 0..40 {
                    subject.store.put("marks/m", &versions[round % 4]).unwrap();
                }
            });
            while !writer.is_finished() {
                assert!(versions.contains(&subject.other.get("marks/m").unwrap()));
            }
        });
    }

    pub fn a_list_names_what_is_there_and_its_size(subject: &Subject) {
        let store = &subject.store;
        assert_eq!(collect(&**store, "packs/"), BTreeMap::new());
        let mut want = BTreeMap::new();
        for at in 0..300_usize {
            let key = format!("packs/{:02x}/{at:08}", at % 7);
            store.put(&key, &vec![1; at]).unwrap();
            want.insert(key, at as u64);
        }
        store.put("packs-other/x", b"beside").unwrap();
        store.put("pool", b"header").unwrap();
        assert_eq!(collect(&**store, "packs/"), want);
        assert_eq!(collect(&*subject.other, "packs/"), want);
        let part = want.iter().filter(|(key, _)| key.starts_with("packs/03/"));
        let part = part.map(|(key, size)| (key.clone(), *size)).collect();
        assert_eq!(collect(&**store, "packs/03/"), part);
        want.insert("packs-other/x".into(), 6);
        want.insert("pool".into(), 6);
        assert_eq!(collect(&**store, ""), want);
    }

    pub fn a_visitor_may_use_the_store_and_may_stop_the_list(subject: &Subject) {
        let store = &subject.store;
        for at in 0..50 {
            store.put(&format!("jobs/{at}"), b"x").unwrap();
        }
        let mut seen = 0;
        store
            .list("jobs/", &mut |key, _| {
                seen += 1;
                assert_eq!(store.get(key)?, b"x");
                store.delete(key)
            })
            .unwrap();
        assert_eq!(seen, 50);
        assert_eq!(collect(&**store, "jobs/"), BTreeMap::new());

        store.put("jobs/a", b"x").unwrap();
        store.put("jobs/b", b"x").unwrap();
        let mut seen = 0;
        let stopped = store.list("jobs/", &mut |_, _| {
            seen += 1;
            Err(Error::Cancelled)
        });
        assert!(matches!(stopped, Err(Error::Cancelled)));
        assert_eq!(seen, 1);
    }

    pub fn what_was_deleted_is_gone_and_can_come_back(subject: &Subject) {
        let store = &subject.store;
        store.put("index/a", b"one").unwrap();
        store.put("index/b", b"two").unwrap();
        store.delete("index/a").unwrap();
        store.delete("index/a").unwrap();
        missing(subject.other.get("index/a"));
        assert_eq!(collect(&**store, "index/"), BTreeMap::from([("index/b".into(), 3)]));
        store.put("index/a", b"again").unwrap();
        assert_eq!(subject.other.get("index/a").unwrap(), b"again");
    }

    pub fn an_upload_appears_whole_at_its_end_and_not_before(subject: &Subject) {
        let Subject { store, other, .. } = subject;
        let data = bytes(20_000_000, 3);
        let mut upload = store.upload().unwrap();
        for part in data.chunks(1_500_000) {
            upload.write(part).unwrap();
            assert_eq!(collect(&**other, ""), BTreeMap::new());
        }
        upload.finish("packs/up/load").unwrap();
        assert_eq!(collect(&**other, ""), BTreeMap::from([("packs/up/load".into(), 20_000_000)]));
        assert!(other.get("packs/up/load").unwrap() == data);

        let empty = store.upload().unwrap();
        empty.finish("packs/empty").unwrap();
        assert_eq!(other.get("packs/empty").unwrap(), b"");
    }

    pub fn an_upload_that_is_dropped_leaves_nothing(subject: &Subject) {
        let mut upload = subject.store.upload().unwrap();
        upload.write(&[7; 100_000]).unwrap();
        drop(upload);
        assert_eq!(collect(&*subject.other, ""), BTreeMap::new());
    }

    pub fn the_same_upload_twice_is_fine(subject: &Subject) {
        let Subject { store, other, .. } = subject;
        let mut uploads = Vec::new();
        for store in [store, store, other] {
            let mut upload = store.upload().unwrap();
            upload.write(b"same bytes").unwrap();
            uploads.push(upload);
        }
        for upload in uploads {
            upload.finish("packs/ab/same").unwrap();
        }
        assert_eq!(store.get("packs/ab/same").unwrap(), b"same bytes");
        assert_eq!(collect(&**store, "").len(), 1);
    }

    pub fn many_threads_may_put_read_list_and_delete_at_once(subject: &Subject) {
        thread::scope(|scope| {
            for writer in 0..6_u8 {
                scope.spawn(move || {
                    let store = [&subject.store, &subject.other][usize::from(writer) % 2];
                    for at in 0..20_u8 {
                        let key = format!("packs/{:02x}/{writer}-{at}", at % 5);
                        store.put(&key, &[writer, at]).unwrap();
                        assert_eq!(store.get(&key).unwrap(), [writer, at]);
                        assert!(collect(&**store, "packs/").contains_key(&key));
                        if at % 2 == 0 {
                            store.delete(&key).unwrap();
                        }
                    }
                });
            }
        });
        assert_eq!(collect(&*subject.store, "packs/").len(), 60);
    }

    pub fn keys_that_are_no_keys_are_refused_everywhere(subject: &Subject) {
        let store = &subject.store;
        for key in ["", "/etc/passwd", "../up", "a/../b", "a//b", "a/", ".", "a/.hidden", "tmp/x"] {
            invalid(store.get(key));
            invalid(store.get_range(key, 0, 1));
            invalid(store.put(key, b"x"));
            invalid(store.put_if_absent(key, b"x"));
            invalid(store.size(key));
            invalid(store.delete(key));
            invalid(store.upload().unwrap().finish(key));
            assert_eq!(store.local_path(key), None);
        }
        for prefix in ["packs", "/", "../", "a/../", "tmp/"] {
            invalid(store.list(prefix, &mut |_, _| Ok(())));
        }
        assert_eq!(collect(&**store, ""), BTreeMap::new());
    }

    pub fn a_local_path_holds_the_bytes_if_there_is_one(subject: &Subject) {
        subject.store.put("index/seg", b"mapped").unwrap();
        if let Some(path) = subject.store.local_path("index/seg") {
            assert_eq!(std::fs::read(path).unwrap(), b"mapped");
        }
    }
}

macro_rules! contract {
    ($($store:ident: $test:tt),+ $(,)?) => { $(contract!(@ $store $test);)+ };
    (@ $store:ident [$($test:ident)+]) => {
        mod $store {
            $(#[test]
            fn $test() {
                super::suite::$test(&super::$store());
            })+
        }
    };
}

macro_rules! on_every {
    ($($store:ident)+) => {
        contract! { $($store: [
            what_was_put_is_read_back_whole
            a_second_put_replaces_the_first
            what_is_not_there_is_missing_in_every_way
            a_range_is_exact_or_an_integrity_error
            put_if_absent_keeps_the_first
            exactly_one_of_many_racing_writers_wins
            readers_of_a_replaced_object_see_one_version_or_the_other
            a_list_names_what_is_there_and_its_size
            a_visitor_may_use_the_store_and_may_stop_the_list
            what_was_deleted_is_gone_and_can_come_back
            an_upload_appears_whole_at_its_end_and_not_before
            an_upload_that_is_dropped_leaves_nothing
            the_same_upload_twice_is_fine
            many_threads_may_put_read_list_and_delete_at_once
            keys_that_are_no_keys_are_refused_everywhere
            a_local_path_holds_the_bytes_if_there_is_one
        ]),+ }
    };
}

on_every! { memory posix simulated faultless }
