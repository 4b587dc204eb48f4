//! Several images as one tree: whatever was divided is whole again, sealed or not.
#![allow(clippy::unwrap_used, clippy::panic)]

mod kit;

use std::collections::BTreeMap;
use std::sync::Arc;

use holdfast_engine_core::client_key::{ClientKey, DirKey, Names};
use holdfast_engine_core::error::Result;
use holdfast_engine_core::ids::{Kind, Ref};
use holdfast_engine_core::keys::NameKeys;
use holdfast_engine_core::manifest::Manifest;
use holdfast_engine_core::repository::Repository;
use holdfast_engine_core::store::memory::MemoryStore;
use holdfast_engine_core::tree::build::DirectoryBuilder;
use holdfast_engine_core::tree::changes::What;
use holdfast_engine_core::tree::codec::{self, RawEntry};
use holdfast_engine_core::tree::entry::{Content, Entry, EntryKind};
use holdfast_engine_core::tree::memory::{MemoryChunks, plant};
use holdfast_engine_core::tree::walk::Directory;
use holdfast_engine_core::tree::{ChunkSink, ChunkSource, lists};
use holdfast_engine_core::whole::{Layer, WholeTree};
use proptest::prelude::*;

type Tree = BTreeMap<Vec<u8>, Entry>;

/// Images whose trees are in memory.
struct Images {
    chunks: Arc<MemoryChunks>,
    manifest: Manifest,
    naming: NameKeys,
}

impl Images {
    fn new() -> Self {
        let pool = Arc::new(kit::create(Arc::new(MemoryStore::new())));
        let manifest = kit::back_up(&pool, &kit::Tree::new()).unwrap();
        let naming = NameKeys::from_bytes(&pool.naming().to_bytes());
        Images { chunks: Arc::default(), manifest, naming }
    }

    fn of(&self, tree: &Tree) -> Manifest {
        Manifest { root: plant(&*self.chunks, tree).unwrap(), ..self.manifest.clone() }
    }

    fn sealed(&self, tree: &Tree, key: &ClientKey) -> Manifest {
        let open = plant(&*self.chunks, tree).unwrap();
        let subtree = open.subtree.map(|root| seal(&self.chunks, key, key.root_dir(), root));
        let root = key.seal_root(Entry { subtree, ..open }).unwrap();
        let mut image = Manifest { root, ..self.manifest.clone() };
        key.sign(&mut image, &self.naming, Names::Sealed).unwrap();
        image
    }

    fn layer(&self, image: Manifest, keys: &[Arc<ClientKey>]) -> Result<Layer> {
        Layer::new(self.chunks.clone(), &self.naming, image, keys)
    }

    fn whole(
        &self,
        images: impl IntoIterator<Item = Manifest>,
        keys: &[Arc<ClientKey>],
    ) -> WholeTree {
        let layers: Result<Vec<Layer>> =
            images.into_iter().map(|image| self.layer(image, keys)).collect();
        WholeTree::new(layers.unwrap()).unwrap()
    }
}

/// As a client stores a directory whose names it seals.
fn seal(chunks: &MemoryChunks, key: &ClientKey, dir: DirKey, root: Ref) -> Ref {
    let mut sealed: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    for entry in Directory::open(chunks, root).unwrap().entries() {
        let mut entry = entry.unwrap();
        entry.subtree = entry.subtree.map(|below| seal(chunks, key, dir.child(&entry.name), below));
        let entry = key.seal_entry(&dir, entry).unwrap();
        let mut raw = Vec::new();
        codec::encode_entry(&entry, &mut raw).unwrap();
        sealed.insert(entry.name, raw);
    }
    let mut builder = DirectoryBuilder::new(chunks);
    for (name, raw) in &sealed {
        builder.push(RawEntry { name, raw }).unwrap();
    }
    builder.finish().unwrap()
}

fn empty(mode: u32) -> Entry {
    Entry { mode, ..Entry::new(b"x", EntryKind::File) }
}

fn dir(mode: u32) -> Entry {
    Entry { mode, ..Entry::new(b"x", EntryKind::Dir) }
}

/// Every path and its mode.
fn all(tree: &WholeTree) -> BTreeMap<Vec<u8>, u32> {
    let mut found = BTreeMap::new();
    let mut pending = vec![Vec::new()];
    while let Some(path) = pending.pop() {
        for entry in tree.list(&path).unwrap() {
            let below = [path.as_slice(), &entry.name].join(&b'/');
            if entry.kind == EntryKind::Dir {
                pending.push(below.clone());
            }
            assert_eq!(tree.find(&below).unwrap(), entry);
            found.insert(below, entry.mode);
        }
    }
    found
}

fn told(new: &WholeTree, old: Option<&WholeTree>) -> Vec<(What, Vec<u8>)> {
    let mut found = Vec::new();
    new.changes_since(old, &mut |change| {
        found.push((change.what, [change.dir, change.entry.name].join(&b'/')));
        Ok(())
    })
    .unwrap();
    found
}

