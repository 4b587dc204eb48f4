//! The names in a directory, held in one buffer: a million names are two allocations.
//!
//! Names come out sorted by their bytes, as trees want them; [`NameList::by_inode`] gives the
//! order in which to ask for attributes, which on most file systems is the order on the disk.

use std::cell::RefCell;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::fs::{FileType, RawDir, SeekFrom};

use super::handle::DirHandle;
use crate::tree::entry::EntryKind;

/// Bytes asked of the kernel at a time.
const BUFFER: usize = 128 << 10;

/// Names that there is room for at first, and their bytes: what most directories have.
const NAMES_FIRST: usize = 32;
const BYTES_FIRST: usize = 512;

thread_local! {
    static DIRENTS: RefCell<Vec<u8>> = RefCell::new(Vec::with_capacity(BUFFER));
}

/// One name as the directory gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawName<'a> {
    pub name: &'a [u8],
    /// As the directory says; a mount point's is that of the directory beneath.
    pub inode: u64,
    /// Not every file system tells.
    pub kind_hint: Option<EntryKind>,
}

#[derive(Clone, Copy, Debug)]
struct Item {
    start: usize,
    inode: u64,
    length: u16,
    kind_hint: Option<EntryKind>,
}

/// All names of a directory, sorted, each once.
#[derive(Debug, Default)]
pub struct NameList {
    bytes: Vec<u8>,
    items: Vec<Item>,
}

impl NameList {
    /// The names that are asked for by name.
    pub fn of<'n>(names: impl Iterator<Item = &'n [u8]>) -> Self {
        let mut list = NameList::default();
        names.for_each(|name| list.push(name, 0, None));
        list.settle();
        list
    }

    pub fn len(&self) -> usize {
        self.items.len()
    }

    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The name at a place in the sorted order.
    pub fn get(&self, at: usize) -> Option<RawName<'_>> {
        self.items.get(at).map(|item| self.raw(item))
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = RawName<'_>> {
        self.items.iter().map(|item| self.raw(item))
    }

    /// Places in the sorted order, in order of inode number.
    pub fn by_inode(&self) -> Vec<u32> {
        let count = u32::try_from(self.items.len()).unwrap_or(u32::MAX);
        let mut order: Vec<u32> = (0..count).collect();
        order.sort_unstable_by_key(|at| self.items.get(*at as usize).map(|item| item.inode));
        order
    }

    pub fn contains(&self, name: &[u8]) -> bool {
        self.items.binary_search_by(|item| self.name(item).cmp(name)).is_ok()
    }

    fn push(&mut self, name: &[u8], inode: u64, kind_hint: Option<EntryKind>) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(name);
        let length = u16::try_from(name.len()).unwrap_or(u16::MAX);
        self.items.push(Item { start, inode, length, kind_hint });
    }

    /// Sorts, and drops names that the kernel gave twice because the directory changed.
    fn settle(&mut self) {
        let bytes = &self.bytes;
        let name = |item: &Item| slice(bytes, item);
        self.items.sort_unstable_by(|a, b| name(a).cmp(name(b)));
        self.items.dedup_by(|a, b| name(a) == name(b));
    }

    fn name(&self, item: &Item) -> &[u8] {
        slice(&self.bytes, item)
    }

    fn raw(&self, item: &Item) -> RawName<'_> {
        RawName { name: self.name(item), inode: item.inode, kind_hint: item.kind_hint }
    }
}

fn slice<'a>(bytes: &'a [u8], item: &Item) -> &'a [u8] {
    bytes.get(item.start..item.start + usize::from(item.length)).unwrap_or_default()
}

/// Reads all names but `.` and `..`. An error part of the way loses the listing: half of a
/// directory must not pass for the whole.
pub fn read_names(dir: &Arc<DirHandle>) -> io::Result<NameList> {
    let fd = dir.fd()?;
    if dir.was_read.swap(true, Ordering::Relaxed) {
        rustix::fs::seek(&fd, SeekFrom::Start(0))?;
    }
    let mut list =
        NameList { bytes: Vec::with_capacity(BYTES_FIRST), items: Vec::with_capacity(NAMES_FIRST) };
    DIRENTS.with_borrow_mut(|buffer| -> io::Result<()> {
        let mut raw = RawDir::new(&fd, buffer.spare_capacity_mut());
        while let Some(entry) = raw.next() {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                list.push(name, entry.ino(), kind_of(entry.file_type()));
            }
        }
        Ok(())
    })?;
    list.settle();
    Ok(list)
}

pub(super) fn kind_of(file_type: FileType) -> Option<EntryKind> {
    Some(match file_type {
        FileType::RegularFile => EntryKind::File,
        FileType::Directory => EntryKind::Dir,
        FileType::Symlink => EntryKind::Symlink,
        FileType::Fifo => EntryKind::Fifo,
        FileType::Socket => EntryKind::Socket,
        FileType::CharacterDevice => EntryKind::Char,
        FileType::BlockDevice => EntryKind::Block,
        FileType::Unknown => return None,
    })
}
