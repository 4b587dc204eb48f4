//! A worker of a machine's backup: takes steps until there are none.

use std::ops::Range;
use std::time::Instant;

use parking_lot::Mutex;

use crate::backup::cutter::Cutter;
use crate::counters::{Counters, Stage, Tally};
use crate::disk::{CELL_BYTES, GRAIN_BYTES, Piece, is_zero};
use crate::error::{Error, Result};
use crate::ingest::Sink;

use super::plan::{Cell, Part, Plan, Step};
use super::rows::{Done, Row, Rows};
use super::{DiskInput, Request};

/// Disks are read in multiples of this: some servers give no less.
const SECTOR_BYTES: usize = 4096;

/// One thread's own things.
pub struct Worker<'a> {
    sink: &'a dyn Sink,
    disks: &'a [DiskInput],
    counters: &'a Counters,
    cutter: Cutter<'a>,
    tally: Tally,
    buffer: Vec<u8>,
}

impl<'a> Worker<'a> {
    pub fn new(sink: &'a dyn Sink, request: &'a Request, counters: &'a Counters) -> Result<Self> {
        Ok(Worker {
            sink,
            disks: &request.disks,
            counters,
            cutter: Cutter::new(sink, request.level, None)?,
            tally: Tally::default(),
            buffer: vec![0; CELL_BYTES as usize],
        })
    }

    /// Works until all is done. When cancelled, what was read so far is handed on all the same: it
    /// need not be sent again.
    pub fn run(&mut self, plan: &Mutex<Plan<'a>>, rows: &Rows<'a>) -> Result<()> {
        let outcome = self.work(plan, rows);
        self.counters.absorb(&mut self.tally);
        match outcome {
            Ok(()) | Err(Error::Cancelled) => self.cutter.flush().and(outcome),
            Err(_) => outcome,
        }
    }

    fn work(&mut self, plan: &Mutex<Plan<'a>>, rows: &Rows<'a>) -> Result<()> {
        loop {
            self.sink.check()?;
            let next = {
                let mut plan = plan.lock();
                let started = Instant::now();
                let next = plan.next()?;
                self.tally.busy(Stage::Find, 0, started);
                // While the plan is held, so that nobody begins what is later still.
                match next {
                    Some((number, step)) if rows.wait_for(number) => Some((number, step)),
                    _ => None,
                }
            };
            let Some((number, step)) = next else { return Ok(()) };
            let done = match step {
                Step::Cell(cell) => Done::Row(self.cell(&cell)?),
                Step::Done(done) => done,
            };
            rows.put(number, done, &mut self.cutter, &mut self.tally)?;
            self.counters.absorb(&mut self.tally);
        }
    }

    /// Reads what is to be read of a cell, and cuts it.
    fn cell(&mut self, cell: &Cell) -> Result<Row> {
        self.read(cell)?;
        let mut row = Row::default();
        let mut open: Option<Range<usize>> = None;
        let mut at = 0;
        for part in &cell.parts {
            let end = at + part.length() as usize;
            match (part, &mut open) {
                (Part::Open { .. }, Some(open)) => open.end = end,
                (Part::Open { .. }, none) => *none = Some(at..end),
                (_, open) => {
                    if let Some(range) = open.take() {
                        self.cut(cell, range, &mut row)?;
                    }
                    if let Part::Kept(part) = part {
                        row.push_part(*part);
                    }
                }
            }
            at = end;
        }
        if let Some(range) = open {
            self.cut(cell, range, &mut row)?;
        }
        Ok(row)
    }

    /// Fills the buffer wherever the cell is open.
    fn read(&mut self, cell: &Cell) -> Result<()> {
        let Some(disk) = self.disks.get(cell.disk) else { return Ok(()) };
        let length = (disk.size - cell.offset).min(CELL_BYTES) as usize;
        let mut wanted: Vec<Range<usize>> = Vec::new();
        let mut at = 0;
        for part in &cell.parts {
            let end = at + part.length() as usize;
            if let Part::Open { is_read: true, .. } = part {
                let from = at - at % SECTOR_BYTES;
                let upto = end.next_multiple_of(SECTOR_BYTES).min(length);
                match wanted.last_mut() {
                    Some(last) if last.end >= from => last.end = upto,
                    _ => wanted.push(from..upto),
                }
            }
            at = end;
        }
        let started = Instant::now();
        let mut pieces = Vec::with_capacity(wanted.len());
        let (mut rest, mut before) = (self.buffer.as_mut_slice(), 0);
        for range in &wanted {
            let (_, after) = rest.split_at_mut(range.start - before);
            let (bytes, after) = after.split_at_mut(range.len());
            pieces.push(Piece { offset: cell.offset + range.start as u64, bytes });
            (rest, before) = (after, range.end);
        }
        let sink = self.sink;
        disk.source
            .read(&mut pieces, &|| sink.check())
            .map_err(|error| of_disk(&disk.name, error))?;
        let bytes = wanted.iter().map(|range| range.len() as u64).sum();
        self.tally.busy(Stage::Read, bytes, started);
        self.tally.bytes_read += bytes;
        let mut at = 0;
        for part in &cell.parts {
            let end = at + part.length() as usize;
            if let Part::Open { is_read: false, .. } = part
                && let Some(zeroes) = self.buffer.get_mut(at..end)
            {
                zeroes.fill(0);
            }
            at = end;
        }
        Ok(())
    }

    /// Cuts a range of the buffer, which is the cell. What is zero for a whole grain is left out.
    fn cut(&mut self, cell: &Cell, range: Range<usize>, row: &mut Row) -> Result<()> {
        let offset = cell.offset;
        let size = self.disks.get(cell.disk).map_or(0, |disk| disk.size);
        let mut data: Option<Range<usize>> = None;
        let mut at = range.start;
        while at < range.end {
            let end = (at + 1).next_multiple_of(GRAIN_BYTES as usize).min(range.end);
            let is_whole = at.is_multiple_of(GRAIN_BYTES as usize)
                && (end.is_multiple_of(GRAIN_BYTES as usize) || offset + end as u64 == size);
            let is_hole = is_whole && is_zero(self.buffer.get(at..end).unwrap_or_default());
            match (is_hole, &mut data) {
                (false, Some(data)) => data.end = end,
                (false, none) => *none = Some(at..end),
                (true, data) => {
                    if let Some(data) = data.take() {
                        self.chunks(offset, data, row)?;
                    }
                }
            }
            at = end;
        }
        match data {
            Some(data) => self.chunks(offset, data, row),
            None => Ok(()),
        }
    }

    fn chunks(&mut self, offset: u64, data: Range<usize>, row: &mut Row) -> Result<()> {
        self.sink.check()?;
        let mut at = offset + data.start as u64;
        let bytes = self.buffer.get(data).unwrap_or_default();
        self.cutter.cut(&mut self.tally, bytes, true, |reference| {
            row.push(at, reference);
            at += u64::from(reference.plain_length());
            Ok(())
        })?;
        Ok(())
    }
}

/// An error of a source, with the name of its disk.
fn of_disk(name: &str, error: Error) -> Error {
    match error {
        Error::Io { what, source } => Error::Io { what: format!("disk '{name}': {what}"), source },
        Error::NoPermission { what } => {
            Error::NoPermission { what: format!("disk '{name}': {what}") }
        }
        Error::Integrity { object, reason } => {
            Error::Integrity { object: format!("disk '{name}': {object}"), reason }
        }
        other => other,
    }
}
