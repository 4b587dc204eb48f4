//! Files that change while they are backed up.

use crate::kit;
use crate::site::*;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::Path;
use std::sync::Arc;

use holdfast_engine_core::backup;
use holdfast_engine_core::cancel::Cancel;
use holdfast_engine_core::counters::Counters;
use holdfast_engine_core::finding::Findings;
use holdfast_engine_core::manifest::Status;
use holdfast_engine_core::store::faulty::{Fault, FaultyStore, Gate, Rule};
use holdfast_engine_core::store::memory::MemoryStore;
use holdfast_engine_core::testing::compare::Compare;
use holdfast_engine_core::testing::deep::DeepDir;
use holdfast_engine_core::testing::zoo::noise;
use rustix::fs::{CWD, FileType, Mode};

/// A large file of which the first part was read when `change` is made, and what the backup then
/// says; with one worker, that all other files wait behind.
fn while_reading(prepare: impl FnOnce(&Path), change: impl FnOnce(&Path)) -> (Site, Backup) {
    while_reading_in(DeepDir::new(), 16 << 20, prepare, change)
}

fn while_reading_in(
    top: DeepDir,
    size: usize,
    prepare: impl FnOnce(&Path),
    change: impl FnOnce(&Path),
) -> (Site, Backup) {
    let store = Arc::new(FaultyStore::new(MemoryStore::new()));
    let site = Site::with_pool(kit::create(store.clone()), top);
    fs::write(site.from.join("large"), noise(1, size)).unwrap();
    prepare(&site.from);
    let gate = Gate::new();
    store.add(Rule::new(Fault::Hold(gate.clone())).under("packs/").times(1));
    let request = backup::Request { workers: 1, ..site.request() };
    let (counters, findings) = (Counters::default(), Findings::default());
    let image = std::thread::scope(|scope| {
        let running = scope.spawn(|| {
            let image = backup::run(&site.pool, &request, &counters, &findings, &Cancel::new());
            // A backup that fails early must not be waited for.
            gate.open();
            image
        });
        let reached = gate.wait_until_reached();
        change(&site.from);
        gate.open();
        let image = running.join().unwrap().unwrap();
        assert!(reached, "the backup ended before anything was stored");
        image
    });
    let backup = Backup { image, counts: counters.snapshot(), findings: findings.kept() };
    (site, backup)
}

fn restored_large(site: &Site, backup: &Backup) -> Vec<u8> {
    fs::read(site.restore(&backup.image).join("large")).unwrap()
}

#[test]
fn a_file_that_shrinks_while_it_is_read_is_kept_as_far_as_it_was_read() {
    let (site, backup) = while_reading(
        |_| {},
        |from| {
            let file = File::options().write(true).open(from.join("large")).unwrap();
            file.set_len(8 << 20).unwrap();
        },
    );
    assert_eq!(codes(&backup.findings), expected(&[("large", "changed-while-read")]));
    assert!(backup.findings[0].message.contains("shrank"), "{}", backup.findings[0].message);
    assert_eq!(backup.image.status, Status::CompletedWithErrors);
    assert!(restored_large(&site, &backup) == noise(1, 8 << 20));
    let again = site.back_up_later();
    assert_eq!(again.findings, []);
    site.assert_restored(&again.image);
}

#[test]
fn a_file_that_grows_while_it_is_read_is_kept_up_to_its_first_length() {
    let (site, backup) = while_reading(
        |_| {},
        |from| {
            let file = File::options().write(true).open(from.join("large")).unwrap();
            file.write_all_at(b"more", 16 << 20).unwrap();
        },
    );
    assert_eq!(codes(&backup.findings), expected(&[("large", "changed-while-read")]));
    assert!(backup.findings[0].message.contains("grew"), "{}", backup.findings[0].message);
    assert!(restored_large(&site, &backup) == noise(1, 16 << 20));
    let again = site.back_up_later();
    assert_eq!((again.findings.len(), again.counts.files_changed), (0, 1));
    site.assert_restored(&again.image);
}

#[test]
fn a_file_written_to_while_it_is_read_is_told_and_read_again_next_time() {
    let (site, backup) = while_reading(
        |_| {},
        |from| {
            let file = File::options().write(true).open(from.join("large")).unwrap();
            file.write_all_at(b"other", 15 << 20).unwrap();
        },
    );
    assert_eq!(codes(&backup.findings), expected(&[("large", "changed-while-read")]));
    let again = site.back_up_later();
    assert_eq!((again.findings.len(), again.counts.files_changed), (0, 1));
    site.assert_restored(&again.image);
}

#[test]
fn a_file_deleted_or_closed_off_while_it_is_read_is_kept_whole() {
    let (site, backup) = while_reading(|_| {}, |from| fs::remove_file(from.join("large")).unwrap());
    assert_eq!(codes(&backup.findings), expected(&[("large", "vanished")]));
    assert!(restored_large(&site, &backup) == noise(1, 16 << 20));

    let (site, backup) = while_reading(|_| {}, |from| set_mode(&from.join("large"), 0));
    assert_eq!(backup.findings, []);
    assert!(restored_large(&site, &backup) == noise(1, 16 << 20));
}

