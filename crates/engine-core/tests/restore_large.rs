//! Large files, which may be written past the page cache, in parts by several threads.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use holdfast_engine_core::finding::Findings;
use holdfast_engine_core::restore::target::{Options, Overwrite, Staged, Target};
use holdfast_engine_core::testing::user::is_root;
use holdfast_engine_core::tree::entry::{Entry, EntryKind, Extent};

const THREADS: usize = 3;
/// No multiple of anything that a disk is made of.
const SIZE: u64 = (40 << 20) + 123;

fn noise(length: u64) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(length).unwrap()];
    blake3::Hasher::new().update(b"noise").finalize_xof().fill(&mut bytes);
    bytes
}

fn entry(name: &[u8], size: u64, extents: Option<Vec<Extent>>) -> Entry {
    Entry { size, mode: 0o640, extents, ..Entry::new(name, EntryKind::File) }
}

fn target(to: &Path) -> (Target, Arc<Findings>) {
    let findings = Arc::new(Findings::default());
    let options = Options { overwrite: Overwrite::Always, numeric_owners: false };
    let target = Target::open(to.as_os_str().as_bytes(), options, Arc::clone(&findings)).unwrap();
    (target, findings)
}

/// Writes content in segments, which threads take in turn, and each of those in pieces.
fn write(target: &Target, entry: &Entry, content: &[u8], segment: usize, piece: usize) {
    let file = target.create_file(target.root(), entry).unwrap().unwrap();
    let segments: Vec<(usize, &[u8])> = content.chunks(segment).enumerate().collect();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (file, segments) = (&file, &segments);
            scope.spawn(move || {
                let mut staged = Staged::default();
                // Backwards, as the newest piece of work is taken first.
                for (at, bytes) in segments.iter().rev().filter(|(at, _)| at % THREADS == thread) {
                    let mut offset = (at * segment) as u64;
                    for part in bytes.chunks(piece) {
                        file.write_content_at(&mut staged, offset, part).unwrap();
                        offset += part.len() as u64;
                    }
                    file.flush(&mut staged).unwrap();
                }
            });
        }
    });
    assert_eq!(file.missing(), 0);
    assert!(target.finish_file(file, entry).unwrap());
}

/// Stretches that begin and end anywhere, some next to each other, the last before a hole.
fn stretches() -> Vec<Extent> {
    let mut extents = Vec::new();
    let mut offset = 5;
    for number in 0..30_u64 {
        let length = 1 + (number * 262_147) % (3 << 20);
        if offset + length > SIZE {
            break;
        }
        extents.push(Extent { offset, length });
        offset += length + [0, 1, 4096, 70_001][(number % 4) as usize];
    }
    extents
}

fn large_files_are_what_they_were(to: &Path) {
    let (target, findings) = target(to);
    let dense = noise(SIZE);
    let extents = stretches();
    let content: u64 = extents.iter().map(|extent| extent.length).sum();
    assert!(content > 16 << 20, "too small to be a large file");
    let mut sparse = vec![0; dense.len()];
    let mut taken = 0;
    for extent in &extents {
        let (at, length) = (extent.offset as usize, extent.length as usize);
        sparse[at..at + length].copy_from_slice(&dense[taken..taken + length]);
        taken += length;
    }
    for (segment, piece) in [(8 << 20, 32_001), ((1 << 20) + 1, 1 << 20), (100_003, 4096)] {
        write(&target, &entry(b"dense", SIZE, None), &dense, segment, piece);
        assert!(fs::read(to.join("dense")).unwrap() == dense, "dense, {segment} by {piece}");
        let holes = entry(b"sparse", SIZE, Some(extents.clone()));
        write(&target, &holes, &dense[..taken], segment, piece);
        assert!(fs::read(to.join("sparse")).unwrap() == sparse, "sparse, {segment} by {piece}");
    }
    assert_eq!(findings.total(), 0);
}

#[test]
fn large_files_are_what_they_were_wherever_this_runs() {
    let top = tempfile::tempdir().unwrap();
    large_files_are_what_they_were(top.path());
}

#[test]
fn large_files_are_what_they_were_past_the_page_cache() {
    let Some(disk) = Disk::new("256M") else { return };
    large_files_are_what_they_were(&disk.place);
}

#[test]
fn a_full_disk_is_told_before_a_large_file_is_written() {
    let Some(disk) = Disk::new("32M") else { return };
    let (target, findings) = target(&disk.place);
    let entry = entry(b"f", 64 << 20, None);
    let error = target.create_file(target.root(), &entry).map(|_| ()).unwrap_err();
    assert_eq!(error.code(), "no-space");
    assert!(error.to_string().contains("/place/f"), "{error}");
    assert_eq!(findings.total(), 0);
    assert!(!disk.place.join("f").exists());
}

#[test]
fn a_disk_that_fills_up_leaves_nothing_of_a_sparse_file() {
    let Some(disk) = Disk::new("32M") else { return };
    let (target, _) = target(&disk.place);
    let extents = vec![Extent { offset: 4096, length: 64 << 20 }];
    let entry = entry(b"f", 100 << 20, Some(extents));
    let file = target.create_file(target.root(), &entry).unwrap().unwrap();
    let mut staged = Staged::default();
    let error = noise(64 << 20)
        .chunks(1 << 20)
        .enumerate()
        .find_map(|(at, part)| file.write_content_at(&mut staged, (at as u64) << 20, part).err())
        .unwrap();
    // As a worker does at the end of its part, whatever came before.
    let _ = file.flush(&mut staged);
    let error = target.abandon_file(file, error).unwrap_err();
    assert_eq!(error.code(), "no-space");
    assert!(!disk.place.join("f").exists());

    // What could not be written is not left for the next file.
    let (entry, content) = (self::entry(b"g", 16 << 20, None), noise(16 << 20));
    let file = target.create_file(target.root(), &entry).unwrap().unwrap();
    file.write_content_at(&mut staged, 0, &content).unwrap();
    file.flush(&mut staged).unwrap();
    assert!(target.finish_file(file, &entry).unwrap());
    assert!(fs::read(disk.place.join("g")).unwrap() == content);
}

/// An ext4 of its own, which is written to directly whatever the temporary directory lies on.
struct Disk {
    place: PathBuf,
    _top: tempfile::TempDir,
}

impl Disk {
    /// `None` where this user can't have one; that is said.
    fn new(size: &str) -> Option<Self> {
        let top = tempfile::tempdir().unwrap();
        let (image, place) = (top.path().join("image"), top.path().join("place"));
        fs::create_dir(&place).unwrap();
        let run = |program: &str, words: &[&str]| {
            Command::new(program).args(words).output().is_ok_and(|done| done.status.success())
        };
        let (image, mounted) = (image.to_str().unwrap(), place.to_str().unwrap());
        let ready = is_root()
            && run("truncate", &["--size", size, image])
            && run("mkfs.ext4", &["-q", image])
            && run("mount", &["-o", "loop", image, mounted]);
        if !ready {
            eprintln!("skipped: this user cannot mount a file system of its own");
            return None;
        }
        Some(Disk { place, _top: top })
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.place).status();
    }
}
