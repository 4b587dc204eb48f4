//! A backup that is stopped: promptly, with a sound pool, and nothing is sent twice afterwards.
#![allow(clippy::unwrap_used, clippy::panic)]

mod kit;

use std::sync::Arc;

use holdfast_engine_core::backup;
use holdfast_engine_core::cancel::Cancel;
use holdfast_engine_core::counters::Counters;
use holdfast_engine_core::finding::Findings;
use holdfast_engine_core::store::Store;
use holdfast_engine_core::store::faulty::{Fault, FaultyStore, Gate, Operation, Rule};
use holdfast_engine_core::store::memory::MemoryStore;
use kit::{Tree, assert_restored, back_up, stored_twice};

#[test]
fn a_backup_cancelled_at_any_change_of_the_store_commits_nothing_and_sends_nothing_twice() {
    let tree = Tree::new();
    let calls = {
        let store = Arc::new(FaultyStore::new(MemoryStore::new()));
        let pool = kit::create(store.clone());
        back_up(&pool, &tree).unwrap();
        store.calls()
    };
    for operation in [Operation::Put, Operation::Write, Operation::Finish] {
        let count = calls.iter().filter(|call| call.0 == operation).count() as u64;
        for skip in 0..count {
            let when = format!("at {operation:?} number {skip}");
            let store = Arc::new(FaultyStore::new(MemoryStore::new()));
            let pool = kit::create(store.clone());
            let (gate, cancel) = (Gate::new(), Cancel::new());
            store.add(Rule::new(Fault::Hold(gate.clone())).on(operation).after(skip).times(1));
            let outcome = std::thread::scope(|scope| {
                let running = scope.spawn(|| {
                    let (counters, findings) = (Counters::default(), Findings::default());
                    let outcome =
                        backup::run(&pool, &kit::request(&tree), &counters, &findings, &cancel);
                    gate.open();
                    outcome
                });
                assert!(gate.wait_until_reached(), "{when}");
                cancel.cancel();
                gate.open();
                running.join().unwrap()
            });
            assert_eq!(outcome.unwrap_err().code(), "cancelled", "{when}");
            assert!(pool.images().unwrap().is_empty(), "{when}");
            let again = back_up(&pool, &tree).unwrap();
            assert_restored(&pool, &again, &tree.state(), &when);
            assert_eq!(stored_twice(&pool), [], "{when}");
            let fresh = kit::open(store).unwrap();
            assert_restored(&fresh, &again, &tree.state(), &when);
        }
    }
}

#[test]
fn a_backup_cancelled_before_it_begins_writes_nothing_of_an_image() {
    let tree = Tree::new();
    let store = Arc::new(MemoryStore::new());
    let pool = kit::create(store.clone());
    let cancel = Cancel::new();
    cancel.cancel();
    let (counters, findings) = (Counters::default(), Findings::default());
    let outcome = backup::run(&pool, &kit::request(&tree), &counters, &findings, &cancel);
    assert_eq!(outcome.unwrap_err().code(), "cancelled");
    let mut keys = Vec::new();
    store
        .list("", &mut |key, _| {
            keys.push(key.to_owned());
            Ok(())
        })
        .unwrap();
    assert_eq!(keys, ["pool"]);
}
