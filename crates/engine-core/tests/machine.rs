//! Machines are backed up: what an image has of a disk is the disk, whatever was known of it, and
//! no more is read than has to be.
#![allow(clippy::unwrap_used, clippy::panic)]

mod kit;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use holdfast_engine_core::backup::machine::{Range, What};
use holdfast_engine_core::backup::written::{self, Row, TreeWriter};
use holdfast_engine_core::disk::{CELL_BYTES, GRAIN_BYTES};
use holdfast_engine_core::ids::Kind;
use holdfast_engine_core::pool::{Pool, PoolConfig};
use holdfast_engine_core::restore;
use holdfast_engine_core::store::Store;
use holdfast_engine_core::store::memory::MemoryStore;
use holdfast_engine_core::tree::entry::{Content, Entry, EntryKind, Extent};
use holdfast_engine_core::tree::layout::Layout;
use holdfast_engine_core::tree::lists::{read_list, read_refs};
use kit::disk::{
    MemoryDisk, back_up, back_up_telling, contents, disk, file, machine, range, unknown,
};
use kit::noise;
use proptest::prelude::*;

const CELL: u64 = CELL_BYTES;
const GRAIN: u64 = GRAIN_BYTES;

fn pool() -> Arc<Pool> {
    Arc::new(kit::create(Arc::new(MemoryStore::new())))
}

/// With chunks as usual.
fn usual_pool() -> Arc<Pool> {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    Arc::new(Pool::create(store, &kit::KEY, PoolConfig::default(), 0, None).unwrap())
}

/// Where each chunk of a file lies; every one in one cell.
fn assert_cut_well(pool: &Pool, entry: &Entry) {
    let mut layout = Layout::new(entry);
    for reference in read_refs(pool, &entry.content).unwrap() {
        let mut parts = Vec::new();
        assert!(layout.place(reference, |part| parts.push(part)));
        assert_eq!(parts.len(), 1, "a chunk of which nothing is used, or in two extents");
        let (at, end) = (parts[0].offset, parts[0].end());
        assert_eq!(at / CELL, (end - 1) / CELL, "{} bytes at {at}", end - at);
    }
    layout.finish(entry).unwrap();
    let told: u64 = entry.lists.iter().sum();
    assert_eq!(told > 0, matches!(entry.content, Content::Listed { .. }));
    assert!(told == 0 || told == layout.end());
}

/// A change of a disk.
#[derive(Clone, Debug)]
enum Change {
    Noise(u64, u64, u64),
    Zero(u64, u64),
    Same(u64, u64),
}

fn change(size: u64) -> impl Strategy<Value = Change> {
    let place = (0..size, prop_oneof![1..5000_u64, 1..200_000_u64, 1..CELL]);
    let aligned = (0..size / 4096, 1..40_u64).prop_map(|(at, length)| (at * 4096, length * 4096));
    prop_oneof![
        (prop_oneof![place.clone(), aligned.clone()], any::<u64>())
            .prop_map(|((at, length), seed)| Change::Noise(at, length.min(300_000), seed)),
        prop_oneof![place, aligned.clone()].prop_map(|(at, length)| Change::Zero(at, length)),
        aligned.prop_map(|(at, length)| Change::Same(at, length)),
    ]
}

/// Makes the changes; which bytes may have changed, as ranges in no order.
fn apply(bytes: &mut [u8], changes: &[Change]) -> Vec<(u64, u64)> {
    let mut touched = Vec::new();
    for change in changes {
        let (Change::Noise(at, length, _) | Change::Zero(at, length) | Change::Same(at, length)) =
            change;
        let from = *at as usize;
        let upto = (from + *length as usize).min(bytes.len());
        match change {
            Change::Noise(_, _, seed) => {
                bytes[from..upto].copy_from_slice(&noise(upto - from, *seed));
            }
            Change::Zero(..) => bytes[from..upto].fill(0),
            Change::Same(..) => {}
        }
        touched.push((from as u64, upto as u64));
    }
    touched
}

