//! "Is this the same tree?": the judge of every backup test.
//!
//! It shares no code with the scan it judges, asks the system in the plainest way, and compares
//! every attribute that a restore can bring back: kind, bytes, holes, mode, owner and group,
//! modification time, link targets, device numbers, extended attributes, and which names are the
//! same file. It must not compare what nobody can set: inode numbers, change times, access times.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CStr, CString, OsString};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;

const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const LINK: u32 = 0o120_000;

/// What to leave out of the comparison, for users without rights and file systems without
/// features.
#[derive(Clone, Copy, Debug)]
pub struct Compare {
    pub owners: bool,
    pub xattrs: bool,
    pub holes: bool,
    /// Times of directories, which change when anything below them is made.
    pub dir_times: bool,
}

impl Default for Compare {
    fn default() -> Self {
        Compare { owners: true, xattrs: true, holes: true, dir_times: true }
    }
}

/// One thing that is not the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Below both roots; empty for the roots themselves.
    pub path: Vec<u8>,
    /// What differs: "missing", "extra", "kind", "mode", "owner", "mtime", "size", "bytes",
    /// "holes", "target", "device", "xattrs", "links".
    pub what: &'static str,
    pub detail: String,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let path = String::from_utf8_lossy(&self.path);
        let shown: String = path.chars().take(200).collect();
        write!(f, "{shown}: {}: {}", self.what, self.detail)
    }
}

/// Compares everything. Empty when the trees are the same.
///
/// # Errors
/// Where either tree cannot be read.
pub fn compare_trees(a: impl AsRef<Path>, b: impl AsRef<Path>) -> io::Result<Vec<Difference>> {
    Compare::default().trees(a, b)
}

/// Panics with the first differences, in words.
///
/// # Panics
/// If the trees differ or cannot be read.
#[allow(clippy::panic, clippy::expect_used)]
pub fn assert_same_tree(a: impl AsRef<Path>, b: impl AsRef<Path>) {
    let (a, b) = (a.as_ref(), b.as_ref());
    let differences = compare_trees(a, b).expect("both trees can be read");
    if !differences.is_empty() {
        let lines: Vec<String> = differences.iter().take(20).map(ToString::to_string).collect();
        panic!(
            "{} and {} differ in {} places:\n{}",
            a.display(),
            b.display(),
            differences.len(),
            lines.join("\n")
        );
    }
}

/// Names that lead to each file which has more than one.
type Links = BTreeMap<(u64, u64), BTreeSet<Vec<u8>>>;

struct Walk {
    options: Compare,
    /// Of what is compared at the moment: one buffer, for trees of any depth.
    path: Vec<u8>,
    differences: Vec<Difference>,
    links: (Links, Links),
}

/// One directory whose names are still to be compared. Its descriptors go with the child that
/// is walked, which finds back by "..": a tree of any depth needs four.
struct Pending {
    path_length: usize,
    names: Vec<Vec<u8>>,
}

impl Compare {
    /// Compares two trees whose roots are directories.
    ///
    /// # Errors
    /// Where either tree cannot be read.
    pub fn trees(self, a: impl AsRef<Path>, b: impl AsRef<Path>) -> io::Result<Vec<Difference>> {
        let mut walk = Walk {
            options: self,
            path: Vec::new(),
            differences: Vec::new(),
            links: (Links::new(), Links::new()),
        };
        let mut a = open_dir(CWD, a.as_ref().as_os_str().as_bytes())?;
        let mut b = open_dir(CWD, b.as_ref().as_os_str().as_bytes())?;
        walk.attributes(&a, &b)?;
        let mut branch = vec![walk.listing(&a, &b)?];
        while let Some(top) = branch.last_mut() {
            walk.path.truncate(top.path_length);
            let Some(name) = top.names.pop() else {
                branch.pop();
                if !branch.is_empty() {
                    (a, b) = (open_dir(&a, b"..")?, open_dir(&b, b"..")?);
                }
                continue;
            };
            walk.descend(&name);
            match walk.attributes(&pin(&a, &name)?, &pin(&b, &name)?)? {
                Some(DIRECTORY) => {
                    (a, b) = (open_dir(&a, &name)?, open_dir(&b, &name)?);
                    branch.push(walk.listing(&a, &b)?);
                }
                Some(LINK) if self.xattrs => walk.attributes_of_link(&a, &b, &name)?,
                _ => {}
            }
        }
        walk.compare_links();
        Ok(walk.differences)
    }
}

impl Walk {
    fn descend(&mut self, name: &[u8]) {
        if !self.path.is_empty() {
            self.path.push(b'/');
        }
        self.path.extend_from_slice(name);
    }

