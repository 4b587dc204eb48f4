//! VMDK files that are one sparse extent with its descriptor in it (`monolithicSparse`), of grains of
//! 64 KiB: a header, the descriptor, two directories of grain tables with all tables, and grains.
//!
//! The format is VMware's "Virtual Disk Format 5.0", version 1 of hosted sparse extents; what is free
//! to choose is as in what QEMU's `block/vmdk.c` makes.

use crate::error::{Error, Result};
use crate::tree::entry::Extent;

use super::clusters::Clusters;
use super::pages::{PAGE_BYTES, Pages};
use super::{Disk, Layout, SECTOR, too_large};

const GRAIN_BYTES: u64 = 64 << 10;
/// Grains of a table.
const GRAINS: u64 = 512;
const TABLE_SECTORS: u64 = GRAINS * 4 / SECTOR;
/// What qemu takes.
const MOST_TABLES: u64 = 32 << 20;
/// Places are told as sectors, in four bytes.
const MOST_FILE_BYTES: u64 = (1 << 32) * SECTOR;
const DESCRIPTOR_AT: u64 = 1;
const DESCRIPTOR_SECTORS: u64 = 20;
/// Text can be told from what a transfer as text made of it; and there is a second directory.
const FLAGS: u32 = 1 | 2;
const HEADS: u64 = 16;
const TRACK_SECTORS: u64 = 63;

pub struct Vmdk {
    sectors: u64,
    clusters: Clusters,
    tables: u64,
    descriptor: String,
}

impl Vmdk {
    pub fn new(disk: &Disk, data: &[Extent]) -> Result<Self> {
        if disk.size == 0 {
            return Err(Error::Invalid("a disk of 0 bytes can't be a VMDK file".into()));
        }
        let tables = disk.size.div_ceil(GRAIN_BYTES * GRAINS);
        if tables > MOST_TABLES {
            return Err(too_large(disk.size, "VMDK"));
        }
        let data_at = (second_directory(tables) + copy_sectors(tables)) * SECTOR;
        let clusters = Clusters::of(disk.size, GRAIN_BYTES, data)?
            .beginning_at(data_at.next_multiple_of(PAGE_BYTES));
        if clusters.file_bytes() > MOST_FILE_BYTES {
            let count = clusters.count() * GRAIN_BYTES;
            let text = format!("{count} bytes of data are too much for a VMDK file");
            return Err(Error::Invalid(text));
        }
        let sectors = disk.size / SECTOR;
        Ok(Vmdk { sectors, clusters, tables, descriptor: descriptor(disk, sectors) })
    }
}

/// Sectors of a directory and its tables.
fn copy_sectors(tables: u64) -> u64 {
    directory_sectors(tables) + tables * TABLE_SECTORS
}

fn directory_sectors(tables: u64) -> u64 {
    (tables * 4).div_ceil(SECTOR)
}

const fn first_directory() -> u64 {
    DESCRIPTOR_AT + DESCRIPTOR_SECTORS
}

fn second_directory(tables: u64) -> u64 {
    first_directory() + copy_sectors(tables)
}

fn descriptor(disk: &Disk, sectors: u64) -> String {
    let [a, b, c, d, ..] = disk.identity.guid("content");
    // The largest numbers say that there is none.
    let content = u32::from_le_bytes([a, b, c, d]) & 0x7fff_ffff;
    let is_plain =
        |one: char| !one.is_control() && one != '"' && one != char::REPLACEMENT_CHARACTER;
    let name = if disk.name.chars().all(is_plain) { disk.name.as_str() } else { "disk.vmdk" };
    let cylinders = sectors / (HEADS * TRACK_SECTORS);
    format!(
        r#"# Disk DescriptorFile
version=1
CID={content:08x}
parentCID=ffffffff
createType="monolithicSparse"

# Extent description
RW {sectors} SPARSE "{name}"

# The Disk Data Base
#DDB

ddb.virtualHWVersion = "4"
ddb.geometry.cylinders = "{cylinders}"
ddb.geometry.heads = "{HEADS}"
ddb.geometry.sectors = "{TRACK_SECTORS}"
ddb.adapterType = "ide"
ddb.toolsVersion = "2147483647"
"#
    )
}

impl Layout for Vmdk {
    fn clusters(&self) -> &Clusters {
        &self.clusters
    }

    fn head(&self, to: &mut Pages<'_>) -> Result<()> {
        let directories = [first_directory(), second_directory(self.tables)];
        to.put(b"KDMV")?;
        to.put(&1_u32.to_le_bytes())?;
        to.put(&FLAGS.to_le_bytes())?;
        for number in [self.sectors, GRAIN_BYTES / SECTOR, DESCRIPTOR_AT, DESCRIPTOR_SECTORS] {
            to.put(&number.to_le_bytes())?;
        }
        to.put(&(GRAINS as u32).to_le_bytes())?;
        for number in [directories[0], directories[1], self.clusters.data_at() / SECTOR] {
            to.put(&number.to_le_bytes())?;
        }
        to.put(b"\0\n \r\n")?; // closed well; what a transfer as text would change
        to.zero_to(DESCRIPTOR_AT * SECTOR)?; // not compressed
        to.put(self.descriptor.as_bytes())?;
        for directory in directories {
            to.zero_to(directory * SECTOR)?;
            let first = directory + directory_sectors(self.tables);
            for table in 0..self.tables {
                to.put(&((first + table * TABLE_SECTORS) as u32).to_le_bytes())?;
            }
            to.zero_to(first * SECTOR)?;
            for place in self.clusters.places_from(0).take((self.tables * GRAINS) as usize) {
                let entry = place.map_or(0, |place| (place / SECTOR) as u32);
                to.put(&entry.to_le_bytes())?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::tests::{disk, extent};
    use super::*;

    #[test]
    fn a_name_that_would_break_the_descriptor_is_not_in_it() {
        for (name, told) in [("sda.vmdk", "sda.vmdk"), ("a\"b\nRW 1 FLAT \"/etc", "disk.vmdk")] {
            let made = Vmdk::new(&Disk { name: name.into(), ..disk(1 << 20) }, &[]).unwrap();
            assert!(made.descriptor.contains(&format!("RW 2048 SPARSE \"{told}\"\n")));
            assert!(made.descriptor.len() as u64 <= DESCRIPTOR_SECTORS * SECTOR);
        }
    }

    #[test]
    fn no_grain_lies_where_four_bytes_can_t_tell() {
        let size = 3 << 40;
        let fits = |length| Vmdk::new(&disk(size), &[extent(0, length)]);
        let most = MOST_FILE_BYTES - fits(512).unwrap().clusters.data_at();
        let full = fits(most).unwrap();
        let last = full.clusters.place(most - 1).0.unwrap();
        assert!(u32::try_from(last / SECTOR).is_ok());
        assert!(matches!(fits(most + 1), Err(Error::Invalid(_))));
    }
}