/// The ranges of a disk where `what` says of each block what it is.
fn ranges(size: u64, block: u64, what: impl Fn(u64, u64) -> What) -> Vec<Range> {
    let mut ranges = Vec::new();
    let mut at = 0;
    while at < size {
        let end = (at + block).min(size);
        ranges.push(range(at, end - at, what(at, end)));
        at = end;
    }
    ranges
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn an_image_has_the_disk_whatever_changed_and_whatever_was_known_of_it(
        size in prop_oneof![1..3 * CELL, Just(2 * CELL), Just(CELL + GRAIN)],
        first in prop::collection::vec(change(2 * CELL), 0..6),
        rounds in prop::collection::vec(
            (prop::collection::vec(change(2 * CELL), 0..5), 0..200_000_u64), 1..4),
        block in prop_oneof![Just(512_u64), Just(4096), Just(GRAIN), 1000..70_000_u64],
        careless in any::<bool>(),
    ) {
        let pool = pool();
        let mut bytes = vec![0; size as usize];
        let within = |changes: Vec<Change>, size: usize| -> Vec<Change> {
            let fits = |change: &Change| {
                let (Change::Noise(at, ..) | Change::Zero(at, _) | Change::Same(at, _)) = change;
                (*at as usize) < size
            };
            changes.into_iter().filter(fits).collect()
        };
        let first = within(first, bytes.len());
        apply(&mut bytes, &first);
        let is_zero = |bytes: &[u8], from: u64, upto: u64| {
            bytes[from as usize..upto as usize].iter().all(|byte| *byte == 0)
        };
        let known = ranges(size, block, |from, upto| match is_zero(&bytes, from, upto) {
            true if !careless => What::Hole,
            _ => What::Data,
        });
        let source = MemoryDisk::new(bytes.clone());
        let mut image = back_up(&pool, &machine(vec![disk(&source, known)], None)).unwrap();
        prop_assert!(contents(&pool, &image, "/disks/vda") == bytes);
        assert_cut_well(&pool, &file(&pool, &image, "/disks/vda"));
        for (changes, growth) in rounds {
            let old = bytes.len() as u64;
            bytes.resize((old + growth) as usize, 0);
            let changes = within(changes, bytes.len());
            let touched = apply(&mut bytes, &changes);
            let known = ranges(bytes.len() as u64, block, |from, upto| {
                let changed = upto > old || touched.iter().any(|(a, b)| *a < upto && from < *b);
                match (changed, is_zero(&bytes, from, upto)) {
                    (false, _) => What::Same,
                    (true, true) if !careless => What::Hole,
                    (true, _) => What::Data,
                }
            });
            let source = MemoryDisk::new(bytes.clone());
            image = back_up(&pool, &machine(vec![disk(&source, known)], Some(&image))).unwrap();
            prop_assert!(contents(&pool, &image, "/disks/vda") == bytes);
            assert_cut_well(&pool, &file(&pool, &image, "/disks/vda"));
        }
        prop_assert_eq!(kit::check(&pool).unwrap(), []);
        prop_assert_eq!(kit::stored_twice(&pool), []);
    }
}

#[test]
fn zeroes_become_holes_whoever_found_them() {
    let pool = pool();
    let size = 3 * CELL + 12_345;
    let mut bytes = vec![0; size as usize];
    bytes[5_000_000..5_000_100].fill(1);
    let source = MemoryDisk::new(bytes.clone());
    let image = back_up(&pool, &machine(vec![unknown(&source)], None)).unwrap();
    let entry = file(&pool, &image, "/disks/vda");
    let grain = 5_000_000 / GRAIN * GRAIN;
    assert_eq!(entry.extents, Some(vec![Extent { offset: grain, length: GRAIN }]));
    let known = vec![
        range(0, 5_000_000, What::Hole),
        range(5_000_000, 100, What::Data),
        range(5_000_100, size - 5_000_100, What::Hole),
    ];
    let source = MemoryDisk::new(bytes);
    let again = back_up(&pool, &machine(vec![disk(&source, known)], None)).unwrap();
    assert_eq!(file(&pool, &again, "/disks/vda"), entry, "as good as what was read");
    assert_eq!(source.read.load(Ordering::SeqCst), 4096);
}

