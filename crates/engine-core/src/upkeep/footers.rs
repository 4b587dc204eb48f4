//! Reads the footers of many packs and writes index segments from them, in bounded memory: as
//! many records as one segment takes are held at a time.

use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam_channel::bounded;

use crate::cancel::Cancel;
use crate::counters::{Counters, add};
use crate::error::{Error, Result};
use crate::ids::{Id, PackId};
use crate::index::{PackEntry, Record, records_of, write_segment};
use crate::pack::reader::Pack;
use crate::pool::Pool;

/// Records of one segment; the memory of it is 40 bytes a record.
const SEGMENT_RECORDS: usize = 1 << 20;
/// Footers read at a time: they are small, and object stores answer slowly.
const READERS: usize = 8;

/// What came of the footers.
#[derive(Default)]
pub(super) struct Indexed {
    /// Segments that were written; each is durable.
    pub segments: Vec<Id>,
    pub packs: u64,
    pub chunks: u64,
}

/// Indexes these packs. `unreadable` is told of each whose footer cannot be read and says whether
/// to go on; a pack that is gone is left out. `fence` is asked after each segment: if it fails,
/// that segment goes again.
pub(super) fn index(
    pool: &Pool,
    packs: &[PackId],
    unreadable: &dyn Fn(&PackId, Error) -> Result<()>,
    fence: &dyn Fn() -> Result<()>,
    counters: &Counters,
    cancel: &Cancel,
) -> Result<Indexed> {
    let next = AtomicUsize::new(0);
    let (found_in, found_out) = bounded(READERS);
    std::thread::scope(|scope| {
        for _ in 0..READERS.min(packs.len()) {
            let found_in = found_in.clone();
            let next = &next;
            scope.spawn(move || {
                while let Some(id) = packs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let opened = cancel
                        .check()
                        .and_then(|()| Pack::discover(pool.store(), pool.keys(), *id));
                    // Nobody listens any more once the gathering has failed.
                    if found_in.send((*id, opened)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(found_in);
        let mut run = Run::default();
        let mut indexed = Indexed::default();
        for (id, opened) in found_out {
            let pack = match opened {
                Ok(pack) => pack,
                Err(Error::Cancelled) => return Err(Error::Cancelled),
                Err(error) if error.is_missing() => continue,
                Err(error) => {
                    unreadable(&id, error)?;
                    continue;
                }
            };
            run.add(&pack);
            add(&counters.chunks_looked_up, pack.footer.chunks().len() as u64);
            if run.records.len() >= SEGMENT_RECORDS {
                std::mem::take(&mut run).write(pool, fence, counters, &mut indexed)?;
            }
        }
        cancel.check()?;
        run.write(pool, fence, counters, &mut indexed)?;
        Ok(indexed)
    })
}

/// The packs of one segment.
#[derive(Default)]
struct Run {
    packs: Vec<PackEntry>,
    records: Vec<Record>,
}

impl Run {
    fn add(&mut self, pack: &Pack) {
        let footer_len = pack.size - pack.footer.blocks_end() - crate::pack::TRAILER_LEN as u64;
        self.records.extend(records_of(&pack.footer, self.packs.len() as u32));
        self.packs.push(PackEntry {
            id: pack.id,
            size: pack.size,
            footer_len: footer_len as u32,
            kind: pack.footer.kind as u8,
        });
    }

    fn write(
        self,
        pool: &Pool,
        fence: &dyn Fn() -> Result<()>,
        counters: &Counters,
        indexed: &mut Indexed,
    ) -> Result<()> {
        if self.packs.is_empty() {
            return Ok(());
        }
        indexed.packs += self.packs.len() as u64;
        indexed.chunks += self.records.len() as u64;
        let segment =
            write_segment(pool.store(), pool.keys(), &pool.id(), &self.packs, self.records)?;
        if let Err(error) = fence() {
            pool.store().delete(&crate::index::segment::key(&segment))?;
            return Err(error);
        }
        add(&counters.files, 1);
        indexed.segments.push(segment);
        Ok(())
    }
}
