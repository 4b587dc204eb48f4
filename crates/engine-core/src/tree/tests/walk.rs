//! Directories read back, and differences found, against plain maps.

use std::collections::BTreeMap;

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use super::{directory, encoded, file, raw_entries, reference};
use crate::error::Error;
use crate::ids::Kind;
use crate::tree::build::write_directory;
use crate::tree::changes::{What, changes};
use crate::tree::codec::RawEntry;
use crate::tree::entry::{Entry, EntryKind};
use crate::tree::memory::{MemoryChunks, plant};
use crate::tree::walk::{self, Directory, Next};
use crate::tree::{ChunkSink, ChunkSource};

type Tree = BTreeMap<Vec<u8>, Entry>;

#[test]
fn every_name_of_a_large_directory_is_found_and_no_other() {
    let sink = MemoryChunks::new();
    let (names, raws) = directory(30_000);
    let root = write_directory(&sink, raw_entries(&names, &raws)).unwrap();
    let opened = Directory::open(&sink, root).unwrap();
    for at in (0..names.len()).step_by(997).chain([0, names.len() - 1]) {
        let found = opened.lookup(&names[at]).unwrap().unwrap();
        assert_eq!(encoded(&found), raws[at]);
        let next_to_it = [names[at].as_slice(), b"x"].concat();
        assert_eq!(opened.lookup(&next_to_it).unwrap(), None);
    }
    assert_eq!(opened.lookup(b"a").unwrap(), None);
    assert_eq!(opened.lookup(b"z").unwrap(), None);
    let read: Vec<_> = opened.entries().map(|entry| entry.unwrap().name).collect();
    assert_eq!(read, names);
    sink.take_fetched();
    opened.lookup(&names[15_000]).unwrap();
    assert!(sink.take_fetched() <= 2);
}

#[test]
fn a_path_is_followed_through_directories_only() {
    let sink = MemoryChunks::new();
    let tree = Tree::from([(b"a/b/c".to_vec(), file(b"c", vec![reference(1)]))]);
    let root = plant(&sink, &tree).unwrap();
    assert_eq!(walk::find(&sink, &root, b"/a/b/c").unwrap().size, 2);
    assert_eq!(walk::find(&sink, &root, b"a//b/").unwrap().kind, EntryKind::Dir);
    assert_eq!(walk::find(&sink, &root, b"/").unwrap(), root);
    for missing in [&b"/a/x"[..], b"/a/b/c/d", b"..", b"/a/./b"] {
        let error = walk::find(&sink, &root, missing).unwrap_err();
        assert_eq!(error.code(), "path-missing");
    }
}

#[test]
fn a_directory_without_a_subtree_is_empty() {
    let sink = MemoryChunks::new();
    let unread = Entry::new(b"x", EntryKind::Dir);
    let opened = Directory::of(&sink, &unread).unwrap();
    assert_eq!(opened.entries().count(), 0);
    assert_eq!(opened.lookup(b"y").unwrap(), None);
    let mut cursor = opened.cursor();
    cursor.seek(b"y").unwrap();
    assert_eq!(cursor.peek(), Next::End);
}

/// A node over one leaf, which says `first_name` of it.
fn node_over(
    sink: &MemoryChunks,
    level: u8,
    items: &[(&[u8], crate::ids::Ref)],
) -> crate::ids::Ref {
    let mut bytes = Vec::new();
    crate::tree::codec::write_object_head(&mut bytes, 1, level, items.len());
    for (first_name, child) in items {
        crate::tree::codec::write_node_item(&mut bytes, first_name, child);
    }
    sink.store(Kind::Tree, &bytes).unwrap()
}

#[test]
fn a_node_that_does_not_fit_what_is_below_it_is_refused() {
    let sink = MemoryChunks::new();
    let leaf = |names: &[&[u8]]| {
        let raws: Vec<_> = names.iter().map(|name| encoded(&file(name, vec![]))).collect();
        let entries = names.iter().zip(&raws).map(|(name, raw)| RawEntry { name, raw });
        write_directory(&sink, entries).unwrap()
    };
    let (low, high) = (leaf(&[b"a", b"m"]), leaf(&[b"k", b"z"]));
    let wrong = [
        node_over(&sink, 1, &[(b"b", low)]),
        node_over(&sink, 2, &[(b"a", low)]),
        node_over(&sink, 1, &[(b"a", low), (b"k", high)]),
        node_over(&sink, 1, &[(b"a", leaf(&[]))]),
        node_over(&sink, 2, &[(b"a", node_over(&sink, 1, &[(b"a", low)])), (b"k", high)]),
    ];
    for root in wrong {
        let opened = Directory::open(&sink, root).unwrap();
        let error = opened.entries().find_map(Result::err).unwrap();
        assert_eq!(error.code(), "integrity", "{error}");
        assert_eq!(opened.lookup(b"b").unwrap_err().code(), "integrity");
    }
    let right = node_over(&sink, 1, &[(b"a", low), (b"n", leaf(&[b"n"]))]);
    assert_eq!(Directory::open(&sink, right).unwrap().entries().count(), 3);
}