#[test]
fn an_unchanged_machine_is_the_same_tree_and_nothing_of_it_is_read() {
    let pool = pool();
    let source = MemoryDisk::new(noise(300_000, 1));
    let first = back_up(&pool, &machine(vec![unknown(&source)], None)).unwrap();
    let read = source.read.load(Ordering::SeqCst);
    assert_eq!(read, 300_000);
    let same = disk(&source, vec![range(0, 300_000, What::Same)]);
    let second = back_up(&pool, &machine(vec![same], Some(&first))).unwrap();
    assert_eq!(second.root.subtree, first.root.subtree);
    assert_eq!(second.parent, Some(first.id));
    assert_eq!(source.read.load(Ordering::SeqCst), read);
    assert_eq!(contents(&pool, &second, "/definitions/domain.xml"), b"<domain/>");
    assert_eq!(file(&pool, &second, "/disks/vda").mode, 0o600);
    assert_eq!(second.labels().collect::<Vec<_>>(), [("machine", "a-b")]);
}

#[test]
fn an_incremental_reads_little_more_than_what_changed() {
    let pool = usual_pool();
    let size = 64 << 20;
    let mut bytes = noise(size, 1);
    let source = MemoryDisk::new(bytes.clone());
    let first = back_up(&pool, &machine(vec![unknown(&source)], None)).unwrap();
    let changed = [3_u64, 100, 101, 500, 900];
    for grain in changed {
        let from = (grain * GRAIN) as usize;
        bytes[from..from + GRAIN as usize].copy_from_slice(&noise(GRAIN as usize, grain));
    }
    let known = ranges(size as u64, GRAIN, |from, _| match changed.contains(&(from / GRAIN)) {
        true => What::Data,
        false => What::Same,
    });
    let source = MemoryDisk::new(bytes.clone());
    let second = back_up(&pool, &machine(vec![disk(&source, known)], Some(&first))).unwrap();
    assert!(contents(&pool, &second, "/disks/vda") == bytes);
    let read = source.read.load(Ordering::SeqCst);
    assert!(read < changed.len() as u64 * GRAIN * 13 / 10, "{read} bytes read");
    let entry = file(&pool, &second, "/disks/vda");
    assert!(!entry.skips.is_empty());
    // Other changes in the same chunks, then all at once, and what comes back is the disk.
    let mut image = second;
    for round in 0..4_u64 {
        let from = (100 * GRAIN + 20_000 * round) as usize;
        bytes[from..from + 9000].copy_from_slice(&noise(9000, round));
        let known = ranges(size as u64, 1000, |at, upto| {
            match at < from as u64 + 9000 && upto > from as u64 {
                true => What::Data,
                false => What::Same,
            }
        });
        let source = MemoryDisk::new(bytes.clone());
        let request = machine(vec![disk(&source, known)], Some(&image));
        image = back_up(&pool, &request).unwrap();
        assert!(contents(&pool, &image, "/disks/vda") == bytes);
        let to = kit::disk::MemorySink::new(vec![0; size], true);
        assert!(restored(&pool, &image, &to).unwrap() == bytes);
    }
    assert_eq!(kit::restore(&pool, &image).unwrap().findings, []);
    assert_eq!(kit::check(&pool).unwrap(), []);
}

#[test]
fn a_disk_that_grows_and_shrinks_keeps_what_is_the_same() {
    let pool = pool();
    let mut bytes = noise(9_000_000, 1);
    let source = MemoryDisk::new(bytes.clone());
    let mut image = back_up(&pool, &machine(vec![unknown(&source)], None)).unwrap();
    for size in [9_700_001, 6_000_000, 6_000_100, 8_500_000] {
        let old = bytes.len();
        bytes.truncate(size);
        bytes.extend(noise(size.saturating_sub(bytes.len()), size as u64));
        let same = old.min(size) as u64;
        let mut known = vec![range(0, same, What::Same)];
        known.push(range(same, size as u64 - same, What::Data));
        let source = MemoryDisk::new(bytes.clone());
        let request = machine(vec![disk(&source, known)], Some(&image));
        image = back_up(&pool, &request).unwrap();
        assert!(contents(&pool, &image, "/disks/vda") == bytes);
        assert_cut_well(&pool, &file(&pool, &image, "/disks/vda"));
        let read = source.read.load(Ordering::SeqCst);
        assert!(read <= size as u64 - same + 2 * 4096 + 5000, "{read} bytes read at {size}");
    }
}

