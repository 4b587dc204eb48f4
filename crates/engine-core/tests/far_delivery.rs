//! What a client asks for comes as it is stored where it asks for whole blocks; what is put together
//! anew is compressed where that is sooner there; and nothing comes that was not asked for.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod kit;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use holdfast_engine_core::codec::{Codec, Decompressor};
use holdfast_engine_core::counters::{Counters, Stage};
use holdfast_engine_core::far::body;
use holdfast_engine_core::far::deliver::{Wanted, deliver};
use holdfast_engine_core::ids::{Kind, Name, Ref};
use holdfast_engine_core::pool::{Pool, PoolConfig};
use holdfast_engine_core::store::Store;
use holdfast_engine_core::store::memory::MemoryStore;
use kit::Tree;

const NOBODY_KNOWS: Option<u64> = None;
const SLOW: Option<u64> = Some(1 << 20);
const FAST: Option<u64> = Some(1 << 40);

/// Half of it shrinks, and no chunk is there twice.
fn text() -> Vec<u8> {
    (0..16_000)
        .flat_map(|number| format!("{number:08} all work and no play\n").into_bytes())
        .collect()
}

/// A pool with an image of text and noise, and the chunks of both.
fn stored() -> (Arc<MemoryStore>, Pool, Vec<Ref>, Vec<Ref>) {
    let store = Arc::new(MemoryStore::new());
    let config = PoolConfig { block_bytes: 32 << 10, pack_bytes: 1 << 20, ..kit::config() };
    let pool =
        Pool::create(Arc::clone(&store) as Arc<dyn Store>, &kit::KEY, config, 0, None).unwrap();
    let (tree, noise) = (Tree::tiny(), kit::noise(300_000, 5));
    tree.write("text", &text());
    tree.write("noise", &noise);
    kit::back_up(&pool, &tree).unwrap();
    let (text, noise) = (chunks(&pool, &text()), chunks(&pool, &noise));
    (store, pool, text, noise)
}

fn chunks(pool: &Pool, mut content: &[u8]) -> Vec<Ref> {
    let mut refs = Vec::new();
    while !content.is_empty() {
        let (chunk, rest) = content.split_at(pool.chunker().cut(content));
        let name = pool.keys().name(Kind::Data, chunk);
        refs.push(Ref { name, length: chunk.len() as u32 });
        content = rest;
    }
    refs
}

/// The chunks of a body, each proven, and with which codecs they came.
fn came(pool: &Pool, bytes: &[u8]) -> (HashSet<Name>, Vec<Codec>) {
    let blocks = body::parse(bytes).unwrap();
    let mut decompressor = Decompressor::new().unwrap();
    for block in &blocks {
        block.decode(pool.keys().naming(), &mut decompressor).unwrap();
    }
    let names = blocks.iter().flat_map(|block| block.chunks.iter().map(|chunk| chunk.name));
    (names.collect(), blocks.iter().map(|block| block.codec).collect())
}

fn names(refs: &[Ref]) -> HashSet<Name> {
    refs.iter().map(|reference| reference.name).collect()
}

fn ask(pool: &Pool, refs: &[Ref], link: Option<u64>) -> (Vec<u8>, Counters) {
    let counters = Counters::default();
    let wanted = Wanted::encode(Kind::Data, refs);
    (deliver(pool, &wanted, link, &counters).unwrap(), counters)
}

#[test]
fn whole_blocks_come_as_they_are_stored() {
    let (_, pool, text, noise) = stored();
    let all = [text.as_slice(), noise.as_slice()].concat();
    for link in [NOBODY_KNOWS, SLOW, FAST] {
        let (bytes, counters) = ask(&pool, &all, link);
        let (came, codecs) = came(&pool, &bytes);
        assert_eq!(came, names(&all));
        assert!(codecs.contains(&Codec::Zstd) && codecs.contains(&Codec::Stored));
        // But for the edges of both files, where their blocks hold chunks of others.
        let snapshot = counters.snapshot();
        let opened = snapshot.stages[Stage::Decompress as usize].bytes;
        let compressed = snapshot.stages[Stage::Compress as usize].bytes;
        assert!(opened < 200_000 && compressed < 200_000, "{opened} {compressed}");
        for block in body::parse(&bytes).unwrap() {
            let first = pool.index().lookup(&block.chunks[0].name).unwrap();
            let pack = pool.pack(&first.pack).unwrap();
            let of_pack = pack.footer.chunks_of(usize::from(first.block));
            let of_pack: Vec<Name> = of_pack.map(|(_, chunk)| chunk.name).collect();
            let of_body: Vec<Name> = block.chunks.iter().map(|chunk| chunk.name).collect();
            if of_pack == of_body {
                let give = |_, stored: &[u8]| {
                    assert_eq!(stored, block.body);
                    Ok(())
                };
                pool.stored_blocks(&pack, &[first.block], &counters, give).unwrap();
            }
        }
    }
}

