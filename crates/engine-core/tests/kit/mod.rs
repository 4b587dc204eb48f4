//! A small pool, a small tree, and what an image of it must hold. For the crash and fault tests.
#![allow(clippy::unwrap_used, clippy::panic, dead_code)]

pub mod disk;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use holdfast_engine_core::backup::{self, Request};
use holdfast_engine_core::cancel::Cancel;
use holdfast_engine_core::check;
use holdfast_engine_core::chunker::ChunkSizes;
use holdfast_engine_core::counters::Counters;
use holdfast_engine_core::error::{Error, Result};
use holdfast_engine_core::finding::{Finding, Findings};
use holdfast_engine_core::gc;
use holdfast_engine_core::ids::{Kind, Name, PackId};
use holdfast_engine_core::manifest::Manifest;
use holdfast_engine_core::pack::reader::Pack;
use holdfast_engine_core::pool::{Pool, PoolConfig};
use holdfast_engine_core::restore::{self, target::Overwrite};
use holdfast_engine_core::store::{Store, list_sorted};
use holdfast_engine_core::tree::ChunkSource;
use holdfast_engine_core::tree::codec::{TreeObject, decode_object};
use holdfast_engine_core::tree::entry::{Entry, EntryKind};
use holdfast_engine_core::tree::lists::read_refs;

pub const KEY: [u8; 32] = [7; 32];

/// Small enough that a few files fill several packs.
pub fn config() -> PoolConfig {
    PoolConfig {
        chunks: ChunkSizes { min: 256, avg: 1024, max: 4096 },
        block_bytes: 4096,
        pack_bytes: 8192,
    }
}

pub fn create(store: Arc<dyn Store>) -> Pool {
    Pool::create(store, &KEY, config(), 0, None).unwrap()
}

pub fn open(store: Arc<dyn Store>) -> Result<Pool> {
    Pool::open(store, &KEY, None)
}

/// The same bytes for the same seed, and incompressible.
pub fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut data = vec![0; length];
    let key = blake3::hash(&seed.to_le_bytes());
    blake3::Hasher::new_keyed(key.as_bytes()).finalize_xof().fill(&mut data);
    data
}

/// A temporary folder, in memory where the system has such: a restore syncs its file system, and
/// would wait for whatever else the machine writes.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// A folder that changes in a way that backups have to notice.
pub struct Tree {
    folder: tempfile::TempDir,
}

impl Tree {
    /// A little of everything that an image stores differently.
    pub fn new() -> Self {
        let tree = Tree { folder: folder() };
        let path = tree.path();
        fs::create_dir_all(path.join("docs/deep/er")).unwrap();
        fs::create_dir(path.join("empty")).unwrap();
        tree.write("docs/large", &noise(20_000, 1));
        tree.write("docs/text", "all work and no play\n".repeat(300).as_bytes());
        tree.write("docs/deep/er/small", b"a few bytes");
        tree.write("docs/same", &noise(3000, 2));
        tree.write("same too", &noise(3000, 2));
        tree.write("nothing", b"");
        symlink("docs/text", path.join("link")).unwrap();
        tree
    }

    /// Three small files: a pool of them is a few thousand bytes.
    pub fn tiny() -> Self {
        let tree = Tree { folder: folder() };
        fs::create_dir(tree.path().join("sub")).unwrap();
        tree.write("a", &noise(700, 1));
        tree.write("sub/b", b"few bytes");
        tree.write("sub/c", "compressible ".repeat(60).as_bytes());
        tree
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn write(&self, name: &str, data: &[u8]) {
        fs::write(self.path().join(name), data).unwrap();
    }

    /// The `round`-th change: new, changed and removed files.
    pub fn change(&self, round: u64) {
        let mut large = noise(20_000, 1);
        large.splice(9000..9100, noise(300, 100 + round));
        self.write("docs/large", &large);
        self.write(&format!("new {round}"), &noise(24_000, 200 + round));
        let _ = fs::remove_file(self.path().join(format!("new {}", round.wrapping_sub(1))));
        self.write("docs/deep/er/small", &noise(40, 300 + round));
    }

    pub fn state(&self) -> State {
        read_folder(self.path())
    }
}

/// What one name is, as far as a test looks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub kind: EntryKind,
    pub mode: u32,
    pub mtime: (i64, u32),
    /// Of files and links.
    pub data: Vec<u8>,
}

