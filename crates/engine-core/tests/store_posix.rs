//! What only the POSIX store promises: what it does on real folders, and over power cuts.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use holdfast_engine_core::error::{Error, Result};
use holdfast_engine_core::store::disk::Disk;
use holdfast_engine_core::store::posix::PosixStore;
use holdfast_engine_core::store::simdisk::{Loss, SimDisk};
use holdfast_engine_core::store::temporary::Writer;
use holdfast_engine_core::store::{Store, list_sorted};

fn words<T>(result: Result<T>) -> (String, &'static str) {
    let error = result.err().unwrap();
    (error.to_string(), error.code())
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_folder_that_is_not_there_or_no_folder_is_no_pool() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing");
    let (text, code) = words(PosixStore::open(&missing));
    assert_eq!(code, "not-a-pool");
    assert!(text.contains(missing.to_str().unwrap()) && text.contains("no such folder"), "{text}");
    let file = folder.path().join("file");
    fs::write(&file, b"x").unwrap();
    let (text, code) = words(PosixStore::open(&file));
    assert_eq!(code, "not-a-pool");
    assert!(text.contains("not a folder"), "{text}");
    assert!(PosixStore::create(&file).is_err());
    assert_eq!(fs::read(&file).unwrap(), b"x");
}

#[test]
fn a_pool_folder_is_made_with_those_above_it() {
    let folder = tempfile::tempdir().unwrap();
    let deep = folder.path().join("a/b/c");
    PosixStore::create(&deep).unwrap().put("pool", b"x").unwrap();
    assert_eq!(PosixStore::open(&deep).unwrap().get("pool").unwrap(), b"x");
    PosixStore::create(&deep).unwrap();
}

#[test]
fn a_folder_with_foreign_files_does_not_become_a_pool() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("lost+found")).unwrap();
    PosixStore::create(folder.path()).unwrap();
    fs::write(folder.path().join("thesis.tex"), b"x").unwrap();
    let (text, code) = words(PosixStore::create(folder.path()));
    assert_eq!(code, "invalid");
    assert!(text.contains("thesis.tex") && text.contains(folder.path().to_str().unwrap()));
    assert_eq!(names(folder.path()), ["lost+found", "thesis.tex"]);
}

#[test]
fn opening_and_reading_write_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = PosixStore::open(folder.path()).unwrap();
    assert!(store.get("pool").unwrap_err().is_missing());
    assert!(list_sorted(&store, "packs/").unwrap().is_empty());
    store.delete("pool").unwrap();
    assert!(names(folder.path()).is_empty());
}

