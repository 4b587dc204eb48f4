#![allow(clippy::unwrap_used)]

use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::Mutex;

use super::live::Marked;
use super::path::Path;
use super::*;
use crate::cancel::Cancel;
use crate::counters::Counters;
use crate::error::{Error, Result};
use crate::ids::Kind;
use crate::ingest;
use crate::pool::Pool;
use crate::store::memory::MemoryStore;
use crate::testing::images::{self, back_up, files};
use crate::tree::entry::{Content, Entry, EntryKind};
use crate::tree::walk::Directory;
use crate::tree::{ChunkSink, build, codec};

fn new_pool() -> Pool {
    images::pool(Arc::new(MemoryStore::new())).unwrap()
}

fn live_set(pool: &Pool) -> LiveSet {
    LiveSet::new(pool.index().refresh().unwrap(), &HashSet::new())
}

fn walk_all(pool: &Pool, live: &LiveSet, trouble: &dyn Trouble) -> Result<()> {
    let images = pool.images().unwrap();
    let roots = images.iter().map(|image| Root {
        image: format!("image {}", image.number),
        tree: image.root.subtree.unwrap(),
    });
    walk(pool, live, roots, trouble, &Counters::default(), &Cancel::new())
}

#[test]
fn everything_of_the_only_image_is_reached_and_nothing_of_an_expired_one() {
    let pool = new_pool();
    let gone = back_up(&pool, 1, &files("gone", 2, 10, 5000)).unwrap();
    let live = live_set(&pool);
    walk_all(&pool, &live, &Stop).unwrap();
    assert_eq!(live.count(), live.snapshot().len());

    back_up(&pool, 2, &files("kept", 3, 10, 5000)).unwrap();
    pool.expire(&gone).unwrap();
    let live = live_set(&pool);
    walk_all(&pool, &live, &Stop).unwrap();
    // Three chunks a file, three directories and the root.
    assert_eq!(live.count(), 3 * 10 * 3 + 3 + 1);
    let tallies = live.tallies();
    assert_eq!(tallies.iter().map(|tally| tally.live_chunks).sum::<u64>(), live.count());
    assert!(tallies.iter().any(|tally| tally.live_chunks == 0));
    assert!(tallies.is_sorted_by_key(|tally| tally.pack.id));
}

#[test]
fn a_chunk_in_two_packs_is_live_once_and_outside_excluded_packs_if_it_can_be() {
    let pool = new_pool();
    let content = files("a", 1, 5, 3000);
    back_up(&pool, 1, &content).unwrap();
    let first: HashSet<_> = pool.index().packs().iter().map(|pack| pack.id).collect();
    images::store(&pool, 2, &content, first.clone()).unwrap();
    for excluded in [HashSet::new(), first.clone()] {
        let live = LiveSet::new(pool.index().refresh().unwrap(), &excluded);
        walk_all(&pool, &live, &Stop).unwrap();
        assert_eq!(live.count() * 2, live.snapshot().len());
        let alive = live.tallies().into_iter().filter(|tally| tally.live_chunks > 0);
        assert!(
            excluded.is_empty() || alive.into_iter().all(|tally| !first.contains(&tally.pack.id))
        );
    }
}

/// Gathers what it is told.
#[derive(Default)]
struct Gather(Mutex<Vec<(String, Error)>>);

impl Trouble for Gather {
    fn trouble(&self, path: &[u8], error: Error) -> Result<()> {
        self.0.lock().push((String::from_utf8_lossy(path).into_owned(), error));
        Ok(())
    }
}

