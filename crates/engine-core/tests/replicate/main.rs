//! An image goes from one pool to another: there it is whole, with its own source gone; nothing
//! travels that need not; and whoever says that an image is whole is not believed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../kit/mod.rs"]
mod kit;

mod random;
mod refused;
mod wire;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use holdfast_engine_core::cancel::Cancel;
use holdfast_engine_core::counters::Counters;
use holdfast_engine_core::error::Result;
use holdfast_engine_core::far::{Far, Link, replicate};
use holdfast_engine_core::ids::Id;
use holdfast_engine_core::manifest::Manifest;
use holdfast_engine_core::pool::{Pool, PoolConfig};
use holdfast_engine_core::store::faulty::{Fault, FaultyStore, Gate, Operation, Rule};
use holdfast_engine_core::store::memory::MemoryStore;
use holdfast_engine_core::store::{Store, list_sorted};
use holdfast_engine_core::tree::walk::Directory;

use kit::Tree;
use wire::{OTHER_KEY, Pools, Wire, chunks_of, copy, destroy, pools, send, sharing};

#[test]
fn copies_of_several_images_restore_with_the_source_gone() {
    let (pools, tree) = (pools(), Tree::new());
    let mut images = Vec::new();
    let mut base: Option<Manifest> = None;
    for round in 0..4 {
        let image = kit::back_up(&pools.source, &tree).unwrap();
        let state = tree.state();
        // With a base and without.
        copy(&pools, &image, base.as_ref().filter(|_| round != 2));
        images.push((image.clone(), state));
        base = Some(image);
        tree.change(round);
    }
    assert_eq!(kit::check(&pools.target).unwrap(), []);
    assert_eq!(kit::stored_twice(&pools.target), []);
    assert_eq!(chunks_of(&pools.target), chunks_of(&pools.source));
    destroy(&pools.source_store);
    let reopened =
        Pool::open(Arc::clone(&pools.target_store) as Arc<dyn Store>, &OTHER_KEY, None).unwrap();
    for (image, state) in &images {
        kit::assert_restored(&reopened, image, state, "from the copy");
    }
}

#[test]
fn what_the_target_has_does_not_travel_and_what_the_base_has_is_not_asked_for() {
    let (pools, tree) = (pools(), Tree::new());
    let first = kit::back_up(&pools.source, &tree).unwrap();
    let whole = copy(&pools, &first, None);
    assert_eq!(whole.asked(), chunks_of(&pools.source));
    assert_eq!(whole.sent(), whole.asked());
    tree.change(1);
    let second = kit::back_up(&pools.source, &tree).unwrap();
    let with_base = Arc::new(Wire::to(&pools.target, &second));
    let base = with_base.reception.vouch(&first.id).unwrap();
    send(&with_base, &pools.source, &second, base.as_ref()).unwrap();
    let new = chunks_of(&pools.target) - whole.sent();
    assert_eq!(with_base.sent(), new, "each new chunk travels once");
    assert_eq!(with_base.asked(), new, "and nothing else is asked for");
    // Again, as if nobody knew: all is asked for, nothing travels.
    pools.target.expire(&second.id).unwrap();
    let again = copy(&pools, &second, None);
    assert!(again.asked() > new + 5);
    assert_eq!(again.sent(), 0);
    // An image that is there vouches for itself.
    let itself = copy(&pools, &second, Some(&second));
    assert_eq!((itself.asked(), itself.sent()), (0, 0));
    kit::assert_restored(&pools.target, &second, &tree.state(), "");
    assert_eq!(kit::stored_twice(&pools.target), []);
}

#[test]
fn of_a_large_file_that_changed_only_the_change_is_asked_for() {
    let (pools, tree) = (pools(), Tree::new());
    let mut content = kit::noise(6_000_000, 77);
    tree.write("docs/disk", &content);
    let first = kit::back_up(&pools.source, &tree).unwrap();
    let whole = copy(&pools, &first, None);
    assert!(whole.asked() > 4000, "{} chunks, in lists of lists", whole.asked());
    content[3_000_000..3_000_100].copy_from_slice(&kit::noise(100, 78));
    tree.write("docs/disk", &content);
    let second = kit::back_up(&pools.source, &tree).unwrap();
    let changed = copy(&pools, &second, Some(&first));
    assert!(changed.asked() < 40, "{} chunks were asked for", changed.asked());
    kit::assert_restored(&pools.target, &second, &tree.state(), "");
}

