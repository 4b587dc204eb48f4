//! Every parser of stored bytes, and of what servers answer, for fuzzing and for its short replay in
//! the ordinary tests.
//!
//! A parser is fed with anything at all. It must not panic, and not take memory out of proportion;
//! where one thing has one spelling, what it accepts must be what it would write. Seals and checks
//! that would stop rubbish at the door are made right first, as a holder of the key could.

mod map;
mod mutate;
mod nbd;
mod seeds;

use std::sync::LazyLock;

pub use mutate::Mutations;

use crate::cbor::Reader;
use crate::client_key::ClientKey;
use crate::client_key::chunk::unpack;
use crate::codec::{Codec, Decompressor};
use crate::far::deliver::Wanted;
use crate::far::terms::Terms;
use crate::ids::{Id, PackId};
use crate::index::segment::{HEADER, MAC, PACK_ENTRY, Segment};
use crate::keys::PoolKeys;
use crate::manifest::Manifest;
use crate::pack::MAX_BLOCK_LEN;
use crate::pack::footer::Footer;
use crate::pack::reader::Pack;
use crate::pool::{Header, jobs, marks};
use crate::sealed::{ObjectType, open_object, seal_object};
use crate::store::Store;
use crate::store::memory::MemoryStore;
use crate::tree::codec::{self, RawContent, TreeObject};
use crate::tree::{extents, lists};

static KEYS: LazyLock<PoolKeys> = LazyLock::new(|| PoolKeys::derive(&[5; 32]));
static CLIENT_KEY: LazyLock<ClientKey> = LazyLock::new(|| ClientKey::derive(&[8; 32]));
const POOL: Id = Id([6; 16]);
const OBJECT: Id = Id([7; 16]);

/// One parser.
pub struct Parser {
    pub name: &'static str,
    /// Panics where the parser is wrong.
    pub feed: fn(&[u8]),
    /// Sound examples to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All of them.
pub const ALL: [Parser; 20] = [
    Parser { name: "header", feed: header, seeds: seeds::header },
    Parser { name: "pack", feed: pack, seeds: seeds::pack },
    Parser { name: "footer", feed: footer, seeds: seeds::footer },
    Parser { name: "block", feed: block, seeds: seeds::block },
    Parser { name: "index", feed: index, seeds: seeds::index },
    Parser { name: "sealed", feed: sealed, seeds: seeds::sealed },
    Parser { name: "job", feed: job, seeds: seeds::job },
    Parser { name: "mark", feed: mark, seeds: seeds::mark },
    Parser { name: "manifest", feed: manifest, seeds: seeds::manifest },
    Parser { name: "tree", feed: tree, seeds: seeds::tree },
    Parser { name: "entry", feed: entry, seeds: seeds::entry },
    Parser { name: "list", feed: list, seeds: seeds::list },
    Parser { name: "body", feed: body, seeds: seeds::bodies },
    Parser { name: "terms", feed: terms, seeds: seeds::terms },
    Parser { name: "wanted", feed: wanted, seeds: seeds::wanted },
    Parser { name: "hidden", feed: hidden, seeds: seeds::hidden },
    Parser { name: "client-chunk", feed: client_chunk, seeds: seeds::client_chunk },
    Parser { name: "sealed-name", feed: sealed_name, seeds: seeds::sealed_name },
    Parser { name: "nbd", feed: nbd::feed, seeds: nbd::seeds },
    Parser { name: "map", feed: map::feed, seeds: map::seeds },
];

/// The parser of this name.
pub fn named(name: &str) -> &'static Parser {
    ALL.iter().find(|parser| parser.name == name).unwrap()
}

fn header(bytes: &[u8]) {
    if let Ok(header) = Header::decode("here", bytes) {
        let _ = header.open_naming(KEYS.clone());
    }
    let _ = Header::prove(bytes, &KEYS);
}

