//! Files on a file server that goes away: a file system in this process answers as those of the
//! kernel do then, through the kernel.

use crate::site::*;
use std::ffi::{CString, OsStr};
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::{Duration, SystemTime};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, Generation,
    INodeNo, LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyEntry,
    ReplyOpen, Request,
};
use holdfast_engine_core::manifest::Status;
use holdfast_engine_core::testing::user::is_root;
use rustix::mount::{self, MountFlags, UnmountFlags};

const DEVICE: &str = "/dev/fuse";

const TTL: Duration = Duration::from_secs(1);
const CONTENT: &[u8] = b"what is there to be read";
/// Inodes of files begin here.
const FIRST: u64 = 2;

/// What becomes of each file, by its name: nothing, or how opening or reading it fails.
const FILES: [(&str, Option<i32>, Option<i32>); 6] = [
    ("deleted by another", None, Some(libc::ESTALE)),
    ("read and gone", None, Some(libc::EHOSTDOWN)),
    ("server silent", Some(libc::EHOSTDOWN), None),
    ("share removed", Some(libc::EREMCHG), None),
    ("there", None, None),
    ("timed out", None, Some(libc::ETIMEDOUT)),
];

/// One directory of files.
struct Share;

fn attributes(ino: u64) -> FileAttr {
    let kind = if ino < FIRST { FileType::Directory } else { FileType::RegularFile };
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    FileAttr {
        ino: INodeNo(ino),
        size: if ino < FIRST { 0 } else { CONTENT.len() as u64 },
        blocks: 1,
        atime: time,
        mtime: time,
        ctime: time,
        crtime: time,
        kind,
        perm: if ino < FIRST { 0o755 } else { 0o644 },
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

fn file(ino: INodeNo) -> (&'static str, Option<i32>, Option<i32>) {
    FILES[(ino.0 - FIRST) as usize]
}

impl Filesystem for Share {
    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match FILES.iter().position(|file| file.0 == name) {
            Some(at) => reply.entry(&TTL, &attributes(at as u64 + FIRST), Generation(0)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&TTL, &attributes(ino.0));
    }

    fn open(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        match file(ino).1 {
            Some(errno) => reply.error(Errno::from_i32(errno)),
            None => reply.opened(FileHandle(0), fuser::FopenFlags::empty()),
        }
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        _: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match file(ino).2 {
            Some(errno) => reply.error(Errno::from_i32(errno)),
            None => reply.data(&CONTENT[CONTENT.len().min(offset as usize)..]),
        }
    }

    fn readdir(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        for (at, (name, ..)) in FILES.iter().enumerate().skip(offset as usize) {
            let at = at as u64;
            if reply.add(INodeNo(at + FIRST), at + 1, FileType::RegularFile, name) {
                break;
            }
        }
        reply.ok();
    }
}

/// False, with the reason on stderr, where nobody may mount.
fn can_mount() -> bool {
    let can = Path::new(DEVICE).exists() && is_root();
    if !can {
        eprintln!("skipped: only root mounts here, and where there is {DEVICE}");
    }
    can
}

/// The share mounted; `None`, with the reason on stderr, where that can't be.
fn mounted(at: &Path) -> Option<BackgroundSession> {
    if !can_mount() {
        return None;
    }
    let mut config = Config::default();
    config.mount_options = vec![MountOption::RO, MountOption::FSName("share".into())];
    match fuser::spawn_mount(Share, at, &config) {
        Ok(session) => Some(session),
        Err(error) => {
            eprintln!("skipped: {error}");
            None
        }
    }
}

#[test]
fn a_file_server_that_is_gone_is_told_from_a_file_that_is_gone_and_from_a_bad_disk() {
    let site = Site::new();
    let share = site.from.join("share");
    fs::create_dir(&share).unwrap();
    let Some(session) = mounted(&share) else { return };
    let backup = site.back_up();
    assert_eq!(
        codes(&backup.findings),
        expected(&[
            ("deleted by another", "stale"),
            ("read and gone", "network-name-not-found"),
            ("server silent", "network-name-not-found"),
            ("share removed", "network-name-not-found"),
            ("timed out", "input-output"),
        ])
    );
    for one in &backup.findings {
        let said = match one.code.as_str() {
            "stale" => "does not know it any more",
            "network-name-not-found" => "its file server can't be reached (",
            _ => "(Connection timed out)",
        };
        assert!(one.message.contains(said), "{}", one.message);
    }
    assert_eq!(backup.image.status, Status::CompletedWithErrors);
    drop(session);
    let back = site.restore(&backup.image).join("share");
    let names: Vec<_> = fs::read_dir(&back).unwrap().map(|one| one.unwrap().file_name()).collect();
    assert_eq!(names, ["there"]);
    assert_eq!(fs::read(back.join("there")).unwrap(), CONTENT);
}

#[test]
fn a_mount_whose_server_has_died_is_a_file_server_that_is_gone() {
    if !can_mount() {
        return;
    }
    let site = Site::new();
    fs::write(site.from.join("here"), "here").unwrap();
    let share = site.from.join("share");
    fs::create_dir(&share).unwrap();
    let device = File::options().read(true).write(true).open(DEVICE).unwrap();
    let data = format!("fd={},rootmode=40000,user_id=0,group_id=0", device.as_raw_fd());
    let data = CString::new(data).unwrap();
    if let Err(error) = mount::mount("share", &share, "fuse", MountFlags::RDONLY, data.as_c_str()) {
        eprintln!("skipped: {error}");
        return;
    }
    // Nobody will ever answer.
    drop(device);
    let backup = site.back_up();
    mount::unmount(&share, UnmountFlags::DETACH).unwrap();
    assert_eq!(codes(&backup.findings), expected(&[("share", "network-name-not-found")]));
    assert_eq!(backup.image.status, Status::CompletedWithErrors);
}
