//! The scan against real directories.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::Arc;

use holdfast_engine_core::finding::Severity;
use holdfast_engine_core::scan::attrs::{Stat, stat_entry};
use holdfast_engine_core::scan::explain;
use holdfast_engine_core::scan::handle::DirHandle;
use holdfast_engine_core::scan::list::{NameList, read_names};
use holdfast_engine_core::scan::names::Names;
use holdfast_engine_core::scan::open::{changed_while_read, open_file};
use holdfast_engine_core::scan::problem::is_replaced;
use holdfast_engine_core::scan::rules::{Mark, mark};
use holdfast_engine_core::scan::sparse::data_extents;
use holdfast_engine_core::scan::xattr::Xattrs;
use holdfast_engine_core::testing::deep::{DeepDir, make_deep};
use holdfast_engine_core::testing::user::{as_normal_user, give_to_normal_user, is_root};
use holdfast_engine_core::tree::entry::{EntryKind, Extent, Time};
use rustix::fs::{CWD, FileType, Mode, XattrFlags};

fn open(path: &Path) -> Arc<DirHandle> {
    DirHandle::open_root(path.as_os_str().as_bytes()).unwrap()
}

fn names_of(list: &NameList) -> Vec<Vec<u8>> {
    list.iter().map(|raw| raw.name.to_vec()).collect()
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn names_come_sorted_by_their_bytes_with_kinds_and_an_order_by_inode() {
    let top = DeepDir::new();
    for name in [&b"b"[..], b"a", b"\xff", b"a\n", b"B"] {
        fs::write(top.join(name), "").unwrap();
    }
    fs::create_dir(top.join("dir")).unwrap();
    symlink("x", top.join("link")).unwrap();
    let list = read_names(&open(top.path())).unwrap();
    let expected: [&[u8]; 7] = [b"B", b"a", b"a\n", b"b", b"dir", b"link", b"\xff"];
    assert_eq!(names_of(&list), expected);
    assert!(list.contains(b"dir") && !list.contains(b"di") && !list.contains(b".."));
    let inodes: Vec<u64> = list
        .by_inode()
        .into_iter()
        .map(|at| {
            let raw = list.get(at as usize).unwrap();
            let meta = fs::symlink_metadata(top.join(raw.name)).unwrap();
            assert_eq!(raw.inode, meta.ino());
            assert_eq!(raw.kind_hint == Some(EntryKind::Dir), meta.is_dir());
            raw.inode
        })
        .collect();
    assert!(inodes.is_sorted());
    assert_eq!(inodes.len(), 7);
}

#[test]
fn a_directory_is_read_whole_again_after_it_changed() {
    let top = DeepDir::new();
    let dir = open(top.path());
    assert!(read_names(&dir).unwrap().is_empty());
    for number in 0..3000 {
        fs::write(top.join(format!("{number}")), "").unwrap();
    }
    assert_eq!(read_names(&dir).unwrap().len(), 3000);
    fs::remove_file(top.join("7")).unwrap();
    assert_eq!(read_names(&dir).unwrap().len(), 2999);
}

#[test]
fn ten_thousand_levels_are_walked_with_few_descriptors() {
    let top = DeepDir::in_memory();
    make_deep(top.path(), 10_000, b"d");
    let root = DirHandle::open_root_within(top.path().as_os_str().as_bytes(), 16).unwrap();
    let mut dir = Arc::clone(&root);
    while read_names(&dir).unwrap().contains(b"d") {
        dir = dir.child(b"d").unwrap();
    }
    assert_eq!(dir.depth(), 10_000);
    assert_eq!(dir.path().len(), top.path().as_os_str().len() + 20_000);
    let below = format!("{}/", top.path().display());
    let open_here = fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter(|fd| {
            let leads_to = fs::read_link(fd.as_ref().unwrap().path());
            // The kernel cannot name what lies deeper than PATH_MAX.
            leads_to.map_or(true, |path| path.starts_with(&below))
        })
        .count();
    assert!(open_here < 100, "{open_here} descriptors");
    let (mut file, stat) = open_file(dir.fd().unwrap(), b"bottom").unwrap();
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    assert_eq!((text.as_str(), stat.size), ("down here", 9));
    // Back up, where every descriptor was closed meanwhile.
    let mut at = dir;
    for level in 0_u32..9_990 {
        at = Arc::clone(at.parent().unwrap());
        if level.is_multiple_of(500) {
            assert_eq!(names_of(&read_names(&at).unwrap()), [b"d"]);
        }
    }
}

#[test]
fn a_directory_that_was_swapped_while_its_descriptor_was_closed_is_noticed() {
    let top = DeepDir::new();
    for path in ["a/b", "c", "e"] {
        fs::create_dir_all(top.join(path)).unwrap();
    }
    let root = DirHandle::open_root_within(top.path().as_os_str().as_bytes(), 1).unwrap();
    let a = root.child(b"a").unwrap();
    let push_out = || root.child(b"c").unwrap();
    push_out();
    assert!(a.fd().is_ok());
    push_out();
    fs::rename(top.join("a"), top.join("moved")).unwrap();
    assert_eq!(explain(&a.fd().unwrap_err(), "open it").code, "vanished");
    symlink("moved", top.join("a")).unwrap();
    assert_eq!(explain(&a.fd().unwrap_err(), "open it").code, "changed-while-read");
    fs::remove_file(top.join("a")).unwrap();
    fs::create_dir(top.join("a")).unwrap();
    assert!(is_replaced(&a.fd().unwrap_err()));
    fs::remove_dir(top.join("a")).unwrap();
    fs::rename(top.join("moved"), top.join("a")).unwrap();
    assert_eq!(names_of(&read_names(&a).unwrap()), [b"b"]);
}

#[test]
fn a_link_or_file_is_no_child_and_a_root_may_be_longer_than_path_max() {
    let top = DeepDir::new();
    fs::create_dir(top.join("dir")).unwrap();
    symlink("dir", top.join("link")).unwrap();
    fs::write(top.join("file"), "").unwrap();
    let root = open(top.path());
    assert_eq!(root.child(b"dir").unwrap().path(), top.join("dir").as_os_str().as_bytes());
    for name in [&b"link"[..], b"file"] {
        let error = root.child(name).unwrap_err();
        assert_eq!(explain(&error, "open it").code, "changed-while-read");
    }
    make_deep(top.join("dir"), 2_500, b"dd");
    let mut long = top.join("dir").into_os_string().into_encoded_bytes();
    long.extend_from_slice(&b"/dd".repeat(2_500));
    let deep = DirHandle::open_root(&long).unwrap();
    assert_eq!(names_of(&read_names(&deep).unwrap()), [b"bottom"]);
    assert_eq!(open(Path::new("/")).path_of(b"etc"), b"/etc");
}

#[test]
fn every_kind_is_told_with_what_belongs_to_it() {
    let top = DeepDir::new();
    let names = Names::new();
    let path = top.join("file");
    fs::write(&path, "12345").unwrap();
    set_mode(&path, 0o4751);
    fs::hard_link(&path, top.join("second")).unwrap();
    symlink(std::ffi::OsStr::from_bytes(b"to \xff"), top.join("link")).unwrap();
    let mode = Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(CWD, top.join("fifo"), FileType::Fifo, mode, 0).unwrap();
    rustix::fs::mknodat(CWD, top.join("socket"), FileType::Socket, mode, 0).unwrap();
    let root = open(top.path());
    let entry = |name: &[u8]| stat_entry(root.fd().unwrap(), name, &names).unwrap();

    let file = entry(b"file");
    let meta = fs::metadata(&path).unwrap();
    assert_eq!((file.kind, file.mode, file.size, file.nlink), (EntryKind::File, 0o4751, 5, 2));
    assert_eq!((file.uid, file.gid), (meta.uid(), meta.gid()));
    assert_eq!(file.user, names.user(meta.uid()));
    assert_eq!(file.mtime, Time { sec: meta.mtime(), nsec: meta.mtime_nsec() as u32 });
    assert_eq!(file.ctime, Time { sec: meta.ctime(), nsec: meta.ctime_nsec() as u32 });
    assert_eq!((file.inode, file.device), (meta.ino(), meta.dev()));
    assert_eq!(file.target, None);

    let link = entry(b"link");
    assert_eq!((link.kind, link.size), (EntryKind::Symlink, 0));
    assert_eq!(link.target.as_deref(), Some(&b"to \xff"[..]));
    assert_eq!(entry(b"fifo").kind, EntryKind::Fifo);
    assert_eq!(entry(b"socket").kind, EntryKind::Socket);
    assert_eq!(entry(b"fifo").rdev, None);

    let dev = open(Path::new("/dev"));
    let null = stat_entry(dev.fd().unwrap(), b"null", &names).unwrap();
    assert_eq!((null.kind, null.rdev), (EntryKind::Char, Some((1, 3))));
    if is_root() {
        let device = rustix::fs::makedev(511, 1_000_000);
        rustix::fs::mknodat(CWD, top.join("b"), FileType::BlockDevice, mode, device).unwrap();
        assert_eq!(entry(b"b").rdev, Some((511, 1_000_000)));
    }
}

#[test]
fn another_file_system_is_told_by_its_device() {
    let root = open(Path::new("/"));
    let fd = root.fd().unwrap();
    let of = |name: &[u8]| Stat::of_name(&fd, name).unwrap();
    assert!(of(b"proc").is_on_other_file_system(root.stat()));
    assert!(!of(b"proc").is_on_other_file_system(&of(b"proc")));
}

#[test]
fn holes_are_found_wherever_they_are() {
    const MIB: u64 = 1 << 20;
    let top = DeepDir::new();
    let extents = |size: u64, places: &[(u64, usize)]| {
        let path = top.join("f");
        let file = File::options().read(true).write(true).create(true).truncate(true).open(path);
        let file = file.unwrap();
        file.set_len(size).unwrap();
        for (offset, length) in places {
            file.write_all_at(&vec![1; *length], *offset).unwrap();
        }
        data_extents(&file, size).unwrap()
    };
    let extent = |offset, length| Extent { offset, length };
    assert_eq!(extents(0, &[]), None);
    assert_eq!(extents(5, &[(0, 5)]), None);
    assert_eq!(extents(MIB, &[(0, 1 << 20)]), None);
    assert_eq!(extents(100, &[]), Some(vec![]));
    assert_eq!(extents(1 << 42, &[]), Some(vec![]));
    assert_eq!(extents(2 * MIB, &[(MIB, 1 << 20)]), Some(vec![extent(MIB, MIB)]));
    assert_eq!(extents(2 * MIB, &[(0, 1 << 20)]), Some(vec![extent(0, MIB)]));
    assert_eq!(
        extents(3 * MIB, &[(0, 4096), (2 * MIB, 1 << 20)]),
        Some(vec![extent(0, 4096), extent(2 * MIB, MIB)])
    );
    let comb: Vec<(u64, usize)> = (0..500).map(|at| (at * 65536, 4096)).collect();
    let found = extents(500 * 65536, &comb).unwrap();
    assert_eq!(found.len(), 500);
    assert!(found.iter().zip(comb).all(|(found, made)| *found == extent(made.0, 4096)));
}

#[test]
fn a_file_that_shrank_since_it_was_looked_at_has_no_extents_beyond_its_end() {
    let top = DeepDir::new();
    fs::write(top.join("f"), vec![1; 10_000]).unwrap();
    let file = File::open(top.join("f")).unwrap();
    // As if it had been larger.
    let found = data_extents(&file, 1 << 20).unwrap();
    assert!(found.is_none_or(|extents| extents.iter().all(|one| one.offset + one.length <= 16384)));
    let empty = File::create_new(top.join("g")).unwrap();
    assert_eq!(data_extents(&empty, 100).unwrap(), None);
}

#[test]
fn a_name_that_became_something_else_is_not_opened_and_nothing_blocks() {
    let top = DeepDir::new();
    let mode = Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(CWD, top.join("fifo"), FileType::Fifo, mode, 0).unwrap();
    rustix::fs::mknodat(CWD, top.join("socket"), FileType::Socket, mode, 0).unwrap();
    fs::write(top.join("secret"), "").unwrap();
    symlink("secret", top.join("link")).unwrap();
    fs::create_dir(top.join("dir")).unwrap();
    let root = open(top.path());
    let fd = root.fd().unwrap();
    for name in [&b"fifo"[..], b"socket", b"link", b"dir"] {
        let error = open_file(&fd, name).unwrap_err();
        assert!(is_replaced(&error), "{name:?}: {error}");
    }
    let error = open_file(&fd, b"gone").unwrap_err();
    let problem = explain(&error, "open it");
    assert_eq!((problem.code, problem.severity), ("vanished", Severity::Error));
}

#[test]
fn a_leased_file_is_read_once_its_holder_lets_go() {
    /// `fcntl.h`; the crate has no name for it.
    const F_SETSIG: i32 = 10;
    let top = DeepDir::new();
    fs::write(top.join("f"), "leased").unwrap();
    let holder = File::options().read(true).write(true).open(top.join("f")).unwrap();
    let ask = |command: i32, argument: i32| {
        // SAFETY: `holder` is an open descriptor, and these commands take a number.
        unsafe { libc::fcntl(std::os::fd::AsRawFd::as_raw_fd(&holder), command, argument) }
    };
    // The usual signal that asks for a lease back would end the process; this one does nothing.
    ask(F_SETSIG, libc::SIGURG);
    if ask(libc::F_SETLEASE, libc::F_WRLCK) != 0 {
        eprintln!("skipped: this file system gives no leases");
        return;
    }
    let root = open(top.path());
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let (mut file, _) = open_file(root.fd().unwrap(), b"f").unwrap();
            let mut text = String::new();
            file.read_to_string(&mut text).unwrap();
            text
        });
        // While somebody waits for it, the answer is what the lease must become.
        while ask(libc::F_GETLEASE, 0) == libc::F_WRLCK {
            std::thread::yield_now();
        }
        ask(libc::F_SETLEASE, libc::F_UNLCK);
        assert_eq!(reader.join().unwrap(), "leased");
    });
}