/// A whole pack as it lies in a store.
fn pack(bytes: &[u8]) {
    let store = MemoryStore::new();
    let id = PackId(*blake3::hash(bytes).as_bytes());
    store.put(&id.key(), bytes).unwrap();
    let Ok(pack) = Pack::discover(&store, &KEYS, id) else { return };
    let mut decompressor = Decompressor::new().unwrap();
    for number in 0..pack.footer.blocks().len() {
        let _ = pack.read_block(&store, number, &mut decompressor);
    }
}

/// A body of blocks as it comes over a network.
fn body(bytes: &[u8]) {
    let Ok(blocks) = crate::far::body::parse(bytes) else { return };
    let mut again = crate::far::body::Writer::default();
    let mut decompressor = Decompressor::new().unwrap();
    for block in &blocks {
        let _ = block.decode(KEYS.naming(), &mut decompressor);
        again.push(block.kind, block.codec, &block.chunks, block.body);
    }
    assert_eq!(again.take(), bytes);
}

fn terms(bytes: &[u8]) {
    if let Ok(terms) = Terms::decode(bytes) {
        assert_eq!(terms.encode(), bytes);
    }
}

/// Attributes that a client key has opened.
fn hidden(bytes: &[u8]) {
    let Ok(entry) = codec::decode_hidden(bytes, b"name", RawContent::Empty, None) else { return };
    let mut again = Vec::new();
    codec::encode_hidden(&entry, &mut again).unwrap();
    let (same, filling) = bytes.split_at(again.len());
    assert_eq!(same, again);
    assert!(filling.iter().all(|byte| *byte == 0));
}

/// A chunk that a client key has opened.
fn client_chunk(bytes: &[u8]) {
    let mut decompressor = Decompressor::new().unwrap();
    for length in [0, 15, 5000] {
        if let Some(data) = unpack(bytes, length, &mut decompressor) {
            assert_eq!(data.len(), length);
        }
    }
}

fn sealed_name(bytes: &[u8]) {
    let dir = CLIENT_KEY.root_dir();
    if let Some(name) = CLIENT_KEY.open_name(&dir, bytes) {
        assert_eq!(CLIENT_KEY.seal_name(&dir, &name).unwrap(), bytes);
    }
    let _ = CLIENT_KEY.open_path(bytes);
}

fn wanted(bytes: &[u8]) {
    let Ok(wanted) = Wanted::decode(bytes) else { return };
    let again: Vec<u8> = wanted
        .iter()
        .flat_map(|(kind, reference)| Wanted::encode(*kind, std::slice::from_ref(reference)))
        .collect();
    assert_eq!(again, bytes);
}

/// The plain bytes of a footer.
fn footer(bytes: &[u8]) {
    let Ok(footer) = Footer::decode(bytes) else { return };
    assert_eq!(footer.encode(), bytes);
    let held: usize = (0..footer.blocks().len()).map(|block| footer.chunks_of(block).count()).sum();
    assert_eq!(held, footer.chunks().len());
    assert!(footer.chunk_at(footer.blocks().len(), 0).is_none());
}

/// Four bytes of promised length, one of codec, and a block's body.
fn block(bytes: &[u8]) {
    let Some((head, body)) = bytes.split_at_checked(5) else { return };
    let promised = u32::from_le_bytes(head[..4].try_into().unwrap()) as usize % (MAX_BLOCK_LEN + 1);
    let Some(codec) = Codec::from_u8(head[4]) else { return };
    if let Some(plain) = Decompressor::new().unwrap().decode(codec, body, promised) {
        assert_eq!(plain.len(), promised);
    }
}

