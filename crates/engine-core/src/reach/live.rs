//! The live set: one bit for each record of the index, never a set of names.
//!
//! A chunk with several places is live at one of them, always the same one: the first in the
//! order of the segments that is in no excluded pack, or else the first.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::Result;
use crate::ids::{Kind, Name, PackId, Prefix};
use crate::index::segment::BATCH;
use crate::index::set::Position;
use crate::index::{PackEntry, Record, Snapshot};
use crate::pack::footer::{ChunkInfo, PackKind};

/// Fewer names are found one by one.
const WORTH_A_BATCH: usize = 8;

/// What was live at a moment.
pub struct Aside(Vec<Box<[u64]>>);

/// Bits over the records of one snapshot. Any number of threads may mark.
pub struct LiveSet {
    snapshot: Arc<Snapshot>,
    bits: Vec<Box<[AtomicU64]>>,
    /// For each segment, what is to be known of each of its packs.
    packs: Vec<Box<[Known]>>,
}

#[derive(Clone, Copy)]
struct Known {
    excluded: bool,
    metadata: bool,
}

/// What became of a name that was marked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marked {
    /// Live from now on.
    New(Standing),
    /// It was live already.
    Known(Standing),
    /// It lies in a pack for chunks of another kind; not marked.
    Misplaced,
    /// No pack that the index knows holds it.
    Missing,
}

/// The one record that stands for a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    pub position: Position,
    pub record: Record,
    /// It lies in excluded packs only.
    pub excluded: bool,
    metadata: bool,
}

/// One pack and how much of it is live. Bytes are plain bytes of chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tally {
    pub pack: PackEntry,
    pub live_chunks: u64,
    pub live_bytes: u64,
    pub chunks: u64,
    pub bytes: u64,
}

