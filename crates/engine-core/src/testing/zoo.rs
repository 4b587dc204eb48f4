//! One of everything that Linux keeps in a directory.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};

use super::user::is_root;

/// An ACL in the kernel's form: version 2, then tag, permissions and number of each entry.
/// `user:1234:r--` among the three that every file has, and a mask.
pub const ACL: &[u8] = &[
    2, 0, 0, 0, //
    1, 0, 6, 0, 255, 255, 255, 255, // user::rw-
    2, 0, 4, 0, 210, 4, 0, 0, // user:1234:r--
    4, 0, 4, 0, 255, 255, 255, 255, // group::r--
    16, 0, 4, 0, 255, 255, 255, 255, // mask::r--
    32, 0, 0, 0, 255, 255, 255, 255, // other::---
];

/// CAP_NET_BIND_SERVICE, permitted and effective, in the kernel's form (revision 2).
pub const CAPABILITY: &[u8] = &[1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

const MIB: u64 = 1 << 20;

/// Fills `top`, an empty directory, with every kind of file, name, attribute and hole that this
/// user may make. The same call makes the same tree.
///
/// # Panics
/// If the system refuses.
pub fn fill(top: impl AsRef<Path>) {
    let top = top.as_ref();
    contents(&make(top, "contents"));
    sparse(&make(top, "sparse"));
    names(&make(top, "names"));
    kinds(&make(top, "kinds"));
    modes(&make(top, "modes"));
    attributes(&make(top, "attributes"));
    times(&make(top, "times"));
    if is_root() {
        owners(&make(top, "owners"));
    }
    make(top, "empty directory");
    settle_times(top);
}

fn make(top: &Path, name: &str) -> PathBuf {
    let path = top.join(name);
    fs::create_dir(&path).unwrap();
    path
}

/// Bytes that do not compress, the same for the same seed.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}

fn contents(dir: &Path) {
    for size in [0, 1, 4095, 4096, 4097, 8191, 8192, 32 << 10, 128 << 10, (128 << 10) + 1] {
        fs::write(dir.join(format!("{size} bytes")), noise(size, size as usize)).unwrap();
    }
    fs::write(dir.join("3 MiB"), noise(3, 3 << 20)).unwrap();
    fs::write(dir.join("the same 3 MiB"), noise(3, 3 << 20)).unwrap();
    fs::write(dir.join("zeros"), vec![0; 1 << 20]).unwrap();
    fs::write(dir.join("text"), "All work and no play.\n".repeat(20_000)).unwrap();
}

fn sparse(dir: &Path) {
    let with_data = |name: &str, size: u64, places: &[(u64, usize)]| {
        let file = File::create(dir.join(name)).unwrap();
        file.set_len(size).unwrap();
        for (offset, length) in places {
            file.write_all_at(&noise(*offset, *length), *offset).unwrap();
        }
    };
    with_data("only a hole", MIB, &[]);
    with_data("only a small hole", 100, &[]);
    with_data("a terabyte of nothing", 1 << 40, &[]);
    with_data("hole first", 2 * MIB, &[(MIB, 1 << 20)]);
    with_data("hole last", 2 * MIB, &[(0, 1 << 20)]);
    with_data("hole in the middle", 3 * MIB, &[(0, 4096), (2 * MIB, 1 << 20)]);
    with_data("data in the middle", (1 << 40) + 17, &[(1 << 39, 70_000)]);
    with_data("hole last, odd size", MIB + 77, &[(0, 4096)]);
    let comb: Vec<(u64, usize)> = (0..200).map(|at| (at * 64 * 1024, 4096)).collect();
    with_data("comb", 200 * 64 * 1024, &comb);
}

fn names(dir: &Path) {
    let long = vec![b'n'; 255];
    let not_utf8: Vec<u8> = (1..=255).filter(|byte| *byte != b'/').collect();
    let names: [&[u8]; 16] = [
        b" ",
        b"-rf",
        b"...",
        b"new\nline",
        b"tab\t",
        b"back\\slash",
        b"quo\"te's",
        b"*?[a]{b,c}!",
        b"\xff\xfe",
        b"\x01",
        b"trailing ",
        "grüße 🦀".as_bytes(),
        "gru\u{308}ße".as_bytes(),
        b"CACHEDIR.TAG",
        &long,
        &not_utf8,
    ];
    for name in names {
        fs::write(dir.join(OsStr::from_bytes(name)), name).unwrap();
    }
    let below = dir.join(OsStr::from_bytes(&vec![b'\xfd'; 255]));
    fs::create_dir(&below).unwrap();
    fs::write(below.join(OsStr::from_bytes(&vec![b'\xfc'; 255])), "deep").unwrap();
}

fn kinds(dir: &Path) {
    let file = dir.join("file");
    fs::write(&file, "with several names").unwrap();
    fs::hard_link(&file, dir.join("another name")).unwrap();
    fs::create_dir(dir.join("below")).unwrap();
    fs::hard_link(&file, dir.join("below/yet another")).unwrap();
    symlink("file", dir.join("link")).unwrap();
    symlink("/no/such/place", dir.join("dangling link")).unwrap();
    symlink(OsStr::from_bytes(b"\xff\n"), dir.join("link to no utf-8")).unwrap();
    symlink("x".repeat(4000), dir.join("long link")).unwrap();
    symlink("..", dir.join("link to a directory")).unwrap();
    fs::hard_link(dir.join("link"), dir.join("second name of the link")).unwrap();
    let node = |name: &str, kind, device| {
        rustix::fs::mknodat(CWD, dir.join(name), kind, Mode::from_raw_mode(0o640), device).unwrap();
    };
    node("fifo", FileType::Fifo, 0);
    fs::hard_link(dir.join("fifo"), dir.join("second name of the fifo")).unwrap();
    node("socket", FileType::Socket, 0);
    if is_root() {
        node("null", FileType::CharacterDevice, rustix::fs::makedev(1, 3));
        node("large numbers", FileType::CharacterDevice, rustix::fs::makedev(511, 1_000_000));
        node("loop", FileType::BlockDevice, rustix::fs::makedev(7, 200));
    }
}

fn modes(dir: &Path) {
    let set = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    for mode in [0o400, 0o444, 0o600, 0o644, 0o755, 0o777, 0o4755, 0o2755, 0o6711, 0o1644] {
        let path = dir.join(format!("file {mode:o}"));
        fs::write(&path, format!("{mode:o}")).unwrap();
        set(&path, mode);
    }
    for mode in [0o500, 0o555, 0o700, 0o777, 0o1777, 0o2775] {
        let path = dir.join(format!("directory {mode:o}"));
        fs::create_dir(&path).unwrap();
        fs::write(path.join("in it"), "").unwrap();
        set(&path, mode);
    }
    if is_root() {
        // Nobody else could read these back.
        let path = dir.join("file without rights");
        fs::write(&path, "hidden").unwrap();
        set(&path, 0);
        let path = dir.join("directory without rights");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("in it"), "").unwrap();
        set(&path, 0);
    }
}

