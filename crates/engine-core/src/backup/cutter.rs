//! Bytes become chunks: cut, named, and kept where the pool does not have them.
//!
//! One for each thread. Knows neither files nor disks.

use std::time::Instant;

use crate::client_key::chunk::ChunkSealer;
use crate::codec::Compressor;
use crate::counters::{Stage, Tally};
use crate::error::Result;
use crate::ids::{Kind, Name, Ref};
use crate::ingest::{BlockBuilder, Sink};
use crate::pack::footer::{ChunkInfo, PackKind};

use super::queue::Queue;

/// See the module.
pub struct Cutter<'a> {
    sink: &'a dyn Sink,
    /// Who may compress a full block in its place.
    others: Option<&'a Queue>,
    builder: BlockBuilder,
    compressor: Compressor,
    /// Where the client seals data itself.
    sealer: Option<ChunkSealer>,
}

impl<'a> Cutter<'a> {
    /// `level` is the zstd level of what is sealed here.
    pub fn new(sink: &'a dyn Sink, level: i32, others: Option<&'a Queue>) -> Result<Self> {
        Ok(Cutter {
            sink,
            others,
            builder: BlockBuilder::new(sink.block_bytes()),
            compressor: sink.compressor()?,
            sealer: sink.sealing().map(|_| ChunkSealer::new(level)).transpose()?,
        })
    }

    /// Cuts `data` into chunks and tells the reference of each; what may still grow is left,
    /// unless this is the `last` there is. Returns how many bytes were taken.
    pub fn cut(
        &mut self,
        tally: &mut Tally,
        data: &[u8],
        last: bool,
        mut tell: impl FnMut(Ref) -> Result<()>,
    ) -> Result<usize> {
        let chunker = self.sink.chunker();
        let mut rest = data;
        while !rest.is_empty() && (last || rest.len() >= chunker.max()) {
            let started = Instant::now();
            let front = rest.get(..chunker.max()).unwrap_or(rest);
            let (chunk, after) = rest.split_at(chunker.cut(front));
            let cut = tally.busy(Stage::Chunk, chunk.len() as u64, started);
            tell(self.chunk(tally, chunk, cut)?)?;
            rest = after;
        }
        Ok(data.len() - rest.len())
    }

    /// Names a chunk, and keeps it if the pool does not have it.
    fn chunk(&mut self, tally: &mut Tally, chunk: &[u8], since: Instant) -> Result<Ref> {
        let naming = self.sink.repository().naming();
        let (name, length, is_new) = match (self.sink.sealing(), &mut self.sealer) {
            (Some(sealing), Some(sealer)) => {
                let length = sealer.seal(&sealing.key, chunk)?;
                let sealed = tally.busy(Stage::Compress, chunk.len() as u64, since);
                let name = naming.name(Kind::Data, sealer.sealed());
                tally.busy(Stage::Hash, sealer.sealed().len() as u64, sealed);
                (name, length, self.sink.claim(&name))
            }
            _ => {
                let name = naming.name(Kind::Data, chunk);
                tally.busy(Stage::Hash, chunk.len() as u64, since);
                (name, chunk.len() as u32, self.sink.claim(&name))
            }
        };
        tally.chunks_looked_up += 1;
        if is_new {
            self.keep(name, chunk)?;
        } else {
            tally.chunks_hit += 1;
        }
        Ok(Ref { name, length })
    }

    /// Takes a claimed chunk, or what it became when it was sealed just now, into the block.
    fn keep(&mut self, name: Name, chunk: &[u8]) -> Result<()> {
        let length = self.sealer.as_ref().map_or(chunk.len(), |sealer| sealer.sealed().len());
        if !self.builder.fits(length) {
            let (full, chunks) = self.builder.take();
            let left = match self.others {
                Some(others) => others.offer(full, chunks),
                None => Some((full, chunks)),
            };
            if let Some((full, chunks)) = left {
                self.compress(full, chunks)?;
            }
        }
        let stored = self.sealer.as_ref().map_or(chunk, ChunkSealer::sealed);
        self.builder.push(name, Kind::Data, stored);
        Ok(())
    }

    /// Compresses a full block and hands it on.
    pub fn compress(&mut self, plain: Vec<u8>, chunks: Vec<ChunkInfo>) -> Result<()> {
        if let Some(plain) = self.sink.send(PackKind::Data, plain, chunks, &mut self.compressor)? {
            self.builder.reuse(plain);
        }
        Ok(())
    }

    /// Hands on what is left.
    pub fn flush(&mut self) -> Result<()> {
        let (plain, chunks) = self.builder.take();
        if chunks.is_empty() { Ok(()) } else { self.compress(plain, chunks) }
    }
}
