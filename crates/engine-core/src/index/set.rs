//! All segments of a pool together.
//!
//! A [`Snapshot`] is immutable and asked without a lock; [`Index`] holds the current one. A
//! segment that vanishes while the list is read was replaced by a merge: the list is read again.
//! Of several places of one chunk any is right while its pack exists: who finds a pack gone
//! calls [`Index::refresh`] and asks again.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};

use crate::error::{Error, Result};
use crate::ids::{Id, Name, PackId};
use crate::index::segment::{self, PackEntry, Place, Record, Segment};
use crate::keys::PoolKeys;
use crate::store::Store;

/// Where a chunk lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    pub pack: PackId,
    /// Position of the block in its pack.
    pub block: u16,
    /// First byte in the block's raw bytes.
    pub offset: u32,
    /// Plain bytes of the chunk.
    pub length: u32,
}

impl Found {
    pub fn place(&self) -> Place {
        Place { block: self.block, offset: self.offset, length: self.length }
    }
}

/// A record among all segments of a snapshot: position of the segment, position in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position {
    pub segment: usize,
    pub record: u64,
}

/// The segments at one moment, the largest first, since that is where most chunks are found.
#[derive(Clone, Default)]
pub struct Snapshot {
    segments: Vec<Arc<Segment>>,
    /// Segments that could not be opened, and why.
    damaged: Vec<(Id, Error)>,
}

impl Snapshot {
    /// Segments in the order in which they are asked.
    pub fn new(mut segments: Vec<Arc<Segment>>) -> Self {
        segments.sort_by_key(|segment| (std::cmp::Reverse(segment.len()), segment.id()));
        Snapshot { segments, damaged: Vec::new() }
    }

    pub fn segments(&self) -> &[Arc<Segment>] {
        &self.segments
    }

    /// Segments that are not authentic: what they list is missing here.
    pub fn damaged(&self) -> &[(Id, Error)] {
        &self.damaged
    }

    /// Where the chunk lies; its first place if it has several. Allocates nothing.
    pub fn lookup(&self, name: &Name) -> Option<Found> {
        self.candidates(name).next()
    }

    /// As [`Snapshot::lookup`], but chunks in `excluded` packs count as missing.
    pub fn lookup_excluding(&self, name: &Name, excluded: &HashSet<PackId>) -> Option<Found> {
        self.candidates(name).find(|found| !excluded.contains(&found.pack))
    }

    /// Every place that the name's prefix has. Different names with one prefix would show up
    /// here too: the reader compares whole names with the packs' footers.
    pub fn candidates(&self, name: &Name) -> impl Iterator<Item = Found> + '_ {
        self.positions(name).filter_map(|position| self.found(position))
    }

    /// Every record of the name's prefix.
    pub fn positions(&self, name: &Name) -> impl Iterator<Item = Position> + '_ {
        let prefix = name.prefix();
        self.segments.iter().enumerate().filter_map(move |(segment, open)| {
            open.find(&prefix).map(|record| Position { segment, record })
        })
    }

    pub fn record(&self, position: Position) -> Option<Record> {
        self.segments.get(position.segment)?.record(position.record)
    }

    /// What the record says, in words of the whole pool.
    pub fn found(&self, position: Position) -> Option<Found> {
        let segment = self.segments.get(position.segment)?;
        let record = segment.record(position.record)?;
        let Place { block, offset, length } = record.place;
        Some(Found { pack: segment.pack(record.pack)?.id, block, offset, length })
    }

    /// Every pack once, sorted by id.
    pub fn packs(&self) -> Vec<PackEntry> {
        let mut packs: Vec<_> = self.segments.iter().flat_map(|segment| segment.packs()).collect();
        packs.sort_unstable_by_key(|pack| pack.id);
        packs.dedup_by_key(|pack| pack.id);
        packs
    }

    /// What the index knows of the pack.
    pub fn pack(&self, id: &PackId) -> Option<PackEntry> {
        self.segments
            .iter()
            .find_map(|segment| segment.ordinal(id).and_then(|ordinal| segment.pack(ordinal)))
    }

    pub fn contains_pack(&self, id: &PackId) -> bool {
        self.pack(id).is_some()
    }

    /// Records in all segments; a chunk with two places counts twice.
    pub fn len(&self) -> u64 {
        self.segments.iter().map(|segment| segment.len()).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of all segments.
    pub fn size(&self) -> u64 {
        self.segments.iter().map(|segment| segment.size()).sum()
    }
}