#[test]
fn a_change_in_one_place_leaves_the_lists_of_others() {
    let pool = pool();
    let mut bytes = noise(12 << 20, 1);
    let size = bytes.len() as u64;
    let source = MemoryDisk::new(bytes.clone());
    let first = back_up(&pool, &machine(vec![unknown(&source)], None)).unwrap();
    bytes[100_000] ^= 1;
    let source = MemoryDisk::new(bytes);
    let known = ranges(size, GRAIN, |from, _| match from == GRAIN {
        true => What::Data,
        false => What::Same,
    });
    let second = back_up(&pool, &machine(vec![disk(&source, known)], Some(&first))).unwrap();
    let lists = |image| {
        let Content::Listed { depth: 2, list } = file(&pool, image, "/disks/vda").content else {
            panic!("no list of lists");
        };
        read_list(&*pool, &list).unwrap()
    };
    let (before, after) = (lists(&first), lists(&second));
    let kept = before.iter().filter(|list| after.contains(list)).count();
    assert_eq!(kept + 1, before.len());
}

#[test]
fn what_is_said_to_be_the_same_is_asked_of_a_parent_that_has_it() {
    let pool = pool();
    let source = MemoryDisk::new(noise(200_000, 1));
    let first = back_up(&pool, &machine(vec![unknown(&source)], None)).unwrap();
    let larger = MemoryDisk::new(noise(300_000, 1));
    let same = || disk(&source, vec![range(0, 200_000, What::Same)]);
    let renamed = holdfast_engine_core::backup::machine::DiskInput { name: "vdb".into(), ..same() };
    let beyond = disk(&larger, vec![range(0, 300_000, What::Same)]);
    let gone = holdfast_engine_core::manifest::Manifest {
        id: holdfast_engine_core::ids::Id([9; 16]),
        ..first.clone()
    };
    for (disks, parent) in [
        (vec![same()], None),
        (vec![same()], Some(&gone)),
        (vec![renamed], Some(&first)),
        (vec![beyond], Some(&first)),
        (vec![same(), same()], Some(&first)),
    ] {
        let refused = back_up(&pool, &machine(disks, parent)).unwrap_err();
        assert_eq!(refused.code(), "invalid", "{refused}");
    }
    assert_eq!(pool.images().unwrap().len(), 1);
}

#[test]
fn a_disk_that_cannot_be_read_ends_the_backup_and_is_named_with_the_place() {
    let pool = pool();
    let bytes = noise(9_000_000, 1);
    let source = MemoryDisk::with_bad(bytes.clone(), 5_000_000);
    let error = back_up(&pool, &machine(vec![unknown(&source)], None)).unwrap_err();
    assert_eq!(error.code(), "io");
    assert!(error.to_string().contains("disk 'vda': reading at byte 5000000"), "{error}");
    assert_eq!(pool.images().unwrap(), []);
    let image = back_up(&pool, &machine(vec![unknown(&MemoryDisk::new(bytes.clone()))], None));
    assert!(contents(&pool, &image.unwrap(), "/disks/vda") == bytes);
    assert_eq!(kit::stored_twice(&pool), []);
}

#[test]
fn names_that_no_image_can_have_are_refused() {
    let pool = pool();
    let source = MemoryDisk::new(noise(1000, 1));
    for path in ["", "/etc", "a/b/c", "disks/vda", "disks", "..", "definitions", "a//b"] {
        let mut request = machine(vec![unknown(&source)], None);
        request.files.insert(path.to_owned(), Vec::new());
        let refused = back_up(&pool, &request).unwrap_err();
        assert_eq!(refused.code(), "invalid", "{path}: {refused}");
    }
}

#[test]
fn a_machine_without_disks_and_disks_without_bytes_have_images() {
    let pool = pool();
    let empty = MemoryDisk::new(Vec::new());
    for disks in [vec![], vec![disk(&empty, vec![])]] {
        let count = disks.len();
        let image = back_up(&pool, &machine(disks, None)).unwrap();
        assert_eq!(contents(&pool, &image, "/machine.json"), b"{}");
        if count > 0 {
            assert_eq!(file(&pool, &image, "/disks/vda").content, Content::Empty);
        }
    }
}

