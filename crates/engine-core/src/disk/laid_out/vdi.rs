//! VDI files, version 1.1, dynamic, of blocks of 1 MiB: a header, the map of blocks, and blocks.
//!
//! The format is VirtualBox's `VDICore.h`, as far as QEMU's `block/vdi.c` knows it, too.

use crate::error::Result;
use crate::tree::entry::Extent;

use super::clusters::Clusters;
use super::pages::Pages;
use super::{Disk, Layout, too_large};

const BLOCK_BYTES: u64 = 1 << 20;
const MAP_AT: u64 = 512;
/// What qemu takes: the map is to have less than 2 GiB.
const MOST_BLOCKS: u64 = ((1 << 31) - 512) / 4;
const TEXT: &[u8] = b"<<< Holdfast Virtual Disk Image >>>\n";
const SIGNATURE: u32 = 0xBEDA_107F;
const VERSION: u32 = 0x0001_0001;
const HEADER_BYTES: u32 = 0x180;
const DYNAMIC: u32 = 1;
/// Nothing lies in the file for it, and it reads as zero.
const NOWHERE: u32 = u32::MAX;

pub struct Vdi {
    size: u64,
    clusters: Clusters,
    image: [u8; 16],
    last_change: [u8; 16],
}

impl Vdi {
    pub fn new(disk: &Disk, data: &[Extent]) -> Result<Self> {
        let blocks = disk.size.div_ceil(BLOCK_BYTES);
        if blocks > MOST_BLOCKS {
            return Err(too_large(disk.size, "VDI"));
        }
        // Blocks lie at multiples of their size, which suits the disk beneath.
        let data_at = (MAP_AT + blocks * 4).next_multiple_of(BLOCK_BYTES);
        let clusters = Clusters::of(disk.size, BLOCK_BYTES, data)?.beginning_at(data_at);
        let (image, last_change) = (disk.identity.guid("image"), disk.identity.guid("change"));
        Ok(Vdi { size: disk.size, clusters, image, last_change })
    }
}

fn numbers(values: &[u32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

impl Layout for Vdi {
    fn clusters(&self) -> &Clusters {
        &self.clusters
    }

    fn head(&self, to: &mut Pages<'_>) -> Result<()> {
        to.put(TEXT)?;
        to.zero_to(64)?;
        to.put(&numbers(&[SIGNATURE, VERSION, HEADER_BYTES, DYNAMIC]))?;
        to.zero_to(340)?; // no flags, no description
        to.put(&numbers(&[MAP_AT as u32, self.clusters.data_at() as u32]))?;
        // Whoever reads it finds a geometry for it.
        to.put(&numbers(&[0, 0, 0, 512, 0]))?;
        to.put(&self.size.to_le_bytes())?;
        let (blocks, found) = (self.clusters.of_disk(), self.clusters.count());
        to.put(&numbers(&[BLOCK_BYTES as u32, 0, blocks as u32, found as u32]))?;
        to.put(&self.image)?;
        to.put(&self.last_change)?;
        to.zero_to(MAP_AT)?; // it lies over no other
        let data_at = self.clusters.data_at();
        for place in self.clusters.places_from(0).take(blocks as usize) {
            let entry = place.map_or(NOWHERE, |place| ((place - data_at) / BLOCK_BYTES) as u32);
            to.put(&entry.to_le_bytes())?;
        }
        Ok(())
    }
}
