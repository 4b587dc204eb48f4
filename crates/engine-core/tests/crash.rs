//! The power goes off after the k-th disk operation, for every k: what was committed is intact,
//! and the work can be done again.
#![allow(clippy::unwrap_used, clippy::panic)]

mod kit;

use std::ops::ControlFlow;
use std::sync::Arc;

use holdfast_engine_core::backup::machine::What;
use holdfast_engine_core::cancel::Cancel;
use holdfast_engine_core::counters::Counters;
use holdfast_engine_core::error::Result;
use holdfast_engine_core::far::replicate;
use holdfast_engine_core::finding::Findings;
use holdfast_engine_core::manifest::Manifest;
use holdfast_engine_core::pool::Pool;
use holdfast_engine_core::store::disk::Disk;
use holdfast_engine_core::store::list_sorted;
use holdfast_engine_core::store::memory::MemoryStore;
use holdfast_engine_core::store::posix::PosixStore;
use holdfast_engine_core::store::simdisk::{Loss, SimDisk};
use holdfast_engine_core::upkeep::merge::merge_all;
use holdfast_engine_core::upkeep::rebuild::rebuild;
use kit::disk::MemoryDisk;
use kit::{State, Tree, assert_restored, back_up, collect, read_image};

/// Random losses tried for each operation, beside the worst.
const SEEDS: u64 = 2;

/// An image that was committed, and what it must hold.
type Committed = (Manifest, State);

fn open(disk: &SimDisk) -> Result<Pool> {
    kit::open(Arc::new(PosixStore::on(disk.clone())))
}

/// A pool with an image of each of `rounds` states of the tree.
fn pool_of(tree: &Tree, rounds: u64) -> (SimDisk, Vec<Committed>) {
    let disk = SimDisk::new();
    let pool = kit::create(Arc::new(PosixStore::on(disk.clone())));
    let committed = (0..rounds).map(|round| {
        tree.change(round);
        (back_up(&pool, tree).unwrap(), tree.state())
    });
    let committed = committed.collect();
    (disk, committed)
}

/// Checks the pool, reads every image, and restores the last of them.
fn assert_intact(pool: &Pool, committed: &[Committed], when: &str) {
    for (image, state) in committed {
        let stored = pool.image(&image.id).unwrap_or_else(|error| panic!("{error} {when}"));
        assert_eq!(stored, *image, "{when}");
        let read = read_image(pool, image).unwrap_or_else(|error| panic!("{error} {when}"));
        assert!(read == *state, "image {} holds something else {when}", image.number);
    }
    let mut findings = kit::check(pool).unwrap_or_else(|error| panic!("{error} {when}"));
    // What a job has left that was cut short is no damage; the next one takes it up.
    findings.retain(|finding| finding.code != "pack-unlisted");
    assert_eq!(findings, [], "a check finds {when}");
    if let Some((image, state)) = committed.last() {
        assert_restored(pool, image, state, when);
    }
}

/// Nothing is left of what was cut short: no file, no pack, and nothing that a check would tell.
fn assert_nothing_left(disk: &SimDisk, when: &str) {
    assert_eq!(kit::check(&open(disk).unwrap()).unwrap(), [], "a check finds {when}");
    let marks = list_sorted(&PosixStore::on(disk.clone()), "marks/").unwrap();
    assert_eq!(marks, [], "{when}");
    let mut left = Vec::new();
    let listed = disk.list("tmp", &mut |name, _| {
        left.push(name.to_owned());
        ControlFlow::Continue(())
    });
    listed.unwrap();
    assert!(left.is_empty(), "{left:?} {when}");
}

/// Runs `verb` on copies of `base`, each with a power cut after one operation more, until it runs
/// through; `look` sees the pool after each cut, and says whether `verb` had ended well.
fn for_every_operation<T>(
    base: &SimDisk,
    verb: impl Fn(&Pool) -> Result<T>,
    look: impl Fn(&SimDisk, Option<T>, &str),
) {
    let mut cuts = 0;
    for after in 0.. {
        let mut off = false;
        let seeds = (0..SEEDS).map(|seed| Loss::Some(after as u64 * SEEDS + seed));
        for loss in [Loss::AllUnsynced, Loss::UnsyncedBytes].into_iter().chain(seeds) {
            let disk = base.copy();
            let pool = open(&disk).unwrap();
            disk.reset_operations();
            disk.power_off_after(after);
            let done = verb(&pool).ok();
            drop(pool);
            off = disk.is_off();
            let last = disk.operations().pop().unwrap_or_default();
            disk.crash(loss);
            let when = format!("after {after} operations (the last: {last}) and {loss:?}");
            look(&disk, done, &when);
        }
        if !off {
            break;
        }
        cuts += 1;
    }
    assert!(cuts > 10, "only {cuts} operations");
}