#[test]
fn foreign_files_and_links_are_neither_listed_nor_followed() {
    let folder = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret"), b"outside").unwrap();
    let store = PosixStore::open(folder.path()).unwrap();
    store.put("packs/ab/one", b"1").unwrap();
    let packs = folder.path().join("packs");
    symlink(outside.path(), packs.join("linked")).unwrap();
    symlink(outside.path().join("secret"), packs.join("ab/link")).unwrap();
    symlink(&packs, packs.join("loop")).unwrap();
    for foreign in [".DS_Store", "a b", "x~", "ab/.hidden", "ab/\u{e9}"] {
        fs::write(packs.join(foreign), b"foreign").unwrap();
    }
    rustix::fs::mknodat(
        rustix::fs::CWD,
        packs.join("ab/fifo"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    fs::write(folder.path().join("tmp/left"), b"unfinished").unwrap();
    let listed = list_sorted(&store, "").unwrap();
    assert_eq!(listed, [("packs/ab/one".to_owned(), 1)]);
    assert!(store.get("packs/ab/link").is_err());
    assert!(store.get("packs/ab/fifo").unwrap_err().is_missing());
    assert_eq!(store.size("packs/ab/link").unwrap(), None);
    assert_eq!(store.size("packs/ab/fifo").unwrap(), None);
}

#[test]
fn a_prefix_that_is_a_link_is_an_error_and_not_an_empty_list() {
    let folder = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    symlink(outside.path(), folder.path().join("packs")).unwrap();
    let store = PosixStore::open(folder.path()).unwrap();
    assert!(list_sorted(&store, "packs/").is_err());
}

#[test]
fn objects_are_for_their_owner_only() {
    let folder = tempfile::tempdir().unwrap();
    PosixStore::open(folder.path()).unwrap().put("keys/a.json", b"wrapped").unwrap();
    let mode = |path: &str| fs::metadata(folder.path().join(path)).unwrap().permissions().mode();
    assert_eq!(mode("keys/a.json") & 0o777, 0o600);
    assert_eq!(mode("keys") & 0o777, 0o700);
}

#[test]
fn temporary_files_of_dead_writers_are_swept_and_no_others() {
    let folder = tempfile::tempdir().unwrap();
    let tmp = folder.path().join("tmp");
    fs::create_dir(&tmp).unwrap();
    let here = Writer::this_process();
    let mut child = std::process::Command::new("true").spawn().unwrap();
    let dead = Writer { pid: child.id(), ..here.clone() };
    child.wait().unwrap();
    let elsewhere = Writer { run: "another.boot".into(), pid: 1 };
    let make = |writer: &Writer| {
        let path = folder.path().join(writer.new_path().unwrap());
        fs::write(&path, b"unfinished").unwrap();
        path
    };
    let old = |writer: &Writer| {
        let path = make(writer);
        let day = std::time::Duration::from_secs(25 * 60 * 60);
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(std::time::SystemTime::now() - day).unwrap();
        path
    };
    let (of_dead, of_old) = (make(&dead), old(&elsewhere));
    let (of_living, of_distant) = (make(&here), make(&elsewhere));
    let locked = old(&elsewhere);
    let lock = fs::File::open(&locked).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let foreign = tmp.join("notes.txt");
    fs::write(&foreign, b"x").unwrap();

    let store = PosixStore::open(folder.path()).unwrap();
    let mut upload = store.upload().unwrap();
    upload.write(b"living").unwrap();
    let other = PosixStore::open(folder.path()).unwrap();
    assert_eq!(other.sweep_stale().unwrap(), 0, "the first write had swept");
    upload.finish("packs/a").unwrap();

    assert!(!of_dead.exists() && !of_old.exists());
    for kept in [of_living, of_distant, locked, foreign] {
        assert!(kept.exists(), "{} was swept", kept.display());
    }
}

#[test]
fn a_folder_removed_behind_its_back_is_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let store = PosixStore::open(folder.path()).unwrap();
    store.put("packs/ab/one", b"1").unwrap();
    fs::remove_dir_all(folder.path().join("packs")).unwrap();
    fs::remove_dir_all(folder.path().join("tmp")).unwrap();
    store.put("packs/ab/two", b"2").unwrap();
    assert_eq!(store.get("packs/ab/two").unwrap(), b"2");
}

#[test]
fn a_write_that_fails_leaves_no_temporary_file() {
    let folder = tempfile::tempdir().unwrap();
    let store = PosixStore::open(folder.path()).unwrap();
    store.put("packs/ab/one", b"1").unwrap();
    fs::write(folder.path().join("index"), b"in the way").unwrap();
    let (text, code) = words(store.put("index/a", b"x"));
    assert_eq!(code, "io");
    assert!(text.contains("index") && text.contains(folder.path().to_str().unwrap()), "{text}");
    let (text, _) = words(store.put("packs/ab", b"over a folder"));
    assert!(text.contains("packs/ab"), "{text}");
    assert!(names(&folder.path().join("tmp")).is_empty());
    assert_eq!(store.get("packs/ab/one").unwrap(), b"1");
}

#[test]
fn a_full_disk_is_named_with_its_numbers() {
    let disk = SimDisk::new();
    let store = PosixStore::on(disk.clone());
    store.put("packs/a", &[1; 5000]).unwrap();
    disk.full_after(Some(0));
    let (text, code) = words(store.put("packs/b", b"x"));
    assert_eq!(code, "no-space");
    assert!(text.contains("simulated disk/tmp"), "{text}");
    assert!(text.contains("0 bytes free of 4 KiB"), "{text}");
}

/// Objects of a store, whole.
fn contents(store: &dyn Store) -> BTreeMap<String, Vec<u8>> {
    let keys = list_sorted(store, "").unwrap();
    keys.into_iter().map(|(key, _)| (key.clone(), store.get(&key).unwrap())).collect()
}

/// One step of a writer's work, and what the store holds once it has returned.
type Step = (&'static str, fn(&dyn Store) -> Result<()>);

const STEPS: [Step; 9] = [
    ("put the header", |store| store.put("pool", b"header")),
    ("put into new folders", |store| store.put("packs/ab/abc", &[1; 3000])),
    ("put into an old folder", |store| store.put("packs/ab/abd", &[2; 3000])),
    ("replace", |store| store.put("packs/ab/abc", &[3; 5000])),
    ("put if absent", |store| store.put_if_absent("images/1", &[4; 700]).map(drop)),
    ("lose the race", |store| store.put_if_absent("images/1", b"late").map(|won| assert!(!won))),
    ("delete", |store| store.delete("packs/ab/abd")),
    ("upload", |store| {
        let mut upload = store.upload()?;
        for _ in 0..4 {
            upload.write(&[5; 1000])?;
        }
        upload.finish("packs/cd/cde")
    }),
    ("delete again", |store| store.delete("images/1")),
];

/// The contents before the first step, and after each.
fn expected() -> Vec<BTreeMap<String, Vec<u8>>> {
    let store = PosixStore::on(SimDisk::new());
    let mut states = vec![BTreeMap::new()];
    for (_, step) in STEPS {
        step(&store).unwrap();
        states.push(contents(&store));
    }
    states
}

#[test]
fn after_a_power_cut_at_any_operation_every_finished_step_is_there_and_none_is_half_done() {
    let states = expected();
    let losses = [Loss::AllUnsynced, Loss::UnsyncedBytes, Loss::Nothing];
    for loss in losses.into_iter().chain((0..20).map(Loss::Some)) {
        for after in 0.. {
            let disk = SimDisk::new();
            disk.power_off_after(after);
            let store = PosixStore::on(disk.clone());
            let done = STEPS.iter().take_while(|(_, step)| step(&store).is_ok()).count();
            let off = disk.is_off();
            let last = disk.operations().pop();
            disk.crash(loss);

            let store = PosixStore::on(disk.clone());
            let found = contents(&store);
            let next = states.get(done + 1).unwrap_or(&states[done]);
            let step = STEPS.get(done).map(|(name, _)| name);
            assert!(
                found == states[done] || found == *next,
                "{loss:?} after {after} operations ({last:?}) in {step:?}: {:?}",
                found.keys()
            );
            // The work can go on, and leaves nothing behind.
            for (name, step) in STEPS.iter().skip(done) {
                let result = step(&store);
                assert!(result.is_ok(), "{name} after {loss:?}: {result:?}");
            }
            assert_eq!(contents(&store), states[STEPS.len()]);
            store.sweep_stale().unwrap();
            let mut left = Vec::new();
            disk.list("tmp", &mut |name, _| {
                left.push(name.to_owned());
                std::ops::ControlFlow::Continue(())
            })
            .unwrap();
            assert!(left.is_empty(), "{left:?}");
            if !off {
                assert_eq!(done, STEPS.len());
                assert!(after > 40, "only {after} operations");
                break;
            }
        }
    }
}

#[test]
fn the_loser_of_a_race_may_rely_on_the_winners_object() {
    let disk = SimDisk::new();
    disk.mkdir("images").unwrap();
    disk.sync_dir("").unwrap();
    let mut file = disk.create("images/1").unwrap();
    disk.write(&mut file, b"winner").unwrap();
    disk.sync_file(&mut file).unwrap();
    // The winner has not come to syncing the name.
    let store = PosixStore::on(disk.clone());
    assert!(!store.put_if_absent("images/1", b"loser").unwrap());
    disk.crash(Loss::AllUnsynced);
    assert_eq!(store.get("images/1").unwrap(), b"winner");
}

#[test]
fn a_disk_that_fills_up_at_any_operation_fails_that_step_and_keeps_the_others() {
    let states = expected();
    for after in 0.. {
        let disk = SimDisk::new();
        let store = PosixStore::on(disk.clone());
        disk.full_after(Some(after));
        let mut error = None;
        let done = STEPS.iter().take_while(|(_, step)| match step(&store) {
            Ok(()) => true,
            Err(failed) => {
                error = Some(failed);
                false
            }
        });
        let done = done.count();
        assert_eq!(contents(&store), states[done], "full after {after} operations");
        disk.full_after(None);
        match error {
            None => break,
            Some(error) => assert!(matches!(error, Error::NoSpace { .. }), "{error}"),
        }
        for (_, step) in STEPS.iter().skip(done) {
            step(&store).unwrap();
        }
        assert_eq!(contents(&store), states[STEPS.len()]);
    }
}