#[test]
fn reading_leaves_the_access_time_alone() {
    let top = DeepDir::new();
    fs::write(top.join("f"), "x").unwrap();
    fs::create_dir(top.join("d")).unwrap();
    let time = rustix::fs::Timespec { tv_sec: 1_000, tv_nsec: 0 };
    let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
    for name in ["f", "d"] {
        rustix::fs::utimensat(CWD, top.join(name), &times, rustix::fs::AtFlags::empty()).unwrap();
    }
    let root = open(top.path());
    let (mut file, _) = open_file(root.fd().unwrap(), b"f").unwrap();
    file.read_to_end(&mut Vec::new()).unwrap();
    read_names(&root.child(b"d").unwrap()).unwrap();
    for name in ["f", "d"] {
        assert_eq!(fs::metadata(top.join(name)).unwrap().atime(), 1_000, "{name}");
    }
}

#[test]
fn a_file_that_does_not_hold_still_is_told_in_words() {
    let top = DeepDir::new();
    let path = top.join("f");
    let root = open(top.path());
    let fd = root.fd().unwrap();
    let changed = |change: &dyn Fn(&File), bytes_read: u64| {
        fs::write(&path, vec![1; 1000]).unwrap();
        let past = rustix::fs::Timespec { tv_sec: 1_000, tv_nsec: 0 };
        let times = rustix::fs::Timestamps { last_access: past, last_modification: past };
        rustix::fs::utimensat(CWD, &path, &times, rustix::fs::AtFlags::empty()).unwrap();
        let (file, before) = open_file(&fd, b"f").unwrap();
        change(&File::options().write(true).open(&path).unwrap());
        changed_while_read(&file, &before, bytes_read).unwrap()
    };
    assert_eq!(changed(&|_| {}, 1000), None);
    let message = |problem: Option<holdfast_engine_core::scan::Problem>| problem.unwrap().message;
    let shrank = message(changed(&|file| file.set_len(400).unwrap(), 400));
    assert!(shrank.contains("shrank from 1000 to 400 bytes"), "{shrank}");
    let grew = message(changed(&|file| file.set_len(1400).unwrap(), 1000));
    assert!(grew.contains("grew from 1000 to 1400 bytes"), "{grew}");
    let written = message(changed(&|file| file.write_all_at(b"x", 5).unwrap(), 1000));
    assert!(written.contains("written to"), "{written}");
    let deleted = changed(&|_| fs::remove_file(&path).unwrap(), 1000).unwrap();
    assert_eq!((deleted.code, deleted.severity), ("vanished", Severity::Warning));
    // Nothing of the content changed.
    assert_eq!(changed(&|_| set_mode(&path, 0o600), 1000), None);
}

