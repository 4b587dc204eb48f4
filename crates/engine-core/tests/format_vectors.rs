//! The engine against the format pages: it reads every vector of `docs/formats`, writes the same
//! bytes where it can be told the random parts, and agrees with every constant. The vectors are
//! made by a writer in another language that shares no code with this one.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use holdfast_engine_core::chunker::{ChunkSizes, Chunker};
use holdfast_engine_core::client_key::chunk::{ChunkOpener, ChunkSealer};
use holdfast_engine_core::client_key::{ClientKey, Names};
use holdfast_engine_core::codec::{Codec, Decompressor};
use holdfast_engine_core::disk;
use holdfast_engine_core::ids::{Id, Kind, Name, PackId, Ref, hex};
use holdfast_engine_core::index::{PackEntry, Record, Segment, filter, segment, write_segment_as};
use holdfast_engine_core::keys::{PoolKeys, SealKey};
use holdfast_engine_core::manifest::{self, Manifest, Status};
use holdfast_engine_core::pack::footer::{ChunkInfo, Footer, PackKind};
use holdfast_engine_core::pack::reader::Pack;
use holdfast_engine_core::pack::writer::{Block, PackWriter};
use holdfast_engine_core::pack::{self};
use holdfast_engine_core::pool::header::{self, Header, PoolConfig};
use holdfast_engine_core::pool::{jobs, marks};
use holdfast_engine_core::sealed::{ObjectType, open_object};
use holdfast_engine_core::store::memory::MemoryStore;
use holdfast_engine_core::store::{Store, key as store_key};
use holdfast_engine_core::tree::codec::{self, TreeObject, decode_entry, decode_object};
use holdfast_engine_core::tree::entry::{Content, Entry, EntryKind, Extent};
use holdfast_engine_core::tree::{build, extents, lists};

/// A page, taken apart.
struct Page {
    vectors: HashMap<String, Vec<u8>>,
    constants: HashMap<String, String>,
}

impl Page {
    fn read(name: &str) -> Self {
        let pages = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/formats");
        let text = fs::read_to_string(pages.join(format!("{name}.md"))).unwrap();
        let mut page = Page { vectors: HashMap::new(), constants: HashMap::new() };
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            let Some(fence) = line.strip_prefix("```") else { continue };
            let body: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
            let words: Vec<&str> = fence.split_whitespace().collect();
            match words.as_slice() {
                ["constants"] => page.constants.extend(body.iter().map(|line| {
                    let (name, value) = line.split_once(" = ").unwrap();
                    (name.to_owned(), value.to_owned())
                })),
                ["vector", name, kind @ ..] => {
                    let bytes = match kind {
                        [] => unhex(&body.concat()),
                        _ => body.join("\n").into_bytes(),
                    };
                    let name = name.strip_prefix("name=").unwrap().to_owned();
                    assert!(page.vectors.insert(name, bytes).is_none());
                }
                _ => {}
            }
        }
        page
    }

    fn vector(&self, name: &str) -> &[u8] {
        &self.vectors[name]
    }

    fn array<const N: usize>(&self, name: &str) -> [u8; N] {
        self.vector(name).try_into().unwrap()
    }

    fn number(&self, name: &str) -> u64 {
        let text = &self.constants[name];
        match text.strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(digits, 16).unwrap(),
            None => text.parse().unwrap(),
        }
    }

    /// A text between quotes, as bytes.
    fn text(&self, name: &str) -> Vec<u8> {
        self.constants[name].trim_matches('"').replace("\\0", "\0").into_bytes()
    }

    #[track_caller]
    fn agree(&self, pairs: &[(&str, u64)]) {
        for (name, ours) in pairs {
            assert_eq!(self.number(name), *ours, "{name}");
        }
    }
}

