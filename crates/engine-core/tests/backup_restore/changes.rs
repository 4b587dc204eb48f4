//! What changed since the last image is noticed, and what did not is not read.

use crate::kit;
use crate::site::*;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, symlink};
use std::path::Path;
use std::sync::Arc;

use holdfast_engine_core::backup;
use holdfast_engine_core::store::faulty::{Fault, FaultyStore, Gate, Operation, Rule};
use holdfast_engine_core::store::memory::MemoryStore;
use holdfast_engine_core::testing::compare::{assert_same_tree, compare_trees};
use holdfast_engine_core::testing::deep::{DeepDir, remove_deep};
use rustix::fs::XattrFlags;

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
fn a_file_that_went_is_missed_though_one_that_is_left_out_came_in_its_place() {
    let site = Site::new();
    let request = backup::Request { exclude: vec!["*.tmp".into()], ..site.request() };
    let later =
        || backup::Request { started_ns: kit::now_ns() + 10_000_000_000, ..request.clone() };
    fs::create_dir(site.from.join("dir")).unwrap();
    fs::write(site.from.join("dir/stays"), "stays").unwrap();
    fs::write(site.from.join("dir/goes"), "goes").unwrap();
    site.run(&later()).unwrap();
    fs::remove_file(site.from.join("dir/goes")).unwrap();
    fs::write(site.from.join("dir/comes.tmp"), "comes").unwrap();
    let after = site.run(&later()).unwrap();
    let to = site.restore(&after.image);
    let names = fs::read_dir(to.join("dir")).unwrap().map(|name| name.unwrap().file_name());
    assert_eq!(names.collect::<Vec<_>>(), ["stays"]);
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

#[test]
fn a_full_backup_reads_every_file_and_stores_none_twice() {
    let site = Site::new();
    fs::write(site.from.join("file"), vec![b'x'; 300_000]).unwrap();
    let first = site.back_up_later();
    let started_ns = kit::now_ns() + 20_000_000_000;
    let again = site.run(&backup::Request { started_ns, ..site.request() }).unwrap();
    assert_eq!(again.counts.bytes_read, 0);
    let request = backup::Request { started_ns, read_all: true, ..site.request() };
    let full = site.run(&request).unwrap();
    assert_eq!(full.counts.bytes_read, 300_000);
    assert_eq!(full.counts.files_changed, 1);
    // Directories above, which others change, at most.
    assert!(full.counts.bytes_new < 10_000, "{}", full.counts.bytes_new);
    assert_eq!((again.image.parent, full.image.parent), (Some(first.image.id), None));
    site.assert_restored(&full.image);
}

#[test]
fn an_older_image_can_be_compared_with() {
    let site = Site::new();
    fs::write(site.from.join("kept"), vec![b'x'; 200_000]).unwrap();
    let first = site.back_up_later();
    fs::write(site.from.join("new"), vec![b'y'; 100_000]).unwrap();
    site.back_up_later();
    let started_ns = kit::now_ns() + 20_000_000_000;
    let request = backup::Request { started_ns, parent: Some(first.image.id), ..site.request() };
    let cumulative = site.run(&request).unwrap();
    assert_eq!(cumulative.image.parent, Some(first.image.id));
    assert_eq!(cumulative.counts.bytes_online, 100_000);
    site.assert_restored(&cumulative.image);
}

#[test]
fn with_a_parent_that_is_named_no_other_image_is_looked_at() {
    let store = Arc::new(FaultyStore::new(MemoryStore::new()));
    let site = Site::with_pool(kit::create(store.clone()), DeepDir::new());
    fs::write(site.from.join("file"), "1").unwrap();
    let images: Vec<_> = (0..3).map(|_| site.back_up_later().image).collect();
    let newest = images.last().unwrap();
    let before = store.calls().len();
    let request = backup::Request { parent: Some(newest.id), ..site.request() };
    let made = site.run(&request).unwrap();
    assert_eq!((made.image.parent, made.image.number), (Some(newest.id), newest.number + 1));
    let calls = store.calls().split_off(before);
    let of_images: Vec<_> =
        calls.iter().filter(|(_, key)| key.starts_with("images/")).map(|(what, _)| *what).collect();
    assert_eq!(of_images, [Operation::Get, Operation::PutIfAbsent]);
}

#[test]
fn where_the_parent_is_gone_or_damaged_the_newest_of_the_source_is_taken() {
    let site = Site::new();
    fs::write(site.from.join("file"), "1").unwrap();
    let [first, second, third] = [(); 3].map(|()| site.back_up_later().image);
    site.pool.expire(&second.id).unwrap();
    let request = backup::Request { parent: Some(second.id), ..site.request() };
    let made = site.run(&request).unwrap().image;
    assert_eq!(made.parent, Some(third.id));
    let key = format!("images/{}", first.id);
    let mut bytes = site.pool.store().get(&key).unwrap();
    bytes[40] ^= 1;
    site.pool.store().delete(&key).unwrap();
    assert!(site.pool.store().put_if_absent(&key, &bytes).unwrap());
    let request = backup::Request { parent: Some(first.id), ..site.request() };
    let last = site.run(&request).unwrap().image;
    assert_eq!((last.parent, last.number), (Some(made.id), made.number + 1));
    site.assert_restored(&last);
}

#[test]
fn many_manifests_are_read_at_once_and_each_is_itself() {
    let store = Arc::new(FaultyStore::new(MemoryStore::new()));
    let site = Site::with_pool(kit::create(store.clone()), DeepDir::new());
    let made: Vec<_> = (0..40).map(|_| site.back_up_later().image).collect();
    assert_eq!(site.pool.images().unwrap(), made);
    // Nobody waits for the one before: all readers that there are come as far as the store.
    let gate = Gate::new();
    let rule = Rule::new(Fault::Hold(gate.clone())).on(Operation::Get).under("images/");
    store.add(rule);
    let before = store.calls().len();
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| site.pool.images().unwrap());
        let asked = || {
            let calls = store.calls();
            calls[before..].iter().filter(|(what, _)| *what == Operation::Get).count()
        };
        while asked() < 10 {
            assert!(!reading.is_finished());
            std::thread::yield_now();
        }
        gate.open();
        assert_eq!(reading.join().unwrap(), made);
    });
    store.mend();
    let error = Rule::new(Fault::Io).on(Operation::Get).under("images/").after(7).times(1);
    store.add(error);
    assert!(site.pool.readable_images().is_err());
}

#[test]
fn numbers_go_on_where_only_images_tell_which_were_given() {
    let site = Site::new();
    let made = [(); 3].map(|()| site.back_up_later().image);
    let mut keys = Vec::new();
    let found = &mut |key: &str, _| {
        keys.push(key.to_owned());
        Ok(())
    };
    site.pool.store().list("numbers/", found).unwrap();
    for key in keys {
        site.pool.store().delete(&key).unwrap();
    }
    let request = backup::Request { read_all: true, ..site.request() };
    assert_eq!(site.run(&request).unwrap().image.number, made[2].number + 1);
}

#[test]
fn labels_are_in_the_manifest_that_is_read_back() {
    let site = Site::new();
    let given = [("policy", "files"), ("", "nameless"), ("job", "7/1")];
    let labels = given.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let made = site.run(&backup::Request { labels, ..site.request() }).unwrap();
    let read = site.pool.readable_images().unwrap().pop().unwrap();
    assert_eq!(read.id, made.image.id);
    let mut expected = given.to_vec();
    expected.sort_unstable();
    assert_eq!(read.labels().collect::<Vec<_>>(), expected);
}
