//! What `stat` shows of an entry.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{FileAttr, FileType, INodeNo};

use crate::error::Result;
use crate::tree::codec::Peek;
use crate::tree::entry::{EntryKind, Time};
use crate::tree::extents;

/// What `stat` counts allocated bytes in.
const BLOCK_BYTES: u64 = 512;

pub(super) fn file_type(kind: EntryKind) -> FileType {
    match kind {
        EntryKind::File => FileType::RegularFile,
        EntryKind::Dir => FileType::Directory,
        EntryKind::Symlink => FileType::Symlink,
        EntryKind::Fifo => FileType::NamedPipe,
        EntryKind::Socket => FileType::Socket,
        EntryKind::Char => FileType::CharDevice,
        EntryKind::Block => FileType::BlockDevice,
    }
}

/// `inside`: of a file inside of a disk it is not known where it has holes.
pub(super) fn attributes(ino: u64, seen: &Peek<'_>, inside: bool) -> Result<FileAttr> {
    let data = match seen.extents.filter(|_| !inside) {
        // Holes take no blocks: cp and du tell a sparse file by that.
        Some(encoded) => {
            let list = extents::decode(encoded, seen.size);
            extents::data_bytes(&list.map_err(|malformed| malformed.within("a tree entry"))?)
        }
        None => seen.size,
    };
    let size = seen.target.map_or(seen.size, |target| target.len() as u64);
    // 1 says that the number of subdirectories is not known; 2 would say that there are none.
    let nlink = if seen.kind == EntryKind::Dir { 1 } else { seen.nlink };
    Ok(FileAttr {
        ino: INodeNo(ino),
        size,
        blocks: data.div_ceil(BLOCK_BYTES),
        atime: time(seen.mtime),
        mtime: time(seen.mtime),
        ctime: time(seen.ctime),
        crtime: UNIX_EPOCH,
        kind: file_type(seen.kind),
        perm: (seen.mode & 0o7777) as u16,
        nlink: u32::try_from(nlink).unwrap_or(u32::MAX),
        uid: seen.uid,
        gid: seen.gid,
        rdev: seen.rdev.map_or(0, device_number),
        blksize: 128 << 10,
        flags: 0,
    })
}

/// A directory of which only the number matters.
pub(super) fn blank(ino: u64) -> FileAttr {
    FileAttr {
        ino: INodeNo(ino),
        size: 0,
        blocks: 0,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: FileType::Directory,
        perm: 0,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 0,
        flags: 0,
    }
}

/// The kernel's 32-bit form: 12 bits of major, 20 of minor.
fn device_number((major, minor): (u32, u32)) -> u32 {
    (minor & 0xff) | ((major & 0xfff) << 8) | ((minor & 0xfff00) << 12)
}

fn time(time: Time) -> SystemTime {
    let whole = Duration::from_secs(time.sec.unsigned_abs());
    let second =
        if time.sec >= 0 { UNIX_EPOCH.checked_add(whole) } else { UNIX_EPOCH.checked_sub(whole) };
    let exact =
        second.and_then(|second| second.checked_add(Duration::from_nanos(time.nsec.into())));
    exact.unwrap_or(UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_and_at_the_ends_are_kept_or_1970() {
        let before = time(Time { sec: -2, nsec: 800_000_000 });
        assert_eq!(UNIX_EPOCH.duration_since(before).ok(), Some(Duration::from_millis(1_200)));
        for sec in [i64::MIN, i64::MAX] {
            time(Time { sec, nsec: 999_999_999 });
        }
    }

    #[test]
    fn device_numbers_are_as_the_kernel_packs_them() {
        assert_eq!(device_number((8, 1)), 0x801);
        assert_eq!(device_number((259, 0x12345)), 0x12310345);
    }
}
