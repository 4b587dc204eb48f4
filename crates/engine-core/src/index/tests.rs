#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use parking_lot::Mutex;
use proptest::prelude::*;

use super::merge::{MOST_SEGMENTS, merge, merge_policy};
use super::segment::{HEADER, MAC, PACK_ENTRY};
use super::*;
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::ids::{Id, Name, PackId, Prefix};
use crate::keys::PoolKeys;
use crate::store::{BufferedUpload, Store, Upload};

const POOL: Id = Id([9; 16]);

fn keys() -> PoolKeys {
    PoolKeys::derive(&[1; 32])
}

/// A store without local files, so that copies and owned bytes are tried.
#[derive(Default)]
struct Shelf(Mutex<BTreeMap<String, Vec<u8>>>);

impl Store for Shelf {
    fn place(&self) -> String {
        "shelf".into()
    }
    fn get(&self, key: &str) -> Result<Vec<u8>> {
        let missing = || Error::ObjectMissing { key: key.into() };
        self.0.lock().get(key).cloned().ok_or_else(missing)
    }
    fn get_range(&self, key: &str, offset: u64, length: usize) -> Result<Vec<u8>> {
        let from = offset as usize;
        let piece = self.get(key)?.get(from..from + length).map(<[u8]>::to_vec);
        piece.ok_or_else(|| Error::integrity(key, "too short"))
    }
    fn put(&self, key: &str, data: &[u8]) -> Result<()> {
        self.0.lock().insert(key.into(), data.to_vec());
        Ok(())
    }
    fn put_if_absent(&self, key: &str, data: &[u8]) -> Result<bool> {
        let absent = self.size(key)?.is_none();
        if absent { self.put(key, data).map(|()| true) } else { Ok(false) }
    }
    fn size(&self, key: &str) -> Result<Option<u64>> {
        Ok(self.0.lock().get(key).map(|data| data.len() as u64))
    }
    fn list(&self, prefix: &str, visit: &mut dyn FnMut(&str, u64) -> Result<()>) -> Result<()> {
        let found: Vec<_> =
            self.0.lock().iter().map(|(key, data)| (key.clone(), data.len() as u64)).collect();
        for (key, size) in found.iter().filter(|(key, _)| key.starts_with(prefix)) {
            visit(key, *size)?;
        }
        Ok(())
    }
    fn delete(&self, key: &str) -> Result<()> {
        self.0.lock().remove(key);
        Ok(())
    }
    fn upload(&self) -> Result<Box<dyn Upload + '_>> {
        Ok(Box::new(BufferedUpload::new(self)))
    }
}

fn name(number: u64) -> Name {
    Name(*blake3::hash(&number.to_le_bytes()).as_bytes())
}

fn pack(number: u8) -> PackEntry {
    PackEntry {
        id: PackId([number; 32]),
        size: 1000 + u64::from(number),
        footer_len: 77,
        kind: number % 2,
    }
}

fn record(number: u64, pack: u32) -> Record {
    let place = Place { block: number as u16, offset: number as u32 % 999, length: 1 + pack };
    Record { prefix: name(number).prefix(), pack, place }
}

fn write(store: &dyn Store, packs: &[PackEntry], records: Vec<Record>) -> Id {
    write_segment(store, &keys(), &POOL, packs, records).unwrap()
}

fn load(store: &Arc<Shelf>) -> Index {
    Index::load(store.clone(), keys(), POOL, None).unwrap()
}

fn bytes_of(store: &Shelf, id: &Id) -> Vec<u8> {
    store.get(&segment::key(id)).unwrap()
}