fn unhex(text: &str) -> Vec<u8> {
    assert!(text.len().is_multiple_of(2));
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

fn keys() -> PoolKeys {
    PoolKeys::derive(&Page::read("pool-header").array("pool-key"))
}

fn pool_id() -> Id {
    Header::decode("the page", Page::read("pool-header").vector("header")).unwrap().id
}

fn numbers(bytes: &[u8]) -> Vec<usize> {
    bytes.chunks_exact(4).map(|raw| u32::from_le_bytes(raw.try_into().unwrap()) as usize).collect()
}

/// A store that holds one object.
fn store_of(key: &str, bytes: &[u8]) -> MemoryStore {
    let store = MemoryStore::new();
    store.put(key, bytes).unwrap();
    store
}

#[test]
fn the_header_of_the_page_is_read_proven_and_written_the_same() {
    let page = Page::read("pool-header");
    let bytes = page.vector("header");
    let header = Header::decode("the page", bytes).unwrap();
    assert_eq!(hex(&header.id.0), "a0a1a2a3a4a5a6a7a8a9aaabacadaeaf");
    assert_eq!(header.created_ns, 1_700_000_000_123_456_789);
    assert_eq!(header.config, PoolConfig::default());
    Header::prove(bytes, &keys()).unwrap();
    assert_eq!(header.encode(&keys()), bytes);
    assert_eq!(page.text("magic"), header::MAGIC);
    let config = header.config;
    page.agree(&[
        ("version", u64::from(header::VERSION)),
        ("version_alone", u64::from(header::VERSION_ALONE)),
        ("naming_bytes", header::NAMING_LEN as u64),
        ("default_chunk_min", u64::from(config.chunks.min)),
        ("default_chunk_avg", u64::from(config.chunks.avg)),
        ("default_chunk_max", u64::from(config.chunks.max)),
        ("default_block_bytes", u64::from(config.block_bytes)),
        ("default_pack_bytes", config.pack_bytes),
    ]);
}

#[test]
fn the_sharing_header_of_the_page_names_chunks_as_the_other_pool_does() {
    let page = Page::read("pool-header");
    let bytes = page.vector("header-sharing");
    let header = Header::decode("the page", bytes).unwrap();
    Header::prove(bytes, &keys()).unwrap();
    assert_eq!(header.encode(&keys()), bytes);
    let opened = header.open_naming(keys()).unwrap();
    let other = PoolKeys::derive(&page.array("other-pool-key"));
    assert_eq!(opened.naming().to_bytes(), page.array::<128>("other-naming"));
    assert!(opened.naming() == other.naming());
    for kind in [Kind::Data, Kind::Tree, Kind::List] {
        assert_eq!(opened.name(kind, b"abc"), other.name(kind, b"abc"));
    }
}

#[test]
fn keys_and_names_are_those_of_the_page() {
    let page = Page::read("pool-header");
    let keys = keys();
    for (kind, label) in [(Kind::Data, "data"), (Kind::Tree, "tree"), (Kind::List, "list")] {
        let expected: [u8; 32] = page.array(&format!("name-abc-{label}"));
        assert_eq!(keys.name(kind, b"abc"), Name(expected), "{label}");
        let sub_key: [u8; 32] = page.array(&format!("sub-key-name-{label}-chunk"));
        assert_eq!(*blake3::keyed_hash(&sub_key, b"abc").as_bytes(), expected);
    }
    for purpose in ["header", "index"] {
        let sub_key: [u8; 32] = page.array(&format!("sub-key-{purpose}"));
        let expected = blake3::keyed_hash(&sub_key, b"some bytes");
        let ours = match purpose {
            "header" => keys.header_mac(b"some bytes"),
            _ => keys.index_mac().update(b"some bytes").finalize(),
        };
        assert_eq!(ours, expected, "{purpose}");
    }
}

#[test]
fn data_is_cut_where_the_page_says() {
    let page = Page::read("chunking");
    let keys = keys();
    let table: Vec<u8> = keys.naming().gear().iter().flat_map(|word| word.to_le_bytes()).collect();
    assert_eq!(&table[..32], page.vector("gear-front"));
    assert_eq!(blake3::hash(&table).as_bytes(), page.vector("gear-hash"));
    let small = ChunkSizes { min: 64, avg: 256, max: 1024 };
    for (label, length, sizes) in
        [("lengths-small", 4096, small), ("lengths-default", 400_001, PoolConfig::default().chunks)]
    {
        let mut data = vec![0; length];
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"chunking vector").finalize_xof().fill(&mut data);
        let chunker = Chunker::new(keys.naming(), sizes);
        let mut rest = data.as_slice();
        let mut found = Vec::new();
        while !rest.is_empty() {
            let cut = chunker.cut(&rest[..rest.len().min(chunker.max())]);
            found.push(cut);
            rest = &rest[cut..];
        }
        assert_eq!(found, numbers(page.vector(label)), "{label}");
    }
}

