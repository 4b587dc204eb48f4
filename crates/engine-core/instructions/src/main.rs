//! The engine's inner loops, one at a time, over inputs that never change: instructions are
//! counted from outside, while [`measured`] runs. See `benchmarks/instructions.py`.
//!
//! `instructions` lists the loops, `instructions LOOP DIRECTORY` runs one. A loop makes no thread
//! and asks for no randomness while it is measured, so that its count is the same each time.
#![allow(clippy::unwrap_used)]

mod input;

use std::hint::black_box;
use std::path::Path;

use holdfast_engine_core::backup::previous::{PreviousDir, is_same};
use holdfast_engine_core::chunker::Chunker;
use holdfast_engine_core::codec::{Compressor, Decompressor};
use holdfast_engine_core::counters::Counters;
use holdfast_engine_core::ids::{Kind, Name};
use holdfast_engine_core::index::{filter, segment};
use holdfast_engine_core::pack::footer::PackKind;
use holdfast_engine_core::pack::reader::Pack;
use holdfast_engine_core::pack::writer::{Block, PackWriter, SealedPack};
use holdfast_engine_core::pack::{HEADER_LEN, TRAILER_LEN};
use holdfast_engine_core::pool::PoolConfig;
use holdfast_engine_core::scan::list::NameList;
use holdfast_engine_core::tree::build::write_directory;
use holdfast_engine_core::tree::codec::{self, RawEntry, TreeObject};
use holdfast_engine_core::tree::entry::Time;

use input::{Bytes, MIB, Unnamed, keys, name};

/// One loop: what it does so many of, and how.
struct Loop {
    name: &'static str,
    units: u64,
    unit: &'static str,
    run: fn(&Path),
}

const LOOKUPS: u64 = 20_480;
const ENTRIES: u64 = 1_000;
const UNCHANGED: u64 = 2_000;
const LEVEL: i32 = 3;

const LOOPS: [Loop; 13] = [
    Loop { name: "find borders", units: 4 * MIB, unit: "byte", run: find_borders },
    Loop { name: "name chunks", units: 4 * MIB, unit: "byte", run: name_chunks },
    Loop { name: "compress text", units: MIB, unit: "byte", run: compress_text },
    Loop { name: "compress noise", units: MIB, unit: "byte", run: compress_noise },
    Loop { name: "seal a pack", units: 4 * MIB, unit: "byte", run: seal_a_pack },
    Loop { name: "open blocks", units: 4 * MIB, unit: "byte", run: open_blocks },
    Loop { name: "look up present", units: LOOKUPS, unit: "lookup", run: look_up_present },
    Loop { name: "look up absent", units: LOOKUPS, unit: "lookup", run: look_up_absent },
    Loop { name: "look up abreast", units: LOOKUPS, unit: "lookup", run: look_up_abreast },
    Loop { name: "filter", units: LOOKUPS, unit: "lookup", run: ask_filter },
    Loop { name: "write a tree", units: ENTRIES, unit: "entry", run: write_a_tree },
    Loop { name: "read a tree", units: ENTRIES, unit: "entry", run: read_a_tree },
    Loop { name: "compare unchanged", units: UNCHANGED, unit: "entry", run: compare_unchanged },
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.as_slice() {
        [] => {
            for one in &LOOPS {
                println!("{}\t{}\t{}", one.name, one.units, one.unit);
            }
        }
        [name, directory] => match LOOPS.iter().find(|one| one.name == name) {
            Some(one) => (one.run)(Path::new(directory)),
            None => std::process::exit(64),
        },
        _ => std::process::exit(64),
    }
}

/// What is counted: known by its name, so it must stay a function of its own.
#[inline(never)]
fn measured<T>(work: impl FnOnce() -> T) -> T {
    black_box(work())
}

fn find_borders(_: &Path) {
    let chunker = Chunker::new(keys().naming(), PoolConfig::default().chunks);
    let data = input::noise(4 * MIB);
    let cuts = measured(|| {
        let mut rest = data.as_slice();
        let mut cuts = 0;
        while !rest.is_empty() {
            let length = chunker.cut(&rest[..rest.len().min(chunker.max())]);
            rest = &rest[length..];
            cuts += 1;
        }
        cuts
    });
    assert!((60..300).contains(&cuts), "{cuts}");
}

fn name_chunks(_: &Path) {
    let (keys, data) = (keys(), input::noise(4 * MIB));
    measured(|| {
        for chunk in data.chunks(32 << 10) {
            black_box(keys.name(Kind::Data, chunk));
        }
    });
}

fn compress(plain: &[u8]) {
    let mut compressor = Compressor::new(LEVEL).unwrap();
    let mut body = Vec::new();
    // The first block pays for the tables.
    compressor.encode(&plain[..4096], &mut body).unwrap();
    measured(|| compressor.encode(plain, &mut body)).unwrap();
}

fn compress_text(_: &Path) {
    compress(&input::text(MIB));
}

fn compress_noise(_: &Path) {
    compress(&input::noise(MIB));
}

