//! A directory as the pool is to see it where a client seals names.

use std::ops::Range;

use crate::client_key::{ClientKey, DirKey};
use crate::error::Result;
use crate::ids::Ref;
use crate::ingest::Sink;
use crate::tree::build;
use crate::tree::codec::{self, RawEntry};

/// Seals encoded entries, and stores them in the order of their sealed names.
pub fn write_directory<'e>(
    sink: &dyn Sink,
    key: &ClientKey,
    names: &DirKey,
    entries: impl Iterator<Item = RawEntry<'e>>,
) -> Result<Ref> {
    let mut arena = Vec::new();
    let mut sealed: Vec<(Vec<u8>, Range<usize>)> = Vec::new();
    for entry in entries {
        let entry = key.seal_entry(names, entry.decode()?)?;
        let start = arena.len();
        codec::encode_entry(&entry, &mut arena)?;
        sealed.push((entry.name, start..arena.len()));
    }
    sealed.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    let raw = sealed
        .iter()
        .filter_map(|(name, range)| Some(RawEntry { name, raw: arena.get(range.clone())? }));
    build::write_directory(sink, raw)
}
