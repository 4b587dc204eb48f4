//! Backups and garbage collections of one pool at once: whatever stands still at whichever of its
//! calls while the other runs, no image loses anything.
#![allow(clippy::unwrap_used, clippy::panic)]

mod kit;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use holdfast_engine_core::backup::machine::What;
use holdfast_engine_core::error::Result;
use holdfast_engine_core::manifest::Manifest;
use holdfast_engine_core::pool::Pool;
use holdfast_engine_core::store::faulty::{Fault, FaultyStore, Gate, Rule};
use holdfast_engine_core::store::memory::MemoryStore;
use holdfast_engine_core::store::{Store, list_sorted};
use kit::disk::MemoryDisk;
use kit::{State, Tree, assert_restored, back_up, collect, read_image};

/// A pool in which a collection has packs to delete and packs to rewrite, and whose garbage is
/// exactly what the next backup of the tree would find there.
struct Tempting {
    tree: Tree,
    store: MemoryStore,
    kept: Manifest,
    kept_state: State,
}

fn tempting() -> Tempting {
    let tree = Tree::new();
    let store = Arc::new(MemoryStore::new());
    let pool = kit::create(store.clone());
    let first = back_up(&pool, &tree).unwrap();
    tree.write("docs/large", &kit::noise(20_000, 50));
    let kept = back_up(&pool, &tree).unwrap();
    let kept_state = tree.state();
    tree.change(1);
    let last = back_up(&pool, &tree).unwrap();
    for gone in [first, last] {
        pool.expire(&gone.id).unwrap();
    }
    drop(pool);
    let store = Arc::into_inner(store).unwrap();
    let collected = collect(&kit::open(copy(&store)).unwrap()).unwrap();
    assert!(collected.packs_rewritten > 0, "{collected:?}");
    assert!(collected.packs_deleted > collected.packs_rewritten, "{collected:?}");
    Tempting { tree, store, kept, kept_state }
}

fn copy(store: &MemoryStore) -> Arc<MemoryStore> {
    let copy = MemoryStore::new();
    for (key, _) in list_sorted(store, "").unwrap() {
        copy.put(&key, &store.get(&key).unwrap()).unwrap();
    }
    Arc::new(copy)
}

/// Lets `first` stand still at its k-th call, for every k; runs `second` to its end; lets `first`
/// go on. `look` sees the store, and what both came to.
fn at_every_call<A: Send, B>(
    base: &MemoryStore,
    first: impl Fn(&Pool) -> Result<A> + Sync,
    second: impl Fn(&Pool) -> Result<B>,
    look: impl Fn(Arc<MemoryStore>, Result<A>, Result<B>, &str),
) {
    for call in 0.. {
        let inner = copy(base);
        let held = Arc::new(FaultyStore::new(inner.clone()));
        let pool = kit::open(held.clone()).unwrap();
        let gate = Gate::new();
        held.add(Rule::new(Fault::Hold(gate.clone())).after(call).times(1));
        let (reached, a, b) = std::thread::scope(|scope| {
            let running = scope.spawn(|| {
                let outcome = first(&pool);
                gate.open();
                outcome
            });
            let reached = gate.wait_until_reached();
            let b = second(&kit::open(inner.clone()).unwrap());
            gate.open();
            (reached, running.join().unwrap(), b)
        });
        let at = held.calls().last().cloned();
        look(inner, a, b, &format!("held at call {call} (the last: {at:?})"));
        if !reached {
            assert!(call > 10, "only {call} calls");
            break;
        }
    }
}