#[test]
fn the_pack_of_the_page_gives_its_chunks() {
    let page = Page::read("pack");
    let raw = page.vector("pack");
    let id = PackId(page.array("pack-id"));
    assert_eq!(PackId(*blake3::hash(raw).as_bytes()), id);
    let store = store_of(&id.key(), raw);
    let opened = Pack::discover(&store, &keys(), id).unwrap();
    assert_eq!(opened.footer, Footer::decode(page.vector("footer-plain")).unwrap());
    assert_eq!(opened.footer.encode(), page.vector("footer-plain"));
    let mut decompressor = Decompressor::new().unwrap();
    let mut block = |number| opened.read_block(&store, number, &mut decompressor).unwrap();
    let first = [&b"hello holdfast\n"[..], &(0..64).collect::<Vec<u8>>()];
    assert_eq!(block(0), first.concat());
    assert_eq!(block(1), b"again and ".repeat(100));
    let chunks: Vec<_> = opened.footer.chunks_of(0).collect();
    assert_eq!((chunks[0].0, chunks[1].0), (0, 15));
    assert_eq!(chunks[1].1.name, keys().name(Kind::Data, first[1]));
    assert_eq!(opened.footer.kind, PackKind::Data);
}

#[test]
fn the_engine_writes_the_pack_of_the_page() {
    let page = Page::read("pack");
    let keys = keys();
    let chunk = |plain: &[u8]| ChunkInfo {
        name: keys.name(Kind::Data, plain),
        length: plain.len() as u32,
        kind: Kind::Data,
    };
    let (hello, bytes) = (b"hello holdfast\n".to_vec(), (0..64).collect::<Vec<u8>>());
    let again = b"again and ".repeat(100);
    let store = MemoryStore::new();
    let upload = store.upload().unwrap();
    let mut writer =
        PackWriter::with_salt(&keys, PackKind::Data, upload, page.array("salt")).unwrap();
    for mut block in [
        Block {
            body: [hello.clone(), bytes.clone()].concat(),
            codec: Codec::Stored,
            plain_len: 79,
            chunks: vec![chunk(&hello), chunk(&bytes)],
        },
        Block {
            body: page.vector("zstd-frame").to_vec(),
            codec: Codec::Zstd,
            plain_len: again.len() as u32,
            chunks: vec![chunk(&again)],
        },
    ] {
        writer.seal(&mut block).unwrap();
        writer.append(block).unwrap();
    }
    let published = writer.finish().unwrap().publish().unwrap();
    assert_eq!(published.id, PackId(page.array("pack-id")));
    assert_eq!(store.get(&published.id.key()).unwrap(), page.vector("pack"));
}

#[test]
fn constants_of_packs_are_those_of_the_page() {
    let page = Page::read("pack");
    assert_eq!(page.text("magic"), pack::MAGIC[..7]);
    assert_eq!(page.text("end_magic"), pack::END_MAGIC[..7]);
    page.agree(&[
        ("version", u64::from(pack::MAGIC[7])),
        ("version", u64::from(pack::END_MAGIC[7])),
        ("header_bytes", pack::HEADER_LEN as u64),
        ("trailer_bytes", pack::TRAILER_LEN as u64),
        ("footer_place", u64::from(pack::FOOTER_PLACE)),
        ("max_blocks", pack::MAX_BLOCKS as u64),
        ("max_chunks_in_block", pack::MAX_CHUNKS_IN_BLOCK as u64),
        ("max_block_bytes", pack::MAX_BLOCK_LEN as u64),
        ("max_footer_bytes", pack::MAX_FOOTER_LEN as u64),
    ]);
}

