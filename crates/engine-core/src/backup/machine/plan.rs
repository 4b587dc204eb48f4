//! What the workers do next, cell by cell: what has to be read is theirs, what is as in the parent
//! is laid out here.
//!
//! Invariant: steps come in the order of the disks and of the places on them.

use crate::disk::{CELL_BYTES, GRAIN_BYTES};
use crate::error::Result;
use crate::finding::Findings;
use crate::ids::Ref;
use crate::ingest::Sink;
use crate::tree::extents::MAX_EXTENTS;
use crate::tree::layout::Placed;

use super::DiskInput;
use super::parent::{KeptLists, ParentDisk, tell_unreadable};
use super::ranges::{Cursor, Range, What, same_from};
use super::rows::{Done, Row};

/// Cells without work that are handed on together.
const CELLS_A_ROW: usize = 64;
/// What is left of a chunk beside a change is read again where it is less, or less of the chunk.
const LEAST_SLICE: u32 = 8 << 10;
const LEAST_SHARE: u32 = 8;

/// A part of a cell; parts lie end to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// To be cut: read, or zeroes.
    Open { length: u64, is_read: bool },
    /// A hole, as the parent has it.
    Gap { length: u64 },
    /// A chunk of the parent, or a part of it.
    Kept(Placed),
}

impl Part {
    pub fn length(&self) -> u64 {
        match self {
            Part::Open { length, .. } | Part::Gap { length } => *length,
            Part::Kept(part) => u64::from(part.length),
        }
    }
}

/// A cell with something to be read.
pub struct Cell {
    pub disk: usize,
    pub offset: u64,
    pub parts: Vec<Part>,
}

/// A piece of work; its row is given at the same place of the order.
pub enum Step {
    Cell(Cell),
    /// Nothing to be read.
    Done(Done),
}

/// See the module.
pub struct Plan<'a> {
    sink: &'a dyn Sink,
    findings: &'a Findings,
    disks: &'a [DiskInput],
    parents: Vec<Option<ParentDisk<'a>>>,
    disk: usize,
    offset: u64,
    /// Chunks of the parent of which a part may be kept.
    slices: usize,
    /// Whether its lists may be taken over as they are.
    takes_lists: bool,
    cursor: Option<Cursor<'a>>,
    /// A step that was found while looking for an earlier one.
    waiting: Option<Step>,
    number: u64,
    ranges: Vec<Range>,
    chunks: Vec<Placed>,
}

impl<'a> Plan<'a> {
    pub fn new(
        sink: &'a dyn Sink,
        disks: &'a [DiskInput],
        parents: Vec<Option<ParentDisk<'a>>>,
        findings: &'a Findings,
    ) -> Result<Self> {
        let mut plan = Plan {
            sink,
            findings,
            disks,
            parents,
            disk: 0,
            offset: 0,
            slices: 0,
            takes_lists: false,
            cursor: None,
            waiting: None,
            number: 0,
            ranges: Vec::new(),
            chunks: Vec::new(),
        };
        plan.begin()?;
        Ok(plan)
    }

    /// Sees what may be taken over on the disk that comes now.
    fn begin(&mut self) -> Result<()> {
        (self.offset, self.cursor) = (0, None);
        (self.slices, self.takes_lists) = (0, false);
        let parent = self.parents.get(self.disk).and_then(Option::as_ref);
        if let (Some(parent), Some(disk)) = (parent, self.disks.get(self.disk)) {
            let (extents, skips) = parent.counts();
            // A part has something passed over before it and behind it.
            self.slices = (MAX_EXTENTS - skips.min(MAX_EXTENTS)) / 2;
            let others = disk.ranges.iter().filter(|range| range.what != What::Same);
            let more = others.map(|range| range.length / GRAIN_BYTES + 2).sum::<u64>();
            let most = (MAX_EXTENTS / 2) as u64;
            // Holes have to be given up elsewhere only: what lists say is not changed.
            self.takes_lists = self.sink.may_reuse() && extents as u64 + more < most;
            // What is lost is found by looking for it: lists are walked then, and it is read again.
            for lists in parent.unwanted() {
                let mut lists = lists;
                self.takes_lists = self.takes_lists && self.sink.holds(&mut lists)?;
            }
        }
        Ok(())
    }

    /// The next step and its number; none when there are no more.
    pub fn next(&mut self) -> Result<Option<(u64, Step)>> {
        let step = match self.waiting.take() {
            Some(step) => Some(step),
            None => self.step()?,
        };
        let number = self.number;
        self.number += 1;
        Ok(step.map(|step| (number, step)))
    }

    fn step(&mut self) -> Result<Option<Step>> {
        let Some(disk) = self.disks.get(self.disk) else { return Ok(None) };
        let mut row = Row::default();
        for _ in 0..CELLS_A_ROW {
            if self.offset == disk.size {
                self.disk += 1;
                self.begin()?;
                return Ok(Some(self.after(row, Step::Done(Done::End))));
            }
            if let Some(lists) = self.lists(disk) {
                self.offset = lists.upto;
                return Ok(Some(self.after(row, Step::Done(Done::Lists(lists)))));
            }
            let parts = self.cell(disk)?;
            let offset = self.offset - self.offset % CELL_BYTES;
            self.offset = offset + parts.iter().map(Part::length).sum::<u64>();
            if parts.iter().any(|part| matches!(part, Part::Open { is_read: true, .. })) {
                let cell = Cell { disk: self.disk, offset, parts };
                return Ok(Some(self.after(row, Step::Cell(cell))));
            }
            for part in parts {
                if let Part::Kept(part) = part {
                    row.push_part(part);
                }
            }
        }
        Ok(Some(Step::Done(Done::Row(row))))
    }