#[test]
fn chunks_that_share_blocks_with_others_go_without_them() {
    let (pools, tree) = (pools(), Tree::new());
    for round in 0..3 {
        kit::back_up(&pools.source, &tree).unwrap();
        tree.change(round);
    }
    // The last image takes parts of blocks that the first ones wrote.
    let last = kit::back_up(&pools.source, &tree).unwrap();
    copy(&pools, &last, None);
    assert!(chunks_of(&pools.target) < chunks_of(&pools.source));
    let findings = kit::check(&pools.target).unwrap();
    assert_eq!(findings, []);
    let collected = kit::collect(&pools.target).unwrap();
    assert_eq!(collected.chunks_live, collected.chunks_total, "nothing came that it does not need");
    destroy(&pools.source_store);
    kit::assert_restored(&pools.target, &last, &tree.state(), "");
}

#[test]
fn wherever_the_link_breaks_the_target_is_sound_and_the_next_try_sends_only_the_rest() {
    let tree = Tree::new();
    for at in 0.. {
        let pools = pools();
        let image = kit::back_up(&pools.source, &tree).unwrap();
        let broken = Arc::new(Wire { fails_at: Some(at), ..Wire::to(&pools.target, &image) });
        let error = match send(&broken, &pools.source, &image, None) {
            Err(error) => error,
            Ok(_) => {
                assert!(at >= 3, "it takes a question, a body and a commit");
                return;
            }
        };
        assert_eq!(error.code(), "unreachable", "{error}");
        broken.reception.abandon().unwrap();
        let before = broken.sent();
        drop(broken);
        assert_eq!(pools.target.images().unwrap(), []);
        let rest = copy(&pools, &image, None);
        assert_eq!(before + rest.sent(), rest.asked(), "broken at call {at}");
        kit::assert_restored(&pools.target, &image, &tree.state(), "after a broken link");
        assert_eq!(kit::check(&pools.target).unwrap(), [], "broken at call {at}");
        assert_eq!(kit::stored_twice(&pools.target), [], "broken at call {at}");
    }
}

#[test]
fn what_is_said_twice_is_stored_once() {
    let (pools, tree) = (pools(), Tree::new());
    let image = kit::back_up(&pools.source, &tree).unwrap();
    let wire = Arc::new(Wire { twice: true, ..Wire::to(&pools.target, &image) });
    send(&wire, &pools.source, &image, None).unwrap();
    kit::assert_restored(&pools.target, &image, &tree.state(), "");
    assert_eq!(kit::stored_twice(&pools.target), []);
}

#[test]
fn two_at_once_bring_the_same_image() {
    let (pools, tree) = (pools(), Tree::new());
    let image = kit::back_up(&pools.source, &tree).unwrap();
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..3).map(|_| scope.spawn(|| copy(&pools, &image, None))).collect();
        running.into_iter().for_each(|thread| drop(thread.join().unwrap()));
    });
    assert_eq!(pools.target.images().unwrap(), std::slice::from_ref(&image));
    kit::assert_restored(&pools.target, &image, &tree.state(), "");
    assert_eq!(kit::check(&pools.target).unwrap(), []);
}

#[test]
fn copies_expire_and_are_collected_like_any_image() {
    let (pools, tree) = (pools(), Tree::new());
    let first = kit::back_up(&pools.source, &tree).unwrap();
    let state = tree.state();
    tree.change(1);
    let second = kit::back_up(&pools.source, &tree).unwrap();
    copy(&pools, &first, None);
    copy(&pools, &second, Some(&first));
    let own = kit::back_up(&pools.target, &tree).unwrap();
    pools.target.expire(&second.id).unwrap();
    pools.target.expire(&own.id).unwrap();
    kit::collect(&pools.target).unwrap();
    kit::assert_restored(&pools.target, &first, &state, "the other two have gone");
    assert_eq!(kit::check(&pools.target).unwrap(), []);
    pools.target.expire(&first.id).unwrap();
    kit::collect(&pools.target).unwrap();
    assert_eq!(list_sorted(&*pools.target_store, "packs/").unwrap(), []);
    // And may come again.
    copy(&pools, &second, None);
    kit::assert_restored(&pools.target, &second, &tree.state(), "again");
}

