//! Giving a restored file its attributes, in the one order that works: the owner first, since
//! changing it clears mode bits and capabilities; extended attributes before the mode, since a
//! file that its owner may not write takes none; the mode; the times last.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::fs::{AtFlags, CWD, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::{Failure, Target};
use crate::finding::Severity;
use crate::scan::problem::Problem;
use crate::scan::xattr::Xattrs;
use crate::tree::entry::{Entry, EntryKind, Time};

pub(super) const ACL_ACCESS: &[u8] = b"system.posix_acl_access";
pub(super) const ACL_DEFAULT: &[u8] = b"system.posix_acl_default";

const SET_UID: u32 = 0o4000;
const SET_GID: u32 = 0o2000;

/// Who restores.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rights {
    uid: u32,
}

impl Rights {
    pub fn of_this_thread() -> Self {
        Rights { uid: rustix::process::geteuid().as_raw() }
    }

    pub fn is_root(self) -> bool {
        self.uid == 0
    }

    pub fn is_me(self, uid: u32) -> bool {
        self.uid == uid
    }
}

/// What gets the attributes.
pub(super) enum On<'a> {
    /// A regular file or a directory.
    Open(BorrowedFd<'a>),
    /// Anything else, opened with `O_PATH | O_NOFOLLOW`.
    Pinned(BorrowedFd<'a>),
}

impl On<'_> {
    fn set_owner(&self, owner: Option<Uid>, group: Option<Gid>) -> Result<(), Errno> {
        match self {
            On::Open(fd) => rustix::fs::fchown(fd, owner, group),
            On::Pinned(fd) => rustix::fs::chownat(fd, "", owner, group, AtFlags::EMPTY_PATH),
        }
    }

    fn set_mode(&self, mode: u32) -> Result<(), Errno> {
        let mode = Mode::from_raw_mode(mode);
        match self {
            On::Open(fd) => rustix::fs::fchmod(fd, mode),
            On::Pinned(fd) => rustix::fs::chmodat(CWD, proc_path(*fd), mode, AtFlags::empty()),
        }
    }

    fn set_times(&self, mtime: Time) -> Result<(), Errno> {
        let omit = Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT };
        let last_modification =
            Timespec { tv_sec: mtime.sec, tv_nsec: mtime.nsec.min(999_999_999).into() };
        let times = Timestamps { last_access: omit, last_modification };
        match self {
            On::Open(fd) => rustix::fs::futimens(fd, &times),
            On::Pinned(fd) => rustix::fs::utimensat(fd, "", &times, AtFlags::EMPTY_PATH),
        }
    }

    /// `name` and `value` come from the image: a NUL in the name is refused here.
    fn set_xattr(&self, name: &[u8], value: &[u8]) -> Result<(), Errno> {
        let name = CString::new(name).map_err(|_| Errno::INVAL)?;
        match self {
            On::Open(fd) => rustix::fs::fsetxattr(fd, &*name, value, XattrFlags::empty()),
            // Leads to the pinned file itself, even where that is a symbolic link.
            On::Pinned(fd) => {
                rustix::fs::setxattr(proc_path(*fd), &*name, value, XattrFlags::empty())
            }
        }
    }

    fn remove_xattr(&self, name: &[u8]) -> Result<(), Errno> {
        match self {
            On::Open(fd) => rustix::fs::fremovexattr(fd, name),
            On::Pinned(fd) => rustix::fs::removexattr(proc_path(*fd), name),
        }
    }
}

