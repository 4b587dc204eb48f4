//! The directories of a machine's image: few and small, made when everything in them is stored.

use std::collections::BTreeMap;

use crate::backup::cutter::Cutter;
use crate::backup::previous::PreviousDir;
use crate::backup::sealed;
use crate::client_key::{DirKey, Sealing};
use crate::counters::{Counters, Tally};
use crate::error::Result;
use crate::ids::Ref;
use crate::ingest::Sink;
use crate::tree::build::DirectoryBuilder;
use crate::tree::codec::{self, RawEntry};
use crate::tree::entry::{Entry, EntryKind, Time};
use crate::tree::lists;

use super::parent::ParentImage;
use super::rows::Made;
use super::{DISKS, Request};

const FILE_MODE: u32 = 0o600;
const DIR_MODE: u32 = 0o700;

/// Stores the files and the directories; the root of the image.
pub fn write(
    sink: &dyn Sink,
    request: &Request,
    made: Vec<Made>,
    parent: &ParentImage<'_>,
    counters: &Counters,
) -> Result<Entry> {
    let mut tally = Tally::default();
    let mut tree = Tree { sink, now: time(request.started_ns), tally: &mut tally };
    let mut dirs = tree.files(request)?;
    let mut entries = dirs.remove("").unwrap_or_default();
    let names = sink.sealing().and_then(Sealing::root_dir);
    let disks = tree.disks(request, made);
    if !disks.is_empty() {
        dirs.insert(DISKS.to_owned(), disks);
    }
    for (name, inner) in dirs {
        let previous = parent.dir(name.as_bytes());
        let key = names.map(|names| names.child(name.as_bytes()));
        let subtree = tree.dir(inner, previous.as_ref(), key.as_ref())?;
        entries.push(Entry { subtree: Some(subtree), ..tree.entry(&name, EntryKind::Dir) });
    }
    let subtree = tree.dir(entries, parent.root(), names.as_ref())?;
    let root = Entry { subtree: Some(subtree), ..tree.entry("/", EntryKind::Dir) };
    counters.absorb(&mut tally);
    match (sink.sealing(), names) {
        (Some(sealing), Some(_)) => sealing.key.seal_root(root),
        _ => Ok(root),
    }
}

struct Tree<'a, 't> {
    sink: &'a dyn Sink,
    now: Time,
    tally: &'t mut Tally,
}

impl Tree<'_, '_> {
    /// Stores the small files; by directory, those at the top without a name of one.
    fn files(&mut self, request: &Request) -> Result<BTreeMap<String, Vec<Entry>>> {
        let mut cutter = Cutter::new(self.sink, request.level, None)?;
        let mut dirs = BTreeMap::<String, Vec<Entry>>::new();
        for (path, bytes) in &request.files {
            let mut refs = Vec::new();
            cutter.cut(self.tally, bytes, true, |reference| {
                refs.push(reference);
                Ok(())
            })?;
            let (dir, name) = path.split_once('/').unwrap_or(("", path));
            let entry = Entry {
                size: bytes.len() as u64,
                content: lists::write_refs(self.sink, &refs)?,
                ..self.entry(name, EntryKind::File)
            };
            dirs.entry(dir.to_owned()).or_default().push(entry);
            self.tally.bytes_read += bytes.len() as u64;
        }
        cutter.flush()?;
        Ok(dirs)
    }

    fn disks(&self, request: &Request, made: Vec<Made>) -> Vec<Entry> {
        let entry = |(disk, made): (&super::DiskInput, Made)| Entry {
            mtime: time(disk.mtime_ns),
            ctime: time(disk.mtime_ns),
            size: disk.size,
            content: made.content,
            extents: made.extents,
            skips: made.skips,
            lists: made.lists,
            ..self.entry(&disk.name, EntryKind::File)
        };
        request.disks.iter().zip(made).map(entry).collect()
    }

    /// Of whoever makes the image, now.
    fn entry(&self, name: &str, kind: EntryKind) -> Entry {
        Entry {
            mode: if kind == EntryKind::Dir { DIR_MODE } else { FILE_MODE },
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            mtime: self.now,
            ctime: self.now,
            ..Entry::new(name.as_bytes(), kind)
        }
    }

    /// Stores a directory. What is as in the parent but for its times keeps those.
    fn dir(
        &mut self,
        mut entries: Vec<Entry>,
        previous: Option<&PreviousDir>,
        names: Option<&DirKey>,
    ) -> Result<Ref> {
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        let mut raw = Vec::with_capacity(entries.len());
        for mut entry in entries {
            let before = previous.and_then(|dir| dir.find(&entry.name)?.decode().ok());
            let is_same = before.is_some_and(|before| {
                let now = Entry { mtime: before.mtime, ctime: before.ctime, ..entry.clone() };
                let is_same = now == before;
                if is_same {
                    entry = before;
                }
                is_same
            });
            match entry.kind {
                EntryKind::Dir => self.tally.dirs += 1,
                _ => {
                    self.tally.files += 1;
                    self.tally.bytes_found += entry.size;
                    self.tally.files_unchanged += u64::from(is_same);
                    self.tally.files_changed += u64::from(!is_same);
                    self.tally.bytes_online += if is_same { 0 } else { entry.size };
                }
            }
            let mut bytes = Vec::new();
            codec::encode_entry(&entry, &mut bytes)?;
            raw.push((codec::version_for(&entry), entry.name, bytes));
        }
        let raw = raw.iter().map(|(version, name, raw)| (*version, RawEntry { name, raw }));
        match (self.sink.sealing(), names) {
            (Some(sealing), Some(names)) => {
                sealed::write_directory(self.sink, &sealing.key, names, raw.map(|(_, raw)| raw))
            }
            _ => {
                let mut builder = DirectoryBuilder::new(self.sink);
                for (version, entry) in raw {
                    builder.push_as(entry, version)?;
                }
                builder.finish()
            }
        }
    }
}

fn time(ns: i64) -> Time {
    Time { sec: ns.div_euclid(1_000_000_000), nsec: ns.rem_euclid(1_000_000_000) as u32 }
}