/// After everything has come to an end: collects until nothing goes, and looks again.
fn assert_lasting(store: &Arc<MemoryStore>, images: &[(&Manifest, &State)], when: &str) {
    for _ in 0..2 {
        let pool = kit::open(store.clone()).unwrap();
        for (image, state) in images {
            let read = read_image(&pool, image).unwrap_or_else(|error| panic!("{error} {when}"));
            assert!(read == **state, "image {} holds something else {when}", image.number);
        }
        let collected = collect(&pool).unwrap_or_else(|error| panic!("{error} {when}"));
        assert!(collected.waiting_for.is_empty(), "{collected:?} {when}");
    }
    let pool = kit::open(store.clone()).unwrap();
    for (image, state) in images {
        assert_restored(&pool, image, state, when);
    }
    for folder in ["jobs/", "marks/"] {
        assert_eq!(list_sorted(&**store, folder).unwrap(), [], "{when}");
    }
}

#[test]
fn a_collection_at_any_moment_of_a_backup_takes_nothing_that_the_backup_relies_on() {
    let Tempting { tree, store, kept, kept_state } = tempting();
    let now = tree.state();
    at_every_call(
        &store,
        |pool| back_up(pool, &tree),
        collect,
        |store, image, collected, when| {
            let image = image.unwrap_or_else(|error| panic!("{error} {when}"));
            collected.unwrap_or_else(|error| panic!("{error} {when}"));
            assert_lasting(&store, &[(&kept, &kept_state), (&image, &now)], when);
        },
    );
}

#[test]
fn a_backup_at_any_moment_of_a_collection_loses_nothing() {
    let Tempting { tree, store, kept, kept_state } = tempting();
    let now = tree.state();
    at_every_call(
        &store,
        collect,
        |pool| back_up(pool, &tree),
        |store, collected, image, when| {
            let image = image.unwrap_or_else(|error| panic!("{error} {when}"));
            collected.unwrap_or_else(|error| panic!("{error} {when}"));
            assert_lasting(&store, &[(&kept, &kept_state), (&image, &now)], when);
        },
    );
}

#[test]
fn two_backups_of_the_same_files_at_once_are_both_whole() {
    let Tempting { tree, store, kept, kept_state } = tempting();
    let now = tree.state();
    at_every_call(
        &store,
        |pool| back_up(pool, &tree),
        |pool| back_up(pool, &tree),
        |store, first, second, when| {
            let first = first.unwrap_or_else(|error| panic!("{error} {when}"));
            let second = second.unwrap_or_else(|error| panic!("{error} {when}"));
            let all = [(&kept, &kept_state), (&first, &now), (&second, &now)];
            assert_lasting(&store, &all, when);
        },
    );
}

#[test]
fn of_two_collections_at_once_one_is_told_to_wait_and_nothing_is_lost() {
    let Tempting { tree: _tree, store, kept, kept_state } = tempting();
    at_every_call(&store, collect, collect, |store, first, second, when| {
        for outcome in [first, second] {
            match outcome {
                Ok(_) => {}
                Err(error) => assert_eq!(error.code(), "busy", "{error} {when}"),
            }
        }
        assert_lasting(&store, &[(&kept, &kept_state)], when);
    });
}

#[test]
fn a_restore_goes_on_while_its_packs_are_rewritten() {
    let Tempting { tree: _tree, store, kept, kept_state } = tempting();
    at_every_call(
        &store,
        |pool| kit::restore(pool, &kept),
        collect,
        |_, restored, collected, when| {
            collected.unwrap_or_else(|error| panic!("{error} {when}"));
            let restored = restored.unwrap_or_else(|error| panic!("{error} {when}"));
            assert_eq!(restored.findings, [], "{when}");
            assert!(restored.state == kept_state, "{when}");
        },
    );
}