fn parts() -> [Tree; 3] {
    [
        Tree::from([(b"srv/a/one".to_vec(), empty(0o600)), (b"srv/a".to_vec(), dir(0o711))]),
        Tree::from([(b"srv/b/deep/two".to_vec(), empty(0o601))]),
        Tree::from([
            (b"srv/three".to_vec(), empty(0o602)),
            (b"srv/a".to_vec(), dir(0o700)),
            (b"srv/none".to_vec(), dir(0o755)),
            (b"srv/b".to_vec(), empty(0o666)),
        ]),
    ]
}

fn expected() -> BTreeMap<Vec<u8>, u32> {
    let rows: [(&[u8], u32); 8] = [
        (b"/srv", 0o755),
        // Of a directory in several, the attributes are those of the first.
        (b"/srv/a", 0o711),
        (b"/srv/a/one", 0o600),
        // A file that another image has in the place of a directory of an earlier one is not seen.
        (b"/srv/b", 0o755),
        (b"/srv/b/deep", 0o755),
        (b"/srv/b/deep/two", 0o601),
        (b"/srv/none", 0o755),
        (b"/srv/three", 0o602),
    ];
    rows.into_iter().map(|(path, mode)| (path.to_vec(), mode)).collect()
}

#[test]
fn what_several_images_have_is_one_tree() {
    let images = Images::new();
    let whole = images.whole(parts().iter().map(|tree| images.of(tree)), &[]);
    assert_eq!(all(&whole), expected());
    assert_eq!(whole.find(b"/srv/nowhere").unwrap_err().code(), "path-missing");
    assert_eq!(told(&whole, None).len(), 8);
    assert_eq!(told(&whole, Some(&whole)), []);
    // A directory of one image alone is that image's own.
    let own = images.whole([images.of(&parts()[1])], &[]);
    let below = |tree: &WholeTree| tree.find(b"/srv/b/deep").unwrap().subtree;
    assert_eq!(below(&whole), below(&own));
}

#[test]
fn names_are_opened_in_all_images_and_paths_may_be_sealed() {
    let images = Images::new();
    let key = Arc::new(ClientKey::derive(&[1; 32]));
    let keys = [key.clone()];
    let sealed = || parts().map(|tree| images.sealed(&tree, &key));
    let whole = images.whole(sealed(), &keys);
    assert_eq!(all(&whole), expected());
    assert_eq!(whole.root().mode, 0o755);
    let path = key.seal_path(b"/srv/b/deep/two");
    assert_eq!(whole.find(&path).unwrap().mode, 0o601);
    whole.require_readable().unwrap();
    // Without the key it is one tree as well, of names as the pool has them.
    let shown = images.whole(sealed(), &[]);
    let plain: Vec<Vec<u8>> = all(&shown).keys().map(|path| key.open_path(path)).collect();
    assert!(all(&shown).keys().all(|path| path.starts_with(b"/sealed:")));
    let mut names = plain.clone();
    names.sort();
    assert!(names.iter().eq(expected().keys()));
    assert_eq!(shown.require_readable().unwrap_err().code(), "client-key-needed");
    assert_eq!(shown.open(&path).err().unwrap().code(), "client-key-needed");
    // Of two keys each opens its own.
    let other = Arc::new(ClientKey::derive(&[2; 32]));
    let [first, second, third] = parts();
    let mixed = [images.sealed(&first, &key), images.sealed(&second, &other), images.of(&third)];
    assert_eq!(all(&images.whole(mixed, &[key.clone(), other])), expected());
}

#[test]
fn an_image_that_its_key_did_not_seal_so_is_refused() {
    let images = Images::new();
    let key = Arc::new(ClientKey::derive(&[1; 32]));
    let [first, second, _] = parts();
    let good = images.sealed(&first, &key);
    let root = images.sealed(&second, &key).root;
    let changed = Manifest { root, ..good };
    assert_eq!(images.layer(changed, &[key]).err().unwrap().code(), "integrity");
}

#[test]
fn a_directory_of_another_place_is_not_opened() {
    let images = Images::new();
    let key = Arc::new(ClientKey::derive(&[1; 32]));
    let image = images.sealed(&parts()[1], &key);
    // Whoever has the pool puts the directory "b" in the place of "srv".
    let chunks = &images.chunks;
    let below = |root: Ref| {
        let mut entries = Directory::open(&**chunks, root).unwrap().entries();
        entries.next().unwrap().unwrap()
    };
    let top = below(image.root.subtree.unwrap());
    let inner = below(top.subtree.unwrap());
    let mut raw = Vec::new();
    codec::encode_entry(&Entry { subtree: inner.subtree, ..top.clone() }, &mut raw).unwrap();
    let mut builder = DirectoryBuilder::new(&**chunks);
    builder.push(RawEntry { name: &top.name, raw: &raw }).unwrap();
    let mut forged = image;
    forged.root.subtree = Some(builder.finish().unwrap());
    // The proof of the root would tell already: have it signed.
    key.sign(&mut forged, &images.naming, Names::Sealed).unwrap();
    let whole = images.whole([forged], &[key]);
    assert_eq!(whole.list(b"/").unwrap().len(), 1);
    assert_eq!(whole.list(b"/srv").unwrap_err().code(), "integrity");
}

