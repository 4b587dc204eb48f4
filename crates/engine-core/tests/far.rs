//! A pool that is reached through somebody else: what comes back is what was there, whatever
//! becomes of the link, and nothing that a hostile client says is taken for what it is not.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod kit;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use holdfast_engine_core::backup::Request;
use holdfast_engine_core::backup::machine::{DiskInput, What};
use holdfast_engine_core::cancel::Cancel;
use holdfast_engine_core::codec::{Codec, Compressor};
use holdfast_engine_core::counters::Counters;
use holdfast_engine_core::error::{Error, Result};
use holdfast_engine_core::far::deliver::{Wanted, deliver};
use holdfast_engine_core::far::receive::{Commit, Reception};
use holdfast_engine_core::far::terms::Terms;
use holdfast_engine_core::far::trees::Trees;
use holdfast_engine_core::far::{self, Compress, Far, Link, body};
use holdfast_engine_core::finding::Findings;
use holdfast_engine_core::gc;
use holdfast_engine_core::ids::{Kind, Name, Ref};
use holdfast_engine_core::manifest::Manifest;
use holdfast_engine_core::pack::footer::{ChunkInfo, PackKind};
use holdfast_engine_core::pool::{Pool, PoolConfig, marks};
use holdfast_engine_core::restore::{self, target::Overwrite};
use holdfast_engine_core::store::Store;
use holdfast_engine_core::store::memory::MemoryStore;
use kit::Tree;
use kit::disk::MemoryDisk;

fn pool() -> Arc<Pool> {
    Arc::new(kit::create(Arc::new(MemoryStore::new())))
}

fn commit() -> Commit {
    Commit {
        source: "far:tree".into(),
        host: "far".into(),
        labels: BTreeMap::from([("policy".to_owned(), "nightly".to_owned())]),
        finished_ns: kit::now_ns(),
    }
}

/// Both ends in one process. Every so often something is said twice, or fails for good.
struct Direct {
    pool: Arc<Pool>,
    reception: Option<Reception>,
    asked: AtomicU64,
    read: AtomicU64,
    sent_bytes: AtomicU64,
    twice: bool,
    calls: AtomicUsize,
    fails_at: Option<usize>,
}

impl Direct {
    fn to(pool: &Arc<Pool>) -> Self {
        Direct {
            pool: Arc::clone(pool),
            reception: Some(Reception::begin(Arc::clone(pool), kit::now_ns()).unwrap()),
            asked: AtomicU64::new(0),
            read: AtomicU64::new(0),
            sent_bytes: AtomicU64::new(0),
            twice: false,
            calls: AtomicUsize::new(0),
            fails_at: None,
        }
    }

    fn reading(pool: &Arc<Pool>) -> Self {
        Direct { reception: None, ..Self::to(pool) }
    }

    fn reception(&self) -> &Reception {
        self.reception.as_ref().unwrap()
    }

    fn call(&self) -> Result<()> {
        let call = self.calls.fetch_add(1, Ordering::SeqCst);
        match self.fails_at {
            Some(at) if call >= at => {
                let cause = Arc::new(std::io::Error::other("cut off"));
                Err(Error::Link { what: "the way to the media server", cause })
            }
            _ => Ok(()),
        }
    }
}

impl Link for Direct {
    fn missing(&self, names: &[u8]) -> Result<Vec<u8>> {
        self.call()?;
        self.asked.fetch_add((names.len() / 32) as u64, Ordering::SeqCst);
        self.reception().missing(names)
    }

    fn send(&self, body: Vec<u8>) -> Result<()> {
        self.call()?;
        self.sent_bytes.fetch_add(body.len() as u64, Ordering::SeqCst);
        for _ in 0..=usize::from(self.twice) {
            self.reception().take(&body)?;
        }
        Ok(())
    }

    fn read(&self, wanted: &[u8]) -> Result<Vec<u8>> {
        self.call()?;
        self.read.fetch_add(1, Ordering::SeqCst);
        deliver(&self.pool, wanted, None, &Counters::default())
    }

    fn commit(&self, draft: &[u8]) -> Result<Vec<u8>> {
        self.call()?;
        let manifest = self.reception().commit(draft, commit())?;
        assert_eq!(self.reception().commit(draft, commit())?, manifest, "asked again");
        manifest.encode()
    }
}

