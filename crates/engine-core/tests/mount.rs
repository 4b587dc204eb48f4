//! Images mounted and used by the programs that people use.
#![cfg(feature = "mount")]
#![allow(clippy::unwrap_used, clippy::panic)]

mod kit;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirEntryExt, FileExt, MetadataExt};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use holdfast_engine_core::backup;
use holdfast_engine_core::cancel::Cancel;
use holdfast_engine_core::counters::Counters;
use holdfast_engine_core::error::{Error, Result};
use holdfast_engine_core::finding::Findings;
use holdfast_engine_core::ids::{Kind, Ref};
use holdfast_engine_core::mount::inside::{Inside, InsideFiles};
use holdfast_engine_core::mount::{Mount, MountOptions};
use holdfast_engine_core::store::memory::MemoryStore;
use holdfast_engine_core::testing::compare::assert_same_tree;
use holdfast_engine_core::testing::deep::DeepDir;
use holdfast_engine_core::testing::user::{as_normal_user, give_to_normal_user, is_root};
use holdfast_engine_core::testing::zoo;
use holdfast_engine_core::tree::entry::{Content, Entry, EntryKind, Extent};
use holdfast_engine_core::tree::lists;
use holdfast_engine_core::tree::memory::{MemoryChunks, plant};
use holdfast_engine_core::tree::{ChunkSink, walk};

const LONG: Duration = Duration::from_secs(30);

/// False, with the reason on stderr, where nobody may mount.
fn can_mount() -> bool {
    if !Path::new("/dev/fuse").exists() {
        eprintln!("skipped: this machine has no /dev/fuse");
        return false;
    }
    if !is_root() {
        eprintln!("skipped: only root mounts without the program fusermount3");
        return false;
    }
    let folder = tempfile::tempdir().unwrap();
    match mount_at(&Arc::new(MemoryChunks::new()), &BTreeMap::new(), folder.path()) {
        Ok(_) => true,
        Err(error) => {
            eprintln!("skipped: {error}");
            false
        }
    }
}

type Tree = BTreeMap<Vec<u8>, Entry>;

fn mount_at(chunks: &Arc<MemoryChunks>, tree: &Tree, at: &Path) -> Result<Mount> {
    let root = plant(&**chunks, tree).unwrap();
    Mount::new(chunks.clone(), &root, at, &MountOptions::default())
}

fn file(chunks: &MemoryChunks, data: &[u8]) -> Entry {
    let refs: Vec<Ref> =
        data.chunks(1000).map(|chunk| chunks.store(Kind::Data, chunk).unwrap()).collect();
    let mut entry = Entry::new(b"x", EntryKind::File);
    entry.mode = 0o644;
    entry.size = data.len() as u64;
    entry.content = lists::write_refs(chunks, &refs).unwrap();
    entry
}

fn run(program: &str, arguments: &[&Path]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    let (said, complained) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{program}: {said}{complained}");
    said.into_owned()
}

