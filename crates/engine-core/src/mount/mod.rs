//! An image as a read-only file system (FUSE), for cp, find, diff and everything else.
//!
//! Nothing is ever written, so the kernel may keep what it has seen. What cannot be read gives an
//! input/output error to whoever asked, and a finding with the reason. Root mounts directly; a
//! normal user by the program fusermount3.

mod attributes;
mod cache;
mod filesystem;
mod inodes;
pub mod inside;
mod session;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::finding::{Finding, Findings};
use crate::tree::ChunkSource;
use crate::tree::entry::{Entry, EntryKind};

use inside::Inside;

/// How to mount.
#[derive(Clone, Debug)]
pub struct MountOptions {
    /// Other users may look too; the kernel then holds them to modes and owners. Without this
    /// only the user who mounts sees anything, and sees everything.
    pub allow_other: bool,
    /// Requests served at a time.
    pub threads: usize,
    /// What `df` shows.
    pub total_bytes: u64,
    pub total_files: u64,
}

impl Default for MountOptions {
    fn default() -> Self {
        MountOptions { allow_other: false, threads: 4, total_bytes: 0, total_files: 0 }
    }
}

/// A mounted image. Dropping it unmounts.
pub struct Mount {
    at: PathBuf,
    session: session::Running,
    findings: Arc<Findings>,
}

impl Mount {
    /// Mounts the tree below `root`, an image's root entry or any directory of it, at an existing
    /// directory.
    pub fn new(
        source: Arc<dyn ChunkSource>,
        root: &Entry,
        at: &Path,
        options: &MountOptions,
    ) -> Result<Self> {
        Self::with_inside(source, root, at, options, None)
    }

    /// The same, with what lies inside of the image's disks beside its own files.
    pub fn with_inside(
        source: Arc<dyn ChunkSource>,
        root: &Entry,
        at: &Path,
        options: &MountOptions,
        inside: Option<Inside>,
    ) -> Result<Self> {
        if root.kind != EntryKind::Dir {
            return Err(Error::Invalid("only a directory can be mounted".into()));
        }
        let at = at
            .canonicalize()
            .map_err(|error| Error::io(format!("mounting at '{}'", at.display()), error))?;
        if !at.is_dir() {
            return Err(Error::Invalid(format!("'{}' is not a directory", at.display())));
        }
        let findings = Arc::new(Findings::default());
        let served = filesystem::Image::new(source, root, options, findings.clone(), inside)?;
        let session = session::Running::start(served, &at, options)?;
        Ok(Mount { at, session, findings })
    }

    /// Where it is mounted.
    pub fn at(&self) -> &Path {
        &self.at
    }

    /// Unmounts and waits until the last request is answered. `Busy` while programs use it.
    pub fn unmount(&self) -> Result<()> {
        self.session.unmount()
    }

    /// Waits until it is unmounted by whomever; false if it still is mounted after `timeout`.
    pub fn wait(&self, timeout: Duration) -> bool {
        self.session.wait(timeout)
    }

    /// What could not be read so far.
    pub fn findings(&self) -> Vec<Finding> {
        self.findings.kept()
    }
}
