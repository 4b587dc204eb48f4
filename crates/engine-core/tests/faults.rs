//! Stores that fail, lie, or rot: every fault is told, and nothing wrong is taken for right.
#![allow(clippy::unwrap_used, clippy::panic)]

mod kit;

use std::sync::Arc;

use holdfast_engine_core::error::{Error, Result};
use holdfast_engine_core::finding::Finding;
use holdfast_engine_core::manifest::Manifest;
use holdfast_engine_core::pool::Pool;
use holdfast_engine_core::store::faulty::{Fault, FaultyStore, Gate, Operation, Rule};
use holdfast_engine_core::store::memory::MemoryStore;
use holdfast_engine_core::store::posix::PosixStore;
use holdfast_engine_core::store::simdisk::SimDisk;
use holdfast_engine_core::store::{Store, list_sorted};
use kit::{Restored, State, Tree, back_up, read_image, stored_twice};

type Faulty = Arc<FaultyStore<Arc<MemoryStore>>>;

fn copy(store: &dyn Store) -> Arc<MemoryStore> {
    let copy = MemoryStore::new();
    for (key, _) in list_sorted(store, "").unwrap() {
        copy.put(&key, &store.get(&key).unwrap()).unwrap();
    }
    Arc::new(copy)
}

fn faulty(store: &dyn Store) -> Faulty {
    Arc::new(FaultyStore::new(copy(store)))
}

/// A pool with one image of the tree.
struct Stored {
    tree: Tree,
    store: Arc<MemoryStore>,
    image: Manifest,
    state: State,
}

fn stored(tree: Tree) -> Stored {
    let store = Arc::new(MemoryStore::new());
    let image = back_up(&kit::create(store.clone()), &tree).unwrap();
    Stored { state: tree.state(), tree, store, image }
}

/// Opens the pool and reads the image.
fn read_all(store: Arc<dyn Store>, image: &Manifest) -> Result<State> {
    let pool = kit::open(store)?;
    let image = pool.image(&image.id)?;
    read_image(&pool, &image)
}

/// An error that a person can act on: not a broken promise of the program itself.
fn assert_told(error: &Error, codes: &[&str], when: &str) {
    assert!(codes.contains(&error.code()), "{error} ({}) {when}", error.code());
}

/// Every object of the store, each with one bit flipped in one byte after the other; told are
/// the key and the place.
fn with_each_byte_damaged(store: &MemoryStore, mut look: impl FnMut(&str, &str)) {
    for (key, size) in kit::objects(store) {
        let whole = store.get(&key).unwrap();
        for at in 0..usize::try_from(size).unwrap() {
            let mut bad = whole.clone();
            bad[at] ^= 1 << (at % 8);
            store.put(&key, &bad).unwrap();
            look(&key, &format!("with byte {at} of {key} damaged"));
        }
        store.put(&key, &whole).unwrap();
    }
}

/// Codes that a damaged object may have.
const DAMAGE: [&str; 4] = ["integrity", "not-a-pool", "newer-format", "wrong-key"];

#[test]
fn a_flipped_bit_at_any_byte_is_noticed_when_everything_is_read() {
    let Stored { store, image, state, tree: _tree } = stored(Tree::new());
    with_each_byte_damaged(&store, |key, when| match read_all(store.clone(), &image) {
        Ok(_) => panic!("nothing was told {when}"),
        Err(error) => {
            assert_told(&error, &DAMAGE, when);
            assert!(error.to_string().contains(key), "{error} does not name {key}");
        }
    });
    assert_eq!(read_all(store, &image).unwrap(), state);
}

/// What came back is right, and what did not is named by a finding.
fn assert_honest(restored: &Restored, image: &Manifest, state: &State, when: &str) {
    for (path, node) in state {
        let absolute = [&image.source.paths[0], &b"/"[..], path].concat();
        let names = |finding: &Finding| absolute.starts_with(&finding.path);
        match restored.state.get(path) {
            Some(there) => assert_eq!(there.data, node.data, "{when}"),
            None => assert!(
                restored.findings.iter().any(names),
                "{when}: {} is missing and not named: {:?}",
                path.escape_ascii(),
                restored.findings
            ),
        }
    }
    for path in restored.state.keys() {
        assert!(state.contains_key(path), "{when}: {} came up", path.escape_ascii());
    }
}

