//! Trees that nobody thought of: grown, changed and cut by chance, and compared after each step.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};

use holdfast_engine_core::restore::target::Overwrite;
use holdfast_engine_core::testing::compare::compare_trees;
use holdfast_engine_core::testing::zoo::noise;
use rustix::fs::{CWD, FallocateFlags, FileType, Mode, XattrFlags};

use crate::site::*;

/// Chances, the same for the same seed.
struct Chance {
    stream: blake3::OutputReader,
}

impl Chance {
    fn new(seed: u64) -> Self {
        Chance { stream: blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof() }
    }

    /// Below `limit`.
    fn below(&mut self, limit: u64) -> u64 {
        let mut bytes = [0; 8];
        self.stream.fill(&mut bytes);
        u64::from_le_bytes(bytes) % limit
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        let at = usize::try_from(self.below(from.len() as u64)).unwrap();
        &from[at]
    }

    /// Few enough that they meet often; any bytes that a name may have.
    fn name(&mut self) -> Vec<u8> {
        let length = *self.pick(&[1, 1, 1, 2, 2, 20, 255]);
        let mut name = vec![0; length];
        self.stream.fill(&mut name);
        if length == 1 {
            name[0] = b'a' + name[0] % 8;
        }
        for byte in &mut name {
            if matches!(byte, 0 | b'/') {
                *byte = b'_';
            }
        }
        if matches!(&*name, b"." | b"..") { b"dots".to_vec() } else { name }
    }

    fn size(&mut self) -> u64 {
        let limit = *self.pick(&[1, 10, 4097, 100_000, 100_000, 1_000_000, 5_000_000]);
        self.below(limit)
    }
}

/// All directories and all other names below `top`.
fn list(top: &Path) -> (Vec<PathBuf>, Vec<PathBuf>) {
    let (mut dirs, mut others) = (vec![top.to_owned()], Vec::new());
    let mut at = 0;
    while let Some(dir) = dirs.get(at).cloned() {
        at += 1;
        let mut entries: Vec<_> = fs::read_dir(dir).unwrap().map(Result::unwrap).collect();
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            if entry.file_type().unwrap().is_dir() {
                dirs.push(entry.path());
            } else {
                others.push(entry.path());
            }
        }
    }
    (dirs, others)
}

/// One change. What is not possible (a name that is taken, say) is simply not done.
fn change(top: &Path, chance: &mut Chance) {
    let (dirs, others) = list(top);
    let fresh = chance.pick(&dirs).join(OsStr::from_bytes(&chance.name()));
    let some = if others.is_empty() { fresh.clone() } else { chance.pick(&others).clone() };
    let any = if chance.below(3) == 0 { chance.pick(&dirs).clone() } else { some.clone() };
    let is_file = some.symlink_metadata().is_ok_and(|meta| meta.is_file());
    let open = || is_file.then(|| File::options().write(true).open(&some).unwrap());
    let _: Option<()> = match chance.below(17) {
        0..4 => {
            let bytes = noise(chance.below(5), usize::try_from(chance.size()).unwrap());
            File::create_new(&fresh).and_then(|file| file.write_all_at(&bytes, 0)).ok()
        }
        4 | 5 => fs::create_dir(&fresh).ok(),
        6 => symlink(OsStr::from_bytes(&chance.name()), &fresh).ok(),
        7 => fs::hard_link(&some, &fresh).ok(),
        8 => {
            let kinds = [FileType::Fifo, FileType::Socket, FileType::CharacterDevice];
            let (kind, device) = (*chance.pick(&kinds), rustix::fs::makedev(1, 7));
            rustix::fs::mknodat(CWD, &fresh, kind, Mode::from_raw_mode(0o600), device).ok()
        }
        9 => open().and_then(|file| file.set_len(chance.size()).ok()),
        10 => open().and_then(|file| {
            let bytes = noise(chance.below(9), usize::try_from(chance.below(9000)).unwrap());
            file.write_all_at(&bytes, chance.size()).ok()
        }),
        11 => open().and_then(|file| {
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            rustix::fs::fallocate(&file, flags, chance.size(), 1 + chance.size()).ok()
        }),
        12 => fs::remove_file(&some).ok(),
        13 => fs::rename(&any, &fresh).ok(),
        14 => {
            let mode = 0o700 | u32::try_from(chance.below(0o10000)).unwrap();
            (!any.is_symlink()).then(|| set_mode(&any, mode))
        }
        15 => {
            let name = format!("user.{}", chance.below(4));
            let value = noise(chance.below(9), usize::try_from(chance.below(300)).unwrap());
            let flags = XattrFlags::empty();
            rustix::fs::lsetxattr(&any, name, &value, flags).ok()
        }
        _ => {
            let time = i64::try_from(chance.below(4_000_000_000)).unwrap() - 1_000_000_000;
            let nsec = i64::try_from(chance.below(1_000_000_000)).unwrap();
            if any.exists() {
                set_mtime(&any, (time, nsec));
            }
            None
        }
    };
}

#[test]
fn whatever_chance_makes_of_a_tree_comes_back_at_every_step() {
    for seed in 0..4 {
        let site = Site::new();
        let mut chance = Chance::new(seed);
        let mut old = None;
        for round in 0..6 {
            for _ in 0..60 {
                change(&site.from, &mut chance);
            }
            let backup = site.back_up_later();
            assert_eq!(backup.findings, [], "seed {seed} round {round}");
            let to = site.restore(&backup.image);
            let differences = compare_trees(&site.from, &to).unwrap();
            assert_eq!(differences, [], "seed {seed} round {round}");
            // Over what the round before left there it comes back too, beside what only that had.
            if let Some(old) = old.replace(to) {
                let top = old.ancestors().nth(site.from.components().count() - 1).unwrap();
                let findings = site.restore_to(&backup.image, top, &[], Overwrite::Always);
                assert!(findings.iter().all(|one| one.code == "in-the-way"), "{findings:?}");
                let lost = compare_trees(&site.from, &old).unwrap();
                let lost: Vec<_> = lost
                    .into_iter()
                    .filter(|one| findings.is_empty() && !matches!(one.what, "extra" | "links"))
                    .collect();
                assert_eq!(lost, [], "seed {seed} round {round}");
            }
        }
    }
}
