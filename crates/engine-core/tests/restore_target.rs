//! The scan and the restore's target, joined by the simplest copy: what comes out is what went
//! in.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::HashMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use holdfast_engine_core::finding::{Finding, Findings, Severity};
use holdfast_engine_core::restore::target::{
    Link, Options, Overwrite, Placed, Staged, Target, TargetDir,
};
use holdfast_engine_core::scan::attrs::{self, Stat};
use holdfast_engine_core::scan::handle::DirHandle;
use holdfast_engine_core::scan::list::read_names;
use holdfast_engine_core::scan::names::Names;
use holdfast_engine_core::scan::open::open_file;
use holdfast_engine_core::scan::sparse::data_extents;
use holdfast_engine_core::scan::xattr::Xattrs;
use holdfast_engine_core::testing::compare::{Compare, assert_same_tree, compare_trees};
use holdfast_engine_core::testing::deep::{DeepDir, make_deep};
use holdfast_engine_core::testing::user::{as_normal_user, give_to_normal_user, is_root};
use holdfast_engine_core::testing::zoo;
use holdfast_engine_core::tree::entry::{Content, Entry, EntryKind, Extent, Time};

const ALWAYS: Options = Options { overwrite: Overwrite::Always, numeric_owners: false };

/// Copies a tree and returns the findings of the copy.
fn copy(from: &Path, to: &Path, options: Options) -> Vec<Finding> {
    let findings = Arc::new(Findings::default());
    let target = Target::open(to.as_os_str().as_bytes(), options, Arc::clone(&findings)).unwrap();
    let root = DirHandle::open_root(from.as_os_str().as_bytes()).unwrap();
    let (names, xattrs) = (Names::new(), Xattrs::new());
    let mut first: HashMap<u64, (Arc<TargetDir>, Vec<u8>, Placed)> = HashMap::new();
    let root_entry = dir_entry(&root, b"/", &names, &xattrs);
    let mut branch = vec![(Arc::clone(&root), Arc::clone(target.root()), root_entry, None)];
    while let Some((from, to, entry, listing)) = branch.last_mut() {
        let (list, at) = listing.get_or_insert_with(|| (read_names(from).unwrap(), 0_usize));
        let Some(raw) = list.get(*at) else {
            target.finish_dir(to, entry).unwrap();
            branch.pop();
            continue;
        };
        *at += 1;
        let (fd, name) = (from.fd().unwrap(), raw.name.to_vec());
        let stat = Stat::of_name(&fd, &name).unwrap();
        assert!(raw.kind_hint.is_none_or(|hint| hint == stat.kind));
        let mut entry = attrs::entry_of(&fd, &name, &stat, &names).unwrap();
        if stat.kind == EntryKind::Dir {
            let below = from.child(&name).unwrap();
            let entry = dir_entry(&below, &name, &names, &xattrs);
            if let Some(made) = target.make_dir(to, &entry).unwrap() {
                branch.push((below, made, entry, None));
            }
            continue;
        }
        if stat.nlink > 1
            && let Some((first_dir, first_name, placed)) = first.get(&stat.inode)
        {
            let link = target.make_link(to, &entry, first_dir, first_name, *placed).unwrap();
            if link != Link::NotPossible {
                continue;
            }
        }
        let placed = if stat.kind == EntryKind::File {
            let (file, stat) = open_file(&fd, &name).unwrap();
            let found = xattrs.of_fd(&file, stat.device);
            assert_eq!(found.problems, []);
            entry.xattrs = found.pairs;
            entry.extents = data_extents(&file, stat.size).unwrap();
            copy_file(&target, to, &entry, &file)
        } else {
            entry.xattrs = xattrs.of_name(&fd, &name, stat.kind, stat.device).pairs;
            target.make_other(to, &entry).unwrap()
        };
        if let Some(placed) = placed {
            first.insert(stat.inode, (Arc::clone(to), name, placed));
        }
    }
    findings.kept()
}

