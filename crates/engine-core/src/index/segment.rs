//! One index segment: its layout and its reader. See `docs/formats/index.md`.
//!
//! Bytes of a store are hostile: every count and offset is checked before it is used, and a
//! segment that is not authentic is an `Integrity` error, never a panic. Lookups allocate
//! nothing. A segment never changes once it is published.

use memmap2::Mmap;

use crate::error::{Error, Result};
use crate::ids::{Id, PackId, Prefix};
use crate::index::filter;
use crate::index::search::{ABREAST, search, search_batch};
use crate::keys::{PoolKeys, RecordKey};

pub const MAGIC: [u8; 7] = *b"HFINDX\0";
pub const VERSION: u8 = 1;
pub const HEADER: usize = 64;
pub const PACK_ENTRY: usize = 48;
pub const RECORD: usize = 28;
pub const MAC: usize = 32;
/// Segments up to this size are authenticated whole when opened; larger ones only their head
/// (header and pack table), and the rest on a check.
pub const WHOLE_MAC_LIMIT: u64 = 64 << 20;

/// Names that [`Segment::find_batch`] takes. Several segments share them, so they are many more
/// than go side by side in one.
pub const BATCH: usize = 256;

/// The prefix of every segment's key.
pub const KEYS: &str = "index/";

pub fn key(id: &Id) -> String {
    format!("{KEYS}{id}")
}

pub fn id_of(key: &str) -> Option<Id> {
    Id::parse(key.strip_prefix(KEYS)?)
}

/// A pack as a segment lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PackEntry {
    pub id: PackId,
    /// Bytes of the whole pack.
    pub size: u64,
    /// Bytes of the sealed footer.
    pub footer_len: u32,
    /// 0 data, 1 metadata.
    pub kind: u8,
}

impl PackEntry {
    pub fn to_bytes(self) -> [u8; PACK_ENTRY] {
        let mut bytes = [0; PACK_ENTRY];
        bytes[..32].copy_from_slice(&self.id.0);
        bytes[32..40].copy_from_slice(&self.size.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.footer_len.to_le_bytes());
        bytes[44] = self.kind;
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Some(PackEntry {
            id: PackId(bytes.get(..32)?.try_into().ok()?),
            size: u64_at(bytes, 32)?,
            footer_len: u32_at(bytes, 40)?,
            kind: *bytes.get(44)?,
        })
    }
}

/// Where a chunk lies inside its pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    pub block: u16,
    /// Byte in the block's raw bytes; 24 bits.
    pub offset: u32,
    /// Plain bytes of the chunk; 24 bits.
    pub length: u32,
}

impl Place {
    pub const LIMIT: u32 = 1 << 24;

    /// `None` when offset or length need more than 24 bits.
    pub fn pack(self) -> Option<u64> {
        (self.offset < Self::LIMIT && self.length < Self::LIMIT).then(|| {
            u64::from(self.block) << 48 | u64::from(self.offset) << 24 | u64::from(self.length)
        })
    }

    pub fn unpack(value: u64) -> Self {
        Place {
            block: (value >> 48) as u16,
            offset: (value >> 24) as u32 & (Self::LIMIT - 1),
            length: value as u32 & (Self::LIMIT - 1),
        }
    }
}

/// One chunk in a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    pub prefix: Prefix,
    /// Position in the segment's pack table.
    pub pack: u32,
    pub place: Place,
}

impl Record {
    pub fn to_bytes(self, key: &RecordKey) -> Option<[u8; RECORD]> {
        let mut bytes = [0; RECORD];
        bytes[..16].copy_from_slice(&self.prefix);
        bytes[16..20].copy_from_slice(&self.pack.to_le_bytes());
        bytes[20..].copy_from_slice(&self.place.pack()?.to_le_bytes());
        combine(&mut bytes, &key.mask(&self.prefix));
        Some(bytes)
    }

    fn from_bytes(bytes: &[u8], key: &RecordKey) -> Option<Self> {
        let mut bytes: [u8; RECORD] = bytes.try_into().ok()?;
        let mut prefix = [0; 16];
        prefix.copy_from_slice(&bytes[..16]);
        combine(&mut bytes, &key.mask(&prefix));
        let (pack, place) = (u32_at(&bytes, 16)?, Place::unpack(u64_at(&bytes, 20)?));
        Some(Record { prefix, pack, place })
    }
}

/// Hides what follows the prefix, or shows it again.
fn combine(record: &mut [u8; RECORD], mask: &[u8; 12]) {
    for (byte, mask) in record[16..].iter_mut().zip(mask) {
        *byte ^= mask;
    }
}

pub(super) enum Bytes {
    Mapped(Mmap),
    Owned(Vec<u8>),
}