#[test]
fn entries_after_a_lost_leaf_can_still_be_read() {
    let sink = MemoryChunks::new();
    let (names, raws) = directory(5_000);
    let root = write_directory(&sink, raw_entries(&names, &raws)).unwrap();
    let mut cursor = Directory::open(&sink, root).unwrap().cursor();
    let Next::Object { reference, .. } = cursor.peek() else { panic!("not a node") };
    sink.lose(&reference);
    let error = cursor.entry().unwrap_err();
    assert!(matches!(error, Error::ChunkMissing { .. }));
    let mut rest = 0;
    while cursor.entry().unwrap().is_some() {
        cursor.advance();
        rest += 1;
    }
    assert!(rest > 1_000 && rest < 5_000, "{rest}");
    assert_eq!(cursor.peek(), Next::End);
}

fn collect(
    chunks: &MemoryChunks,
    old: Option<&Entry>,
    new: Option<&Entry>,
) -> Vec<(Vec<u8>, What)> {
    let mut found = Vec::new();
    changes(chunks, old, new, &mut |change| {
        let slash: &[u8] = if change.dir == b"/" { b"" } else { b"/" };
        let path = [change.dir, slash, change.entry.name].concat();
        found.push((path[1..].to_vec(), change.what));
        Ok(())
    })
    .unwrap();
    found
}

#[test]
fn a_changed_file_among_many_is_found_without_reading_the_rest() {
    let sink = MemoryChunks::new();
    let mut tree: Tree = (0..20_000)
        .map(|at| (format!("d/many/{at:05}").into_bytes(), file(b"x", vec![reference(at)])))
        .collect();
    for at in 0..100 {
        let path = format!("other{at}/x").into_bytes();
        tree.insert(path, file(b"x", vec![]));
    }
    let old = plant(&sink, &tree).unwrap();
    tree.insert(b"d/many/10000".to_vec(), file(b"x", vec![reference(7)]));
    tree.remove(b"d/many/15000".as_slice());
    let new = plant(&sink, &tree).unwrap();
    sink.take_fetched();
    let found = collect(&sink, Some(&old), Some(&new));
    assert_eq!(
        found,
        [(b"d/many/10000".to_vec(), What::Changed), (b"d/many/15000".to_vec(), What::Removed)]
    );
    let fetched = sink.take_fetched();
    assert!(fetched < 16, "{fetched} objects read");
    assert_eq!(collect(&sink, Some(&new), Some(&new)), []);
    assert_eq!(sink.take_fetched(), 0);
}

#[test]
fn another_device_number_is_no_change() {
    let sink = MemoryChunks::new();
    let mut tree = Tree::from([(b"a/b".to_vec(), file(b"b", vec![]))]);
    let old = plant(&sink, &tree).unwrap();
    tree.values_mut().for_each(|entry| entry.device = 5);
    let new = plant(&sink, &tree).unwrap();
    assert_eq!(collect(&sink, Some(&old), Some(&new)), []);
}

#[test]
fn a_very_deep_tree_is_compared_without_recursion() {
    let sink = MemoryChunks::new();
    let path = vec![b"d".as_slice(); 5_000].join(&b'/');
    let new = plant(&sink, &Tree::from([(path, file(b"d", vec![]))])).unwrap();
    assert_eq!(collect(&sink, None, Some(&new)).len(), 5_000);
}

