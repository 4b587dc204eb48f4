//! Where a disk's content lies in files, as the one reader of formats tells it.
//!
//! Knows no format. What is told to lie in a file as it is, is read there; all else by whoever can.

mod lines;
mod runs;
mod source;

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::Advice;

use crate::error::{Error, Result};

use super::GRAIN_BYTES;
use super::file::size_of;
use runs::Runs;
pub use runs::{Lies, Run};
pub use source::MappedSource;

/// Ranges that are kept of one disk, sixteen bytes each.
const MOST_RUNS: usize = 4 << 20;

/// Files that are kept open for one disk; one of more parts is read there by others.
const MOST_OPEN: usize = 64;

/// A file of a disk.
struct Opened {
    path: PathBuf,
    /// What it is read by, unless there are too many.
    file: Option<File>,
    size: u64,
}

impl Opened {
    fn new(number: usize, path: &Path) -> Result<Self> {
        let unopened = |error| Error::io(format!("opening the disk '{}'", path.display()), error);
        // Opening a pipe would wait for its other end.
        let flags = rustix::fs::OFlags::NONBLOCK.bits() as i32;
        let mut options = OpenOptions::new();
        let file = options.read(true).custom_flags(flags).open(path).map_err(unopened)?;
        let kind = file.metadata().map_err(unopened)?.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            let text = format!("'{}' is neither a file nor a block device", path.display());
            return Err(Error::Invalid(text));
        }
        let size = size_of(&file).map_err(unopened)?;
        // Several threads read stretches of it: the system would not see that all is read.
        let _ = rustix::fs::fadvise(&file, 0, None, Advice::Sequential);
        let file = (number < MOST_OPEN).then_some(file);
        Ok(Opened { path: path.to_owned(), file, size })
    }
}

/// A part of a layer.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// Which of the files it is in; none for zeroes.
    pub file: Option<usize>,
    /// Bytes of the disk.
    pub covers: u64,
}

/// What one of the disks that a disk lies over, or itself, is made of.
#[derive(Clone, Debug)]
pub struct Layer {
    /// One after the other, from the start of the disk on.
    pub parts: Vec<Part>,
    /// How far content may lie beyond the end of its file, where it reads as zeroes; none where
    /// any of it may.
    pub slack: Option<u64>,
}

/// A file that is too short for what is told to be in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Truncated {
    pub path: PathBuf,
    pub size: u64,
    /// How far content goes.
    pub needed: u64,
}

/// A stretch of a disk that is zero, or content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    pub offset: u64,
    pub length: u64,
    pub is_zero: bool,
}

/// Where the ranges of a disk lie. Its files are open for as long as it is there.
pub struct DiskMap {
    files: Vec<Opened>,
    runs: Runs,
    truncated: Option<Truncated>,
}

impl DiskMap {
    /// Reads what `qemu-img map --output=json` says of a disk, to its end.
    ///
    /// `Unsupported` where that is not understood, or is not about a disk of that size.
    pub fn read(
        said: impl std::io::Read,
        size: u64,
        files: &[PathBuf],
        layers: &[Layer],
    ) -> Result<Self> {
        Self::read_most(said, size, files, layers, MOST_RUNS)
    }

    fn read_most(
        said: impl std::io::Read,
        size: u64,
        files: &[PathBuf],
        layers: &[Layer],
        most: usize,
    ) -> Result<Self> {
        let files = files.iter().enumerate().map(|(number, path)| Opened::new(number, path));
        let files = files.collect::<Result<_>>()?;
        let mut map = DiskMap { files, runs: Runs::new(most), truncated: None };
        let layers: Vec<_> = layers.iter().map(Borders::new).collect();
        lines::read(said, |line| map.add(&line, size, &layers))?;
        if map.runs.end() != size {
            return Err(not_understood(&format!("it ends at byte {} of {size}", map.runs.end())));
        }
        map.runs.close();
        Ok(map)
    }