#[test]
fn data_in_the_open_is_not_taken_for_sealed_data() {
    let images = Images::new();
    let key = Arc::new(ClientKey::derive(&[1; 32]));
    let refs = vec![images.chunks.store(Kind::Data, b"not sealed").unwrap()];
    let file = Entry {
        size: 10,
        content: lists::write_refs(&*images.chunks, &refs).unwrap(),
        ..empty(0o600)
    };
    assert!(matches!(file.content, Content::Direct(_)));
    let tree = Tree::from([(b"file".to_vec(), file)]);
    let whole = images.whole([images.sealed(&tree, &key)], std::slice::from_ref(&key));
    let read = |whole: &WholeTree| whole.open(b"/file").unwrap().read_at(0, &mut [0; 10]);
    assert_eq!(read(&whole).unwrap_err().code(), "integrity");
    assert_eq!(read(&images.whole([images.of(&tree)], &[])).unwrap(), 10);
}

#[test]
fn a_directory_of_many_names_in_several_images_is_listed_whole_again_and_again() {
    let images = Images::new();
    let tree = |from: u32| -> Tree {
        let names = (from..60_000).step_by(3);
        names.map(|number| (format!("home/{number:05}").into_bytes(), dir(0o700))).collect()
    };
    let whole = images.whole((0..3).map(|from| images.of(&tree(from))), &[]);
    for _ in 0..2 {
        let names: Vec<Vec<u8>> =
            whole.list(b"/home").unwrap().into_iter().map(|entry| entry.name).collect();
        assert_eq!(names.len(), 60_000);
        assert!(names.is_sorted());
    }
    assert_eq!(whole.find(b"/home/54321").unwrap().mode, 0o700);
}

#[test]
fn a_tree_that_was_divided_otherwise_is_no_other_tree() {
    let images = Images::new();
    let [first, second, _] = parts();
    let both: Tree = first.clone().into_iter().chain(second.clone()).collect();
    let one = images.whole([images.of(&both)], &[]);
    let two = images.whole([images.of(&first), images.of(&second)], &[]);
    assert_eq!(told(&two, Some(&one)), []);
    assert_eq!(told(&one, Some(&two)), []);
    let more: Tree = second.into_iter().chain([(b"srv/b/new".to_vec(), empty(0))]).collect();
    let later = images.whole([images.of(&first), images.of(&more)], &[]);
    assert_eq!(told(&later, Some(&one)), [(What::Added, b"/srv/b/new".to_vec())]);
}

#[test]
fn what_another_pool_has_is_read_from_there_and_a_lost_part_is_told() {
    let (images, far) = (Images::new(), Images::new());
    let [first, second, _] = parts();
    let (near, lost) = (images.of(&first), far.of(&second));
    let root = lost.root.subtree.unwrap();
    let layers =
        || vec![images.layer(near.clone(), &[]).unwrap(), far.layer(lost.clone(), &[]).unwrap()];
    assert_eq!(WholeTree::new(layers()).unwrap().list(b"/srv").unwrap().len(), 2);
    far.chunks.lose(&root);
    let whole = WholeTree::new(layers()).unwrap();
    assert_eq!(whole.list(b"/").unwrap_err().code(), "chunk-missing");
    assert!(far.chunks.fetch(Kind::Tree, &root).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn whatever_is_divided_is_whole_again(
        entries in proptest::collection::btree_map("[a-c]/[a-c]/[a-z]{1,3}", 0..4_usize, 1..30),
        sealed: bool,
    ) {
        let images = Images::new();
        let key = Arc::new(ClientKey::derive(&[1; 32]));
        let mut divided = vec![Tree::new(); 4];
        let mut undivided = Tree::new();
        for (path, at) in &entries {
            divided[*at].insert(path.clone().into_bytes(), empty(0o640));
            undivided.insert(path.clone().into_bytes(), empty(0o640));
        }
        let image = |tree: &Tree| if sealed { images.sealed(tree, &key) } else { images.of(tree) };
        let whole = images.whole(divided.iter().map(image), std::slice::from_ref(&key));
        let one = images.whole([images.of(&undivided)], &[]);
        prop_assert_eq!(all(&whole), all(&one));
        prop_assert_eq!(told(&whole, Some(&one)), []);
    }
}