/// Small trees over few names, so that two of them have much in common.
fn trees() -> impl Strategy<Value = Tree> {
    let parts: [&[u8]; 4] = [b"a", b"b", b"a.b", b"\xff"];
    let part = prop::sample::select(parts.to_vec()).prop_map(<[u8]>::to_vec);
    let paths = vec(part, 1..4).prop_map(|parts| parts.join(&b'/'));
    btree_map(paths, 0..3_u64, 0..12).prop_map(|files| {
        let mut tree = Tree::new();
        for (path, version) in files {
            // A file has nothing below it.
            let above = (0..path.len()).filter(|at| path[*at] == b'/').map(|at| &path[..at]);
            if above.into_iter().all(|parent| !tree.contains_key(parent)) {
                let below = [path.as_slice(), b"/"].concat();
                if !tree.keys().any(|other: &Vec<u8>| other.starts_with(&below)) {
                    tree.insert(path, file(b"x", vec![reference(version)]));
                }
            }
        }
        tree
    })
}

/// All paths of a tree with what they are, directories included.
fn flat(tree: &Tree) -> BTreeMap<Vec<u8>, Entry> {
    let mut all = tree.clone();
    for path in tree.keys() {
        for at in (0..path.len()).filter(|at| path[*at] == b'/') {
            all.insert(path[..at].to_vec(), Entry::new(b"", EntryKind::Dir));
        }
    }
    all
}

proptest! {
    #[test]
    fn the_differences_of_two_trees_are_those_of_two_maps(old in trees(), new in trees()) {
        let sink = MemoryChunks::new();
        let roots = (plant(&sink, &old).unwrap(), plant(&sink, &new).unwrap());
        let found = collect(&sink, Some(&roots.0), Some(&roots.1));
        let (old, new) = (flat(&old), flat(&new));
        let mut expected = BTreeMap::new();
        for path in old.keys().chain(new.keys()) {
            match (old.get(path), new.get(path)) {
                (Some(before), Some(after)) if before == after => None,
                (Some(_), Some(_)) => expected.insert(path.clone(), What::Changed),
                (Some(_), None) => expected.insert(path.clone(), What::Removed),
                (None, _) => expected.insert(path.clone(), What::Added),
            };
        }
        prop_assert_eq!(found.len(), expected.len());
        prop_assert_eq!(found.into_iter().collect::<BTreeMap<_, _>>(), expected);
    }

    #[test]
    fn large_directories_differ_as_their_maps_do(
        removed in prop::collection::btree_set(0..3_000_usize, 0..20),
        changed in prop::collection::btree_set(0..3_000_usize, 0..20),
        range in (0..3_000_usize, 0..2_000_usize),
    ) {
        let sink = MemoryChunks::new();
        let old: Tree = (0..3_000).map(|at| (format!("{at:05}-name").into_bytes(), file(b"x", vec![]))).collect();
        let mut new = old.clone();
        let names: Vec<_> = old.keys().cloned().collect();
        let mut expected = BTreeMap::new();
        for at in changed {
            new.insert(names[at].clone(), file(b"x", vec![reference(1)]));
            expected.insert(names[at].clone(), What::Changed);
        }
        for at in removed.into_iter().chain(range.0..(range.0 + range.1).min(3_000)) {
            new.remove(&names[at]);
            expected.insert(names[at].clone(), What::Removed);
        }
        let roots = (plant(&sink, &old).unwrap(), plant(&sink, &new).unwrap());
        let found: BTreeMap<_, _> = collect(&sink, Some(&roots.0), Some(&roots.1)).into_iter().collect();
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn a_sought_name_is_the_next_in_order(
        count in 0..3_000_usize, sought in vec(0..3_100_u32, 1..6),
    ) {
        let sink = MemoryChunks::new();
        let (names, raws) = directory(count);
        let root = write_directory(&sink, raw_entries(&names, &raws)).unwrap();
        let mut cursor = Directory::open(&sink, root).unwrap().cursor();
        let mut sought = sought;
        sought.sort_unstable();
        for at in sought {
            let name = format!("file-{at:07}").into_bytes();
            cursor.seek(&name).unwrap();
            let next = cursor.entry().unwrap().map(|entry| entry.name.to_vec());
            prop_assert_eq!(next.as_ref(), names.iter().find(|other| **other >= name));
        }
    }
}

#[test]
fn an_unreadable_object_is_named() {
    let sink = MemoryChunks::new();
    let root = sink.store(Kind::Tree, b"rubbish").unwrap();
    let error = Directory::open(&sink, root).err().unwrap();
    assert!(error.to_string().contains(&root.name.to_string()), "{error}");
    assert!(sink.fetch(Kind::Data, &root).is_err());
}