#[test]
fn one_of_everything_is_seen_found_compared_and_copied_as_it_was() {
    if !can_mount() {
        return;
    }
    let top = DeepDir::new();
    let (from, at) = (top.join("from"), top.join("at"));
    let (copy, as_cp_does) = (top.join("copy"), top.join("as cp does"));
    for folder in [&from, &at, &copy, &as_cp_does] {
        fs::create_dir(folder).unwrap();
    }
    zoo::fill(&from);
    let pool = Arc::new(kit::create(Arc::new(MemoryStore::new())));
    let request = backup::Request {
        paths: vec![from.as_os_str().as_bytes().to_vec()],
        ..kit::request(&kit::Tree::new())
    };
    let (counters, findings) = (Counters::default(), Findings::default());
    let image = backup::run(&pool, &request, &counters, &findings, &Cancel::new()).unwrap();
    assert_eq!(findings.kept(), []);
    let root = walk::find(&*pool, &image.root, from.as_os_str().as_bytes()).unwrap();
    let mount = Mount::new(pool.clone(), &root, &at, &MountOptions::default()).unwrap();

    assert_same_tree(&from, &at);
    let listed = |place: &Path| {
        let found = run("find", &[place, Path::new("-printf"), Path::new("%P %y %s %m %n %T@\\n")]);
        // The size of a directory, and how many names lead to it, are its file system's affair.
        let mut lines: Vec<String> =
            found.lines().filter(|line| !line.contains(" d ")).map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(listed(&from), listed(&at));
    // It does not keep every hole: compare with what it makes of the original.
    run("cp", &[Path::new("-a"), &from.join("."), &as_cp_does]);
    run("cp", &[Path::new("-a"), &at.join("."), &copy]);
    assert_same_tree(&as_cp_does, &copy);
    assert_eq!(mount.findings(), []);
    mount.unmount().unwrap();
    assert_eq!(fs::read_dir(&at).unwrap().count(), 0);
}

#[test]
fn diff_sees_no_difference_and_then_one() {
    if !can_mount() {
        return;
    }
    let (tree, at) = (kit::Tree::new(), tempfile::tempdir().unwrap());
    let pool = Arc::new(kit::create(Arc::new(MemoryStore::new())));
    let image = kit::back_up(&pool, &tree).unwrap();
    let root = walk::find(&*pool, &image.root, tree.path().as_os_str().as_bytes()).unwrap();
    let _mount = Mount::new(pool, &root, at.path(), &MountOptions::default()).unwrap();
    let flags = [Path::new("-r"), Path::new("--no-dereference")];
    assert_eq!(run("diff", &[flags[0], flags[1], tree.path(), at.path()]), "");
    tree.write("docs/text", b"changed");
    let output = Command::new("diff").args(flags).arg(tree.path()).arg(at.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_large_directory_is_listed_whole_and_every_name_opens() {
    if !can_mount() {
        return;
    }
    let (chunks, at) = (Arc::new(MemoryChunks::new()), tempfile::tempdir().unwrap());
    let tree: Tree = (0..20_000_u32)
        .map(|number| {
            let name = [format!("{number:06}-").as_bytes(), &[0xff; 40]].concat();
            (name, file(&chunks, &number.to_le_bytes()))
        })
        .collect();
    let _mount = mount_at(&chunks, &tree, at.path()).unwrap();
    let mut names: Vec<Vec<u8>> = Vec::new();
    for entry in fs::read_dir(at.path()).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.ino(), entry.metadata().unwrap().ino());
        names.push(entry.file_name().as_bytes().to_vec());
    }
    names.sort();
    assert!(names.iter().eq(tree.keys()));
    for (number, name) in names.iter().enumerate().step_by(1_999) {
        let data = fs::read(at.path().join(std::ffi::OsStr::from_bytes(name))).unwrap();
        assert_eq!(data, (number as u32).to_le_bytes());
    }
}

#[test]
fn names_of_one_inode_are_one_file_and_others_are_not() {
    if !can_mount() {
        return;
    }
    let (chunks, at) = (Arc::new(MemoryChunks::new()), tempfile::tempdir().unwrap());
    let linked = |data: &[u8]| Entry { nlink: 3, inode: 77, ..file(&chunks, data) };
    let tree = Tree::from([
        (b"a/one".to_vec(), linked(b"same")),
        (b"b/two".to_vec(), linked(b"same")),
        // The file changed between the backups of its names.
        (b"b/three".to_vec(), linked(b"other")),
        (b"alone".to_vec(), Entry { inode: 77, ..file(&chunks, b"same") }),
    ]);
    let _mount = mount_at(&chunks, &tree, at.path()).unwrap();
    let inode = |name: &str| fs::metadata(at.path().join(name)).unwrap().ino();
    assert_eq!(inode("a/one"), inode("b/two"));
    assert_ne!(inode("a/one"), inode("b/three"));
    assert_ne!(inode("a/one"), inode("alone"));
    assert_eq!(fs::metadata(at.path().join("a/one")).unwrap().nlink(), 3);
    assert_eq!(fs::read(at.path().join("b/three")).unwrap(), b"other");
}

#[test]
fn a_disk_image_of_holes_takes_no_room_and_reads_where_it_has_data() {
    if !can_mount() {
        return;
    }
    let (chunks, at) = (Arc::new(MemoryChunks::new()), tempfile::tempdir().unwrap());
    let mut sparse = file(&chunks, &[7; 8192]);
    sparse.size = 100 << 30;
    sparse.extents = Some(vec![
        Extent { offset: 1 << 20, length: 4096 },
        Extent { offset: 90 << 30, length: 4096 },
    ]);
    let tree = Tree::from([(b"disk".to_vec(), sparse)]);
    let _mount = mount_at(&chunks, &tree, at.path()).unwrap();
    let disk = File::open(at.path().join("disk")).unwrap();
    let meta = disk.metadata().unwrap();
    assert_eq!((meta.len(), meta.blocks()), (100 << 30, 16));
    let mut buffer = [1; 10];
    disk.read_exact_at(&mut buffer, (90 << 30) - 5).unwrap();
    assert_eq!(buffer, [0, 0, 0, 0, 0, 7, 7, 7, 7, 7]);
    let copy = tempfile::tempdir().unwrap();
    run("cp", &[&at.path().join("disk"), &copy.path().join("disk")]);
    let copied = fs::metadata(copy.path().join("disk")).unwrap();
    assert_eq!(copied.len(), 100 << 30);
    assert!(copied.blocks() <= 64, "{} blocks", copied.blocks());
}

#[test]
fn many_readers_at_a_time_read_what_each_asked_for() {
    if !can_mount() {
        return;
    }
    let (chunks, at) = (Arc::new(MemoryChunks::new()), tempfile::tempdir().unwrap());
    let data = kit::noise(3_000_000, 1);
    let tree = Tree::from([(b"large".to_vec(), file(&chunks, &data))]);
    let _mount = mount_at(&chunks, &tree, at.path()).unwrap();
    thread::scope(|scope| {
        for reader in 0..8_usize {
            let (data, path) = (&data, at.path().join("large"));
            scope.spawn(move || {
                let file = File::open(path).unwrap();
                for step in 0..50_usize {
                    let offset = (reader * 7_919 + step * 104_729) % data.len();
                    let length = (step * 997 + 1).min(data.len() - offset);
                    let mut buffer = vec![0; length];
                    file.read_exact_at(&mut buffer, offset as u64).unwrap();
                    assert_eq!(buffer, data[offset..offset + length]);
                }
            });
        }
    });
}

#[test]
fn what_is_damaged_gives_an_error_and_a_finding_and_the_rest_is_read() {
    if !can_mount() {
        return;
    }
    let (chunks, at) = (Arc::new(MemoryChunks::new()), tempfile::tempdir().unwrap());
    let mut tree: Tree = (0..3_000_u32)
        .map(|number| (format!("many/{number:05}").into_bytes(), file(&chunks, b"small")))
        .collect();
    tree.insert(b"good".to_vec(), file(&chunks, b"good"));
    let bad = file(&chunks, &kit::noise(500_000, 3));
    let refs = lists::read_refs(&*chunks, &bad.content).unwrap();
    tree.insert(b"deep/bad".to_vec(), bad);
    let root = plant(&*chunks, &tree).unwrap();
    let many = walk::find(&*chunks, &root, b"many").unwrap();
    chunks.lose(&refs[400]);
    // The last leaf of the large directory.
    let mut cursor = walk::Directory::of(&*chunks, &many).unwrap().cursor();
    let mut last = None;
    while let walk::Next::Object { reference, .. } = cursor.peek() {
        last = Some(reference);
        cursor.advance();
    }
    chunks.lose(&last.unwrap());
    let mount = Mount::new(chunks, &root, at.path(), &MountOptions::default()).unwrap();

    assert_eq!(fs::read(at.path().join("good")).unwrap(), b"good");
    let error = fs::read(at.path().join("deep/bad")).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(5));
    let mut start = [0; 1000];
    File::open(at.path().join("deep/bad")).unwrap().read_exact(&mut start).unwrap();
    let listed: Vec<io::Result<_>> = fs::read_dir(at.path().join("many")).unwrap().collect();
    assert!(listed.len() > 100);
    assert!(listed.last().unwrap().is_err(), "a list that lacks a part looks complete");
    let findings = mount.findings();
    assert!(findings.iter().all(|finding| finding.code == "chunk-missing"));
    for path in [&b"/deep/bad"[..], b"/many"] {
        assert!(findings.iter().any(|finding| finding.path == path), "{findings:?}");
    }
}