#[test]
fn of_a_block_that_is_not_wanted_whole_nothing_else_comes() {
    let (_, pool, text, noise) = stored();
    let all = [text.as_slice(), noise.as_slice()].concat();
    for every in 2..5 {
        let some: Vec<Ref> = all.iter().copied().step_by(every).collect();
        for link in [NOBODY_KNOWS, FAST] {
            assert_eq!(came(&pool, &ask(&pool, &some, link).0).0, names(&some));
        }
    }
    for one in &all {
        assert_eq!(came(&pool, &ask(&pool, &[*one], FAST).0).0, names(&[*one]));
    }
}

#[test]
fn what_is_put_together_anew_is_compressed_where_that_is_sooner_there() {
    let (_, pool, text, noise) = stored();
    let some: Vec<Ref> = text.iter().copied().step_by(2).collect();
    let (first, _) = ask(&pool, &some, FAST);
    assert!(came(&pool, &first).1.contains(&Codec::Zstd), "nothing was measured yet");
    pool.pace().note(1 << 30, Duration::from_secs(1));
    let (fast, _) = ask(&pool, &some, FAST);
    assert!(!came(&pool, &fast).1.contains(&Codec::Zstd));
    let (slow, _) = ask(&pool, &some, SLOW);
    assert!(!came(&pool, &slow).1.contains(&Codec::Stored));
    assert!(slow.len() < fast.len() * 3 / 4, "{} {}", slow.len(), fast.len());
    // What did not shrink when it was stored is not tried again.
    let some: Vec<Ref> = noise.iter().copied().skip(100).take(150).step_by(2).collect();
    let (bytes, counters) = ask(&pool, &some, SLOW);
    assert!(!came(&pool, &bytes).1.contains(&Codec::Zstd));
    assert_eq!(counters.snapshot().stages[Stage::Compress as usize].bytes, 0);
}

#[test]
fn a_chunk_that_is_wanted_twice_or_as_what_it_is_not_changes_nothing() {
    let (_, pool, text, _) = stored();
    let twice = [text.as_slice(), text.as_slice()].concat();
    assert_eq!(came(&pool, &ask(&pool, &twice, FAST).0).0, names(&text));
    let mut lying = text.clone();
    lying[5].length += 1;
    let wanted = Wanted::encode(Kind::Data, &lying);
    let refused = deliver(&pool, &wanted, FAST, &Counters::default()).unwrap_err();
    assert_eq!(refused.code(), "integrity");
    let wanted = Wanted::encode(Kind::Tree, &text);
    let refused = deliver(&pool, &wanted, FAST, &Counters::default()).unwrap_err();
    assert_eq!(refused.code(), "chunk-missing");
}

#[test]
fn a_damaged_block_is_told_of_and_never_sent() {
    let (store, _, text, noise) = stored();
    let all = [text, noise].concat();
    let key = kit::packs(&*store)
        .iter()
        .map(|pack| pack.key())
        .max_by_key(|key| store.size(key).unwrap())
        .unwrap();
    let mut bytes = store.get(&key).unwrap();
    let middle = bytes.len() / 3;
    bytes[middle] ^= 1;
    store.delete(&key).unwrap();
    store.put(&key, &bytes).unwrap();
    let pool = kit::open(Arc::clone(&store) as Arc<dyn Store>).unwrap();
    let mut refused = 0;
    for group in all.chunks(3) {
        let wanted = Wanted::encode(Kind::Data, group);
        match deliver(&pool, &wanted, FAST, &Counters::default()) {
            Ok(bytes) => assert_eq!(came(&pool, &bytes).0, names(group)),
            Err(error) => {
                assert_eq!(error.code(), "integrity");
                refused += 1;
            }
        }
    }
    assert!(refused > 0);
    let all = Wanted::encode(Kind::Data, &all);
    let of_all = deliver(&pool, &all, FAST, &Counters::default());
    assert_eq!(of_all.unwrap_err().code(), "integrity");
}
