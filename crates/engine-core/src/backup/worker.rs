//! A worker of a backup: takes work from the queue until there is none.

use std::ops::Range;
use std::time::Instant;

use crate::client_key::chunk::ChunkSealer;
use crate::codec::Compressor;
use crate::counters::{Stage, Tally};
use crate::error::{Error, Result};
use crate::ids::{Kind, Name};
use crate::ingest::{BlockBuilder, Sink};
use crate::pack::footer::{ChunkInfo, PackKind};

use super::job::Job;
use super::queue::Work;

/// What is read at a time from a large file.
const READ_BYTES: usize = 1 << 20;

/// One thread's own things.
pub struct Worker<'a> {
    pub job: &'a Job<'a>,
    pub sink: &'a dyn Sink,
    pub tally: Tally,
    /// File bytes that wait to be cut.
    pub buffer: Vec<u8>,
    builder: BlockBuilder,
    compressor: Compressor,
    /// Where the client seals data itself.
    pub sealer: Option<ChunkSealer>,
}

impl<'a> Worker<'a> {
    pub fn new(job: &'a Job<'a>, sink: &'a dyn Sink) -> Result<Self> {
        Ok(Worker {
            job,
            sink,
            tally: Tally::default(),
            buffer: vec![0; READ_BYTES.max(4 * sink.chunker().max())],
            builder: BlockBuilder::new(sink.block_bytes()),
            compressor: sink.compressor()?,
            sealer: sink.sealing().map(|_| ChunkSealer::new(job.level)).transpose()?,
        })
    }

    /// Works until the queue says that all is done, then hands on what is left in the builder.
    /// When cancelled, what was read so far is handed on too: it need not be sent again.
    pub fn run(&mut self) -> Result<()> {
        let mut waiting = Instant::now();
        let outcome = loop {
            let Some(work) = self.job.queue.next() else { break Ok(()) };
            self.job.counters.starved(Stage::Read, waiting);
            let done = self.sink.check().and_then(|()| self.work(work));
            self.job.counters.absorb(&mut self.tally);
            if let Err(error) = done {
                self.job.queue.abandon();
                break Err(error);
            }
            waiting = Instant::now();
        };
        match outcome {
            Ok(()) | Err(Error::Cancelled) => self.flush().and(outcome),
            Err(_) => outcome,
        }
    }

    fn work(&mut self, work: Work) -> Result<()> {
        match work {
            Work::Directory(node) => self.directory(&node),
            Work::Batch { node, from, to } => self.batch(&node, from..to),
            Work::Block { plain, chunks } => {
                self.sink.send(PackKind::Data, plain, chunks, &mut self.compressor).map(drop)
            }
        }
    }

    /// Takes a claimed chunk from the buffer into the current block.
    pub fn keep(&mut self, name: Name, chunk: Range<usize>) -> Result<()> {
        self.make_room(chunk.len())?;
        self.builder.push(name, Kind::Data, &self.buffer[chunk]);
        Ok(())
    }

    /// Takes the claimed chunk that was sealed last into the current block.
    pub fn keep_sealed(&mut self, name: Name) -> Result<()> {
        self.make_room(self.sealer.as_ref().map_or(0, |sealer| sealer.sealed().len()))?;
        if let Some(sealer) = &self.sealer {
            self.builder.push(name, Kind::Data, sealer.sealed());
        }
        Ok(())
    }

    fn make_room(&mut self, length: usize) -> Result<()> {
        if !self.builder.fits(length) {
            let (full, chunks) = self.builder.take();
            if let Some((full, chunks)) = self.job.queue.offer(full, chunks) {
                self.compress(full, chunks)?;
            }
        }
        Ok(())
    }

    fn compress(&mut self, plain: Vec<u8>, chunks: Vec<ChunkInfo>) -> Result<()> {
        if let Some(plain) = self.sink.send(PackKind::Data, plain, chunks, &mut self.compressor)? {
            self.builder.reuse(plain);
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        let (plain, chunks) = self.builder.take();
        if chunks.is_empty() {
            return Ok(());
        }
        self.compress(plain, chunks)
    }
}
