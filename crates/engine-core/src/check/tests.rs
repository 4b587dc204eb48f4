#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use super::*;
use crate::finding::{Finding, Severity};
use crate::store::Store;
use crate::store::faulty::{Fault, FaultyStore, Operation, Rule};
use crate::store::list_sorted;
use crate::store::memory::MemoryStore;
use crate::testing::images::{self, back_up, files, packs, read_back};

const ALL_DATA: Request = Request { read_data: true };
const NO_DATA: Request = Request { read_data: false };

fn check_now(pool: &Pool, request: Request) -> (Checked, Vec<Finding>) {
    let findings = Findings::default();
    let checked = check(pool, request, &Counters::default(), &findings, &Cancel::new()).unwrap();
    (checked, findings.kept())
}

fn verify_now(pool: &Pool, images: Option<&[Id]>, request: Request) -> (Checked, Vec<Finding>) {
    let findings = Findings::default();
    let counters = Counters::default();
    let checked = verify(pool, images, request, &counters, &findings, &Cancel::new()).unwrap();
    (checked, findings.kept())
}

fn new_pool() -> (Arc<MemoryStore>, Pool) {
    let store = Arc::new(MemoryStore::new());
    let pool = images::pool(store.clone()).unwrap();
    (store, pool)
}

fn flip(store: &dyn Store, key: &str, at: usize) {
    let mut bytes = store.get(key).unwrap();
    bytes[at] ^= 0x10;
    store.put(key, &bytes).unwrap();
}

fn names(findings: &[Finding], text: &str) -> bool {
    findings.iter().any(|finding| {
        finding.message.contains(text) || String::from_utf8_lossy(&finding.path).contains(text)
    })
}

#[test]
fn a_sound_pool_has_no_findings_and_everything_was_looked_at() {
    let (store, pool) = new_pool();
    let content = files("a", 3, 10, 5000);
    let image = back_up(&pool, 1, &content).unwrap();
    back_up(&pool, 2, &files("b", 2, 3, 5000)).unwrap();
    let sizes: u64 = list_sorted(&*store, "packs/").unwrap().iter().map(|(_, size)| size).sum();
    for request in [NO_DATA, ALL_DATA] {
        let (checked, findings) = check_now(&pool, request);
        assert_eq!(findings, []);
        assert_eq!((checked.images, checked.packs as usize), (2, packs(&*store).len()));
        assert_eq!(checked.chunks, pool.index().snapshot().len());
        assert_eq!(checked.bytes_read > sizes * 9 / 10, request.read_data);
        let (verified, findings) = verify_now(&pool, Some(&[image]), request);
        assert_eq!(findings, []);
        assert_eq!((verified.images, verified.chunks), (1, 3 * 10 * 3 + 3 + 1));
    }
    assert_eq!(read_back(&pool, &image).unwrap(), content);
}

#[test]
fn a_flipped_bit_in_any_byte_of_a_pool_is_found_and_its_object_named() {
    let (store, pool) = new_pool();
    back_up(&pool, 1, &files("a", 1, 1, 100)).unwrap();
    drop(pool);
    let mut flipped = 0;
    for prefix in ["packs/", "index/", "images/"] {
        for (key, size) in list_sorted(&*store, prefix).unwrap() {
            for at in 0..size as usize {
                flip(&*store, &key, at);
                let pool = images::open(store.clone());
                let told = match pool {
                    Ok(pool) => {
                        let (_, findings) = check_now(&pool, ALL_DATA);
                        let wrong = findings.iter().any(|one| one.severity == Severity::Error);
                        wrong && names(&findings, &key)
                    }
                    Err(error) => error.to_string().contains(&key),
                };
                assert!(told, "byte {at} of {key}");
                flip(&*store, &key, at);
                flipped += 1;
            }
        }
    }
    assert!(flipped > 1000, "{flipped}");
}

#[test]
fn damaged_data_is_found_by_reading_it_and_the_files_it_hurts_are_named() {
    let (store, pool) = new_pool();
    let image = back_up(&pool, 1, &files("a", 1, 1, 1500)).unwrap();
    let other = back_up(&pool, 2, &files("b", 1, 1, 1500)).unwrap();
    let hurt = pool.index().packs().into_iter().find(|pack| pack.kind == 0).unwrap();
    flip(&*store, &hurt.id.key(), 60);
    for request in [NO_DATA, ALL_DATA] {
        let (_, findings) = check_now(&pool, request);
        assert_eq!(findings.is_empty(), !request.read_data);
    }
    let (_, checked) = check_now(&pool, ALL_DATA);
    let (_, verified) = verify_now(&pool, None, ALL_DATA);
    for findings in [checked, verified] {
        assert!(names(&findings, &hurt.id.key()), "{findings:?}");
        let hit = |image: &Id, file: &str| names(&findings, &format!("image {image}:/{file}"));
        assert!(hit(&image, "a-0/0") != hit(&other, "b-0/0"), "{findings:?}");
    }
    let unhurt: Vec<_> = [image, other]
        .into_iter()
        .filter(|image| verify_now(&pool, Some(&[*image]), ALL_DATA).1.is_empty())
        .collect();
    assert_eq!(unhurt.len(), 1, "the other image is whole");
    assert!(read_back(&pool, &unhurt[0]).is_ok());
}

