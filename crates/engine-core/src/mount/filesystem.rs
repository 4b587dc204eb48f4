//! Answers to the kernel.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use fuser::{
    AccessFlags, Errno, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    InitFlags, KernelConfig, LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory,
    ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyXattr,
    Request,
};
use parking_lot::Mutex;

use super::MountOptions;
use super::attributes::{attributes, blank, file_type};
use super::cache::KeptTrees;
use super::inodes::{Inodes, Node};
use super::inside::{Inside, InsideFile, InsideFiles, Joint, Xattrs, join};
use crate::error::{Error, Result};
use crate::finding::Findings;
use crate::reader::FileReader;
use crate::tree::ChunkSource;
use crate::tree::codec::{self, RawEntry};
use crate::tree::entry::{Entry, EntryKind};
use crate::tree::walk::{Directory, Place};

/// An image never changes: the kernel may keep all that it was told.
const TTL: Duration = Duration::from_secs(24 * 3600);
const MAX_READ_BYTES: u32 = 1 << 20;
const READAHEAD_BYTES: u32 = 1 << 20;
const STATFS_BLOCK_BYTES: u32 = 4096;

/// The file system. See the module above.
pub(super) struct Image {
    source: Arc<dyn ChunkSource>,
    inodes: Inodes,
    open_files: Mutex<OpenFiles>,
    open_dirs: Mutex<HashMap<u64, Arc<Mutex<Listing>>>>,
    next_handle: AtomicU64,
    options: MountOptions,
    findings: Arc<Findings>,
    inside: Option<Arc<dyn InsideFiles>>,
}

#[derive(Default)]
struct OpenFiles {
    by_handle: HashMap<u64, Opened>,
    /// A file opened twice is read by one reader, which has learned where its chunks are.
    by_inode: HashMap<u64, Weak<FileReader>>,
}

/// A file that is open.
#[derive(Clone)]
enum Opened {
    Stored(Arc<FileReader>),
    Inside(Arc<InsideFile>),
}

/// A directory being listed.
struct Listing {
    place: Place,
    /// What comes next: 0 ".", 1 "..", 2 the first entry.
    position: u64,
    /// A part could not be read: the list must not look complete.
    failed: bool,
}

/// What one step of a listing gives.
struct Listed<'a> {
    name: &'a [u8],
    /// `None` for "." and "..".
    entry: Option<RawEntry<'a>>,
    ino: u64,
    kind: FileType,
}

impl Image {
    pub(super) fn new(
        source: Arc<dyn ChunkSource>,
        root: &Entry,
        options: &MountOptions,
        findings: Arc<Findings>,
        inside: Option<Inside>,
    ) -> Result<Self> {
        let Joint { source, root, tops } = match &inside {
            Some(inside) => join(source, root, &inside.root)?,
            None => Joint { source, root: root.clone(), tops: HashSet::new() },
        };
        let mut raw = Vec::new();
        codec::encode_entry(&Entry { name: b"root".to_vec(), ..root }, &mut raw)?;
        Ok(Image {
            source: Arc::new(KeptTrees::new(source)),
            inodes: Inodes::new(&raw, tops),
            open_files: Mutex::default(),
            open_dirs: Mutex::default(),
            next_handle: AtomicU64::new(1),
            options: options.clone(),
            findings,
            inside: inside.map(|inside| inside.files),
        })
    }

    /// Records why something cannot be read; what the kernel is told.
    fn fail(&self, ino: INodeNo, name: Option<&[u8]>, error: &Error) -> Errno {
        let path = self.inodes.path(ino.0, name);
        self.findings.error(&path, error.code(), error.to_string());
        Errno::EIO
    }

    fn node(&self, ino: INodeNo) -> Result<Node, Errno> {
        self.inodes.get(ino.0).ok_or(Errno::ENOENT)
    }

    /// What `read` makes of an inode's entry.
    fn with<T>(&self, ino: INodeNo, read: impl FnOnce(&Node) -> Result<T>) -> Result<T, Errno> {
        read(&self.node(ino)?).map_err(|error| self.fail(ino, None, &error))
    }

