//! Sound examples of everything stored.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{CLIENT_KEY, KEYS, OBJECT, POOL};
use crate::chunker::ChunkSizes;
use crate::codec::{Codec, Compressor};
use crate::far::body;
use crate::far::deliver::Wanted;
use crate::far::terms::Terms;
use crate::finding::{Finding, Severity};
use crate::ids::{Id, Kind, Name, PackId, Ref};
use crate::index::segment::{self, PackEntry, Place, Record};
use crate::index::write::write_segment_as;
use crate::manifest::{Manifest, Source, Status};
use crate::pack::footer::{ChunkInfo, PackKind};
use crate::pack::reader::Pack;
use crate::pack::writer::{Block, PackWriter};
use crate::pool::header::NAMING_LEN;
use crate::pool::{Header, PoolConfig, jobs, marks};
use crate::sealed::{ObjectType, open_object, seal_object};
use crate::store::memory::MemoryStore;
use crate::store::{Store, list_sorted};
use crate::tree::ChunkSource;
use crate::tree::build::DirectoryBuilder;
use crate::tree::codec::{self, RawEntry};
use crate::tree::entry::{Content, Entry, EntryKind, Extent, Time};
use crate::tree::memory::MemoryChunks;

pub(super) fn header() -> Vec<Vec<u8>> {
    let chunks = ChunkSizes { min: 256, avg: 1024, max: 4096 };
    let small = PoolConfig { chunks, block_bytes: 4096, pack_bytes: 8192 };
    let header = |config| {
        let created_ns = 1_700_000_000_000_000_000;
        Header { id: POOL, config, created_ns, naming: None }
    };
    let sharing = Header { naming: Some([7; NAMING_LEN]), ..header(small) };
    [header(small), header(PoolConfig::default()), sharing]
        .map(|header| header.encode(&KEYS))
        .to_vec()
}

fn stored_packs() -> Vec<(PackId, MemoryStore)> {
    [PackKind::Data, PackKind::Metadata].map(stored_pack).into_iter().collect()
}

fn stored_pack(kind: PackKind) -> (PackId, MemoryStore) {
    let store = MemoryStore::new();
    let mut compressor = Compressor::new(3).unwrap();
    let mut writer = PackWriter::with_salt(&KEYS, kind, store.upload().unwrap(), [3; 32]).unwrap();
    for (number, plain) in [&b"again and again ".repeat(50)[..], b"short"].iter().enumerate() {
        let half = plain.len() / 2;
        let chunks = [half, plain.len() - half].map(|length| ChunkInfo {
            name: Name([number as u8; 32]),
            length: length as u32,
            kind: if kind == PackKind::Data { Kind::Data } else { Kind::Tree },
        });
        let mut body = Vec::new();
        let codec = compressor.encode(plain, &mut body).unwrap();
        let plain_len = plain.len() as u32;
        let mut block = Block { body, plain_len, chunks: chunks.to_vec(), codec };
        writer.seal(&mut block).unwrap();
        writer.append(block).unwrap();
    }
    let published = writer.finish().unwrap().publish().unwrap();
    (published.id, store)
}

pub(super) fn pack() -> Vec<Vec<u8>> {
    stored_packs().iter().map(|(id, store)| store.get(&id.key()).unwrap()).collect()
}

pub(super) fn footer() -> Vec<Vec<u8>> {
    let footer = |(id, store): &(PackId, MemoryStore)| {
        Pack::discover(store, &KEYS, *id).unwrap().footer.encode()
    };
    stored_packs().iter().map(footer).collect()
}

pub(super) fn block() -> Vec<Vec<u8>> {
    let plain = b"all work and no play ".repeat(40);
    let mut compressed = Vec::new();
    Compressor::new(3).unwrap().encode(&plain, &mut compressed).unwrap();
    let length = (plain.len() as u32).to_le_bytes();
    vec![
        [&length[..], &[Codec::Zstd as u8], &compressed].concat(),
        [&length[..], &[Codec::Stored as u8], &plain].concat(),
    ]
}

pub(super) fn index() -> Vec<Vec<u8>> {
    let segment = |count: u8| {
        let store = MemoryStore::new();
        let packs: Vec<PackEntry> = (0..3)
            .map(|at| PackEntry { id: PackId([at; 32]), size: 5000, footer_len: 200, kind: at % 2 })
            .collect();
        let records = (0..count)
            .map(|at| Record {
                prefix: *blake3::hash(&[at]).as_bytes().first_chunk().unwrap(),
                pack: u32::from(at % 3),
                place: Place { block: u16::from(at), offset: u32::from(at) * 100, length: 100 },
            })
            .collect();
        let id = write_segment_as(&store, &KEYS, &POOL, OBJECT, &packs, records).unwrap();
        store.get(&segment::key(&id)).unwrap()
    };
    vec![segment(0), segment(1), segment(60)]
}

