//! What became of the cells, put together in order: each disk's references and data extents.

use std::collections::{BTreeMap, HashMap};

use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::backup::cutter::Cutter;
use crate::counters::Tally;
use crate::disk::GRAIN_BYTES;
use crate::error::{Error, Result};
use crate::ids::Ref;
use crate::ingest::Sink;
use crate::tree::entry::{Content, Extent};
use crate::tree::extents::MAX_EXTENTS;
use crate::tree::layout::Placed;
use crate::tree::lists::StreamingRefs;

use super::DiskInput;
use super::parent::KeptLists;

/// Steps that may be begun before the first of them is done.
const AHEAD: u64 = 64;
/// Zeroes that are cut at a time where a hole is given up.
static ZEROES: [u8; GRAIN_BYTES as usize] = [0; GRAIN_BYTES as usize];

/// A stretch of a disk: where it has data, and what of which chunks that is, end to end.
#[derive(Default)]
pub struct Row {
    pub parts: Vec<Placed>,
    pub extents: Vec<Extent>,
}

impl Row {
    /// Adds a chunk that lies behind all others.
    pub fn push(&mut self, offset: u64, reference: Ref) {
        let length = reference.plain_length();
        self.push_part(Placed { reference, skip: 0, length, offset });
    }

    /// The same of a part of a chunk.
    pub fn push_part(&mut self, part: Placed) {
        self.parts.push(part);
        let (offset, length) = (part.offset, u64::from(part.length));
        match self.extents.last_mut() {
            Some(last) if last.offset + last.length == offset => last.length += length,
            _ => self.extents.push(Extent { offset, length }),
        }
    }
}

/// What became of a step.
pub enum Done {
    Row(Row),
    Lists(KeptLists),
    /// The disk has no more.
    End,
}

/// What a file of a disk is made of.
pub struct Made {
    pub content: Content,
    /// None for a disk without holes.
    pub extents: Option<Vec<Extent>>,
    pub skips: Vec<Extent>,
    pub lists: Vec<u64>,
}

struct State<'a> {
    /// Of the steps, how many were put.
    done: u64,
    early: BTreeMap<u64, Done>,
    content: Laid<'a>,
    extents: Vec<Extent>,
    zeroes: Zeroes,
    made: Vec<Made>,
    abandoned: bool,
}

/// The content of a disk as far as it is put together.
struct Laid<'a> {
    refs: StreamingRefs<'a>,
    /// What of it is passed over.
    skips: Vec<Extent>,
    bytes: u64,
}

impl<'a> Laid<'a> {
    fn new(sink: &'a dyn Sink) -> Self {
        Laid { refs: StreamingRefs::new(sink), skips: Vec::new(), bytes: 0 }
    }

    /// Passes over the next bytes of the content.
    fn skip(&mut self, length: u64) {
        match self.skips.last_mut() {
            _ if length == 0 => {}
            Some(last) if last.offset + last.length == self.bytes => last.length += length,
            _ => self.skips.push(Extent { offset: self.bytes, length }),
        }
        self.bytes += length;
    }

    fn push(&mut self, part: &Placed) -> Result<()> {
        let (whole, end) = (part.reference.plain_length(), part.skip + part.length);
        self.skip(u64::from(part.skip));
        self.bytes += u64::from(part.length);
        self.skip(u64::from(whole.saturating_sub(end)));
        self.refs.push(part.reference)
    }

    fn push_whole(&mut self, reference: Ref) -> Result<()> {
        self.bytes += u64::from(reference.plain_length());
        self.refs.push(reference)
    }

    fn push_lists(&mut self, kept: &KeptLists) -> Result<()> {
        let start = self.bytes;
        for skip in &kept.skips {
            self.bytes = start + skip.offset;
            self.skip(skip.length);
        }
        self.bytes = start;
        for (list, bytes) in &kept.lists {
            self.refs.push_list(*list, *bytes)?;
            self.bytes += bytes;
        }
        Ok(())
    }
}

/// The chunks of so many zeroes, by their number: as a rule few numbers are wanted again and again.
type Zeroes = HashMap<usize, Vec<Ref>>;

/// Numbers that are kept.
const ZEROES_KEPT: usize = 64;

/// Shared by the workers.
pub struct Rows<'a> {
    sink: &'a dyn Sink,
    disks: &'a [DiskInput],
    state: Mutex<State<'a>>,
    room: Condvar,
}

impl<'a> Rows<'a> {
    pub fn new(sink: &'a dyn Sink, disks: &'a [DiskInput]) -> Self {
        let state = State {
            done: 0,
            early: BTreeMap::new(),
            content: Laid::new(sink),
            extents: Vec::new(),
            zeroes: Zeroes::default(),
            made: Vec::new(),
            abandoned: false,
        };
        Rows { sink, disks, state: Mutex::new(state), room: Condvar::new() }
    }

