//! qcow2 files, version 3, of clusters of 64 KiB: the header, the counts of clusters, the tables that
//! clusters are found by, and clusters.
//!
//! The format is QEMU's `docs/interop/qcow2.txt`.

use crate::error::Result;
use crate::tree::entry::Extent;

use super::clusters::Clusters;
use super::pages::Pages;
use super::{Disk, Layout, too_large};

const CLUSTER: u64 = 1 << CLUSTER_BITS;
const CLUSTER_BITS: u32 = 16;
/// Entries of a table that fills a cluster.
const ENTRIES: u64 = CLUSTER / 8;
/// Counts of two bytes in a cluster of counts.
const COUNTS: u64 = CLUSTER / 2;
const HEADER_BYTES: u32 = 104;
/// The cluster has one user, who may write to it.
const OWN: u64 = 1 << 63;
/// What the table of tables may take, as qemu refuses more.
const MOST_TABLES: u64 = (32 << 20) / 8;

pub struct Qcow2 {
    size: u64,
    /// Of the table of counts, the clusters of counts, and the table of tables, in clusters.
    count_table: u64,
    counts: u64,
    top: u64,
    /// Numbers of the tables that there are, ascending: each of 512 MiB of the disk.
    tables: Vec<u64>,
    clusters: Clusters,
}

impl Qcow2 {
    pub fn new(disk: &Disk, data: &[Extent]) -> Result<Self> {
        let size = disk.size;
        let top_entries = size.div_ceil(CLUSTER * ENTRIES);
        if top_entries > MOST_TABLES {
            return Err(too_large(size, "qcow2"));
        }
        let clusters = Clusters::of(size, CLUSTER, data)?;
        let tables = tables_of(&clusters);
        let top = top_entries.div_ceil(ENTRIES).max(1);
        let counted = 1 + top + tables.len() as u64 + clusters.count();
        // The clusters of counts are counted, too.
        let (mut count_table, mut counts) = (1, 1);
        loop {
            let needed = (counted + count_table + counts).div_ceil(COUNTS);
            let (table, found) = (needed.div_ceil(ENTRIES), needed);
            if found <= counts && table <= count_table {
                break;
            }
            (count_table, counts) = (table.max(count_table), found.max(counts));
        }
        let before = counted + count_table + counts - clusters.count();
        let clusters = clusters.beginning_at(before * CLUSTER);
        Ok(Qcow2 { size, count_table, counts, top, tables, clusters })
    }

    fn header(&self, to: &mut Pages<'_>) -> Result<()> {
        let top_at = (1 + self.count_table + self.counts) * CLUSTER;
        let top_entries = self.size.div_ceil(CLUSTER * ENTRIES) as u32;
        to.put(b"QFI\xfb")?;
        to.put(&3_u32.to_be_bytes())?;
        to.put(&[0; 12])?; // it lies over no other
        to.put(&CLUSTER_BITS.to_be_bytes())?;
        to.put(&self.size.to_be_bytes())?;
        to.put(&0_u32.to_be_bytes())?; // not encrypted
        to.put(&top_entries.to_be_bytes())?;
        to.put(&top_at.to_be_bytes())?;
        to.put(&CLUSTER.to_be_bytes())?;
        to.put(&(self.count_table as u32).to_be_bytes())?;
        to.put(&[0; 12])?; // no snapshots
        to.put(&[0; 24])?; // no features
        to.put(&4_u32.to_be_bytes())?; // counts of 1 << 4 bits
        to.put(&HEADER_BYTES.to_be_bytes())
    }
}

impl Layout for Qcow2 {
    fn clusters(&self) -> &Clusters {
        &self.clusters
    }

    fn head(&self, to: &mut Pages<'_>) -> Result<()> {
        self.header(to)?;
        to.zero_to(CLUSTER)?;
        let counts_at = (1 + self.count_table) * CLUSTER;
        for at in 0..self.counts {
            to.put(&(counts_at + at * CLUSTER).to_be_bytes())?;
        }
        to.zero_to(counts_at)?;
        for _ in 0..self.clusters.file_bytes() / CLUSTER {
            to.put(&1_u16.to_be_bytes())?;
        }
        let top_at = counts_at + self.counts * CLUSTER;
        to.zero_to(top_at)?;
        let mut table_at = top_at + self.top * CLUSTER;
        for number in &self.tables {
            to.zero_to(top_at + number * 8)?;
            to.put(&(table_at | OWN).to_be_bytes())?;
            table_at += CLUSTER;
        }
        to.zero_to(top_at + self.top * CLUSTER)?;
        for number in &self.tables {
            for place in self.clusters.places_from(number * ENTRIES).take(ENTRIES as usize) {
                to.put(&place.map_or(0, |place| place | OWN).to_be_bytes())?;
            }
        }
        Ok(())
    }
}

fn tables_of(clusters: &Clusters) -> Vec<u64> {
    let mut tables: Vec<u64> = Vec::new();
    for (first, last) in clusters.runs() {
        let first = first / ENTRIES;
        let from = tables.last().map_or(first, |table| first.max(table + 1));
        tables.extend(from..=last / ENTRIES);
    }
    tables
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::tests::{disk, extent, head};
    use super::*;

    fn number(bytes: &[u8], at: u64) -> u64 {
        u64::from_be_bytes(bytes[at as usize..at as usize + 8].try_into().unwrap())
    }

    #[test]
    fn every_cluster_of_the_file_is_counted_once() {
        let sizes = [0, 512, CLUSTER, 1 << 30, (COUNTS - 5) * CLUSTER, (COUNTS + 1) * CLUSTER];
        for size in sizes.into_iter().chain((0..6).map(|more| (COUNTS - 8 + more) * CLUSTER)) {
            let layout = Qcow2::new(&disk(size), &[extent(0, size)]).unwrap();
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
            assert_eq!(counted * CLUSTER, layout.clusters.file_bytes(), "{size}");
        }
    }
}