#[test]
fn a_sparse_file_that_shrinks_while_it_is_read_comes_back_as_far_as_it_was_read() {
    let (site, backup) = while_reading(
        |from| {
            // Ends in data, with a hole before it.
            let file = File::options().write(true).open(from.join("large")).unwrap();
            file.set_len(64 << 20).unwrap();
            file.write_all_at(b"the end", 48 << 20).unwrap();
        },
        |from| {
            let file = File::options().write(true).open(from.join("large")).unwrap();
            file.set_len(9 << 20).unwrap();
        },
    );
    assert_eq!(codes(&backup.findings), expected(&[("large", "changed-while-read")]));
    let restored = restored_large(&site, &backup);
    assert!(restored.starts_with(&noise(1, 9 << 20)));
    assert!(restored[9 << 20..].iter().all(|byte| *byte == 0));
}

#[test]
fn files_that_change_between_being_listed_and_being_looked_at_are_told_in_plain_words() {
    // In memory inode numbers only rise, so the large file is the first to be looked at.
    let (site, backup) = while_reading_in(
        DeepDir::in_memory(),
        4 << 20,
        |from| {
            for name in ["goes", "becomes a link", "becomes a fifo", "stays"] {
                fs::write(from.join(name), "secret").unwrap();
            }
            for name in ["dir goes", "dir becomes a link"] {
                fs::create_dir(from.join(name)).unwrap();
            }
            let inode = |name: &str| fs::metadata(from.join(name)).unwrap().ino();
            let names = fs::read_dir(from).unwrap().map(|entry| entry.unwrap().file_name());
            let first = names.min_by_key(|name| inode(name.to_str().unwrap())).unwrap();
            assert_eq!(first, "large", "inode numbers rise here");
        },
        |from| {
            for name in ["goes", "becomes a link", "becomes a fifo"] {
                fs::remove_file(from.join(name)).unwrap();
            }
            for name in ["dir goes", "dir becomes a link"] {
                fs::remove_dir(from.join(name)).unwrap();
            }
            symlink("/etc", from.join("dir becomes a link")).unwrap();
            symlink("/etc/passwd", from.join("becomes a link")).unwrap();
            let mode = Mode::from_raw_mode(0o600);
            rustix::fs::mknodat(CWD, from.join("becomes a fifo"), FileType::Fifo, mode, 0).unwrap();
        },
    );
    // What took the place of another thing is simply what is there now.
    assert_eq!(
        codes(&backup.findings),
        expected(&[("goes", "vanished"), ("dir goes", "vanished")])
    );
    assert!(backup.findings.iter().all(|one| one.message.contains("deleted or renamed")));
    assert_eq!(backup.image.status, Status::CompletedWithErrors);
    // The directory itself is as it was when it was opened.
    let compare = Compare { dir_times: false, ..Compare::default() };
    assert_eq!(compare.trees(&site.from, site.restore(&backup.image)).unwrap(), []);
}

#[test]
fn a_tree_that_never_holds_still_can_be_backed_up_and_what_is_kept_can_be_restored() {
    let site = Site::new();
    for number in 0..200 {
        let dir = site.from.join(format!("dir {}", number % 10));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join(number.to_string()), noise(number, 20_000)).unwrap();
    }
    let stop = std::sync::atomic::AtomicBool::new(false);
    let backups: Vec<Backup> = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut round = 0_u64;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                round += 1;
                let dir = site.top.join("from").join(format!("dir {}", round % 10));
                let at = |number: u64| dir.join((number % 200).to_string());
                let _ = match round % 6 {
                    0 => fs::write(at(round), noise(round, 30_000)),
                    1 => fs::remove_file(at(round / 2)),
                    2 => fs::rename(at(round), at(round / 3)),
                    3 => fs::remove_dir_all(&dir),
                    4 => fs::create_dir_all(&dir),
                    _ => File::create(at(round)).and_then(|file| file.set_len(50_000)),
                };
            }
        });
        let request = site.request();
        let pool = &site.pool;
        let backups = (0..15)
            .map(|_| {
                let (counters, findings) = (Counters::default(), Findings::default());
                let request = backup::Request { started_ns: kit::now_ns(), ..request.clone() };
                let cancel = Cancel::new();
                let image = backup::run(pool, &request, &counters, &findings, &cancel).unwrap();
                Backup { image, counts: counters.snapshot(), findings: findings.kept() }
            })
            .collect();
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        backups
    });
    for backup in &backups {
        site.restore(&backup.image);
        let plain = ["vanished", "changed-while-read"];
        for finding in &backup.findings {
            assert!(plain.contains(&finding.code.as_str()), "{finding:?}");
        }
    }
    let calm = site.back_up();
    assert_eq!(calm.findings, []);
    site.assert_restored(&calm.image);
}
