//! Trees deeper than any path may be long.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags};

fn open_dir(dir: impl std::os::fd::AsFd, name: &[u8]) -> OwnedFd {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, flags, Mode::empty()).unwrap()
}

/// Makes `levels` directories, each in the one before and all of one name, and a file `bottom` in
/// the last.
///
/// # Panics
/// If the system refuses.
pub fn make_deep(top: impl AsRef<Path>, levels: usize, name: &[u8]) {
    let mut dir = open_dir(CWD, top.as_ref().as_os_str().as_bytes());
    for _ in 0..levels {
        rustix::fs::mkdirat(&dir, name, Mode::RWXU).unwrap();
        dir = open_dir(&dir, name);
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC;
    let file = rustix::fs::openat(&dir, "bottom", flags, Mode::RUSR | Mode::WUSR).unwrap();
    rustix::io::write(&file, b"down here").unwrap();
}

/// Removes everything in `top`, however deep: each directory's own directories are moved up
/// first, so that no depth is ever walked twice.
///
/// # Panics
/// If the system refuses.
pub fn remove_deep(top: impl AsRef<Path>) {
    let top = open_dir(CWD, top.as_ref().as_os_str().as_bytes());
    let mut moved = 0_u64;
    loop {
        let mut was_empty = true;
        for name in names(&top) {
            was_empty = false;
            if rustix::fs::unlinkat(&top, &*name, AtFlags::empty()).is_ok() {
                continue;
            }
            rustix::fs::chmodat(&top, &*name, Mode::RWXU, AtFlags::empty()).unwrap();
            let dir = open_dir(&top, &name);
            for below in names(&dir) {
                if rustix::fs::unlinkat(&dir, &*below, AtFlags::empty()).is_err() {
                    let kept = open_dir(&dir, &below);
                    rustix::fs::fchmod(&kept, Mode::RWXU).unwrap();
                    let aside = format!(".moved-{moved}");
                    moved += 1;
                    rustix::fs::renameat(&dir, &*below, &top, aside).unwrap();
                }
            }
            rustix::fs::unlinkat(&top, &*name, AtFlags::REMOVEDIR).unwrap();
        }
        if was_empty {
            return;
        }
    }
}

fn names(dir: &OwnedFd) -> Vec<Vec<u8>> {
    let dir = rustix::fs::Dir::read_from(dir).unwrap();
    dir.map(|entry| entry.unwrap().file_name().to_bytes().to_vec())
        .filter(|name| name != b"." && name != b"..")
        .collect()
}

/// A directory that is removed at the end, however deep it became.
#[derive(Debug)]
pub struct DeepDir(std::path::PathBuf);

impl DeepDir {
    /// # Panics
    /// If the system refuses.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Self::make(&std::env::temp_dir()).unwrap()
    }

    /// In memory where the machine has a place for that: for very many files, of which nothing
    /// but names and bytes matters.
    ///
    /// # Panics
    /// If the system refuses.
    pub fn in_memory() -> Self {
        Self::make(Path::new("/dev/shm")).unwrap_or_else(|_| Self::new())
    }

    fn make(place: &Path) -> std::io::Result<Self> {
        let id = crate::ids::Id::random().unwrap();
        let path = place.join(format!("holdfast-test-{id}"));
        std::fs::create_dir(&path)?;
        Ok(DeepDir(path))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// A path in it, not made yet.
    pub fn join(&self, name: impl AsRef<[u8]>) -> std::path::PathBuf {
        self.0.join(OsStr::from_bytes(name.as_ref()))
    }
}

impl Drop for DeepDir {
    fn drop(&mut self) {
        remove_deep(&self.0);
        let _ = std::fs::remove_dir(&self.0);
    }
}
