//! The clusters of a disk that hold data, and where each lies in a file: one after the other, in the
//! order of the disk, behind what readers find them by.

use crate::error::{Error, Result};
use crate::tree::entry::Extent;

/// Clusters of the disk that lie in the file one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    /// First one, as the disk counts.
    first: u64,
    count: u64,
    /// How many come before it, as the file counts.
    before: u64,
}

impl Run {
    fn end(&self) -> u64 {
        self.first + self.count
    }
}

/// Where the clusters of a disk lie.
#[derive(Debug)]
pub struct Clusters {
    disk_bytes: u64,
    bytes: u64,
    runs: Vec<Run>,
    count: u64,
    data_at: u64,
}

impl Clusters {
    /// Of so many bytes each, on a disk of which these extents hold data: ascending, apart. `Invalid`
    /// where they are not, or not on the disk. The size of the disk has to be one that a format can
    /// have: no sum of it overflows.
    pub fn of(disk_bytes: u64, bytes: u64, data: &[Extent]) -> Result<Self> {
        let mut runs: Vec<Run> = Vec::new();
        let mut last = 0;
        for one in data.iter().filter(|one| one.length > 0) {
            let end = one.offset.checked_add(one.length).filter(|end| *end <= disk_bytes);
            let Some(end) = end.filter(|_| one.offset >= last) else {
                let text =
                    format!("data at {} does not lie on a disk of {disk_bytes} bytes", one.offset);
                return Err(Error::Invalid(text));
            };
            last = end;
            let (first, upto) = (one.offset / bytes, end.div_ceil(bytes));
            match runs.last_mut() {
                Some(run) if run.end() >= first => run.count = upto - run.first,
                _ => runs.push(Run { first, count: upto - first, before: 0 }),
            }
        }
        let mut count = 0;
        for run in &mut runs {
            run.before = count;
            count += run.count;
        }
        Ok(Clusters { disk_bytes, bytes, runs, count, data_at: 0 })
    }

    /// The first one lies there in the file.
    pub fn beginning_at(self, data_at: u64) -> Self {
        Clusters { data_at, ..self }
    }

    /// Bytes of the file before the first cluster.
    pub fn data_at(&self) -> u64 {
        self.data_at
    }

    /// Bytes of the file.
    pub fn file_bytes(&self) -> u64 {
        self.data_at + self.count * self.bytes
    }

    /// How many hold data.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// How many the disk has, with those that hold nothing.
    pub fn of_disk(&self) -> u64 {
        self.disk_bytes.div_ceil(self.bytes)
    }

    /// First and last of those that follow each other, as the disk counts.
    pub fn runs(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.runs.iter().map(|run| (run.first, run.end() - 1))
    }

    /// Of each cluster of the disk from one on, without end: where it lies in the file, if it holds
    /// data.
    pub fn places_from(&self, first: u64) -> impl Iterator<Item = Option<u64>> + '_ {
        let mut next = self.runs.partition_point(|run| run.end() <= first);
        (first..).map(move |cluster| {
            while self.runs.get(next).is_some_and(|run| run.end() <= cluster) {
                next += 1;
            }
            let run = self.runs.get(next).filter(|run| run.first <= cluster)?;
            Some(self.place_of(run, cluster))
        })
    }

    fn place_of(&self, run: &Run, cluster: u64) -> u64 {
        self.data_at + (run.before + cluster - run.first) * self.bytes
    }

    /// Where a byte of the disk lies in the file, and how many of those after it follow it there;
    /// for what lies nowhere `None`, and how many more do so.
    pub fn place(&self, offset: u64) -> (Option<u64>, u64) {
        let cluster = offset / self.bytes;
        let next = self.runs.partition_point(|run| run.end() <= cluster);
        match self.runs.get(next) {
            Some(run) if run.first <= cluster => {
                let place = self.place_of(run, cluster) + offset % self.bytes;
                (Some(place), run.end() * self.bytes - offset)
            }
            Some(run) => (None, run.first * self.bytes - offset),
            None => (None, u64::MAX - offset),
        }
    }

    /// Of the disk from there on, what lies in the file: ascending, apart.
    pub fn held_from(&self, begin: u64) -> Vec<Extent> {
        let ends = |run: &Run| (run.first * self.bytes, run.end() * self.bytes);
        let within = self.runs.iter().map(ends).map(|(from, upto)| {
            let offset = from.max(begin);
            Extent { offset, length: upto.min(self.disk_bytes).saturating_sub(offset) }
        });
        within.filter(|one| one.length > 0).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn extent(offset: u64, length: u64) -> Extent {
        Extent { offset, length }
    }

    #[test]
    fn data_lies_in_the_order_of_the_disk_without_gaps() {
        let data = [extent(5, 1), extent(19, 2), extent(30, 0), extent(70, 15)];
        let clusters = Clusters::of(85, 10, &data).unwrap().beginning_at(100);
        assert_eq!((clusters.count(), clusters.of_disk(), clusters.file_bytes()), (5, 9, 150));
        assert_eq!(clusters.runs().collect::<Vec<_>>(), [(0, 2), (7, 8)]);
        let places: Vec<_> = clusters.places_from(1).take(9).collect();
        let [a, b, c, d] = [110, 120, 130, 140].map(Some);
        assert_eq!(places, [a, b, None, None, None, None, c, d, None]);
        assert_eq!(clusters.place(0), (Some(100), 30));
        assert_eq!(clusters.place(29), (Some(129), 1));
        assert_eq!(clusters.place(31), (None, 39));
        assert_eq!(clusters.place(84), (Some(144), 6));
        assert_eq!(clusters.place(95), (None, u64::MAX - 95));
        assert_eq!(clusters.held_from(25), [extent(25, 5), extent(70, 15)]);
        assert_eq!(clusters.held_from(85), []);
    }

    #[test]
    fn data_that_does_not_lie_on_the_disk_is_refused() {
        for data in [
            vec![extent(0, 513)],
            vec![extent(u64::MAX, 2)],
            vec![extent(100, 10), extent(105, 10)],
            vec![extent(200, 10), extent(100, 10)],
        ] {
            assert!(matches!(Clusters::of(512, 64, &data), Err(Error::Invalid(_))), "{data:?}");
        }
    }
}