/// Paths below the tree's top, and what they are.
pub type State = BTreeMap<Vec<u8>, Node>;

pub fn read_folder(top: &Path) -> State {
    let mut state = State::new();
    let mut open = vec![top.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let meta = fs::symlink_metadata(&path).unwrap();
            let (kind, data) = if meta.is_dir() {
                open.push(path.clone());
                (EntryKind::Dir, Vec::new())
            } else if meta.is_symlink() {
                let target = fs::read_link(&path).unwrap();
                (EntryKind::Symlink, target.as_os_str().as_bytes().to_vec())
            } else {
                (EntryKind::File, fs::read(&path).unwrap())
            };
            let mtime = (meta.mtime(), u32::try_from(meta.mtime_nsec()).unwrap());
            let name = path.strip_prefix(top).unwrap().as_os_str().as_bytes().to_vec();
            state.insert(name, Node { kind, mode: meta.mode() & 0o7777, mtime, data });
        }
    }
    state
}

pub fn now_ns() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(now.as_nanos()).unwrap()
}

pub fn request(tree: &Tree) -> Request {
    Request {
        paths: vec![tree.path().as_os_str().as_bytes().to_vec()],
        source: "test:tree".into(),
        host: "test".into(),
        started_ns: now_ns(),
        exclude: Vec::new(),
        one_file_system: false,
        level: 1,
        workers: 1,
        parent: None,
        read_all: false,
        labels: Default::default(),
        software: "test".into(),
    }
}

pub fn back_up(pool: &Pool, tree: &Tree) -> Result<Manifest> {
    let (counters, findings) = (Counters::default(), Findings::default());
    let image = backup::run(pool, &request(tree), &counters, &findings, &Cancel::new())?;
    assert_eq!(findings.errors(), 0, "of a sound tree: {:?}", findings.kept());
    Ok(image)
}

/// What a restore left, and what it said of it.
pub struct Restored {
    _folder: tempfile::TempDir,
    pub state: State,
    /// Their paths as in the image.
    pub findings: Vec<Finding>,
}

/// Restores the image's tree into an empty folder, and reads each file again there.
pub fn restore(pool: &Pool, image: &Manifest) -> Result<Restored> {
    let folder = folder();
    let request = restore::Request {
        image: image.id,
        paths: image.source.paths.clone(),
        to: folder.path().as_os_str().as_bytes().to_vec(),
        overwrite: Overwrite::Never,
        strip_components: 0,
        verify: true,
        workers: 1,
    };
    let (counters, findings) = (Counters::default(), Arc::new(Findings::default()));
    restore::run(pool, &request, &counters, &findings, &Cancel::new())?;
    let top = image.source.paths.first().cloned().unwrap_or_default();
    let top = folder.path().join(OsStr::from_bytes(top.strip_prefix(b"/").unwrap_or(&top)));
    let state = if top.exists() { read_folder(&top) } else { State::new() };
    let mut findings = findings.kept();
    for finding in &mut findings {
        let path = finding.path.strip_prefix(folder.path().as_os_str().as_bytes());
        finding.path = path.unwrap_or_else(|| panic!("{finding:?} is elsewhere")).to_vec();
    }
    Ok(Restored { _folder: folder, state, findings })
}

/// Restores the image and compares.
pub fn assert_restored(pool: &Pool, image: &Manifest, state: &State, when: &str) {
    let restored = restore(pool, image).unwrap_or_else(|error| panic!("{error} {when}"));
    assert_eq!(restored.findings, [], "image {} {when}", image.number);
    assert!(restored.state == *state, "image {} holds something else {when}", image.number);
}