#[test]
fn a_million_chunks_take_at_most_32_bytes_each_and_are_found() {
    let store = Arc::new(Shelf::default());
    let count = 1_000_000;
    let packs: Vec<_> = (0..250).map(pack).collect();
    let records = (0..count).map(|number| record(number, number as u32 % 250)).collect();
    let id = write(&*store, &packs, records);
    let size = bytes_of(&store, &id).len() as u64;
    assert!(size <= 32 * count, "{} bytes a chunk", size as f64 / count as f64);
    let index = load(&store);
    for number in (0..count).step_by(7) {
        let found = index.lookup(&name(number)).expect("a chunk of the segment");
        assert_eq!(found.place(), record(number, number as u32 % 250).place);
        assert_eq!(found.pack, packs[number as usize % 250].id);
    }
    assert!((count..count + 50_000).all(|number| index.lookup(&name(number)).is_none()));
}

#[test]
fn packs_may_come_in_any_order_and_keep_their_records() {
    let store = Arc::new(Shelf::default());
    let packs = [pack(7), pack(3), pack(5)];
    write(&*store, &packs, (0..30).map(|number| record(number, number as u32 % 3)).collect());
    let index = load(&store);
    for number in 0..30 {
        assert_eq!(index.lookup(&name(number)).unwrap().pack, packs[number as usize % 3].id);
    }
    assert_eq!(index.packs(), [pack(3), pack(5), pack(7)]);
    assert_eq!(index.pack(&pack(5).id), Some(pack(5)));
    assert!(!index.contains_pack(&pack(4).id));
}

#[test]
fn an_excluded_pack_hides_its_chunks_but_not_other_places_of_them() {
    let store = Arc::new(Shelf::default());
    write(&*store, &[pack(1)], (0..10).map(|number| record(number, 0)).collect());
    write(&*store, &[pack(2)], (0..5).map(|number| record(number, 0)).collect());
    let index = load(&store);
    let excluded = HashSet::from([pack(1).id]);
    let found = index.lookup_excluding(&name(2), &excluded).unwrap();
    assert_eq!(found.pack, pack(2).id);
    assert_eq!(index.lookup_excluding(&name(7), &excluded), None);
    assert_eq!(index.snapshot().candidates(&name(2)).count(), 2);
}

#[test]
fn every_flipped_bit_of_a_segment_is_an_error() {
    let store = Shelf::default();
    let id = write(&store, &[pack(1), pack(2)], (0..9).map(|at| record(at, 1)).collect());
    let whole = bytes_of(&store, &id);
    Segment::from_owned(&keys(), &POOL, id, whole.clone()).unwrap();
    for bit in 0..whole.len() * 8 {
        let mut bytes = whole.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(Segment::from_owned(&keys(), &POOL, id, bytes).is_err(), "bit {bit}");
    }
    for length in 0..whole.len() {
        let bytes = whole[..length].to_vec();
        assert!(Segment::from_owned(&keys(), &POOL, id, bytes).is_err(), "{length} bytes");
    }
}

#[test]
fn a_segment_of_another_pool_key_or_newer_format_is_refused() {
    let store = Shelf::default();
    let id = write(&store, &[pack(1)], vec![record(1, 0)]);
    let whole = bytes_of(&store, &id);
    let open = |keys: &PoolKeys, pool, bytes| Segment::from_owned(keys, pool, id, bytes).err();
    let wrong = open(&PoolKeys::derive(&[2; 32]), &POOL, whole.clone()).unwrap();
    assert_eq!(wrong.code(), "integrity");
    assert_eq!(open(&keys(), &Id([8; 16]), whole.clone()).unwrap().code(), "integrity");
    let mut newer = whole;
    newer[7] = 2;
    assert_eq!(open(&keys(), &POOL, newer).unwrap().code(), "newer-format");
}

#[test]
fn a_segment_in_the_place_of_another_is_refused() {
    let store = Shelf::default();
    let id = write(&store, &[pack(1)], vec![record(1, 0)]);
    let bytes = bytes_of(&store, &id);
    let error = Segment::from_owned(&keys(), &POOL, Id([9; 16]), bytes).err().unwrap();
    assert_eq!(error.code(), "integrity");
}

