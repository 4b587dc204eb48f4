//! What is not whole, not announced or not alike is refused.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use holdfast_engine_core::cancel::Cancel;
use holdfast_engine_core::chunker::ChunkSizes;
use holdfast_engine_core::counters::Counters;
use holdfast_engine_core::error::{Error, Result};
use holdfast_engine_core::far::receive::Reception;
use holdfast_engine_core::far::{Far, Link, body, replicate};
use holdfast_engine_core::ids::{Id, Kind, PackId};
use holdfast_engine_core::manifest::{Manifest, Source};
use holdfast_engine_core::pack::footer::ChunkInfo;
use holdfast_engine_core::pool::{Pool, PoolConfig, marks};
use holdfast_engine_core::store::Store;
use holdfast_engine_core::store::memory::MemoryStore;

use crate::kit::{self, Tree};
use crate::wire::{OTHER_KEY, Wire, copy, pools, send, sharing};

#[test]
fn what_a_mark_names_travels_again_and_no_base_is_relied_on() {
    let (pools, tree) = (pools(), Tree::new());
    let first = kit::back_up(&pools.source, &tree).unwrap();
    let copied = copy(&pools, &first, None);
    pools.target.expire(&first.id).unwrap();
    let waits = Wire::to(&pools.target, &first);
    let collected = kit::collect(&pools.target).unwrap();
    assert_eq!(collected.waiting_for.len(), 1);
    assert!(!marks::read(pools.target.store(), pools.target.keys()).unwrap().packs.is_empty());
    let wire = Arc::new(Wire::to(&pools.target, &first));
    assert_eq!(wire.reception.vouch(&first.id).unwrap(), None);
    // Whoever relies on it all the same is refused: what is marked may be gone tomorrow.
    let lies = Wire::to(&pools.target, &first);
    let refused = lies.commit(&first.encode().unwrap()).unwrap_err();
    assert_eq!(refused.code(), "invalid", "{refused}");
    send(&wire, &pools.source, &first, Some(&first)).unwrap();
    assert_eq!(wire.sent(), copied.sent());
    drop((waits, lies));
    kit::collect(&pools.target).unwrap();
    kit::assert_restored(&pools.target, &first, &tree.state(), "after the collection");
    assert_eq!(kit::check(&pools.target).unwrap(), []);
}

#[test]
fn a_damaged_block_is_told_of_and_another_copy_of_its_chunks_is_taken() {
    let (pools, tree) = (pools(), Tree::new());
    tree.write("precious", b"the only one of its kind");
    let image = kit::back_up(&pools.source, &tree).unwrap();
    let name = pools.source.keys().name(Kind::Data, b"the only one of its kind");
    let found = pools.source.index().lookup(&name).unwrap();
    let key = found.pack.key();
    let whole = pools.source_store.get(&key).unwrap();
    let mut bad = whole.clone();
    bad[50] ^= 1;
    pools.source_store.put(&key, &bad).unwrap();
    pools.source.forget();
    let wire = Arc::new(Wire::to(&pools.target, &image));
    let refused = send(&wire, &pools.source, &image, None).unwrap_err();
    assert_eq!(refused.code(), "integrity", "{refused}");
    assert_eq!(pools.target.images().unwrap(), []);
    // Its pack has vanished altogether.
    pools.source_store.delete(&key).unwrap();
    pools.source.forget();
    let wire = Arc::new(Wire::to(&pools.target, &image));
    send(&wire, &pools.source, &image, None).unwrap_err();
    assert_eq!(pools.target.images().unwrap(), []);
    // The same chunks again, in other packs, beside the damaged one.
    pools.source_store.put(&key, &bad).unwrap();
    pools.source.forget();
    let spare = pools.source.index().packs().iter().map(|pack| pack.id).collect::<HashSet<_>>();
    store_again(&pools.source, &tree, &spare);
    copy(&pools, &image, None);
    kit::assert_restored(&pools.target, &image, &tree.state(), "");
    // So it is where nothing of the pack can be opened.
    pools.target.expire(&image.id).unwrap();
    kit::collect(&pools.target).unwrap();
    let mut bad = whole;
    let end = bad.len() - 30;
    bad[end] ^= 1;
    pools.source_store.put(&key, &bad).unwrap();
    pools.source.forget();
    copy(&pools, &image, None);
    kit::assert_restored(&pools.target, &image, &tree.state(), "");
}

