//! Bytes to entries, borrowed or whole.

use super::*;
use crate::cbor::{Malformed, Parsed, Reader};
use crate::error::Result;
use crate::ids::Ref;
use crate::tree::entry::{Content, Entry, EntryKind, Time};
use crate::tree::extents;

/// The fields of an encoded entry, without copying or allocating.
pub fn peek(raw: &[u8]) -> Result<Peek<'_>> {
    parse_peek(raw).map_err(|malformed| malformed.within("a tree entry"))
}

/// The few fields that tell whether a file changed; what comes after them is not looked at.
pub fn marks(raw: &[u8]) -> Result<Marks> {
    parse_marks(raw).map_err(|malformed| malformed.within("a tree entry"))
}

fn parse_marks(raw: &[u8]) -> Parsed<Marks> {
    let mut reader = Reader::new(raw);
    let mut fields = Fields::new(&mut reader)?;
    fields.required(NAME, Reader::bytes)?;
    let kind = fields.required(KIND, read_kind)?;
    for key in [MODE, UID, GID] {
        fields.required(key, Reader::uint)?;
    }
    for key in [USER, GROUP] {
        fields.optional(key, Reader::skip)?;
    }
    let mtime = fields.required(MTIME, read_time)?;
    let ctime = fields.required(CTIME, read_time)?;
    let inode = fields.required(INODE, Reader::uint)?;
    fields.required(DEVICE, Reader::uint)?;
    fields.optional(NLINK, Reader::uint)?;
    let size = fields.optional(SIZE, Reader::uint)?;
    if size.is_some() != (kind == EntryKind::File) {
        return reader.fail("fields that do not fit the kind of entry");
    }
    Ok(Marks { kind, mtime, ctime, inode, size: size.unwrap_or(0) })
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
pub(super) struct Fields<'r, 'a> {
    reader: &'r mut Reader<'a>,
    pairs: usize,
    key: u64,
}

impl<'r, 'a> Fields<'r, 'a> {
    #[inline]
    pub(super) fn new(reader: &'r mut Reader<'a>) -> Parsed<Self> {
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
            if self.key <= before || self.key > LISTS {
                return self.reader.fail("an unknown, repeated or misplaced field");
            }
        }
        Ok(())
    }

    #[inline(always)]
    pub(super) fn optional<T>(
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

    #[inline(always)]
    pub(super) fn required<T>(
        &mut self,
        key: u64,
        read: impl FnOnce(&mut Reader<'a>) -> Parsed<T>,
    ) -> Parsed<T> {
        match self.optional(key, read)? {
            Some(value) => Ok(value),
            None => self.reader.fail("a field is missing"),
        }
    }

    pub(super) fn end(&self) -> Parsed<()> {
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
        hidden: fields.optional(HIDDEN, Reader::bytes)?,
        skips: fields.optional(SKIPS, Reader::bytes)?,
        lists: fields.optional(LISTS, Reader::bytes)?,
    };
    fields.end()?;
    if reader.position() - start > MAX_ENTRY_BYTES {
        return reader.fail("an entry of too many bytes");
    }
    seen.lawful(reader)
}

#[inline]
pub(super) fn read_kind(reader: &mut Reader<'_>) -> Parsed<EntryKind> {
    match u8::try_from(reader.uint()?).ok().and_then(EntryKind::from_u8) {
        Some(kind) => Ok(kind),
        None => reader.fail("an unknown kind of entry"),
    }
}

#[inline]
pub(super) fn read_time(reader: &mut Reader<'_>) -> Parsed<Time> {
    reader.tuple(2)?;
    let time = Time { sec: reader.int()?, nsec: reader.u32()? };
    if time.nsec < 1_000_000_000 { Ok(time) } else { reader.fail("a time out of range") }
}

#[inline]
pub(super) fn read_nlink(reader: &mut Reader<'_>) -> Parsed<u64> {
    match reader.uint()? {
        0 | 1 => reader.fail("a count of links below 2"),
        count => Ok(count),
    }
}

pub(super) fn read_ref(reader: &mut Reader<'_>) -> Parsed<Ref> {
    match Ref::from_bytes(reader.bytes()?) {
        Some(reference) => Ok(reference),
        None => reader.fail("a reference of the wrong length"),
    }
}

#[inline]
pub(super) fn read_rdev(reader: &mut Reader<'_>) -> Parsed<(u32, u32)> {
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
    pub(super) fn lawful(mut self, reader: &Reader<'_>) -> Parsed<Self> {
        let kind = self.kind;
        let file = kind == EntryKind::File;
        let has_layout = self.skips.is_some() || self.lists.is_some();
        let has_data = self.content != RawContent::Empty || self.extents.is_some() || has_layout;
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
        if self.hidden.is_some() && !is_nothing_but_hidden(&self) {
            return reader.fail("attributes beside hidden ones");
        }
        if !file {
            self.size = 0;
        }
        Ok(self)
    }

    pub(super) fn to_entry(self) -> Parsed<Entry> {
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
        let skips = self.skips.map(|raw| extents::decode(raw, u64::MAX)).transpose()?;
        let lists = self.lists.map(extents::decode_lengths).transpose()?;
        if skips.as_ref().is_some_and(Vec::is_empty) || lists.as_ref().is_some_and(Vec::is_empty) {
            return Err(at_end("an empty field"));
        }
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
            skips: skips.unwrap_or_default(),
            lists: lists.unwrap_or_default(),
            subtree: self.subtree,
            target: self.target.map(<[u8]>::to_vec),
            rdev: self.rdev,
            xattrs: self.xattrs.map_or(Ok(Vec::new()), read_xattrs)?,
            hidden: self.hidden.map(<[u8]>::to_vec),
        };
        if entry.kind == EntryKind::File && !is_content_lawful(&entry) {
            return Err(at_end("content that does not cover the file's size"));
        }
        Ok(entry)
    }
}

/// The extended attributes of an entry: what [`Peek::xattrs`] holds.
pub fn decode_xattrs(raw: &[u8]) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    read_xattrs(raw).map_err(|malformed| malformed.within("the extended attributes of an entry"))
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