fn dir_entry(dir: &Arc<DirHandle>, name: &[u8], names: &Names, xattrs: &Xattrs) -> Entry {
    let found = xattrs.of_fd(dir.fd().unwrap(), dir.stat().device);
    Entry { xattrs: found.pairs, ..dir.stat().entry(name, names) }
}

fn copy_file(
    target: &Target,
    to: &Arc<TargetDir>,
    entry: &Entry,
    file: &fs::File,
) -> Option<Placed> {
    let made = target.create_file(to, entry).unwrap()?;
    let whole = [Extent { offset: 0, length: entry.size }];
    let (mut content, mut staged) = (0, Staged::default());
    // Odd pieces, so that they cross the borders of extents.
    for extent in entry.extents.as_deref().unwrap_or(&whole) {
        let mut at = 0;
        while at < extent.length {
            let length = (extent.length - at).min(70_001);
            let mut piece = vec![0; usize::try_from(length).unwrap()];
            file.read_exact_at(&mut piece, extent.offset + at).unwrap();
            made.write_content_at(&mut staged, content, &piece).unwrap();
            content += length;
            at += length;
        }
    }
    made.flush(&mut staged).unwrap();
    let placed = made.placed().unwrap();
    target.finish_file(made, entry).unwrap().then_some(placed)
}

#[test]
fn one_of_everything_comes_back_as_it_was() {
    let top = DeepDir::new();
    fs::create_dir(top.join("from")).unwrap();
    zoo::fill(top.join("from"));
    let findings = copy(&top.join("from"), &top.join("to"), ALWAYS);
    assert_eq!(findings, []);
    assert_same_tree(top.join("from"), top.join("to"));
}

#[test]
fn one_of_everything_comes_back_as_it_was_for_a_normal_user() {
    let top = DeepDir::new();
    give_to_normal_user(top.path());
    as_normal_user(|| {
        fs::create_dir(top.join("from")).unwrap();
        zoo::fill(top.join("from"));
        let findings = copy(&top.join("from"), &top.join("to"), ALWAYS);
        assert_eq!(findings, []);
        assert_same_tree(top.join("from"), top.join("to"));
    });
}

/// A directory with `from` and `to` in it.
fn places() -> (DeepDir, std::path::PathBuf, std::path::PathBuf) {
    places_in(DeepDir::new())
}

fn places_in(top: DeepDir) -> (DeepDir, std::path::PathBuf, std::path::PathBuf) {
    let (from, to) = (top.join("from"), top.join("to"));
    fs::create_dir(&from).unwrap();
    (top, from, to)
}