#[test]
fn a_segment_tells_nobody_without_the_key_how_long_chunks_are_or_where_they_lie() {
    let store = Shelf::default();
    let place = Place { block: 0, offset: 0, length: 4711 };
    let records: Vec<Record> =
        (0..500).map(|number| Record { prefix: name(number).prefix(), pack: 0, place }).collect();
    let hidden = |id: &Id| -> HashSet<Vec<u8>> {
        let bytes = bytes_of(&store, id);
        let from = bytes.len() - MAC - records.len() * segment::RECORD;
        let rows = bytes[from..bytes.len() - MAC].chunks_exact(segment::RECORD);
        rows.map(|row| row[16..].to_vec()).collect()
    };
    let (one, other) =
        (write(&store, &[pack(1)], records.clone()), write(&store, &[pack(1)], records.clone()));
    let (one, other) = (hidden(&one), hidden(&other));
    assert_eq!((one.len(), other.len()), (500, 500), "equal places look different");
    assert!(one.is_disjoint(&other), "and different again in another segment");
}

/// Authentic but senseless: what a program with a fault, or a holder of the key, could write.
fn resealed(mut bytes: Vec<u8>, change: impl Fn(&mut Vec<u8>)) -> Vec<u8> {
    change(&mut bytes);
    let packs = u32::from_le_bytes(bytes[32..36].try_into().unwrap()) as usize;
    let head = HEADER + packs * PACK_ENTRY;
    if let Some((front, rest)) = bytes.split_at_mut_checked(head)
        && rest.len() >= 2 * MAC
    {
        rest[..MAC].copy_from_slice(keys().index_mac().update(front).finalize().as_bytes());
    }
    let end = bytes.len() - MAC;
    let mac = keys().index_mac().update(&bytes[..end]).finalize();
    bytes[end..].copy_from_slice(mac.as_bytes());
    bytes
}

#[test]
fn senseless_records_under_a_right_mac_are_found_by_a_check_and_harm_no_lookup() {
    let store = Shelf::default();
    let id = write(&store, &[pack(1)], (0..100).map(|number| record(number, 0)).collect());
    let from = bytes_of(&store, &id).len() - MAC - 100 * segment::RECORD;
    let foreign_pack = resealed(bytes_of(&store, &id), |bytes| bytes[from + 17] ^= 1);
    let unsorted = resealed(bytes_of(&store, &id), |bytes| bytes[from..from + 16].fill(255));
    for bytes in [foreign_pack, unsorted] {
        let segment = Segment::from_owned(&keys(), &POOL, id, bytes).unwrap();
        assert_eq!(segment.verify(&keys()).unwrap_err().code(), "integrity");
        let snapshot = Snapshot::new(vec![Arc::new(segment)]);
        for number in 0..200 {
            let _ = snapshot.lookup(&name(number));
        }
    }
}

#[test]
fn a_merge_keeps_each_chunk_once_and_leaves_out_dropped_packs() {
    let store = Arc::new(Shelf::default());
    write(&*store, &[pack(1), pack(2)], (0..60).map(|at| record(at, at as u32 % 2)).collect());
    write(&*store, &[pack(3)], (40..90).map(|at| record(at, 0)).collect());
    write(&*store, &[pack(2), pack(4)], (80..120).map(|at| record(at, 1)).collect());
    let index = load(&store);
    let dropped = pack(2).id;
    let drop = |pack: &PackId| *pack == dropped;
    let segments = index.segments();
    merge(&*store, &keys(), &POOL, &segments, &drop, &Cancel::new()).unwrap().unwrap();
    let snapshot = index.refresh().unwrap();
    assert_eq!(snapshot.segments().len(), 1);
    let expected = (0..120).filter(|at| *at >= 40 || at % 2 == 0);
    assert_eq!(snapshot.len(), expected.clone().count() as u64);
    assert!(expected.into_iter().all(|at| snapshot.lookup(&name(at)).is_some()));
    assert_eq!(snapshot.packs(), [pack(1), pack(3), pack(4)]);
    snapshot.segments()[0].verify(&keys()).unwrap();
}

