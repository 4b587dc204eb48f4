//! Chunks on their way to a client: only those that it names, whatever lies beside them.

use std::time::Instant;

use crate::codec::{Codec, Compressor};
use crate::counters::{Counters, Stage};
use crate::error::{Error, Result};
use crate::ids::{Kind, Ref};
use crate::pack::footer::{ChunkInfo, PackKind};
use crate::pool::Pool;

use super::{body, whole};
use crate::ingest::BlockBuilder;

/// Chunks that are asked for at a time, at most, and their plain bytes.
const MOST_CHUNKS: usize = 16_384;
const MOST_BYTES: u64 = 64 << 20;
/// What is compressed for its way alone is compressed quickly.
const LEVEL: i32 = 1;

/// What is asked for: for each chunk its reference, and its kind in one byte.
pub struct Wanted;

impl Wanted {
    const LEN: usize = Ref::SIZE + 1;

    pub fn encode(kind: Kind, references: &[Ref]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(references.len() * Self::LEN);
        for reference in references {
            // What is asked for is what is stored, whatever a client key makes of it.
            let stored = Ref { name: reference.name, length: reference.stored_length() };
            bytes.extend_from_slice(&stored.to_bytes());
            bytes.push(kind as u8);
        }
        bytes
    }

    pub fn decode(bytes: &[u8]) -> Result<Vec<(Kind, Ref)>> {
        let malformed = |reason: &str| Error::Invalid(format!("chunks can't be read: {reason}"));
        if !bytes.len().is_multiple_of(Self::LEN) || bytes.len() > MOST_CHUNKS * Self::LEN {
            return Err(malformed("the list is cut short, or has more than 16384"));
        }
        let mut plain = 0;
        let mut wanted = Vec::with_capacity(bytes.len() / Self::LEN);
        for item in bytes.chunks_exact(Self::LEN) {
            let (reference, kind) = item.split_at(Ref::SIZE);
            let reference = Ref::from_bytes(reference).filter(|one| !one.is_client_sealed());
            let reference = reference.ok_or_else(|| malformed("a reference"))?;
            let kind = kind.first().and_then(|kind| Kind::from_u8(*kind));
            plain += u64::from(reference.length);
            wanted.push((kind.ok_or_else(|| malformed("one is of no kind"))?, reference));
        }
        if plain > MOST_BYTES && wanted.len() > 1 {
            return Err(malformed("more than 64 MiB at a time"));
        }
        Ok(wanted)
    }
}

/// A body of blocks that hold these chunks and no others.
///
/// Blocks of which everything is wanted go as they are stored. Of others what is wanted is put
/// together anew, and compressed where the way then takes less time: `link` is how many bytes a
/// second get through to whoever asks, none where nobody knows.
pub fn deliver(
    pool: &Pool,
    wanted: &[u8],
    link: Option<u64>,
    counters: &Counters,
) -> Result<Vec<u8>> {
    let mut wanted = Wanted::decode(wanted)?;
    let mut writer = body::Writer::default();
    whole::lay(pool, &mut wanted, &mut writer, counters);
    let references: Vec<Ref> = wanted.iter().map(|(_, reference)| *reference).collect();
    pool.fetch_ahead(&references, counters);
    let mut parts = [PackKind::Data, PackKind::Metadata].map(|kind| Part::new(pool, kind));
    for (kind, reference) in &wanted {
        let bytes = pool.chunk(*kind, reference, counters)?;
        let part = &mut parts[PackKind::of(*kind) as usize];
        if !part.builder.fits(bytes.len()) {
            part.lay(&mut writer, link, counters)?;
        }
        part.shrunk += whole::shrunk_length(pool, reference);
        part.builder.push(reference.name, *kind, &bytes);
    }
    for part in &mut parts {
        if !part.builder.is_empty() {
            part.lay(&mut writer, link, counters)?;
        }
    }
    Ok(writer.take())
}

/// Chunks of blocks that are not wanted whole.
struct Part<'a> {
    pool: &'a Pool,
    kind: PackKind,
    builder: BlockBuilder,
    /// Into how many bytes they shrank where they lie.
    shrunk: u64,
    compressor: Option<Compressor>,
}

impl<'a> Part<'a> {
    fn new(pool: &'a Pool, kind: PackKind) -> Self {
        let builder = BlockBuilder::new(pool.config().block_bytes);
        Part { pool, kind, builder, shrunk: 0, compressor: None }
    }

    fn lay(
        &mut self,
        writer: &mut body::Writer,
        link: Option<u64>,
        counters: &Counters,
    ) -> Result<()> {
        let (plain, chunks): (Vec<u8>, Vec<ChunkInfo>) = self.builder.take();
        let length = plain.len() as u64;
        let shrunk = std::mem::take(&mut self.shrunk);
        let mut encoded = Vec::new();
        if self.pool.pace().pays(length, shrunk, link) {
            let compressor = match &mut self.compressor {
                Some(compressor) => compressor,
                empty => empty.insert(Compressor::new(LEVEL)?),
            };
            let started = Instant::now();
            if !compressor.shrink(&plain, &mut encoded)? {
                encoded.clear();
            }
            let now = counters.busy(Stage::Compress, length, started);
            self.pool.pace().note(length, now - started);
        }
        match encoded.is_empty() {
            true => writer.push(self.kind, Codec::Stored, &chunks, &plain),
            false => writer.push(self.kind, Codec::Zstd, &chunks, &encoded),
        }
        self.builder.reuse(plain);
        Ok(())
    }
}