    fn directory(&self, node: &Node) -> Result<Option<Directory<'_>>> {
        let seen = codec::peek(&node.raw)?;
        match seen.subtree {
            _ if seen.kind != EntryKind::Dir => Ok(None),
            Some(root) => Directory::open(&*self.source, root).map(Some),
            None => Ok(Some(Directory::empty(&*self.source))),
        }
    }

    fn find(&self, parent: INodeNo, name: &[u8]) -> Result<Option<fuser::FileAttr>, Errno> {
        let node = self.node(parent)?;
        let found = || -> Result<Option<fuser::FileAttr>> {
            let Some(directory) = self.directory(&node)? else { return Ok(None) };
            let mut cursor = directory.cursor();
            cursor.seek(name)?;
            let Some(entry) = cursor.entry()?.filter(|entry| entry.name == name) else {
                return Ok(None);
            };
            let inside = self.inodes.is_inside(parent.0, name);
            let mut attr = attributes(0, &entry.peek()?, inside)?;
            attr.ino = INodeNo(self.inodes.hold(parent.0, entry)?);
            Ok(Some(attr))
        };
        found().map_err(|error| self.fail(parent, Some(name), &error))
    }

    fn open_file(&self, ino: INodeNo) -> Result<u64, Errno> {
        if let Some(file) = self.inside_file(ino)? {
            let handle = self.next_handle.fetch_add(1, Ordering::Relaxed);
            self.open_files.lock().by_handle.insert(handle, Opened::Inside(Arc::new(file)));
            return Ok(handle);
        }
        let known = self.open_files.lock().by_inode.get(&ino.0).and_then(Weak::upgrade);
        let reader = match known {
            Some(reader) => reader,
            None => self.with(ino, |node| {
                let entry = codec::decode_entry(&node.raw)?;
                FileReader::open(self.source.clone(), &entry).map(Arc::new)
            })?,
        };
        let handle = self.next_handle.fetch_add(1, Ordering::Relaxed);
        let mut open = self.open_files.lock();
        open.by_inode.insert(ino.0, Arc::downgrade(&reader));
        open.by_handle.insert(handle, Opened::Stored(reader));
        Ok(handle)
    }

    /// What is read by somebody else; `None` for the image's own.
    fn inside_file(&self, ino: INodeNo) -> Result<Option<InsideFile>, Errno> {
        let node = self.node(ino)?;
        let Some(files) = self.inside.clone().filter(|_| node.inside) else { return Ok(None) };
        let path = self.inodes.path(ino.0, None);
        self.with(ino, |node| {
            let seen = codec::peek(&node.raw)?;
            Ok(Some(InsideFile { files, path, inode: seen.inode, size: seen.size }))
        })
    }

    fn close_file(&self, ino: INodeNo, handle: FileHandle) {
        let mut open = self.open_files.lock();
        drop(open.by_handle.remove(&handle.0));
        if open.by_inode.get(&ino.0).is_some_and(|reader| reader.strong_count() == 0) {
            open.by_inode.remove(&ino.0);
        }
    }

    fn opened(&self, handle: FileHandle) -> Result<Opened, Errno> {
        self.open_files.lock().by_handle.get(&handle.0).cloned().ok_or(Errno::EBADF)
    }

    fn open_directory(&self, ino: INodeNo) -> Result<u64, Errno> {
        let directory = self.with(ino, |node| Ok(self.directory(node)?.map(|it| it.start())))?;
        let place = directory.ok_or(Errno::ENOTDIR)?;
        let handle = self.next_handle.fetch_add(1, Ordering::Relaxed);
        let listing = Listing { place, position: 0, failed: false };
        self.open_dirs.lock().insert(handle, Arc::new(Mutex::new(listing)));
        Ok(handle)
    }

    /// Gives entries from `offset` to `add` until it says that there is no more room.
    fn list(
        &self,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut add: impl FnMut(&Listed<'_>, u64) -> Result<bool>,
    ) -> Result<(), Errno> {
        let node = self.node(ino)?;
        let listing = self.open_dirs.lock().get(&handle.0).cloned().ok_or(Errno::EBADF)?;
        let mut listing = listing.lock();
        if listing_failed(&listing, offset) {
            return Err(Errno::EIO);
        }
        let mut added = 0;
        let mut run = || -> Result<()> {
            self.wind(&mut listing, &node, offset)?;
            loop {
                let Listing { place, position, .. } = &mut *listing;
                let listed = match *position {
                    0 => dot(b".", ino.0),
                    1 => dot(b"..", node.parent),
                    _ => match place.entry(&*self.source)? {
                        Some(entry) => Listed {
                            name: entry.name,
                            entry: Some(entry),
                            ino: self.inodes.number(ino.0, entry)?,
                            kind: file_type(entry.peek()?.kind),
                        },
                        None => return Ok(()),
                    },
                };
                if add(&listed, *position + 1)? {
                    return Ok(());
                }
                added += 1;
                *position += 1;
                if *position > 2 {
                    place.advance();
                }
            }
        };
        match run() {
            Ok(()) => Ok(()),
            Err(error) => {
                listing.failed = true;
                let errno = self.fail(ino, None, &error);
                // What was added is right; the next call tells that there is more.
                if added > 0 { Ok(()) } else { Err(errno) }
            }
        }
    }

    /// Goes to `offset`, which is where the listing stands unless someone seeks.
    fn wind(&self, listing: &mut Listing, node: &Node, offset: u64) -> Result<()> {
        if listing.position == offset {
            return Ok(());
        }
        if let Some(directory) = self.directory(node)? {
            listing.place = directory.start();
        }
        listing.position = offset;
        listing.failed = false;
        for _ in 2..offset {
            if listing.place.entry(&*self.source)?.is_none() {
                break;
            }
            listing.place.advance();
        }
        Ok(())
    }

    fn xattr(&self, ino: INodeNo, name: &[u8]) -> Result<Option<Vec<u8>>, Errno> {
        let all = self.xattrs(ino)?;
        Ok(all.into_iter().find(|(known, _)| known == name).map(|(_, value)| value))
    }

    fn xattrs(&self, ino: INodeNo) -> Result<Xattrs, Errno> {
        if let Some(file) = self.inside_file(ino)? {
            let found = file.files.xattrs(&file.path, file.inode);
            return found.map_err(|error| self.fail(ino, None, &error));
        }
        self.with(ino, |node| match codec::peek(&node.raw)?.xattrs {
            Some(encoded) => codec::decode_xattrs(encoded),
            None => Ok(Vec::new()),
        })
    }
}

