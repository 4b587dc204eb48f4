//! Everything that a directory can hold, there and back.

use crate::site::*;
use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};

use holdfast_engine_core::backup;
use holdfast_engine_core::finding::Finding;
use holdfast_engine_core::manifest::Status;
use holdfast_engine_core::restore::target::Overwrite;
use holdfast_engine_core::testing::compare::{Compare, assert_same_tree};
use holdfast_engine_core::testing::deep::make_deep;
use holdfast_engine_core::testing::user::as_normal_user;
use holdfast_engine_core::testing::zoo::{self};

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
    let site = Site::in_memory();
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
    let site = Site::in_memory();
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
