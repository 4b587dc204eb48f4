//! Everything but directories and regular files, and further names of files.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::metadata::On;
use super::place::{Made, Placed, remove, rename_over};
use super::{Attempt, Failure, Target, TargetDir, plain_name};
use crate::error::Result;
use crate::scan::attrs::Stat;
use crate::scan::problem::Problem;
use crate::tree::entry::{Entry, EntryKind};

/// What came of a further name for a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    Made,
    /// What had the name was kept.
    Kept,
    /// The file system here cannot: restore the name as a file of its own.
    NotPossible,
    /// A finding says why.
    Failed,
}

impl Target {
    /// Makes a symbolic link, FIFO, socket or device, with all its attributes. `None` where an
    /// existing file was kept, or where a finding says why not.
    pub fn make_other(&self, dir: &TargetDir, entry: &Entry) -> Result<Option<Placed>> {
        let doing = format!("restore the {}", entry.kind.as_str());
        let attempt = match self.try_make_other(dir, entry) {
            Err(Failure::Io(error))
                if matches!(entry.kind, EntryKind::Char | EntryKind::Block)
                    && Errno::from_io_error(&error) == Some(Errno::PERM) =>
            {
                let message = format!("could not {doing} device: only root can make devices");
                Err(Problem::error("no-permission", message).into())
            }
            attempt => attempt,
        };
        self.settle(&|| dir.path_of(&entry.name), &doing, attempt)
    }

    fn try_make_other(&self, dir: &TargetDir, entry: &Entry) -> Attempt<Placed> {
        plain_name(&entry.name)?;
        let fd = dir.handle().fd()?;
        let fd = fd.as_fd();
        let Some(made) = self.make(fd, entry, |name| create(fd, name, entry))? else {
            return Ok(None);
        };
        let name = made.temporary.as_deref().unwrap_or(&entry.name);
        let finished = pin(fd, name, entry).and_then(|(pinned, placed)| {
            let path = || dir.path_of(&entry.name);
            self.apply(&On::Pinned(pinned.as_fd()), entry, false, dir.gives_acl(), &path)?;
            Ok(placed)
        });
        match finished {
            Ok(placed) => {
                rename_over(fd, made.temporary.as_deref(), &entry.name)?;
                Ok(Some(placed))
            }
            Err(failure) => {
                if let Some(temporary) = &made.temporary {
                    remove(fd, temporary);
                }
                Err(failure)
            }
        }
    }

    /// Gives the file `placed`, restored before as `first_name` in `first_dir`, the entry's name
    /// too.
    pub fn make_link(
        &self,
        dir: &TargetDir,
        entry: &Entry,
        first_dir: &TargetDir,
        first_name: &[u8],
        placed: Placed,
    ) -> Result<Link> {
        let attempt = self.try_make_link(dir, entry, first_dir, first_name, placed);
        if let Err(Failure::Io(error)) = &attempt
            && matches!(
                Errno::from_io_error(error),
                Some(Errno::MLINK | Errno::XDEV | Errno::PERM | Errno::ACCESS | Errno::OPNOTSUPP)
            )
        {
            Problem::warning(
                "hard-link-not-restored",
                "could not be linked to its other names here, so it is a file of its own",
            )
            .report(&self.findings, &dir.path_of(&entry.name));
            return Ok(Link::NotPossible);
        }
        let was_kept = matches!(attempt, Ok(None));
        let settled = self.settle(&|| dir.path_of(&entry.name), "make the hard link", attempt)?;
        Ok(match settled {
            Some(()) => Link::Made,
            None if was_kept => Link::Kept,
            None => Link::Failed,
        })
    }

    fn try_make_link(
        &self,
        dir: &TargetDir,
        entry: &Entry,
        first_dir: &TargetDir,
        first_name: &[u8],
        placed: Placed,
    ) -> Attempt<()> {
        let name = plain_name(&entry.name)?;
        let (fd, first_fd) = (dir.handle().fd()?, first_dir.handle().fd()?);
        let fd = fd.as_fd();
        let link =
            |name: &[u8]| rustix::fs::linkat(&first_fd, first_name, fd, name, AtFlags::empty());
        // Renaming one name of a file over another of the same file does nothing.
        if Stat::of_name(fd, name).is_ok_and(|existing| Placed::of(&existing) == placed) {
            return Ok(Some(()));
        }
        let Some(Made { temporary, .. }) = self.make(fd, entry, link)? else { return Ok(None) };
        let made = temporary.as_deref().unwrap_or(name);
        if Placed::of(&Stat::of_name(fd, made)?) != placed {
            remove(fd, made);
            return Err(changed().into());
        }
        rename_over(fd, temporary.as_deref(), name)?;
        Ok(Some(()))
    }
}

fn create(dir: BorrowedFd<'_>, name: &[u8], entry: &Entry) -> std::result::Result<(), Errno> {
    let mode = Mode::RUSR | Mode::WUSR;
    let node = |kind, device| rustix::fs::mknodat(dir, name, kind, mode, device);
    let device =
        || entry.rdev.map(|(major, minor)| rustix::fs::makedev(major, minor)).ok_or(Errno::INVAL);
    match entry.kind {
        EntryKind::Symlink => {
            let target = entry.target.as_deref().ok_or(Errno::INVAL)?;
            rustix::fs::symlinkat(target, dir, name)
        }
        EntryKind::Fifo => node(FileType::Fifo, 0),
        EntryKind::Socket => node(FileType::Socket, 0),
        EntryKind::Char => node(FileType::CharacterDevice, device()?),
        EntryKind::Block => node(FileType::BlockDevice, device()?),
        EntryKind::File | EntryKind::Dir => Err(Errno::INVAL),
    }
}

/// A descriptor of what was just made, and of nothing that was put in its place: a change of
/// owner or mode must not reach another file.
fn pin(
    dir: BorrowedFd<'_>,
    name: &[u8],
    entry: &Entry,
) -> std::result::Result<(OwnedFd, Placed), Failure> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let pinned = rustix::fs::openat(dir, name, flags, Mode::empty())?;
    let stat = Stat::of_fd(&pinned)?;
    let is_device = matches!(entry.kind, EntryKind::Char | EntryKind::Block);
    if stat.kind != entry.kind || stat.nlink != 1 || (is_device && Some(stat.rdev) != entry.rdev) {
        return Err(changed().into());
    }
    Ok((pinned, Placed::of(&stat)))
}

fn changed() -> Problem {
    Problem::error(
        "destination-changed",
        "something else took its name in the destination while it was restored",
    )
}
