//! A worker of a backup: takes work from the queue until there is none.

use std::time::Instant;

use crate::counters::{Stage, Tally};
use crate::error::{Error, Result};
use crate::ingest::Sink;

use super::cutter::Cutter;
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
    pub cutter: Cutter<'a>,
}

impl<'a> Worker<'a> {
    pub fn new(job: &'a Job<'a>, sink: &'a dyn Sink) -> Result<Self> {
        Ok(Worker {
            job,
            sink,
            tally: Tally::default(),
            buffer: vec![0; READ_BYTES.max(4 * sink.chunker().max())],
            cutter: Cutter::new(sink, job.level, Some(&job.queue))?,
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
            Ok(()) | Err(Error::Cancelled) => self.cutter.flush().and(outcome),
            Err(_) => outcome,
        }
    }

    fn work(&mut self, work: Work) -> Result<()> {
        match work {
            Work::Directory(node) => self.directory(&node),
            Work::Batch { node, from, to } => self.batch(&node, from..to),
            Work::Block { plain, chunks } => self.cutter.compress(plain, chunks),
        }
    }
}