fn back_up_with(link: Direct, request: &Request, parent: Option<&Manifest>) -> Result<Manifest> {
    let terms = Terms::decode(&link.reception().terms().encode()).unwrap();
    let far = Far::new(terms, Arc::new(link));
    let (counters, findings) = (Counters::default(), Findings::default());
    let image = far::backup::run(&far, request, parent, &counters, &findings, &Cancel::new())?;
    assert_eq!(findings.kept(), []);
    Ok(image)
}

fn back_up(pool: &Arc<Pool>, tree: &Tree, parent: Option<&Manifest>) -> Manifest {
    back_up_with(Direct::to(pool), &kit::request(tree), parent).unwrap()
}

/// Restores from afar and compares.
fn assert_restores_from_afar(pool: &Arc<Pool>, image: &Manifest, tree: &Tree) {
    let folder = tempfile::tempdir().unwrap();
    let terms = Terms::of(pool, true);
    let far = Far::new(terms, Arc::new(Direct::reading(pool)));
    let request = restore::Request {
        image: image.id,
        paths: Vec::new(),
        to: folder.path().as_os_str().as_bytes().to_vec(),
        overwrite: Overwrite::Never,
        strip_components: 0,
        verify: true,
        workers: 2,
    };
    let (counters, findings) = (Counters::default(), Arc::new(Findings::default()));
    let cancel = Cancel::new();
    far::restore::run(&far, image.clone(), &request, &counters, &findings, &cancel).unwrap();
    assert_eq!(findings.kept(), []);
    let top = image.source.paths[0].strip_prefix(b"/").unwrap();
    let state = kit::read_folder(&folder.path().join(OsStr::from_bytes(top)));
    assert!(state == tree.state());
}

#[test]
fn what_was_backed_up_from_afar_is_restored_from_here_and_from_afar() {
    let (pool, tree) = (pool(), Tree::new());
    let mut parent = None;
    for round in 0..4 {
        let state = tree.state();
        let image = back_up(&pool, &tree, parent.as_ref());
        assert_eq!(image.number, round + 1);
        assert_eq!((image.source.host.as_str(), image.source.name.as_str()), ("far", "far:tree"));
        assert_eq!(image.labels().collect::<Vec<_>>(), [("policy", "nightly")]);
        assert_eq!(image.parent, parent.map(|image: Manifest| image.id));
        assert_eq!(pool.image(&image.id).unwrap(), image);
        kit::assert_restored(&pool, &image, &state, "from here");
        assert_restores_from_afar(&pool, &image, &tree);
        tree.change(round);
        parent = Some(image);
    }
    assert_eq!(kit::check(&pool).unwrap(), []);
    assert_eq!(kit::stored_twice(&pool), []);
}

/// Text that shrinks, noise that does not, and many small files.
fn mixed() -> Tree {
    let tree = Tree::new();
    for number in 0..6_u64 {
        let words: String = (0..60_000)
            .map(|at| format!("{} and ", (at * 7919 + number * 104_729) % 99_991))
            .collect();
        tree.write(&format!("text {number}"), words.as_bytes());
        tree.write(&format!("noise {number}"), &kit::noise(300_000, number));
        tree.write(&format!("small {number}"), format!("small {number}").repeat(50).as_bytes());
    }
    tree
}

#[test]
fn what_is_left_to_the_media_server_lies_in_the_pool_as_small_as_else() {
    let tree = mixed();
    let mut stored = Vec::new();
    for way in [Compress::Here, Compress::There, Compress::Measured] {
        let pool = pool();
        let link = Arc::new(Direct { twice: true, ..Direct::to(&pool) });
        let far =
            Far::new(link.reception().terms(), Arc::clone(&link) as Arc<dyn Link>).compressing(way);
        let (counters, findings) = (Counters::default(), Findings::default());
        let request = kit::request(&tree);
        let image =
            far::backup::run(&far, &request, None, &counters, &findings, &Cancel::new()).unwrap();
        let (sent, received) = (counters.snapshot(), link.reception().counters().snapshot());
        let is_left = way == Compress::There;
        assert_eq!(sent.bytes_left > sent.bytes_new / 2, is_left);
        assert_eq!(image.stats.get("bytes_left"), Some(&sent.bytes_left));
        if is_left {
            assert!(sent.bytes_transmitted > sent.bytes_new * 95 / 100);
            assert_eq!(received.bytes_left, sent.bytes_left);
        } else {
            assert!(sent.bytes_transmitted < sent.bytes_new * 9 / 10, "{sent:?}");
            assert_eq!(received.bytes_left, 0);
        }
        kit::assert_restored(&pool, &image, &tree.state(), "");
        assert_eq!(kit::check(&pool).unwrap(), []);
        stored.push(image.stats["bytes_stored"]);
    }
    let (least, most) = (stored.iter().min().unwrap(), stored.iter().max().unwrap());
    assert!(most - least < least / 50, "{stored:?}");
}

