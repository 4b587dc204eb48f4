//! Opening a file to read it, and telling whether it held still meanwhile.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;

use super::attrs::Stat;
use super::problem::{Problem, replaced};
use crate::tree::entry::EntryKind;

/// Opens a regular file for reading: no symbolic link is followed, a FIFO or device that took
/// the name does not block, and the access time stays where that is allowed.
///
/// Returns the attributes as of now: the name may meanwhile stand for another regular file, and
/// then the entry to store is that one's.
pub fn open_file(dir: impl AsFd, name: &[u8]) -> io::Result<(File, Stat)> {
    let dir = dir.as_fd();
    let flags =
        OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let open = |flags| rustix::fs::openat(dir, name, flags, Mode::empty());
    let opened = match open(flags | OFlags::NOATIME) {
        // Only the owner may ask for that.
        Err(Errno::PERM) => open(flags),
        opened => opened,
    };
    let fd = match opened {
        Ok(fd) => fd,
        // A lease (of a file server, say) is being called back: wait for it.
        Err(Errno::AGAIN) => open_leased(dir, name)?,
        // A socket or a device without a driver took the name, or a symbolic link did.
        Err(Errno::NXIO | Errno::LOOP) => return Err(replaced()),
        Err(error) => return Err(error.into()),
    };
    let stat = Stat::of_fd(&fd)?;
    if stat.kind != EntryKind::File {
        return Err(replaced());
    }
    Ok((File::from(fd), stat))
}

/// Opens a file, waiting until its lease is given back. It is pinned first, so that what is
/// waited for is surely a regular file and not a FIFO that took its name.
fn open_leased(dir: impl AsFd, name: &[u8]) -> io::Result<std::os::fd::OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let pinned = rustix::fs::openat(dir, name, flags, Mode::empty())?;
    if Stat::of_fd(&pinned)?.kind != EntryKind::File {
        return Err(replaced());
    }
    let path = format!("/proc/self/fd/{}", pinned.as_raw_fd());
    Ok(rustix::fs::openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Whether the file changed between `before`, taken when it was opened, and now, when
/// `bytes_read` bytes (holes included) were read up to its end. `None` when it held still.
pub fn changed_while_read(
    file: &File,
    before: &Stat,
    bytes_read: u64,
) -> io::Result<Option<Problem>> {
    let after = Stat::of_fd(file)?;
    let problem = |message: String| Some(Problem::error("changed-while-read", message));
    Ok(if bytes_read < before.size {
        problem(format!(
            "it shrank from {} to {bytes_read} bytes while it was read: the image holds {bytes_read}",
            before.size
        ))
    } else if after.size > before.size {
        problem(format!(
            "it grew from {} to {} bytes while it was read: the image holds {bytes_read}",
            before.size, after.size
        ))
    } else if after.size != before.size || after.mtime != before.mtime {
        problem("it was written to while it was read: the image may mix old and new bytes".into())
    } else if after.nlink == 0 {
        Some(Problem::warning(
            "vanished",
            "it was deleted while it was read: the image holds it as it was",
        ))
    } else {
        None
    })
}
