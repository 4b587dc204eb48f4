//! Real trees into a pool and back: every kind of file, every change, and trees that do not hold
//! still.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod kit;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use holdfast_engine_core::backup;
use holdfast_engine_core::cancel::Cancel;
use holdfast_engine_core::counters::{Counters, Snapshot};
use holdfast_engine_core::error::Error;
use holdfast_engine_core::finding::{Finding, Findings};
use holdfast_engine_core::manifest::{Manifest, Status};
use holdfast_engine_core::pool::{Pool, PoolConfig};
use holdfast_engine_core::restore::{self, target::Overwrite};
use holdfast_engine_core::store::faulty::{Fault, FaultyStore, Gate, Rule};
use holdfast_engine_core::store::memory::MemoryStore;
use holdfast_engine_core::testing::compare::{Compare, assert_same_tree, compare_trees};
use holdfast_engine_core::testing::deep::{DeepDir, make_deep, remove_deep};
use holdfast_engine_core::testing::user::{as_normal_user, give_to_normal_user, is_root};
use holdfast_engine_core::testing::zoo::{self, noise};
use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags};

/// A pool, a tree to back up, and places to restore to.
struct Site {
    pool: Pool,
    top: DeepDir,
    from: PathBuf,
    restores: std::cell::Cell<u32>,
}

/// One backup and what it said.
struct Backup {
    image: Manifest,
    counts: Snapshot,
    findings: Vec<Finding>,
}

impl Site {
    fn new() -> Self {
        let config = PoolConfig::default();
        let pool = Pool::create(Arc::new(MemoryStore::new()), &kit::KEY, config, 0, None).unwrap();
        Self::with_pool(pool)
    }

    fn with_pool(pool: Pool) -> Self {
        let top = DeepDir::new();
        give_to_normal_user(top.path());
        let from = top.join("from");
        fs::create_dir(&from).unwrap();
        give_to_normal_user(&from);
        Site { pool, top, from, restores: std::cell::Cell::new(0) }
    }

    fn request(&self) -> backup::Request {
        backup::Request {
            paths: vec![bytes(&self.from)],
            source: "test:from".into(),
            host: "test".into(),
            started_ns: kit::now_ns(),
            exclude: Vec::new(),
            one_file_system: false,
            level: 1,
            workers: 3,
            parent: None,
            software: "test".into(),
        }
    }

    fn back_up(&self) -> Backup {
        self.run(&self.request()).unwrap()
    }

    /// A backup that may trust every time stamp, as one does that begins long after the changes.
    fn back_up_later(&self) -> Backup {
        let started_ns = kit::now_ns() + 10_000_000_000;
        self.run(&backup::Request { started_ns, ..self.request() }).unwrap()
    }

    fn run(&self, request: &backup::Request) -> Result<Backup, Error> {
        let (counters, findings) = (Counters::default(), Findings::default());
        let image = backup::run(&self.pool, request, &counters, &findings, &Cancel::new())?;
        Ok(Backup { image, counts: counters.snapshot(), findings: findings.kept() })
    }

    /// Restores all of an image and returns where the tree now is.
    fn restore(&self, image: &Manifest) -> PathBuf {
        let (to, findings) = self.restore_with_findings(image);
        assert_eq!(findings, []);
        to
    }

    fn restore_with_findings(&self, image: &Manifest) -> (PathBuf, Vec<Finding>) {
        let number = self.restores.get();
        self.restores.set(number + 1);
        let to = self.top.join(format!("to {number}"));
        let findings = self.restore_to(image, &to, &[], Overwrite::Never);
        let path = image.source.paths[0].strip_prefix(b"/").unwrap();
        (to.join(OsStr::from_bytes(path)), findings)
    }

    fn restore_to(
        &self,
        image: &Manifest,
        to: &Path,
        paths: &[&Path],
        overwrite: Overwrite,
    ) -> Vec<Finding> {
        let request = restore::Request {
            image: image.id,
            paths: paths.iter().map(|path| bytes(path)).collect(),
            to: bytes(to),
            overwrite,
            strip_components: 0,
            verify: true,
            workers: 3,
        };
        let (counters, findings) = (Counters::default(), Arc::new(Findings::default()));
        restore::run(&self.pool, &request, &counters, &findings, &Cancel::new()).unwrap();
        findings.kept()
    }

    fn assert_restored(&self, image: &Manifest) {
        assert_same_tree(&self.from, self.restore(image));
    }
}