fn set_mtime(path: impl AsRef<Path>, sec: i64) {
    use rustix::fs::{AtFlags, CWD, Timespec, Timestamps};
    let time = Timespec { tv_sec: sec, tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path.as_ref(), &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

fn policy(overwrite: Overwrite) -> Options {
    Options { overwrite, numeric_owners: false }
}

fn target(to: &Path, overwrite: Overwrite) -> (Target, Arc<Findings>) {
    let findings = Arc::new(Findings::default());
    let to = to.as_os_str().as_bytes();
    (Target::open(to, policy(overwrite), Arc::clone(&findings)).unwrap(), findings)
}

fn codes(findings: &[Finding]) -> Vec<&str> {
    findings.iter().map(|finding| finding.code.as_str()).collect()
}

fn names_in(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

fn file_entry(name: &[u8], size: u64) -> Entry {
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    let mtime = Time { sec: 1_000, nsec: 5 };
    let (uid, gid) = (uid.as_raw(), gid.as_raw());
    Entry { mode: 0o644, uid, gid, mtime, size, ..Entry::new(name, EntryKind::File) }
}

#[test]
fn the_comparer_sees_every_difference() {
    use rustix::fs::{CWD, Mode, XattrFlags};
    type Change = fn(&Path);
    let changes: [(&str, Change); 13] = [
        ("missing", |to| fs::remove_file(to.join("contents/text")).unwrap()),
        ("extra", |to| fs::write(to.join("contents/new"), "").unwrap()),
        ("kind", |to| {
            fs::remove_file(to.join("kinds/dangling link")).unwrap();
            fs::write(to.join("kinds/dangling link"), "").unwrap();
        }),
        ("mode", |to| {
            let mode = Mode::from_raw_mode(0o601);
            rustix::fs::chmod(to.join("contents/text"), mode).unwrap();
        }),
        ("mtime", |to| set_mtime(to.join("kinds/link"), 77)),
        ("size", |to| {
            let file = fs::File::options().write(true).open(to.join("contents/text")).unwrap();
            file.set_len(5).unwrap();
        }),
        ("bytes", |to| {
            let file = fs::File::options().write(true).open(to.join("contents/3 MiB")).unwrap();
            file.write_all_at(b"different", (3 << 20) - 9).unwrap();
        }),
        ("holes", |to| {
            let path = to.join("sparse/hole last");
            let bytes = fs::read(&path).unwrap();
            fs::write(&path, bytes).unwrap();
        }),
        ("target", |to| {
            fs::remove_file(to.join("kinds/dangling link")).unwrap();
            std::os::unix::fs::symlink("elsewhere", to.join("kinds/dangling link")).unwrap();
        }),
        ("xattrs", |to| {
            let path = to.join("attributes/several");
            rustix::fs::setxattr(path, "user.one", b"2", XattrFlags::empty()).unwrap();
        }),
        ("xattrs", |to| {
            let path = to.join("attributes/several");
            rustix::fs::removexattr(path, "user.empty").unwrap();
        }),
        ("links", |to| {
            fs::remove_file(to.join("kinds/another name")).unwrap();
            fs::copy(to.join("kinds/file"), to.join("kinds/another name")).unwrap();
        }),
        ("device", |to| {
            if is_root() {
                let path = to.join("kinds/null");
                fs::remove_file(&path).unwrap();
                let (kind, mode) =
                    (rustix::fs::FileType::CharacterDevice, Mode::from_raw_mode(0o640));
                let device = rustix::fs::makedev(1, 5);
                rustix::fs::mknodat(CWD, &path, kind, mode, device).unwrap();
            }
        }),
    ];
    let (_top, from, to) = places();
    zoo::fill(&from);
    for (what, change) in changes {
        if to.exists() {
            holdfast_engine_core::testing::deep::remove_deep(&to);
        }
        copy(&from, &to, ALWAYS);
        change(&to);
        let differences = compare_trees(&from, &to).unwrap();
        let seen = differences.iter().any(|difference| difference.what == what);
        assert!(seen || (what == "device" && !is_root()), "{what}: {differences:?}");
    }
}

#[test]
fn never_keeps_older_replaces_what_is_older_and_always_replaces() {
    let cases = [
        (Overwrite::Never, [true, true, true]),
        (Overwrite::Older, [false, true, true]),
        (Overwrite::Always, [false, false, false]),
    ];
    for (overwrite, kept) in cases {
        let (_top, from, to) = places();
        fs::create_dir(&to).unwrap();
        // The stored files are from second 1000.
        for (name, sec) in [("a", 999), ("b", 1_000), ("c", 1_001)] {
            fs::write(from.join(name), "stored").unwrap();
            set_mtime(from.join(name), 1_000);
            fs::write(to.join(name), "was here").unwrap();
            set_mtime(to.join(name), sec);
        }
        std::os::unix::fs::symlink("stored", from.join("link")).unwrap();
        std::os::unix::fs::symlink("was here", to.join("link")).unwrap();
        set_mtime(from.join("link"), 1_000);
        set_mtime(to.join("link"), 999);
        fs::write(to.join("unrelated"), "mine").unwrap();
        assert_eq!(copy(&from, &to, policy(overwrite)), []);
        for (name, kept) in ["a", "b", "c"].iter().zip(kept) {
            let expected = if kept { "was here" } else { "stored" };
            assert_eq!(
                fs::read_to_string(to.join(name)).unwrap(),
                expected,
                "{overwrite:?} {name}"
            );
        }
        let expected = if kept[0] { "was here" } else { "stored" };
        assert_eq!(fs::read_link(to.join("link")).unwrap().to_str(), Some(expected));
        assert_eq!(names_in(&to), ["a", "b", "c", "link", "unrelated"]);
    }
}

#[test]
fn what_is_replaced_stays_whole_for_those_who_have_it() {
    let (_top, from, to) = places();
    fs::write(from.join("f"), "new").unwrap();
    fs::create_dir(&to).unwrap();
    fs::write(to.join("f"), "old").unwrap();
    fs::hard_link(to.join("f"), to.join("other name")).unwrap();
    assert_eq!(copy(&from, &to, ALWAYS), []);
    assert_eq!(fs::read_to_string(to.join("f")).unwrap(), "new");
    assert_eq!(fs::read_to_string(to.join("other name")).unwrap(), "old");
}

#[test]
fn until_a_file_is_whole_the_old_one_has_its_name_and_an_unfinished_one_leaves_nothing() {
    let (_top, _, to) = places();
    let (target, findings) = target(&to, Overwrite::Always);
    fs::write(to.join("f"), "old").unwrap();
    let entry = file_entry(b"f", 3);
    let file = target.create_file(target.root(), &entry).unwrap().unwrap();
    file.write_content_at(&mut Staged::default(), 1, b"ew").unwrap();
    assert_eq!(file.missing(), 1);
    assert_eq!(fs::read_to_string(to.join("f")).unwrap(), "old");
    drop(file);
    assert_eq!(names_in(&to), ["f"]);

    let file = target.create_file(target.root(), &entry).unwrap().unwrap();
    file.write_content_at(&mut Staged::default(), 1, b"ew").unwrap();
    assert!(file.write_content_at(&mut Staged::default(), 3, b"!").is_err());
    assert!(!target.finish_file(file, &entry).unwrap());
    assert_eq!(codes(&findings.kept()), ["incomplete"]);
    assert_eq!(fs::read_to_string(to.join("f")).unwrap(), "old");

    let file = target.create_file(target.root(), &entry).unwrap().unwrap();
    file.write_content_at(&mut Staged::default(), 1, b"ew").unwrap();
    file.write_content_at(&mut Staged::default(), 0, b"n").unwrap();
    assert!(target.finish_file(file, &entry).unwrap());
    assert_eq!(fs::read_to_string(to.join("f")).unwrap(), "new");
    assert_eq!(names_in(&to), ["f"]);
    target.sync().unwrap();

    let fresh = file_entry(b"g", 1);
    drop(target.create_file(target.root(), &fresh).unwrap().unwrap());
    assert_eq!(names_in(&to), ["f"]);
}

#[test]
fn a_directory_in_the_way_is_removed_only_if_it_is_empty() {
    let (_top, from, to) = places();
    fs::write(from.join("empty"), "file").unwrap();
    fs::write(from.join("full"), "file").unwrap();
    fs::create_dir_all(to.join("empty")).unwrap();
    fs::create_dir_all(to.join("full/of things")).unwrap();
    let findings = copy(&from, &to, ALWAYS);
    assert_eq!(codes(&findings), ["in-the-way"]);
    assert!(findings[0].path.ends_with(b"/to/full"));
    assert!(to.join("empty").is_file());
    assert!(to.join("full/of things").is_dir());
}

#[test]
fn a_file_or_link_in_the_way_of_a_directory_goes_by_the_policy_and_is_never_followed() {
    let (top, from, to) = places();
    fs::create_dir(top.join("outside")).unwrap();
    for name in ["link", "file"] {
        fs::create_dir(from.join(name)).unwrap();
        fs::write(from.join(name).join("inside"), "stored").unwrap();
    }
    let occupy = || {
        let _ = fs::remove_dir_all(&to);
        fs::create_dir(&to).unwrap();
        std::os::unix::fs::symlink(top.join("outside"), to.join("link")).unwrap();
        fs::write(to.join("file"), "was here").unwrap();
    };
    occupy();
    assert_eq!(codes(&copy(&from, &to, policy(Overwrite::Never))), ["in-the-way", "in-the-way"]);
    assert!(to.join("link").is_symlink() && to.join("file").is_file());
    occupy();
    assert_eq!(copy(&from, &to, ALWAYS), []);
    assert_same_tree(&from, &to);
    assert_eq!(names_in(&top.join("outside")), [""; 0]);
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    let (top, _, to) = places();
    let (target, findings) = target(&to, Overwrite::Always);
    let names: [&[u8]; 7] = [b"", b".", b"..", b"/etc", b"a/b", b"../x", b"a\0b"];
    for name in names {
        let root = target.root();
        assert!(target.create_file(root, &file_entry(name, 0)).unwrap().is_none());
        assert!(target.make_dir(root, &Entry::new(name, EntryKind::Dir)).unwrap().is_none());
        assert!(target.make_other(root, &Entry::new(name, EntryKind::Fifo)).unwrap().is_none());
    }
    assert_eq!(codes(&findings.kept()), vec!["illegal-name"; names.len() * 3]);
    assert_eq!(names_in(&to), [""; 0]);
    assert_eq!(names_in(top.path()), ["from", "to"]);
}

#[test]
fn a_directory_that_is_swapped_for_a_link_does_not_lead_the_restore_away() {
    let (top, _, to) = places();
    fs::create_dir(top.join("outside")).unwrap();
    let (target, _) = target(&to, Overwrite::Always);
    let dir = target.make_dir(target.root(), &Entry::new(b"d", EntryKind::Dir)).unwrap().unwrap();
    fs::rename(to.join("d"), to.join("aside")).unwrap();
    std::os::unix::fs::symlink(top.join("outside"), to.join("d")).unwrap();
    let entry = file_entry(b"f", 0);
    let file = target.create_file(&dir, &entry).unwrap().unwrap();
    assert!(target.finish_file(file, &entry).unwrap());
    assert_eq!(names_in(&top.join("outside")), [""; 0]);
    assert_eq!(names_in(&to.join("aside")), ["f"]);
}

#[test]
fn a_hostile_entry_is_refused_in_words() {
    let (_top, _, to) = places();
    let (target, findings) = target(&to, Overwrite::Always);
    let root = target.root();
    let beyond = Entry {
        extents: Some(vec![Extent { offset: 5, length: u64::MAX - 2 }]),
        content: Content::Empty,
        ..file_entry(b"beyond", 10)
    };
    assert!(target.create_file(root, &beyond).unwrap().is_none());
    let too_large = Entry { extents: Some(Vec::new()), ..file_entry(b"large", u64::MAX) };
    let file = target.create_file(root, &too_large).unwrap().unwrap();
    assert!(!target.finish_file(file, &too_large).unwrap());
    for kind in [EntryKind::Symlink, EntryKind::Char] {
        assert!(target.make_other(root, &Entry::new(b"bare", kind)).unwrap().is_none());
    }
    assert_eq!(findings.total(), 4);
    let strange = Entry {
        uid: u32::MAX,
        gid: u32::MAX,
        mode: u32::MAX,
        mtime: Time { sec: i64::MAX, nsec: u32::MAX },
        xattrs: vec![(b"nul\0inside".to_vec(), b"".to_vec()), (b"nowhere.x".to_vec(), vec![1])],
        ..file_entry(b"strange", 0)
    };
    let file = target.create_file(root, &strange).unwrap().unwrap();
    assert!(target.finish_file(file, &strange).unwrap());
    assert_eq!(findings.total(), 6);
    assert_eq!(names_in(&to), ["strange"]);
}

#[test]
fn hard_links_find_their_file_and_nothing_else() {
    let (_top, _, to) = places();
    let (target, findings) = target(&to, Overwrite::Always);
    let root = target.root();
    let entry = file_entry(b"first", 0);
    let file = target.create_file(root, &entry).unwrap().unwrap();
    let placed = file.placed().unwrap();
    assert!(target.finish_file(file, &entry).unwrap());
    let link =
        |name: &[u8]| target.make_link(root, &file_entry(name, 0), root, b"first", placed).unwrap();
    assert_eq!(link(b"second"), Link::Made);
    // Over itself, over another file, and again.
    fs::write(to.join("third"), "in the way").unwrap();
    assert_eq!([link(b"second"), link(b"third"), link(b"third")], [Link::Made; 3]);
    assert_eq!(names_in(&to), ["first", "second", "third"]);
    assert_eq!(findings.total(), 0);
    // Somebody puts another file in the place of the first.
    fs::remove_file(to.join("first")).unwrap();
    fs::write(to.join("first"), "secret").unwrap();
    assert_eq!(link(b"fourth"), Link::Failed);
    assert_eq!(codes(&findings.kept()), ["destination-changed"]);
    assert_eq!(names_in(&to), ["first", "second", "third"]);
}

#[test]
fn files_do_not_keep_an_acl_that_they_inherit_from_the_destination() {
    use rustix::fs::XattrFlags;
    let (_top, from, to) = places();
    fs::create_dir_all(from.join("d/e")).unwrap();
    fs::write(from.join("f"), "").unwrap();
    fs::write(from.join("d/e/f"), "").unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        from.join("fifo"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o660),
        0,
    )
    .unwrap();
    let with_acl = to.join("with acl");
    fs::create_dir_all(&with_acl).unwrap();
    let flags = XattrFlags::empty();
    rustix::fs::setxattr(&with_acl, "system.posix_acl_default", zoo::ACL, flags).unwrap();
    let inside = with_acl.join("inside");
    copy(&from, &inside, ALWAYS);
    // The destination itself inherited one and was then made like the stored directory.
    assert_same_tree(&from, &inside);
}

#[test]
fn an_existing_directory_loses_attributes_that_the_stored_one_does_not_have() {
    use rustix::fs::XattrFlags;
    let (_top, from, to) = places();
    fs::create_dir(from.join("d")).unwrap();
    fs::create_dir_all(to.join("d")).unwrap();
    rustix::fs::setxattr(to.join("d"), "user.old", b"1", XattrFlags::empty()).unwrap();
    assert_eq!(copy(&from, &to, ALWAYS), []);
    assert_same_tree(&from, &to);
}

#[test]
fn a_normal_user_gets_what_their_rights_allow_and_is_told_the_rest() {
    if !is_root() {
        eprintln!("skipped: only root can make a tree that others cannot fully restore");
        return;
    }
    let (top, from, to) = places();
    zoo::fill(&from);
    // What cannot be read would end this simple copy.
    for hidden in ["modes/file without rights", "modes/directory without rights"] {
        rustix::fs::chmod(from.join(hidden), rustix::fs::Mode::RWXU).unwrap();
    }
    let all = |path: &Path| {
        rustix::fs::chmod(path, rustix::fs::Mode::from_raw_mode(0o755)).unwrap();
    };
    let open_up = |dir: &Path| {
        let mut dirs = vec![dir.to_owned()];
        while let Some(dir) = dirs.pop() {
            all(&dir);
            for entry in fs::read_dir(&dir).unwrap() {
                let entry = entry.unwrap();
                let kind = entry.file_type().unwrap();
                if kind.is_dir() {
                    dirs.push(entry.path());
                } else if kind.is_file() {
                    let mode = fs::metadata(entry.path()).unwrap();
                    let mode = std::os::unix::fs::PermissionsExt::mode(&mode.permissions());
                    let mode = rustix::fs::Mode::from_raw_mode(mode | 0o444);
                    rustix::fs::chmod(entry.path(), mode).unwrap();
                }
            }
        }
    };
    open_up(&from);
    give_to_normal_user(top.path());
    let findings = as_normal_user(|| copy(&from, &to, ALWAYS));
    let compare = Compare { owners: false, xattrs: false, ..Compare::default() };
    let differences = compare.trees(&from, &to).unwrap();
    for difference in &differences {
        let path = String::from_utf8_lossy(&difference.path).into_owned();
        // Devices are missing, and set-id bits are off where the owner is another.
        assert!(
            (difference.what == "missing" && path == "kinds") || difference.what == "mode",
            "{difference}"
        );
    }
    assert_eq!(differences.iter().filter(|one| one.what == "missing").count(), 3);
    let count = |code: &str| findings.iter().filter(|one| one.code == code).count();
    assert_eq!(count("no-permission"), 3, "three devices");
    assert!(count("owner-not-restored") > 50);
    assert!(count("mode-not-restored") >= 3);
    assert!(count("xattr-not-restored") >= 1);
    for finding in &findings {
        let expected =
            if finding.code == "no-permission" { Severity::Error } else { Severity::Warning };
        assert_eq!(finding.severity, expected, "{finding:?}");
    }
}

#[test]
fn a_normal_user_restores_into_their_own_directories_that_forbid_writing() {
    let (top, from, to) = places();
    give_to_normal_user(top.path());
    give_to_normal_user(&from);
    as_normal_user(|| {
        let set = |path: &Path, mode| {
            rustix::fs::chmod(path, rustix::fs::Mode::from_raw_mode(mode)).unwrap();
        };
        for place in [&from, &to] {
            for name in ["read only", "closed"] {
                fs::create_dir_all(place.join(name)).unwrap();
                fs::write(place.join(name).join("old"), "old").unwrap();
            }
        }
        fs::write(from.join("read only/new"), "new").unwrap();
        fs::write(from.join("closed/new"), "new").unwrap();
        set(&from.join("read only"), 0o555);
        set(&to.join("read only"), 0o500);
        set(&to.join("closed"), 0);
        assert_eq!(copy(&from, &to, ALWAYS), []);
        assert_same_tree(&from, &to);
        // Kept directories get their own mode back.
        set(&to.join("closed"), 0o100);
        fs::write(from.join("closed/newer"), "new").unwrap();
        assert_eq!(copy(&from, &to, policy(Overwrite::Never)), []);
        let mode = fs::metadata(to.join("closed")).unwrap().permissions();
        assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode) & 0o7777, 0o100);
        set(&to.join("closed"), 0o700);
        assert_eq!(fs::read_to_string(to.join("closed/newer")).unwrap(), "new");
    });
}

