//! What belongs to a backup: paths, rules, marks, file systems.

use crate::site::*;
use std::ffi::OsStr;
use std::fs::{self};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use holdfast_engine_core::backup;
use holdfast_engine_core::restore::target::Overwrite;
use holdfast_engine_core::testing::compare::assert_same_tree;
use holdfast_engine_core::testing::user::is_root;

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
fn what_the_kernel_makes_up_is_left_out_unless_it_is_asked_for() {
    let site = Site::new();
    let run = |paths: &[&str], exclude: &[&str]| {
        let paths = paths.iter().map(|path| path.as_bytes().to_vec()).collect();
        let exclude = exclude.iter().map(|rule| (*rule).to_owned()).collect();
        let backup = site.run(&backup::Request { paths, exclude, ..site.request() }).unwrap();
        let number = site.restores.get();
        site.restores.set(number + 1);
        let to = site.top.join(format!("to {number}"));
        let _ = site.restore_to(&backup.image, &to, &[], Overwrite::Never);
        to
    };
    let to = run(&["/"], &["/*", "!/proc", "/proc/[0-9]*", "/proc/k*"]);
    assert_eq!(fs::read_dir(to.join("proc")).unwrap().count(), 0);
    // Rules are relative to each path, so this one is for both.
    let to = run(&["/", "/proc/sys/kernel/random"], &["/[!p]*"]);
    assert_eq!(fs::read_dir(to.join("proc")).unwrap().count(), 1);
    assert!(to.join("proc/sys/kernel/random/poolsize").is_file());
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