fn proc_path(fd: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

impl Target {
    /// Sets all attributes. What this user may not set is a warning; what fails for another
    /// reason is an error; both are findings, and the rest is set nevertheless.
    ///
    /// `existed` says that there may be attributes from before, `inherits_acl` that the file got
    /// an ACL from its directory as it was made.
    pub(super) fn apply(
        &self,
        on: &On<'_>,
        entry: &Entry,
        existed: bool,
        inherits_acl: bool,
        path: &dyn Fn() -> Vec<u8>,
    ) -> Result<(), Failure> {
        let tell = |problem: Problem| problem.report(&self.findings, &path());
        let mut mode = entry.mode & 0o7777;
        let kept_bits = self.apply_owner(on, entry, &tell)?;
        if mode & !kept_bits != 0 {
            mode &= kept_bits;
            tell(Problem::warning(
                "mode-not-restored",
                "its set-user-id or set-group-id bit was left off, since its owner is another",
            ));
        }
        if existed {
            remove_others(on, entry);
        } else if inherits_acl && !entry.xattrs.iter().any(|(name, _)| name == ACL_ACCESS) {
            let _ = on.remove_xattr(ACL_ACCESS);
        }
        for (name, value) in &entry.xattrs {
            match on.set_xattr(name, value) {
                Ok(()) => {}
                Err(error @ (Errno::ROFS | Errno::DQUOT)) => return Err(error.into()),
                Err(error) => tell(self.lost_xattr(name, error)),
            }
        }
        if entry.kind != EntryKind::Symlink
            && let Err(error) = on.set_mode(mode)
        {
            tell(self.lost("mode-not-restored", "mode", error));
        }
        if let Err(error) = on.set_times(entry.mtime) {
            tell(self.lost("time-not-restored", "modification time", error));
        }
        Ok(())
    }

    /// Sets owner and group, or at least the group. Returns the mode bits that may be set: a
    /// program must not run as a user who does not own it.
    fn apply_owner(
        &self,
        on: &On<'_>,
        entry: &Entry,
        tell: &dyn Fn(Problem),
    ) -> Result<u32, Failure> {
        let (uid, gid) = self.owner_of(entry);
        // The highest number means "leave it" to the kernel: nobody's file has it.
        let owner = (uid != u32::MAX).then(|| Uid::from_raw(uid));
        let group = (gid != u32::MAX).then(|| Gid::from_raw(gid));
        let error = match on.set_owner(owner, group) {
            Ok(()) => return Ok(0o7777),
            Err(error @ (Errno::ROFS | Errno::DQUOT)) => return Err(error.into()),
            Err(error) => error,
        };
        let group_set = on.set_owner(None, group).is_ok();
        let is_mine = self.rights.is_me(uid);
        let what = match (is_mine, group_set) {
            (false, true) => format!("owner {}", shown(entry.user.as_deref(), entry.uid)),
            (true, _) => format!("group {}", shown(entry.group.as_deref(), entry.gid)),
            (false, false) => format!(
                "owner {} and group {}",
                shown(entry.user.as_deref(), entry.uid),
                shown(entry.group.as_deref(), entry.gid)
            ),
        };
        tell(self.lost("owner-not-restored", &what, error));
        let lost = if is_mine { 0 } else { SET_UID } | if group_set { 0 } else { SET_GID };
        // On a directory the bit runs nothing.
        Ok(if entry.kind == EntryKind::Dir { 0o7777 } else { 0o7777 & !lost })
    }

    fn owner_of(&self, entry: &Entry) -> (u32, u32) {
        if self.options.numeric_owners {
            return (entry.uid, entry.gid);
        }
        let uid = entry.user.as_deref().and_then(|name| self.names.user_id(name));
        let gid = entry.group.as_deref().and_then(|name| self.names.group_id(name));
        (uid.unwrap_or(entry.uid), gid.unwrap_or(entry.gid))
    }

    fn lost(&self, code: &'static str, what: &str, error: Errno) -> Problem {
        let reason = match error {
            Errno::PERM | Errno::ACCESS => "the user that runs this job may not".to_owned(),
            Errno::OPNOTSUPP => "the file system here does not have it".to_owned(),
            error => io::Error::from(error).to_string(),
        };
        let severity = if self.rights.is_root() { Severity::Error } else { Severity::Warning };
        Problem { code, message: format!("could not set its {what}: {reason}"), severity }
    }

    fn lost_xattr(&self, name: &[u8], error: Errno) -> Problem {
        let what = match name {
            ACL_ACCESS => "access control list".to_owned(),
            ACL_DEFAULT => "default access control list".to_owned(),
            b"security.capability" => "capabilities".to_owned(),
            name => format!("extended attribute {}", String::from_utf8_lossy(name)),
        };
        self.lost("xattr-not-restored", &what, error)
    }
}

fn shown(name: Option<&str>, number: u32) -> String {
    match name {
        Some(name) => format!("{name} ({number})"),
        None => number.to_string(),
    }
}

/// Removes extended attributes that the stored file does not have. The security modules' labels
/// stay: the system gives them.
fn remove_others(on: &On<'_>, entry: &Entry) {
    let (On::Open(fd) | On::Pinned(fd)) = on;
    for (name, _) in Xattrs::new().of_fd(fd, 0).pairs {
        let is_label = name.starts_with(b"security.") && name != b"security.capability";
        if !is_label && !entry.xattrs.iter().any(|(stored, _)| *stored == name) {
            let _ = on.remove_xattr(&name);
        }
    }
}