#[test]
fn two_merges_at_once_lose_nothing() {
    let store = Arc::new(Shelf::default());
    for part in 0..4 {
        let records = (part * 10..part * 10 + 10).map(|at| record(at, 0)).collect();
        write(&*store, &[pack(part as u8)], records);
    }
    let (one, two) = (load(&store), load(&store));
    let run = |segments: &[Arc<Segment>]| {
        merge(&*store, &keys(), &POOL, segments, &|_| false, &Cancel::new()).unwrap()
    };
    assert!(run(&one.segments()[..3]).is_some());
    // The second works from a list that the first has made old.
    assert_eq!(run(&two.segments()[1..]), None);
    let snapshot = two.refresh().unwrap();
    assert!((0..40).all(|at| snapshot.lookup(&name(at)).is_some()));
    assert_eq!(snapshot.segments().len(), 2);
}

#[test]
fn segments_stay_few_however_many_are_written() {
    let store = Arc::new(Shelf::default());
    let index = load(&store);
    for round in 0..60 {
        write(&*store, &[pack(round as u8)], vec![record(round, 0)]);
        let segments = index.refresh().unwrap().segments().to_vec();
        if let Some(ids) = merge_policy(&segments) {
            let chosen: Vec<_> =
                segments.iter().filter(|one| ids.contains(&one.id())).cloned().collect();
            merge(&*store, &keys(), &POOL, &chosen, &|_| false, &Cancel::new()).unwrap();
        }
        let snapshot = index.refresh().unwrap();
        assert!(snapshot.segments().len() <= MOST_SEGMENTS);
        assert!((0..=round).all(|at| snapshot.lookup(&name(at)).is_some()));
    }
}

#[test]
fn a_remote_segment_is_copied_once_checked_and_copied_again_when_the_copy_is_bad() {
    let directory = tempfile::tempdir().unwrap();
    let store = Arc::new(Shelf::default());
    let id = write(&*store, &[pack(1)], (0..500).map(|at| record(at, 0)).collect());
    let open = || Index::load(store.clone(), keys(), POOL, Some(directory.path()));
    assert!(open().unwrap().lookup(&name(3)).is_some());
    let copy = directory.path().join(POOL.to_string()).join("index").join(id.to_string());
    assert_eq!(std::fs::read(&copy).unwrap(), bytes_of(&store, &id));
    std::fs::write(&copy, b"rubbish").unwrap();
    assert!(open().unwrap().lookup(&name(499)).is_some());

    let mut damaged = bytes_of(&store, &id);
    damaged[400] ^= 1;
    store.put(&segment::key(&id), &damaged).unwrap();
    std::fs::remove_file(&copy).unwrap();
    let index = open().unwrap();
    assert_eq!(index.snapshot().damaged().len(), 1);
    assert_eq!(index.refresh().err().unwrap().code(), "integrity");
    assert!(!copy.exists());

    store.delete(&segment::key(&id)).unwrap();
    write(&*store, &[pack(1)], vec![record(1, 0)]);
    open().unwrap();
    let names: Vec<_> = std::fs::read_dir(copy.parent().unwrap()).unwrap().collect();
    assert_eq!(names.len(), 1, "the copy of the segment that is gone is removed");
}

#[test]
fn an_empty_index_finds_nothing_and_an_empty_segment_is_sound() {
    let store = Arc::new(Shelf::default());
    assert_eq!(load(&store).lookup(&name(1)), None);
    write(&*store, &[pack(1)], Vec::new());
    let index = load(&store);
    assert_eq!(index.lookup(&name(1)), None);
    assert_eq!(index.packs(), [pack(1)]);
}