#[test]
fn what_is_not_to_be_compressed_or_would_cost_too_much_is_not_left() {
    let tree = mixed();
    for level in [0, 5, 19] {
        let pool = pool();
        let link = Direct::to(&pool);
        let far = Far::new(link.reception().terms(), Arc::new(link)).compressing(Compress::There);
        let (counters, findings) = (Counters::default(), Findings::default());
        let request = Request { level, ..kit::request(&tree) };
        let image =
            far::backup::run(&far, &request, None, &counters, &findings, &Cancel::new()).unwrap();
        assert_eq!(image.stats["bytes_left"], 0);
    }
}

#[test]
fn more_than_is_kept_near_is_restored_by_many_threads() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let pool = Pool::create(store, &kit::KEY, PoolConfig::default(), 0, None).unwrap();
    let (pool, tree) = (Arc::new(pool), Tree::new());
    for number in 0..24 {
        tree.write(&format!("large {number}"), &kit::noise(6_000_000, number));
    }
    let image = back_up(&pool, &tree, None);
    for workers in [1, 16] {
        let folder = tempfile::tempdir_in("/dev/shm").unwrap();
        let link = Arc::new(Direct::reading(&pool));
        let far = Far::new(Terms::of(&pool, true), Arc::clone(&link) as Arc<dyn Link>);
        let request = restore::Request {
            image: image.id,
            paths: Vec::new(),
            to: folder.path().as_os_str().as_bytes().to_vec(),
            overwrite: Overwrite::Never,
            strip_components: 0,
            verify: true,
            workers,
        };
        let (counters, findings) = (Counters::default(), Arc::new(Findings::default()));
        let cancel = Cancel::new();
        far::restore::run(&far, image.clone(), &request, &counters, &findings, &cancel).unwrap();
        assert_eq!(findings.kept(), []);
        let reads = link.read.load(Ordering::SeqCst);
        assert!(reads < 200, "{reads} reads for 144 MB with {workers} threads");
    }
}

#[test]
fn what_is_there_does_not_travel() {
    let (pool, tree) = (pool(), Tree::new());
    // From here first: the pool knows all of it, under another image.
    kit::back_up(&pool, &tree).unwrap();
    let link = Direct::to(&pool);
    let terms = link.reception().terms();
    let link = Arc::new(link);
    let far = Far::new(terms, Arc::clone(&link) as Arc<dyn Link>);
    let (counters, findings) = (Counters::default(), Findings::default());
    let cancel = Cancel::new();
    let request = kit::request(&tree);
    let image = far::backup::run(&far, &request, None, &counters, &findings, &cancel).unwrap();
    // The directories above the tree may have changed meanwhile.
    let sent = link.sent_bytes.load(Ordering::SeqCst);
    assert!(sent < 3000, "{sent} bytes were sent");
    assert!(link.asked.load(Ordering::SeqCst) > 20);
    kit::assert_restored(&pool, &image, &tree.state(), "");
}

#[test]
fn an_unchanged_tree_asks_for_nothing_below_what_leads_to_it() {
    let (pool, tree) = (pool(), Tree::new());
    std::thread::sleep(std::time::Duration::from_millis(100));
    let first = back_up(&pool, &tree, None);
    let link = Direct::to(&pool);
    let far_terms = link.reception().terms();
    let link = Arc::new(link);
    let far = Far::new(far_terms, Arc::clone(&link) as Arc<dyn Link>);
    let (counters, findings) = (Counters::default(), Findings::default());
    let request = kit::request(&tree);
    let image =
        far::backup::run(&far, &request, Some(&first), &counters, &findings, &Cancel::new())
            .unwrap();
    let seen = counters.snapshot();
    assert_eq!((seen.files_changed, seen.files_unchanged), (0, seen.files));
    assert!(link.asked.load(Ordering::SeqCst) < 8);
    kit::assert_restored(&pool, &image, &tree.state(), "");
}

