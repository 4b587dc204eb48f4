//! VHDX files, dynamic, with an empty log: the identifier, two headers, two region tables, the log, the
//! table of blocks (BAT), metadata, and blocks.
//!
//! The format is [MS-VHDX], version 1; what is free to choose is as in what QEMU's `block/vhdx.c`
//! makes.

use crate::error::{Error, Result};
use crate::tree::entry::Extent;

use super::clusters::Clusters;
use super::pages::Pages;
use super::{Disk, Layout, SECTOR, too_large};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;
const MOST_BYTES: u64 = 64 * TIB;
const HEADERS_AT: [u64; 2] = [64 << 10, 128 << 10];
const HEADER_BYTES: usize = 4 << 10;
const REGIONS_AT: [u64; 2] = [192 << 10, 256 << 10];
const REGIONS_BYTES: usize = 64 << 10;
const LOG_AT: u64 = MIB;
const LOG_BYTES: u64 = MIB;
const BAT_AT: u64 = LOG_AT + LOG_BYTES;
const METADATA_BYTES: u64 = MIB;
/// Within metadata, where what its table names begins.
const ITEMS_AT: u32 = 64 << 10;
/// Sectors of the disk that one bitmap of sectors is for.
const CHUNK_SECTORS: u64 = 1 << 23;
const REQUIRED_REGION: u32 = 1;
const REQUIRED: u32 = 4;
const OF_THE_DISK: u32 = 2;

/// In an entry of the BAT: the block reads as zero, or it lies in the file.
const ZERO: u64 = 2;
const PRESENT: u64 = 6;

const BAT: [u8; 16] = guid(0x2DC2_7766, 0xF623, 0x4200, 0x9D64_115E_9BFD_4A08);
const METADATA: [u8; 16] = guid(0x8B7C_A206, 0x4790, 0x4B9A, 0xB8FE_575F_050F_886E);
const PARAMETERS: [u8; 16] = guid(0xCAA1_6737, 0xFA36, 0x4D43, 0xB3B6_33F0_AA44_E76B);
const DISK_SIZE: [u8; 16] = guid(0x2FA5_4224, 0xCD1B, 0x4876, 0xB211_5DBE_D83B_F4B8);
const DISK_ID: [u8; 16] = guid(0xBECA_12AB, 0xB2E6, 0x4523, 0x93EF_C309_E000_C746);
const LOGICAL_SECTOR: [u8; 16] = guid(0x8141_BF1D, 0xA96F, 0x4709, 0xBA47_F233_A8FA_AB5F);
const PHYSICAL_SECTOR: [u8; 16] = guid(0xCDA3_48C7, 0x445D, 0x4471, 0x9CC9_E988_5251_C556);

/// As it is written: all but the last eight bytes little-endian.
const fn guid(a: u32, b: u16, c: u16, d: u64) -> [u8; 16] {
    let (a, b, c, d) = (a.to_le_bytes(), b.to_le_bytes(), c.to_le_bytes(), d.to_be_bytes());
    [
        a[0], a[1], a[2], a[3], b[0], b[1], c[0], c[1], // and then
        d[0], d[1], d[2], d[3], d[4], d[5], d[6], d[7],
    ]
}

pub struct Vhdx {
    size: u64,
    block_bytes: u64,
    clusters: Clusters,
    bat_bytes: u64,
    file_change: [u8; 16],
    data_change: [u8; 16],
    disk: [u8; 16],
}

impl Vhdx {
    pub fn new(disk: &Disk, data: &[Extent]) -> Result<Self> {
        let size = disk.size;
        if size == 0 {
            return Err(Error::Invalid("a disk of 0 bytes can't be a VHDX file".into()));
        }
        if size > MOST_BYTES {
            return Err(too_large(size, "VHDX"));
        }
        let block_bytes = block_bytes(size);
        let blocks = size.div_ceil(block_bytes);
        let entries = blocks + (blocks - 1) / chunk_blocks(block_bytes);
        let bat_bytes = (entries * 8).next_multiple_of(MIB);
        let clusters = Clusters::of(size, block_bytes, data)?
            .beginning_at(BAT_AT + bat_bytes + METADATA_BYTES);
        let purposes = ["file change", "data change", "disk"];
        let [file_change, data_change, disk] = purposes.map(|one| disk.identity.guid(one));
        Ok(Vhdx { size, block_bytes, clusters, bat_bytes, file_change, data_change, disk })
    }