fn prefixes() -> impl Strategy<Value = Vec<Prefix>> {
    // Clustered on purpose: interpolation must also end well where prefixes are not spread.
    let near = (0u8..4, 0u8..4, any::<u8>()).prop_map(|(a, b, c)| {
        let mut prefix = [a; 16];
        (prefix[7], prefix[15]) = (b, c);
        prefix
    });
    prop::collection::vec(prop_oneof![any::<Prefix>(), near], 0..400)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn segments_answer_as_a_map_does(parts in prop::collection::vec(prefixes(), 1..4),
                                      absent in prefixes(), merged in any::<bool>()) {
        let store = Arc::new(Shelf::default());
        let mut model: BTreeMap<Prefix, HashSet<PackId>> = BTreeMap::new();
        for (number, part) in parts.iter().enumerate() {
            let entry = pack(number as u8);
            let place = Place { block: 1, offset: 2, length: 3 };
            let records = part.iter().map(|prefix| Record { prefix: *prefix, pack: 0, place });
            write(&*store, &[entry], records.collect());
            for prefix in part {
                model.entry(*prefix).or_default().insert(entry.id);
            }
        }
        let index = load(&store);
        if merged {
            merge(&*store, &keys(), &POOL, &index.segments(), &|_| false, &Cancel::new()).unwrap();
            index.refresh().unwrap();
            prop_assert_eq!(index.snapshot().len(), model.len() as u64);
        }
        let full = |prefix: &Prefix| {
            let mut name = [0; 32];
            name[..16].copy_from_slice(prefix);
            Name(name)
        };
        for (prefix, packs) in &model {
            let found: HashSet<_> =
                index.snapshot().candidates(&full(prefix)).map(|found| found.pack).collect();
            prop_assert!(!found.is_empty() && found.is_subset(packs));
            prop_assert!(merged || found == *packs);
        }
        for prefix in absent.iter().filter(|prefix| !model.contains_key(*prefix)) {
            prop_assert_eq!(index.lookup(&full(prefix)), None);
        }
        let asked: Vec<_> = model.keys().chain(&absent).copied().collect();
        for (segment, batch) in index.segments().iter().flat_map(|segment| {
            asked.chunks(segment::BATCH).map(move |batch| (segment.clone(), batch))
        }) {
            let batch = std::array::from_fn(|at| batch.get(at).copied());
            let one_by_one = batch.map(|prefix| prefix.and_then(|prefix| segment.find(&prefix)));
            prop_assert_eq!(segment.find_batch(&batch), one_by_one);
        }
    }

    #[test]
    fn any_bytes_are_refused_or_searched_without_panic(
        records in 0u64..5, packs in 0u32..5, blocks in 0u32..5, tail in 0usize..400,
        huge in any::<bool>(), seed in any::<u64>(),
    ) {
        let mut bytes = b"HFINDX\0\x01".to_vec();
        bytes.extend_from_slice(&POOL.0);
        let records = if huge { u64::MAX / 28 - records } else { records };
        bytes.extend_from_slice(&records.to_le_bytes());
        bytes.extend_from_slice(&packs.to_le_bytes());
        bytes.extend_from_slice(&blocks.to_le_bytes());
        bytes.extend_from_slice(&[3; 16]);
        bytes.resize(HEADER, 0);
        let body = packs as usize * 48 + blocks as usize * 32 + 64
            + if huge { tail } else { records as usize * 28 + tail % 2 };
        let mut noise = vec![0; body];
        blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut noise);
        bytes.extend_from_slice(&noise);
        let bytes = resealed(bytes, |_| ());
        if let Ok(segment) = Segment::from_owned(&keys(), &POOL, Id([3; 16]), bytes) {
            let _ = segment.verify(&keys());
            let known: Vec<_> = (0..segment.len()).filter_map(|at| segment.record(at)).collect();
            for record in known {
                let _ = segment.find(&record.prefix);
            }
            for number in 0..20 {
                let _ = segment.find(&name(number).prefix());
            }
        }
    }
}