pub(super) fn sealed() -> Vec<Vec<u8>> {
    let key = Manifest::key(&OBJECT);
    [ObjectType::Image, ObjectType::Job, ObjectType::Mark]
        .map(|object_type| seal_object(&KEYS, object_type, &key, b"plain").unwrap())
        .to_vec()
}

/// The plain bytes of the only object of a type.
fn opened(store: &dyn Store, prefix: &str, object_type: ObjectType) -> Vec<u8> {
    let (key, _) = list_sorted(store, prefix).unwrap().remove(0);
    open_object(&KEYS, object_type, &key, &store.get(&key).unwrap()).unwrap()
}

pub(super) fn job() -> Vec<Vec<u8>> {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let job = jobs::Job::begin(store.clone(), &KEYS, jobs::JobKind::Backup, 5).unwrap();
    let plain = opened(&*store, "jobs/", ObjectType::Job);
    job.end().unwrap();
    vec![plain]
}

pub(super) fn mark() -> Vec<Vec<u8>> {
    let mark = |blocking| {
        let store = MemoryStore::new();
        let packs = vec![PackId([1; 32]), PackId([2; 32])];
        let mark = marks::Mark { number: 1, collector: OBJECT, packs, blocking };
        mark.claim(&store, &KEYS).unwrap();
        opened(&store, "marks/", ObjectType::Mark)
    };
    vec![mark(None), mark(Some(vec![Id([4; 16])]))]
}

pub(super) fn manifest() -> Vec<Vec<u8>> {
    let mut root = Entry::new(b"/", EntryKind::Dir);
    root.subtree = Some(reference(1));
    let sound = Manifest {
        id: OBJECT,
        number: 3,
        source: Source {
            host: "host".into(),
            name: "host:/a".into(),
            paths: vec![b"/a".to_vec(), b"/\xff".to_vec()],
        },
        started_ns: 1,
        finished_ns: 2,
        root,
        parent: None,
        status: Status::Completed,
        stats: [("files".to_owned(), 3)].into(),
        findings: Vec::new(),
        findings_total: 0,
        options: BTreeMap::new(),
        software: "test".into(),
    };
    let finding = Finding {
        path: b"/a/b".to_vec(),
        code: "vanished".into(),
        message: "it vanished".into(),
        severity: Severity::Error,
    };
    let unsound = Manifest {
        parent: Some(POOL),
        status: Status::CompletedWithErrors,
        findings: vec![finding],
        findings_total: 1,
        ..sound.clone()
    };
    vec![sound.encode().unwrap(), unsound.encode().unwrap()]
}

fn reference(seed: u8) -> Ref {
    Ref { name: Name([seed; 32]), length: 100 }
}

/// One entry of each kind and form, in order of names.
fn entries() -> Vec<Entry> {
    let mut all = Vec::new();
    for kind in (0..7).filter_map(EntryKind::from_u8) {
        let mut entry = Entry::new(format!("{}-{}", kind as u8, kind.as_str()).as_bytes(), kind);
        entry.mode = 0o644;
        entry.mtime = Time { sec: -1, nsec: 999_999_999 };
        entry.user = Some("user".into());
        entry.target = (kind == EntryKind::Symlink).then(|| b"target".to_vec());
        entry.subtree = (kind == EntryKind::Dir).then(|| reference(1));
        entry.rdev = matches!(kind, EntryKind::Char | EntryKind::Block).then_some((8, 1));
        entry.xattrs = vec![(b"user.a".to_vec(), b"1".to_vec()), (b"user.b".to_vec(), vec![])];
        all.push(entry);
    }
    let file = Entry { nlink: 2, size: 200, ..Entry::new(b"7-direct", EntryKind::File) };
    let direct = Content::Direct(vec![reference(1), reference(2)]);
    all.push(Entry { content: direct.clone(), ..file.clone() });
    let listed = Content::Listed { depth: 2, list: reference(3) };
    all.push(Entry { name: b"8-listed".to_vec(), size: 1 << 40, content: listed, ..file.clone() });
    let extents =
        Some(vec![Extent { offset: 0, length: 50 }, Extent { offset: 1 << 30, length: 150 }]);
    let name = b"9-sparse".to_vec();
    all.push(Entry { name, size: 1 << 35, content: direct, extents, ..file });
    let hidden = Some(b"what a client sealed".to_vec());
    all.push(Entry { hidden, ..Entry::new(b"A-hidden", EntryKind::File) });
    all
}