    fn header(&self, number: u64) -> Vec<u8> {
        let mut bytes = b"head\0\0\0\0".to_vec();
        bytes.extend_from_slice(&number.to_le_bytes());
        bytes.extend_from_slice(&self.file_change);
        bytes.extend_from_slice(&self.data_change);
        bytes.extend_from_slice(&[0; 16]); // the log is empty
        bytes.extend_from_slice(&0_u16.to_le_bytes());
        bytes.extend_from_slice(&1_u16.to_le_bytes());
        bytes.extend_from_slice(&(LOG_BYTES as u32).to_le_bytes());
        bytes.extend_from_slice(&LOG_AT.to_le_bytes());
        summed(bytes, HEADER_BYTES)
    }

    fn regions(&self) -> Vec<u8> {
        let found =
            [(BAT, BAT_AT, self.bat_bytes), (METADATA, BAT_AT + self.bat_bytes, METADATA_BYTES)];
        let mut bytes = b"regi\0\0\0\0".to_vec();
        bytes.extend_from_slice(&(found.len() as u64).to_le_bytes());
        for (known, at, length) in found {
            bytes.extend_from_slice(&known);
            bytes.extend_from_slice(&at.to_le_bytes());
            bytes.extend_from_slice(&(length as u32).to_le_bytes());
            bytes.extend_from_slice(&REQUIRED_REGION.to_le_bytes());
        }
        summed(bytes, REGIONS_BYTES)
    }

    fn bat(&self, to: &mut Pages<'_>) -> Result<()> {
        let chunk = chunk_blocks(self.block_bytes);
        let blocks = self.clusters.of_disk();
        for (number, place) in (0..blocks).zip(self.clusters.places_from(0)) {
            if number > 0 && number % chunk == 0 {
                to.put(&[0; 8])?; // the bitmap of sectors before, which only a disk over another has
            }
            to.put(&place.map_or(ZERO, |place| place | PRESENT).to_le_bytes())?;
        }
        Ok(())
    }

    fn metadata(&self, to: &mut Pages<'_>) -> Result<()> {
        let sector = (SECTOR as u32).to_le_bytes();
        let items: [(_, &[u8], _); 5] = [
            // No flags: blocks may be missing, and no other disk lies beneath.
            (PARAMETERS, &self.block_bytes.to_le_bytes(), REQUIRED),
            (DISK_SIZE, &self.size.to_le_bytes(), REQUIRED | OF_THE_DISK),
            (DISK_ID, &self.disk, REQUIRED | OF_THE_DISK),
            (LOGICAL_SECTOR, &sector, REQUIRED | OF_THE_DISK),
            (PHYSICAL_SECTOR, &sector, REQUIRED | OF_THE_DISK),
        ];
        let begin = BAT_AT + self.bat_bytes;
        to.zero_to(begin)?;
        to.put(b"metadata\0\0")?;
        to.put(&(items.len() as u16).to_le_bytes())?;
        to.put(&[0; 20])?;
        let mut at = ITEMS_AT;
        for (known, value, flags) in &items {
            to.put(known)?;
            for number in [at, value.len() as u32, *flags, 0] {
                to.put(&number.to_le_bytes())?;
            }
            at += value.len() as u32;
        }
        to.zero_to(begin + u64::from(ITEMS_AT))?;
        items.iter().try_for_each(|(_, value, _)| to.put(value))
    }
}

impl Layout for Vhdx {
    fn clusters(&self) -> &Clusters {
        &self.clusters
    }

