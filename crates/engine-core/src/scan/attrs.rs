//! What a file is: everything but its bytes and its extended attributes.

use std::io;
use std::os::fd::AsFd;

use rustix::fs::{AtFlags, FileType};

use super::list::kind_of;
use super::names::Names;
use crate::tree::entry::{Entry, EntryKind, Time};

/// A file's attributes without its name: plain numbers, nothing allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    pub kind: EntryKind,
    /// Permission bits, 0o7777.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: Time,
    pub ctime: Time,
    pub inode: u64,
    pub device: u64,
    pub nlink: u64,
    /// Bytes, holes included; of a symbolic link, the length of its target.
    pub size: u64,
    /// Units of 512 bytes that the file takes on its disk.
    pub blocks: u64,
    /// Devices: major and minor number.
    pub rdev: (u32, u32),
}

impl Stat {
    /// Of a name in a directory; a symbolic link is looked at, not followed, and nothing is
    /// mounted by looking.
    pub fn of_name(dir: impl AsFd, name: &[u8]) -> io::Result<Self> {
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        Self::new(&rustix::fs::statat(dir, name, flags)?)
    }

    pub fn of_fd(fd: impl AsFd) -> io::Result<Self> {
        Self::new(&rustix::fs::fstat(fd)?)
    }

    // The fields' widths differ between architectures.
    #[allow(clippy::unnecessary_cast, clippy::cast_lossless)]
    fn new(raw: &rustix::fs::Stat) -> io::Result<Self> {
        let kind = kind_of(FileType::from_raw_mode(raw.st_mode as _)).ok_or_else(|| {
            io::Error::new(io::ErrorKind::Unsupported, "it is of a kind that Linux does not know")
        })?;
        let rdev = raw.st_rdev as u64;
        Ok(Stat {
            kind,
            mode: raw.st_mode as u32 & 0o7777,
            uid: raw.st_uid as u32,
            gid: raw.st_gid as u32,
            mtime: time(raw.st_mtime as i64, raw.st_mtime_nsec as u32),
            ctime: time(raw.st_ctime as i64, raw.st_ctime_nsec as u32),
            inode: raw.st_ino as u64,
            device: raw.st_dev as u64,
            nlink: raw.st_nlink as u64,
            size: u64::try_from(raw.st_size as i64).unwrap_or(0),
            blocks: u64::try_from(raw.st_blocks as i64).unwrap_or(0),
            rdev: (rustix::fs::major(rdev), rustix::fs::minor(rdev)),
        })
    }

    /// Whether both are the same file, whatever its names.
    pub fn is_same_file(&self, other: &Stat) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }

    /// Whether this lies on another file system than `other`: a mount point below it.
    pub fn is_on_other_file_system(&self, other: &Stat) -> bool {
        self.device != other.device
    }

    /// The entry for this file under a name. Content, subtree, target and extended attributes
    /// are the caller's to add.
    pub fn entry(&self, name: &[u8], names: &Names) -> Entry {
        let is_device = matches!(self.kind, EntryKind::Char | EntryKind::Block);
        Entry {
            mode: self.mode,
            uid: self.uid,
            gid: self.gid,
            user: names.user(self.uid),
            group: names.group(self.gid),
            mtime: self.mtime,
            ctime: self.ctime,
            inode: self.inode,
            device: self.device,
            nlink: self.nlink,
            size: if self.kind == EntryKind::File { self.size } else { 0 },
            rdev: is_device.then_some(self.rdev),
            ..Entry::new(name, self.kind)
        }
    }
}

/// File systems in user space have been seen to give more nanoseconds than a second has, which no
/// tree may hold.
fn time(sec: i64, nsec: u32) -> Time {
    Time { sec, nsec: nsec.min(999_999_999) }
}

/// The entry of a name: attributes, and the target of a symbolic link. No extended attributes.
pub fn stat_entry(dir: impl AsFd, name: &[u8], names: &Names) -> io::Result<Entry> {
    let dir = dir.as_fd();
    entry_of(dir, name, &Stat::of_name(dir, name)?, names)
}

/// The same for attributes that are already known.
pub fn entry_of(dir: impl AsFd, name: &[u8], stat: &Stat, names: &Names) -> io::Result<Entry> {
    let mut entry = stat.entry(name, names);
    if stat.kind == EntryKind::Symlink {
        entry.target = Some(read_target(dir, name)?);
    }
    Ok(entry)
}

/// The target of a symbolic link, as bytes.
pub fn read_target(dir: impl AsFd, name: &[u8]) -> io::Result<Vec<u8>> {
    let target = rustix::fs::readlinkat(dir, name, Vec::new())?.into_bytes();
    if target.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the link leads nowhere"));
    }
    Ok(target)
}