impl Bytes {
    fn get(&self) -> &[u8] {
        match self {
            Bytes::Mapped(map) => map,
            Bytes::Owned(bytes) => bytes,
        }
    }
}

/// An open segment.
pub struct Segment {
    id: Id,
    bytes: Bytes,
    layout: Layout,
    key: RecordKey,
}

/// Counts and offsets that the header gives, checked against the length of the bytes.
#[derive(Clone, Copy)]
struct Layout {
    records: u64,
    packs: u32,
    filter_from: usize,
    records_from: usize,
    end: usize,
}

impl Segment {
    /// A segment held in memory.
    pub fn from_owned(keys: &PoolKeys, pool: &Id, id: Id, bytes: Vec<u8>) -> Result<Self> {
        Self::from_bytes(keys, pool, id, Bytes::Owned(bytes))
    }

    pub(super) fn from_bytes(keys: &PoolKeys, pool: &Id, id: Id, bytes: Bytes) -> Result<Self> {
        let layout = Layout::read(bytes.get(), pool, &id)?;
        let segment = Segment { id, bytes, layout, key: keys.index_records(&id) };
        segment.verify_head(keys)?;
        if segment.size() <= WHOLE_MAC_LIMIT {
            segment.verify_mac(keys)?;
        }
        Ok(segment)
    }

    pub fn id(&self) -> Id {
        self.id
    }

    pub fn key(&self) -> String {
        key(&self.id)
    }

    pub fn size(&self) -> u64 {
        self.bytes.get().len() as u64
    }

    /// Number of chunks.
    pub fn len(&self) -> u64 {
        self.layout.records
    }

    pub fn is_empty(&self) -> bool {
        self.layout.records == 0
    }

    pub fn pack_count(&self) -> u32 {
        self.layout.packs
    }

    /// The pack at this position of the table.
    pub fn pack(&self, ordinal: u32) -> Option<PackEntry> {
        if ordinal >= self.layout.packs {
            return None;
        }
        let from = HEADER + ordinal as usize * PACK_ENTRY;
        PackEntry::from_bytes(self.bytes.get().get(from..from + PACK_ENTRY)?)
    }

    /// All packs, sorted by id.
    pub fn packs(&self) -> impl Iterator<Item = PackEntry> + '_ {
        (0..self.layout.packs).filter_map(|ordinal| self.pack(ordinal))
    }

    /// The pack's position in the table.
    pub fn ordinal(&self, pack: &PackId) -> Option<u32> {
        let (mut low, mut high) = (0, self.layout.packs);
        while low < high {
            let middle = low + (high - low) / 2;
            match self.pack(middle)?.id.cmp(pack) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Equal => return Some(middle),
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        None
    }

    /// The record at this position in the order of prefixes.
    pub fn record(&self, position: u64) -> Option<Record> {
        Record::from_bytes(self.record_bytes(position)?, &self.key)
    }

    fn record_bytes(&self, position: u64) -> Option<&[u8]> {
        if position >= self.layout.records {
            return None;
        }
        let from = self.layout.records_from + position as usize * RECORD;
        self.bytes.get().get(from..from + RECORD)
    }

    /// The prefix at this position, for less than the whole record costs.
    pub fn prefix(&self, position: u64) -> Option<Prefix> {
        self.record_bytes(position)?.first_chunk().copied()
    }

    fn prefix_at(&self, position: u64) -> Option<u128> {
        self.prefix(position).map(u128::from_be_bytes)
    }

    /// The position of this prefix, asking the filter first. Allocates nothing.
    pub fn find(&self, prefix: &Prefix) -> Option<u64> {
        let filter = self.bytes.get().get(self.layout.filter_from..self.layout.records_from)?;
        if !filter::may_contain(filter, filter::hash(prefix)) {
            return None;
        }
        search(self.len(), |position| self.prefix_at(position), u128::from_be_bytes(*prefix))
    }

    /// As [`Segment::find`] for up to [`BATCH`] prefixes, which share their waiting for memory.
    pub fn find_batch(&self, prefixes: &[Option<Prefix>; BATCH]) -> [Option<u64>; BATCH] {
        let bytes = self.bytes.get();
        let filter = bytes.get(self.layout.filter_from..self.layout.records_from);
        let filter = filter.unwrap_or_default();
        let passes = prefixes.map(|prefix| {
            prefix.is_some_and(|prefix| filter::may_contain(filter, filter::hash(&prefix)))
        });
        let mut found = [None; BATCH];
        let mut group = [None; ABREAST];
        let mut places = [0; ABREAST];
        let mut filled = 0;
        let passing = prefixes.iter().zip(passes).enumerate().filter(|(_, (_, passes))| *passes);
        let mut search_group = |group: &mut [Option<u128>; ABREAST], places: &[usize; ABREAST]| {
            let answers = search_batch(self.len(), |position| self.prefix_at(position), group);
            for (place, answer) in places.iter().zip(answers) {
                if answer.is_some() {
                    found[*place] = answer;
                }
            }
            *group = [None; ABREAST];
        };
        for (at, (prefix, _)) in passing {
            group[filled] = prefix.map(u128::from_be_bytes);
            places[filled] = at;
            filled += 1;
            if filled == ABREAST {
                search_group(&mut group, &places);
                filled = 0;
            }
        }
        if filled > 0 {
            search_group(&mut group, &places);
        }
        found
    }

    fn verify_head(&self, keys: &PoolKeys) -> Result<()> {
        let damaged = |reason: &str| Error::integrity(self.key(), reason);
        let bytes = self.bytes.get();
        let from = self.layout.filter_from - MAC;
        let (head, mac) = (&bytes[..from], &bytes[from..self.layout.filter_from]);
        if keys.index_mac().update(head).finalize() != *mac {
            return Err(damaged("its head is not authentic"));
        }
        let mut last = None;
        for pack in self.packs() {
            if last.is_some_and(|last| last >= pack.id) {
                return Err(damaged("its packs are out of order"));
            }
            last = Some(pack.id);
        }
        Ok(())
    }

    fn verify_mac(&self, keys: &PoolKeys) -> Result<()> {
        let (body, mac) = self.bytes.get().split_at(self.layout.end);
        if keys.index_mac().update(body).finalize() != *mac {
            return Err(Error::integrity(self.key(), "it is not authentic"));
        }
        Ok(())
    }

    /// Authenticates every byte, and checks the order of the records and their packs.
    pub fn verify(&self, keys: &PoolKeys) -> Result<()> {
        self.verify_mac(keys)?;
        let mut last = None;
        for position in 0..self.len() {
            let damaged = |reason| Error::integrity(self.key(), reason);
            let record = self.record(position).ok_or_else(|| damaged("a record is cut off"))?;
            if last.is_some_and(|last| last >= record.prefix) {
                return Err(damaged("its records are out of order"));
            }
            if record.pack >= self.layout.packs {
                return Err(damaged("a record names no pack"));
            }
            last = Some(record.prefix);
        }
        Ok(())
    }
}

