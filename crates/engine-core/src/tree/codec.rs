//! Bytes of entries and tree objects. See `docs/formats/tree.md`.
//!
//! One entry has one spelling, so an unchanged entry is recognised and copied as bytes. Decoding
//! refuses whatever encoding would not have written; it allocates only in proportion to its
//! input. [`peek`] allocates nothing: it runs for every file of every backup.

use crate::cbor::{self, Malformed, Parsed, Reader};
use crate::error::{Error, Result};
use crate::ids::Ref;
use crate::tree::entry::{Content, Entry, EntryKind, Time};
use crate::tree::extents;

/// The most bytes of one encoded entry. Far above what a file system gives, except for a file
/// with megabytes of extended attributes.
pub const MAX_ENTRY_BYTES: usize = 8 << 20;
/// The longest name.
pub const MAX_NAME_BYTES: usize = 4096;
/// The most references that stand in the entry itself.
pub const MAX_DIRECT_REFS: usize = 32;
/// The deepest list of references.
pub const MAX_LIST_DEPTH: u8 = 8;
/// The highest node of one directory.
pub const MAX_NODE_LEVEL: u8 = 16;

const TREE_VERSION: u64 = 1;

const NAME: u64 = 1;
const KIND: u64 = 2;
const MODE: u64 = 3;
const UID: u64 = 4;
const GID: u64 = 5;
const USER: u64 = 6;
const GROUP: u64 = 7;
const MTIME: u64 = 8;
const CTIME: u64 = 9;
const INODE: u64 = 10;
const DEVICE: u64 = 11;
const NLINK: u64 = 12;
const SIZE: u64 = 13;
const CONTENT: u64 = 14;
const CONTENT_LIST: u64 = 15;
const EXTENTS: u64 = 16;
const SUBTREE: u64 = 17;
const TARGET: u64 = 18;
const RDEV: u64 = 19;
const XATTRS: u64 = 20;

/// What stands where a file's content is described, as stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum RawContent<'a> {
    #[default]
    Empty,
    /// References laid end to end, for [`Ref::iter`].
    Direct(&'a [u8]),
    Listed {
        depth: u8,
        list: Ref,
    },
}

/// An entry seen without copying. What it borrows is checked in form only: extents and extended
/// attributes are read by [`decode_entry`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peek<'a> {
    pub name: &'a [u8],
    pub kind: EntryKind,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub user: Option<&'a str>,
    pub group: Option<&'a str>,
    pub mtime: Time,
    pub ctime: Time,
    pub inode: u64,
    pub device: u64,
    pub nlink: u64,
    pub size: u64,
    pub content: RawContent<'a>,
    /// Encoded extents; see [`extents::decode`].
    pub extents: Option<&'a [u8]>,
    pub subtree: Option<Ref>,
    pub target: Option<&'a [u8]>,
    pub rdev: Option<(u32, u32)>,
    /// The encoded map of extended attributes.
    pub xattrs: Option<&'a [u8]>,
}

/// One entry of a leaf: its name, and all its bytes for [`peek`] or [`decode_entry`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawEntry<'a> {
    pub name: &'a [u8],
    pub raw: &'a [u8],
}

impl<'a> RawEntry<'a> {
    pub fn peek(&self) -> Result<Peek<'a>> {
        peek(self.raw)
    }

    pub fn decode(&self) -> Result<Entry> {
        decode_entry(self.raw)
    }
}