#[test]
fn a_mount_in_use_is_busy_until_it_is_let_go() {
    if !can_mount() {
        return;
    }
    let (chunks, at) = (Arc::new(MemoryChunks::new()), tempfile::tempdir().unwrap());
    let tree = Tree::from([(b"file".to_vec(), file(&chunks, b"data"))]);
    let mount = mount_at(&chunks, &tree, at.path()).unwrap();
    let open = File::open(at.path().join("file")).unwrap();
    assert_eq!(mount.unmount().unwrap_err().code(), "busy");
    assert!(!mount.wait(Duration::ZERO));
    drop(open);
    mount.unmount().unwrap();
    assert!(mount.wait(Duration::ZERO));
    mount.unmount().unwrap();
    assert!(!at.path().join("file").exists());
}

#[test]
fn a_dropped_mount_is_gone_though_a_program_still_reads() {
    if !can_mount() {
        return;
    }
    let (chunks, at) = (Arc::new(MemoryChunks::new()), tempfile::tempdir().unwrap());
    let tree = Tree::from([(b"file".to_vec(), file(&chunks, b"data"))]);
    let mount = mount_at(&chunks, &tree, at.path()).unwrap();
    let mut open = File::open(at.path().join("file")).unwrap();
    drop(mount);
    assert_eq!(fs::read_dir(at.path()).unwrap().count(), 0);
    let mut data = Vec::new();
    open.read_to_end(&mut data).unwrap();
    assert_eq!(data, b"data");
}

