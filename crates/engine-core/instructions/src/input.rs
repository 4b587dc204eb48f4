//! What the loops work on: made from nothing but numbers, the same on every machine.

use std::path::Path;
use std::sync::{Arc, Mutex};

use holdfast_engine_core::cancel::Cancel;
use holdfast_engine_core::codec::Compressor;
use holdfast_engine_core::counters::Counters;
use holdfast_engine_core::error::Result;
use holdfast_engine_core::ids::{Id, Kind, Name, PackId, Ref};
use holdfast_engine_core::index::{Index, PackEntry, Place, Record, Snapshot, filter};
use holdfast_engine_core::ingest;
use holdfast_engine_core::keys::PoolKeys;
use holdfast_engine_core::pack::footer::ChunkInfo;
use holdfast_engine_core::pack::writer::Block;
use holdfast_engine_core::pool::{Pool, PoolConfig};
use holdfast_engine_core::scan::attrs::Stat;
use holdfast_engine_core::store::Upload;
use holdfast_engine_core::store::posix::PosixStore;
use holdfast_engine_core::tree::ChunkSink;
use holdfast_engine_core::tree::build::write_directory;
use holdfast_engine_core::tree::codec::{self, RawEntry};
use holdfast_engine_core::tree::entry::{Content, Entry, EntryKind, Time};

pub const MIB: u64 = 1 << 20;
/// Records of the index that is asked.
pub const RECORDS: u64 = 100_000;
const POOL: Id = Id([7; 16]);

pub fn keys() -> PoolKeys {
    PoolKeys::derive(&[1; 32])
}

