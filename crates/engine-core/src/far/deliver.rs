//! Chunks on their way to a client: only those that it names, whatever lies beside them.

use crate::codec::{Codec, Compressor};
use crate::counters::Counters;
use crate::error::{Error, Result};
use crate::ids::{Kind, Ref};
use crate::pack::footer::{ChunkInfo, PackKind};
use crate::pool::Pool;

use super::body;
use crate::ingest::BlockBuilder;

/// Chunks that are asked for at a time, at most, and their plain bytes.
const MOST_CHUNKS: usize = 16_384;
const MOST_BYTES: u64 = 64 << 20;
/// On its way a block is compressed quickly, or not at all.
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

/// A body of blocks that hold these chunks, in this order for each kind of pack.
pub fn deliver(pool: &Pool, wanted: &[u8], compress: bool, counters: &Counters) -> Result<Vec<u8>> {
    let wanted = Wanted::decode(wanted)?;
    let references: Vec<Ref> = wanted.iter().map(|(_, reference)| *reference).collect();
    pool.fetch_ahead(&references, counters);
    let mut compressor = Compressor::new(if compress { LEVEL } else { 0 })?;
    let mut writer = body::Writer::default();
    let limit = pool.config().block_bytes;
    let mut builders = [BlockBuilder::new(limit), BlockBuilder::new(limit)];
    let mut shrunk = Vec::new();
    let mut lay = |builder: &mut BlockBuilder, kind: PackKind| -> Result<()> {
        let (plain, chunks): (Vec<u8>, Vec<ChunkInfo>) = builder.take();
        let (codec, encoded) = match compressor.shrink(&plain, &mut shrunk)? {
            true => (Codec::Zstd, shrunk.as_slice()),
            false => (Codec::Stored, plain.as_slice()),
        };
        writer.push(kind, codec, &chunks, encoded);
        builder.reuse(plain);
        Ok(())
    };
    for (kind, reference) in &wanted {
        let bytes = pool.chunk(*kind, reference, counters)?;
        let pack_kind = PackKind::of(*kind);
        let builder = &mut builders[pack_kind as usize];
        if !builder.fits(bytes.len()) {
            lay(builder, pack_kind)?;
        }
        builder.push(reference.name, *kind, &bytes);
    }
    for (builder, kind) in builders.iter_mut().zip([PackKind::Data, PackKind::Metadata]) {
        if !builder.is_empty() {
            lay(builder, kind)?;
        }
    }
    Ok(writer.take())
}
