//! Attributes of an entry that only a client key opens: what is sealed of them, in the clear.
//!
//! The entry that the pool sees has its content or subtree, its size in data bytes, and nothing
//! else; what is here says what it really is. See `docs/formats/client-keys.md`.

use super::decode::{Fields, read_kind, read_nlink, read_rdev, read_time};
use super::encode::{check_lawful, write_extents, write_layout, write_numbers, write_rest};
use super::*;
use crate::cbor::{self, Parsed, Reader};
use crate::error::Result;
use crate::ids::Ref;
use crate::tree::entry::Entry;

/// Whether the entry says nothing of itself that could be hidden.
pub fn is_nothing_but_hidden(seen: &Peek<'_>) -> bool {
    matches!(seen.kind, EntryKind::File | EntryKind::Dir)
        && (seen.mode, seen.uid, seen.gid, seen.inode, seen.device) == (0, 0, 0, 0, 0)
        && (seen.user, seen.group) == (None, None)
        && (seen.mtime, seen.ctime, seen.nlink) == (Time::default(), Time::default(), 1)
        && (seen.extents, seen.target, seen.rdev, seen.xattrs) == (None, None, None, None)
        && (seen.skips, seen.lists) == (None, None)
}

/// The same of an entry that is to be written.
pub(super) fn is_hidden_lawfully(entry: &Entry) -> bool {
    let bare = Entry {
        size: entry.size,
        content: entry.content.clone(),
        subtree: entry.subtree,
        hidden: entry.hidden.clone(),
        ..Entry::new(&entry.name, entry.kind)
    };
    matches!(entry.kind, EntryKind::File | EntryKind::Dir) && bare == *entry
}

/// Appends what is to be hidden of an entry: all but its name, its content and its subtree.
/// Refuses what [`encode_entry`] would refuse.
pub fn encode_hidden(entry: &Entry, out: &mut Vec<u8>) -> Result<()> {
    check_lawful(entry)?;
    let kind = entry.kind;
    let pairs = 8
        + usize::from(entry.user.is_some())
        + usize::from(entry.group.is_some())
        + usize::from(entry.nlink > 1 && kind != EntryKind::Dir)
        + usize::from(kind == EntryKind::File)
        + usize::from(entry.extents.is_some())
        + usize::from(entry.target.is_some())
        + usize::from(entry.rdev.is_some())
        + usize::from(!entry.xattrs.is_empty())
        + usize::from(!entry.skips.is_empty())
        + usize::from(!entry.lists.is_empty());
    cbor::write_map(out, pairs);
    write_numbers(entry, out);
    write_extents(entry, out)?;
    write_rest(entry, out);
    write_layout(entry, out)
}

/// The entry whose hidden attributes these are; zero bytes may follow them. Checked in every field.
pub fn decode_hidden(
    bytes: &[u8],
    name: &[u8],
    content: RawContent<'_>,
    subtree: Option<Ref>,
) -> Result<Entry> {
    let mut reader = Reader::new(bytes);
    parse(&mut reader, name, content, subtree)
        .and_then(|seen| {
            let start = reader.position();
            if bytes.get(start..).unwrap_or_default().iter().any(|byte| *byte != 0) {
                return reader.fail("bytes after the hidden attributes");
            }
            seen.to_entry()
        })
        .map_err(|malformed| malformed.within("the hidden attributes of an entry"))
}

fn parse<'a>(
    reader: &mut Reader<'a>,
    name: &'a [u8],
    content: RawContent<'a>,
    subtree: Option<Ref>,
) -> Parsed<Peek<'a>> {
    let mut fields = Fields::new(reader)?;
    let seen = Peek {
        name,
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
        content,
        extents: fields.optional(EXTENTS, Reader::bytes)?,
        subtree,
        target: fields.optional(TARGET, Reader::bytes)?,
        rdev: fields.optional(RDEV, read_rdev)?,
        xattrs: fields.optional(XATTRS, |reader| {
            let start = reader.position();
            reader.skip()?;
            Ok(reader.since(start))
        })?,
        hidden: None,
        skips: fields.optional(SKIPS, Reader::bytes)?,
        lists: fields.optional(LISTS, Reader::bytes)?,
    };
    fields.end()?;
    seen.lawful(reader)
}