#[test]
fn a_collection_waits_for_what_an_image_that_is_coming_relies_on() {
    let (pools, tree) = (pools(), Tree::new());
    let first = kit::back_up(&pools.source, &tree).unwrap();
    copy(&pools, &first, None);
    tree.change(1);
    let second = kit::back_up(&pools.source, &tree).unwrap();
    let wire = Arc::new(Wire::to(&pools.target, &second));
    let base = wire.reception.vouch(&first.id).unwrap();
    // The base goes while the image comes.
    pools.target.expire(&first.id).unwrap();
    let collected = kit::collect(&pools.target).unwrap();
    assert_eq!((collected.packs_deleted, collected.waiting_for.len()), (0, 1));
    send(&wire, &pools.source, &second, base.as_ref()).unwrap();
    kit::collect(&pools.target).unwrap();
    kit::assert_restored(&pools.target, &second, &tree.state(), "after the collection");
    assert_eq!(kit::check(&pools.target).unwrap(), []);
}

#[test]
fn a_collection_of_the_source_meanwhile_is_followed() {
    // After the walk, before anything is read: packs are rewritten, their old ones go.
    struct Collects {
        wire: Arc<Wire>,
        pools: Arc<Pools>,
        old: Id,
        done: AtomicUsize,
    }
    impl Link for Collects {
        fn missing(&self, names: &[u8]) -> Result<Vec<u8>> {
            if self.done.fetch_add(1, Ordering::SeqCst) == 0 {
                self.pools.source.expire(&self.old)?;
                let beside =
                    kit::open(Arc::clone(&self.pools.source_store) as Arc<dyn Store>).unwrap();
                assert!(kit::collect(&beside).unwrap().packs_deleted > 0);
            }
            self.wire.missing(names)
        }
        fn send(&self, body: Vec<u8>) -> Result<()> {
            self.wire.send(body)
        }
        fn read(&self, wanted: &[u8]) -> Result<Vec<u8>> {
            self.wire.read(wanted)
        }
        fn commit(&self, manifest: &[u8]) -> Result<Vec<u8>> {
            self.wire.commit(manifest)
        }
    }
    let (pools, tree) = (pools(), Tree::new());
    let old = kit::back_up(&pools.source, &tree).unwrap();
    tree.change(1);
    let image = kit::back_up(&pools.source, &tree).unwrap();
    let wire = Arc::new(Wire::to(&pools.target, &image));
    let terms = wire.reception.terms();
    let pools = Arc::new(pools);
    let link = Collects { wire, pools: Arc::clone(&pools), old: old.id, done: AtomicUsize::new(0) };
    let far = Far::new(terms, Arc::new(link));
    let counters = Counters::default();
    replicate::run(&far, &pools.source, &image.id, None, &counters, &Cancel::new()).unwrap();
    kit::assert_restored(&pools.target, &image, &tree.state(), "");
    assert_eq!(kit::check(&pools.target).unwrap(), []);
}

#[test]
fn images_that_are_made_after_a_copy_came_have_higher_numbers() {
    let (pools, tree) = (pools(), Tree::new());
    kit::back_up(&pools.target, &tree).unwrap();
    let mut last = None;
    for round in 0..5 {
        tree.change(round);
        last = Some(kit::back_up(&pools.source, &tree).unwrap());
    }
    let last = last.unwrap();
    assert_eq!(last.number, 5);
    copy(&pools, &last, None);
    pools.target.expire(&last.id).unwrap();
    assert_eq!(kit::back_up(&pools.target, &tree).unwrap().number, 6);
    // A lower one that comes late changes nothing.
    let first = pools.source.images().unwrap().remove(0);
    copy(&pools, &first, None);
    assert_eq!(kit::back_up(&pools.target, &tree).unwrap().number, 7);
}

#[test]
fn pools_of_other_sizes_that_are_large_enough_take_copies() {
    let (pools, tree) = (pools(), Tree::new());
    let image = kit::back_up(&pools.source, &tree).unwrap();
    let store = Arc::new(MemoryStore::new());
    let to = sharing(store, pools.source.keys().naming(), PoolConfig::default());
    let pools = Pools { target: Arc::new(to), ..pools };
    copy(&pools, &image, None);
    destroy(&pools.source_store);
    kit::assert_restored(&pools.target, &image, &tree.state(), "");
    assert_eq!(kit::check(&pools.target).unwrap(), []);
}

