//! Writing segments, as a stream: counts first, then the filter, then the records.
//!
//! Holds no more than a buffer, so that merging segments of any size takes constant memory; the
//! sorted records are produced twice, once for the filter and once for themselves. A segment is
//! visible only once it is durable whole.

use crate::error::{Error, Result};
use crate::ids::Id;
use crate::index::filter;
use crate::index::segment::{self, HEADER, MAGIC, PackEntry, Place, RECORD, Record, VERSION};
use crate::keys::{PoolKeys, RecordKey};
use crate::pack::footer::Footer;
use crate::store::{Store, Upload};

const BUFFER: usize = 1 << 20;

/// Writes the records of new packs as one segment, durable on return.
///
/// `packs` come in any order; `Record::pack` is a position in `packs`. Records come in any order;
/// of several with one prefix the first stays. Sorts in memory: for what one job found.
pub fn write_segment(
    store: &dyn Store,
    keys: &PoolKeys,
    pool: &Id,
    packs: &[PackEntry],
    records: Vec<Record>,
) -> Result<Id> {
    write_segment_as(store, keys, pool, Id::random()?, packs, records)
}

/// With an id from the caller, for vectors. An id must never be used twice.
pub fn write_segment_as(
    store: &dyn Store,
    keys: &PoolKeys,
    pool: &Id,
    id: Id,
    packs: &[PackEntry],
    mut records: Vec<Record>,
) -> Result<Id> {
    let mut order: Vec<usize> = (0..packs.len()).collect();
    order.sort_by_key(|at| packs[*at].id);
    let sorted: Vec<PackEntry> = order.iter().map(|at| packs[*at]).collect();
    let mut ordinals = vec![0; packs.len()];
    for (ordinal, at) in order.into_iter().enumerate() {
        ordinals[at] = ordinal as u32;
    }
    for record in &mut records {
        record.pack = *ordinals
            .get(record.pack as usize)
            .ok_or_else(|| Error::Invalid("an index record names no pack of its segment".into()))?;
    }
    records.sort_by_key(|record| record.prefix);
    records.dedup_by_key(|record| record.prefix);
    let writer = SegmentWriter::begin(store, keys, pool, id, &sorted, records.len() as u64)?;
    writer.write(|| Ok(records.iter().copied().map(Ok)))
}

/// Writes `count` records in strictly ascending order of prefix; `records` gives them anew at
/// each call, the same each time. `packs` are sorted by id.
pub fn write_sorted<R, I>(
    store: &dyn Store,
    keys: &PoolKeys,
    pool: &Id,
    packs: &[PackEntry],
    count: u64,
    records: R,
) -> Result<Id>
where
    R: Fn() -> Result<I>,
    I: Iterator<Item = Result<Record>>,
{
    SegmentWriter::begin(store, keys, pool, Id::random()?, packs, count)?.write(records)
}

/// What the index says of the chunks of a pack that stands at `ordinal` of a pack table.
pub fn records_of(footer: &Footer, ordinal: u32) -> impl Iterator<Item = Record> + '_ {
    (0..footer.blocks().len()).flat_map(move |block| {
        footer.chunks_of(block).map(move |(offset, chunk)| Record {
            prefix: chunk.name.prefix(),
            pack: ordinal,
            place: Place { block: block as u16, offset, length: chunk.length },
        })
    })
}

struct SegmentWriter<'a> {
    id: Id,
    key: RecordKey,
    upload: Box<dyn Upload + 'a>,
    hasher: blake3::Hasher,
    buffer: Vec<u8>,
    packs: u32,
    count: u64,
    filter_blocks: u32,
    /// The filter block being filled, and its position.
    block: [u8; filter::BLOCK],
    block_at: u32,
    written: u64,
    last: Option<[u8; 16]>,
}

