//! Bytes of the objects that a directory is made of.

use super::{LAST_OF_FIRST, MAX_NODE_LEVEL, NAME, RawEntry, is_legal_name};
use crate::cbor::{self, Parsed, Reader};
use crate::error::{Error, Result};
use crate::ids::Ref;

/// The newest: of leaves with an entry that has what version 1 does not know. All others have 1.
pub const TREE_VERSION: u64 = 2;

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
    if !(1..=TREE_VERSION).contains(&version) {
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
        let mut last_key = 0;
        for _ in 0..count {
            let start = reader.position();
            let (name, key) = skip_entry(reader)?;
            last_key = last_key.max(key);
            in_order(reader, name)?;
            entries.push(RawEntry { name, raw: reader.since(start) });
        }
        if (version > 1) != (last_key > LAST_OF_FIRST) {
            return reader.fail("a leaf of another version than its entries");
        }
        TreeObject::Leaf(entries)
    } else {
        if version > 1 {
            return reader.fail("a node of another version than it needs");
        }
        let mut items = Vec::with_capacity(count.min(reader.left() / Ref::SIZE));
        for _ in 0..count {
            reader.tuple(2)?;
            let name = reader.bytes()?;
            in_order(reader, name)?;
            items.push((name, super::decode::read_ref(reader)?));
        }
        if items.is_empty() {
            return reader.fail("a node without items");
        }
        TreeObject::Node { level, items }
    };
    reader.end()?;
    Ok(object)
}

/// Steps over an entry; its name, and its last key.
#[inline]
fn skip_entry<'a>(reader: &mut Reader<'a>) -> Parsed<(&'a [u8], u64)> {
    let pairs = reader.map()?;
    if pairs == 0 || reader.uint()? != NAME {
        return reader.fail("an entry without a name");
    }
    let name = reader.bytes()?;
    let mut key = NAME;
    for _ in 1..pairs {
        key = reader.uint()?;
        reader.skip()?;
    }
    Ok((name, key))
}

/// The start of a tree object; its items follow.
pub(crate) fn write_object_head(out: &mut Vec<u8>, version: u64, level: u8, items: usize) {
    cbor::write_array(out, 3);
    cbor::write_uint(out, version);
    cbor::write_uint(out, u64::from(level));
    cbor::write_array(out, items);
}

/// One item of a node.
pub(crate) fn write_node_item(out: &mut Vec<u8>, first_name: &[u8], reference: &Ref) {
    cbor::write_array(out, 2);
    cbor::write_bytes(out, first_name);
    cbor::write_bytes(out, &reference.to_bytes());
}
