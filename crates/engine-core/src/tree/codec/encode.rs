//! Entries to bytes. Refuses what decoding would refuse.

use super::*;
use crate::cbor;
use crate::error::{Error, Result};
use crate::ids::Ref;
use crate::tree::entry::{Content, Entry, EntryKind};
use crate::tree::extents;

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
        + usize::from(!entry.xattrs.is_empty())
        + usize::from(entry.hidden.is_some())
        + usize::from(!entry.skips.is_empty())
        + usize::from(!entry.lists.is_empty());
    cbor::write_map(out, pairs);
    cbor::write_uint(out, NAME);
    cbor::write_bytes(out, &entry.name);
    write_numbers(entry, out);
    write_content(entry, out)?;
    if let Some(subtree) = entry.subtree {
        cbor::write_uint(out, SUBTREE);
        cbor::write_bytes(out, &subtree.to_bytes());
    }
    write_rest(entry, out);
    if let Some(hidden) = &entry.hidden {
        cbor::write_uint(out, HIDDEN);
        cbor::write_bytes(out, hidden);
    }
    write_layout(entry, out)
}

/// What is passed over, and what each list has.
pub(super) fn write_layout(entry: &Entry, out: &mut Vec<u8>) -> Result<()> {
    if !entry.skips.is_empty() {
        let mut encoded = Vec::with_capacity(entry.skips.len() * 6);
        extents::encode(&entry.skips, content_bytes(entry), &mut encoded)?;
        cbor::write_uint(out, SKIPS);
        cbor::write_bytes(out, &encoded);
    }
    if !entry.lists.is_empty() {
        let mut encoded = Vec::with_capacity(entry.lists.len() * 4);
        extents::encode_lengths(&entry.lists, &mut encoded)?;
        cbor::write_uint(out, LISTS);
        cbor::write_bytes(out, &encoded);
    }
    Ok(())
}

/// From the kind to the size.
pub(super) fn write_numbers(entry: &Entry, out: &mut Vec<u8>) {
    let file = entry.kind == EntryKind::File;
    let linked = entry.nlink > 1 && entry.kind != EntryKind::Dir;
    for (key, value) in [
        (KIND, entry.kind as u64),
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
}

/// Target, device number and extended attributes.
pub(super) fn write_rest(entry: &Entry, out: &mut Vec<u8>) {
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
    write_extents(entry, out)
}

pub(super) fn write_extents(entry: &Entry, out: &mut Vec<u8>) -> Result<()> {
    if let Some(list) = &entry.extents {
        let mut encoded = Vec::with_capacity(list.len() * 6);
        extents::encode(list, entry.size, &mut encoded)?;
        cbor::write_uint(out, EXTENTS);
        cbor::write_bytes(out, &encoded);
    }
    Ok(())
}

/// What `Peek::lawful` and `decode_entry` will ask.
pub(super) fn check_lawful(entry: &Entry) -> Result<()> {
    let refuse = |what: &str| Err(unlawful(entry, what));
    let kind = entry.kind;
    if entry.mode > 0o7777 {
        return refuse("its mode");
    }
    if entry.mtime.nsec >= 1_000_000_000 || entry.ctime.nsec >= 1_000_000_000 {
        return refuse("one of its times");
    }
    let has_layout = !entry.skips.is_empty() || !entry.lists.is_empty();
    let has_data = entry.content != Content::Empty || entry.extents.is_some() || has_layout;
    if kind != EntryKind::File && has_data {
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
    if entry.hidden.is_some() && !hidden::is_hidden_lawfully(entry) {
        return refuse("an attribute that is to be hidden");
    }
    if kind == EntryKind::File && !is_content_lawful(entry) {
        return refuse("content that does not cover its size");
    }
    Ok(())
}
