//! A pool, a tree, and one call for each thing that a test does with them.

use crate::kit;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use holdfast_engine_core::backup;
use holdfast_engine_core::cancel::Cancel;
use holdfast_engine_core::counters::{Counters, Snapshot};
use holdfast_engine_core::error::Error;
use holdfast_engine_core::finding::{Finding, Findings};
use holdfast_engine_core::manifest::Manifest;
use holdfast_engine_core::pool::{Pool, PoolConfig};
use holdfast_engine_core::restore::{self, target::Overwrite};
use holdfast_engine_core::store::memory::MemoryStore;
use holdfast_engine_core::testing::compare::assert_same_tree;
use holdfast_engine_core::testing::deep::DeepDir;
use holdfast_engine_core::testing::user::give_to_normal_user;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps};

/// A pool, a tree to back up, and places to restore to.
pub struct Site {
    pub pool: Pool,
    pub top: DeepDir,
    pub from: PathBuf,
    pub restores: std::cell::Cell<u32>,
}

/// One backup and what it said.
pub struct Backup {
    pub image: Manifest,
    pub counts: Snapshot,
    pub findings: Vec<Finding>,
}

impl Site {
    pub fn new() -> Self {
        Self::with_pool(Self::pool(), DeepDir::new())
    }

    /// For very many files, of which nothing but names and bytes matters.
    pub fn in_memory() -> Self {
        Self::with_pool(Self::pool(), DeepDir::in_memory())
    }

    fn pool() -> Pool {
        let config = PoolConfig::default();
        Pool::create(Arc::new(MemoryStore::new()), &kit::KEY, config, 0, None).unwrap()
    }

    pub fn with_pool(pool: Pool, top: DeepDir) -> Self {
        give_to_normal_user(top.path());
        let from = top.join("from");
        fs::create_dir(&from).unwrap();
        give_to_normal_user(&from);
        Site { pool, top, from, restores: std::cell::Cell::new(0) }
    }

    pub fn request(&self) -> backup::Request {
        backup::Request {
            paths: vec![bytes(&self.from)],
            source: "test:from".into(),
            host: "test".into(),
            started_ns: kit::now_ns(),
            exclude: Vec::new(),
            one_file_system: false,
            level: 1,
            workers: 3,
            parent: None,
            read_all: false,
            labels: Default::default(),
            software: "test".into(),
        }
    }

    pub fn back_up(&self) -> Backup {
        self.run(&self.request()).unwrap()
    }

    /// A backup that may trust every time stamp, as one does that begins long after the changes.
    pub fn back_up_later(&self) -> Backup {
        let started_ns = kit::now_ns() + 10_000_000_000;
        self.run(&backup::Request { started_ns, ..self.request() }).unwrap()
    }

    pub fn run(&self, request: &backup::Request) -> Result<Backup, Error> {
        let (counters, findings) = (Counters::default(), Findings::default());
        let image = backup::run(&self.pool, request, &counters, &findings, &Cancel::new())?;
        Ok(Backup { image, counts: counters.snapshot(), findings: findings.kept() })
    }

    /// Restores all of an image and returns where the tree now is.
    pub fn restore(&self, image: &Manifest) -> PathBuf {
        let (to, findings) = self.restore_with_findings(image);
        assert_eq!(findings, []);
        to
    }

    pub fn restore_with_findings(&self, image: &Manifest) -> (PathBuf, Vec<Finding>) {
        let number = self.restores.get();
        self.restores.set(number + 1);
        let to = self.top.join(format!("to {number}"));
        let findings = self.restore_to(image, &to, &[], Overwrite::Never);
        let path = image.source.paths[0].strip_prefix(b"/").unwrap();
        (to.join(OsStr::from_bytes(path)), findings)
    }

    pub fn restore_to(
        &self,
        image: &Manifest,
        to: &Path,
        paths: &[&Path],
        overwrite: Overwrite,
    ) -> Vec<Finding> {
        let request = restore::Request {
            image: image.id,
            paths: paths.iter().map(|path| bytes(path)).collect(),
            to: bytes(to),
            overwrite,
            strip_components: 0,
            verify: true,
            workers: 3,
        };
        let (counters, findings) = (Counters::default(), Arc::new(Findings::default()));
        restore::run(&self.pool, &request, &counters, &findings, &Cancel::new()).unwrap();
        findings.kept()
    }

    pub fn assert_restored(&self, image: &Manifest) {
        assert_same_tree(&self.from, self.restore(image));
    }
}

pub fn bytes(path: &Path) -> Vec<u8> {
    path.as_os_str().as_bytes().to_vec()
}

pub fn codes(findings: &[Finding]) -> BTreeSet<(String, String)> {
    findings
        .iter()
        .map(|finding| {
            let path = Path::new(OsStr::from_bytes(&finding.path));
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            (name, finding.code.clone())
        })
        .collect()
}

pub fn expected(pairs: &[(&str, &str)]) -> BTreeSet<(String, String)> {
    pairs.iter().map(|(name, code)| ((*name).to_owned(), (*code).to_owned())).collect()
}

pub fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

pub fn set_mtime(path: &Path, (sec, nsec): (i64, i64)) {
    let omit = Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT };
    let last_modification = Timespec { tv_sec: sec, tv_nsec: nsec };
    let times = Timestamps { last_access: omit, last_modification };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

pub fn mtime(path: &Path) -> (i64, i64) {
    let meta = fs::symlink_metadata(path).unwrap();
    (meta.mtime(), meta.mtime_nsec())
}