#[test]
fn lists_of_the_parent_that_are_damaged_cost_reading_and_are_told() {
    let store = Arc::new(MemoryStore::new());
    let bytes = noise(9_000_000, 1);
    let source = MemoryDisk::new(bytes.clone());
    let first = {
        let pool = kit::create(store.clone());
        back_up(&pool, &machine(vec![unknown(&source)], None)).unwrap()
    };
    let pool = kit::open(store.clone()).unwrap();
    let Content::Listed { depth: 2, list } = file(&pool, &first, "/disks/vda").content else {
        panic!("no list of lists");
    };
    let inner = read_list(&pool, &list).unwrap()[1];
    let pack = pool.index().lookup(&inner.name).unwrap().pack;
    assert!(pool.chunk(Kind::List, &inner, &Default::default()).is_ok());
    // The directories are in other packs: those of metadata are small.
    let disks = file(&pool, &first, "/disks").subtree.unwrap();
    assert_ne!(pool.index().lookup(&disks.name).unwrap().pack, pack);
    let key = pack.key();
    let mut rotten = store.get(&key).unwrap();
    for byte in rotten.iter_mut() {
        *byte ^= 1;
    }
    store.put(&key, &rotten).unwrap();
    let pool = Arc::new(kit::open(store).unwrap());
    let read = source.read.load(Ordering::SeqCst);
    // Of lists that nothing is wanted of only the names matter.
    let same = disk(&source, vec![range(0, 9_000_000, What::Same)]);
    let (other, findings) = back_up_telling(&pool, &machine(vec![same], Some(&first))).unwrap();
    assert_eq!((other.root.subtree, findings.kept()), (first.root.subtree, vec![]));
    assert_eq!(source.read.load(Ordering::SeqCst), read);
    let known = ranges(9_000_000, GRAIN, |from, _| match from / GRAIN % 4 {
        0 => What::Data,
        _ => What::Same,
    });
    let same = disk(&source, known);
    let (second, findings) = back_up_telling(&pool, &machine(vec![same], Some(&first))).unwrap();
    assert!(source.read.load(Ordering::SeqCst) > read);
    assert_eq!(findings.kept()[0].code, "previous-unreadable");
    let entry = file(&pool, &second, "/disks/vda");
    assert_eq!(entry.size, 9_000_000);
}

/// Writes a disk of the image; what became of `to`.
fn restored(
    pool: &Pool,
    image: &holdfast_engine_core::manifest::Manifest,
    to: &Arc<kit::disk::MemorySink>,
) -> holdfast_engine_core::error::Result<Vec<u8>> {
    let (path, progress) = (b"/disks/vda".to_vec(), Default::default());
    let request = restore::disk::Request { path, verify: true, workers: 3, progress };
    let (counters, cancel) = (Default::default(), Default::default());
    let done = restore::disk::run(pool, image, &request, None, &**to, &counters, &cancel)?;
    assert_eq!((done.files, done.verified_files), (1, 1));
    Ok(to.bytes.lock().clone())
}

#[test]
fn a_restored_disk_is_the_disk_and_its_holes_are_written_only_where_something_was() {
    let pool = pool();
    let mut bytes = noise(9_000_001, 1);
    bytes[1_000_000..3_000_000].fill(0);
    bytes[8_000_000..].fill(0);
    let source = MemoryDisk::new(bytes.clone());
    let image = back_up(&pool, &machine(vec![unknown(&source)], None)).unwrap();
    let fresh = kit::disk::MemorySink::new(vec![0; bytes.len()], true);
    assert!(restored(&pool, &image, &fresh).unwrap() == bytes);
    assert_eq!(fresh.zeroed.load(Ordering::SeqCst), 0);
    assert_eq!(fresh.flushed.load(Ordering::SeqCst), 1);
    let used = kit::disk::MemorySink::new(vec![9; bytes.len() + 10], false);
    assert!(restored(&pool, &image, &used).unwrap()[..bytes.len()] == bytes);
    assert!(used.zeroed.load(Ordering::SeqCst) > 2_500_000);
    let small = kit::disk::MemorySink::new(vec![0; 100], true);
    assert_eq!(restored(&pool, &image, &small).unwrap_err().code(), "invalid");
    let failing = kit::disk::MemorySink::failing(vec![0; bytes.len()], 4_000_000);
    let error = restored(&pool, &image, &failing).unwrap_err();
    assert!(error.to_string().contains("writing at byte 4000000"), "{error}");
}