/// Evenly spread bits, one word for each number (splitmix64).
fn word(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

pub fn name(number: u64) -> Name {
    let mut bytes = [0; 32];
    for (part, at) in bytes.chunks_exact_mut(8).zip(0..) {
        part.copy_from_slice(&word(number << 2 | at).to_le_bytes());
    }
    Name(bytes)
}

pub fn noise(length: u64) -> Vec<u8> {
    (0..length / 8).flat_map(|number| word(number).to_le_bytes()).collect()
}

/// Words of a small language, most of them from its front, with a number now and then.
pub fn text(length: u64) -> Vec<u8> {
    let length = length as usize;
    let mut text = Vec::with_capacity(length + 32);
    let mut number = 0;
    while text.len() < length {
        number += 1;
        let bits = word(number);
        let chosen = ((bits & 0x3ff) * (bits >> 10 & 0x3ff)) >> 10;
        text.extend_from_slice(&word(chosen).to_string().as_bytes()[..4 + chosen as usize % 7]);
        if bits >> 20 & 15 == 0 {
            text.extend_from_slice((bits >> 40).to_string().as_bytes());
        }
        text.push(b' ');
    }
    text.truncate(length);
    text
}

/// Blocks of the usual size, of one chunk for each 32 KiB.
pub fn blocks(plain: &[u8], level: i32) -> Vec<Block> {
    let mut compressor = Compressor::new(level).unwrap();
    let blocks = plain.chunks(PoolConfig::default().block_bytes as usize);
    blocks
        .map(|plain| {
            let mut body = Vec::new();
            let codec = compressor.encode(plain, &mut body).unwrap();
            // Room for the tag, as in the product.
            body.reserve(16);
            let chunks = plain.chunks(32 << 10).zip(0..).map(|(chunk, number)| ChunkInfo {
                name: name(number),
                length: chunk.len() as u32,
                kind: Kind::Data,
            });
            Block { body, codec, plain_len: plain.len() as u32, chunks: chunks.collect() }
        })
        .collect()
}

/// Where a pack's bytes go.
#[derive(Clone, Default)]
pub struct Bytes(Arc<Mutex<Vec<u8>>>);

impl Bytes {
    pub fn with_room(length: u64) -> Self {
        Bytes(Arc::new(Mutex::new(Vec::with_capacity(length as usize))))
    }

    pub fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl Upload for Bytes {
    fn write(&mut self, data: &[u8]) -> Result<()> {
        self.0.lock().unwrap().extend_from_slice(data);
        Ok(())
    }

    fn finish(self: Box<Self>, _key: &str) -> Result<()> {
        Ok(())
    }
}

/// An index of one segment, mapped from a disk.
pub fn index(directory: &Path) -> Arc<Snapshot> {
    let store = Arc::new(PosixStore::create(directory.join("index")).unwrap());
    let packs = [PackEntry { id: PackId([1; 32]), size: 64 << 20, footer_len: 80 << 10, kind: 0 }];
    let records = (0..RECORDS).map(|number| Record {
        prefix: name(number).prefix(),
        pack: 0,
        place: Place { block: number as u16, offset: 0, length: 32 << 10 },
    });
    let records = records.collect();
    holdfast_engine_core::index::write_segment(&*store, &keys(), &POOL, &packs, records).unwrap();
    Index::load(store, keys(), POOL, None).unwrap().snapshot()
}

/// A filter of [`RECORDS`], and as many hashes to ask it for, every other one of which it has.
pub fn filter(asked: u64) -> (Vec<u8>, Vec<u64>) {
    let hash = |number| filter::hash(&name(number).prefix());
    let blocks = filter::blocks_for(RECORDS).unwrap();
    let mut bytes = vec![0; blocks as usize * filter::BLOCK];
    for number in 0..RECORDS {
        let from = filter::block_of(hash(number), blocks) as usize * filter::BLOCK;
        let block = &mut bytes[from..from + filter::BLOCK];
        filter::insert(block.try_into().unwrap(), hash(number));
    }
    (bytes, (0..asked).map(|number| hash(number + number % 2 * RECORDS)).collect())
}

/// Keeps what it is given, and does not name it.
#[derive(Default)]
pub struct Unnamed(Mutex<Vec<Vec<u8>>>);

impl ChunkSink for Unnamed {
    fn store(&self, _kind: Kind, plain: &[u8]) -> Result<Ref> {
        self.0.lock().unwrap().push(plain.to_vec());
        Ok(Ref { name: Name([7; 32]), length: plain.len() as u32 })
    }
}

pub fn stats(count: u64) -> Vec<(Vec<u8>, Stat)> {
    let stat = |number| Stat {
        kind: EntryKind::File,
        mode: 0o644,
        uid: 1000,
        gid: 1000,
        mtime: time(number),
        ctime: time(number + 1),
        inode: 1_000_000 + number,
        device: 2049,
        nlink: 1,
        size: word(number) & 0xffff,
        blocks: 8,
        rdev: (0, 0),
    };
    (0..count).map(|number| (format!("name {number:06}.txt").into_bytes(), stat(number))).collect()
}

fn time(number: u64) -> Time {
    let sec = 1_700_000_000 + (word(number) & 0xff_ffff) as i64;
    Time { sec, nsec: (word(number) >> 32) as u32 % 1_000_000_000 }
}

/// Files in order of their names, as [`stats`] has them, each of one chunk.
pub fn entries(count: u64) -> Vec<Entry> {
    let entry = |(name, stat): (Vec<u8>, Stat)| {
        let mut entry = Entry::new(&name, stat.kind);
        entry.mode = stat.mode;
        (entry.uid, entry.gid) = (stat.uid, stat.gid);
        (entry.user, entry.group) = (Some("somebody".into()), Some("people".into()));
        (entry.mtime, entry.ctime) = (stat.mtime, stat.ctime);
        (entry.inode, entry.device, entry.nlink) = (stat.inode, stat.device, stat.nlink);
        entry.size = stat.size;
        if stat.size > 0 {
            let reference = Ref { name: self::name(stat.inode), length: stat.size as u32 };
            entry.content = Content::Direct(vec![reference]);
        }
        entry
    };
    stats(count).into_iter().map(entry).collect()
}

fn write_entries(sink: &dyn ChunkSink, count: u64) -> Result<Ref> {
    let entries = entries(count);
    let mut encoded = Vec::new();
    for entry in &entries {
        let mut raw = Vec::new();
        codec::encode_entry(entry, &mut raw)?;
        encoded.push(raw);
    }
    let named = entries.iter().zip(&encoded);
    write_directory(sink, named.map(|(entry, raw)| RawEntry { name: &entry.name, raw }))
}

/// The objects that a directory of [`entries`] is made of.
pub fn tree_objects(count: u64) -> Vec<Vec<u8>> {
    let sink = Unnamed::default();
    write_entries(&sink, count).unwrap();
    sink.0.into_inner().unwrap()
}

/// A pool with such a directory in it.
pub fn stored_directory(directory: &Path, count: u64) -> (Pool, Ref) {
    let store = Arc::new(PosixStore::create(directory.join("pool")).unwrap());
    let pool = Pool::create(store, &[1; 32], PoolConfig::default(), 0, None).unwrap();
    let (counters, cancel) = (Counters::default(), Cancel::new());
    let options = ingest::Options {
        counters: &counters,
        cancel: &cancel,
        level: 3,
        marked: Default::default(),
        job: None,
        claims: Default::default(),
    };
    let root = ingest::run(&pool, options, |ingest| write_entries(ingest, count)).unwrap();
    pool.index().refresh().unwrap();
    (pool, root)
}
