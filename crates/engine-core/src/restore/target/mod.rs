//! Where a restore writes: a tree below one directory, made by descriptors only.
//!
//! The stored tree may be hostile and others may change the destination meanwhile, so no path is
//! ever followed: each call names one component below an open directory, no symbolic link is
//! passed through, what was made is pinned before its owner or mode change, and a name that is no
//! plain name is refused. New directories belong to the restoring user alone until they are
//! finished. What is in the way is replaced by renaming a finished file over it; what the image
//! does not have stays.
//!
//! A problem with one file becomes a finding; only what ends the job (no space left, a read-only
//! file system) is an error.

mod dir;
mod file;
mod metadata;
mod place;
mod special;

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::io::Errno;

pub use self::dir::TargetDir;
pub use self::file::FileTarget;
use self::metadata::Rights;
pub use self::place::Placed;
pub use self::special::Link;
use crate::error::{Error, Result};
use crate::finding::Findings;
use crate::ids::random_bytes;
use crate::scan::explain;
use crate::scan::handle::DirHandle;
use crate::scan::names::Names;
use crate::scan::problem::Problem;
use crate::tree::entry::Time;
pub use crate::writing::Staged;

/// What happens to files that are there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overwrite {
    Never,
    /// Only what was modified before the stored file was.
    Older,
    Always,
}

impl Overwrite {
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "never" => Some(Overwrite::Never),
            "older" => Some(Overwrite::Older),
            "always" => Some(Overwrite::Always),
            _ => None,
        }
    }

    fn replaces(self, existing: Time, stored: Time) -> bool {
        match self {
            Overwrite::Never => false,
            Overwrite::Older => existing < stored,
            Overwrite::Always => true,
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Options {
    pub overwrite: Overwrite,
    /// Restore owners by number even where this machine knows the stored name under another.
    pub numeric_owners: bool,
}

/// The destination of one restore. Shared between threads.
#[derive(Debug)]
pub struct Target {
    root: Arc<TargetDir>,
    options: Options,
    rights: Rights,
    names: Names,
    findings: Arc<Findings>,
    kept: AtomicU64,
    /// Makes the names of temporary files its own: random, then counted.
    salt: [u8; 8],
    temporaries: AtomicU64,
}

impl Target {
    /// Opens the destination, which is made with its parents where it is missing.
    pub fn open(destination: &[u8], options: Options, findings: Arc<Findings>) -> Result<Self> {
        let failed = |error| {
            let shown = String::from_utf8_lossy(destination);
            Error::io(format!("opening the destination '{shown}'"), error)
        };
        std::fs::create_dir_all(Path::new(OsStr::from_bytes(destination))).map_err(failed)?;
        let root = DirHandle::open_root(destination).and_then(TargetDir::root).map_err(failed)?;
        let mut salt = [0; 8];
        random_bytes(&mut salt)?;
        Ok(Target {
            root: Arc::new(root),
            options,
            rights: Rights::of_this_thread(),
            names: Names::new(),
            findings,
            kept: AtomicU64::new(0),
            salt,
            temporaries: AtomicU64::new(0),
        })
    }

    /// The destination itself.
    pub fn root(&self) -> &Arc<TargetDir> {
        &self.root
    }

    /// Files that were there and were kept, as the overwrite policy says.
    pub fn kept(&self) -> u64 {
        self.kept.load(Ordering::Relaxed)
    }

    /// Makes everything that was written durable.
    pub fn sync(&self) -> Result<()> {
        let synced = self.root.handle().fd().and_then(|fd| Ok(rustix::fs::syncfs(&fd)?));
        synced.map_err(|error| {
            let shown = String::from_utf8_lossy(self.root.handle().name()).into_owned();
            Error::io(format!("syncing '{shown}'"), error)
        })
    }

    /// Turns a failure into a finding about `path`, or into an error where the job cannot go on.
    fn settle<T>(
        &self,
        path: &dyn Fn() -> Vec<u8>,
        doing: &str,
        attempt: Attempt<T>,
    ) -> Result<Option<T>> {
        let error = match attempt {
            Ok(made) => return Ok(made),
            Err(Failure::Problem(problem)) => {
                problem.report(&self.findings, &path());
                return Ok(None);
            }
            Err(Failure::Io(error)) => error,
        };
        if ends_the_job(&error) {
            let shown = String::from_utf8_lossy(&path()).into_owned();
            return Err(Error::io(format!("writing '{shown}'"), error));
        }
        let mut problem = explain(&error, doing);
        if matches!(problem.code, "changed-while-read" | "vanished") {
            problem.code = "destination-changed";
        }
        problem.report(&self.findings, &path());
        Ok(None)
    }
}

/// Why one file was not restored.
#[derive(Debug)]
enum Failure {
    Io(io::Error),
    Problem(Problem),
}

/// What came of one file: `Ok(None)` where an existing one was kept.
type Attempt<T> = std::result::Result<Option<T>, Failure>;

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Failure::Io(error)
    }
}

impl From<Errno> for Failure {
    fn from(error: Errno) -> Self {
        Failure::Io(error.into())
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Failure::Problem(problem)
    }
}

/// Every further file would fail likewise.
fn ends_the_job(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::ReadOnlyFilesystem
    )
}

/// Refuses names that would lead elsewhere. The tree decoder refuses them too; this is the last
/// place where it can still be told.
fn plain_name(name: &[u8]) -> std::result::Result<&[u8], Problem> {
    let leads_elsewhere =
        matches!(name, b"" | b"." | b"..") || name.iter().any(|byte| matches!(byte, b'/' | 0));
    if leads_elsewhere {
        Err(Problem::error("illegal-name", "the image holds a name that no file can have"))
    } else {
        Ok(name)
    }
}