#[test]
fn extended_attributes_are_read_from_whatever_has_them() {
    let top = DeepDir::new();
    let xattrs = Xattrs::new();
    let set = |name: &str, attribute: &str, value: &[u8]| {
        let path = top.join(name);
        rustix::fs::lsetxattr(path, attribute, value, XattrFlags::empty()).unwrap();
    };
    fs::write(top.join("f"), "").unwrap();
    fs::write(top.join("bare"), "").unwrap();
    let long = vec![7; 3000];
    set("f", "user.b", &long);
    set("f", "user.a", b"");
    let root = open(top.path());
    let fd = root.fd().unwrap();
    let device = root.stat().device;
    let expected = [(b"user.a".to_vec(), vec![]), (b"user.b".to_vec(), long)];
    let (file, _) = open_file(&fd, b"f").unwrap();
    assert_eq!(xattrs.of_fd(&file, device).pairs, expected);
    assert_eq!(xattrs.of_name(&fd, b"f", EntryKind::File, device).pairs, expected);
    assert_eq!(xattrs.of_name(&fd, b"bare", EntryKind::File, device).pairs, []);
    // More names than fit where they are looked for first.
    for number in 0..60 {
        set("bare", &format!("user.{number:02}.{}", "x".repeat(40)), b"v");
    }
    assert_eq!(xattrs.of_name(&fd, b"bare", EntryKind::File, device).pairs.len(), 60);
    if is_root() {
        symlink("nowhere", top.join("link")).unwrap();
        set("link", "trusted.x", b"of the link");
        let found = xattrs.of_name(&fd, b"link", EntryKind::Symlink, device);
        assert_eq!(found.pairs, [(b"trusted.x".to_vec(), b"of the link".to_vec())]);
    }
    let gone = xattrs.of_name(&fd, b"gone", EntryKind::File, device);
    assert_eq!(gone.problems.len(), 1);
    // A file system that has none says so once and is believed.
    let proc = open(Path::new("/proc/self"));
    for _ in 0..2 {
        let found = xattrs.of_fd(proc.fd().unwrap(), proc.stat().device);
        assert!(found.pairs.is_empty() && found.problems.is_empty());
    }
}