fn attributes(dir: &Path) {
    let set = |path: &Path, name: &str, value: &[u8]| {
        rustix::fs::lsetxattr(path, name, value, XattrFlags::empty()).unwrap();
    };
    let file = |name: &str| {
        let path = dir.join(name);
        fs::write(&path, name).unwrap();
        path
    };
    let several = file("several");
    set(&several, "user.one", b"1");
    set(&several, "user.empty", b"");
    set(&several, "user.bytes", &[0, 255, 10, 0]);
    set(&several, "user.large", &noise(1, 2000));
    let many = file("many");
    for number in 0..40 {
        set(&many, &format!("user.{}{number:02}", "long name ".repeat(4)), b"v");
    }
    let read_only = file("read only with an attribute");
    set(&read_only, "user.one", b"1");
    fs::set_permissions(&read_only, fs::Permissions::from_mode(0o444)).unwrap();
    set(&file("acl"), "system.posix_acl_access", ACL);
    let below = dir.join("directory with a default acl");
    fs::create_dir(&below).unwrap();
    fs::write(below.join("without an acl"), "").unwrap();
    fs::create_dir(below.join("also without")).unwrap();
    set(&below, "system.posix_acl_default", ACL);
    set(&below, "user.on a directory", b"yes");
    fs::write(below.join("with the inherited acl"), "").unwrap();
    if is_root() {
        set(&file("trusted"), "trusted.secret", b"root only");
        set(&file("capable"), "security.capability", CAPABILITY);
        symlink("nowhere", dir.join("link")).unwrap();
        set(&dir.join("link"), "trusted.on a link", b"yes");
        let mode = Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(CWD, dir.join("fifo"), FileType::Fifo, mode, 0).unwrap();
        set(&dir.join("fifo"), "trusted.on a fifo", b"yes");
    }
}

fn times(dir: &Path) {
    // A 64-bit file system goes from 1901 to 2446.
    for (name, sec, nsec) in [
        ("one nanosecond", 1_700_000_000, 1),
        ("almost a second", 1_700_000_000, 999_999_999),
        ("before 1970", -1_000_000_000, 500_000_000),
        ("1970", 0, 0),
        ("after 2038", 4_000_000_000, 123_456_789),
    ] {
        let path = dir.join(name);
        fs::write(&path, name).unwrap();
        set_time(&path, sec, nsec);
        let path = dir.join(format!("link of {name}"));
        symlink(name, &path).unwrap();
        set_time(&path, sec, nsec);
    }
    let below = dir.join("directory");
    fs::create_dir(&below).unwrap();
    fs::write(below.join("made after its time"), "").unwrap();
}

fn set_time(path: &Path, sec: i64, nsec: i64) {
    let time = Timespec { tv_sec: sec, tv_nsec: nsec };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

fn owners(dir: &Path) {
    for (name, uid, gid, mode) in [
        ("daemon", 1, 1, 0o640),
        ("nobody known", 3_000_000_000, 3_000_000_001, 0o600),
        ("group only", 0, 12345, 0o640),
        ("set-user-id of another", 1, 1, 0o6755),
    ] {
        let path = dir.join(name);
        fs::write(&path, name).unwrap();
        let file = File::open(&path).unwrap();
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        rustix::fs::fchown(file.as_fd(), Some(uid), Some(gid)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let link = dir.join(format!("link of {name}"));
        symlink(name, &link).unwrap();
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::chownat(CWD, &link, Some(uid), Some(gid), flags).unwrap();
    }
}

/// Gives every directory an old time of its own, from the leaves up.
fn settle_times(dir: &Path) {
    let mut dirs = vec![dir.to_owned()];
    let mut at = 0;
    while let Some(dir) = dirs.get(at).cloned() {
        at += 1;
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                dirs.push(entry.path());
            }
        }
    }
    for (number, dir) in dirs.iter().enumerate().rev() {
        let number = i64::try_from(number).unwrap();
        set_time(dir, 1_500_000_000 + number, 1_000 + number);
    }
}