#[test]
fn a_flipped_bit_at_any_byte_is_named_by_a_check() {
    let Stored { store, image: _image, state: _state, tree: _tree } = stored(Tree::new());
    with_each_byte_damaged(&store, |key, when| {
        match kit::open(store.clone()).and_then(|pool| kit::check(&pool)) {
            Ok(findings) => assert!(
                findings.iter().any(|one| one.path == key.as_bytes() || one.message.contains(key)),
                "{when} a check finds {findings:?}"
            ),
            Err(error) => {
                assert_told(&error, &DAMAGE, when);
                assert!(error.to_string().contains(key), "{error} does not name {key}");
            }
        }
    });
    assert_eq!(kit::check(&kit::open(store).unwrap()).unwrap(), []);
}

#[test]
fn a_check_over_a_bad_line_says_so_or_finds_nothing() {
    let Stored { store, image: _image, state: _state, tree: _tree } = stored(Tree::tiny());
    for fault in [Fault::Io, Fault::Short(1), Fault::Flip { offset: 60, bit: 2 }] {
        at_every_call(
            &*store,
            &fault,
            |operation| !operation.changes(),
            |store| kit::check(&kit::open(store.clone())?),
            |store, outcome, when| {
                if let Err(error) = outcome {
                    assert_told(&error, &[&DAMAGE[..], &["io"]].concat(), when);
                }
                let again = kit::check(&kit::open(store.clone()).unwrap()).unwrap();
                assert_eq!(again, [], "{when}");
            },
        );
    }
}

#[test]
fn with_a_flipped_bit_at_any_byte_a_restore_brings_back_what_is_right_and_names_the_rest() {
    let Stored { store, image, state, tree: _tree } = stored(Tree::tiny());
    with_each_byte_damaged(&store, |key, when| {
        let outcome = kit::open(store.clone()).and_then(|pool| kit::restore(&pool, &image));
        let restored = match outcome {
            Ok(restored) => restored,
            Err(error) => return assert_told(&error, &DAMAGE, when),
        };
        assert!(!restored.findings.is_empty(), "nothing was told {when}");
        assert!(restored.findings.iter().all(|told| told.message.contains(key)), "{when}");
        assert_honest(&restored, &image, &state, when);
    });
}

#[test]
fn a_disk_that_fills_up_at_any_operation_of_a_backup_is_named_and_harms_no_image() {
    let tree = Tree::new();
    let base = SimDisk::new();
    let first = back_up(&kit::create(Arc::new(PosixStore::on(base.clone()))), &tree).unwrap();
    let state = tree.state();
    tree.change(1);
    for after in 0.. {
        let disk = base.copy();
        let pool = kit::open(Arc::new(PosixStore::on(disk.clone()))).unwrap();
        disk.reset_operations();
        disk.full_after(Some(after));
        let outcome = back_up(&pool, &tree);
        let when = format!("on a disk full after {after} operations");
        match &outcome {
            Ok(_) => {}
            Err(error) => assert_told(error, &["no-space"], &when),
        }
        // The pool is usable as it is, and after room was made.
        assert_eq!(read_image(&pool, &first).unwrap(), state, "{when}");
        disk.full_after(None);
        let second = back_up(&pool, &tree).unwrap_or_else(|error| panic!("{error} {when}"));
        assert_eq!(read_image(&pool, &second).unwrap(), tree.state(), "{when}");
        assert_eq!(stored_twice(&pool), [], "sent twice {when}");
        let pool = kit::open(Arc::new(PosixStore::on(disk))).unwrap();
        assert_eq!(read_image(&pool, &first).unwrap(), state, "{when}");
        if outcome.is_ok() {
            assert!(after > 10, "only {after} operations");
            break;
        }
    }
}