    /// The row, and then the step; the step alone after a row of nothing.
    fn after(&mut self, row: Row, step: Step) -> Step {
        if row.parts.is_empty() {
            return step;
        }
        self.waiting = Some(step);
        Step::Done(Done::Row(row))
    }

    /// Lists of the parent that can be taken over from here on.
    fn lists(&self, disk: &DiskInput) -> Option<KeptLists> {
        let parent = self.parents.get(self.disk)?.as_ref().filter(|_| self.takes_lists)?;
        parent.lists(self.offset, same_from(&disk.ranges, self.offset))
    }

    /// What the cell with the offset is made of, up to its end or to lists that can be taken over.
    fn cell(&mut self, disk: &'a DiskInput) -> Result<Vec<Part>> {
        let from = self.offset;
        let begin = from - from % CELL_BYTES;
        let mut upto = (begin + CELL_BYTES).min(disk.size);
        if let Some(Some(parent)) = self.parents.get(self.disk)
            && self.takes_lists
        {
            let same = |at| same_from(&disk.ranges, at);
            upto = parent.next_list(from, upto, same).unwrap_or(upto);
        }
        let cursor = self.cursor.get_or_insert_with(|| Cursor::new(&disk.ranges));
        cursor.take(from, upto, &mut self.ranges);
        let has_same = self.ranges.iter().any(|range| range.what == What::Same);
        self.chunks.clear();
        if let Some(parent) = self.parents.get_mut(self.disk)
            && let Some(found) = parent
            && has_same
            && let Err(error) = found.take(from, upto, &mut self.chunks)
        {
            // From here on it is as if there were none.
            tell_unreadable(self.findings, &disk.name, &error);
            *parent = None;
            self.chunks.clear();
        }
        let parent = self.parents.get(self.disk).and_then(Option::as_ref);
        if !self.sink.may_reuse() && !self.chunks.is_empty() {
            let same = |chunk: &&Placed| {
                self.ranges.iter().any(|range| range.what == What::Same && overlaps(chunk, range))
            };
            let mut wanted = self.chunks.iter().filter(same).map(|chunk| chunk.reference);
            if !self.sink.holds(&mut wanted)? {
                self.chunks.clear();
            }
        }
        let mut parts = Parts::default();
        if begin < from {
            parts.0.push(Part::Gap { length: from - begin });
        }
        for range in &self.ranges {
            match (range.what, parent) {
                (What::Hole, _) => parts.open(range.length, false),
                (What::Data, _) | (What::Same, None) => parts.open(range.length, true),
                (What::Same, Some(parent)) => {
                    same(range, parent, &self.chunks, &mut self.slices, &mut parts);
                }
            }
        }
        Ok(parts.0)
    }
}

/// Lays out a range that is as in the parent.
fn same(
    range: &Range,
    parent: &ParentDisk<'_>,
    chunks: &[Placed],
    slices: &mut usize,
    parts: &mut Parts,
) {
    let end = range.offset + range.length;
    let mut at = range.offset;
    let between = |from: u64, upto: u64, parts: &mut Parts| {
        parent.holes(from, upto, |length, is_hole| match is_hole {
            true => parts.0.push(Part::Gap { length }),
            false => parts.open(length, true),
        });
    };
    for chunk in chunks.iter().filter(|chunk| overlaps(chunk, range)) {
        let (from, upto) = (chunk.offset.max(range.offset), chunk.end().min(end));
        let length = (upto - from) as u32;
        if length < chunk.length {
            if *slices == 0 || !is_worth(length, chunk.reference) {
                continue;
            }
            *slices -= 1;
        }
        between(at, from, parts);
        let skip = chunk.skip + (from - chunk.offset) as u32;
        parts.0.push(Part::Kept(Placed { skip, length, offset: from, ..*chunk }));
        at = upto;
    }
    between(at, end, parts);
}

/// Whether so much of a chunk is kept rather than read again: what is kept of a chunk keeps all of
/// it in the pool.
fn is_worth(length: u32, chunk: Ref) -> bool {
    length >= LEAST_SLICE && length >= chunk.plain_length() / LEAST_SHARE
}

fn overlaps(chunk: &Placed, range: &Range) -> bool {
    chunk.offset < range.offset + range.length && chunk.end() > range.offset
}

#[derive(Default)]
struct Parts(Vec<Part>);

impl Parts {
    fn open(&mut self, more: u64, reads: bool) {
        match self.0.last_mut() {
            Some(Part::Open { length, is_read }) if *is_read == reads => *length += more,
            _ => self.0.push(Part::Open { length: more, is_read: reads }),
        }
    }
}