/// One part of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TreeObject<'a> {
    Leaf(Vec<RawEntry<'a>>),
    /// Objects of the level below, each with the name of its first entry.
    Node {
        level: u8,
        items: Vec<(&'a [u8], Ref)>,
    },
}

/// Whether a directory may hold this name.
pub fn is_legal_name(name: &[u8]) -> bool {
    !name.is_empty()
        && name.len() <= MAX_NAME_BYTES
        && name != b"."
        && name != b".."
        && !name.iter().any(|byte| *byte == b'/' || *byte == 0)
}

/// Appends the entry's bytes. An entry that could not be read back is refused (and `out` left as
/// it was): an illegal name, content that does not cover the file, a field of another kind.
pub fn encode_entry(entry: &Entry, out: &mut Vec<u8>) -> Result<()> {
    if !is_legal_name(&entry.name) {
        return Err(unlawful(entry, "its name"));
    }
    encode_any(entry, out)
}

/// As [`encode_entry`] for the root of an image, whose name is "/".
pub fn encode_root(entry: &Entry, out: &mut Vec<u8>) -> Result<()> {
    if entry.name != b"/" || entry.kind != EntryKind::Dir {
        return Err(unlawful(entry, "its place at the root"));
    }
    encode_any(entry, out)
}

fn encode_any(entry: &Entry, out: &mut Vec<u8>) -> Result<()> {
    let start = out.len();
    let result = write_entry(entry, out).and_then(|()| {
        let length = out.len() - start;
        if length > MAX_ENTRY_BYTES {
            return Err(Error::Invalid(format!(
                "what describes '{}' takes {length} bytes; at most {MAX_ENTRY_BYTES} can be stored",
                entry.name.escape_ascii()
            )));
        }
        Ok(())
    });
    if result.is_err() {
        out.truncate(start);
    }
    result
}

fn unlawful(entry: &Entry, what: &str) -> Error {
    let (kind, name) = (entry.kind.as_str(), entry.name.escape_ascii());
    Error::Invalid(format!("the {kind} '{name}' cannot be stored: {what} is not lawful"))
}

fn write_entry(entry: &Entry, out: &mut Vec<u8>) -> Result<()> {
    check_lawful(entry)?;
    let kind = entry.kind;
    let file = kind == EntryKind::File;
    let linked = entry.nlink > 1 && kind != EntryKind::Dir;
    let pairs = 9
        + usize::from(entry.user.is_some())
        + usize::from(entry.group.is_some())
        + usize::from(linked)
        + usize::from(file)
        + usize::from(entry.content != Content::Empty)
        + usize::from(entry.extents.is_some())
        + usize::from(entry.subtree.is_some())
        + usize::from(entry.target.is_some())
        + usize::from(entry.rdev.is_some())
        + usize::from(!entry.xattrs.is_empty());
    cbor::write_map(out, pairs);
    cbor::write_uint(out, NAME);
    cbor::write_bytes(out, &entry.name);
    for (key, value) in [
        (KIND, kind as u64),
        (MODE, u64::from(entry.mode)),
        (UID, u64::from(entry.uid)),
        (GID, u64::from(entry.gid)),
    ] {
        cbor::write_uint(out, key);
        cbor::write_uint(out, value);
    }
    for (key, text) in [(USER, &entry.user), (GROUP, &entry.group)] {
        if let Some(text) = text {
            cbor::write_uint(out, key);
            cbor::write_text(out, text);
        }
    }
    for (key, time) in [(MTIME, entry.mtime), (CTIME, entry.ctime)] {
        cbor::write_uint(out, key);
        cbor::write_array(out, 2);
        cbor::write_int(out, time.sec);
        cbor::write_uint(out, u64::from(time.nsec));
    }
    for (key, value, present) in [
        (INODE, entry.inode, true),
        (DEVICE, entry.device, true),
        (NLINK, entry.nlink, linked),
        (SIZE, entry.size, file),
    ] {
        if present {
            cbor::write_uint(out, key);
            cbor::write_uint(out, value);
        }
    }
    write_content(entry, out)?;
    if let Some(subtree) = entry.subtree {
        cbor::write_uint(out, SUBTREE);
        cbor::write_bytes(out, &subtree.to_bytes());
    }
    if let Some(target) = &entry.target {
        cbor::write_uint(out, TARGET);
        cbor::write_bytes(out, target);
    }
    if let Some((major, minor)) = entry.rdev {
        cbor::write_uint(out, RDEV);
        cbor::write_array(out, 2);
        cbor::write_uint(out, u64::from(major));
        cbor::write_uint(out, u64::from(minor));
    }
    if !entry.xattrs.is_empty() {
        cbor::write_uint(out, XATTRS);
        cbor::write_map(out, entry.xattrs.len());
        for (name, value) in &entry.xattrs {
            cbor::write_bytes(out, name);
            cbor::write_bytes(out, value);
        }
    }
    Ok(())
}

fn write_content(entry: &Entry, out: &mut Vec<u8>) -> Result<()> {
    match &entry.content {
        Content::Empty => {}
        Content::Direct(refs) => {
            cbor::write_uint(out, CONTENT);
            cbor::write_bytes_head(out, refs.len() * Ref::SIZE);
            for reference in refs {
                out.extend_from_slice(&reference.to_bytes());
            }
        }
        Content::Listed { depth, list } => {
            cbor::write_uint(out, CONTENT_LIST);
            cbor::write_array(out, 2);
            cbor::write_uint(out, u64::from(*depth));
            cbor::write_bytes(out, &list.to_bytes());
        }
    }
    if let Some(list) = &entry.extents {
        let mut encoded = Vec::with_capacity(list.len() * 6);
        extents::encode(list, entry.size, &mut encoded)?;
        cbor::write_uint(out, EXTENTS);
        cbor::write_bytes(out, &encoded);
    }
    Ok(())
}

/// What `Peek::lawful` and `decode_entry` will ask.
fn check_lawful(entry: &Entry) -> Result<()> {
    let refuse = |what: &str| Err(unlawful(entry, what));
    let kind = entry.kind;
    if entry.mode > 0o7777 {
        return refuse("its mode");
    }
    if entry.mtime.nsec >= 1_000_000_000 || entry.ctime.nsec >= 1_000_000_000 {
        return refuse("one of its times");
    }
    if kind != EntryKind::File && (entry.content != Content::Empty || entry.extents.is_some()) {
        return refuse("content");
    }
    if kind != EntryKind::Dir && entry.subtree.is_some() {
        return refuse("a subtree");
    }
    let target = entry.target.as_ref().is_some_and(|target| is_legal_target(target));
    if target != (kind == EntryKind::Symlink) || entry.target.is_some() != target {
        return refuse("its target");
    }
    let is_device = matches!(kind, EntryKind::Char | EntryKind::Block);
    if entry.rdev.is_some() != is_device {
        return refuse("its device number");
    }
    if !entry.xattrs.iter().all(|(name, _)| is_legal_xattr_name(name))
        || !entry.xattrs.is_sorted_by(|before, after| before.0 < after.0)
    {
        return refuse("the order or a name of its extended attributes");
    }
    if kind == EntryKind::File && !covers(&entry.content, data_bytes(entry)) {
        return refuse("content that does not cover its size");
    }
    Ok(())
}

fn is_legal_target(target: &[u8]) -> bool {
    !target.is_empty() && !target.contains(&0)
}

fn is_legal_xattr_name(name: &[u8]) -> bool {
    !name.is_empty() && !name.contains(&0)
}

/// Bytes that the content of a file must yield.
pub fn data_bytes(entry: &Entry) -> u64 {
    entry.extents.as_ref().map_or(entry.size, |list| extents::data_bytes(list))
}

fn covers(content: &Content, data: u64) -> bool {
    match content {
        Content::Empty => data == 0,
        Content::Direct(refs) => {
            !refs.is_empty()
                && refs.len() <= MAX_DIRECT_REFS
                && refs.iter().all(|reference| reference.length > 0)
                && refs.iter().map(|reference| u64::from(reference.length)).sum::<u64>() == data
        }
        // Whether it yields as much is known to those who read the lists.
        Content::Listed { depth, .. } => (1..=MAX_LIST_DEPTH).contains(depth) && data > 0,
    }
}

/// The fields of an encoded entry, without copying or allocating.
pub fn peek(raw: &[u8]) -> Result<Peek<'_>> {
    parse_peek(raw).map_err(|malformed| malformed.within("a tree entry"))
}