#[test]
fn a_normal_user_is_told_what_they_may_not_read() {
    let top = DeepDir::new();
    give_to_normal_user(top.path());
    let outcomes = as_normal_user(|| {
        for name in ["file", "attribute"] {
            fs::write(top.join(name), "secret").unwrap();
        }
        let value = XattrFlags::empty();
        rustix::fs::setxattr(top.join("attribute"), "user.secret", b"x", value).unwrap();
        fs::create_dir(top.join("dir")).unwrap();
        for name in ["file", "attribute", "dir"] {
            set_mode(&top.join(name), 0);
        }
        let root = open(top.path());
        let fd = root.fd().unwrap();
        let device = root.stat().device;
        let found = Xattrs::new().of_name(&fd, b"attribute", EntryKind::File, device);
        let outcomes = [
            explain(&open_file(&fd, b"file").unwrap_err(), "open it"),
            explain(&root.child(b"dir").unwrap_err(), "open the directory"),
            found.problems.into_iter().next().unwrap(),
        ];
        set_mode(&top.join("dir"), 0o700);
        outcomes
    });
    let codes: Vec<&str> = outcomes.iter().map(|problem| problem.code).collect();
    assert_eq!(codes, ["no-permission", "no-permission", "xattr-unreadable"]);
    assert!(outcomes[2].message.contains("user.secret"), "{}", outcomes[2].message);
}

#[test]
fn a_directory_is_marked_by_a_genuine_cache_tag_or_a_nobackup_file() {
    const SIGNATURE: &str = "Signature: 8a477f597d28d172789f06886806bc55";
    let top = DeepDir::new();
    let marked = || {
        let dir = open(top.path());
        mark(dir.fd().unwrap(), &read_names(&dir).unwrap())
    };
    assert_eq!(marked(), None);
    let tag = top.join("CACHEDIR.TAG");
    for (text, expected) in [
        (format!("{SIGNATURE}\n# made by a test"), Some(Mark::CacheTag)),
        (SIGNATURE.to_owned(), Some(Mark::CacheTag)),
        (SIGNATURE[..42].to_owned(), None),
        (format!(" {SIGNATURE}"), None),
        (String::new(), None),
    ] {
        fs::write(&tag, text).unwrap();
        assert_eq!(marked(), expected);
    }
    fs::write(top.join("genuine"), SIGNATURE).unwrap();
    fs::remove_file(&tag).unwrap();
    symlink("genuine", &tag).unwrap();
    assert_eq!(marked(), None);
    fs::write(top.join(".nobackup"), "").unwrap();
    assert_eq!(marked(), Some(Mark::NoBackup));
}