#[test]
fn a_power_cut_at_any_operation_of_a_backup_loses_nothing_committed_and_the_next_one_succeeds() {
    let tree = Tree::new();
    let (disk, committed) = pool_of(&tree, 2);
    tree.change(7);
    let now = tree.state();
    for_every_operation(
        &disk,
        |pool| back_up(pool, &tree),
        |disk, done, when| {
            let pool = open(disk).unwrap_or_else(|error| panic!("{error} {when}"));
            assert_intact(&pool, &committed, when);
            let images = pool.images().unwrap_or_else(|error| panic!("{error} {when}"));
            let new: Vec<_> = images.iter().filter(|image| image.number == 3).collect();
            assert_eq!(images.len(), committed.len() + new.len(), "{when}");
            match &done {
                Some(image) => assert_eq!(new, [image], "{when}"),
                None => assert!(new.len() <= 1, "{when}"),
            }
            for image in new {
                assert_intact(&pool, &[(image.clone(), now.clone())], when);
            }
            let again = back_up(&pool, &tree).unwrap_or_else(|error| panic!("{error} {when}"));
            let all = [&committed[..], &[(again, now.clone())]].concat();
            assert_intact(&pool, &all, when);
            assert_eq!(kit::stored_twice(&pool), [], "sent twice {when}");
            assert_nothing_left(disk, when);
        },
    );
}

#[test]
fn a_power_cut_at_any_operation_of_a_machines_backup_leaves_the_last_one_to_follow() {
    let simulated = SimDisk::new();
    let mut bytes = kit::noise(30_000, 1);
    let (first, before) = {
        let pool = Arc::new(kit::create(Arc::new(PosixStore::on(simulated.clone()))));
        let source = MemoryDisk::new(bytes.clone());
        let request = kit::disk::machine(vec![kit::disk::unknown(&source)], None);
        (kit::disk::back_up(&pool, &request).unwrap(), bytes.clone())
    };
    bytes[..9000].copy_from_slice(&kit::noise(9000, 2));
    let source = MemoryDisk::new(bytes.clone());
    let known =
        vec![kit::disk::range(0, 9000, What::Data), kit::disk::range(9000, 21_000, What::Same)];
    let request = kit::disk::machine(vec![kit::disk::disk(&source, known)], Some(&first));
    for_every_operation(
        &simulated,
        |pool| kit::disk::back_up(pool, &request),
        |disk, done, when| {
            let pool = Arc::new(open(disk).unwrap_or_else(|error| panic!("{error} {when}")));
            assert!(kit::disk::contents(&pool, &first, "/disks/vda") == before, "{when}");
            let images = pool.images().unwrap_or_else(|error| panic!("{error} {when}"));
            if let Some(image) = &done {
                assert_eq!(images.last(), Some(image), "{when}");
            }
            let again = kit::disk::back_up(&pool, &request);
            let again = again.unwrap_or_else(|error| panic!("{error} {when}"));
            for image in images.iter().skip(1).chain([&again]) {
                assert!(kit::disk::contents(&pool, image, "/disks/vda") == bytes, "{when}");
            }
            assert_eq!(kit::stored_twice(&pool), [], "sent twice {when}");
            assert_nothing_left(disk, when);
        },
    );
}

#[test]
fn a_power_cut_at_any_operation_of_a_replication_loses_nothing_and_the_next_one_succeeds() {
    let tree = Tree::new();
    let (disk, committed) = pool_of(&tree, 1);
    // Of the same key, and so with the same names for chunks.
    let source = kit::create(Arc::new(MemoryStore::new()));
    tree.change(1);
    let base = back_up(&source, &tree).unwrap();
    let copy = |pool: &Pool, image: &Manifest, base: Option<&Manifest>| {
        let target = Arc::new(kit::open(pool.shared_store())?);
        let (base, now) = (base.map(|base| &base.id), kit::now_ns());
        let (counters, cancel) = (Counters::default(), Cancel::new());
        replicate::between(&source, target, &image.id, base, now, &counters, &cancel)
    };
    copy(&open(&disk).unwrap(), &base, None).unwrap();
    tree.change(7);
    let image = back_up(&source, &tree).unwrap();
    let now = tree.state();
    for_every_operation(
        &disk,
        |pool| copy(pool, &image, Some(&base)),
        |disk, done, when| {
            let pool = open(disk).unwrap_or_else(|error| panic!("{error} {when}"));
            assert_intact(&pool, &committed, when);
            if done.is_none() && pool.image(&image.id).is_err() {
                let copied = copy(&pool, &image, Some(&base));
                copied.unwrap_or_else(|error| panic!("{error} {when}"));
            }
            let copied = (image.clone(), now.clone());
            assert_intact(&pool, std::slice::from_ref(&copied), when);
            collect(&pool).unwrap_or_else(|error| panic!("{error} {when}"));
            assert_nothing_left(disk, when);
            assert_intact(&pool, std::slice::from_ref(&copied), when);
        },
    );
}