impl<'a> SegmentWriter<'a> {
    fn begin(
        store: &'a dyn Store,
        keys: &PoolKeys,
        pool: &Id,
        id: Id,
        packs: &[PackEntry],
        count: u64,
    ) -> Result<Self> {
        let too_many = |_| Error::Invalid("too many packs for one index segment".into());
        let pack_count = u32::try_from(packs.len()).map_err(too_many)?;
        let filter_blocks = filter::blocks_for(count)?;
        if packs.windows(2).any(|pair| pair[0].id >= pair[1].id) {
            return Err(Error::Invalid("packs of an index segment are out of order".into()));
        }
        let mut head = Vec::with_capacity(HEADER + packs.len() * segment::PACK_ENTRY);
        head.extend_from_slice(&MAGIC);
        head.push(VERSION);
        head.extend_from_slice(&pool.0);
        head.extend_from_slice(&count.to_le_bytes());
        head.extend_from_slice(&pack_count.to_le_bytes());
        head.extend_from_slice(&filter_blocks.to_le_bytes());
        head.extend_from_slice(&id.0);
        head.resize(HEADER, 0);
        for pack in packs {
            head.extend_from_slice(&pack.to_bytes());
        }
        let head_mac = keys.index_mac().update(&head).finalize();
        let mut writer = SegmentWriter {
            id,
            key: keys.index_records(&id),
            upload: store.upload()?,
            hasher: keys.index_mac(),
            buffer: Vec::with_capacity(BUFFER + filter::BLOCK),
            packs: pack_count,
            count,
            filter_blocks,
            block: [0; filter::BLOCK],
            block_at: 0,
            written: 0,
            last: None,
        };
        writer.bytes(&head)?;
        writer.bytes(head_mac.as_bytes())?;
        Ok(writer)
    }

    /// Goes over the records twice; `records` gives them anew, the same each time.
    fn write<R, I>(mut self, records: R) -> Result<Id>
    where
        R: Fn() -> Result<I>,
        I: Iterator<Item = Result<Record>>,
    {
        for record in records()? {
            self.filter(&record?)?;
        }
        for record in records()? {
            self.record(&record?)?;
        }
        self.finish()
    }

    fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= BUFFER { self.drain() } else { Ok(()) }
    }

    fn drain(&mut self) -> Result<()> {
        self.hasher.update(&self.buffer);
        self.upload.write(&self.buffer)?;
        self.buffer.clear();
        Ok(())
    }

    /// Puts the next record into the filter; sorted, so the blocks come in order.
    fn filter(&mut self, record: &Record) -> Result<()> {
        let hash = filter::hash(&record.prefix);
        self.filter_up_to(filter::block_of(hash, self.filter_blocks))?;
        filter::insert(&mut self.block, hash);
        Ok(())
    }

    fn filter_up_to(&mut self, block: u32) -> Result<()> {
        while self.block_at < block {
            let full = std::mem::replace(&mut self.block, [0; filter::BLOCK]);
            self.bytes(&full)?;
            self.block_at += 1;
        }
        Ok(())
    }

    fn record(&mut self, record: &Record) -> Result<()> {
        self.filter_up_to(self.filter_blocks)?;
        if self.last.is_some_and(|last| last >= record.prefix) {
            return Err(Error::Invalid("index records are out of order".into()));
        }
        if record.pack >= self.packs {
            return Err(Error::Invalid("an index record names no pack of its segment".into()));
        }
        let bytes: [u8; RECORD] = record.to_bytes(&self.key).ok_or_else(|| {
            Error::Invalid(format!("a chunk of {} bytes is too long", record.place.length))
        })?;
        self.bytes(&bytes)?;
        self.last = Some(record.prefix);
        self.written += 1;
        Ok(())
    }

    fn finish(mut self) -> Result<Id> {
        self.filter_up_to(self.filter_blocks)?;
        if self.written != self.count {
            return Err(Error::Invalid(format!(
                "an index segment was to have {} records and has {}",
                self.count, self.written
            )));
        }
        self.drain()?;
        let mac = self.hasher.finalize();
        self.upload.write(mac.as_bytes())?;
        self.upload.finish(&segment::key(&self.id))?;
        Ok(self.id)
    }
}