/// Backs the tree up as if these packs were not there.
fn store_again(pool: &Pool, tree: &Tree, without: &HashSet<PackId>) {
    let mark = marks::Mark {
        number: 1,
        collector: Id([1; 16]),
        packs: without.iter().copied().collect(),
        blocking: None,
    };
    mark.claim(pool.store(), pool.keys()).unwrap();
    kit::back_up(pool, tree).unwrap();
    pool.store().delete(&mark.key()).unwrap();
}

#[test]
fn an_image_that_is_not_whole_is_refused_with_what_is_missing() {
    let (pools, tree) = (pools(), Tree::new());
    let image = kit::back_up(&pools.source, &tree).unwrap();
    let snapshot = pools.source.index().refresh().unwrap();
    // All bodies that it takes, block by block.
    struct Record(Arc<Wire>, parking_lot::Mutex<Vec<Vec<u8>>>);
    impl Link for Record {
        fn missing(&self, names: &[u8]) -> Result<Vec<u8>> {
            self.0.missing(names)
        }
        fn send(&self, body: Vec<u8>) -> Result<()> {
            self.1.lock().push(body);
            Ok(())
        }
        fn read(&self, _: &[u8]) -> Result<Vec<u8>> {
            Ok(Vec::new())
        }
        fn commit(&self, _: &[u8]) -> Result<Vec<u8>> {
            Err(Error::Cancelled)
        }
    }
    let wire = Arc::new(Wire::to(&pools.target, &image));
    let terms = wire.reception.terms();
    let recorded = Arc::new(Record(wire, parking_lot::Mutex::default()));
    let far = Far::new(terms, Arc::clone(&recorded) as Arc<dyn Link>);
    let counters = Counters::default();
    replicate::run(&far, &pools.source, &image.id, None, &counters, &Cancel::new()).unwrap_err();
    let bodies = recorded.1.lock().clone();
    let blocks: Vec<_> = bodies.iter().flat_map(|bytes| body::parse(bytes).unwrap()).collect();
    assert!(blocks.len() > 10);
    let mut held = 0;
    for left_out in 0..blocks.len() {
        let to = Arc::new(sharing(
            Arc::new(MemoryStore::new()),
            pools.source.keys().naming(),
            kit::config(),
        ));
        let reception = Reception::begin(Arc::clone(&to), kit::now_ns()).unwrap();
        let mut writer = body::Writer::default();
        for (at, block) in blocks.iter().enumerate() {
            if at != left_out {
                writer.push(block.kind, block.codec, &block.chunks, block.body);
            }
        }
        reception.take(&writer.take()).unwrap();
        let bytes = image.encode().unwrap();
        let refused = reception.adopt(&bytes, &image.id, None).unwrap_err();
        let told = refused.to_string();
        assert_eq!(refused.code(), "invalid", "{told}");
        let named = |chunk: &&ChunkInfo| told.contains(&chunk.name.to_string());
        assert!(blocks[left_out].chunks.iter().any(|chunk| named(&chunk)), "{told}");
        reception.abandon().unwrap();
        assert_eq!(to.images().unwrap(), []);
        held += to.index().refresh().unwrap().len();
        // What came stays, and the rest makes it whole.
        let again = Reception::begin(Arc::clone(&to), kit::now_ns()).unwrap();
        let block = &blocks[left_out];
        writer.push(block.kind, block.codec, &block.chunks, block.body);
        again.take(&writer.take()).unwrap();
        again.adopt(&bytes, &image.id, None).unwrap();
        kit::assert_restored(&to, &image, &tree.state(), "");
    }
    assert_eq!(held, snapshot.len() * (blocks.len() as u64 - 1));
}

