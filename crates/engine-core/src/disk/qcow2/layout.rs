//! Where everything of a qcow2 file lies whose data is known before it is written: first what qemu
//! finds clusters by, then the clusters that hold data, in the order of the disk.
//!
//! The format is QEMU's `docs/interop/qcow2.txt`, version 3. Pure: the same data gives the same
//! bytes, so that a restore that goes on can tell whether a file is the one that it began.

use crate::error::{Error, Result};
use crate::tree::entry::Extent;

pub const CLUSTER: u64 = 1 << CLUSTER_BITS;
const CLUSTER_BITS: u32 = 16;
/// Entries of a table that fills a cluster.
const ENTRIES: u64 = CLUSTER / 8;
/// Counts of two bytes in a cluster of counts.
const COUNTS: u64 = CLUSTER / 2;
const HEADER_BYTES: u32 = 104;
/// The cluster has one user, who may write to it.
const OWN: u64 = 1 << 63;
const SECTOR: u64 = 512;
/// What the table of tables may take, as qemu refuses more.
const MOST_TABLES: u64 = (32 << 20) / 8;

/// Clusters of the disk that lie in the file one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// First one, as the disk counts.
    first: u64,
    count: u64,
    /// Bytes into the file.
    at: u64,
}

/// A file that is laid out.
#[derive(Debug)]
pub struct Layout {
    size: u64,
    /// Of the table of counts, the clusters of counts, and the table of tables, in clusters.
    count_table: u64,
    counts: u64,
    top: u64,
    /// Numbers of the tables that there are, ascending: each of 512 MiB of the disk.
    tables: Vec<u64>,
    runs: Vec<Run>,
    clusters: u64,
}

/// Bytes of a disk that has to hold so many: whole sectors.
pub fn disk_bytes(size: u64) -> u64 {
    size.div_ceil(SECTOR).saturating_mul(SECTOR)
}

impl Layout {
    /// Lays out a disk of `size` bytes, of which these hold data: ascending, apart. `Invalid` where
    /// they don't, and for a disk that no qcow2 file of such clusters can be.
    pub fn new(size: u64, data: &[Extent]) -> Result<Self> {
        let top_entries = size.div_ceil(CLUSTER * ENTRIES);
        if top_entries > MOST_TABLES {
            let text = format!("a disk of {size} bytes is too large for a qcow2 file");
            return Err(Error::Invalid(text));
        }
        let mut runs = runs_of(size, data)?;
        let tables = tables_of(&runs);
        let top = top_entries.div_ceil(ENTRIES).max(1);
        let data_clusters: u64 = runs.iter().map(|run| run.count).sum();
        let counted = 1 + top + tables.len() as u64 + data_clusters;
        // The clusters of counts are counted, too.
        let (mut count_table, mut counts) = (1, 1);
        loop {
            let clusters = counted + count_table + counts;
            let needed = clusters.div_ceil(COUNTS);
            let (table, found) = (needed.div_ceil(ENTRIES), needed);
            if found <= counts && table <= count_table {
                break;
            }
            (count_table, counts) = (table.max(count_table), found.max(counts));
        }
        let clusters = counted + count_table + counts;
        let mut at = (clusters - data_clusters) * CLUSTER;
        for run in &mut runs {
            run.at = at;
            at += run.count * CLUSTER;
        }
        Ok(Layout { size, count_table, counts, top, tables, runs, clusters })
    }

    /// Bytes of the file.
    pub fn file_bytes(&self) -> u64 {
        self.clusters * CLUSTER
    }

    /// Bytes before the first cluster of data.
    #[cfg(test)]
    fn head_bytes(&self) -> u64 {
        (1 + self.count_table + self.counts + self.top + self.tables.len() as u64) * CLUSTER
    }

    /// Hands over all that comes before the data, cluster by cluster.
    pub fn head(&self, give: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let mut bytes = Vec::with_capacity(CLUSTER as usize);
        self.header(&mut bytes);
        fill_up(&mut bytes, give)?;
        let counts_at = (1 + self.count_table) * CLUSTER;
        table(self.count_table * ENTRIES, give, |at| {
            if at < self.counts { counts_at + at * CLUSTER } else { 0 }
        })?;
        for block in 0..self.counts {
            let used = self.clusters.saturating_sub(block * COUNTS).min(COUNTS);
            bytes.clear();
            for _ in 0..used {
                bytes.extend_from_slice(&1_u16.to_be_bytes());
            }
            fill_up(&mut bytes, give)?;
        }
        let tables_at = (1 + self.count_table + self.counts + self.top) * CLUSTER;
        table(self.top * ENTRIES, give, |at| match self.tables.binary_search(&at) {
            Ok(number) => (tables_at + number as u64 * CLUSTER) | OWN,
            Err(_) => 0,
        })?;
        for number in &self.tables {
            let first = number * ENTRIES;
            table(ENTRIES, give, |at| match self.run(first + at) {
                Some(run) => (run.at + (first + at - run.first) * CLUSTER) | OWN,
                None => 0,
            })?;
        }
        Ok(())
    }