#[test]
fn ten_thousand_levels_come_back() {
    let (_top, from, to) = places_in(DeepDir::in_memory());
    make_deep(&from, 10_000, &[b'd'; 255]);
    assert_eq!(copy(&from, &to, ALWAYS), []);
    assert_same_tree(&from, &to);
}

#[test]
fn a_full_disk_ends_the_job_with_the_name_of_the_file() {
    let (_top, from, to) = places();
    fs::create_dir(&to).unwrap();
    let mounted = is_root()
        && std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"])
            .arg(&to)
            .output()
            .is_ok_and(|output| output.status.success());
    if !mounted {
        eprintln!("skipped: this user cannot mount a small file system");
        return;
    }
    fs::write(from.join("f"), vec![1; 1 << 20]).unwrap();
    let (target, findings) = target(&to, Overwrite::Always);
    let entry = file_entry(b"f", 1 << 20);
    let file = target.create_file(target.root(), &entry).unwrap().unwrap();
    let error = file.write_content_at(&mut Staged::default(), 0, &vec![1; 1 << 20]).unwrap_err();
    let error = target.abandon_file(file, error).unwrap_err();
    assert_eq!(error.code(), "no-space");
    assert!(error.to_string().contains("/to/f"), "{error}");
    assert_eq!(findings.total(), 0);
    assert_eq!(names_in(&to), [""; 0]);
    drop(target);
    let unmounted = std::process::Command::new("umount").arg(&to).status().unwrap();
    assert!(unmounted.success());
}