#[test]
fn directories_that_are_remembered_do_not_travel_and_change_nothing() {
    let (pool, tree) = (pool(), Tree::new());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("trees");
    let mut parent: Option<Manifest> = None;
    for round in 0..4 {
        if round == 3 {
            // Rubbish is as good as nothing.
            std::fs::write(&file, b"rubbish").unwrap();
        }
        let state = tree.state();
        let link = Arc::new(Direct::to(&pool));
        let far = Far::new(link.reception().terms(), Arc::clone(&link) as Arc<dyn Link>)
            .remembering(Trees::open(&file, pool.id()).unwrap());
        let (counters, findings) = (Counters::default(), Findings::default());
        let (request, cancel) = (kit::request(&tree), Cancel::new());
        let image =
            far::backup::run(&far, &request, parent.as_ref(), &counters, &findings, &cancel)
                .unwrap();
        let reads = link.read.load(Ordering::SeqCst);
        assert_eq!(reads > 0, round == 3, "round {round}: {reads} reads");
        kit::assert_restored(&pool, &image, &state, "with remembered directories");
        assert!(std::fs::metadata(&file).unwrap().len() > 500);
        tree.change(round);
        parent = Some(image);
    }
    assert_eq!(kit::check(&pool).unwrap(), []);
}

#[test]
fn whoever_finds_nothing_new_for_long_gives_signs_of_life_until_they_are_refused() {
    struct Slow {
        direct: Direct,
        signs: AtomicUsize,
        refuses: bool,
    }
    impl Link for Slow {
        fn missing(&self, names: &[u8]) -> Result<Vec<u8>> {
            let signs = self.signs.fetch_add(usize::from(names.is_empty()), Ordering::SeqCst);
            if names.is_empty() && signs >= 2 && self.refuses {
                return Err(Error::Invalid("given up".into()));
            }
            self.direct.missing(names)
        }
        fn send(&self, body: Vec<u8>) -> Result<()> {
            self.direct.send(body)
        }
        fn read(&self, wanted: &[u8]) -> Result<Vec<u8>> {
            while self.signs.load(Ordering::SeqCst) < 3 {
                std::thread::yield_now();
            }
            self.direct.read(wanted)
        }
        fn commit(&self, draft: &[u8]) -> Result<Vec<u8>> {
            self.direct.commit(draft)
        }
    }
    let (pool, tree) = (pool(), Tree::new());
    let first = back_up(&pool, &tree, None);
    for refuses in [false, true] {
        let link = Slow { direct: Direct::to(&pool), signs: AtomicUsize::new(0), refuses };
        let far = Far::new(link.direct.reception().terms(), Arc::new(link))
            .signing_every(std::time::Duration::from_millis(5));
        let (counters, findings) = (Counters::default(), Findings::default());
        let (request, cancel) = (kit::request(&tree), Cancel::new());
        let done = far::backup::run(&far, &request, Some(&first), &counters, &findings, &cancel);
        match done {
            Ok(_) => assert!(!refuses),
            Err(error) => assert!(refuses && error.to_string() == "given up", "{error}"),
        }
    }
}

#[test]
fn what_is_said_twice_is_stored_once() {
    let (pool, tree) = (pool(), Tree::new());
    let link = Direct { twice: true, ..Direct::to(&pool) };
    let image = back_up_with(link, &kit::request(&tree), None).unwrap();
    kit::assert_restored(&pool, &image, &tree.state(), "");
    assert_eq!(kit::stored_twice(&pool), []);
}

#[test]
fn wherever_the_link_breaks_the_pool_is_sound_and_the_next_try_sends_only_the_rest() {
    let tree = Tree::new();
    // How many calls a backup takes depends on how questions happen to be grouped.
    for at in 0.. {
        let pool = pool();
        let broken = Direct { fails_at: Some(at), ..Direct::to(&pool) };
        let error = match back_up_with(broken, &kit::request(&tree), None) {
            Err(error) => error,
            Ok(_) => {
                assert!(at > 3, "it takes questions, a body and a commit");
                return;
            }
        };
        assert_eq!(error.code(), "unreachable", "{error}");
        assert!(error.to_string().contains("cut off"));
        assert_eq!(pool.images().unwrap(), []);
        let image = back_up(&pool, &tree, None);
        kit::assert_restored(&pool, &image, &tree.state(), "after a broken link");
        assert_eq!(kit::check(&pool).unwrap(), [], "broken at call {at}");
        assert_eq!(kit::stored_twice(&pool), [], "broken at call {at}");
    }
}