#[test]
fn a_power_cut_at_any_operation_of_an_index_merge_loses_no_chunk_and_the_next_one_succeeds() {
    let tree = Tree::new();
    let (disk, committed) = pool_of(&tree, 4);
    let merge_all = |pool: &Pool| merge_all(pool, kit::now_ns(), &Cancel::new());
    for_every_operation(&disk, merge_all, |disk, _, when| {
        let pool = open(disk).unwrap_or_else(|error| panic!("{error} {when}"));
        assert_intact(&pool, &committed, when);
        merge_all(&pool).unwrap_or_else(|error| panic!("{error} {when}"));
        let pool = open(disk).unwrap();
        assert_eq!(pool.index().segments().len(), 1, "{when}");
        assert_intact(&pool, &committed, when);
        assert_nothing_left(disk, when);
    });
}

#[test]
fn a_power_cut_at_any_operation_of_a_garbage_collection_keeps_what_is_live_and_the_next_one_ends() {
    let tree = Tree::new();
    let (disk, mut committed) = pool_of(&tree, 5);
    let pool = open(&disk).unwrap();
    for (expired, _) in [committed.remove(0), committed.remove(1), committed.remove(1)] {
        pool.expire(&expired.id).unwrap();
    }
    let clean = {
        let disk = disk.copy();
        let pool = open(&disk).unwrap();
        let collected = collect(&pool).unwrap();
        assert!(collected.packs_rewritten > 0 && collected.bytes_freed > 20_000, "{collected:?}");
        list_sorted(pool.store(), "packs/").unwrap().iter().map(|(_, size)| size).sum::<u64>()
    };
    tree.change(9);
    let now = tree.state();
    for_every_operation(&disk, collect, |disk, _, when| {
        let pool = open(disk).unwrap_or_else(|error| panic!("{error} {when}"));
        assert_intact(&pool, &committed, when);
        // Whether or not a mark stands, backups go on, and the collection can be ended.
        let going_on = disk.copy();
        let later = open(&going_on).unwrap();
        let new = back_up(&later, &tree).unwrap_or_else(|error| panic!("{error} {when}"));
        let all = [&committed[..], &[(new, now.clone())]].concat();
        for (disk, images) in [(disk, &committed), (&going_on, &all)] {
            let pool = open(disk).unwrap();
            let again = collect(&pool).unwrap_or_else(|error| panic!("{error} {when}"));
            assert_eq!(again.waiting_for, [""; 0], "{when}");
            let pool = open(disk).unwrap_or_else(|error| panic!("{error} {when}"));
            assert_intact(&pool, images, when);
            assert_nothing_left(disk, when);
            assert_eq!(list_sorted(pool.store(), "jobs/").unwrap(), [], "{when}");
            assert_eq!(collect(&pool).unwrap().packs_deleted, 0, "{when}");
        }
        let left = list_sorted(pool.store(), "packs/").unwrap();
        let left = left.iter().map(|(_, size)| size).sum::<u64>();
        assert!(left <= clean + clean / 10, "{left} bytes left instead of {clean} {when}");
    });
}

#[test]
fn a_power_cut_while_a_pool_is_made_leaves_a_pool_or_room_for_one() {
    let tree = Tree::tiny();
    for after in 0.. {
        for loss in [Loss::AllUnsynced, Loss::UnsyncedBytes, Loss::Some(after as u64)] {
            let disk = SimDisk::new();
            disk.power_off_after(after);
            let store = Arc::new(PosixStore::on(disk.clone()));
            let made = Pool::create(store, &kit::KEY, kit::config(), 0, None).is_ok();
            disk.crash(loss);
            let pool = match open(&disk) {
                Ok(pool) => pool,
                Err(error) => {
                    assert_eq!(error.code(), "not-a-pool", "{error} after {after} operations");
                    assert!(!made, "a pool was lost after {after} operations and {loss:?}");
                    kit::create(Arc::new(PosixStore::on(disk.clone())))
                }
            };
            let image = back_up(&pool, &tree).unwrap();
            assert_restored(&pool, &image, &tree.state(), "in a pool made twice");
            if made && after > 10 {
                return;
            }
        }
    }
}

#[test]
fn a_power_cut_at_any_operation_of_a_rebuild_loses_no_chunk_and_the_next_one_succeeds() {
    let tree = Tree::new();
    let (disk, committed) = pool_of(&tree, 3);
    let rebuild_all = |pool: &Pool| {
        let (counters, findings) = (Counters::default(), Findings::default());
        let rebuilt = rebuild(pool, kit::now_ns(), 3600, &counters, &findings, &Cancel::new())?;
        assert_eq!((rebuilt.segments, findings.kept()), (1, Vec::new()));
        Ok(rebuilt)
    };
    let sound = rebuild_all(&open(&disk.copy()).unwrap()).unwrap();
    for_every_operation(&disk, rebuild_all, |disk, _, when| {
        let pool = open(disk).unwrap_or_else(|error| panic!("{error} {when}"));
        assert_intact(&pool, &committed, when);
        let again = rebuild_all(&pool).unwrap_or_else(|error| panic!("{error} {when}"));
        assert_eq!(again, sound, "{when}");
        assert_intact(&open(disk).unwrap(), &committed, when);
        assert_nothing_left(disk, when);
    });
}