/// An entry of a directory, checked in every field.
pub fn decode_entry(raw: &[u8]) -> Result<Entry> {
    parse_peek(raw).and_then(|seen| seen.to_entry()).map_err(|bad| bad.within("a tree entry"))
}

/// As [`decode_entry`] for the root of an image, whose name is "/".
pub fn decode_root(raw: &[u8]) -> Result<Entry> {
    parse_root(raw).map_err(|malformed| malformed.within("the root entry of an image"))
}

fn parse_root(raw: &[u8]) -> Parsed<Entry> {
    let mut reader = Reader::new(raw);
    let seen = parse_fields(&mut reader)?;
    reader.end()?;
    if seen.name != b"/" || seen.kind != EntryKind::Dir {
        return reader.fail("a root that is not the directory '/'");
    }
    seen.to_entry()
}

fn parse_peek(raw: &[u8]) -> Parsed<Peek<'_>> {
    let mut reader = Reader::new(raw);
    let seen = parse_fields(&mut reader)?;
    reader.end()?;
    if !is_legal_name(seen.name) {
        return reader.fail("an illegal name");
    }
    Ok(seen)
}

/// Reads the fields of a map whose keys ascend.
struct Fields<'r, 'a> {
    reader: &'r mut Reader<'a>,
    pairs: usize,
    key: u64,
}