/// Collects garbage.
pub fn collect(pool: &Pool) -> Result<gc::Collected> {
    let request = gc::Request { now_ns: now_ns(), dry_run: false, lease_s: 3600, level: 1 };
    gc::collect(pool, &request, &Counters::default(), &Cancel::new())
}

/// What a thorough check of the pool says.
pub fn check(pool: &Pool) -> Result<Vec<Finding>> {
    let (counters, findings) = (Counters::default(), Findings::default());
    let request = check::Request { read_data: true };
    check::check(pool, request, &counters, &findings, &Cancel::new())?;
    Ok(findings.kept())
}

/// Everything that an image holds below the tree's top, read chunk by chunk.
pub fn read_image(pool: &Pool, image: &Manifest) -> Result<State> {
    let top = image.source.paths.first().cloned().unwrap_or_default();
    let mut at = image.root.clone();
    for name in top.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
        let names = entries(pool, &at)?;
        let missing = || Error::Invalid("the image lacks its own path".into());
        at = names.into_iter().find(|entry| entry.name == name).ok_or_else(missing)?;
    }
    let mut state = State::new();
    let mut open = vec![(Vec::new(), at)];
    while let Some((path, folder)) = open.pop() {
        for entry in entries(pool, &folder)? {
            let mut path: Vec<u8> = path.clone();
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(&entry.name);
            let data = match entry.kind {
                EntryKind::File => contents(pool, &entry)?,
                EntryKind::Symlink => entry.target.clone().unwrap_or_default(),
                _ => Vec::new(),
            };
            let mtime = (entry.mtime.sec, entry.mtime.nsec);
            state.insert(path.clone(), Node { kind: entry.kind, mode: entry.mode, mtime, data });
            if entry.kind == EntryKind::Dir {
                open.push((path, entry));
            }
        }
    }
    Ok(state)
}

fn entries(pool: &Pool, folder: &Entry) -> Result<Vec<Entry>> {
    let mut open = Vec::from_iter(folder.subtree);
    let mut found = Vec::new();
    while let Some(reference) = open.pop() {
        match decode_object(&pool.fetch(Kind::Tree, &reference)?)? {
            TreeObject::Leaf(entries) => {
                for entry in &entries {
                    found.push(entry.decode()?);
                }
            }
            TreeObject::Node { items, .. } => open.extend(items.iter().map(|(_, child)| *child)),
        }
    }
    Ok(found)
}

fn contents(pool: &Pool, file: &Entry) -> Result<Vec<u8>> {
    let mut data = Vec::new();
    for reference in read_refs(pool, &file.content)? {
        data.extend(pool.fetch(Kind::Data, &reference)?);
    }
    if data.len() as u64 == file.size {
        Ok(data)
    } else {
        Err(Error::integrity("a file", "its chunks do not fill it"))
    }
}

/// Every object whose bytes matter, and its size. The names under `numbers/` say all.
pub fn objects(store: &dyn Store) -> Vec<(String, u64)> {
    let mut objects = list_sorted(store, "").unwrap();
    objects.retain(|(key, _)| !key.starts_with("numbers/"));
    objects
}

/// Every pack in the store.
pub fn packs(store: &dyn Store) -> Vec<PackId> {
    let keys = list_sorted(store, "packs/").unwrap();
    keys.iter().map(|(key, _)| PackId::from_key(key).unwrap()).collect()
}

/// Chunks that more than one pack holds.
pub fn stored_twice(pool: &Pool) -> Vec<Name> {
    let mut seen = BTreeSet::new();
    let mut twice = Vec::new();
    for id in packs(pool.store()) {
        let pack = Pack::discover(pool.store(), pool.keys(), id).unwrap();
        for chunk in pack.footer.chunks() {
            if !seen.insert((chunk.name, chunk.kind as u8)) {
                twice.push(chunk.name);
            }
        }
    }
    twice
}
