//! Getting a name for what is restored: free names are taken outright, others by the overwrite
//! policy, through a temporary name and a rename.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::Ordering;

use rustix::fs::AtFlags;
use rustix::io::Errno;

use super::{Attempt, Failure, Target};
use crate::ids::hex;
use crate::scan::attrs::Stat;
use crate::scan::problem::Problem;
use crate::tree::entry::{Entry, EntryKind};

/// The file that now has a name, to make hard links to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    pub(super) device: u64,
    pub(super) inode: u64,
}

impl Placed {
    pub(super) fn of(stat: &Stat) -> Self {
        Placed { device: stat.device, inode: stat.inode }
    }
}

/// What was made, and the temporary name that it has if its own is taken.
pub(super) struct Made<T> {
    pub what: T,
    pub temporary: Option<Vec<u8>>,
}

impl Target {
    /// Makes something under the entry's name or, where an existing file is to be replaced, under
    /// a temporary one. `Ok(None)` where the existing file is kept.
    pub(super) fn make<T>(
        &self,
        dir: BorrowedFd<'_>,
        entry: &Entry,
        create: impl Fn(&[u8]) -> Result<T, Errno>,
    ) -> Attempt<Made<T>> {
        loop {
            match create(&entry.name) {
                Ok(what) => return Ok(Some(Made { what, temporary: None })),
                Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
            let existing = match Stat::of_name(dir, &entry.name) {
                Ok(existing) => existing,
                Err(error) if Errno::from_io_error(&error) == Some(Errno::NOENT) => continue,
                Err(error) => return Err(error.into()),
            };
            if !self.options.overwrite.replaces(existing.mtime, entry.mtime) {
                self.kept.fetch_add(1, Ordering::Relaxed);
                return Ok(None);
            }
            if existing.kind == EntryKind::Dir {
                remove_empty(dir, entry)?;
                continue;
            }
            loop {
                let name = self.temporary_name();
                match create(&name) {
                    Ok(what) => return Ok(Some(Made { what, temporary: Some(name) })),
                    Err(Errno::EXIST) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
    }

    fn temporary_name(&self) -> Vec<u8> {
        let number = self.temporaries.fetch_add(1, Ordering::Relaxed);
        format!(".holdfast-{}-{number}", hex(&self.salt)).into_bytes()
    }
}

/// A directory makes room for a file only if nothing is lost with it.
fn remove_empty(dir: BorrowedFd<'_>, entry: &Entry) -> Result<(), Failure> {
    match rustix::fs::unlinkat(dir, &*entry.name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(Errno::NOTEMPTY | Errno::EXIST | Errno::BUSY) => Err(Problem::error(
            "in-the-way",
            format!(
                "could not restore the {}: a directory with files in it is in its place",
                entry.kind.as_str()
            ),
        )
        .into()),
        Err(error) => Err(error.into()),
    }
}

/// Gives what was made its own name, replacing what has it.
pub(super) fn rename_over(
    dir: impl AsFd,
    temporary: Option<&[u8]>,
    name: &[u8],
) -> Result<(), Errno> {
    let Some(temporary) = temporary else { return Ok(()) };
    let dir = dir.as_fd();
    let renamed = rustix::fs::renameat(dir, temporary, dir, name);
    if renamed.is_err() {
        remove(dir, temporary);
    }
    renamed
}

/// Takes back what was made. Nothing more can be done if that fails.
pub(super) fn remove(dir: impl AsFd, name: &[u8]) {
    let _ = rustix::fs::unlinkat(dir, name, AtFlags::empty());
}
