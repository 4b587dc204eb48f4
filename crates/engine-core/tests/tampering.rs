//! Objects that are gone, cut, grown or in each other's place: told, and never taken for right.
#![allow(clippy::unwrap_used, clippy::panic)]

mod kit;

use std::sync::Arc;

use holdfast_engine_core::error::Result;
use holdfast_engine_core::finding::Finding;
use holdfast_engine_core::manifest::Manifest;
use holdfast_engine_core::store::Store;
use holdfast_engine_core::store::memory::MemoryStore;
use kit::{State, Tree, back_up, read_image};

/// A pool with three images, the first of them expired, and so with several objects of each kind.
fn pool() -> (Arc<MemoryStore>, Vec<(Manifest, State)>, Tree) {
    let tree = Tree::new();
    let store = Arc::new(MemoryStore::new());
    let pool = kit::create(store.clone());
    let mut images = Vec::new();
    for round in 0..3 {
        tree.change(round);
        images.push((back_up(&pool, &tree).unwrap(), tree.state()));
    }
    let (expired, _) = images.remove(0);
    pool.expire(&expired.id).unwrap();
    (store, images, tree)
}

fn keys(store: &MemoryStore) -> Vec<String> {
    kit::objects(store).into_iter().map(|(key, _)| key).collect()
}

/// Images that can be read hold what they held. How many can.
fn readable(store: &Arc<MemoryStore>, images: &[(Manifest, State)], when: &str) -> usize {
    let Ok(pool) = kit::open(store.clone()) else { return 0 };
    let read = |image: &Manifest| -> Result<State> {
        let stored = pool.image(&image.id)?;
        assert_eq!(stored, *image, "{when}");
        read_image(&pool, &stored)
    };
    let mut count = 0;
    for (image, state) in images {
        if let Ok(found) = read(image) {
            assert!(found == *state, "image {} holds something else {when}", image.number);
            count += 1;
        }
    }
    count
}

/// What a check says that names the object; an error at opening the pool counts.
fn told(store: &Arc<MemoryStore>, key: &str) -> bool {
    let names = |one: &Finding| one.path == key.as_bytes() || one.message.contains(key);
    match kit::open(store.clone()).and_then(|pool| kit::check(&pool)) {
        Ok(findings) => findings.iter().any(names),
        Err(error) => error.to_string().contains(key),
    }
}

#[test]
fn an_object_that_is_gone_is_missed() {
    let (store, images, _tree) = pool();
    for key in keys(&store) {
        let whole = store.get(&key).unwrap();
        store.delete(&key).unwrap();
        let when = format!("without {key}");
        readable(&store, &images, &when);
        let findings = kit::open(store.clone()).and_then(|pool| kit::check(&pool));
        // An image that is gone is an expired image.
        if !key.starts_with("images/") {
            assert!(!findings.is_ok_and(|findings| findings.is_empty()), "{when}");
        }
        store.put(&key, &whole).unwrap();
    }
    assert_eq!(readable(&store, &images, "at the end"), images.len());
}

#[test]
fn an_object_cut_anywhere_or_grown_is_named_by_a_check() {
    let (store, images, _tree) = pool();
    for key in keys(&store) {
        let whole = store.get(&key).unwrap();
        let step = (whole.len() / 40).max(1);
        let cuts = (0..whole.len()).step_by(step).map(|length| whole[..length].to_vec());
        let grown = [1, 16, 4096].map(|more| [&whole[..], &vec![0; more]].concat());
        for bad in cuts.chain(grown) {
            store.put(&key, &bad).unwrap();
            let when = format!("with {} of {} bytes of {key}", bad.len(), whole.len());
            readable(&store, &images, &when);
            assert!(told(&store, &key), "nothing is told {when}");
        }
        store.put(&key, &whole).unwrap();
    }
}

#[test]
fn an_object_in_the_place_of_another_of_its_kind_is_told_by_a_check() {
    let (store, images, _tree) = pool();
    let all = keys(&store);
    let folder = |key: &str| key.split('/').next().unwrap_or_default().to_owned();
    for key in &all {
        let whole = store.get(key).unwrap();
        for other in all.iter().filter(|other| *other != key && folder(other) == folder(key)) {
            store.put(key, &store.get(other).unwrap()).unwrap();
            let when = format!("with {other} in the place of {key}");
            readable(&store, &images, &when);
            assert!(told(&store, key), "nothing is told {when}");
        }
        store.put(key, &whole).unwrap();
    }
}

#[test]
fn an_object_of_another_pool_with_the_same_key_is_named_by_a_check() {
    let (store, images, tree) = pool();
    let foreign = Arc::new(MemoryStore::new());
    back_up(&kit::create(foreign.clone()), &tree).unwrap();
    for key in keys(&foreign).iter().filter(|key| key.starts_with("index/")) {
        store.put(key, &foreign.get(key).unwrap()).unwrap();
        readable(&store, &images, &format!("with {key} of another pool"));
        assert!(told(&store, key), "nothing is told of {key}");
        store.delete(key).unwrap();
    }
}

#[test]
fn an_expired_image_put_back_after_its_chunks_were_collected_is_told() {
    let (store, images, _tree) = pool();
    let (expired, _) = &images[0];
    let key = Manifest::key(&expired.id);
    let old = store.get(&key).unwrap();
    let pool = kit::open(store.clone()).unwrap();
    pool.expire(&expired.id).unwrap();
    kit::collect(&pool).unwrap();
    store.put(&key, &old).unwrap();
    assert_eq!(readable(&store, &images, "with an old image"), 1);
    let findings = kit::check(&kit::open(store).unwrap()).unwrap();
    let image = format!("image {}", expired.id);
    assert!(findings.iter().any(|one| one.path.starts_with(image.as_bytes())), "{findings:?}");
}