#[test]
fn a_base_vouches_for_what_it_has_and_for_nothing_else() {
    let (pools, tree) = (pools(), Tree::new());
    let first = kit::back_up(&pools.source, &tree).unwrap();
    copy(&pools, &first, None);
    tree.change(1);
    let second = kit::back_up(&pools.source, &tree).unwrap();
    let reception = Reception::begin(Arc::clone(&pools.target), kit::now_ns()).unwrap();
    assert!(reception.vouch(&first.id).unwrap().is_some());
    assert_eq!(reception.vouch(&second.id).unwrap(), None);
    assert!(reception.vouch(&first.id).unwrap().is_some());
    let refused =
        reception.adopt(&second.encode().unwrap(), &second.id, None).unwrap_err().to_string();
    assert!(refused.contains("is not whole"), "{refused}");
    assert_eq!(pools.target.images().unwrap(), [first]);
}

#[test]
fn a_manifest_that_is_not_the_one_announced_is_refused_and_the_upload_goes_on() {
    let (pools, tree) = (pools(), Tree::new());
    let image = kit::back_up(&pools.source, &tree).unwrap();
    let other = kit::back_up(&pools.source, &tree).unwrap();
    let wire = Arc::new(Wire::to(&pools.target, &image));
    let source = Some(image.source.name.as_str());
    let mut trailing = image.encode().unwrap();
    trailing.push(0);
    let huge = Manifest { number: u64::MAX, ..image.clone() };
    let draft = Manifest { number: 0, ..image.clone() };
    let foreign = Manifest {
        source: Source { name: "another".into(), ..image.source.clone() },
        ..image.clone()
    };
    for bad in [
        b"rubbish".to_vec(),
        trailing,
        other.encode().unwrap(),
        huge.encode().unwrap(),
        draft.encode().unwrap(),
        foreign.encode().unwrap(),
    ] {
        let refused = wire.reception.adopt(&bad, &image.id, source).unwrap_err();
        assert_eq!(refused.code(), "invalid", "{refused}");
    }
    let mut newer = image.encode().unwrap();
    newer[9] = 2;
    let refused = wire.reception.adopt(&newer, &image.id, source).unwrap_err();
    assert_eq!(refused.code(), "newer-format");
    send(&wire, &pools.source, &image, None).unwrap();
    // Another image under an id that is taken.
    let forged = Manifest { finished_ns: image.finished_ns + 1, ..image.clone() };
    let reception = Reception::begin(Arc::clone(&pools.target), kit::now_ns()).unwrap();
    let refused = reception.adopt(&forged.encode().unwrap(), &image.id, source).unwrap_err();
    assert!(refused.to_string().contains("is another one"), "{refused}");
    assert_eq!(pools.target.image(&image.id).unwrap(), image);
    assert_eq!(pools.target.claim_number(0).unwrap(), image.number + 1);
}

#[test]
fn pools_that_name_chunks_each_in_its_own_way_exchange_nothing() {
    let (pools, tree) = (pools(), Tree::new());
    let image = kit::back_up(&pools.source, &tree).unwrap();
    let store = || Arc::new(MemoryStore::new()) as Arc<dyn Store>;
    let stranger = Pool::create(store(), &OTHER_KEY, kit::config(), 0, None).unwrap();
    let small = PoolConfig { chunks: ChunkSizes { min: 64, avg: 256, max: 1024 }, ..kit::config() };
    let small = sharing(store(), pools.source.keys().naming(), small);
    let itself = kit::open(Arc::clone(&pools.source_store) as Arc<dyn Store>).unwrap();
    for (to, words) in [(stranger, "own way"), (small, "at most"), (itself, "same pool")] {
        let wire = Arc::new(Wire::to(&Arc::new(to), &image));
        let refused = send(&wire, &pools.source, &image, None).unwrap_err();
        assert_eq!(refused.code(), "invalid");
        assert!(refused.to_string().contains(words), "{refused}");
        assert_eq!(wire.calls.load(Ordering::SeqCst), 0);
    }
    let gone = Manifest { id: Id([3; 16]), ..image };
    let wire = Arc::new(Wire::to(&pools.target, &gone));
    assert_eq!(send(&wire, &pools.source, &gone, None).unwrap_err().code(), "image-missing");
}