impl<'r, 'a> Fields<'r, 'a> {
    #[inline]
    fn new(reader: &'r mut Reader<'a>) -> Parsed<Self> {
        let pairs = reader.map()?;
        let mut fields = Fields { reader, pairs, key: 0 };
        fields.advance()?;
        Ok(fields)
    }

    #[inline]
    fn advance(&mut self) -> Parsed<()> {
        let before = std::mem::replace(&mut self.key, u64::MAX);
        if self.pairs > 0 {
            self.pairs -= 1;
            self.key = self.reader.uint()?;
            if self.key <= before || self.key > XATTRS {
                return self.reader.fail("an unknown, repeated or misplaced field");
            }
        }
        Ok(())
    }

    #[inline]
    fn optional<T>(
        &mut self,
        key: u64,
        read: impl FnOnce(&mut Reader<'a>) -> Parsed<T>,
    ) -> Parsed<Option<T>> {
        if self.key != key {
            return Ok(None);
        }
        let value = read(self.reader)?;
        self.advance()?;
        Ok(Some(value))
    }

    #[inline]
    fn required<T>(
        &mut self,
        key: u64,
        read: impl FnOnce(&mut Reader<'a>) -> Parsed<T>,
    ) -> Parsed<T> {
        match self.optional(key, read)? {
            Some(value) => Ok(value),
            None => self.reader.fail("a field is missing"),
        }
    }

    fn end(&self) -> Parsed<()> {
        // Left over is a key that was asked for too early, thus out of order.
        if self.key == u64::MAX { Ok(()) } else { self.reader.fail("a field out of order") }
    }
}

fn parse_fields<'a>(reader: &mut Reader<'a>) -> Parsed<Peek<'a>> {
    let start = reader.position();
    let mut fields = Fields::new(reader)?;
    let seen = Peek {
        name: fields.required(NAME, Reader::bytes)?,
        kind: fields.required(KIND, read_kind)?,
        mode: fields.required(MODE, Reader::u32)?,
        uid: fields.required(UID, Reader::u32)?,
        gid: fields.required(GID, Reader::u32)?,
        user: fields.optional(USER, Reader::text)?,
        group: fields.optional(GROUP, Reader::text)?,
        mtime: fields.required(MTIME, read_time)?,
        ctime: fields.required(CTIME, read_time)?,
        inode: fields.required(INODE, Reader::uint)?,
        device: fields.required(DEVICE, Reader::uint)?,
        nlink: fields.optional(NLINK, read_nlink)?.unwrap_or(1),
        size: fields.optional(SIZE, Reader::uint)?.unwrap_or(u64::MAX),
        content: read_content(&mut fields)?,
        extents: fields.optional(EXTENTS, Reader::bytes)?,
        subtree: fields.optional(SUBTREE, read_ref)?,
        target: fields.optional(TARGET, Reader::bytes)?,
        rdev: fields.optional(RDEV, read_rdev)?,
        xattrs: fields.optional(XATTRS, |reader| {
            let start = reader.position();
            reader.skip()?;
            Ok(reader.since(start))
        })?,
    };
    fields.end()?;
    if reader.position() - start > MAX_ENTRY_BYTES {
        return reader.fail("an entry of too many bytes");
    }
    seen.lawful(reader)
}

fn read_kind(reader: &mut Reader<'_>) -> Parsed<EntryKind> {
    match u8::try_from(reader.uint()?).ok().and_then(EntryKind::from_u8) {
        Some(kind) => Ok(kind),
        None => reader.fail("an unknown kind of entry"),
    }
}