    fn header(&self, bytes: &mut Vec<u8>) {
        let top_at = (1 + self.count_table + self.counts) * CLUSTER;
        let top_entries = self.size.div_ceil(CLUSTER * ENTRIES) as u32;
        bytes.extend_from_slice(b"QFI\xfb");
        bytes.extend_from_slice(&3_u32.to_be_bytes());
        bytes.extend_from_slice(&[0; 12]); // it lies over no other
        bytes.extend_from_slice(&CLUSTER_BITS.to_be_bytes());
        bytes.extend_from_slice(&self.size.to_be_bytes());
        bytes.extend_from_slice(&0_u32.to_be_bytes()); // not encrypted
        bytes.extend_from_slice(&top_entries.to_be_bytes());
        bytes.extend_from_slice(&top_at.to_be_bytes());
        bytes.extend_from_slice(&CLUSTER.to_be_bytes());
        bytes.extend_from_slice(&(self.count_table as u32).to_be_bytes());
        bytes.extend_from_slice(&[0; 12]); // no snapshots
        bytes.extend_from_slice(&[0; 24]); // no features
        bytes.extend_from_slice(&4_u32.to_be_bytes()); // counts of 1 << 4 bits
        bytes.extend_from_slice(&HEADER_BYTES.to_be_bytes());
    }

    /// The run that has a cluster of the disk.
    fn run(&self, cluster: u64) -> Option<&Run> {
        let after = self.runs.partition_point(|run| run.first <= cluster);
        let run = self.runs.get(after.checked_sub(1)?)?;
        (cluster < run.first + run.count).then_some(run)
    }

    /// Of the disk from there on, what lies in the file: ascending, apart.
    pub fn clusters_from(&self, begin: u64) -> Vec<Extent> {
        let ends = |run: &Run| (run.first * CLUSTER, (run.first + run.count) * CLUSTER);
        let within = self.runs.iter().map(ends).map(|(from, upto)| {
            let offset = from.max(begin);
            Extent { offset, length: upto.min(self.size).saturating_sub(offset) }
        });
        within.filter(|one| one.length > 0).collect()
    }

    /// Where a byte of the disk lies in the file, and how many of those after it follow it there;
    /// for what lies nowhere `None`, and how many more do so.
    pub fn place(&self, offset: u64) -> (Option<u64>, u64) {
        let cluster = offset / CLUSTER;
        match self.run(cluster) {
            Some(run) => {
                let skip = offset - run.first * CLUSTER;
                (Some(run.at + skip), run.count * CLUSTER - skip)
            }
            None => {
                let next = self.runs.partition_point(|run| run.first <= cluster);
                let upto = self.runs.get(next).map_or(u64::MAX, |run| run.first * CLUSTER);
                (None, upto - offset)
            }
        }
    }
}

/// The clusters that data lies in; their places are not known yet.
fn runs_of(size: u64, data: &[Extent]) -> Result<Vec<Run>> {
    let mut runs: Vec<Run> = Vec::new();
    let mut last = 0;
    for one in data.iter().filter(|one| one.length > 0) {
        let end = one.offset.checked_add(one.length).filter(|end| *end <= size);
        let Some(end) = end.filter(|_| one.offset >= last) else {
            let text = format!("data at {} does not lie on a disk of {size} bytes", one.offset);
            return Err(Error::Invalid(text));
        };
        last = end;
        let (first, upto) = (one.offset / CLUSTER, end.div_ceil(CLUSTER));
        match runs.last_mut() {
            Some(run) if run.first + run.count >= first => run.count = upto - run.first,
            _ => runs.push(Run { first, count: upto - first, at: 0 }),
        }
    }
    Ok(runs)
}

fn tables_of(runs: &[Run]) -> Vec<u64> {
    let mut tables: Vec<u64> = Vec::new();
    for run in runs {
        let first = run.first / ENTRIES;
        let from = tables.last().map_or(first, |last| first.max(last + 1));
        tables.extend(from..=(run.first + run.count - 1) / ENTRIES);
    }
    tables
}

