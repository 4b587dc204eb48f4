//! Blocks of which a client wants every chunk: they go as they lie in the pool, in the form in which
//! they were compressed when they were stored. Only their seal is opened.
//!
//! What can't be sent so is left to whoever looks chunk by chunk; that one also tells of problems.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::codec::Codec;
use crate::counters::Counters;
use crate::ids::{Kind, Name, PackId, Ref};
use crate::pack::footer::ChunkInfo;
use crate::pack::reader::Pack;
use crate::pool::Pool;

use super::body;

/// What is wanted of one block, by where it begins in it.
type OfBlock = HashMap<u32, (Kind, Ref)>;

/// Lays blocks of which everything is wanted into the body, and takes their chunks off the list.
pub(super) fn lay(
    pool: &Pool,
    wanted: &mut Vec<(Kind, Ref)>,
    writer: &mut body::Writer,
    counters: &Counters,
) {
    let index = pool.index().snapshot();
    let mut packs: BTreeMap<PackId, BTreeMap<u16, OfBlock>> = BTreeMap::new();
    for (kind, reference) in &*wanted {
        if let Some(found) = index.lookup(&reference.name) {
            let blocks = packs.entry(found.pack).or_default();
            blocks.entry(found.block).or_default().insert(found.offset, (*kind, *reference));
        }
    }
    let mut laid: HashSet<Name> = HashSet::new();
    for (id, blocks) in packs {
        let Ok(pack) = pool.pack(&id) else { continue };
        let whole: Vec<u16> = blocks
            .iter()
            .filter(|(number, of_block)| is_whole(&pack, usize::from(**number), of_block))
            .map(|(number, _)| *number)
            .collect();
        // What this fails of before the last block is told when the rest is looked for.
        let _ = pool.stored_blocks(&pack, &whole, counters, |number, stored| {
            let number = usize::from(number);
            let info = *pack.block(number)?;
            let plain_len = info.plain_len as usize;
            let shrunk = info.codec == Codec::Stored || stored.len() < plain_len;
            if shrunk && writer.fits(plain_len) {
                let chunks: Vec<ChunkInfo> =
                    pack.footer.chunks_of(number).map(|(_, chunk)| *chunk).collect();
                writer.push(pack.footer.kind, info.codec, &chunks, stored);
                laid.extend(chunks.iter().map(|chunk| chunk.name));
            }
            Ok(())
        });
    }
    wanted.retain(|(_, reference)| !laid.contains(&reference.name));
}

/// Whether exactly the chunks of this block are wanted, each as what it is.
fn is_whole(pack: &Pack, number: usize, wanted: &OfBlock) -> bool {
    let Ok(info) = pack.block(number) else { return false };
    info.chunk_count as usize == wanted.len()
        && pack.footer.chunks_of(number).all(|(offset, chunk)| {
            wanted.get(&offset).is_some_and(|(kind, reference)| {
                *kind == chunk.kind
                    && reference.name == chunk.name
                    && reference.length == chunk.length
            })
        })
}

/// Into how many bytes a chunk shrank when it was stored with others, about; all of its own where
/// that is not known.
pub(super) fn shrunk_length(pool: &Pool, reference: &Ref) -> u64 {
    let length = u64::from(reference.length);
    let shrunk = || {
        let found = pool.index().lookup(&reference.name)?;
        let pack = pool.pack(&found.pack).ok()?;
        let info = *pack.block(usize::from(found.block)).ok()?;
        Some(length * u64::from(info.sealed_len) / u64::from(info.plain_len.max(1)))
    };
    shrunk().unwrap_or(length)
}