    /// Waits until the step of this number may be begun; false when there is no more to do.
    pub fn wait_for(&self, number: u64) -> bool {
        let mut state = self.state.lock();
        while !state.abandoned && number >= state.done + AHEAD {
            self.room.wait(&mut state);
        }
        !state.abandoned
    }

    /// Puts what became of a step. Holes that are one too many are filled, with
    /// zeroes that `cutter` cuts.
    pub fn put(
        &self,
        number: u64,
        done: Done,
        cutter: &mut Cutter<'a>,
        tally: &mut Tally,
    ) -> Result<()> {
        let mut state = self.state.lock();
        state.early.insert(number, done);
        while let Some(done) = {
            let next = state.done;
            state.early.remove(&next)
        } {
            match done {
                Done::Row(row) => self.add(&mut state, &row, cutter, tally)?,
                Done::Lists(kept) => add_lists(&mut state, &kept)?,
                Done::End => self.end(&mut state)?,
            }
            state.done += 1;
        }
        drop(state);
        self.room.notify_all();
        Ok(())
    }

    fn add(
        &self,
        state: &mut MutexGuard<'_, State<'a>>,
        row: &Row,
        cutter: &mut Cutter<'a>,
        tally: &mut Tally,
    ) -> Result<()> {
        let State { content, extents, zeroes, .. } = &mut **state;
        let mut parts = row.parts.iter();
        for extent in &row.extents {
            let before = extents.last().map(|last| last.offset + last.length);
            let count = extents.len();
            match (before, extents.last_mut()) {
                (Some(end), Some(last)) if !is_worth(extent.offset - end, count) => {
                    let mut at = end;
                    while at < extent.offset {
                        // No more than to the next grain: no chunk is in two cells.
                        let next = (at + 1).next_multiple_of(GRAIN_BYTES).min(extent.offset);
                        let part = (next - at) as usize;
                        if !zeroes.contains_key(&part) {
                            if zeroes.len() == ZEROES_KEPT {
                                zeroes.clear();
                            }
                            let (bytes, mut chunks) =
                                (ZEROES.get(..part).unwrap_or(&ZEROES), Vec::new());
                            cutter.cut(tally, bytes, true, |reference| {
                                chunks.push(reference);
                                Ok(())
                            })?;
                            zeroes.insert(part, chunks);
                        }
                        for reference in zeroes.get(&part).into_iter().flatten() {
                            content.push_whole(*reference)?;
                        }
                        at = next;
                    }
                    last.length = extent.offset + extent.length - last.offset;
                }
                _ => extents.push(*extent),
            }
            let mut left = extent.length;
            while left > 0 {
                let Some(part) = parts.next() else {
                    return Err(Error::Invalid("chunks of a disk do not fill it".into()));
                };
                content.push(part)?;
                left = left.saturating_sub(u64::from(part.length));
            }
        }
        Ok(())
    }

    fn end(&self, state: &mut MutexGuard<'_, State<'a>>) -> Result<()> {
        let size = self.disks.get(state.made.len()).map_or(0, |disk| disk.size);
        let Laid { refs, skips, .. } = std::mem::replace(&mut state.content, Laid::new(self.sink));
        let extents = std::mem::take(&mut state.extents);
        let is_whole = match extents.as_slice() {
            [] => size == 0,
            [one] => one.length == size,
            _ => false,
        };
        let (content, mut lists) = refs.finish_measured()?;
        if lists.len() > MAX_EXTENTS {
            lists.clear();
        }
        let extents = (!is_whole).then_some(extents);
        state.made.push(Made { content, extents, skips, lists });
        Ok(())
    }

    /// Has everybody end.
    pub fn abandon(&self) {
        self.state.lock().abandoned = true;
        self.room.notify_all();
    }

    /// What was made of each disk.
    pub fn finish(self) -> Result<Vec<Made>> {
        let state = self.state.into_inner();
        if state.made.len() == self.disks.len() { Ok(state.made) } else { Err(Error::Cancelled) }
    }
}

/// Adds lists as they are. There is room for their extents: the plan has seen to it.
fn add_lists(state: &mut State<'_>, kept: &KeptLists) -> Result<()> {
    for extent in &kept.extents {
        match state.extents.last_mut() {
            Some(last) if last.offset + last.length == extent.offset => {
                last.length += extent.length;
            }
            _ => state.extents.push(*extent),
        }
    }
    state.content.push_lists(kept)
}