#[test]
fn the_segment_of_the_page_finds_its_names_and_is_written_the_same() {
    let (page, packs) = (Page::read("index"), Page::read("pack"));
    let (keys, bytes) = (keys(), page.vector("segment"));
    let opened = Segment::from_owned(&keys, &pool_id(), Id([0x4d; 16]), bytes.to_vec()).unwrap();
    opened.verify(&keys).unwrap();
    assert_eq!((opened.len(), opened.pack_count()), (3, 1));
    let entry = opened.pack(0).unwrap();
    assert_eq!(entry.id, PackId(packs.array("pack-id")));
    assert_eq!(entry.size, packs.vector("pack").len() as u64);
    let names: Vec<&[u8]> = page.vector("names").chunks_exact(32).collect();
    let places: Vec<_> = names
        .iter()
        .map(|name| {
            let place = opened.find(name[..16].try_into().unwrap()).unwrap();
            let place = opened.record(place).unwrap().place;
            (place.block, place.offset, place.length)
        })
        .collect();
    assert_eq!(places, [(0, 0, 15), (0, 15, 64), (1, 0, 1000)]);
    assert_eq!(opened.find(&[0x5a; 16]), None);

    let records: Vec<Record> =
        (0..opened.len()).rev().map(|position| opened.record(position).unwrap()).collect();
    let store = MemoryStore::new();
    let id = opened.id();
    write_segment_as(&store, &keys, &pool_id(), id, &[entry], records).unwrap();
    assert_eq!(store.get(&segment::key(&id)).unwrap(), bytes);
}

#[test]
fn constants_of_segments_are_those_of_the_page() {
    let page = Page::read("index");
    assert_eq!(page.text("magic"), segment::MAGIC);
    page.agree(&[
        ("version", u64::from(segment::VERSION)),
        ("header_bytes", segment::HEADER as u64),
        ("pack_row_bytes", segment::PACK_ENTRY as u64),
        ("record_bytes", segment::RECORD as u64),
        ("mac_bytes", segment::MAC as u64),
        ("filter_block_bytes", filter::BLOCK as u64),
        ("filter_bits_per_record", filter::BITS_PER_RECORD),
    ]);
    let row = PackEntry { id: PackId([1; 32]), size: 2, footer_len: 3, kind: 1 };
    assert_eq!(row.to_bytes().len() as u64, page.number("pack_row_bytes"));
}

#[test]
fn the_leaf_of_the_page_is_read_and_written_the_same() {
    let page = Page::read("tree");
    let bytes = page.vector("leaf");
    let TreeObject::Leaf(raw) = decode_object(bytes).unwrap() else { panic!("not a leaf") };
    let entries: Vec<_> = raw.iter().map(|entry| decode_entry(entry.raw).unwrap()).collect();
    let kinds: Vec<_> = entries.iter().map(|entry| (entry.name.as_slice(), entry.kind)).collect();
    assert_eq!(
        kinds,
        [
            (&b"attributes"[..], EntryKind::File),
            (b"directory", EntryKind::Dir),
            (b"hole", EntryKind::File),
            (b"linked", EntryKind::File),
            (b"null", EntryKind::Char),
            (b"sparse", EntryKind::File),
            (b"symlink", EntryKind::Symlink),
        ]
    );
    let [attributes, _, hole, linked, null, sparse, symlink] = entries.as_slice() else {
        panic!("seven entries")
    };
    assert_eq!(attributes.mode, 0o4755);
    assert_eq!(attributes.user.as_deref(), Some("nobody-alice"));
    assert_eq!((attributes.mtime.sec, attributes.mtime.nsec), (1_600_000_000, 987_654_321));
    assert_eq!(attributes.xattrs[1], (b"user.b".to_vec(), b"2".to_vec()));
    let Content::Direct(refs) = &attributes.content else { panic!("direct content") };
    assert_eq!(refs[0].name, keys().name(Kind::Data, b"hello holdfast\n"));
    assert_eq!((hole.size, &hole.content), (1 << 40, &Content::Empty));
    assert_eq!(hole.extents.as_deref(), Some(&[][..]));
    assert_eq!(linked.nlink, 2);
    assert!(matches!(linked.content, Content::Listed { depth: 1, .. }));
    assert_eq!(null.rdev, Some((1, 3)));
    assert_eq!(symlink.target.as_deref(), Some(&b"../\xff"[..]));
    let expected = [(4096, 500), (70_132, 500)].map(|(offset, length)| Extent { offset, length });
    assert_eq!(sparse.extents.as_deref(), Some(&expected[..]));
    assert_eq!(extents::decode(page.vector("extents"), 300_000).unwrap(), expected);

    for (entry, raw) in entries.iter().zip(&raw) {
        let mut again = Vec::new();
        codec::encode_entry(entry, &mut again).unwrap();
        assert_eq!(again, raw.raw);
    }
    let name = keys().name(Kind::Tree, bytes);
    let reference = Ref { name, length: bytes.len() as u32 };
    assert_eq!(reference.to_bytes(), page.vector("leaf-ref"));
}