#[test]
fn a_pack_that_is_missing_cut_or_unlisted_is_named_and_so_are_the_files() {
    let (store, pool) = new_pool();
    let image = back_up(&pool, 1, &files("a", 1, 1, 1500)).unwrap();
    let data = pool.index().packs().into_iter().find(|pack| pack.kind == 0).unwrap();
    let key = data.id.key();
    let whole = store.get(&key).unwrap();
    let file = format!("image {image}:/a-0/0");

    store.put(&key, &whole[..whole.len() - 1]).unwrap();
    let cut = [check_now(&pool, NO_DATA).1, verify_now(&pool, None, NO_DATA).1];
    store.delete(&key).unwrap();
    let missing = [check_now(&pool, NO_DATA).1, verify_now(&pool, None, NO_DATA).1];
    for (findings, code) in [(cut, "pack-damaged"), (missing, "pack-missing")] {
        for findings in findings {
            assert!(findings.iter().any(|one| one.code == code && one.path == key.as_bytes()));
            assert!(names(&findings, &file), "{findings:?}");
        }
    }

    store.put(&key, &whole).unwrap();
    let segment = list_sorted(&*store, "index/").unwrap().remove(0).0;
    store.delete(&segment).unwrap();
    let (_, findings) = check_now(&images::open(store.clone()).unwrap(), NO_DATA);
    let unlisted = findings.iter().filter(|one| one.code == "pack-unlisted");
    assert_eq!(unlisted.clone().count(), 2);
    assert!(unlisted.into_iter().all(|one| one.severity == Severity::Warning));
    assert!(findings.iter().any(|one| one.code == "chunk-missing"));
}

#[test]
fn an_index_that_disagrees_with_the_footers_is_named() {
    let (_, pool) = new_pool();
    back_up(&pool, 1, &files("a", 1, 1, 1500)).unwrap();
    let pack = pool.index().packs()[0];
    let place = crate::index::Place { block: 0, offset: 0, length: 77 };
    let record = crate::index::Record { prefix: [3; 16], pack: 0, place };
    crate::index::write_segment(pool.store(), pool.keys(), &pool.id(), &[pack], vec![record])
        .unwrap();
    let (_, findings) = check_now(&pool, NO_DATA);
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert_eq!(findings[0].code, "index-disagrees");
    assert!(findings[0].message.contains(&pack.id.key()));
}

#[test]
fn a_chunk_with_a_second_sound_place_hurts_no_file() {
    let (store, pool) = new_pool();
    let content = files("a", 1, 1, 1500);
    let image = back_up(&pool, 1, &content).unwrap();
    let first: HashSet<_> = pool.index().packs().iter().map(|pack| pack.id).collect();
    images::store(&pool, 2, &content, first.clone()).unwrap();
    for pack in first {
        flip(&*store, &pack.key(), 60);
    }
    let (_, findings) = check_now(&pool, ALL_DATA);
    assert_eq!(findings.len(), 2, "the two packs: {findings:?}");
    assert!(!names(&findings, "image"));
    assert_eq!(read_back(&pool, &image).unwrap(), content);
}

#[test]
fn what_cannot_be_read_is_a_finding_and_not_passed_over() {
    let store = Arc::new(FaultyStore::new(MemoryStore::new()));
    let pool = images::pool(store.clone()).unwrap();
    back_up(&pool, 1, &files("a", 1, 5, 5000)).unwrap();
    store.add(Rule::new(Fault::Io).on(Operation::GetRange).under("packs/").times(1));
    let (_, findings) = check_now(&pool, ALL_DATA);
    assert!(findings.iter().any(|one| one.code == "unreadable"), "{findings:?}");
    store
        .add(Rule::new(Fault::Short(10)).on(Operation::GetRange).under("packs/").after(5).times(1));
    assert!(!check_now(&pool, ALL_DATA).1.is_empty());
    store.mend();
    assert_eq!(check_now(&pool, ALL_DATA).1, []);
}

#[test]
fn an_unknown_image_is_refused_and_a_damaged_manifest_named() {
    let (store, pool) = new_pool();
    let image = back_up(&pool, 1, &files("a", 1, 1, 1500)).unwrap();
    let (counters, findings) = (Counters::default(), Findings::default());
    let unknown =
        verify(&pool, Some(&[Id([1; 16])]), NO_DATA, &counters, &findings, &Cancel::new());
    assert_eq!(unknown.unwrap_err().code(), "image-missing");
    let key = Manifest::key(&image);
    flip(&*store, &key, 70);
    let (checked, findings) = verify_now(&pool, Some(&[image]), NO_DATA);
    assert_eq!((checked.images, findings[0].path.as_slice()), (0, key.as_bytes()));
}

#[test]
fn a_cancelled_check_ends() {
    let (_, pool) = new_pool();
    back_up(&pool, 1, &files("a", 1, 1, 1500)).unwrap();
    let cancel = Cancel::new();
    cancel.cancel();
    let (counters, findings) = (Counters::default(), Findings::default());
    let ended = check(&pool, ALL_DATA, &counters, &findings, &cancel);
    assert!(matches!(ended, Err(Error::Cancelled)));
    let ended = verify(&pool, None, NO_DATA, &counters, &findings, &cancel);
    assert!(matches!(ended, Err(Error::Cancelled)));
}