/// Whether a hole is worth an extent more, beside so many. Half of those that a file may have go
/// to whoever comes, half of the rest to holes four times as long, and so on: however a disk is
/// torn, there is room for its longest holes.
fn is_worth(hole: u64, extents: usize) -> bool {
    if hole == 0 {
        return false;
    }
    let mut left = MAX_EXTENTS - extents.min(MAX_EXTENTS);
    let mut least = 1;
    while left > 0 && left <= MAX_EXTENTS / 2 {
        least = if least == 1 { 4 * GRAIN_BYTES } else { least * 4 };
        left *= 2;
    }
    left > 0 && hole >= least
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use super::*;
    use crate::cancel::Cancel;
    use crate::counters::Counters;
    use crate::disk::{Patience, Piece};
    use crate::ids::Name;
    use crate::ingest;
    use crate::pool::{Pool, PoolConfig};
    use crate::store::Store;
    use crate::store::memory::MemoryStore;
    use crate::tree::lists;

    /// A disk of one small chunk in each second grain.
    #[test]
    fn a_disk_that_is_torn_to_pieces_has_as_many_extents_as_a_file_may_and_all_its_bytes() {
        const COUNT: u64 = 150_000;
        let size = COUNT * 2 * GRAIN_BYTES;
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let pool = Pool::create(store, &[1; 32], PoolConfig::default(), 0, None).unwrap();
        let (counters, cancel) = (Counters::default(), Cancel::new());
        let (marked, claims) = Default::default();
        let options = ingest::Options {
            counters: &counters,
            cancel: &cancel,
            level: 1,
            marked,
            job: None,
            claims,
        };
        let made = ingest::run(&pool, options, |ingest| {
            let source = Arc::new(Nothing(size));
            let name = "vda".to_owned();
            let disks = [DiskInput { name, size, ranges: Vec::new(), source, mtime_ns: 0 }];
            let rows = Rows::new(ingest, &disks);
            let mut cutter = Cutter::new(ingest, 1, None)?;
            let mut tally = Tally::default();
            let mut number = 0;
            for first in (0..COUNT).step_by(1000) {
                let mut row = Row::default();
                for at in first..first + 1000 {
                    let name = Name(*blake3::hash(&at.to_le_bytes()).as_bytes());
                    row.push(at * 2 * GRAIN_BYTES, Ref { name, length: 4096 });
                }
                assert!(rows.wait_for(number));
                rows.put(number, Done::Row(row), &mut cutter, &mut tally)?;
                number += 1;
            }
            rows.put(number, Done::End, &mut cutter, &mut tally)?;
            cutter.flush()?;
            rows.finish()
        });
        let made = made.unwrap().pop().unwrap();
        let extents = made.extents.unwrap();
        assert!(extents.len() <= MAX_EXTENTS && extents.len() >= MAX_EXTENTS / 2);
        let data: u64 = extents.iter().map(|extent| extent.length).sum();
        let refs = lists::Refs::new(&pool, &made.content).map(Result::unwrap);
        assert_eq!(refs.map(|reference| u64::from(reference.length)).sum::<u64>(), data);
        let inside = extents.iter().rev().find(|extent| extent.length > 4096).unwrap();
        assert!(inside.offset + inside.length > (COUNT * 2 - 2) * GRAIN_BYTES);
    }

    struct Nothing(u64);

    impl crate::disk::DiskSource for Nothing {
        fn size(&self) -> u64 {
            self.0
        }

        fn read(&self, _: &mut [Piece<'_>], _: Patience<'_>) -> Result<()> {
            Ok(())
        }
    }

    #[test]
    fn there_is_always_room_for_a_longer_hole() {
        assert!(is_worth(1, 1));
        assert!(!is_worth(0, 1));
        assert!(is_worth(1, MAX_EXTENTS / 2 - 1));
        assert!(!is_worth(GRAIN_BYTES, MAX_EXTENTS / 2));
        assert!(is_worth(4 * GRAIN_BYTES, MAX_EXTENTS / 2));
        assert!(is_worth(1 << 52, MAX_EXTENTS - 1));
        assert!(!is_worth(u64::MAX, MAX_EXTENTS));
        // Holes as short as is allowed each time, on the largest disk there can be.
        let (mut extents, mut at) = (1, 0_u64);
        while extents < MAX_EXTENTS {
            let Some(hole) = (0..24)
                .map(|twice| GRAIN_BYTES << (2 * twice))
                .find(|hole| is_worth(*hole, extents))
            else {
                break;
            };
            match at.checked_add(hole) {
                Some(next) => at = next,
                None => break,
            }
            extents += 1;
        }
        assert!(extents <= MAX_EXTENTS);
    }
}