#[test]
fn a_mount_that_someone_else_removes_ends() {
    if !can_mount() {
        return;
    }
    let (chunks, at) = (Arc::new(MemoryChunks::new()), tempfile::tempdir().unwrap());
    let below = kit::noise(5, 5);
    fs::write(at.path().join("below"), &below).unwrap();
    let mount = mount_at(&chunks, &Tree::new(), at.path()).unwrap();
    assert!(!at.path().join("below").exists());
    run("umount", &[at.path()]);
    assert!(mount.wait(LONG));
    mount.unmount().unwrap();
    assert_eq!(fs::read(at.path().join("below")).unwrap(), below);
}

#[test]
fn nothing_can_be_written() {
    if !can_mount() {
        return;
    }
    let (chunks, at) = (Arc::new(MemoryChunks::new()), tempfile::tempdir().unwrap());
    let tree = Tree::from([(b"file".to_vec(), file(&chunks, b"data"))]);
    let _mount = mount_at(&chunks, &tree, at.path()).unwrap();
    let refused = |result: io::Result<()>| {
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::ReadOnlyFilesystem);
    };
    refused(fs::write(at.path().join("new"), b"x"));
    refused(fs::write(at.path().join("file"), b"x"));
    refused(fs::remove_file(at.path().join("file")));
    refused(fs::create_dir(at.path().join("dir")));
}

#[test]
fn others_are_held_to_the_modes_if_they_may_look_at_all() {
    if !can_mount() {
        return;
    }
    let chunks = Arc::new(MemoryChunks::new());
    let secret = Entry { mode: 0o600, ..file(&chunks, b"secret") };
    let tree =
        Tree::from([(b"open".to_vec(), file(&chunks, b"open")), (b"secret".to_vec(), secret)]);
    let root = plant(&*chunks, &tree).unwrap();
    for allow_other in [false, true] {
        let top = tempfile::tempdir().unwrap();
        give_to_normal_user(top.path());
        let options = MountOptions { allow_other, ..MountOptions::default() };
        let _mount = Mount::new(chunks.clone(), &root, top.path(), &options).unwrap();
        let path = top.path().to_owned();
        as_normal_user(move || {
            assert_eq!(fs::read(path.join("open")).is_ok(), allow_other);
            let error = fs::read(path.join("secret")).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        });
        assert_eq!(fs::read(top.path().join("secret")).unwrap(), b"secret");
    }
}

#[test]
fn a_normal_user_mounts_with_fusermount3_or_is_told_what_is_missing() {
    if !can_mount() {
        return;
    }
    let (chunks, top) = (Arc::new(MemoryChunks::new()), tempfile::tempdir().unwrap());
    give_to_normal_user(top.path());
    let secret = Entry { mode: 0o600, ..file(&chunks, b"secret of root") };
    let tree = Tree::from([(b"secret".to_vec(), secret)]);
    let at = top.path().to_owned();
    as_normal_user(move || {
        let mounted = mount_at(&chunks, &tree, &at);
        if Command::new("fusermount3").arg("-V").output().is_err() {
            let error = mounted.err().unwrap();
            assert_eq!(error.code(), "unsupported");
            assert!(error.to_string().contains("install the package fuse3"), "{error}");
            return;
        }
        // Whoever mounts holds the key, and sees everything.
        let mount = mounted.unwrap();
        assert_eq!(fs::read(at.join("secret")).unwrap(), b"secret of root");
        mount.unmount().unwrap();
        assert!(mount.wait(LONG));
        assert!(!at.join("secret").exists());
        let again = mount_at(&chunks, &tree, &at).unwrap();
        run("fusermount3", &[Path::new("-u"), &at]);
        assert!(again.wait(LONG));
        let dropped = mount_at(&chunks, &tree, &at).unwrap();
        drop(dropped);
        assert!(!at.join("secret").exists());
        let elsewhere = mount_at(&chunks, &tree, Path::new("/")).err().unwrap();
        assert!(elsewhere.to_string().contains("mounting at '/'"), "{elsewhere}");
    });
}