#[test]
fn a_leaf_of_which_chunks_are_passed_over_in_part_has_the_second_version() {
    let page = Page::read("tree");
    let bytes = page.vector("sliced");
    let TreeObject::Leaf(raw) = decode_object(bytes).unwrap() else { panic!("not a leaf") };
    let entry = decode_entry(raw[0].raw).unwrap();
    let extent = |offset, length| Extent { offset, length };
    assert_eq!((entry.size, entry.extents.as_ref()), (930, None));
    assert_eq!(entry.skips, [extent(0, 10), extent(40, 124)]);
    assert_eq!(entry.lists, [1064]);
    assert_eq!(codec::content_bytes(&entry), 1064);
    let mut again = Vec::new();
    codec::encode_entry(&entry, &mut again).unwrap();
    assert_eq!(again, raw[0].raw);
    assert_eq!(codec::version_for(&entry), page.number("version"));
    // Whoever knows version 1 only refuses it for its version, and not for an unknown key.
    let mut older = bytes.to_vec();
    older[1] = 1;
    assert!(decode_object(&older).is_err());
    let mut newer = page.vector("leaf").to_vec();
    newer[1] = 2;
    assert!(decode_object(&newer).is_err());
    newer[1] = 3;
    assert_eq!(decode_object(&newer).unwrap_err().code(), "newer-format");
    for (skips, lists) in [
        (vec![extent(0, 134)], vec![1064]),
        (vec![extent(40, 135)], vec![]),
        (vec![extent(1000, 134)], vec![]),
        (vec![extent(50, 100), extent(0, 34)], vec![]),
        (vec![extent(0, 34), extent(34, 100)], vec![]),
        (vec![extent(0, 134)], vec![1063]),
        (vec![extent(0, 134)], vec![1064, 0]),
    ] {
        let wrong = Entry { skips: skips.clone(), lists: lists.clone(), ..entry.clone() };
        let written = codec::encode_entry(&wrong, &mut Vec::new());
        let lawful = (skips, lists) == (vec![extent(0, 134)], vec![1064]);
        // Whether lists yield so much is seen where they are read.
        let depends = wrong.lists.is_empty() && wrong.skips.len() == 1;
        assert!(written.is_ok() == lawful || depends, "{wrong:?}");
    }
}

#[test]
fn the_node_of_the_page_names_its_leaves() {
    let page = Page::read("tree");
    let TreeObject::Node { level, items } = decode_object(page.vector("node")).unwrap() else {
        panic!("not a node")
    };
    assert_eq!((level, items.len()), (1, 2));
    assert_eq!((items[0].0, items[1].0), (&b"attributes"[..], &b"zzz"[..]));
    assert_eq!(items[0].1.to_bytes(), page.vector("leaf-ref"));
}

#[test]
fn constants_of_trees_are_those_of_the_page() {
    Page::read("tree").agree(&[
        ("max_name_bytes", codec::MAX_NAME_BYTES as u64),
        ("max_entry_bytes", codec::MAX_ENTRY_BYTES as u64),
        ("max_direct_refs", codec::MAX_DIRECT_REFS as u64),
        ("max_list_depth", u64::from(codec::MAX_LIST_DEPTH)),
        ("max_node_level", u64::from(codec::MAX_NODE_LEVEL)),
        ("max_list_refs", lists::MAX_REFS as u64),
        ("list_cut_from_refs", lists::CUT_FROM_REFS as u64),
        ("list_cut_one_in", u64::from(lists::CUT_ONE_IN)),
        ("max_extents", extents::MAX_EXTENTS as u64),
        ("leaf_cut_from_bytes", build::CUT_FROM_BYTES as u64),
        ("leaf_cut_always_bytes", build::CUT_ALWAYS_BYTES as u64),
        ("leaf_cut_one_in", u64::from(build::CUT_ONE_IN)),
        ("ref_bytes", Ref::SIZE as u64),
        ("cell_bytes", disk::CELL_BYTES),
        ("grain_bytes", disk::GRAIN_BYTES),
    ]);
}

