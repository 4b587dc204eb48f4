//! What the workers do next, cell by cell: what has to be read is theirs, what is as in the parent
//! is laid out here.
//!
//! Invariant: steps come in the order of the disks and of the places on them.

use crate::disk::CELL_BYTES;
use crate::error::Result;
use crate::finding::Findings;
use crate::ids::Ref;
use crate::ingest::Sink;

use super::DiskInput;
use super::parent::{ParentDisk, Placed, tell_unreadable};
use super::ranges::{Cursor, Range, What};
use super::rows::Row;

/// Cells without work that are handed on together.
const CELLS_A_ROW: usize = 64;

/// A part of a cell; parts lie end to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// To be cut: read, or zeroes.
    Open { length: u64, is_read: bool },
    /// A hole, as the parent has it.
    Gap { length: u64 },
    /// A chunk of the parent.
    Kept(Ref),
}

impl Part {
    pub fn length(&self) -> u64 {
        match self {
            Part::Open { length, .. } | Part::Gap { length } => *length,
            Part::Kept(reference) => u64::from(reference.plain_length()),
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
    Row(Row),
    /// The disk has no more.
    End,
}

/// See the module.
pub struct Plan<'a> {
    sink: &'a dyn Sink,
    findings: &'a Findings,
    disks: &'a [DiskInput],
    parents: Vec<Option<ParentDisk<'a>>>,
    disk: usize,
    offset: u64,
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
    ) -> Self {
        Plan {
            sink,
            findings,
            disks,
            parents,
            disk: 0,
            offset: 0,
            cursor: None,
            waiting: None,
            number: 0,
            ranges: Vec::new(),
            chunks: Vec::new(),
        }
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
                self.offset = 0;
                self.cursor = None;
                return Ok(Some(self.after(row, Step::End)));
            }
            let parts = self.cell(disk)?;
            let offset = self.offset;
            self.offset = (offset + CELL_BYTES).min(disk.size);
            if parts.iter().any(|part| matches!(part, Part::Open { is_read: true, .. })) {
                let cell = Cell { disk: self.disk, offset, parts };
                return Ok(Some(self.after(row, Step::Cell(cell))));
            }
            let mut at = offset;
            for part in parts {
                if let Part::Kept(reference) = part {
                    row.push(at, reference);
                }
                at += part.length();
            }
        }
        Ok(Some(Step::Row(row)))
    }

    /// The row, and then the step; the step alone after a row of nothing.
    fn after(&mut self, row: Row, step: Step) -> Step {
        if row.refs.is_empty() {
            return step;
        }
        self.waiting = Some(step);
        Step::Row(row)
    }

    /// What the cell at the offset is made of.
    fn cell(&mut self, disk: &'a DiskInput) -> Result<Vec<Part>> {
        let (from, upto) = (self.offset, (self.offset + CELL_BYTES).min(disk.size));
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
                self.ranges.iter().any(|range| range.what == What::Same && is_in(chunk, range))
            };
            let mut wanted = self.chunks.iter().filter(same).map(|chunk| chunk.reference);
            if !self.sink.holds(&mut wanted)? {
                self.chunks.clear();
            }
        }
        let mut parts = Parts::default();
        for range in &self.ranges {
            match (range.what, parent) {
                (What::Hole, _) => parts.open(range.length, false),
                (What::Data, _) | (What::Same, None) => parts.open(range.length, true),
                (What::Same, Some(parent)) => same(range, parent, &self.chunks, &mut parts),
            }
        }
        Ok(parts.0)
    }
}

/// Lays out a range that is as in the parent.
fn same(range: &Range, parent: &ParentDisk<'_>, chunks: &[Placed], parts: &mut Parts) {
    let end = range.offset + range.length;
    let mut at = range.offset;
    let between = |from: u64, upto: u64, parts: &mut Parts| {
        parent.holes(from, upto, |length, is_hole| match is_hole {
            true => parts.0.push(Part::Gap { length }),
            false => parts.open(length, true),
        });
    };
    for chunk in chunks.iter().filter(|chunk| is_in(chunk, range)) {
        between(at, chunk.offset, parts);
        parts.0.push(Part::Kept(chunk.reference));
        at = chunk.end();
    }
    between(at, end, parts);
}

fn is_in(chunk: &Placed, range: &Range) -> bool {
    chunk.offset >= range.offset && chunk.end() <= range.offset + range.length
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