fn seal(bytes: &Bytes, blocks: Vec<Block>) -> SealedPack<'static> {
    let upload = Box::new(bytes.clone());
    let mut writer = PackWriter::with_salt(&keys(), PackKind::Data, upload, [3; 32]).unwrap();
    for mut block in blocks {
        writer.seal(&mut block).unwrap();
        writer.append(block).unwrap();
    }
    writer.finish().unwrap()
}

fn seal_a_pack(_: &Path) {
    let blocks = input::blocks(&input::noise(4 * MIB), LEVEL);
    let bytes = Bytes::with_room(5 * MIB);
    measured(|| seal(&bytes, blocks));
}

fn open_blocks(_: &Path) {
    let bytes = Bytes::default();
    let sealed = seal(&bytes, input::blocks(&input::text(4 * MIB), LEVEL));
    let stored = bytes.take();
    let tail = stored.len() - TRAILER_LEN - sealed.footer_len as usize;
    let (front, tail) = (&stored[..HEADER_LEN], stored[tail..].to_vec());
    let pack = Pack::parse(&keys(), sealed.id, sealed.size, front, tail).unwrap();
    let mut decompressor = Decompressor::new().unwrap();
    let bodies: Vec<Vec<u8>> = pack
        .footer
        .blocks()
        .iter()
        .map(|block| stored[block.offset as usize..][..block.sealed_len as usize].to_vec())
        .collect();
    measured(|| {
        for (number, mut body) in bodies.into_iter().enumerate() {
            let length = pack.unseal(number, &mut body).unwrap();
            black_box(pack.decompress(number, &body[..length], &mut decompressor).unwrap());
        }
    });
}

fn look_up_present(directory: &Path) {
    let index = input::index(directory);
    let names: Vec<Name> = (0..LOOKUPS).map(|number| name(number * 3)).collect();
    let found = measured(|| names.iter().filter(|name| index.lookup(name).is_some()).count());
    assert_eq!(found as u64, LOOKUPS);
}

fn look_up_absent(directory: &Path) {
    let index = input::index(directory);
    let names: Vec<Name> = (0..LOOKUPS).map(|number| name(input::RECORDS + number)).collect();
    let found = measured(|| names.iter().filter(|name| index.lookup(name).is_some()).count());
    assert_eq!(found, 0);
}

fn look_up_abreast(directory: &Path) {
    let index = input::index(directory);
    let [open] = index.segments() else { unreachable!("one segment was written") };
    let prefixes: Vec<_> = (0..LOOKUPS).map(|number| Some(name(number * 3).prefix())).collect();
    let (batches, _) = prefixes.as_chunks::<{ segment::BATCH }>();
    let found = measured(|| {
        let found = batches.iter().map(|batch| open.find_batch(batch));
        found.map(|batch| batch.iter().flatten().count()).sum::<usize>()
    });
    assert_eq!(found as u64, LOOKUPS);
}

fn ask_filter(_: &Path) {
    let (filter, hashes) = input::filter(LOOKUPS);
    let passed =
        measured(|| hashes.iter().filter(|hash| filter::may_contain(&filter, **hash)).count());
    assert!(passed as u64 >= LOOKUPS / 2, "{passed}");
}

fn write_a_tree(_: &Path) {
    let entries = input::entries(ENTRIES);
    measured(|| {
        let mut raw = Vec::new();
        let mut ends = Vec::new();
        for entry in &entries {
            codec::encode_entry(entry, &mut raw).unwrap();
            ends.push(raw.len());
        }
        let mut start = 0;
        let encoded = entries.iter().zip(ends).map(|(entry, end)| {
            let raw = &raw[std::mem::replace(&mut start, end)..end];
            RawEntry { name: &entry.name, raw }
        });
        write_directory(&Unnamed::default(), encoded).unwrap()
    });
}

fn read_a_tree(_: &Path) {
    let objects = input::tree_objects(ENTRIES);
    let read = measured(|| {
        let mut read = 0;
        for object in &objects {
            if let TreeObject::Leaf(entries) = codec::decode_object(object).unwrap() {
                for entry in entries {
                    black_box(entry.decode().unwrap());
                    read += 1;
                }
            }
        }
        read
    });
    assert_eq!(read, ENTRIES);
}

/// What a backup does with the files of a directory that it finds as the image before has them,
/// but for asking the system about each.
fn compare_unchanged(directory: &Path) {
    let (pool, root) = input::stored_directory(directory, UNCHANGED);
    let (found, counters) = (input::stats(UNCHANGED), Counters::default());
    let trusted_before = Time { sec: i64::MAX, nsec: 0 };
    let names = NameList::of(found.iter().map(|(name, _)| name.as_slice()));
    let same = measured(|| {
        let previous = PreviousDir::load(&pool, &root, &counters, None).unwrap();
        let mut same = 0;
        for ((_, stat), at) in found.iter().zip(previous.matches(&names)) {
            if let Some(before) = at.and_then(|at| previous.entry(at as usize))
                && is_same(stat, &before.marks().unwrap(), trusted_before)
            {
                same += 1;
            }
        }
        same
    });
    assert_eq!(same, UNCHANGED);
}