    fn differ(&mut self, what: &'static str, detail: impl Into<String>) {
        let path = self.path.clone();
        self.differences.push(Difference { path, what, detail: detail.into() });
    }

    /// The names that both have; reports those that one lacks.
    fn listing(&mut self, a: &OwnedFd, b: &OwnedFd) -> io::Result<Pending> {
        let (in_a, in_b) = (names(a)?, names(b)?);
        for name in in_a.symmetric_difference(&in_b) {
            let what = if in_a.contains(name) { "missing" } else { "extra" };
            self.differ(what, String::from_utf8_lossy(name));
        }
        let names = in_a.intersection(&in_b).cloned().collect();
        Ok(Pending { path_length: self.path.len(), names })
    }

    /// Compares two descriptors; what both are, or `None` where that differs.
    fn attributes(&mut self, a: &OwnedFd, b: &OwnedFd) -> io::Result<Option<u32>> {
        // The descriptors may be of symbolic links themselves (O_PATH | O_NOFOLLOW), so ask
        // about the descriptor, not about what its path in /proc leads to.
        let (meta_a, meta_b) = (stat(a)?, stat(b)?);
        let (kind_a, kind_b) = (meta_a.mode() & 0o170_000, meta_b.mode() & 0o170_000);
        if kind_a != kind_b {
            self.differ("kind", format!("{kind_a:o} and {kind_b:o}"));
            return Ok(None);
        }
        let is_dir = kind_a == DIRECTORY;
        let is_link = kind_a == LINK;
        let is_file = kind_a == REGULAR;
        if meta_a.mode() != meta_b.mode() {
            self.differ("mode", format!("{:o} and {:o}", meta_a.mode(), meta_b.mode()));
        }
        let owners = ((meta_a.uid(), meta_a.gid()), (meta_b.uid(), meta_b.gid()));
        if self.options.owners && owners.0 != owners.1 {
            self.differ("owner", format!("{:?} and {:?}", owners.0, owners.1));
        }
        let times = ((meta_a.mtime(), meta_a.mtime_nsec()), (meta_b.mtime(), meta_b.mtime_nsec()));
        if times.0 != times.1 && (!is_dir || self.options.dir_times) {
            self.differ("mtime", format!("{:?} and {:?}", times.0, times.1));
        }
        if meta_a.rdev() != meta_b.rdev() {
            self.differ("device", format!("{:x} and {:x}", meta_a.rdev(), meta_b.rdev()));
        }
        if is_link {
            let (to_a, to_b) = (link_target(a)?, link_target(b)?);
            if to_a != to_b {
                self.differ("target", format!("{to_a:?} and {to_b:?}"));
            }
        }
        if self.options.xattrs && !is_link {
            self.same_xattrs(&proc_path(a).into_bytes(), &proc_path(b).into_bytes())?;
        }
        if is_file {
            if meta_a.len() == meta_b.len() {
                self.bytes(&File::open(proc_path(a))?, &File::open(proc_path(b))?, meta_a.len())?;
            } else {
                self.differ("size", format!("{} and {}", meta_a.len(), meta_b.len()));
            }
        }
        if !is_dir {
            if meta_a.nlink() > 1 {
                let names = self.links.0.entry((meta_a.dev(), meta_a.ino())).or_default();
                names.insert(self.path.clone());
            }
            if meta_b.nlink() > 1 {
                let names = self.links.1.entry((meta_b.dev(), meta_b.ino())).or_default();
                names.insert(self.path.clone());
            }
        }
        Ok(Some(kind_a))
    }

    /// A symbolic link's own attributes are reached only through its directory.
    fn attributes_of_link(&mut self, a: &OwnedFd, b: &OwnedFd, name: &[u8]) -> io::Result<()> {
        let path = |dir| [proc_path(dir).as_bytes(), b"/", name].concat();
        self.same_xattrs(&path(a), &path(b))
    }

    fn same_xattrs(&mut self, a: &[u8], b: &[u8]) -> io::Result<()> {
        let (in_a, in_b) = (xattrs(a)?, xattrs(b)?);
        for name in in_a.keys().chain(in_b.keys()).collect::<BTreeSet<_>>() {
            if in_a.get(name) != in_b.get(name) {
                let values = (in_a.get(name), in_b.get(name));
                let name = String::from_utf8_lossy(name);
                self.differ("xattrs", format!("{name}: {values:?}"));
            }
        }
        Ok(())
    }