fn listing_failed(listing: &Listing, offset: u64) -> bool {
    listing.failed && listing.position == offset
}

fn dot(name: &'static [u8], ino: u64) -> Listed<'static> {
    Listed { name, entry: None, ino, kind: FileType::Directory }
}

/// Replies to a question for bytes, or for how many there are.
fn reply_xattr(reply: ReplyXattr, size: u32, value: &[u8]) {
    match u32::try_from(value.len()) {
        Ok(length) if size == 0 => reply.size(length),
        Ok(length) if length <= size => reply.data(value),
        _ => reply.error(Errno::ERANGE),
    }
}

impl Filesystem for Image {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let mut wanted = vec![
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_READDIRPLUS_AUTO,
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_CACHE_SYMLINKS,
        ];
        if self.options.allow_other {
            // Access control lists then count as modes do.
            wanted.push(InitFlags::FUSE_POSIX_ACL);
        }
        for flag in wanted {
            // A kernel without it is slower, no more.
            let _ = config.add_capabilities(flag);
        }
        if let Err(nearest) = config.set_max_readahead(READAHEAD_BYTES) {
            let _ = config.set_max_readahead(nearest);
        }
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.find(parent, name.as_bytes()) {
            Ok(Some(attr)) => reply.entry(&TTL, &attr, Generation(0)),
            Ok(None) => reply.error(Errno::ENOENT),
            Err(errno) => reply.error(errno),
        }
    }

    fn forget(&self, _: &Request, ino: INodeNo, count: u64) {
        self.inodes.release(ino.0, count);
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.with(ino, |node| attributes(ino.0, &codec::peek(&node.raw)?, node.inside)) {
            Ok(attr) => reply.attr(&TTL, &attr),
            Err(errno) => reply.error(errno),
        }
    }

    fn readlink(&self, _: &Request, ino: INodeNo, reply: ReplyData) {
        let target = self.with(ino, |node| Ok(codec::peek(&node.raw)?.target.map(<[u8]>::to_vec)));
        match target {
            Ok(Some(target)) => reply.data(&target),
            Ok(None) => reply.error(Errno::EINVAL),
            Err(errno) => reply.error(errno),
        }
    }

    fn access(&self, _: &Request, _: INodeNo, _: AccessFlags, reply: ReplyEmpty) {
        // Who may ask at all, may read everything; the rest is the kernel's (see `allow_other`).
        reply.ok();
    }

    fn open(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        match self.open_file(ino) {
            Ok(handle) => reply.opened(FileHandle(handle), FopenFlags::FOPEN_KEEP_CACHE),
            Err(errno) => reply.error(errno),
        }
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let length = size.min(MAX_READ_BYTES) as usize;
        let read = match self.opened(handle) {
            Ok(Opened::Stored(reader)) => {
                let mut buffer = vec![0; length];
                reader.read_at(offset, &mut buffer).map(|length| {
                    buffer.truncate(length);
                    buffer
                })
            }
            Ok(Opened::Inside(file)) => file.read_at(offset, length),
            Err(errno) => return reply.error(errno),
        };
        match read {
            Ok(bytes) => reply.data(&bytes),
            Err(error) => reply.error(self.fail(ino, None, &error)),
        }
    }

    fn lseek(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        /// From the system's headers; the same on every Linux.
        const SEEK_DATA: i32 = 3;
        const SEEK_HOLE: i32 = 4;
        let found = || {
            let from = u64::try_from(offset).map_err(|_| Errno::EINVAL)?;
            let next = match (self.opened(handle)?, whence) {
                (Opened::Stored(reader), SEEK_DATA) => reader.next_data(from),
                (Opened::Stored(reader), SEEK_HOLE) => reader.next_hole(from),
                // It is not known where it has holes: all of it is data.
                (Opened::Inside(file), SEEK_DATA) => Some(from).filter(|at| *at < file.size),
                (Opened::Inside(file), SEEK_HOLE) => Some(file.size).filter(|size| from < *size),
                _ => return Err(Errno::EINVAL),
            };
            next.and_then(|next| i64::try_from(next).ok()).ok_or(Errno::ENXIO)
        };
        match found() {
            Ok(next) => reply.offset(next),
            Err(errno) => reply.error(errno),
        }
    }

    fn release(
        &self,
        _: &Request,
        ino: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.close_file(ino, handle);
        reply.ok();
    }

    fn opendir(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let flags = FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_CACHE_DIR;
        match self.open_directory(ino) {
            Ok(handle) => reply.opened(FileHandle(handle), flags),
            Err(errno) => reply.error(errno),
        }
    }

    fn readdir(
        &self,
        _: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let listed = self.list(ino, handle, offset, |listed, next| {
            let name = OsStr::from_bytes(listed.name);
            Ok(reply.add(INodeNo(listed.ino), next, listed.kind, name))
        });
        match listed {
            Ok(()) => reply.ok(),
            Err(errno) => reply.error(errno),
        }
    }

    fn readdirplus(
        &self,
        _: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let listed = self.list(ino, handle, offset, |listed, next| {
            let name = OsStr::from_bytes(listed.name);
            let Some(entry) = listed.entry else {
                // The kernel wants no attributes of "." and "..", and holds nothing.
                let attr = blank(listed.ino);
                let number = INodeNo(listed.ino);
                return Ok(reply.add(number, next, name, &TTL, &attr, Generation(0)));
            };
            let inside = self.inodes.is_inside(ino.0, listed.name);
            let mut attr = attributes(0, &entry.peek()?, inside)?;
            let held = self.inodes.hold(ino.0, entry)?;
            attr.ino = INodeNo(held);
            let full = reply.add(INodeNo(held), next, name, &TTL, &attr, Generation(0));
            if full {
                self.inodes.release(held, 1);
            }
            Ok(full)
        });
        match listed {
            Ok(()) => reply.ok(),
            Err(errno) => reply.error(errno),
        }
    }

    fn releasedir(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.open_dirs.lock().remove(&handle.0);
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let blocks = self.options.total_bytes.div_ceil(u64::from(STATFS_BLOCK_BYTES));
        let files = self.options.total_files;
        reply.statfs(blocks, 0, 0, files, 0, STATFS_BLOCK_BYTES, 255, STATFS_BLOCK_BYTES);
    }

    fn getxattr(&self, _: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        match self.xattr(ino, name.as_bytes()) {
            Ok(Some(value)) => reply_xattr(reply, size, &value),
            Ok(None) => reply.error(Errno::ENODATA),
            Err(errno) => reply.error(errno),
        }
    }

    fn listxattr(&self, _: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        match self.xattrs(ino) {
            Ok(all) => {
                let names: Vec<u8> =
                    all.iter().flat_map(|(name, _)| name.iter().copied().chain([0])).collect();
                reply_xattr(reply, size, &names);
            }
            Err(errno) => reply.error(errno),
        }
    }
}