/// Seals as the engine does, with the salt of a vector.
fn sealed(letter: u8, salt: [u8; 32], key: &str, plain: &[u8]) -> Vec<u8> {
    let mut bytes = [&b"HFOBJ\0"[..], &[letter, 1], &salt].concat();
    let context = [bytes.as_slice(), key.as_bytes()].concat();
    bytes.extend_from_slice(plain);
    let seal: SealKey = keys().object(&salt).unwrap();
    seal.seal(0, &context, &mut bytes, 40).unwrap();
    bytes
}

#[test]
fn the_manifest_of_the_page_is_opened_read_and_written_the_same() {
    let page = Page::read("manifest");
    let key = "images/e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1";
    let (stored, plain) = (page.vector("manifest"), page.vector("manifest-plain"));
    assert_eq!(open_object(&keys(), ObjectType::Image, key, stored).unwrap(), plain);
    assert_eq!(sealed(b'I', page.array("salt"), key, plain), stored);
    let read = Manifest::decode(plain).unwrap();
    assert_eq!(Manifest::key(&read.id), key);
    assert_eq!((read.number, read.status), (1, Status::CompletedWithErrors));
    assert_eq!(read.source.name, "golden:/srv");
    assert_eq!(read.finished_ns - read.started_ns, 1_500_000_000);
    assert_eq!(read.findings[0].code, "no-permission");
    assert_eq!(read.stats["files"], 9);
    assert_eq!(read.root.name, b"/");
    assert_eq!(read.encode().unwrap(), plain);
    page.agree(&[
        ("manifest_version", manifest::VERSION),
        ("max_findings", holdfast_engine_core::finding::Findings::KEPT as u64),
    ]);
    for (name, object_type) in [
        ("type_image", ObjectType::Image),
        ("type_job", ObjectType::Job),
        ("type_mark", ObjectType::Mark),
    ] {
        assert_eq!(page.text(name), [object_type as u8]);
    }
}

#[test]
fn the_job_and_the_mark_of_the_page_are_read() {
    let page = Page::read("jobs-and-marks");
    let key = "jobs/c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3";
    assert_eq!(sealed(b'J', [0x66; 32], key, page.vector("job-plain")), page.vector("job"));
    let seen = jobs::list(&store_of(key, page.vector("job")), &keys()).unwrap();
    assert_eq!((seen.len(), seen[0].id, seen[0].kind), (1, Id([0xc3; 16]), jobs::JobKind::Backup));
    assert_eq!(seen[0].process.host, "client01");
    assert_eq!((seen[0].process.number, seen[0].process.started), (4711, 123_456));
    assert_eq!(seen[0].seen_ns - seen[0].began_ns, 5);
    page.agree(&[("default_lease_s", jobs::DEFAULT_LEASE_S)]);

    let key = marks::key(7);
    assert_eq!(key, "marks/00000000000000000000000000000007");
    assert_eq!(sealed(b'M', [0x77; 32], &key, page.vector("mark-plain")), page.vector("mark"));
    let found = marks::list(&store_of(&key, page.vector("mark")), &keys()).unwrap();
    assert_eq!((found.len(), found[0].number, found[0].collector), (1, 7, Id([0xd4; 16])));
    assert_eq!(found[0].packs, [PackId([1; 32]), PackId([2; 32])]);
    assert_eq!(found[0].blocking.as_deref(), Some(&[Id([0xc3; 16])][..]));
}

#[test]
fn keys_of_objects_are_limited_as_the_page_says() {
    let page = Page::read("store-layout");
    page.agree(&[
        ("max_key_bytes", store_key::MAX_KEY_BYTES as u64),
        ("max_part_bytes", store_key::MAX_PART_BYTES as u64),
    ]);
    assert_eq!(page.text("reserved_part"), store_key::RESERVED.as_bytes());
    let golden = String::from_utf8(page.vector("golden-pool").to_vec()).unwrap();
    for line in golden.lines() {
        let (key, _) = line.split_once(' ').unwrap();
        assert!(store_key::is_valid(key), "{key}");
    }
}

