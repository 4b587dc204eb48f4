//! Garbage marks, `marks/<number>`: packs that a collection may delete. See
//! `docs/formats/jobs-and-marks.md`.
//!
//! While a mark stands, writers treat chunks in its packs as missing and merge no index. A mark
//! is also the lock between collectors: its number is one above that of the mark it takes over,
//! and putting it if absent lets one of several win. Withdrawing a mark is safe at any moment.

use std::collections::HashSet;

use crate::cbor::{self, Parsed, Reader};
use crate::error::Result;
use crate::ids::{Id, PackId};
use crate::keys::PoolKeys;
use crate::sealed::{ObjectType, open_object, seal_object};
use crate::store::Store;

/// The prefix of every mark's key.
pub const KEYS: &str = "marks/";
const VERSION: u64 = 1;

/// A collection's mark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    pub number: u128,
    /// The job of the collector that put it.
    pub collector: Id,
    /// Packs that may be deleted or rewritten.
    pub packs: Vec<PackId>,
    /// Jobs that began before the mark and must end first; `None` until they were listed.
    pub blocking: Option<Vec<Id>>,
}

impl Mark {
    pub fn key(&self) -> String {
        key(self.number)
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64 + self.packs.len() * 34);
        cbor::write_array(&mut out, 4);
        cbor::write_uint(&mut out, VERSION);
        cbor::write_bytes(&mut out, &self.collector.0);
        cbor::write_array(&mut out, self.packs.len());
        for pack in &self.packs {
            cbor::write_bytes(&mut out, &pack.0);
        }
        match &self.blocking {
            None => cbor::write_null(&mut out),
            Some(jobs) => {
                cbor::write_array(&mut out, jobs.len());
                for job in jobs {
                    cbor::write_bytes(&mut out, &job.0);
                }
            }
        }
        out
    }

    fn parse(number: u128, bytes: &[u8]) -> Parsed<Self> {
        let mut reader = Reader::new(bytes);
        reader.tuple(4)?;
        if reader.uint()? != VERSION {
            return reader.fail("an unknown version");
        }
        let collector = Id(reader.fixed()?);
        let packs =
            (0..reader.array()?).map(|_| reader.fixed().map(PackId)).collect::<Parsed<Vec<_>>>()?;
        let blocking = if reader.null() {
            None
        } else {
            let count = reader.array()?;
            Some((0..count).map(|_| reader.fixed().map(Id)).collect::<Parsed<Vec<_>>>()?)
        };
        reader.end()?;
        Ok(Mark { number, collector, packs, blocking })
    }

    fn sealed(&self, keys: &PoolKeys) -> Result<Vec<u8>> {
        seal_object(keys, ObjectType::Mark, &self.key(), &self.encode())
    }

    /// Puts a mark of a new number; false when another collector has it.
    pub fn claim(&self, store: &dyn Store, keys: &PoolKeys) -> Result<bool> {
        store.put_if_absent(&self.key(), &self.sealed(keys)?)
    }

    /// Writes a mark again that this collector has claimed.
    pub fn update(&self, store: &dyn Store, keys: &PoolKeys) -> Result<()> {
        store.put(&self.key(), &self.sealed(keys)?)
    }
}

pub fn key(number: u128) -> String {
    format!("{KEYS}{}", Id(number.to_be_bytes()))
}

/// All marks, the highest number last. One that cannot be read is an error: a writer that went on
/// without it could lose data.
pub fn list(store: &dyn Store, keys: &PoolKeys) -> Result<Vec<Mark>> {
    let mut numbers = Vec::new();
    store.list(KEYS, &mut |key, _size| {
        let id = key.strip_prefix(KEYS).and_then(Id::parse);
        numbers.extend(id.map(|id| u128::from_be_bytes(id.0)));
        Ok(())
    })?;
    numbers.sort_unstable();
    let mut marks = Vec::new();
    for number in numbers {
        let key = key(number);
        match store.get(&key) {
            Ok(bytes) => {
                let plain = open_object(keys, ObjectType::Mark, &key, &bytes)?;
                let mark = Mark::parse(number, &plain);
                marks.push(mark.map_err(|bad| bad.within(format!("object '{key}'")))?);
            }
            Err(error) if error.is_missing() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(marks)
}

/// What a writer must know of the marks that stand.
#[derive(Clone, Debug, Default)]
pub struct Marked {
    /// Chunks in these packs count as missing.
    pub packs: HashSet<PackId>,
    /// Whether any mark stands: then no index is merged and no orphan is recovered.
    pub any: bool,
}

/// Reads the marks; call it after the job's own record is put.
pub fn read(store: &dyn Store, keys: &PoolKeys) -> Result<Marked> {
    let marks = list(store, keys)?;
    let any = !marks.is_empty();
    Ok(Marked { any, packs: marks.into_iter().flat_map(|mark| mark.packs).collect() })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::store::memory::MemoryStore;

    fn mark(number: u128, blocking: Option<Vec<Id>>) -> Mark {
        let packs = vec![PackId([number as u8; 32]), PackId([2; 32])];
        Mark { number, collector: Id([3; 16]), packs, blocking }
    }

    #[test]
    fn marks_are_read_as_they_were_put_and_one_number_is_claimed_once() {
        let (store, keys) = (MemoryStore::new(), PoolKeys::derive(&[1; 32]));
        assert!(!read(&store, &keys).unwrap().any);
        let (first, second) = (mark(1, Some(vec![Id([4; 16])])), mark(300, None));
        assert!(second.claim(&store, &keys).unwrap());
        assert!(first.claim(&store, &keys).unwrap());
        assert!(!mark(1, None).claim(&store, &keys).unwrap());
        assert_eq!(list(&store, &keys).unwrap(), [first, second]);
        let marked = read(&store, &keys).unwrap();
        assert!(marked.any);
        assert_eq!(marked.packs.len(), 3);
    }

    #[test]
    fn a_mark_without_packs_still_stands() {
        let (store, keys) = (MemoryStore::new(), PoolKeys::derive(&[1; 32]));
        Mark { packs: Vec::new(), ..mark(1, None) }.claim(&store, &keys).unwrap();
        assert!(read(&store, &keys).unwrap().any);
    }

    #[test]
    fn a_damaged_mark_is_an_error_and_not_absent() {
        let (store, keys) = (MemoryStore::new(), PoolKeys::derive(&[1; 32]));
        mark(1, None).claim(&store, &keys).unwrap();
        store.put(&key(1), b"rubbish").unwrap();
        assert_eq!(read(&store, &keys).unwrap_err().code(), "integrity");
    }
}
