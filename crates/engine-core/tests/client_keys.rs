//! Backups that the pool stores and can't read: what comes back is what was there, the pool shows
//! nothing of it, and whatever a hostile media server puts in its place is noticed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod kit;

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use holdfast_engine_core::backup;
use holdfast_engine_core::cancel::Cancel;
use holdfast_engine_core::check;
use holdfast_engine_core::client_key::{ClientKey, Names, Sealing};
use holdfast_engine_core::codec::{Codec, Decompressor};
use holdfast_engine_core::counters::Counters;
use holdfast_engine_core::error::{Error, Result};
use holdfast_engine_core::far::deliver::{Wanted, deliver};
use holdfast_engine_core::far::receive::{Commit, Reception};
use holdfast_engine_core::far::replicate;
use holdfast_engine_core::far::terms::Terms;
use holdfast_engine_core::far::{self, Far, Link, body};
use holdfast_engine_core::finding::Findings;
use holdfast_engine_core::gc;
use holdfast_engine_core::ids::{Kind, Ref};
use holdfast_engine_core::manifest::{BEGAN_READING, Manifest};
use holdfast_engine_core::pool::Pool;
use holdfast_engine_core::restore::{self, target::Overwrite};
use holdfast_engine_core::store::memory::MemoryStore;
use holdfast_engine_core::tree::codec::{TreeObject, decode_object};
use holdfast_engine_core::tree::entry::Entry;
use holdfast_engine_core::tree::lists::read_refs;
use holdfast_engine_core::tree::walk;
use kit::Tree;

const SOURCE: &str = "far:tree";
const MODES: [Names; 2] = [Names::Open, Names::Sealed];

type Tamper = Box<dyn Fn(&[u8], Vec<u8>) -> Result<Vec<u8>> + Send + Sync>;

/// Both ends in one process; what is read may be tampered with on the way.
struct Direct {
    pool: Arc<Pool>,
    reception: Option<Reception>,
    sent: Arc<AtomicU64>,
    tamper: Option<Tamper>,
}

impl Direct {
    fn reception(&self) -> &Reception {
        self.reception.as_ref().unwrap()
    }
}

impl Link for Direct {
    fn missing(&self, names: &[u8]) -> Result<Vec<u8>> {
        self.reception().missing(names)
    }

    fn send(&self, body: Vec<u8>) -> Result<()> {
        self.sent.fetch_add(body.len() as u64, Ordering::SeqCst);
        self.reception().take(&body)
    }

    fn read(&self, wanted: &[u8]) -> Result<Vec<u8>> {
        match &self.tamper {
            Some(tamper) => {
                tamper(wanted, deliver(&self.pool, wanted, None, &Counters::default())?)
            }
            None => deliver(&self.pool, wanted, None, &Counters::default()),
        }
    }

    fn commit(&self, draft: &[u8]) -> Result<Vec<u8>> {
        let labels = BTreeMap::from([("policy".to_owned(), "nightly".to_owned())]);
        let (source, host) = (SOURCE.to_owned(), "far".to_owned());
        let commit = Commit { source, host, labels, finished_ns: kit::now_ns() };
        self.reception().commit(draft, commit)?.encode()
    }
}

fn pool() -> Arc<Pool> {
    Arc::new(kit::create(Arc::new(MemoryStore::new())))
}

fn key(seed: u8) -> Arc<ClientKey> {
    Arc::new(ClientKey::derive(&[seed; 32]))
}

fn request(tree: &Tree) -> backup::Request {
    backup::Request { source: SOURCE.into(), ..kit::request(tree) }
}