/// An index segment, whose seals are made right.
fn index(bytes: &[u8]) {
    let _ = Segment::from_owned(&KEYS, &POOL, OBJECT, bytes.to_vec());
    let mut bytes = bytes.to_vec();
    if let Some(id) = bytes.get_mut(40..56) {
        id.copy_from_slice(&OBJECT.0);
    }
    let packs = bytes.get(32..36).map(|raw| u32::from_le_bytes(raw.try_into().unwrap()));
    let head = HEADER + packs.unwrap_or_default() as usize * PACK_ENTRY;
    let mac = |part: &[u8]| *KEYS.index_mac().update(part).finalize().as_bytes();
    if bytes.len() >= head + 2 * MAC {
        let right = mac(&bytes[..head]);
        bytes[head..head + MAC].copy_from_slice(&right);
        let end = bytes.len() - MAC;
        let right = mac(&bytes[..end]);
        bytes[end..].copy_from_slice(&right);
    }
    let Ok(segment) = Segment::from_owned(&KEYS, &POOL, OBJECT, bytes) else { return };
    let sound = segment.verify(&KEYS).is_ok();
    assert_eq!(segment.packs().count(), segment.pack_count() as usize);
    for position in 0..segment.len().min(100) {
        let record = segment.record(position).unwrap();
        let found = segment.find(&record.prefix);
        assert!(!sound || found.is_none_or(|found| found == position));
        let _ = segment.pack(record.pack);
    }
    let _ = segment.find(&[0x55; 16]);
    assert!(segment.record(segment.len()).is_none());
}

/// A sealed object as it lies in a store.
fn sealed(bytes: &[u8]) {
    for object_type in [ObjectType::Image, ObjectType::Job, ObjectType::Mark] {
        let _ = open_object(&KEYS, object_type, &Manifest::key(&OBJECT), bytes);
    }
}

/// The plain bytes of a job's record.
fn job(bytes: &[u8]) {
    let (store, key) = (MemoryStore::new(), jobs::key(&OBJECT));
    store.put(&key, &seal_object(&KEYS, ObjectType::Job, &key, bytes).unwrap()).unwrap();
    let _ = jobs::list(&store, &KEYS);
}

/// The plain bytes of a garbage mark.
fn mark(bytes: &[u8]) {
    let (store, key) = (MemoryStore::new(), marks::key(1));
    store.put(&key, &seal_object(&KEYS, ObjectType::Mark, &key, bytes).unwrap()).unwrap();
    let _ = marks::list(&store, &KEYS);
}

/// The plain bytes of a manifest.
fn manifest(bytes: &[u8]) {
    if let Ok(manifest) = Manifest::decode(bytes) {
        assert_eq!(manifest.encode().unwrap(), bytes);
    }
}

fn tree(bytes: &[u8]) {
    match codec::decode_object(bytes) {
        Ok(TreeObject::Leaf(entries)) => {
            assert!(entries.is_sorted_by(|before, after| before.name < after.name));
            for raw in entries {
                assert!(codec::is_legal_name(raw.name));
                entry(raw.raw);
            }
        }
        Ok(TreeObject::Node { items, .. }) => {
            assert!(!items.is_empty());
            assert!(items.is_sorted_by(|before, after| before.0 < after.0));
        }
        Err(_) => {}
    }
}

fn entry(bytes: &[u8]) {
    let seen = codec::peek(bytes);
    if let Ok(entry) = codec::decode_entry(bytes) {
        assert_eq!(seen.unwrap().name, entry.name);
        let mut written = Vec::new();
        codec::encode_entry(&entry, &mut written).unwrap();
        assert_eq!(written, bytes);
    }
    let _ = codec::decode_root(bytes);
    let mut reader = Reader::new(bytes);
    while reader.skip().is_ok() {}
}

/// A list chunk, or the extents of a sparse file.
fn list(bytes: &[u8]) {
    if let Some(refs) = lists::decode_list(bytes) {
        let written: Vec<u8> = refs.iter().flat_map(|reference| reference.to_bytes()).collect();
        assert_eq!(written, bytes);
    }
    if let Ok(found) = extents::decode(bytes, u64::MAX) {
        assert!(found.is_sorted_by(|before, after| before.offset + before.length < after.offset));
    }
}
