//! Open directories, chained to their parents.
//!
//! A handle never loses its place: its descriptor may be closed to stay within a bound, and is
//! opened again by walking down from the nearest ancestor that is still open, one component at
//! a time, never through a symbolic link, and only if the same directory is still there. Nothing
//! recurses over the depth of the tree, not even dropping the chain.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;

use super::attrs::Stat;
use super::problem::replaced;

/// Descriptors that the handles below one root keep open between uses.
const OPEN_LIMIT: usize = 256;

/// The longest path that one system call takes.
const PATH_MAX: usize = 4096;

/// The handles that hold a descriptor, oldest first. The root is not among them: it stays open.
#[derive(Debug)]
struct OpenDirs {
    limit: usize,
    queue: Mutex<VecDeque<Weak<DirHandle>>>,
}

/// A directory. Shared between threads; cheap to ask.
#[derive(Debug)]
pub struct DirHandle {
    parent: Option<Arc<DirHandle>>,
    /// One component; the root's is its whole path.
    name: Box<[u8]>,
    stat: Stat,
    fd: Mutex<Option<Arc<OwnedFd>>>,
    /// Whether names were read from the current descriptor, so that its position moved.
    pub(super) was_read: AtomicBool,
    open_dirs: Arc<OpenDirs>,
}

impl DirHandle {
    /// Opens the directory at `path`, which may be of any length; symbolic links in `path`
    /// itself are followed, since whoever names it means what it leads to.
    pub fn open_root(path: &[u8]) -> io::Result<Arc<Self>> {
        Self::open_root_within(path, OPEN_LIMIT)
    }

    /// The same, keeping at most `limit` descriptors open below the root.
    pub fn open_root_within(path: &[u8], limit: usize) -> io::Result<Arc<Self>> {
        let fd = open_path(path)?;
        let stat = Stat::of_fd(&fd)?;
        Ok(Arc::new(DirHandle {
            parent: None,
            name: path.into(),
            stat,
            fd: Mutex::new(Some(Arc::new(fd))),
            was_read: AtomicBool::new(false),
            open_dirs: Arc::new(OpenDirs { limit, queue: Mutex::new(VecDeque::new()) }),
        }))
    }

    /// Opens the directory `name` in this one. Fails if it is no directory (a symbolic link is
    /// none).
    pub fn child(self: &Arc<Self>, name: &[u8]) -> io::Result<Arc<Self>> {
        let fd = open_below(self.fd()?.as_ref(), name)?;
        let stat = Stat::of_fd(&fd)?;
        let child = Arc::new(DirHandle {
            parent: Some(Arc::clone(self)),
            name: name.into(),
            stat,
            fd: Mutex::new(Some(Arc::new(fd))),
            was_read: AtomicBool::new(false),
            open_dirs: Arc::clone(&self.open_dirs),
        });
        child.note_open();
        Ok(child)
    }

    /// The descriptor, opened again where it was closed. Hold it for the work at hand, not
    /// longer: it counts against the limit of open files.
    pub fn fd(self: &Arc<Self>) -> io::Result<Arc<OwnedFd>> {
        if let Some(fd) = self.fd.lock().as_ref() {
            return Ok(Arc::clone(fd));
        }
        self.reopen()
    }

    /// The attributes at the time of opening.
    pub fn stat(&self) -> &Stat {
        &self.stat
    }

    pub fn parent(&self) -> Option<&Arc<DirHandle>> {
        self.parent.as_ref()
    }

    /// The last component; the whole path of a root.
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    /// Levels below the root.
    pub fn depth(&self) -> usize {
        let mut depth = 0;
        let mut at = self;
        while let Some(parent) = &at.parent {
            depth += 1;
            at = parent;
        }
        depth
    }

    /// The full path, for people to read: no call is made with it.
    pub fn path(&self) -> Vec<u8> {
        let mut parts = Vec::new();
        let mut at = self;
        while let Some(parent) = &at.parent {
            parts.push(&at.name);
            at = parent;
        }
        let mut path = at.name.to_vec();
        for part in parts.into_iter().rev() {
            if path.last() != Some(&b'/') {
                path.push(b'/');
            }
            path.extend_from_slice(part);
        }
        path
    }

    /// The full path of `name` in this directory.
    pub fn path_of(&self, name: &[u8]) -> Vec<u8> {
        let mut path = self.path();
        if path.last() != Some(&b'/') {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        path
    }

    fn reopen(self: &Arc<Self>) -> io::Result<Arc<OwnedFd>> {
        let mut closed: Vec<&Arc<DirHandle>> = Vec::new();
        let mut at = self;
        let mut fd = loop {
            if let Some(fd) = at.fd.lock().as_ref() {
                break Arc::clone(fd);
            }
            closed.push(at);
            // A root keeps its descriptor, so this loop ends there at the latest.
            at = at.parent.as_ref().ok_or_else(replaced)?;
        };
        for handle in closed.into_iter().rev() {
            let opened = open_below(&fd, &handle.name)?;
            let stat = Stat::of_fd(&opened)?;
            if (stat.device, stat.inode) != (handle.stat.device, handle.stat.inode) {
                return Err(replaced());
            }
            fd = Arc::new(opened);
            *handle.fd.lock() = Some(Arc::clone(&fd));
            handle.was_read.store(false, Ordering::Relaxed);
            handle.note_open();
        }
        Ok(fd)
    }

    /// Counts this handle's descriptor and closes the one that has been open longest where there
    /// are too many. No two locks are held at once.
    fn note_open(self: &Arc<Self>) {
        let oldest = {
            let mut queue = self.open_dirs.queue.lock();
            queue.push_back(Arc::downgrade(self));
            if queue.len() > self.open_dirs.limit { queue.pop_front() } else { None }
        };
        if let Some(handle) = oldest.and_then(|weak| weak.upgrade()) {
            let closed = handle.fd.lock().take();
            drop(closed);
        }
    }
}

impl Drop for DirHandle {
    /// Unwinds the chain in a loop: a deep one would overflow the stack.
    fn drop(&mut self) {
        let mut next = self.parent.take();
        while let Some(parent) = next {
            next = Arc::into_inner(parent).and_then(|mut handle| handle.parent.take());
        }
    }
}

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Opens a directory by one component, leaving its access time alone where that is allowed.
fn open_below(dir: impl AsFd, name: &[u8]) -> io::Result<OwnedFd> {
    let flags = DIRECTORY | OFlags::NOFOLLOW;
    let dir = dir.as_fd();
    match rustix::fs::openat(dir, name, flags | OFlags::NOATIME, Mode::empty()) {
        Err(Errno::PERM) => Ok(rustix::fs::openat(dir, name, flags, Mode::empty())?),
        result => Ok(result?),
    }
}

/// Opens a directory by a path of any length.
fn open_path(path: &[u8]) -> io::Result<OwnedFd> {
    if path.len() < PATH_MAX {
        return Ok(rustix::fs::openat(CWD, path, DIRECTORY, Mode::empty())?);
    }
    let start: &[u8] = if path.starts_with(b"/") { b"/" } else { b"." };
    let mut fd = rustix::fs::openat(CWD, start, DIRECTORY, Mode::empty())?;
    for part in path.split(|byte| *byte == b'/').filter(|part| !part.is_empty()) {
        fd = rustix::fs::openat(&fd, part, DIRECTORY, Mode::empty())?;
    }
    Ok(fd)
}

/// Whether `dir` has a name `name`, of any kind.
pub fn has_name(dir: impl AsFd, name: &[u8]) -> bool {
    rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).is_ok()
}