#[test]
fn one_flipped_bit_in_any_vector_is_refused() {
    let (packs, index, objects) = (Page::read("pack"), Page::read("index"), Page::read("manifest"));
    let keys = keys();
    let id = PackId(packs.array("pack-id"));
    let key = "images/e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1";
    let refused = |bytes: &[u8], read: &dyn Fn(&[u8]) -> bool| {
        for at in 0..bytes.len() {
            let mut bad = bytes.to_vec();
            bad[at] ^= 1 << (at % 8);
            assert!(!read(&bad), "byte {at}");
        }
        assert!(read(bytes));
    };
    refused(packs.vector("pack"), &|bytes| {
        let store = Arc::new(store_of(&id.key(), bytes));
        let mut decompressor = Decompressor::new().unwrap();
        Pack::discover(store.as_ref(), &keys, id).is_ok_and(|opened| {
            (0..2).all(|block| opened.read_block(store.as_ref(), block, &mut decompressor).is_ok())
        })
    });
    refused(index.vector("segment"), &|bytes| {
        Segment::from_owned(&keys, &pool_id(), Id([0x4d; 16]), bytes.to_vec()).is_ok()
    });
    refused(objects.vector("manifest"), &|bytes| {
        open_object(&keys, ObjectType::Image, key, bytes).is_ok()
    });
}

#[test]
fn what_a_client_sealed_is_opened_and_sealed_the_same() {
    let page = Page::read("client-keys");
    let key = ClientKey::derive(&page.array("client-key"));
    assert_eq!(key.id().0, page.vector("sub-key-id")[..16]);
    assert_eq!(key.gear(), page.array("sub-key-chunker-gear"));
    page.agree(&[("seal_bytes", u64::from(holdfast_engine_core::ids::CLIENT_SEAL_BYTES))]);

    let opener = ChunkOpener::default();
    let frame_plain = b"again and ".repeat(100);
    for (name, plain) in [("stored", &b"hello holdfast\n"[..]), ("zstd", &frame_plain)] {
        let stored = page.vector(&format!("chunk-{name}"));
        let length = u32::from_le_bytes(page.array(&format!("chunk-{name}-length")));
        let reference = Ref { name: keys().name(Kind::Data, stored), length };
        assert_eq!(reference.stored_length() as usize, stored.len());
        assert_eq!(opener.open(&key, &reference, stored).unwrap(), plain);
    }
    let mut sealer = ChunkSealer::new(2).unwrap();
    let length = sealer.seal(&key, b"hello holdfast\n").unwrap();
    assert_eq!(length.to_le_bytes(), page.array::<4>("chunk-stored-length"));
    assert_eq!(sealer.sealed(), page.vector("chunk-stored"));

    let srv = key.root_dir().child(b"srv");
    assert_eq!(key.seal_name(&srv, b"quarterly figures").unwrap(), page.vector("name"));
    let TreeObject::Leaf(entries) = decode_object(page.vector("leaf")).unwrap() else { panic!() };
    let mut names = Vec::new();
    for raw in &entries {
        let opened = key.open_entry(&srv, raw).unwrap();
        let entry = decode_entry(opened.as_raw().raw).unwrap();
        let mut again = Vec::new();
        codec::encode_entry(&key.seal_entry(&srv, entry.clone()).unwrap(), &mut again).unwrap();
        assert_eq!(again, raw.raw);
        assert_eq!((entry.uid, entry.user.as_deref()), (1000, Some("nobody-alice")));
        names.push((entry.name, entry.kind, entry.mode));
    }
    names.sort_unstable();
    let expected = [
        (b"quarterly figures".to_vec(), EntryKind::File, 0o640),
        (b"way there".to_vec(), EntryKind::Symlink, 0o777),
    ];
    assert_eq!(names, expected);

    let plain = Page::read("manifest");
    let mut image = Manifest::decode(plain.vector("manifest-plain")).unwrap();
    image.root = codec::decode_root(page.vector("root")).unwrap();
    key.sign(&mut image, keys().naming(), Names::Sealed).unwrap();
    assert_eq!(image.options["client_key.proof"], hex(page.vector("proof")));
    assert_eq!(image.options["client_key"], hex(&key.id().0));
    assert_eq!(image.options["client_key.names"], "sealed");
    assert_eq!(key.prove(&image, keys().naming()).unwrap(), Names::Sealed);
}
