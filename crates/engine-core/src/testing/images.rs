//! Small images without a file system: written through the ingest, read back through the pool.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use crate::cancel::Cancel;
use crate::counters::Counters;
use crate::error::Result;
use crate::finding::Severity;
use crate::ids::{Id, Kind};
use crate::ingest::{self, Ingest};
use crate::manifest::{Manifest, Source, Status};
use crate::pool::jobs::{Job, JobKind};
use crate::pool::{Pool, PoolConfig, marks};
use crate::store::Store;
use crate::tree::build::write_directory;
use crate::tree::codec::{RawEntry, encode_entry};
use crate::tree::entry::{Entry, EntryKind};
use crate::tree::walk::Directory;
use crate::tree::{ChunkSink, lists};

/// Directories, each with its files: name and bytes.
pub type Files = BTreeMap<String, BTreeMap<String, Vec<u8>>>;

/// The bytes of one chunk.
const CHUNK: usize = 2000;

/// A pool of small packs, so that little data makes many.
pub fn pool(store: Arc<dyn Store>) -> Result<Pool> {
    let config = PoolConfig { block_bytes: 8192, pack_bytes: 32 << 10, ..PoolConfig::default() };
    Pool::create(store, &KEY, config, 0, None)
}

pub const KEY: [u8; 32] = [5; 32];

pub fn open(store: Arc<dyn Store>) -> Result<Pool> {
    Pool::open(store, &KEY, None)
}

/// Files of incompressible bytes that depend on their names and this seed alone.
pub fn files(seed: &str, directories: usize, each: usize, bytes: usize) -> Files {
    let content = |directory: usize, file: usize| {
        let mut content = vec![0; bytes];
        let text = format!("{seed}/{directory}/{file}");
        blake3::Hasher::new().update(text.as_bytes()).finalize_xof().fill(&mut content);
        content
    };
    (0..directories)
        .map(|directory| {
            let inside = (0..each).map(|file| (format!("{file}"), content(directory, file)));
            (format!("{seed}-{directory}"), inside.collect())
        })
        .collect()
}

/// Stores an image of these files, as a job that began now and saw the marks that stand.
pub fn back_up(pool: &Pool, number: u64, files: &Files) -> Result<Id> {
    let job = Job::begin(pool.shared_store(), pool.keys(), JobKind::Backup, 0)?;
    let marked = marks::read(pool.store(), pool.keys())?;
    let manifest = store(pool, number, files, marked.packs)?;
    pool.commit_image(&manifest, &job)?;
    job.end()?;
    Ok(manifest.id)
}

/// Everything but the commit.
pub fn store(
    pool: &Pool,
    number: u64,
    files: &Files,
    marked: HashSet<crate::ids::PackId>,
) -> Result<Manifest> {
    let (counters, cancel) = (Counters::default(), Cancel::new());
    let options = ingest::Options {
        counters: &counters,
        cancel: &cancel,
        level: 1,
        marked,
        job: None,
        claims: Arc::default(),
    };
    let mut root = Entry::new(b"/", EntryKind::Dir);
    root.subtree = Some(ingest::run(pool, options, |ingest| write_root(ingest, files))?);
    Ok(Manifest {
        id: Id::random()?,
        number,
        source: Source { host: "kit".into(), name: "kit:/".into(), paths: vec![b"/".to_vec()] },
        started_ns: 0,
        finished_ns: 0,
        root,
        parent: None,
        status: Status::Completed,
        stats: BTreeMap::new(),
        findings: Vec::new(),
        findings_total: 0,
        options: BTreeMap::new(),
        software: "kit".into(),
    })
}

fn write_root(ingest: &Ingest<'_>, files: &Files) -> Result<crate::ids::Ref> {
    let mut directories = Vec::new();
    for (name, inside) in files {
        let mut entries = Vec::new();
        for (name, content) in inside {
            let mut entry = Entry::new(name.as_bytes(), EntryKind::File);
            entry.size = content.len() as u64;
            let refs = content
                .chunks(CHUNK)
                .map(|chunk| ingest.store(Kind::Data, chunk))
                .collect::<Result<Vec<_>>>()?;
            entry.content = lists::write_refs(ingest, &refs)?;
            entries.push(entry);
        }
        let mut directory = Entry::new(name.as_bytes(), EntryKind::Dir);
        directory.subtree = Some(write_entries(ingest, &entries)?);
        directories.push(directory);
    }
    write_entries(ingest, &directories)
}

fn write_entries(ingest: &Ingest<'_>, entries: &[Entry]) -> Result<crate::ids::Ref> {
    let mut sorted: Vec<&Entry> = entries.iter().collect();
    sorted.sort_by(|a, b| a.name.cmp(&b.name));
    let mut encoded = Vec::new();
    for entry in sorted {
        let mut raw = Vec::new();
        encode_entry(entry, &mut raw)?;
        encoded.push((entry.name.clone(), raw));
    }
    write_directory(ingest, encoded.iter().map(|(name, raw)| RawEntry { name, raw }))
}

/// What an image holds, every byte of it.
pub fn read_back(pool: &Pool, image: &Id) -> Result<Files> {
    let root = pool.image(image)?.root;
    let mut files = Files::new();
    for directory in Directory::of(pool, &root)?.entries() {
        let directory = directory?;
        let mut inside = BTreeMap::new();
        for file in Directory::of(pool, &directory)?.entries() {
            let file = file?;
            let mut content = Vec::new();
            for reference in lists::Refs::new(pool, &file.content) {
                let counters = Counters::default();
                content.extend_from_slice(&pool.chunk(Kind::Data, &reference?, &counters)?);
            }
            inside.insert(String::from_utf8(file.name).unwrap(), content);
        }
        files.insert(String::from_utf8(directory.name).unwrap(), inside);
    }
    Ok(files)
}

/// Keys of all packs in a store.
pub fn packs(store: &dyn Store) -> Vec<String> {
    crate::store::list_sorted(store, "packs/").unwrap().into_iter().map(|(key, _)| key).collect()
}

/// Errors among findings, in words.
pub fn errors(findings: &crate::finding::Findings) -> Vec<String> {
    let kept = findings.kept();
    let errors = kept.iter().filter(|finding| finding.severity == Severity::Error);
    errors.map(|finding| format!("{finding:?}")).collect()
}