#[test]
fn what_an_abandoned_backup_sent_is_not_sent_again() {
    let (pool, tree) = (pool(), Tree::new());
    let link = Direct { fails_at: None, ..Direct::to(&pool) };
    let far = Far::new(link.reception().terms(), Arc::new(Direct::to(&pool)));
    drop(far);
    // All is handed over, and nothing is committed.
    struct NoCommit(Direct);
    impl Link for NoCommit {
        fn missing(&self, names: &[u8]) -> Result<Vec<u8>> {
            self.0.missing(names)
        }
        fn send(&self, body: Vec<u8>) -> Result<()> {
            self.0.send(body)
        }
        fn read(&self, wanted: &[u8]) -> Result<Vec<u8>> {
            self.0.read(wanted)
        }
        fn commit(&self, _: &[u8]) -> Result<Vec<u8>> {
            self.0.reception().abandon()?;
            Err(Error::Cancelled)
        }
    }
    let far = Far::new(link.reception().terms(), Arc::new(NoCommit(link)));
    let (counters, findings) = (Counters::default(), Findings::default());
    let request = kit::request(&tree);
    let error = far::backup::run(&far, &request, None, &counters, &findings, &Cancel::new());
    assert_eq!(error.unwrap_err().code(), "cancelled");
    let again = Arc::new(Direct::to(&pool));
    let far = Far::new(again.reception().terms(), Arc::clone(&again) as Arc<dyn Link>);
    far::backup::run(&far, &request, None, &counters, &findings, &Cancel::new()).unwrap();
    assert!(again.sent_bytes.load(Ordering::SeqCst) < 3000);
}