pub(super) fn entry() -> Vec<Vec<u8>> {
    let encode = |entry: &Entry| {
        let mut raw = Vec::new();
        codec::encode_entry(entry, &mut raw).unwrap();
        raw
    };
    entries().iter().map(encode).collect()
}

pub(super) fn tree() -> Vec<Vec<u8>> {
    let raws = entry();
    let all: Vec<_> = entries().into_iter().map(|entry| entry.name).zip(&raws).collect();
    let mut objects = vec![leaf(&all), leaf(&all[..1]), leaf(&[])];
    let mut node = Vec::new();
    codec::write_object_head(&mut node, 1, 1, 2);
    codec::write_node_item(&mut node, b"a", &reference(1));
    codec::write_node_item(&mut node, b"b", &reference(2));
    objects.push(node);
    objects
}

fn leaf(entries: &[(Vec<u8>, &Vec<u8>)]) -> Vec<u8> {
    let chunks = MemoryChunks::new();
    let mut builder = DirectoryBuilder::new(&chunks);
    for (name, raw) in entries {
        builder.push(RawEntry { name, raw }).unwrap();
    }
    let root = builder.finish().unwrap();
    chunks.fetch(Kind::Tree, &root).unwrap()
}

pub(super) fn list() -> Vec<Vec<u8>> {
    let refs = |count: u8| (0..count).flat_map(|at| reference(at).to_bytes()).collect();
    vec![refs(1), refs(40), vec![0, 5, 10, 20], vec![0x80, 0x01, 0xff, 0x7f]]
}

pub(super) fn bodies() -> Vec<Vec<u8>> {
    let plain = b"again and again and again and again and again and again ".repeat(8);
    let chunk = |kind, part: &[u8]| ChunkInfo {
        name: KEYS.name(kind, part),
        length: part.len() as u32,
        kind,
    };
    let mut bodies = vec![body::Writer::default().take()];
    for (level, kind) in [(0, Kind::Data), (3, Kind::Tree)] {
        let (first, second) = plain.split_at(100);
        let mut encoded = Vec::new();
        let codec = Compressor::new(level).unwrap().encode(&plain, &mut encoded).unwrap();
        let mut writer = body::Writer::default();
        for _ in 0..2 {
            let chunks = [chunk(kind, first), chunk(kind, second)];
            writer.push(PackKind::of(kind), codec, &chunks, &encoded);
        }
        bodies.push(writer.take());
    }
    bodies
}

pub(super) fn terms() -> Vec<Vec<u8>> {
    let PoolConfig { chunks, block_bytes, .. } = PoolConfig::default();
    let naming = KEYS.naming().clone();
    let terms = Terms { pool: POOL, naming, chunks, block_bytes, may_reuse: true };
    vec![terms.encode(), Terms { may_reuse: false, ..terms }.encode()]
}

pub(super) fn wanted() -> Vec<Vec<u8>> {
    let reference = Ref { name: Name([3; 32]), length: 4096 };
    [Kind::Data, Kind::Tree].map(|kind| Wanted::encode(kind, &[reference; 3])).to_vec()
}

pub(super) fn hidden() -> Vec<Vec<u8>> {
    let bare = entries().into_iter().filter(|entry| entry.kind != EntryKind::File);
    let bare = bare.chain([Entry::new(b"name", EntryKind::File)]);
    let encoded = |entry: Entry| {
        let mut bytes = Vec::new();
        codec::encode_hidden(&entry, &mut bytes).unwrap();
        bytes.resize(bytes.len().next_multiple_of(32), 0);
        bytes
    };
    bare.map(encoded).collect()
}

pub(super) fn client_chunk() -> Vec<Vec<u8>> {
    let stored = [&[0, 15, 0, 0][..], b"hello holdfast\n", &[0; 3]].concat();
    let mut body = Vec::new();
    let plain = b"again ".repeat(1000);
    assert_eq!(Compressor::new(2).unwrap().encode(&plain[..5000], &mut body).unwrap(), Codec::Zstd);
    let head = (body.len() as u32).to_le_bytes();
    vec![stored, [&[1][..], &head[..3], &body].concat()]
}

pub(super) fn sealed_name() -> Vec<Vec<u8>> {
    let dir = CLIENT_KEY.root_dir();
    let sealed = |name: &[u8]| CLIENT_KEY.seal_name(&dir, name).unwrap();
    vec![sealed(b"a"), sealed(&[b'n'; 255]), CLIENT_KEY.seal_path(b"/srv/a/b")]
}