#[test]
fn a_disk_of_which_a_chunk_is_lost_is_not_restored() {
    let store = Arc::new(MemoryStore::new());
    let bytes = noise(2_000_000, 1);
    let image = {
        let pool = kit::create(store.clone());
        let source = MemoryDisk::new(bytes.clone());
        back_up(&pool, &machine(vec![unknown(&source)], None)).unwrap()
    };
    let pool = kit::open(store.clone()).unwrap();
    let refs = read_refs(&pool, &file(&pool, &image, "/disks/vda").content).unwrap();
    let pack = pool.index().lookup(&refs[refs.len() / 2].name).unwrap().pack;
    store.delete(&pack.key()).unwrap();
    let pool = kit::open(store).unwrap();
    let to = kit::disk::MemorySink::new(vec![0; bytes.len()], true);
    let error = restored(&pool, &image, &to).unwrap_err();
    assert_eq!(error.code(), "object-missing");
}

fn a_row(name: &str, kind: EntryKind, size: u64) -> Row {
    let target = (kind == EntryKind::Symlink).then(|| b"there".to_vec());
    Row {
        name: name.into(),
        kind,
        mode: 0o100_644,
        uid: 5,
        gid: 6,
        size,
        mtime_ns: -1,
        ctime_ns: 2,
        inode: 3,
        target,
    }
}

fn index(pool: &Arc<Pool>) -> TreeWriter {
    let request = written::Request {
        source: "inside:test".into(),
        host: "test".into(),
        started_ns: kit::now_ns(),
        parent: None,
        labels: [("index_of".to_owned(), "x".to_owned())].into(),
        software: "test".into(),
    };
    TreeWriter::begin(Arc::clone(pool), request).unwrap()
}

#[test]
fn directories_that_are_told_become_an_image_without_content() {
    let pool = pool();
    let writer = index(&pool);
    let many = (0..5000).map(|at| a_row(&format!("file {at}"), EntryKind::File, at)).collect();
    writer.add_dir(b"/vda/p1/etc/", many).unwrap();
    let etc = vec![
        a_row("lib", EntryKind::Symlink, 4),
        a_row("etc", EntryKind::Dir, 4096),
        a_row("lost", EntryKind::Dir, 4096),
        a_row("null", EntryKind::Char, 0),
        a_row("a/b", EntryKind::File, 1),
        a_row("lib", EntryKind::File, 1),
    ];
    writer.add_dir(b"/vda/p1", etc).unwrap();
    writer.add_dir(b"/vda", vec![a_row("p1", EntryKind::Dir, 0)]).unwrap();
    writer.add_dir(b"/", vec![a_row("vda", EntryKind::Dir, 0)]).unwrap();
    let image = writer.finish().unwrap();
    assert_eq!(writer.finish().unwrap(), image);
    assert!(writer.add_dir(b"/", Vec::new()).is_err());
    assert_eq!(pool.images().unwrap(), std::slice::from_ref(&image));
    assert_eq!(image.labels().collect::<Vec<_>>(), [("index_of", "x")]);
    let codes: Vec<_> = image.findings.iter().map(|finding| finding.code.as_str()).collect();
    assert_eq!(codes, ["illegal-name", "illegal-name"]);
    let found = file(&pool, &image, "/vda/p1/etc/file 4999");
    assert_eq!(
        (found.size, found.mode, found.mtime.sec, found.mtime.nsec),
        (4999, 0o644, -1, 999_999_999)
    );
    assert_eq!((found.content, found.extents), (Content::Empty, Some(Vec::new())));
    assert_eq!(file(&pool, &image, "/vda/p1/lib").target, Some(b"there".to_vec()));
    assert_eq!(file(&pool, &image, "/vda/p1/lost").subtree, None);
    assert_eq!(image.stats["files"], 5000);
    assert_eq!(kit::check(&pool).unwrap(), []);
}

#[test]
fn an_index_that_is_not_whole_is_no_image() {
    let pool = pool();
    index(&pool).abandon();
    drop(index(&pool));
    let writer = index(&pool);
    writer.add_dir(b"/vda", Vec::new()).unwrap();
    assert_eq!(writer.finish().unwrap_err().code(), "invalid");
    let writer = index(&pool);
    writer.add_dir(b"/vda", Vec::new()).unwrap();
    writer.add_dir(b"/", Vec::new()).unwrap();
    let error = writer.finish().unwrap_err();
    assert!(error.to_string().contains("'/vda' is in no directory"), "{error}");
    assert_eq!(pool.images().unwrap(), []);
}