#[test]
fn a_backup_taken_for_dead_at_any_moment_commits_nothing_that_lacks_a_chunk() {
    let Tempting { tree, store, kept, kept_state } = tempting();
    let now = tree.state();
    let bury_and_collect = |pool: &Pool| {
        for (key, _) in list_sorted(pool.store(), "jobs/")? {
            pool.store().delete(&key)?;
        }
        collect(pool)
    };
    at_every_call(
        &store,
        |pool| back_up(pool, &tree),
        bury_and_collect,
        |store, image, collected, when| {
            collected.unwrap_or_else(|error| panic!("{error} {when}"));
            let mut images = vec![(&kept, &kept_state)];
            match &image {
                Ok(image) => images.push((image, &now)),
                Err(error) => {
                    let codes = ["fenced", "chunk-missing", "object-missing"];
                    assert!(codes.contains(&error.code()), "{error} {when}");
                    let pool = kit::open(store.clone()).unwrap();
                    assert_eq!(pool.images().unwrap().len(), 1, "{when}");
                }
            }
            assert_lasting(&store, &images, when);
        },
    );
}

#[test]
fn a_collection_at_any_moment_of_a_machines_backup_takes_nothing_of_what_it_keeps() {
    let store = Arc::new(MemoryStore::new());
    let pool = kit::create(store.clone());
    let mut bytes = kit::noise(60_000, 1);
    // Chunks of the image that stays share packs with those of one that goes.
    let mut gone = bytes.clone();
    for from in (0..60_000).step_by(6000) {
        gone[from..from + 3000].copy_from_slice(&kit::noise(3000, from as u64 + 7));
    }
    let source = MemoryDisk::new(gone);
    let unknown = |source| kit::disk::machine(vec![kit::disk::unknown(source)], None);
    let gone = kit::disk::back_up(&pool, &unknown(&source)).unwrap();
    let source = MemoryDisk::new(bytes.clone());
    let parent = kit::disk::back_up(&pool, &unknown(&source)).unwrap();
    pool.expire(&gone.id).unwrap();
    drop(pool);
    let before = bytes.clone();
    let store = Arc::into_inner(store).unwrap();
    let collected = collect(&kit::open(copy(&store)).unwrap()).unwrap();
    assert!(collected.packs_rewritten > 0, "{collected:?}");
    bytes[30_000..31_000].fill(5);
    let changed = MemoryDisk::new(bytes.clone());
    let known = vec![
        kit::disk::range(0, 30_000, What::Same),
        kit::disk::range(30_000, 1000, What::Data),
        kit::disk::range(31_000, 29_000, What::Same),
    ];
    let request = kit::disk::machine(vec![kit::disk::disk(&changed, known)], Some(&parent));
    let has_read_again = AtomicBool::new(false);
    at_every_call(
        &store,
        |pool| kit::disk::back_up(pool, &request),
        collect,
        |store, image, collected, when| {
            let image = image.unwrap_or_else(|error| panic!("{error} {when}"));
            collected.unwrap_or_else(|error| panic!("{error} {when}"));
            for _ in 0..2 {
                let pool = Arc::new(kit::open(store.clone()).unwrap());
                assert!(kit::disk::contents(&pool, &parent, "/disks/vda") == before, "{when}");
                assert!(kit::disk::contents(&pool, &image, "/disks/vda") == bytes, "{when}");
                collect(&pool).unwrap_or_else(|error| panic!("{error} {when}"));
            }
        },
    );
    at_every_call(
        &store,
        collect,
        |pool| {
            changed.read.store(0, Ordering::SeqCst);
            let image = kit::disk::back_up(pool, &request);
            let read = changed.read.load(Ordering::SeqCst);
            has_read_again.fetch_or(read > 30_000, Ordering::SeqCst);
            image
        },
        |store, collected, image, when| {
            let image = image.unwrap_or_else(|error| panic!("{error} {when}"));
            collected.unwrap_or_else(|error| panic!("{error} {when}"));
            for _ in 0..2 {
                let pool = Arc::new(kit::open(store.clone()).unwrap());
                assert!(kit::disk::contents(&pool, &image, "/disks/vda") == bytes, "{when}");
                collect(&pool).unwrap_or_else(|error| panic!("{error} {when}"));
            }
        },
    );
    assert!(has_read_again.load(Ordering::SeqCst), "nothing that is kept was ever to go");
}