/// The image, the bytes that were sent, and the findings.
fn back_up_with(
    pool: &Arc<Pool>,
    request: &backup::Request,
    parent: Option<&Manifest>,
    sealing: Option<Sealing>,
) -> (Manifest, u64, Findings) {
    let reception = Some(Reception::begin(Arc::clone(pool), kit::now_ns()).unwrap());
    let sent = Arc::new(AtomicU64::new(0));
    let link = Direct { pool: Arc::clone(pool), reception, sent: Arc::clone(&sent), tamper: None };
    let far = Far::new(link.reception().terms(), Arc::new(link));
    let far = match sealing {
        Some(sealing) => far.sealing(sealing).unwrap(),
        None => far,
    };
    let (counters, findings) = (Counters::default(), Findings::default());
    let image = far::backup::run(&far, request, parent, &counters, &findings, &Cancel::new());
    (image.unwrap(), sent.load(Ordering::SeqCst), findings)
}

fn back_up(pool: &Arc<Pool>, tree: &Tree, names: Names) -> Manifest {
    let sealing = Some(Sealing { key: key(1), names });
    back_up_with(pool, &request(tree), None, sealing).0
}

struct Restored {
    folder: tempfile::TempDir,
    outcome: Result<restore::Outcome>,
    findings: Arc<Findings>,
}

fn restore_with(
    pool: &Arc<Pool>,
    image: &Manifest,
    key: Option<Arc<ClientKey>>,
    paths: &[Vec<u8>],
    tamper: Option<Tamper>,
) -> Restored {
    let folder = tempfile::tempdir().unwrap();
    let link = Direct { pool: Arc::clone(pool), reception: None, sent: Arc::default(), tamper };
    let far = Far::new(Terms::of(pool, true), Arc::new(link));
    let far = match key {
        Some(key) => far.sealing(Sealing { key, names: Names::Open }).unwrap(),
        None => far,
    };
    let request = restore::Request {
        image: image.id,
        paths: paths.to_vec(),
        to: folder.path().as_os_str().as_bytes().to_vec(),
        overwrite: Overwrite::Never,
        strip_components: 0,
        verify: true,
        workers: 2,
    };
    let (counters, findings) = (Counters::default(), Arc::new(Findings::default()));
    let outcome =
        far::restore::run(&far, image.clone(), &request, &counters, &findings, &Cancel::new());
    Restored { folder, outcome, findings }
}

fn assert_restores(pool: &Arc<Pool>, image: &Manifest, tree: &Tree) {
    let restored = restore_with(pool, image, Some(key(1)), &[], None);
    restored.outcome.unwrap();
    assert_eq!(restored.findings.kept(), []);
    let at = restored.folder.path().join(tree.path().strip_prefix("/").unwrap());
    assert_eq!(kit::read_folder(&at), tree.state());
}

/// Every chunk that an image needs, as the pool has it in plain bytes.
fn chunks(pool: &Pool, image: &Manifest) -> Vec<(Kind, Ref, Vec<u8>)> {
    let counters = Counters::default();
    let mut found = Vec::new();
    let mut trees = vec![image.root.subtree.unwrap()];
    while let Some(tree) = trees.pop() {
        let bytes = pool.chunk(Kind::Tree, &tree, &counters).unwrap().to_vec();
        match decode_object(&bytes).unwrap() {
            TreeObject::Node { items, .. } => trees.extend(items.iter().map(|(_, child)| *child)),
            TreeObject::Leaf(entries) => {
                for raw in entries {
                    let entry: Entry = raw.decode().unwrap();
                    trees.extend(entry.subtree);
                    for reference in read_refs(pool, &entry.content).unwrap() {
                        let data = pool.chunk(Kind::Data, &reference, &counters).unwrap();
                        found.push((Kind::Data, reference, data.to_vec()));
                    }
                }
            }
        }
        found.push((Kind::Tree, tree, bytes));
    }
    found
}