    fn bytes(&mut self, a: &File, b: &File, size: u64) -> io::Result<()> {
        let (mut from_a, mut from_b) = (vec![0; 1 << 18], vec![0; 1 << 18]);
        if self.options.holes {
            let (holes_a, holes_b) = (holes(a, size)?, holes(b, size)?);
            if holes_a != holes_b {
                self.differ("holes", format!("{holes_a:?} and {holes_b:?}"));
            }
        }
        let mut at = 0;
        while at < size {
            // Huge holes are skipped where both have them.
            let next = match (next_data(a, at)?, next_data(b, at)?) {
                (Some(a), Some(b)) => a.min(b),
                (Some(one), None) | (None, Some(one)) => one,
                (None, None) => break,
            };
            at = at.max(next);
            let length = from_a.len().min(usize::try_from(size - at).unwrap_or(usize::MAX));
            let (Some(part_a), Some(part_b)) = (from_a.get_mut(..length), from_b.get_mut(..length))
            else {
                break;
            };
            a.read_exact_at(part_a, at)?;
            b.read_exact_at(part_b, at)?;
            if let Some(place) = part_a.iter().zip(part_b.iter()).position(|(a, b)| a != b) {
                self.differ("bytes", format!("at offset {}", at + place as u64));
                break;
            }
            at += length as u64;
        }
        Ok(())
    }

    fn compare_links(&mut self) {
        let sets = |links: &Links| -> BTreeSet<BTreeSet<Vec<u8>>> {
            links.values().filter(|names| names.len() > 1).cloned().collect()
        };
        let (a, b) = (sets(&self.links.0), sets(&self.links.1));
        for names in a.symmetric_difference(&b) {
            let shown: Vec<String> =
                names.iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect();
            let side = if a.contains(names) { "first" } else { "second" };
            let path = names.first().cloned().unwrap_or_default();
            self.differences.push(Difference {
                path,
                what: "links",
                detail: format!("one file only in the {side} tree: {shown:?}"),
            });
        }
    }
}

fn open_dir(dir: impl AsFd, name: &[u8]) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(dir, name, flags, Mode::empty())?)
}

/// A descriptor of whatever the name is, without opening it.
fn pin(dir: impl AsFd, name: &[u8]) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(dir, name, flags, Mode::empty())?)
}

fn proc_path(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

fn stat(fd: &OwnedFd) -> io::Result<fs::Metadata> {
    File::from(fd.try_clone()?).metadata()
}

fn link_target(fd: &OwnedFd) -> io::Result<OsString> {
    let target = rustix::fs::readlinkat(fd, "", Vec::new())?;
    Ok(OsString::from_vec(target.into_bytes()))
}

fn names(dir: &OwnedFd) -> io::Result<BTreeSet<Vec<u8>>> {
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(proc_path(dir))? {
        names.insert(entry?.file_name().into_vec());
    }
    Ok(names)
}

/// Of a descriptor's path in /proc (which is followed), or of a name below one (which is not).
fn xattrs(path: &[u8]) -> io::Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let follow = path.iter().filter(|byte| **byte == b'/').count() == 4;
    let path = CString::new(path)?;
    let path: &CStr = &path;
    let mut list = vec![0; 1 << 16];
    let listed = if follow {
        rustix::fs::listxattr(path, list.as_mut_slice())
    } else {
        rustix::fs::llistxattr(path, list.as_mut_slice())
    };
    match listed {
        Ok(length) => list.truncate(length),
        Err(Errno::OPNOTSUPP) => list.clear(),
        Err(error) => return Err(error.into()),
    }
    let mut pairs = BTreeMap::new();
    for name in list.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0; 1 << 16];
        let length = if follow {
            rustix::fs::getxattr(path, name, value.as_mut_slice())?
        } else {
            rustix::fs::lgetxattr(path, name, value.as_mut_slice())?
        };
        value.truncate(length);
        pairs.insert(name.to_vec(), value);
    }
    Ok(pairs)
}

fn next_data(file: &File, from: u64) -> io::Result<Option<u64>> {
    match rustix::fs::seek(file, rustix::fs::SeekFrom::Data(from)) {
        Ok(at) => Ok(Some(at)),
        Err(Errno::NXIO) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The stretches of data.
fn holes(file: &File, size: u64) -> io::Result<Vec<(u64, u64)>> {
    let mut stretches = Vec::new();
    let mut at = 0;
    while at < size {
        let Some(data) = next_data(file, at)? else { break };
        let hole = rustix::fs::seek(file, rustix::fs::SeekFrom::Hole(data))?;
        stretches.push((data, hole));
        at = hole;
    }
    Ok(stretches)
}