/// Runs `verb` on a copy of the store again and again, with the fault at the first call that it
/// makes, at the second, and so on; `look` judges the outcome.
fn at_every_call<T>(
    store: &dyn Store,
    fault: &Fault,
    concerns: impl Fn(Operation) -> bool,
    verb: impl Fn(&Faulty) -> Result<T>,
    look: impl Fn(&Faulty, Result<T>, &str),
) {
    let sound = faulty(store);
    verb(&sound).unwrap_or_else(|error| panic!("{error} without a fault"));
    let calls = sound.calls();
    assert!(calls.len() > 5, "only {} calls", calls.len());
    for operation in calls.iter().map(|call| call.0).collect::<std::collections::BTreeSet<_>>() {
        let count = calls.iter().filter(|call| call.0 == operation).count();
        for skip in (0..count as u64).filter(|_| concerns(operation)) {
            let store = faulty(store);
            store.add(Rule::new(fault.clone()).on(operation).after(skip).times(1));
            let outcome = verb(&store);
            store.mend();
            look(&store, outcome, &format!("with {fault:?} at {operation:?} number {skip}"));
        }
    }
}

#[test]
fn an_error_at_any_call_of_a_restore_is_told_and_is_not_remembered() {
    let Stored { store, image, state, tree: _tree } = stored(Tree::new());
    for fault in [Fault::Io, Fault::AnswerLost] {
        at_every_call(
            &*store,
            &fault,
            |_| true,
            |store| {
                let pool = kit::open(store.clone())?;
                let first = read_image(&pool, &image);
                // What failed once is asked for anew.
                store.mend();
                assert_eq!(read_image(&pool, &pool.image(&image.id)?)?, state);
                first
            },
            |_, outcome, when| match outcome {
                Ok(read) => assert_eq!(read, state, "{when}"),
                Err(error) => assert_told(&error, &["io"], when),
            },
        );
    }
}

#[test]
fn bytes_that_are_cut_or_changed_on_their_way_are_never_taken_for_right() {
    let Stored { store, image, state, tree: _tree } = stored(Tree::new());
    let flips = [0, 7, 50, 300].map(|offset| Fault::Flip { offset, bit: 5 });
    let cuts = [0, 1, 16, 200].map(Fault::Short);
    for fault in flips.into_iter().chain(cuts) {
        at_every_call(
            &*store,
            &fault,
            |operation| matches!(operation, Operation::Get | Operation::GetRange),
            |store| {
                let pool = kit::open(store.clone())?;
                let first = read_image(&pool, &pool.image(&image.id)?);
                store.mend();
                let again = read_image(&pool, &pool.image(&image.id)?)?;
                assert_eq!(again, state, "a wrong answer was remembered");
                first
            },
            |_, outcome, when| match outcome {
                Ok(read) => assert_eq!(read, state, "{when}"),
                Err(error) => assert_told(&error, &DAMAGE, when),
            },
        );
    }
}

#[test]
fn a_restore_over_a_bad_line_brings_back_what_is_right_and_names_the_rest() {
    let Stored { store, image, state, tree: _tree } = stored(Tree::new());
    let flips = [0, 50, 300].map(|offset| Fault::Flip { offset, bit: 5 });
    let cuts = [0, 1, 200].map(Fault::Short);
    for fault in flips.into_iter().chain(cuts).chain([Fault::Io]) {
        at_every_call(
            &*store,
            &fault,
            |operation| !operation.changes(),
            |store| kit::restore(&kit::open(store.clone())?, &image),
            |_, outcome, when| match outcome {
                Ok(restored) if restored.findings.is_empty() => {
                    assert!(restored.state == state, "{when}");
                }
                Ok(restored) => assert_honest(&restored, &image, &state, when),
                Err(error) => assert_told(&error, &[&DAMAGE[..], &["io"]].concat(), when),
            },
        );
    }
}

#[test]
fn a_failure_at_any_call_of_a_backup_is_told_and_the_next_backup_succeeds() {
    let Stored { tree, store, image, state } = stored(Tree::new());
    tree.change(1);
    let now = tree.state();
    for (fault, codes) in [
        (Fault::Io, &["io"][..]),
        (Fault::NoSpace, &["no-space"]),
        (Fault::AnswerLost, &["io", "fenced", "object-exists"]),
    ] {
        at_every_call(
            &*store,
            &fault,
            |_| true,
            |store| {
                let pool = kit::open(store.clone())?;
                let first = back_up(&pool, &tree);
                store.mend();
                // The same open pool goes on.
                let again = back_up(&pool, &tree)?;
                assert_eq!(read_image(&pool, &again)?, now);
                first
            },
            |store, outcome, when| {
                if let Err(error) = &outcome {
                    assert_told(error, codes, when);
                }
                let pool = kit::open(store.clone()).unwrap();
                assert_eq!(read_image(&pool, &image).unwrap(), state, "{when}");
                assert_eq!(stored_twice(&pool), [], "sent twice {when}");
                for later in pool.images().unwrap().iter().filter(|seen| seen.id != image.id) {
                    assert_eq!(read_image(&pool, later).unwrap(), now, "{when}");
                }
            },
        );
    }
}