impl Layout {
    fn read(bytes: &[u8], pool: &Id, id: &Id) -> Result<Self> {
        let damaged = |reason: &str| Error::integrity(key(id), reason);
        let short = || damaged("it is too short for a segment");
        let magic = bytes.get(..8).ok_or_else(short)?;
        if magic[..7] != MAGIC {
            return Err(damaged("it is not an index segment"));
        }
        if magic[7] == 0 {
            return Err(damaged("unknown format version"));
        }
        if magic[7] > VERSION {
            return Err(Error::NewerFormat {
                object: key(id),
                found: u64::from(magic[7]),
                known: u64::from(VERSION),
            });
        }
        if bytes.get(8..24).ok_or_else(short)? != pool.0 {
            return Err(damaged("it belongs to another pool"));
        }
        let records = u64_at(bytes, 24).ok_or_else(short)?;
        let packs = u32_at(bytes, 32).ok_or_else(short)?;
        let filter_blocks = u32_at(bytes, 36).ok_or_else(short)?;
        if bytes.get(40..56).ok_or_else(short)? != id.0 {
            return Err(damaged("it is another segment"));
        }
        if bytes.get(56..HEADER).ok_or_else(short)?.iter().any(|byte| *byte != 0) {
            return Err(damaged("its header has bytes that must be zero"));
        }
        let wrong = || damaged("its length does not match its header");
        let filter_from = (packs as usize)
            .checked_mul(PACK_ENTRY)
            .and_then(|size| size.checked_add(HEADER + MAC))
            .ok_or_else(wrong)?;
        let records_from = (filter_blocks as usize)
            .checked_mul(filter::BLOCK)
            .and_then(|size| size.checked_add(filter_from))
            .ok_or_else(wrong)?;
        let end = usize::try_from(records)
            .ok()
            .and_then(|records| records.checked_mul(RECORD))
            .and_then(|size| size.checked_add(records_from))
            .ok_or_else(wrong)?;
        if end.checked_add(MAC) != Some(bytes.len()) {
            return Err(wrong());
        }
        Ok(Layout { records, packs, filter_from, records_from, end })
    }
}

pub(crate) fn u64_at(bytes: &[u8], from: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(from..from.checked_add(8)?)?.try_into().ok()?))
}

pub(crate) fn u32_at(bytes: &[u8], from: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(from..from.checked_add(4)?)?.try_into().ok()?))
}
