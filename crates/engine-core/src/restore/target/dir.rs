//! Directories of the destination: made first, given their attributes last.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;

use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;

use super::metadata::{ACL_ACCESS, ACL_DEFAULT, On};
use super::{Attempt, Target, plain_name};
use crate::error::Result;
use crate::scan::attrs::Stat;
use crate::scan::handle::DirHandle;
use crate::scan::problem::{Problem, replaced};
use crate::tree::entry::{Entry, EntryKind};

/// A directory of the destination.
#[derive(Debug)]
pub struct TargetDir {
    handle: Arc<DirHandle>,
    existed: bool,
    /// Whether it takes the stored attributes: new ones do, others by the overwrite policy.
    takes_metadata: bool,
    /// The mode to put back where it was widened for the work below it.
    mode_before: Option<u32>,
    /// Whether files made here inherit an ACL that the stored ones may not have.
    gives_acl: bool,
}

impl TargetDir {
    pub(super) fn root(handle: Arc<DirHandle>) -> io::Result<Self> {
        let gives_acl = has_default_acl(handle.fd()?);
        Ok(TargetDir { handle, existed: true, takes_metadata: true, mode_before: None, gives_acl })
    }

    pub fn handle(&self) -> &Arc<DirHandle> {
        &self.handle
    }

    /// Whether it was there before the restore.
    pub fn existed(&self) -> bool {
        self.existed
    }

    /// The full path of a name in it, for findings.
    pub fn path_of(&self, name: &[u8]) -> Vec<u8> {
        self.handle.path_of(name)
    }

    pub(super) fn gives_acl(&self) -> bool {
        self.gives_acl
    }
}

impl Target {
    /// Makes the directory of an entry, or takes the one that is there. `None` where neither was
    /// possible: a finding says why, and nothing below it can be restored.
    ///
    /// It has no attributes yet: [`Target::finish_dir`] sets them once all below is done.
    pub fn make_dir(
        &self,
        parent: &Arc<TargetDir>,
        entry: &Entry,
    ) -> Result<Option<Arc<TargetDir>>> {
        let made = self.try_make_dir(parent, entry);
        self.settle(&|| parent.path_of(&entry.name), "restore the directory", made)
    }

    /// Sets the attributes of a directory in which everything is done. Children come before their
    /// parents, since making a file changes its directory's time. The destination itself may be
    /// finished too, or left as it is.
    pub fn finish_dir(&self, dir: &TargetDir, entry: &Entry) -> Result<()> {
        let finish = || -> Attempt<()> {
            let fd = dir.handle.fd()?;
            if dir.takes_metadata {
                self.apply(&On::Open(fd.as_fd()), entry, dir.existed, false, &|| {
                    dir.handle.path()
                })?;
            } else if let Some(mode) = dir.mode_before {
                rustix::fs::fchmod(&fd, Mode::from_raw_mode(mode))?;
            }
            Ok(Some(()))
        };
        self.settle(&|| dir.handle.path(), "set the attributes", finish()).map(|_| ())
    }

    fn try_make_dir(&self, parent: &TargetDir, entry: &Entry) -> Attempt<Arc<TargetDir>> {
        let name = plain_name(&entry.name)?;
        let fd = parent.handle.fd()?;
        let existed = loop {
            match rustix::fs::mkdirat(&fd, name, Mode::RWXU) {
                Ok(()) => break false,
                Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
            let existing = Stat::of_name(&fd, name)?;
            if existing.kind == EntryKind::Dir {
                break true;
            }
            if !self.options.overwrite.replaces(existing.mtime, entry.mtime) {
                let kind = existing.kind.as_str();
                return Err(Problem::error(
                    "in-the-way",
                    format!(
                        "could not restore the directory: a {kind} is in its place and was kept"
                    ),
                )
                .into());
            }
            rustix::fs::unlinkat(&fd, name, AtFlags::empty())?;
        };
        let dir = if existed {
            self.enter_existing(parent, entry)?
        } else {
            Self::enter_new(parent, name)?
        };
        Ok(Some(Arc::new(dir)))
    }

    /// Opens a directory that was just made.
    fn enter_new(parent: &TargetDir, name: &[u8]) -> io::Result<TargetDir> {
        let handle = parent.handle.child(name)?;
        if parent.gives_acl {
            // What it inherited it would hand down, and the stored one may have none.
            let fd = handle.fd()?;
            for attribute in [ACL_ACCESS, ACL_DEFAULT] {
                match rustix::fs::fremovexattr(&fd, attribute) {
                    Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(TargetDir {
            handle,
            existed: false,
            takes_metadata: true,
            mode_before: None,
            gives_acl: false,
        })
    }

    /// Opens a directory that was there, and makes sure that its owner can write to it.
    fn enter_existing(&self, parent: &TargetDir, entry: &Entry) -> io::Result<TargetDir> {
        let name = &*entry.name;
        let mut mode_before = None;
        let handle = match parent.handle.child(name) {
            Err(error) if Errno::from_io_error(&error) == Some(Errno::ACCESS) => {
                mode_before = self.widen(parent, name)?;
                parent.handle.child(name)?
            }
            opened => opened?,
        };
        let stat = *handle.stat();
        let fd = handle.fd()?;
        if mode_before.is_none()
            && !self.rights.is_root()
            && self.rights.is_me(stat.uid)
            && stat.mode & 0o700 != 0o700
        {
            rustix::fs::fchmod(&fd, Mode::from_raw_mode(stat.mode | 0o700))?;
            mode_before = Some(stat.mode);
        }
        Ok(TargetDir {
            gives_acl: has_default_acl(&fd),
            takes_metadata: self.options.overwrite.replaces(stat.mtime, entry.mtime),
            existed: true,
            mode_before,
            handle,
        })
    }

    /// Lets the owner into a directory of their own that they may not even read. Returns the mode
    /// that it had.
    fn widen(&self, parent: &TargetDir, name: &[u8]) -> io::Result<Option<u32>> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let pinned = rustix::fs::openat(parent.handle.fd()?, name, flags, Mode::empty())?;
        let stat = Stat::of_fd(&pinned)?;
        if stat.kind != EntryKind::Dir {
            return Err(replaced());
        }
        let path = format!("/proc/self/fd/{}", pinned.as_raw_fd());
        let mode = Mode::from_raw_mode(stat.mode | 0o700);
        rustix::fs::chmodat(CWD, path, mode, AtFlags::empty())?;
        Ok(Some(stat.mode))
    }
}

fn has_default_acl(dir: impl AsFd) -> bool {
    // Any answer but a length says that there is none, or that there are no ACLs here at all.
    rustix::fs::fgetxattr_query(dir, ACL_DEFAULT).is_ok_and(|length| length > 0)
}