/// Hands over a table, cluster by cluster.
fn table(
    entries: u64,
    give: &mut dyn FnMut(&[u8]) -> Result<()>,
    entry: impl Fn(u64) -> u64,
) -> Result<()> {
    let mut bytes = Vec::with_capacity(CLUSTER as usize);
    for at in 0..entries {
        bytes.extend_from_slice(&entry(at).to_be_bytes());
        if bytes.len() as u64 == CLUSTER {
            give(&bytes)?;
            bytes.clear();
        }
    }
    Ok(())
}

/// Hands over a cluster that begins so, and is zero from there on.
fn fill_up(bytes: &mut Vec<u8>, give: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
    bytes.resize(CLUSTER as usize, 0);
    give(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn extent(offset: u64, length: u64) -> Extent {
        Extent { offset, length }
    }

    fn head(layout: &Layout) -> Vec<u8> {
        let mut bytes = Vec::new();
        layout
            .head(&mut |cluster| {
                assert_eq!(cluster.len() as u64, CLUSTER);
                bytes.extend_from_slice(cluster);
                Ok(())
            })
            .unwrap();
        bytes
    }

    fn number(bytes: &[u8], at: u64) -> u64 {
        u64::from_be_bytes(bytes[at as usize..at as usize + 8].try_into().unwrap())
    }

    /// Finds a byte of the disk as a reader of the format does.
    fn looked_up(bytes: &[u8], offset: u64) -> Option<u64> {
        let top = number(bytes, 40);
        let table = number(bytes, top + offset / (CLUSTER * ENTRIES) * 8) & !OWN;
        let entry = (table > 0).then(|| number(bytes, table + offset / CLUSTER % ENTRIES * 8));
        entry.filter(|entry| *entry > 0).map(|entry| (entry & !OWN) + offset % CLUSTER)
    }

    #[test]
    fn a_reader_of_the_format_finds_what_the_writer_places() {
        let size = 3 << 30;
        let data = [
            extent(4096, 100),
            extent(CLUSTER, 1),
            extent(5 * CLUSTER - 1, 2),
            extent(1 << 30, 3 * CLUSTER),
            extent((5 << 29) - 5, 7),
            extent(size - 512, 512),
        ];
        let layout = Layout::new(size, &data).unwrap();
        let bytes = head(&layout);
        assert_eq!(bytes.len() as u64, layout.head_bytes());
        for one in data {
            for offset in [one.offset, one.offset + one.length - 1] {
                let (place, follow) = layout.place(offset);
                assert!(place.unwrap() >= layout.head_bytes());
                assert!(place.unwrap() + follow <= layout.file_bytes());
                assert_eq!(looked_up(&bytes, offset), place, "{offset}");
            }
        }
        for empty in [3 * CLUSTER, 7 * CLUSTER, 2 << 30, size - CLUSTER - 1] {
            assert_eq!((layout.place(empty).0, looked_up(&bytes, empty)), (None, None));
        }
        assert_eq!(layout.place(2 * CLUSTER), (None, 2 * CLUSTER));
        let placed = layout.runs.iter().map(|run| run.count).sum::<u64>();
        assert_eq!(layout.file_bytes(), layout.head_bytes() + placed * CLUSTER);
    }

    #[test]
    fn every_cluster_of_the_file_is_counted_once() {
        let sizes = [0, 512, CLUSTER, 1 << 30, (COUNTS - 5) * CLUSTER, (COUNTS + 1) * CLUSTER];
        for size in sizes.into_iter().chain((0..6).map(|more| (COUNTS - 8 + more) * CLUSTER)) {
            let layout = Layout::new(size, &[extent(0, size)]).unwrap();
            let bytes = head(&layout);
            let (table, mut counted) = (number(&bytes, 48), 0);
            for at in 0..layout.count_table * ENTRIES {
                let block = number(&bytes, table + at * 8);
                if block > 0 {
                    let counts = &bytes[block as usize..(block + CLUSTER) as usize];
                    let ones = counts.chunks(2).take_while(|count| count == &[0, 1]).count();
                    assert!(counts[2 * ones..].iter().all(|byte| *byte == 0));
                    counted += ones as u64;
                }
            }
            assert_eq!(counted * CLUSTER, layout.file_bytes(), "{size}");
        }
    }

    #[test]
    fn a_disk_that_can_t_be_laid_out_is_refused() {
        for data in [
            vec![extent(0, 513)],
            vec![extent(u64::MAX, 2)],
            vec![extent(100, 10), extent(105, 10)],
            vec![extent(200, 10), extent(100, 10)],
        ] {
            assert!(matches!(Layout::new(512, &data), Err(Error::Invalid(_))), "{data:?}");
        }
        assert!(matches!(Layout::new(u64::MAX / 2, &[]), Err(Error::Invalid(_))));
        assert_eq!((disk_bytes(0), disk_bytes(1), disk_bytes(1024)), (0, 512, 1024));
    }
}