#[test]
fn bytes_that_a_store_writes_wrongly_are_noticed_when_they_are_read() {
    let tree = Tree::new();
    let empty = Arc::new(MemoryStore::new());
    kit::create(empty.clone());
    let state = tree.state();
    for fault in [Fault::Flip { offset: 100, bit: 1 }, Fault::Short(100), Fault::Short(0)] {
        at_every_call(
            &*empty,
            &fault,
            Operation::changes,
            |store| {
                let pool = kit::open(store.clone())?;
                back_up(&pool, &tree)
            },
            |store, outcome, when| {
                let Ok(image) = outcome else { return };
                match read_all(store.clone(), &image) {
                    Ok(read) => assert_eq!(read, state, "{when}"),
                    Err(error) => assert_told(&error, &["integrity"], when),
                }
            },
        );
    }
}

#[test]
fn a_store_that_stops_at_any_change_of_a_backup_leaves_a_pool_that_goes_on() {
    let Stored { tree, store, image, state } = stored(Tree::new());
    tree.change(1);
    for after in 0.. {
        let stopping = faulty(&*store);
        let pool = kit::open(stopping.clone()).unwrap();
        stopping.stop_after(after);
        let outcome = back_up(&pool, &tree);
        drop(pool);
        stopping.mend();
        let pool = kit::open(stopping.clone()).unwrap();
        let when = format!("after a stop at change {after}");
        assert_eq!(read_image(&pool, &image).unwrap(), state, "{when}");
        let again = back_up(&pool, &tree).unwrap_or_else(|error| panic!("{error} {when}"));
        assert_eq!(read_image(&pool, &again).unwrap(), tree.state(), "{when}");
        assert_eq!(stored_twice(&pool), [], "sent twice {when}");
        if outcome.is_ok() {
            break;
        }
    }
}

#[test]
fn an_image_is_not_seen_before_all_its_packs_are_stored_however_slow_the_store() {
    let Stored { tree, store, image, .. } = stored(Tree::new());
    tree.change(1);
    let slow = faulty(&*store);
    let pool = kit::open(slow.clone()).unwrap();
    let gate = Gate::new();
    slow.add(Rule::new(Fault::Hold(gate.clone())).on(Operation::Finish).under("packs/"));
    std::thread::scope(|scope| {
        let running = scope.spawn(|| {
            let image = back_up(&pool, &tree);
            gate.open();
            image
        });
        assert!(gate.wait_until_reached(), "the backup stored nothing");
        let seen = kit::open(slow.inner().clone()).unwrap().images().unwrap();
        assert_eq!(seen, [image]);
        gate.open();
        let new = running.join().unwrap().unwrap();
        assert_eq!(read_image(&pool, &new).unwrap(), tree.state());
    });
}

#[test]
fn reading_goes_on_with_the_same_pool_after_a_damaged_pack_was_put_right() {
    let Stored { store, image, state, tree: _tree } = stored(Tree::new());
    let pool: Pool = kit::open(store.clone()).unwrap();
    for (key, _) in list_sorted(&*store, "packs/").unwrap() {
        let whole = store.get(&key).unwrap();
        store.put(&key, &whole[..whole.len() / 2]).unwrap();
        pool.forget();
        let error = read_image(&pool, &image).unwrap_err();
        assert_told(&error, &["integrity"], &key);
        assert!(error.to_string().contains(&key), "{error} does not name {key}");
        store.delete(&key).unwrap();
        pool.forget();
        let error = read_image(&pool, &image).unwrap_err();
        assert_told(&error, &["object-missing", "chunk-missing"], &key);
        store.put(&key, &whole).unwrap();
        pool.forget();
        assert_eq!(read_image(&pool, &image).unwrap(), state);
    }
}