fn holds(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[test]
fn what_comes_back_is_what_was_there_and_every_check_is_content() {
    for names in MODES {
        let (pool, tree) = (pool(), Tree::new());
        let image = back_up(&pool, &tree, names);
        assert_eq!(image.client_key(), Some(key(1).id().to_string().as_str()));
        assert_eq!(image.has_sealed_names(), names == Names::Sealed);
        assert_restores(&pool, &image, &tree);
        let (counters, findings) = (Counters::default(), Findings::default());
        for read_data in [false, true] {
            let request = check::Request { read_data };
            let cancel = Cancel::new();
            check::verify(&pool, None, request, &counters, &findings, &cancel).unwrap();
            check::check(&pool, request, &counters, &findings, &cancel).unwrap();
        }
        assert_eq!(findings.kept(), []);
    }
}

#[test]
fn the_pool_has_no_content_and_with_sealed_names_no_name() {
    for names in MODES {
        let (pool, tree) = (pool(), Tree::new());
        tree.write("docs/quarterly figures", b"a secret that stands alone in its file");
        let image = back_up(&pool, &tree, names);
        let all = chunks(&pool, &image);
        let manifest = image.encode().unwrap();
        for (_, _, bytes) in &all {
            assert!(!holds(bytes, b"secret that stands"));
            assert!(!holds(bytes, b"all work and no play"));
        }
        let has_name = all.iter().any(|(_, _, bytes)| holds(bytes, b"quarterly figures"))
            || holds(&manifest, b"quarterly figures");
        assert_eq!(has_name, names == Names::Open);
        let has_target = all.iter().any(|(_, _, bytes)| holds(bytes, b"docs/text"));
        assert_eq!(has_target, names == Names::Open);
    }
}

#[test]
fn compressible_data_is_stored_short_and_equal_data_once() {
    let (pool, tree) = (pool(), Tree::new());
    let image = back_up(&pool, &tree, Names::Sealed);
    let data: Vec<_> =
        chunks(&pool, &image).into_iter().filter(|(kind, ..)| *kind == Kind::Data).collect();
    assert!(data.iter().all(|(_, reference, bytes)| {
        reference.is_client_sealed() && bytes.len() == reference.stored_length() as usize
    }));
    // 'all work and no play' in some thousand bytes.
    assert!(
        data.iter().any(|(_, reference, bytes)| reference.plain_length() > 10 * bytes.len() as u32)
    );
    let mut names: Vec<_> = data.iter().map(|(_, reference, _)| reference.name).collect();
    let all = names.len();
    names.sort_unstable();
    names.dedup();
    assert!(names.len() < all, "'docs/same' and 'same too' are one");
}

#[test]
fn an_incremental_sends_what_changed_and_nothing_if_nothing_did() {
    for names in MODES {
        let (pool, tree) = (pool(), Tree::new());
        let sealing = || Some(Sealing { key: key(1), names });
        let (first, whole, _) = back_up_with(&pool, &request(&tree), None, sealing());
        // The clock that stamps files is coarse: what was read just now would be read again.
        std::thread::sleep(std::time::Duration::from_millis(120));
        let again =
            |parent: &Manifest| back_up_with(&pool, &request(&tree), Some(parent), sealing());
        let (mut second, none, _) = again(&first);
        let (mut third, mut still_none, _) = again(&second);
        // Others make directories beside this one, which changes the one that all of them are in.
        for _ in 0..100 {
            if still_none == 0 {
                break;
            }
            second = third;
            (third, still_none, _) = again(&second);
        }
        assert!(none < whole / 10 && still_none == 0, "{whole} {none} {still_none}");
        assert_eq!(third.root.subtree, second.root.subtree);
        assert_eq!(third.parent, Some(second.id));
        assert!(third.stats["files_unchanged"] > 0);
        tree.change(1);
        let (fourth, some, _) = back_up_with(&pool, &request(&tree), Some(&third), sealing());
        assert!(some > 0);
        assert_restores(&pool, &fourth, &tree);
    }
}

#[test]
fn an_image_that_is_sealed_otherwise_is_no_parent_and_no_error() {
    let (pool, tree) = (pool(), Tree::new());
    let open = back_up(&pool, &tree, Names::Open);
    std::thread::sleep(std::time::Duration::from_millis(120));
    let plain = back_up_with(&pool, &request(&tree), Some(&open), None).0;
    assert_eq!((plain.parent, plain.stats["files_unchanged"]), (None, 0));
    assert_eq!(plain.client_key(), None);
    for (parent, seed, names) in [
        (&open, 1, Names::Sealed),
        (&open, 2, Names::Open),
        (&plain, 1, Names::Open),
        (&plain, 1, Names::Sealed),
    ] {
        let sealing = Some(Sealing { key: key(seed), names });
        let image = back_up_with(&pool, &request(&tree), Some(parent), sealing).0;
        assert_eq!((image.parent, image.stats["files_unchanged"]), (None, 0));
        let restored = restore_with(&pool, &image, Some(key(seed)), &[], None);
        restored.outcome.unwrap();
        assert_eq!(restored.findings.kept(), []);
    }
    // Nor does one that is here compare with what it can't open, asked for or found.
    let (counters, findings) = (Counters::default(), Findings::default());
    for parent in [Some(open.id), None] {
        let last = back_up(&pool, &tree, Names::Sealed);
        let mut request = request(&tree);
        request.parent = parent;
        let image = backup::run(&pool, &request, &counters, &findings, &Cancel::new()).unwrap();
        assert_ne!(image.parent, Some(open.id));
        assert_ne!(image.parent, Some(last.id));
    }
}

#[test]
fn a_parent_that_the_key_did_not_sign_so_is_no_parent() {
    let (pool, tree) = (pool(), Tree::new());
    let honest = back_up(&pool, &tree, Names::Sealed);
    let sealing = || Some(Sealing { key: key(1), names: Names::Sealed });
    let mut later = honest.clone();
    // Files that changed since would be taken for old.
    let ns = later.began_reading_ns() + 1_000_000_000_000;
    later.options.insert(BEGAN_READING.to_owned(), ns.to_string());
    let mut another = honest.clone();
    another.root = back_up(&pool, &Tree::tiny(), Names::Sealed).root;
    let mut renamed = honest.clone();
    renamed.source.name = "far:other".into();
    for parent in [later, another, renamed] {
        let image = back_up_with(&pool, &request(&tree), Some(&parent), sealing()).0;
        assert_eq!(image.parent, None);
    }
}

#[test]
fn without_the_key_nothing_is_restored_and_the_error_names_it() {
    let (pool, tree) = (pool(), Tree::new());
    for names in MODES {
        let image = back_up(&pool, &tree, names);
        for key in [None, Some(key(2))] {
            let restored = restore_with(&pool, &image, key, &[], None);
            let error = restored.outcome.unwrap_err();
            assert_eq!(error.code(), "client-key-needed");
            assert!(error.to_string().contains(image.client_key().unwrap()), "{error}");
            assert_eq!(std::fs::read_dir(restored.folder.path()).unwrap().count(), 0);
        }
    }
    let plain = back_up_with(&pool, &request(&tree), None, None).0;
    let restored = restore_with(&pool, &plain, Some(key(1)), &[], None);
    assert_eq!(restored.outcome.unwrap_err().code(), "integrity");
}

#[test]
fn a_pool_that_is_here_is_restored_from_with_the_key_alone() {
    let (pool, tree) = (pool(), Tree::new());
    let image = back_up(&pool, &tree, Names::Sealed);
    let (counters, findings) = (Counters::default(), Arc::new(Findings::default()));
    let folder = tempfile::tempdir().unwrap();
    let request = restore::Request {
        image: image.id,
        paths: Vec::new(),
        to: folder.path().as_os_str().as_bytes().to_vec(),
        overwrite: Overwrite::Never,
        strip_components: 0,
        verify: true,
        workers: 1,
    };
    let cancel = Cancel::new();
    let refused = restore::run(&pool, &request, &counters, &findings, &cancel).unwrap_err();
    assert_eq!(refused.code(), "client-key-needed");
    let key = key(1);
    restore::run_with(&pool, &request, Some(&key), &counters, &findings, &cancel).unwrap();
    let at = folder.path().join(tree.path().strip_prefix("/").unwrap());
    assert_eq!(kit::read_folder(&at), tree.state());
}

#[test]
fn what_nobody_can_read_goes_to_another_pool_and_is_restored_from_there() {
    for names in MODES {
        let (pool, tree) = (pool(), Tree::new());
        let config = *pool.config();
        let (store, naming) = (Arc::new(MemoryStore::new()), Some(pool.keys().naming()));
        let other = Pool::create_sharing(store, &[9; 32], config, 0, naming, None).unwrap();
        let other = Arc::new(other);
        let mut parent: Option<Manifest> = None;
        for round in 0..3 {
            let sealing = Some(Sealing { key: key(1), names });
            let (image, ..) = back_up_with(&pool, &request(&tree), parent.as_ref(), sealing);
            let (to, counters, cancel) = (Arc::clone(&other), Counters::default(), Cancel::new());
            let (base, now) = (parent.as_ref().map(|parent| &parent.id), kit::now_ns());
            let copied =
                replicate::between(&pool, to, &image.id, base, now, &counters, &cancel).unwrap();
            assert_eq!(copied, image);
            let seen = counters.snapshot();
            assert!(round == 0 || seen.bytes_total < 60_000, "{} bytes", seen.bytes_total);
            assert_restores(&other, &image, &tree);
            tree.change(round);
            parent = Some(image);
        }
        assert_eq!(kit::check(&other).unwrap(), []);
    }
}

#[test]
fn paths_are_chosen_by_plain_names_and_by_sealed_ones() {
    let (pool, tree) = (pool(), Tree::new());
    let image = back_up(&pool, &tree, Names::Sealed);
    let plain = tree.path().join("docs/deep").as_os_str().as_bytes().to_vec();
    for path in [plain.clone(), key(1).seal_path(&plain)] {
        let restored = restore_with(&pool, &image, Some(key(1)), &[path], None);
        assert_eq!(restored.outcome.unwrap().files, 1);
        let at = restored.folder.path().join(tree.path().strip_prefix("/").unwrap());
        assert_eq!(std::fs::read(at.join("docs/deep/er/small")).unwrap(), b"a few bytes");
        assert!(!at.join("docs/large").exists());
    }
    let missing = restore_with(&pool, &image, Some(key(1)), &[b"/no/such".to_vec()], None);
    let error = missing.outcome.unwrap_err();
    assert_eq!((error.code(), error.to_string().contains("/no/such")), ("path-missing", true));
    // Sealed names are found as what they are by whoever has no key.
    let sealed = walk::find(&*pool, &image.root, &key(1).seal_path(&plain)).unwrap();
    assert_eq!((sealed.mode, sealed.hidden.is_some()), (0, true));
}

#[test]
fn garbage_is_collected_around_what_nobody_can_read() {
    for names in MODES {
        let (pool, tree) = (pool(), Tree::new());
        tree.write("docs/huge", &kit::noise(2_000_000, 77));
        let first = back_up(&pool, &tree, names);
        tree.change(1);
        let second = back_up(&pool, &tree, names);
        pool.expire(&first.id).unwrap();
        for _ in 0..2 {
            let request =
                gc::Request { now_ns: kit::now_ns(), dry_run: false, lease_s: 1, level: 1 };
            gc::collect(&pool, &request, &Counters::default(), &Cancel::new()).unwrap();
        }
        assert_restores(&pool, &second, &tree);
    }
}

#[test]
fn findings_name_no_file_where_names_are_sealed() {
    let (pool, tree) = (pool(), Tree::new());
    let image = back_up(&pool, &tree, Names::Sealed);
    let data = chunks(&pool, &image);
    let lost = data.iter().find(|(kind, ..)| *kind == Kind::Data).unwrap().1;
    let tamper: Tamper = Box::new(move |wanted, body| {
        let asks = wanted.chunks_exact(37).any(|one| one[..32] == lost.name.0);
        if asks { Ok([b"HFB1".as_slice(), &[0; 4]].concat()) } else { Ok(body) }
    });
    let restored = restore_with(&pool, &image, Some(key(1)), &[], Some(tamper));
    restored.outcome.unwrap();
    let kept = restored.findings.kept();
    assert!(!kept.is_empty());
    for finding in kept {
        assert!(finding.path.starts_with(b"/sealed:"), "{finding:?}");
        let opened = key(1).open_path(&finding.path);
        assert!(opened.starts_with(restored.folder.path().as_os_str().as_bytes()));
    }
}

/// A hostile media server that has all keys of the pool: what it answers has the right names under
/// the keys that it gave, wherever that can be had.
mod hostile {
    use super::*;

    fn refused(pool: &Arc<Pool>, image: &Manifest, tamper: Option<Tamper>) {
        let restored = restore_with(pool, image, Some(key(1)), &[], tamper);
        match restored.outcome {
            Err(error) => assert_eq!(error.code(), "integrity", "{error}"),
            Ok(_) => {
                let kept = restored.findings.kept();
                assert!(kept.iter().any(|finding| finding.code == "integrity"), "{kept:?}");
                // Nothing wrong is left behind.
                let all = kit::read_folder(restored.folder.path());
                assert!(!format!("{all:?}").contains("forged"));
            }
        }
    }

    #[test]
    fn another_tree_another_time_another_source_or_no_proof_is_refused() {
        for names in MODES {
            let (pool, tree) = (pool(), Tree::new());
            let honest = back_up(&pool, &tree, names);
            tree.change(1);
            let later = back_up(&pool, &tree, names);
            let forged = back_up_with(&pool, &request(&tree), None, None).0;
            let mut images = Vec::new();
            for root in [&later.root, &forged.root] {
                images.push(Manifest { root: root.clone(), ..honest.clone() });
            }
            let mut another_time = honest.clone();
            another_time.options.insert(BEGAN_READING.to_owned(), "5".to_owned());
            images.push(another_time);
            let mut source = honest.clone();
            source.source.name.push('x');
            let mut paths = honest.clone();
            paths.source.paths.push(b"/etc".to_vec());
            images.extend([source, paths]);
            for option in ["client_key", "client_key.names", "client_key.proof"] {
                for value in [None, Some("open"), Some("sealed"), Some("00")] {
                    let mut image = honest.clone();
                    let before = image.options.remove(option);
                    if let Some(value) = value {
                        image.options.insert(option.into(), value.into());
                    }
                    if image.options.get(option) != before.as_ref() {
                        images.push(image);
                    }
                }
            }
            let mut stripped = honest.clone();
            stripped.options.retain(|name, _| !name.starts_with("client_key"));
            images.push(stripped);
            for image in images {
                let restored = restore_with(&pool, &image, Some(key(1)), &[], None);
                let code = restored.outcome.unwrap_err().code();
                assert!(["integrity", "client-key-needed"].contains(&code), "{code}");
            }
        }
    }

    #[test]
    fn other_keys_of_names_are_noticed_before_anything_is_read() {
        let (one, tree) = (pool(), Tree::new());
        let image = back_up(&one, &tree, Names::Sealed);
        let other = Arc::new(
            Pool::create(Arc::new(MemoryStore::new()), &[8; 32], kit::config(), 0, None).unwrap(),
        );
        refused(&other, &image, None);
    }

    #[test]
    fn flipped_bits_and_swapped_chunks_are_noticed() {
        for names in MODES {
            let (pool, tree) = (pool(), Tree::new());
            let image = back_up(&pool, &tree, names);
            let all = chunks(&pool, &image);
            for kind in [Kind::Data, Kind::Tree] {
                let of: Vec<Ref> =
                    all.iter().filter(|one| one.0 == kind).map(|one| one.1).collect();
                let (first, second) =
                    (of[0], of.iter().find(|one| one.name != of[0].name).unwrap());
                let (second, pool_) = (*second, Arc::clone(&pool));
                // Another chunk of the same image under the wanted name.
                refused(
                    &pool,
                    &image,
                    Some(Box::new(move |wanted, body| {
                        let asks = wanted.chunks_exact(37).any(|one| one[..32] == first.name.0);
                        if !asks {
                            return Ok(body);
                        }
                        let question = Wanted::encode(kind, &[second]);
                        let mut answer =
                            deliver(&pool_, &question, Some(u64::MAX), &Counters::default())?;
                        answer[24..56].copy_from_slice(&first.name.0);
                        Ok(answer)
                    })),
                );
            }
            refused(
                &pool,
                &image,
                Some(Box::new(|_, mut body| {
                    let last = body.len() - 1;
                    body[last] ^= 1;
                    Ok(body)
                })),
            );
        }
    }

    /// Whoever knows the pool's keys can name any bytes: what lies below the name has its own seal.
    #[test]
    fn bytes_that_the_key_did_not_seal_are_no_chunk_of_its() {
        let (pool, tree) = (pool(), Tree::tiny());
        let image = back_up(&pool, &tree, Names::Open);
        for (kind, reference, bytes) in chunks(&pool, &image) {
            if kind != Kind::Data {
                continue;
            }
            let opener = holdfast_engine_core::client_key::chunk::ChunkOpener::default();
            assert!(opener.open(&key(1), &reference, &bytes).is_ok());
            let forged = vec![b'f'; bytes.len()];
            let error = opener.open(&key(1), &reference, &forged).unwrap_err();
            assert_eq!(error.code(), "integrity");
        }
    }

    #[test]
    fn what_the_server_made_of_the_draft_is_looked_at() {
        struct Changing(Direct);
        impl Link for Changing {
            fn missing(&self, names: &[u8]) -> Result<Vec<u8>> {
                self.0.missing(names)
            }
            fn send(&self, body: Vec<u8>) -> Result<()> {
                self.0.send(body)
            }
            fn read(&self, wanted: &[u8]) -> Result<Vec<u8>> {
                self.0.read(wanted)
            }
            fn commit(&self, draft: &[u8]) -> Result<Vec<u8>> {
                let mut image = Manifest::decode(&self.0.commit(draft)?)?;
                image.root.subtree = None;
                image.encode()
            }
        }
        let (pool, tree) = (pool(), Tree::tiny());
        let reception = Some(Reception::begin(Arc::clone(&pool), kit::now_ns()).unwrap());
        let link = Direct { pool, reception, sent: Arc::default(), tamper: None };
        let far = Far::new(link.reception().terms(), Arc::new(Changing(link)));
        let far = far.sealing(Sealing { key: key(1), names: Names::Sealed }).unwrap();
        let (counters, findings) = (Counters::default(), Findings::default());
        let error =
            far::backup::run(&far, &request(&tree), None, &counters, &findings, &Cancel::new());
        assert_eq!(error.unwrap_err().code(), "integrity");
    }
}

/// What travels is what is stored: no block of sealed data is compressed in vain.
#[test]
fn sealed_data_travels_as_it_is() {
    let (pool, tree) = (pool(), Tree::tiny());
    let image = back_up(&pool, &tree, Names::Open);
    let (_, reference, bytes) =
        chunks(&pool, &image).into_iter().find(|(kind, ..)| *kind == Kind::Data).unwrap();
    let question = Wanted::encode(Kind::Data, &[reference]);
    let body = deliver(&pool, &question, None, &Counters::default()).unwrap();
    let blocks = body::parse(&body).unwrap();
    assert_eq!(blocks[0].codec, Codec::Stored);
    let naming = Terms::of(&pool, true).naming;
    assert_eq!(blocks[0].decode(&naming, &mut Decompressor::new().unwrap()).unwrap(), bytes);
}

#[test]
fn a_pool_whose_chunks_are_of_one_length_takes_no_client_keys() {
    let pool = pool();
    let mut terms = Terms::of(&pool, true);
    terms.chunks.max = terms.chunks.avg + 2;
    let link = Direct { pool, reception: None, sent: Arc::default(), tamper: None };
    let far = Far::new(terms, Arc::new(link));
    let refused: Result<Far, Error> = far.sealing(Sealing { key: key(1), names: Names::Open });
    assert_eq!(refused.err().unwrap().code(), "unsupported");
}