impl LiveSet {
    /// Nothing is live yet. Chunks that lie also outside the `excluded` packs are live there.
    pub fn new(snapshot: Arc<Snapshot>, excluded: &HashSet<PackId>) -> Self {
        let segments = snapshot.segments();
        let words = |records: u64| (0..records.div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        let bits = segments.iter().map(|segment| words(segment.len())).collect();
        let known = |pack: PackEntry| Known {
            excluded: excluded.contains(&pack.id),
            metadata: pack.kind == PackKind::Metadata as u8,
        };
        let packs = segments.iter().map(|segment| segment.packs().map(known).collect()).collect();
        LiveSet { snapshot, bits, packs }
    }

    pub fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    /// Marks a chunk that is referred to as one of this kind. Whoever refers to a tree as if it
    /// were data would hide from a collection what the tree names: the pack tells them apart.
    pub fn mark(&self, kind: Kind, name: &Name) -> Marked {
        self.mark_place(kind, self.place(name))
    }

    /// As [`LiveSet::mark`] for many chunks of one kind, faster; tells of each in turn.
    pub fn mark_all(
        &self,
        kind: Kind,
        names: &[Name],
        each: &mut dyn FnMut(usize, Marked) -> Result<()>,
    ) -> Result<()> {
        for (batch, names) in names.chunks(BATCH).enumerate() {
            let places = self.places(names);
            for (at, place) in places.into_iter().take(names.len()).enumerate() {
                each(batch * BATCH + at, self.mark_place(kind, place))?;
            }
        }
        Ok(())
    }

    fn mark_place(&self, kind: Kind, place: Option<Standing>) -> Marked {
        let Some(place) = place else {
            return Marked::Missing;
        };
        if place.metadata != (PackKind::of(kind) == PackKind::Metadata) {
            return Marked::Misplaced;
        }
        let (word, bit) = self.bit(place.position);
        // Most chunks of a second image are live already: look before writing.
        if word.load(Ordering::Relaxed) & bit != 0
            || word.fetch_or(bit, Ordering::Relaxed) & bit != 0
        {
            Marked::Known(place)
        } else {
            Marked::New(place)
        }
    }

    pub fn is_live(&self, name: &Name) -> bool {
        self.place(name).is_some_and(|place| {
            let (word, bit) = self.bit(place.position);
            word.load(Ordering::Relaxed) & bit != 0
        })
    }

    /// The one record that stands for this name.
    fn place(&self, name: &Name) -> Option<Standing> {
        let mut first = None;
        for position in self.snapshot.positions(name) {
            let Some(place) = self.standing(position) else { continue };
            if !place.excluded {
                return Some(place);
            }
            first.get_or_insert(place);
        }
        first
    }

    /// As [`LiveSet::place`] for up to [`BATCH`] names.
    fn places(&self, names: &[Name]) -> [Option<Standing>; BATCH] {
        if names.len() < WORTH_A_BATCH {
            return std::array::from_fn(|at| names.get(at).and_then(|name| self.place(name)));
        }
        let mut wanted: [Option<Prefix>; BATCH] =
            std::array::from_fn(|at| names.get(at).map(Name::prefix));
        let mut places = [None; BATCH];
        for (segment, open) in self.snapshot.segments().iter().enumerate() {
            let found = open.find_batch(&wanted);
            for (at, record) in found.into_iter().enumerate() {
                let position = record.map(|record| Position { segment, record });
                let Some(place) = position.and_then(|position| self.standing(position)) else {
                    continue;
                };
                if !place.excluded {
                    places[at] = Some(place);
                    wanted[at] = None;
                } else if places[at].is_none() {
                    places[at] = Some(place);
                }
            }
        }
        places
    }

    fn standing(&self, position: Position) -> Option<Standing> {
        let record = self.snapshot.record(position)?;
        let pack = self.packs.get(position.segment)?.get(record.pack as usize)?;
        let Known { excluded, metadata } = *pack;
        Some(Standing { position, record, excluded, metadata })
    }

    fn bit(&self, position: Position) -> (&AtomicU64, u64) {
        (&self.bits[position.segment][(position.record / 64) as usize], 1 << (position.record % 64))
    }

    /// Of these chunks of one block of a pack, laid end to end: which are live and stand here, and
    /// not in another pack.
    pub fn standing_in(&self, pack: &PackId, block: u16, chunks: &[ChunkInfo]) -> Vec<bool> {
        let mut found = Vec::with_capacity(chunks.len());
        let mut offset = 0;
        for chunks in chunks.chunks(BATCH) {
            let names: Vec<Name> = chunks.iter().map(|chunk| chunk.name).collect();
            for (chunk, place) in chunks.iter().zip(self.places(&names)) {
                let is_here = place.is_some_and(|Standing { position, record, .. }| {
                    let (word, bit) = self.bit(position);
                    let segment = self.snapshot.segments().get(position.segment);
                    let entry = segment.and_then(|segment| segment.pack(record.pack));
                    word.load(Ordering::Relaxed) & bit != 0
                        && (record.place.block, record.place.offset) == (block, offset)
                        && entry.is_some_and(|entry| entry.id == *pack)
                });
                found.push(is_here);
                offset += chunk.length;
            }
        }
        found
    }

    /// Notes what is live by now.
    pub fn aside(&self) -> Aside {
        let copy =
            |words: &[AtomicU64]| words.iter().map(|word| word.load(Ordering::Relaxed)).collect();
        Aside(self.bits.iter().map(|words| copy(words)).collect())
    }

    /// Nothing is live any more that was so when it was noted.
    pub fn forget(&self, aside: &Aside) {
        for (words, gone) in self.bits.iter().zip(&aside.0) {
            for (word, gone) in words.iter().zip(gone) {
                word.fetch_and(!gone, Ordering::Relaxed);
            }
        }
    }

    /// Packs in which something live stands, by id; only live chunks are counted. Reads the records
    /// of these.
    pub fn shares(&self) -> Vec<Tally> {
        let mut all: Vec<Tally> = Vec::new();
        for (segment, bits) in self.snapshot.segments().iter().zip(&self.bits) {
            let mut of_pack: HashMap<u32, (u64, u64)> = HashMap::new();
            for (at, word) in bits.iter().enumerate() {
                let mut word = word.load(Ordering::Relaxed);
                while word != 0 {
                    let position = at as u64 * 64 + u64::from(word.trailing_zeros());
                    word &= word - 1;
                    if let Some(record) = segment.record(position) {
                        let (chunks, bytes) = of_pack.entry(record.pack).or_default();
                        *chunks += 1;
                        *bytes += u64::from(record.place.length);
                    }
                }
            }
            all.extend(of_pack.into_iter().filter_map(|(ordinal, (chunks, bytes))| {
                let pack = segment.pack(ordinal)?;
                Some(Tally { pack, live_chunks: chunks, live_bytes: bytes, chunks, bytes })
            }));
        }
        all.sort_by_key(|tally| tally.pack.id);
        all.dedup_by(|next, kept| {
            let same = next.pack.id == kept.pack.id;
            if same {
                kept.live_chunks += next.live_chunks;
                kept.live_bytes += next.live_bytes;
                kept.chunks = kept.live_chunks;
                kept.bytes = kept.live_bytes;
            }
            same
        });
        all
    }

    /// Live chunks in all.
    pub fn count(&self) -> u64 {
        let words = self.bits.iter().flat_map(|words| words.iter());
        words.map(|word| u64::from(word.load(Ordering::Relaxed).count_ones())).sum()
    }

    /// Every pack that the index lists, sorted by id. Reads all records once, in order.
    pub fn tallies(&self) -> Vec<Tally> {
        let mut all: Vec<Tally> = Vec::new();
        for (segment, bits) in self.snapshot.segments().iter().zip(&self.bits) {
            let empty = |pack| Tally { pack, live_chunks: 0, live_bytes: 0, chunks: 0, bytes: 0 };
            let from = all.len();
            all.extend(segment.packs().map(empty));
            let tallies = &mut all[from..];
            for position in 0..segment.len() {
                let Some(record) = segment.record(position) else { continue };
                let Some(tally) = tallies.get_mut(record.pack as usize) else { continue };
                let length = u64::from(record.place.length);
                tally.chunks += 1;
                tally.bytes += length;
                let word = bits[(position / 64) as usize].load(Ordering::Relaxed);
                let live = word >> (position % 64) & 1;
                tally.live_chunks += live;
                tally.live_bytes += live * length;
            }
        }
        all.sort_by_key(|tally| tally.pack.id);
        all.dedup_by(|next, kept| {
            // Listed twice: each live chunk is counted once, the others as often as listed.
            let same = next.pack.id == kept.pack.id;
            if same {
                kept.live_chunks += next.live_chunks;
                kept.live_bytes += next.live_bytes;
                kept.chunks = kept.chunks.max(next.chunks).max(kept.live_chunks);
                kept.bytes = kept.bytes.max(next.bytes).max(kept.live_bytes);
            }
            same
        });
        all
    }
}
