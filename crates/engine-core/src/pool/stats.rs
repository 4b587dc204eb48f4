//! How full a pool is, as its index knows it.

use crate::error::Result;

use super::Pool;

/// Numbers of a whole pool. A chunk that two packs hold counts twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    pub packs: u64,
    /// Stored bytes of all packs.
    pub pack_bytes: u64,
    pub chunks: u64,
    /// Plain bytes of all chunks.
    pub chunk_bytes: u64,
    pub index_segments: u64,
    pub index_bytes: u64,
    pub images: u64,
}

impl Pool {
    /// Reads every index record once; no pack is touched.
    pub fn stats(&self) -> Result<Stats> {
        let index = self.index().refresh()?;
        let packs = index.packs();
        let mut stats = Stats {
            packs: packs.len() as u64,
            pack_bytes: packs.iter().map(|pack| pack.size).sum(),
            index_segments: index.segments().len() as u64,
            index_bytes: index.size(),
            images: self.image_ids()?.len() as u64,
            ..Stats::default()
        };
        for segment in index.segments() {
            for position in 0..segment.len() {
                if let Some(record) = segment.record(position) {
                    stats.chunks += 1;
                    stats.chunk_bytes += u64::from(record.place.length);
                }
            }
        }
        Ok(stats)
    }
}
