//! Extended attributes of all namespaces that the user may read: ACLs and capabilities are
//! among them.
//!
//! A file without any costs one call; a file system without any costs one call in all. Nothing
//! is opened for it: links and special files are reached through `/proc/self/fd`.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use parking_lot::RwLock;
use rustix::fs::AtFlags;
use rustix::io::Errno;

use super::problem::Problem;
use crate::tree::entry::EntryKind;

/// The kernel's limits: of a list of names, and of one value.
const LIST_MAX: usize = 64 << 10;
const VALUE_MAX: usize = 64 << 10;
/// What fits without asking twice.
const SMALL: usize = 1 << 10;

/// What one file may have in all, well below what an entry of a tree may take. Only XFS and
/// file systems in user space allow as much.
const TOTAL_MAX: usize = 4 << 20;

/// Names and values, sorted by name.
pub type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

/// What was read, and what could not be.
#[derive(Debug, Default)]
pub struct Found {
    pub pairs: Pairs,
    pub problems: Vec<Problem>,
}

/// Reads attributes, remembering which file systems have none. Shared between threads.
#[derive(Debug, Default)]
pub struct Xattrs {
    /// Devices where listing is not supported: for files and directories, and for the rest.
    without: RwLock<Vec<(u64, bool)>>,
}

enum On<'a> {
    Fd(BorrowedFd<'a>),
    Path(&'a CStr),
}

impl Xattrs {
    pub fn new() -> Self {
        Self::default()
    }

    /// Of an open file or directory, which lies on `device`.
    pub fn of_fd(&self, fd: impl AsFd, device: u64) -> Found {
        self.read(&On::Fd(fd.as_fd()), device, true).unwrap_or_else(|error| failed(&error))
    }

    /// Of a name that is not opened: a symbolic link itself, a device, a FIFO, a socket, or a
    /// file whose bytes are not wanted.
    pub fn of_name(&self, dir: impl AsFd, name: &[u8], kind: EntryKind, device: u64) -> Found {
        let dir = dir.as_fd();
        let is_plain = matches!(kind, EntryKind::File | EntryKind::Dir);
        let read = with_proc_path(dir, name, |path| self.read(&On::Path(path), device, is_plain));
        match read {
            Err(Errno::NOENT)
                if rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).is_ok() =>
            {
                let message = "could not read its extended attributes: /proc is not mounted";
                let problem = Problem::error("xattr-unreadable", message);
                Found { pairs: Vec::new(), problems: vec![problem] }
            }
            read => read.unwrap_or_else(|error| failed(&error)),
        }
    }

    fn read(&self, on: &On<'_>, device: u64, is_plain: bool) -> Result<Found, Errno> {
        if self.without.read().contains(&(device, is_plain)) {
            return Ok(Found::default());
        }
        let mut small = [0; SMALL];
        match on.list(&mut small) {
            Ok(length) => Ok(on.values(small.get(..length).unwrap_or_default())),
            Err(Errno::RANGE) => {
                let mut large = vec![0; LIST_MAX];
                let length = on.list(&mut large)?;
                Ok(on.values(large.get(..length).unwrap_or_default()))
            }
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                let mut without = self.without.write();
                if !without.contains(&(device, is_plain)) {
                    without.push((device, is_plain));
                }
                Ok(Found::default())
            }
            Err(error) => Err(error),
        }
    }
}

impl On<'_> {
    fn list(&self, buffer: &mut [u8]) -> Result<usize, Errno> {
        match self {
            On::Fd(fd) => rustix::fs::flistxattr(fd, buffer),
            On::Path(path) => rustix::fs::llistxattr(*path, buffer),
        }
    }

    fn get(&self, name: &[u8], buffer: &mut [u8]) -> Result<usize, Errno> {
        match self {
            On::Fd(fd) => rustix::fs::fgetxattr(fd, name, buffer),
            On::Path(path) => rustix::fs::lgetxattr(*path, name, buffer),
        }
    }

    /// The values of a list of NUL-terminated names.
    fn values(&self, list: &[u8]) -> Found {
        let mut found = Found::default();
        let mut total = 0;
        for name in list.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
            match self.value(name) {
                Ok(value) => {
                    total += name.len() + value.len();
                    if total > TOTAL_MAX {
                        found.problems.push(too_many());
                        break;
                    }
                    found.pairs.push((name.to_vec(), value));
                }
                // Removed between the list and now: as if it never was.
                Err(Errno::NODATA) => {}
                Err(error) => found.problems.push(Problem::error(
                    "xattr-unreadable",
                    format!(
                        "could not read its extended attribute {}: {}",
                        String::from_utf8_lossy(name),
                        io::Error::from(error)
                    ),
                )),
            }
        }
        found.pairs.sort_unstable();
        // A damaged file system may name one twice, which no tree may hold.
        found.pairs.dedup_by(|a, b| a.0 == b.0);
        found
    }

    fn value(&self, name: &[u8]) -> Result<Vec<u8>, Errno> {
        let mut small = [0; SMALL];
        match self.get(name, &mut small) {
            Ok(length) => Ok(small.get(..length).unwrap_or_default().to_vec()),
            Err(Errno::RANGE) => {
                let mut large = vec![0; VALUE_MAX];
                let length = self.get(name, &mut large)?;
                large.truncate(length);
                large.shrink_to_fit();
                Ok(large)
            }
            Err(error) => Err(error),
        }
    }
}

fn too_many() -> Problem {
    Problem::error(
        "xattr-unreadable",
        format!("has more than {} MiB of extended attributes: not all are kept", TOTAL_MAX >> 20),
    )
}

fn failed(error: &Errno) -> Found {
    let message = format!("could not list its extended attributes: {}", io::Error::from(*error));
    Found { pairs: Vec::new(), problems: vec![Problem::error("xattr-unreadable", message)] }
}

/// Calls with `/proc/self/fd/N/name`: `name` below an open directory, however deep that lies,
/// for system calls that take only a path.
pub(crate) fn with_proc_path<T>(
    dir: BorrowedFd<'_>,
    name: &[u8],
    call: impl FnOnce(&CStr) -> Result<T, Errno>,
) -> Result<T, Errno> {
    // "/proc/self/fd/", ten digits, "/", 255 bytes, NUL.
    let mut path = [0; 320];
    let mut length = 0;
    let number = decimal(dir.as_raw_fd());
    for part in [b"/proc/self/fd/".as_slice(), number.as_bytes(), b"/", name] {
        let place = path.get_mut(length..length + part.len()).ok_or(Errno::NAMETOOLONG)?;
        place.copy_from_slice(part);
        length += part.len();
    }
    let path = path.get(..=length).ok_or(Errno::NAMETOOLONG)?;
    call(CStr::from_bytes_with_nul(path).map_err(|_| Errno::INVAL)?)
}

fn decimal(number: i32) -> rustix::path::DecInt {
    rustix::path::DecInt::new(number)
}