    fn add(&mut self, line: &lines::Line, size: u64, layers: &[Borders<'_>]) -> Result<()> {
        let begin = self.runs.end();
        if line.start != begin || line.length > size.saturating_sub(begin) {
            return Err(not_understood(&format!(
                "{} bytes from byte {} on, after byte {begin} of {size}",
                line.length, line.start
            )));
        }
        if line.zero {
            self.runs.push(line.length, Lies::Zero);
            return Ok(());
        }
        let direct = self.direct(line, layers);
        let inside = direct.map_or(0, |(_, inside)| inside);
        if let Some((lies, inside)) = direct {
            self.runs.push(inside, lies);
        }
        self.runs.push(line.length - inside, Lies::Elsewhere);
        Ok(())
    }

    /// Where a range lies as it is, and how much of it: what is beyond the end of the file is not.
    fn direct(&mut self, line: &lines::Line, layers: &[Borders<'_>]) -> Option<(Lies, u64)> {
        let offset = line.offset.filter(|_| line.data && !line.compressed)?;
        let borders = layers.get(usize::try_from(line.depth).ok()?)?;
        let file = borders.file_of(line.start, line.length)?;
        let opened = self.files.get(file)?;
        let end = offset.checked_add(line.length)?;
        let is_open = opened.file.is_some();
        if end <= opened.size {
            return is_open.then_some((Lies::In { file, offset }, line.length));
        }
        if borders.slack.is_some_and(|slack| end - opened.size > slack) && self.truncated.is_none()
        {
            let (path, size) = (opened.path.clone(), opened.size);
            self.truncated = Some(Truncated { path, size, needed: end });
        }
        // What reads the rest may give no less than sectors.
        let inside = opened.size.saturating_sub(offset) / SECTOR_BYTES * SECTOR_BYTES;
        is_open.then_some((Lies::In { file, offset }, inside))
    }

    /// Bytes of the disk.
    pub fn size(&self) -> u64 {
        self.runs.end()
    }

    /// The first file that is too short for what it is to hold.
    pub fn truncated(&self) -> Option<&Truncated> {
        self.truncated.as_ref()
    }

    /// The ranges from the one on that has this byte.
    pub fn runs_from(&self, offset: u64) -> impl Iterator<Item = Run> + '_ {
        self.runs.from(offset)
    }

    /// Bytes that lie in files as they are.
    pub fn direct_bytes(&self) -> u64 {
        let in_files = |run: &Run| matches!(run.lies, Lies::In { .. });
        self.runs.from(0).filter(in_files).map(|run| run.length).sum()
    }

    /// What is zero and what is not, in at most so many stretches: short zeroes are taken for
    /// content where there are more.
    pub fn stretches(&self, most: usize) -> Vec<Stretch> {
        let mut grain = 0;
        while self.joined(grain, |_| ()) > most.max(1) {
            grain = grain.max(GRAIN_BYTES) * 2;
        }
        let mut found = Vec::new();
        self.joined(grain, |stretch| found.push(stretch));
        found
    }

    /// Hands over the stretches of which no zeroes are shorter than `grain`; how many they are.
    fn joined(&self, grain: u64, mut each: impl FnMut(Stretch)) -> usize {
        let mut count = 0;
        let mut open: Option<Stretch> = None;
        for Run { start: offset, length, lies } in self.runs.from(0) {
            let is_zero = lies == Lies::Zero && length >= grain;
            match &mut open {
                Some(last) if last.is_zero == is_zero => last.length += length,
                _ => {
                    if let Some(done) = open.replace(Stretch { offset, length, is_zero }) {
                        each(done);
                        count += 1;
                    }
                }
            }
        }
        if let Some(last) = open {
            each(last);
            count += 1;
        }
        count
    }
}

/// What a server gives no less of.
const SECTOR_BYTES: u64 = 4096;

/// The parts of a layer, by where they end.
struct Borders<'a> {
    layer: &'a Layer,
    slack: Option<u64>,
    ends: Vec<u64>,
}

impl<'a> Borders<'a> {
    fn new(layer: &'a Layer) -> Self {
        let add = |end: &mut u64, part: &Part| {
            *end = end.saturating_add(part.covers);
            Some(*end)
        };
        let ends = layer.parts.iter().scan(0, add).collect();
        Borders { layer, slack: layer.slack, ends }
    }

    /// The file that all of a range is in.
    fn file_of(&self, start: u64, length: u64) -> Option<usize> {
        let at = self.ends.partition_point(|end| *end <= start);
        let end = self.ends.get(at)?;
        self.layer.parts.get(at)?.file.filter(|_| start + length <= *end)
    }
}

fn not_understood(what: &str) -> Error {
    Error::Unsupported(format!("what qemu-img says of where a disk lies is not understood: {what}"))
}

#[cfg(test)]
mod tests;