#[test]
fn a_place_that_is_no_directory_is_refused_in_words() {
    let chunks = Arc::new(MemoryChunks::new());
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), b"").unwrap();
    let error = mount_at(&chunks, &Tree::new(), &folder.path().join("file")).err().unwrap();
    assert_eq!(error.code(), "invalid");
    let error = mount_at(&chunks, &Tree::new(), &folder.path().join("none")).err().unwrap();
    assert_eq!(error.code(), "io");
    let root = Entry { content: Content::Empty, ..Entry::new(b"f", EntryKind::File) };
    let mounted = Mount::new(chunks, &root, folder.path(), &MountOptions::default());
    assert_eq!(mounted.err().unwrap().code(), "invalid");
}

/// Answers from a table; what is not there can't be read.
struct Told(BTreeMap<Vec<u8>, Vec<u8>>);

impl InsideFiles for Told {
    fn read(
        &self,
        path: &[u8],
        inode: u64,
        size: u64,
        offset: u64,
        length: usize,
    ) -> Result<Vec<u8>> {
        let bytes = self.0.get(path).ok_or_else(|| Error::Unsupported("torn".into()))?;
        assert_eq!((inode, size), (7, bytes.len() as u64));
        let offset = usize::try_from(offset).unwrap();
        Ok(bytes[offset..offset + length].to_vec())
    }

    fn xattrs(&self, path: &[u8], _: u64) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        Ok(self
            .0
            .contains_key(path)
            .then(|| (b"user.x".to_vec(), b"y".to_vec()))
            .into_iter()
            .collect())
    }
}

#[test]
fn what_is_inside_is_shown_beside_the_images_own_and_read_by_who_knows_how() {
    if !can_mount() {
        return;
    }
    let chunks = Arc::new(MemoryChunks::new());
    let named = |size: usize| {
        let mut entry = Entry::new(b"x", EntryKind::File);
        (entry.mode, entry.size, entry.inode) = (0o640, size as u64, 7);
        entry.extents = Some(Vec::new());
        entry
    };
    let directory = || Entry { mode: 0o755, ..Entry::new(b"x", EntryKind::Dir) };
    let own = BTreeMap::from([
        (b"disks".to_vec(), directory()),
        (b"disks/vda".to_vec(), file(&chunks, b"the disk")),
        (b"machine.json".to_vec(), file(&chunks, b"{}")),
    ]);
    let index = BTreeMap::from([
        (b"vda".to_vec(), directory()),
        (b"vda/p1".to_vec(), directory()),
        (b"vda/p1/file".to_vec(), named(3_000_000)),
        (b"vda/p1/torn".to_vec(), named(9)),
        // The image's own comes first.
        (b"machine.json".to_vec(), named(5)),
    ]);
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|at| (at % 251) as u8).collect();
    let files = Told(BTreeMap::from([(b"/vda/p1/file".to_vec(), bytes.clone())]));
    let (root, index) = (plant(&*chunks, &own).unwrap(), plant(&*chunks, &index).unwrap());
    let folder = tempfile::tempdir().unwrap();
    let inside = Inside { root: index, files: Arc::new(files) };
    let options = MountOptions::default();
    let mount =
        Mount::with_inside(chunks.clone(), &root, folder.path(), &options, Some(inside)).unwrap();
    let at = folder.path();
    let mut names: Vec<_> =
        fs::read_dir(at).unwrap().map(|one| one.unwrap().file_name().into_vec()).collect();
    names.sort();
    assert_eq!(names, [b"disks".to_vec(), b"machine.json".to_vec(), b"vda".to_vec()]);
    assert_eq!(fs::read(at.join("machine.json")).unwrap(), b"{}");
    assert_eq!(fs::read(at.join("disks/vda")).unwrap(), b"the disk");
    assert_eq!(fs::read(at.join("vda/p1/file")).unwrap(), bytes);
    let status = fs::metadata(at.join("vda/p1/file")).unwrap();
    assert_eq!((status.len(), status.blocks()), (3_000_000, 5860));
    let mut part = [0; 1000];
    File::open(at.join("vda/p1/file")).unwrap().read_exact_at(&mut part, 2_999_000).unwrap();
    assert_eq!(part, bytes[2_999_000..]);
    assert!(fs::read(at.join("vda/p1/torn")).is_err());
    let found = mount.findings();
    assert_eq!(found.first().unwrap().path, b"/vda/p1/torn");
    mount.unmount().unwrap();
}