#[test]
fn pools_of_one_process_exchange_images_without_a_link() {
    let (pools, tree) = (pools(), Tree::new());
    let mut base = None;
    for round in 0..3 {
        let image = kit::back_up(&pools.source, &tree).unwrap();
        let counters = Counters::default();
        for _ in 0..2 {
            let (to, cancel) = (Arc::clone(&pools.target), Cancel::new());
            let base = base.as_ref();
            let (pool, now) = (&pools.source, kit::now_ns());
            let copied =
                replicate::between(pool, to, &image.id, base, now, &counters, &cancel).unwrap();
            assert_eq!(copied, image);
        }
        kit::assert_restored(&pools.target, &image, &tree.state(), "");
        base = Some(image.id);
        tree.change(round);
    }
    assert_eq!(kit::check(&pools.target).unwrap(), []);
    assert_eq!(kit::stored_twice(&pools.target), []);
    assert_eq!(list_sorted(&*pools.target_store, "jobs/").unwrap(), []);
}

#[test]
fn a_cancelled_replication_says_so_and_leaves_no_image() {
    let (pools, tree) = (pools(), Tree::new());
    let image = kit::back_up(&pools.source, &tree).unwrap();
    let cancel = Cancel::new();
    cancel.cancel();
    let wire = Arc::new(Wire::to(&pools.target, &image));
    let far = Far::new(wire.reception.terms(), Arc::clone(&wire) as Arc<dyn Link>);
    let counters = Counters::default();
    let ended = replicate::run(&far, &pools.source, &image.id, None, &counters, &cancel);
    assert_eq!(ended.unwrap_err().code(), "cancelled");
    assert_eq!(pools.target.images().unwrap(), []);
}

#[test]
fn whoever_looks_an_image_through_for_long_gives_signs_of_life() {
    struct Patient {
        wire: Arc<Wire>,
        gate: Gate,
        signs: AtomicUsize,
    }
    impl Link for Patient {
        fn missing(&self, names: &[u8]) -> Result<Vec<u8>> {
            if names.is_empty() && self.signs.fetch_add(1, Ordering::SeqCst) == 2 {
                self.gate.open();
            }
            self.wire.missing(names)
        }
        fn send(&self, body: Vec<u8>) -> Result<()> {
            self.wire.send(body)
        }
        fn read(&self, wanted: &[u8]) -> Result<Vec<u8>> {
            self.wire.read(wanted)
        }
        fn commit(&self, manifest: &[u8]) -> Result<Vec<u8>> {
            self.wire.commit(manifest)
        }
    }
    let (pools, tree) = (pools(), Tree::new());
    let image = kit::back_up(&pools.source, &tree).unwrap();
    let (slow, gate) = (FaultyStore::new(Arc::clone(&pools.source_store)), Gate::new());
    let slow = Arc::new(slow);
    let source = kit::open(Arc::clone(&slow) as Arc<dyn Store>).unwrap();
    // Nothing is read until the other side has heard three times that somebody is there.
    let rule = Rule::new(Fault::Hold(gate.clone())).on(Operation::GetRange).under("packs/");
    slow.add(rule);
    let wire = Arc::new(Wire::to(&pools.target, &image));
    let terms = wire.reception.terms();
    let link = Arc::new(Patient { wire, gate, signs: AtomicUsize::new(0) });
    let far =
        Far::new(terms, Arc::clone(&link) as Arc<dyn Link>).signing_every(Duration::from_millis(5));
    let counters = Counters::default();
    replicate::run(&far, &source, &image.id, None, &counters, &Cancel::new()).unwrap();
    assert!(link.signs.load(Ordering::SeqCst) >= 3);
    kit::assert_restored(&pools.target, &image, &tree.state(), "");
}

#[test]
fn a_copy_is_the_parent_of_the_next_backup_into_its_pool() {
    let (pools, tree) = (pools(), Tree::new());
    let image = kit::back_up(&pools.source, &tree).unwrap();
    copy(&pools, &image, None);
    let before = chunks_of(&pools.target);
    tree.write("one more", b"a few bytes more");
    let next = kit::back_up(&pools.target, &tree).unwrap();
    assert_eq!(next.parent, Some(image.id));
    // The file, and the directories down to it.
    assert!(chunks_of(&pools.target) - before < 8);
    let root = Directory::of(&*pools.target, &next.root).unwrap();
    assert_eq!(root.entries().count(), 1);
    kit::assert_restored(&pools.target, &next, &tree.state(), "");
}