    fn head(&self, to: &mut Pages<'_>) -> Result<()> {
        to.put(b"vhdxfile")?;
        to.put(&"Holdfast".encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>())?;
        // The one with the larger number is in force.
        for (number, at) in (1..).zip(HEADERS_AT) {
            to.zero_to(at)?;
            to.put(&self.header(number))?;
        }
        let regions = self.regions();
        for at in REGIONS_AT {
            to.zero_to(at)?;
            to.put(&regions)?;
        }
        to.zero_to(BAT_AT)?;
        self.bat(to)?;
        self.metadata(to)
    }
}

/// As qemu chooses it for a disk of that size.
fn block_bytes(size: u64) -> u64 {
    match size {
        size if size > 32 * TIB => 64 * MIB,
        size if size > 100 * GIB => 32 * MIB,
        size if size > GIB => 16 * MIB,
        _ => 8 * MIB,
    }
}

/// After so many blocks there is room in the BAT for where their bitmap of sectors lies.
fn chunk_blocks(block_bytes: u64) -> u64 {
    CHUNK_SECTORS * SECTOR / block_bytes
}

/// A structure of so many bytes whose checksum, at its fifth byte, is of all of it.
fn summed(mut bytes: Vec<u8>, length: usize) -> Vec<u8> {
    bytes.resize(length, 0);
    let sum = crc32c(&bytes).to_le_bytes();
    if let Some(room) = bytes.get_mut(4..8) {
        room.copy_from_slice(&sum);
    }
    bytes
}

/// CRC-32C (Castagnoli), reflected, as RFC 3720 has it. Slow, and enough for a few hundred KiB.
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |sum: u32, _| if sum & 1 == 1 { (sum >> 1) ^ 0x82F6_3B78 } else { sum >> 1 };
    !bytes.iter().fold(u32::MAX, |sum, byte| (0..8).fold(sum ^ u32::from(*byte), step))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::tests::disk;
    use super::*;

    /// The vectors of RFC 3720, B.4.
    #[test]
    fn checksums_are_those_of_the_rfc() {
        assert_eq!(crc32c(&[0; 32]), 0x8A91_36AA);
        assert_eq!(crc32c(&[0xff; 32]), 0x62A8_AB43);
        assert_eq!(crc32c(&(0..32).collect::<Vec<u8>>()), 0x46DD_794E);
        assert_eq!(crc32c(b"123456789"), 0xE306_9283);
    }

    #[test]
    fn the_bat_has_room_for_each_full_chunk_but_the_last() {
        let chunk = chunk_blocks(16 * MIB);
        assert_eq!(chunk, 256);
        let entries = |blocks: u64| {
            let made = Vhdx::new(&disk(blocks * 16 * MIB), &[]).unwrap();
            let mut bytes = Vec::new();
            let mut take = |_: u64, page: &[u8]| {
                bytes.extend_from_slice(page);
                Ok(())
            };
            let mut pages = Pages::new(&mut take);
            made.bat(&mut pages).unwrap();
            pages.zero_to(MIB).unwrap();
            let entries = bytes.chunks(8).map(|one| u64::from_le_bytes(one.try_into().unwrap()));
            let all: Vec<u64> = entries.collect();
            (all.iter().filter(|one| **one == ZERO).count(), all.iter().rposition(|one| *one > 0))
        };
        assert_eq!(entries(chunk), (256, Some(255)));
        assert_eq!(entries(chunk + 1), (257, Some(257)));
        assert_eq!(entries(2 * chunk), (512, Some(512)));
        assert_eq!(entries(2 * chunk + 1), (513, Some(514)));
    }

    #[test]
    fn guids_are_written_as_the_format_writes_them() {
        let bytes = b"\x66\x77\xc2\x2d\x23\xf6\x00\x42\x9d\x64\x11\x5e\x9b\xfd\x4a\x08";
        assert_eq!(&BAT, bytes);
    }
}
