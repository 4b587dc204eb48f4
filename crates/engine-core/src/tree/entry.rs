//! One name in a directory, with everything that a restore needs.

use crate::ids::Ref;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum EntryKind {
    File = 0,
    Dir = 1,
    Symlink = 2,
    Fifo = 3,
    Socket = 4,
    Char = 5,
    Block = 6,
}

impl EntryKind {
    pub fn from_u8(value: u8) -> Option<Self> {
        Some(match value {
            0 => EntryKind::File,
            1 => EntryKind::Dir,
            2 => EntryKind::Symlink,
            3 => EntryKind::Fifo,
            4 => EntryKind::Socket,
            5 => EntryKind::Char,
            6 => EntryKind::Block,
            _ => return None,
        })
    }

    pub fn as_str(self) -> &'static str {
        match self {
            EntryKind::File => "file",
            EntryKind::Dir => "dir",
            EntryKind::Symlink => "symlink",
            EntryKind::Fifo => "fifo",
            EntryKind::Socket => "socket",
            EntryKind::Char => "char",
            EntryKind::Block => "block",
        }
    }
}

/// A moment: whole seconds since 1970 (negative before) and nanoseconds after it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time {
    pub sec: i64,
    pub nsec: u32,
}

impl Time {
    /// Nanoseconds since 1970, saturating at the ends of an i64 (years 1677 and 2262).
    pub fn as_ns(self) -> i64 {
        self.sec.saturating_mul(1_000_000_000).saturating_add(i64::from(self.nsec))
    }
}

/// The bytes of a regular file.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Content {
    /// No data bytes: empty, or only holes.
    #[default]
    Empty,
    /// Data chunks in order.
    Direct(Vec<Ref>),
    /// A list chunk; at depth 1 it holds references to data, above that to lists.
    Listed { depth: u8, list: Ref },
}

/// A stretch of a sparse file that holds data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    pub offset: u64,
    pub length: u64,
}

/// One name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub name: Vec<u8>,
    pub kind: EntryKind,
    /// Permission bits, 0o7777.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub user: Option<String>,
    pub group: Option<String>,
    pub mtime: Time,
    pub ctime: Time,
    pub inode: u64,
    pub device: u64,
    /// Names of this inode; stored only where above 1.
    pub nlink: u64,
    /// Regular files: bytes, holes included.
    pub size: u64,
    pub content: Content,
    /// Sparse files: where data lies; `content` covers these, end to end.
    pub extents: Option<Vec<Extent>>,
    /// Stretches of the content that are passed over: parts of chunks that are not of the file.
    pub skips: Vec<Extent>,
    /// Bytes of content in each list of depth 1, in order; none where that is not told.
    pub lists: Vec<u64>,
    /// Directories: the tree object with its entries.
    pub subtree: Option<Ref>,
    /// Symbolic links.
    pub target: Option<Vec<u8>>,
    /// Devices: major and minor number.
    pub rdev: Option<(u32, u32)>,
    /// Extended attributes, sorted by name; ACLs and capabilities are among them.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// What only a client key opens: the attributes, which are then nothing here.
    pub hidden: Option<Vec<u8>>,
}

impl Entry {
    /// An entry with nothing but a name and a kind.
    pub fn new(name: &[u8], kind: EntryKind) -> Self {
        Entry {
            name: name.to_vec(),
            kind,
            mode: 0,
            uid: 0,
            gid: 0,
            user: None,
            group: None,
            mtime: Time::default(),
            ctime: Time::default(),
            inode: 0,
            device: 0,
            nlink: 1,
            size: 0,
            content: Content::Empty,
            extents: None,
            skips: Vec::new(),
            lists: Vec::new(),
            subtree: None,
            target: None,
            rdev: None,
            xattrs: Vec::new(),
            hidden: None,
        }
    }
}