/// An image with one file of this content, and the reference to its directory.
fn commit_with(pool: &Pool, content: impl Fn(&dyn ChunkSink) -> (u64, Content)) {
    let (counters, cancel) = (Counters::default(), Cancel::new());
    let marked = HashSet::new();
    let options = ingest::Options {
        counters: &counters,
        cancel: &cancel,
        level: 1,
        marked,
        job: None,
        claims: Arc::default(),
    };
    let tree = ingest::run(pool, options, |ingest| {
        let mut file = Entry::new(b"odd", EntryKind::File);
        (file.size, file.content) = content(ingest);
        let mut raw = Vec::new();
        codec::encode_entry(&file, &mut raw)?;
        build::write_directory(ingest, [codec::RawEntry { name: b"odd", raw: &raw }])
    });
    let mut manifest = images::store(pool, 9, &files("x", 1, 1, 10), HashSet::new()).unwrap();
    manifest.root.subtree = Some(tree.unwrap());
    let job = crate::pool::jobs::Job::begin(
        pool.shared_store(),
        pool.keys(),
        crate::pool::jobs::JobKind::Backup,
        0,
    );
    pool.commit_image(&manifest, &job.unwrap()).unwrap();
}

#[test]
fn a_tree_that_is_referred_to_as_data_is_not_taken_for_walked() {
    let pool = new_pool();
    let image = back_up(&pool, 1, &files("a", 2, 5, 3000)).unwrap();
    let victim = pool.image(&image).unwrap().root;
    let directory = Directory::of(&pool, &victim).unwrap().entries().next().unwrap().unwrap();
    let hidden = directory.subtree.unwrap();
    commit_with(&pool, |_| (u64::from(hidden.length), Content::Direct(vec![hidden])));
    let live = live_set(&pool);
    let told = walk_all(&pool, &live, &Stop).unwrap_err().to_string();
    assert!(told.contains("odd") && told.contains("another kind"), "{told}");
    let live = live_set(&pool);
    assert_eq!(live.mark(Kind::Data, &hidden.name), Marked::Misplaced);
    assert!(!live.is_live(&hidden.name));
}

#[test]
fn a_missing_chunk_a_wrong_length_and_a_wrong_list_are_told_with_their_files() {
    let pool = new_pool();
    commit_with(&pool, |_| {
        let name = crate::ids::Name([7; 32]);
        (10, Content::Direct(vec![crate::ids::Ref { name, length: 10 }]))
    });
    commit_with(&pool, |sink| {
        let real = sink.store(Kind::Data, b"twelve bytes").unwrap();
        (5, Content::Direct(vec![crate::ids::Ref { length: 5, ..real }]))
    });
    commit_with(&pool, |sink| {
        let list = sink.store(Kind::List, b"no references at all").unwrap();
        (1000, Content::Listed { depth: 1, list })
    });
    let gather = Gather::default();
    walk_all(&pool, &live_set(&pool), &gather).unwrap();
    let told = gather.0.into_inner();
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(told.iter().all(|(path, _)| path == "image 9:/odd"));
    for words in ["in no known pack", "12 bytes stored, 5 wanted", "no list of references"] {
        assert!(told.iter().any(|(_, error)| error.to_string().contains(words)), "{words}");
    }
}

#[test]
fn a_cancelled_walk_ends() {
    let pool = new_pool();
    back_up(&pool, 1, &files("a", 2, 5, 3000)).unwrap();
    let cancel = Cancel::new();
    cancel.cancel();
    let tree = pool.images().unwrap()[0].root.subtree.unwrap();
    let roots = [Root { image: "image".into(), tree }];
    let ended =
        walk(&pool, &live_set(&pool), roots, &Stop, &Counters::default(), &cancel).unwrap_err();
    assert!(matches!(ended, Error::Cancelled));
}

#[test]
fn a_path_of_any_depth_is_spelled_and_dropped() {
    let mut path = Path::root("image");
    assert_eq!(path.bytes(), b"image:/");
    path = path.join(b"a").join(b"b");
    assert_eq!(path.bytes(), b"image:/a/b");
    for _ in 0..1_000_000 {
        path = path.join(b"x");
    }
    assert_eq!(path.bytes().len(), "image:/a/b".len() + 2_000_000);
    drop(path);
}