/// A pool's index. Every method may be called from many threads.
pub struct Index {
    store: Arc<dyn Store>,
    keys: PoolKeys,
    pool: Id,
    cache_dir: Option<PathBuf>,
    current: RwLock<Arc<Snapshot>>,
    refreshing: Mutex<()>,
}

impl Index {
    /// Opens all segments. Copies of remote ones are kept in `cache_dir`, if one is given.
    ///
    /// Goes on without segments that are damaged, so that a pool can be checked, its index
    /// rebuilt, and what is whole restored; [`Index::refresh`] tells of them.
    pub fn load(
        store: Arc<dyn Store>,
        keys: PoolKeys,
        pool: Id,
        cache_dir: Option<&Path>,
    ) -> Result<Self> {
        let index = Index {
            store,
            keys,
            pool,
            cache_dir: cache_dir.map(|dir| dir.join(pool.to_string()).join("index")),
            current: RwLock::default(),
            refreshing: Mutex::new(()),
        };
        index.reread()?;
        Ok(index)
    }

    /// The segments as last read; ask it directly in inner loops.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.current.read().clone()
    }

    pub fn lookup(&self, name: &Name) -> Option<Found> {
        self.snapshot().lookup(name)
    }

    pub fn lookup_excluding(&self, name: &Name, excluded: &HashSet<PackId>) -> Option<Found> {
        self.snapshot().lookup_excluding(name, excluded)
    }

    pub fn packs(&self) -> Vec<PackEntry> {
        self.snapshot().packs()
    }

    pub fn pack(&self, id: &PackId) -> Option<PackEntry> {
        self.snapshot().pack(id)
    }

    pub fn contains_pack(&self, id: &PackId) -> bool {
        self.snapshot().contains_pack(id)
    }

    pub fn segments(&self) -> Vec<Arc<Segment>> {
        self.snapshot().segments().to_vec()
    }

    /// Reads the list of segments again and opens those that are new. Fails if one is damaged.
    pub fn refresh(&self) -> Result<Arc<Snapshot>> {
        let snapshot = self.reread()?;
        match snapshot.damaged.first() {
            Some((_, error)) => Err(error.clone()),
            None => Ok(snapshot),
        }
    }

    /// As [`Index::refresh`], but damaged segments are only noted.
    pub fn reread(&self) -> Result<Arc<Snapshot>> {
        let _one = self.refreshing.lock();
        for _ in 0..ATTEMPTS {
            match self.read() {
                Ok(snapshot) => {
                    let snapshot = Arc::new(snapshot);
                    *self.current.write() = snapshot.clone();
                    self.sweep_cache(&snapshot);
                    return Ok(snapshot);
                }
                Err(error) if error.is_missing() => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::Busy {
            what: format!("the index of '{}'", self.store.place()),
            reason: "its segments were replaced each time they were read".into(),
        })
    }

    fn read(&self) -> Result<Snapshot> {
        let known = self.snapshot();
        let (mut segments, mut damaged) = (Vec::new(), Vec::new());
        for id in list(&*self.store)? {
            let open = known.segments.iter().find(|segment| segment.id() == id);
            let opened = match open {
                Some(segment) => Ok(segment.clone()),
                None => self.open(id).map(Arc::new),
            };
            match opened {
                Ok(segment) => segments.push(segment),
                Err(error @ Error::Integrity { .. }) => damaged.push((id, error)),
                Err(error) => return Err(error),
            }
        }
        Ok(Snapshot { damaged, ..Snapshot::new(segments) })
    }

    fn open(&self, id: Id) -> Result<Segment> {
        let cache_dir = self.cache_dir.as_deref();
        Segment::open(&*self.store, &self.keys, &self.pool, id, cache_dir)
    }

    /// Removes copies of segments that are gone. Whoever maps one keeps its mapping.
    fn sweep_cache(&self, snapshot: &Snapshot) {
        let Some(entries) = self.cache_dir.as_ref().and_then(|dir| std::fs::read_dir(dir).ok())
        else {
            return;
        };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let stale = name
                .to_str()
                .and_then(Id::parse)
                .is_some_and(|id| !snapshot.segments.iter().any(|segment| segment.id() == id));
            if stale {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }
}

/// How often a list is read again when segments vanish while it is read.
const ATTEMPTS: usize = 16;

/// Ids of all segments in the store. Other names under `index/` are no segments.
pub fn list(store: &dyn Store) -> Result<Vec<Id>> {
    let mut ids = Vec::new();
    store.list(segment::KEYS, &mut |key, _size| {
        ids.extend(segment::id_of(key));
        Ok(())
    })?;
    Ok(ids)
}