#[test]
fn two_clients_at_once_are_both_whole() {
    let pool = pool();
    let trees: Vec<Tree> = (0..3).map(|_| Tree::new()).collect();
    let images: Vec<Manifest> = std::thread::scope(|scope| {
        let running: Vec<_> =
            trees.iter().map(|tree| scope.spawn(|| back_up(&pool, tree, None))).collect();
        running.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for (image, tree) in images.iter().zip(&trees) {
        kit::assert_restored(&pool, image, &tree.state(), "");
    }
    assert_eq!(kit::check(&pool).unwrap(), []);
}

#[test]
fn a_collection_waits_for_a_backup_from_afar() {
    let (pool, tree) = (pool(), Tree::new());
    let first = back_up(&pool, &tree, None);
    pool.expire(&first.id).unwrap();
    // It relies on what no image names any more.
    let link = Direct::to(&pool);
    let collected = kit::collect(&pool).unwrap();
    assert_eq!(collected.packs_deleted, 0);
    assert_eq!(collected.waiting_for.len(), 1);
    let image = back_up_with(link, &kit::request(&tree), None).unwrap();
    kit::collect(&pool).unwrap();
    kit::assert_restored(&pool, &image, &tree.state(), "after the collection");
}

#[test]
fn what_a_mark_names_is_sent_again() {
    let (pool, tree) = (pool(), Tree::new());
    let first = back_up(&pool, &tree, None);
    pool.expire(&first.id).unwrap();
    let waits = Direct::to(&pool);
    let request = gc::Request { now_ns: kit::now_ns(), dry_run: false, lease_s: 3600, level: 1 };
    gc::collect(&pool, &request, &Counters::default(), &Cancel::new()).unwrap();
    assert!(marks::read(pool.store(), pool.keys()).unwrap().any);
    let second = Direct::to(&pool);
    assert!(!second.reception().terms().may_reuse);
    // The parent is gone from the pool, but this client still has its manifest.
    let image = back_up_with(second, &kit::request(&tree), Some(&first)).unwrap();
    waits.reception().abandon().unwrap();
    kit::collect(&pool).unwrap();
    kit::assert_restored(&pool, &image, &tree.state(), "after the collection");
    assert_eq!(kit::check(&pool).unwrap(), []);
}

fn block_of(pool: &Pool, chunks: &[(Name, &[u8])], level: i32) -> Vec<u8> {
    let plain: Vec<u8> = chunks.iter().flat_map(|(_, bytes)| bytes.iter().copied()).collect();
    let infos: Vec<ChunkInfo> = chunks
        .iter()
        .map(|(name, bytes)| ChunkInfo {
            name: *name,
            length: bytes.len() as u32,
            kind: Kind::Data,
        })
        .collect();
    let mut encoded = Vec::new();
    let codec = Compressor::new(level).unwrap().encode(&plain, &mut encoded).unwrap();
    let mut writer = body::Writer::default();
    writer.push(PackKind::Data, codec, &infos, &encoded);
    assert!(pool.config().block_bytes > 0);
    writer.take()
}

#[test]
fn wrong_content_under_a_right_name_is_refused_and_harms_nobody() {
    let (pool, tree) = (pool(), Tree::new());
    let hostile = Reception::begin(Arc::clone(&pool), kit::now_ns()).unwrap();
    let name = pool.keys().name(Kind::Data, b"what everybody has");
    for level in [0, 3] {
        let error = hostile
            .take(&block_of(&pool, &[(name, b"what the attacker has".as_slice())], level))
            .unwrap_err();
        assert_eq!(error.code(), "integrity");
        assert!(error.to_string().contains(&name.to_string()), "{error}");
    }
    // The right chunk beside a wrong one is not taken either, nor taken for being there.
    let right = pool.keys().name(Kind::Data, b"right");
    let both = [(right, b"right".as_slice()), (name, b"wrong".as_slice())];
    assert_eq!(hostile.take(&block_of(&pool, &both, 0)).unwrap_err().code(), "integrity");
    assert_eq!(hostile.missing(&[right.0, name.0].concat()).unwrap(), [0b11]);
    let image = back_up(&pool, &tree, None);
    hostile.abandon().unwrap();
    kit::assert_restored(&pool, &image, &tree.state(), "");
    assert_eq!(kit::check(&pool).unwrap(), []);
}

#[test]
fn what_is_malformed_is_refused_with_a_code_and_the_backup_goes_on() {
    let (pool, tree) = (pool(), Tree::new());
    let link = Direct::to(&pool);
    let reception = link.reception();
    let longest = vec![1; pool.config().chunks.max as usize + 1];
    let name = pool.keys().name(Kind::Data, &longest);
    let too_long = block_of(&pool, &[(name, longest.as_slice())], 0);
    let bomb = {
        let mut encoded = Vec::new();
        Compressor::new(3).unwrap().encode(&vec![0; 8 << 20], &mut encoded).unwrap();
        let chunk = ChunkInfo { name: Name([9; 32]), length: 4096, kind: Kind::Data };
        let mut writer = body::Writer::default();
        writer.push(PackKind::Data, Codec::Zstd, &[chunk], &encoded[..4000.min(encoded.len())]);
        writer.take()
    };
    for (bad, code) in [
        (&b""[..], "invalid"),
        (&[0xff; 4096], "invalid"),
        (too_long.as_slice(), "invalid"),
        (bomb.as_slice(), "integrity"),
    ] {
        assert_eq!(reception.take(bad).unwrap_err().code(), code);
    }
    assert_eq!(reception.missing(&[0; 33]).unwrap_err().code(), "invalid");
    let image = back_up_with(link, &kit::request(&tree), None).unwrap();
    kit::assert_restored(&pool, &image, &tree.state(), "");
}

#[test]
fn an_image_whose_root_never_came_is_not_committed() {
    let (pool, tree) = (pool(), Tree::new());
    let real = back_up(&pool, &tree, None);
    for (draft, code) in [
        (b"rubbish".to_vec(), "invalid"),
        (
            {
                let mut draft = real.clone();
                let name = Name([5; 32]);
                draft.root.subtree = Some(Ref { name, length: 100 });
                draft.encode().unwrap()
            },
            "chunk-missing",
        ),
    ] {
        let reception = Reception::begin(Arc::clone(&pool), kit::now_ns()).unwrap();
        assert_eq!(reception.commit(&draft, commit()).unwrap_err().code(), code);
    }
    assert_eq!(pool.image_ids().unwrap().len(), 1);
}

#[test]
fn chunks_are_delivered_by_name_and_nothing_beside_them() {
    let (pool, tree) = (pool(), Tree::new());
    back_up(&pool, &tree, None);
    let large = kit::noise(20_000, 1);
    let first = pool.chunker().cut(&large[..4096]);
    let name = pool.keys().name(Kind::Data, &large[..first]);
    let one = Ref { name, length: first as u32 };
    let counters = Counters::default();
    let wanted = Wanted::encode(Kind::Data, &[one]);
    let bytes = deliver(&pool, &wanted, Some(u64::MAX), &counters).unwrap();
    let blocks = body::parse(&bytes).unwrap();
    assert_eq!(blocks.len(), 1);
    assert_eq!(blocks[0].body, &large[..first]);
    let gone = Wanted::encode(Kind::Data, &[Ref { name: Name([1; 32]), length: 7 }]);
    assert_eq!(
        deliver(&pool, &gone, Some(u64::MAX), &counters).unwrap_err().code(),
        "chunk-missing"
    );
    let lying = Wanted::encode(Kind::Data, &[Ref { name, length: 7 }]);
    assert_eq!(deliver(&pool, &lying, Some(u64::MAX), &counters).unwrap_err().code(), "integrity");
    for bad in [&wanted[..36], &[7; 37][..], &[0; 37 * 16_385][..]] {
        assert_eq!(deliver(&pool, bad, Some(u64::MAX), &counters).unwrap_err().code(), "invalid");
    }
}

#[test]
fn a_reception_that_is_dropped_leaves_no_record() {
    let store = Arc::new(MemoryStore::new());
    let pool = Arc::new(kit::create(Arc::clone(&store) as Arc<dyn Store>));
    drop(Reception::begin(Arc::clone(&pool), kit::now_ns()).unwrap());
    let mut jobs = 0;
    store
        .list("jobs/", &mut |_, _| {
            jobs += 1;
            Ok(())
        })
        .unwrap();
    assert_eq!(jobs, 0);
}

#[test]
fn terms_come_back_and_newer_ones_are_refused() {
    let pool = pool();
    let terms = Terms::of(&pool, false);
    assert!(Terms::decode(&terms.encode()).unwrap() == terms);
    let mut newer = terms.encode();
    newer[1] = 2;
    let refused = Terms::decode(&newer).err().unwrap();
    assert_eq!(refused.code(), "newer-format");
    let whole = terms.encode();
    for upto in 0..whole.len() {
        assert!(Terms::decode(&whole[..upto]).is_err());
    }
}

#[test]
fn a_machine_comes_back_from_a_pool_far_away_and_what_did_not_change_is_not_sent_again() {
    let pool = pool();
    let mut bytes = kit::noise(9_000_000, 1);
    bytes[1_000_000..5_000_000].fill(0);
    let back_up = |disks: Vec<DiskInput>, parent: Option<&Manifest>| {
        let direct = Arc::new(Direct::to(&pool));
        let far = Far::new(direct.reception().terms(), Arc::clone(&direct) as Arc<dyn Link>);
        let request = kit::disk::machine(disks, None);
        let (counters, findings) = (Counters::default(), Findings::default());
        let cancel = Cancel::new();
        let image = far::backup::run_machine(&far, &request, parent, &counters, &findings, &cancel);
        assert_eq!(findings.kept(), []);
        image.map(|image| (image, direct.sent_bytes.load(Ordering::SeqCst)))
    };
    let source = MemoryDisk::new(bytes.clone());
    let (first, sent) = back_up(vec![kit::disk::unknown(&source)], None).unwrap();
    assert!(sent > 4_000_000, "{sent}");
    assert!(kit::disk::contents(&pool, &first, "/disks/vda") == bytes);
    bytes[200_000..200_100].fill(7);
    let source = MemoryDisk::new(bytes.clone());
    let known = vec![
        kit::disk::range(0, 131_072, What::Same),
        kit::disk::range(131_072, 131_072, What::Data),
        kit::disk::range(262_144, 9_000_000 - 262_144, What::Same),
    ];
    let changed = || kit::disk::disk(&source, known.clone());
    let (second, sent) = back_up(vec![changed()], Some(&first)).unwrap();
    assert!(sent < 400_000, "{sent}");
    assert_eq!(second.parent, Some(first.id));
    assert!(kit::disk::contents(&pool, &second, "/disks/vda") == bytes);
    assert!(source.read.load(Ordering::SeqCst) < 200_000);
    let refused = back_up(vec![changed()], None).unwrap_err();
    assert_eq!(refused.code(), "invalid");
}