fn read_time(reader: &mut Reader<'_>) -> Parsed<Time> {
    reader.tuple(2)?;
    let time = Time { sec: reader.int()?, nsec: reader.u32()? };
    if time.nsec < 1_000_000_000 { Ok(time) } else { reader.fail("a time out of range") }
}

fn read_nlink(reader: &mut Reader<'_>) -> Parsed<u64> {
    match reader.uint()? {
        0 | 1 => reader.fail("a count of links below 2"),
        count => Ok(count),
    }
}

fn read_ref(reader: &mut Reader<'_>) -> Parsed<Ref> {
    match Ref::from_bytes(reader.bytes()?) {
        Some(reference) => Ok(reference),
        None => reader.fail("a reference of the wrong length"),
    }
}

fn read_rdev(reader: &mut Reader<'_>) -> Parsed<(u32, u32)> {
    reader.tuple(2)?;
    Ok((reader.u32()?, reader.u32()?))
}

fn read_content<'a>(fields: &mut Fields<'_, 'a>) -> Parsed<RawContent<'a>> {
    if let Some(refs) = fields.optional(CONTENT, Reader::bytes)? {
        return if refs.is_empty()
            || refs.len() > MAX_DIRECT_REFS * Ref::SIZE
            || !refs.len().is_multiple_of(Ref::SIZE)
        {
            fields.reader.fail("content that is no list of references")
        } else {
            Ok(RawContent::Direct(refs))
        };
    }
    let listed = fields.optional(CONTENT_LIST, |reader| {
        reader.tuple(2)?;
        match u8::try_from(reader.uint()?) {
            Ok(depth @ 1..=MAX_LIST_DEPTH) => {
                Ok(RawContent::Listed { depth, list: read_ref(reader)? })
            }
            _ => reader.fail("a list of unlawful depth"),
        }
    })?;
    Ok(listed.unwrap_or_default())
}

impl Peek<'_> {
    /// Refuses fields that belong to another kind, and sets what absent fields mean.
    #[inline]
    fn lawful(mut self, reader: &Reader<'_>) -> Parsed<Self> {
        let kind = self.kind;
        let file = kind == EntryKind::File;
        let has_data = self.content != RawContent::Empty || self.extents.is_some();
        if file != (self.size != u64::MAX)
            || (has_data && !file)
            || (self.subtree.is_some() && kind != EntryKind::Dir)
            || (self.nlink > 1 && kind == EntryKind::Dir)
            || (self.target.is_some_and(is_legal_target) != (kind == EntryKind::Symlink))
            || (self.target.is_some() && kind != EntryKind::Symlink)
            || (self.rdev.is_some() != matches!(kind, EntryKind::Char | EntryKind::Block))
        {
            return reader.fail("fields that do not fit the kind of entry");
        }
        if self.mode > 0o7777 {
            return reader.fail("a mode out of range");
        }
        if !file {
            self.size = 0;
        }
        Ok(self)
    }

    fn to_entry(self) -> Parsed<Entry> {
        let at_end = |reason| Malformed { at: 0, reason };
        let content = match self.content {
            RawContent::Empty => Content::Empty,
            RawContent::Direct(refs) => match Ref::iter(refs) {
                Some(refs) => Content::Direct(refs.collect()),
                None => return Err(at_end("content that is no list of references")),
            },
            RawContent::Listed { depth, list } => Content::Listed { depth, list },
        };
        let extents = self.extents.map(|raw| extents::decode(raw, self.size)).transpose()?;
        let entry = Entry {
            name: self.name.to_vec(),
            kind: self.kind,
            mode: self.mode,
            uid: self.uid,
            gid: self.gid,
            user: self.user.map(str::to_owned),
            group: self.group.map(str::to_owned),
            mtime: self.mtime,
            ctime: self.ctime,
            inode: self.inode,
            device: self.device,
            nlink: self.nlink,
            size: self.size,
            content,
            extents,
            subtree: self.subtree,
            target: self.target.map(<[u8]>::to_vec),
            rdev: self.rdev,
            xattrs: self.xattrs.map_or(Ok(Vec::new()), read_xattrs)?,
        };
        if entry.kind == EntryKind::File && !covers(&entry.content, data_bytes(&entry)) {
            return Err(at_end("content that does not cover the file's size"));
        }
        Ok(entry)
    }
}