fn bytes(path: &Path) -> Vec<u8> {
    path.as_os_str().as_bytes().to_vec()
}

fn codes(findings: &[Finding]) -> BTreeSet<(String, String)> {
    findings
        .iter()
        .map(|finding| {
            let path = Path::new(OsStr::from_bytes(&finding.path));
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            (name, finding.code.clone())
        })
        .collect()
}

fn expected(pairs: &[(&str, &str)]) -> BTreeSet<(String, String)> {
    pairs.iter().map(|(name, code)| ((*name).to_owned(), (*code).to_owned())).collect()
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn set_mtime(path: &Path, (sec, nsec): (i64, i64)) {
    let omit = Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT };
    let last_modification = Timespec { tv_sec: sec, tv_nsec: nsec };
    let times = Timestamps { last_access: omit, last_modification };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

fn mtime(path: &Path) -> (i64, i64) {
    let meta = fs::symlink_metadata(path).unwrap();
    (meta.mtime(), meta.mtime_nsec())
}

#[test]
fn one_of_everything_comes_back_and_again_when_nothing_changed() {
    let site = Site::new();
    zoo::fill(&site.from);
    let first = site.back_up_later();
    assert_eq!(first.findings, []);
    assert_eq!(first.image.status, Status::Completed);
    site.assert_restored(&first.image);

    let second = site.back_up_later();
    assert_eq!(second.findings, []);
    assert_eq!(second.counts.files_unchanged, first.counts.files);
    assert_eq!((second.counts.files_changed, second.counts.bytes_read), (0, 0));
    // What lies above the tree may change meanwhile.
    let found = second.image.root.subtree != first.image.root.subtree;
    assert!(second.counts.bytes_new < 100_000 || !found, "{}", second.counts.bytes_new);
    site.assert_restored(&second.image);
}

#[test]
fn one_of_everything_comes_back_for_a_normal_user() {
    let site = Site::new();
    as_normal_user(|| {
        // Made by this user, so that there is nothing it may not read.
        zoo::fill(&site.from);
    });
    let site = std::sync::Mutex::new(site);
    as_normal_user(|| {
        let site = site.lock().unwrap();
        let image = site.back_up();
        assert_eq!(image.findings, []);
        // The directories above belong to another.
        let (to, findings) = site.restore_with_findings(&image.image);
        let above = |finding: &Finding| finding.code == "owner-not-restored";
        assert!(findings.iter().all(above), "{findings:?}");
        assert!(findings.len() <= 2, "{findings:?}");
        assert_same_tree(&site.from, to);
    });
}

#[test]
fn ten_thousand_levels_and_a_path_beyond_path_max_come_back() {
    let site = Site::new();
    make_deep(&site.from, 10_000, b"deep down");
    let image = site.back_up_later();
    assert_eq!(image.findings, []);
    site.assert_restored(&image.image);
    let second = site.back_up();
    assert_eq!(second.counts.files_unchanged, 1);

    // A root of the backup that no single call can name.
    let mut path = bytes(&site.from);
    path.extend_from_slice(&b"/deep down".repeat(600));
    assert!(path.len() > 4096);
    let request = backup::Request { paths: vec![path], ..site.request() };
    let partial = site.run(&request).unwrap();
    assert_eq!(partial.findings, []);
    assert_eq!(partial.counts.files, 1);
    let to = site.top.join("partial");
    assert_eq!(site.restore_to(&partial.image, &to, &[], Overwrite::Never), []);
    let compare = Compare { dir_times: false, ..Compare::default() };
    let below = to.join(site.from.strip_prefix("/").unwrap());
    assert_eq!(compare.trees(&site.from, below).unwrap(), []);
}

#[test]
fn a_hundred_thousand_files_in_one_directory_come_back() {
    let site = Site::new();
    for number in 0..100_000 {
        let name = site.from.join(format!("{:x}", number * 2_654_435_761_u64 % 1_000_003));
        if number % 1000 == 0 {
            fs::write(name, number.to_string()).unwrap();
        } else {
            File::create(name).unwrap();
        }
    }
    let image = site.back_up_later();
    assert_eq!((image.findings.len(), image.counts.files), (0, 100_000));
    site.assert_restored(&image.image);
    let second = site.back_up_later();
    assert_eq!(second.counts.files_unchanged, 100_000);
    fs::remove_file(site.from.join("0")).unwrap();
    fs::write(site.from.join("new"), "new").unwrap();
    let third = site.back_up_later();
    assert_eq!((third.counts.files_unchanged, third.counts.files_changed), (99_999, 1));
    assert!(third.counts.bytes_new < 300_000, "{}", third.counts.bytes_new);
    site.assert_restored(&third.image);
}

#[test]
fn every_change_is_noticed_even_where_size_and_time_are_forged() {
    type Change = fn(&Path);
    /// Writes other bytes of the same length in place, and puts the old time back.
    fn rewrite(path: &Path) {
        let before = mtime(path);
        let length = fs::metadata(path).unwrap().len();
        let file = File::options().write(true).open(path).unwrap();
        file.write_all_at(&vec![b'!'; usize::try_from(length).unwrap()], 0).unwrap();
        set_mtime(path, before);
    }
    /// Puts another file with the same size and time in its place.
    fn replace(path: &Path) {
        let (before, text) = (mtime(path), fs::read(path).unwrap());
        let other = path.with_extension("other");
        fs::write(&other, vec![b'?'; text.len()]).unwrap();
        set_mtime(&other, before);
        fs::rename(other, path).unwrap();
    }
    let changes: [(&str, Change); 16] = [
        ("rewritten", |from| rewrite(&from.join("a/file"))),
        ("replaced", |from| replace(&from.join("a/file"))),
        ("chmod", |from| set_mode(&from.join("a/file"), 0o600)),
        ("xattr", |from| {
            let flags = XattrFlags::empty();
            rustix::fs::setxattr(from.join("a/file"), "user.x", b"1", flags).unwrap();
        }),
        ("xattr of a directory", |from| {
            let flags = XattrFlags::empty();
            rustix::fs::setxattr(from.join("a"), "user.x", b"1", flags).unwrap();
        }),
        ("mode of a directory", |from| set_mode(&from.join("a"), 0o750)),
        ("time", |from| set_mtime(&from.join("a/file"), (5, 6))),
        ("time of a directory", |from| set_mtime(&from.join("a"), (5, 6))),
        ("removed", |from| fs::remove_file(from.join("a/file")).unwrap()),
        ("renamed", |from| fs::rename(from.join("a/file"), from.join("a/elif")).unwrap()),
        ("added", |from| fs::write(from.join("a/new"), "new").unwrap()),
        ("linked", |from| fs::hard_link(from.join("a/file"), from.join("b/hard link")).unwrap()),
        ("target", |from| {
            let path = from.join("a/link");
            let before = mtime(&path);
            fs::remove_file(&path).unwrap();
            symlink("else", &path).unwrap();
            set_mtime(&path, before);
        }),
        ("kind", |from| {
            fs::remove_file(from.join("a/file")).unwrap();
            fs::create_dir(from.join("a/file")).unwrap();
        }),
        ("hole", |from| {
            let file = File::options().write(true).open(from.join("a/zeros")).unwrap();
            use rustix::fs::FallocateFlags;
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            rustix::fs::fallocate(&file, flags, 65_536, 65_536).unwrap();
        }),
        ("swapped directories", |from| {
            fs::rename(from.join("a"), from.join("c")).unwrap();
            fs::rename(from.join("b"), from.join("a")).unwrap();
            fs::rename(from.join("c"), from.join("b")).unwrap();
        }),
    ];
    let site = Site::new();
    for (what, change) in changes {
        remove_deep(&site.from);
        for dir in ["a", "b", "untouched"] {
            fs::create_dir(site.from.join(dir)).unwrap();
            fs::write(site.from.join(dir).join("file"), format!("text in {dir}")).unwrap();
            fs::write(site.from.join(dir).join("zeros"), vec![0; 1 << 20]).unwrap();
            symlink("goal", site.from.join(dir).join("link")).unwrap();
        }
        let before = site.back_up_later();
        let reference = site.restore(&before.image);
        change(&site.from);
        assert_ne!(compare_trees(&site.from, &reference).unwrap(), [], "{what} changes nothing");
        let after = site.back_up_later();
        assert_eq!(after.findings, [], "{what}");
        assert!(after.counts.files_unchanged >= 2, "{what}");
        let differences = compare_trees(&site.from, site.restore(&after.image)).unwrap();
        assert_eq!(differences, [], "{what}");
        assert_same_tree(&reference, site.restore(&before.image));
    }
}

#[test]
fn a_file_changed_in_the_moment_of_the_backup_is_read_again_by_the_next() {
    let site = Site::new();
    fs::write(site.from.join("f"), "1").unwrap();
    // It begins in the very moment of the change, so a later change may have the same stamps.
    let first = site.back_up();
    assert_eq!(first.counts.files_changed, 1);
    let second = site.back_up_later();
    assert_eq!(second.counts.files_changed, 1);
    let third = site.back_up_later();
    assert_eq!(third.counts.files_unchanged, 1);
}

/// A large file of which the first part was read when `change` is made, and what the backup then
/// says; with one worker, that all other files wait behind.
fn while_reading(prepare: impl FnOnce(&Path), change: impl FnOnce(&Path)) -> (Site, Backup) {
    let store = Arc::new(FaultyStore::new(MemoryStore::new()));
    let site = Site::with_pool(kit::create(store.clone()));
    // The lowest inode of the directory, so that it comes first.
    fs::write(site.from.join("large"), noise(1, 16 << 20)).unwrap();
    prepare(&site.from);
    let gate = Gate::new();
    store.add(Rule::new(Fault::Hold(gate.clone())).under("packs/").times(1));
    let request = backup::Request { workers: 1, ..site.request() };
    let (counters, findings) = (Counters::default(), Findings::default());
    let image = std::thread::scope(|scope| {
        let running =
            scope.spawn(|| backup::run(&site.pool, &request, &counters, &findings, &Cancel::new()));
        gate.wait_until_reached();
        change(&site.from);
        gate.open();
        running.join().unwrap().unwrap()
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
    let (site, backup) = while_reading(
        |from| {
            for name in ["goes", "becomes a link", "becomes a fifo", "stays"] {
                fs::write(from.join(name), "secret").unwrap();
            }
            for name in ["dir goes", "dir becomes a link"] {
                fs::create_dir(from.join(name)).unwrap();
            }
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
fn what_a_normal_user_may_not_read_is_told_and_the_rest_is_backed_up() {
    let site = Site::new();
    let from = &site.from;
    as_normal_user(|| {
        fs::write(from.join("open"), "open").unwrap();
        fs::write(from.join("closed"), "closed").unwrap();
        fs::create_dir(from.join("closed dir")).unwrap();
        fs::create_dir(from.join("listed dir")).unwrap();
        fs::write(from.join("listed dir/inside"), "").unwrap();
        for (name, mode) in [("closed", 0), ("closed dir", 0), ("listed dir", 0o400)] {
            set_mode(&from.join(name), mode);
        }
    });
    let site = std::sync::Mutex::new(site);
    as_normal_user(|| {
        let site = site.lock().unwrap();
        let backup = site.back_up();
        let problems = [("closed", "no-permission"), ("closed dir", "no-permission")];
        let mut all = problems.to_vec();
        all.push(("inside", "no-permission"));
        assert_eq!(codes(&backup.findings), expected(&all));
        assert_eq!(backup.image.status, Status::CompletedWithErrors);
        let (to, _) = site.restore_with_findings(&backup.image);
        assert_eq!(fs::read_to_string(to.join("open")).unwrap(), "open");
        assert!(!to.join("closed").exists());
        assert_eq!(
            fs::metadata(to.join("listed dir")).unwrap().permissions().mode() & 0o777,
            0o400
        );
        set_mode(&to.join("listed dir"), 0o700);
        set_mode(&site.from.join("listed dir"), 0o700);
        set_mode(&site.from.join("closed dir"), 0o700);
    });
}

#[test]
fn rules_and_marks_leave_out_what_they_say_and_nothing_else() {
    let site = Site::new();
    let write = |name: &[u8]| {
        let path = site.from.join(OsStr::from_bytes(name));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, name).unwrap();
    };
    let kept: [&[u8]; 9] = [
        b"src/main.c",
        b"src/keep.o",
        b"src/build/x",
        b"deep/tmp.d/x",
        b"no\xffutf8/x.c",
        b"cache/CACHEDIR.TAG",
        b"false cache/CACHEDIR.TAG",
        b"false cache/data",
        b"private/.nobackup",
    ];
    let left_out: [&[u8]; 8] = [
        b"src/main.o",
        b"no\xffutf8/\xfe.o",
        b"build/src/main.c",
        b"build/keep.o",
        b"deep/tmp/a/b/c",
        b"cache/data",
        b"cache/sub/data",
        b"private/key",
    ];
    for name in kept.iter().chain(&left_out) {
        write(name);
    }
    let tag = "Signature: 8a477f597d28d172789f06886806bc55\n";
    fs::write(site.from.join("cache/CACHEDIR.TAG"), tag).unwrap();
    let exclude = ["*.o", "!keep.o", "/build", "tmp/", "# remark", ""];
    let exclude = exclude.map(str::to_owned).to_vec();
    let request = backup::Request { exclude, ..site.request() };
    let backup = site.run(&request).unwrap();
    assert_eq!(backup.findings, []);
    let to = site.restore(&backup.image);
    let below = |name: &[u8]| to.join(OsStr::from_bytes(name));
    for name in kept {
        assert!(below(name).is_file(), "{}", name.escape_ascii());
    }
    for name in left_out {
        assert!(!below(name).exists(), "{}", name.escape_ascii());
    }
    assert!(below(b"deep").is_dir() && !below(b"deep/tmp").exists() && !below(b"build").exists());

    // Rules that come later apply to what was in the image before.
    let all = site.run(&backup::Request { exclude: Vec::new(), ..request.clone() }).unwrap();
    assert!(site.restore(&all.image).join("src/main.o").is_file());
    let again = site.run(&request).unwrap();
    assert!(!site.restore(&again.image).join("src/main.o").exists());
    // A rule may spell out the whole path.
    let rule = format!("{}/src/", site.from.display());
    let spelled = site.run(&backup::Request { exclude: vec![rule], ..request }).unwrap();
    let to = site.restore(&spelled.image);
    assert!(!to.join("src").exists() && to.join("build/src/main.c").is_file());
}

/// A file system of its own at `path`, taken away at the end.
struct Mount(PathBuf);

impl Mount {
    fn new(path: &Path) -> Option<Self> {
        let mounted = is_root()
            && std::process::Command::new("mount")
                .args(["-t", "tmpfs", "tmpfs"])
                .arg(path)
                .output()
                .is_ok_and(|output| output.status.success());
        mounted.then(|| Mount(path.to_owned()))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn other_file_systems_are_crossed_or_not_as_asked() {
    let site = Site::new();
    let mounted = site.from.join("mounted");
    fs::create_dir(&mounted).unwrap();
    fs::write(site.from.join("here"), "here").unwrap();
    let Some(_mount) = Mount::new(&mounted) else {
        eprintln!("skipped: this user cannot mount");
        return;
    };
    fs::create_dir(mounted.join("dir")).unwrap();
    fs::write(mounted.join("dir/there"), "there").unwrap();
    let crossed = site.back_up();
    assert_eq!(crossed.findings, []);
    site.assert_restored(&crossed.image);
    for paths in [vec![bytes(&site.from)], vec![bytes(&site.from), bytes(&mounted.join("dir"))]] {
        let asked_for_both = paths.len() > 1;
        let request = backup::Request { one_file_system: true, paths, ..site.request() };
        let kept = site.run(&request).unwrap();
        assert_eq!(kept.findings, []);
        let to = site.restore(&kept.image);
        assert!(to.join("here").is_file() && to.join("mounted").is_dir());
        // What is asked for by its own name is on its own file system.
        assert_eq!(to.join("mounted/dir/there").exists(), asked_for_both);
    }
}

#[test]
fn the_whole_machine_is_one_file_system_where_that_is_asked() {
    let site = Site::new();
    fs::write(site.from.join("here"), "here").unwrap();
    // The way down to the tree, and /proc: that has a file system of its own and comes first.
    let mut exclude = Vec::new();
    let mut way = String::new();
    for part in site.from.components().skip(1) {
        let part = part.as_os_str().to_str().unwrap();
        exclude.push(format!("{way}/*"));
        exclude.push(format!("!{way}/{part}"));
        way = format!("{way}/{part}");
    }
    exclude.extend(["!/proc".to_owned(), "/proc/*".to_owned()]);
    let paths = vec![b"/".to_vec()];
    let request = backup::Request { paths, exclude, one_file_system: true, ..site.request() };
    let backup = site.run(&request).unwrap();
    let to = site.top.join("whole");
    let _ = site.restore_to(&backup.image, &to, &[], Overwrite::Never);
    let here = to.join(site.from.strip_prefix("/").unwrap()).join("here");
    assert_eq!(fs::read_to_string(here).unwrap(), "here");
    assert_eq!(fs::read_dir(to.join("proc")).unwrap().count(), 0);
}

#[test]
fn roots_may_be_files_links_nested_or_named_through_links() {
    let site = Site::new();
    let from = &site.from;
    fs::create_dir_all(from.join("dir/sub")).unwrap();
    fs::write(from.join("dir/sub/f"), "f").unwrap();
    fs::write(from.join("dir/g"), "g").unwrap();
    fs::write(from.join("beside"), "not asked for").unwrap();
    symlink("dir", from.join("link")).unwrap();
    let restored = |paths: Vec<PathBuf>| {
        let paths = paths.iter().map(|path| bytes(path)).collect();
        let backup = site.run(&backup::Request { paths, ..site.request() }).unwrap();
        assert_eq!(backup.findings, []);
        let number = site.restores.get();
        site.restores.set(number + 1);
        let to = site.top.join(format!("to {number}"));
        assert_eq!(site.restore_to(&backup.image, &to, &[], Overwrite::Never), []);
        let to = to.join(from.strip_prefix("/").unwrap());
        assert!(!to.join("beside").exists());
        to
    };
    let to = restored(vec![from.join("dir/g")]);
    assert!(to.join("dir/g").is_file() && !to.join("dir/sub").exists());
    let to = restored(vec![from.join("link")]);
    assert!(to.join("link").is_symlink() && !to.join("dir").exists());
    let to = restored(vec![from.join("link/sub")]);
    assert!(to.join("dir/sub/f").is_file() && !to.join("link").exists());
    for paths in [["dir", "dir/sub"], ["dir/sub", "dir"], ["dir/", "dir/../dir/sub/."]] {
        let to = restored(paths.iter().map(|path| from.join(path)).collect());
        assert_same_tree(from.join("dir"), to.join("dir"));
    }
}

#[test]
fn a_path_that_is_missing_or_relative_fails_before_anything_is_stored() {
    let site = Site::new();
    let run = |path: &[u8]| {
        let request = backup::Request { paths: vec![path.to_vec()], ..site.request() };
        site.run(&request).map(|_| ()).unwrap_err()
    };
    let missing = run(&bytes(&site.from.join("missing")));
    assert_eq!(missing.code(), "path-missing");
    assert!(missing.to_string().contains("missing"), "{missing}");
    fs::write(site.from.join("file"), "").unwrap();
    assert_eq!(run(&bytes(&site.from.join("file/below"))).code(), "path-missing");
    assert_eq!(run(b"relative/path").code(), "invalid");
    assert_eq!(run(b"").code(), "invalid");
    assert_eq!(site.pool.images().unwrap().len(), 0);
}

#[test]
fn one_path_of_an_image_comes_back_with_the_way_to_it() {
    let site = Site::new();
    zoo::fill(&site.from);
    let backup = site.back_up();
    let to = site.top.join("part");
    let wanted = site.from.join("kinds");
    assert_eq!(site.restore_to(&backup.image, &to, &[&wanted], Overwrite::Never), []);
    let below = to.join(site.from.strip_prefix("/").unwrap());
    assert_same_tree(&wanted, below.join("kinds"));
    let names: Vec<_> = fs::read_dir(&below).unwrap().map(|one| one.unwrap().file_name()).collect();
    assert_eq!(names, ["kinds"]);
    // One of several names of a file is a file.
    let to = site.top.join("one name");
    let one = site.from.join("kinds/another name");
    assert_eq!(site.restore_to(&backup.image, &to, &[&one], Overwrite::Never), []);
    let one = to.join(one.strip_prefix("/").unwrap());
    assert_eq!(fs::read_to_string(one).unwrap(), "with several names");
}

#[test]
fn a_restore_over_a_changed_tree_makes_it_as_it_was_and_keeps_what_is_not_in_the_image() {
    let site = Site::new();
    zoo::fill(&site.from);
    let backup = site.back_up();
    let to = site.top.join("over");
    assert_eq!(site.restore_to(&backup.image, &to, &[], Overwrite::Never), []);
    let tree = to.join(site.from.strip_prefix("/").unwrap());
    fs::write(tree.join("contents/text"), "changed").unwrap();
    fs::remove_file(tree.join("kinds/file")).unwrap();
    symlink("/etc/passwd", tree.join("kinds/file")).unwrap();
    set_mode(&tree.join("modes/file 644"), 0o777);
    fs::remove_dir_all(tree.join("sparse")).unwrap();
    fs::write(tree.join("sparse"), "in the way").unwrap();
    fs::write(tree.join("times/unrelated"), "mine").unwrap();
    assert_eq!(site.restore_to(&backup.image, &to, &[], Overwrite::Always), []);
    assert_eq!(fs::read_to_string(tree.join("times/unrelated")).unwrap(), "mine");
    fs::remove_file(tree.join("times/unrelated")).unwrap();
    set_mtime(&tree.join("times"), mtime(&site.from.join("times")));
    assert_same_tree(&site.from, &tree);
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