fn read_xattrs(raw: &[u8]) -> Parsed<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut reader = Reader::new(raw);
    let count = reader.map()?;
    let mut xattrs: Vec<(Vec<u8>, Vec<u8>)> = Vec::with_capacity(count.min(64));
    for _ in 0..count {
        let name = reader.bytes()?;
        let value = reader.bytes()?;
        if !is_legal_xattr_name(name) || xattrs.last().is_some_and(|last| *last.0 >= *name) {
            return reader.fail("extended attributes out of order");
        }
        xattrs.push((name.to_vec(), value.to_vec()));
    }
    if count == 0 {
        return reader.fail("an empty field");
    }
    reader.end()?;
    Ok(xattrs)
}

/// The parts of a tree object. The entries of a leaf are separated and in order, with legal
/// names; their other fields are checked when they are peeked at.
pub fn decode_object(bytes: &[u8]) -> Result<TreeObject<'_>> {
    let mut reader = Reader::new(bytes);
    let version = reader
        .tuple(3)
        .and_then(|()| reader.uint())
        .map_err(|malformed| malformed.within("a tree object"))?;
    if version > TREE_VERSION {
        let object = "a tree object".into();
        return Err(Error::NewerFormat { object, found: version, known: TREE_VERSION });
    }
    parse_object(&mut reader, version).map_err(|malformed| malformed.within("a tree object"))
}

fn parse_object<'a>(reader: &mut Reader<'a>, version: u64) -> Parsed<TreeObject<'a>> {
    if version != TREE_VERSION {
        return reader.fail("an unknown version");
    }
    let level = match u8::try_from(reader.uint()?) {
        Ok(level @ 0..=MAX_NODE_LEVEL) => level,
        _ => return reader.fail("a node of unlawful level"),
    };
    let count = reader.array()?;
    let mut last: Option<&[u8]> = None;
    let mut in_order = |reader: &Reader<'a>, name: &'a [u8]| {
        if !is_legal_name(name) {
            return reader.fail("an illegal name");
        }
        if last.replace(name).is_some_and(|last| last >= name) {
            return reader.fail("names out of order");
        }
        Ok(())
    };
    let object = if level == 0 {
        // The smallest entry is above 30 bytes; a lying count reserves little.
        let mut entries = Vec::with_capacity(count.min(reader.left() / 16));
        for _ in 0..count {
            let start = reader.position();
            let name = skip_entry(reader)?;
            in_order(reader, name)?;
            entries.push(RawEntry { name, raw: reader.since(start) });
        }
        TreeObject::Leaf(entries)
    } else {
        let mut items = Vec::with_capacity(count.min(reader.left() / Ref::SIZE));
        for _ in 0..count {
            reader.tuple(2)?;
            let name = reader.bytes()?;
            in_order(reader, name)?;
            items.push((name, read_ref(reader)?));
        }
        if items.is_empty() {
            return reader.fail("a node without items");
        }
        TreeObject::Node { level, items }
    };
    reader.end()?;
    Ok(object)
}

/// Steps over an entry; its name.
#[inline]
fn skip_entry<'a>(reader: &mut Reader<'a>) -> Parsed<&'a [u8]> {
    let pairs = reader.map()?;
    if pairs == 0 || reader.uint()? != NAME {
        return reader.fail("an entry without a name");
    }
    let name = reader.bytes()?;
    for _ in 1..pairs {
        reader.uint()?;
        reader.skip()?;
    }
    Ok(name)
}

/// The start of a tree object; its items follow.
pub(super) fn write_object_head(out: &mut Vec<u8>, level: u8, items: usize) {
    cbor::write_array(out, 3);
    cbor::write_uint(out, TREE_VERSION);
    cbor::write_uint(out, u64::from(level));
    cbor::write_array(out, items);
}

/// One item of a node.
pub(super) fn write_node_item(out: &mut Vec<u8>, first_name: &[u8], reference: &Ref) {
    cbor::write_array(out, 2);
    cbor::write_bytes(out, first_name);
    cbor::write_bytes(out, &reference.to_bytes());
}
