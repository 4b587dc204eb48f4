//! What is known to be damaged, and telling which files that hurts.

use std::collections::HashSet;

use parking_lot::Mutex;

use crate::error::{Error, Result};
use crate::finding::Findings;
use crate::ids::{Name, PackId, Prefix};
use crate::reach::Trouble;

/// Damaged chunks that are remembered; beyond them files are not named, the packs still are.
const CHUNKS_KEPT: usize = 1 << 20;

/// Gathered by many threads.
#[derive(Default)]
pub(super) struct Damage {
    packs: Mutex<HashSet<PackId>>,
    chunks: Mutex<HashSet<Prefix>>,
}

impl Damage {
    /// Nothing in the pack can be read.
    pub fn pack(&self, id: PackId) {
        self.packs.lock().insert(id);
    }

    /// The chunk cannot be read, and lies nowhere else.
    pub fn chunk(&self, name: &Name) {
        let mut chunks = self.chunks.lock();
        if chunks.len() < CHUNKS_KEPT {
            chunks.insert(name.prefix());
        }
    }

    pub fn packs(&self) -> HashSet<PackId> {
        self.packs.lock().clone()
    }

    pub fn is_empty(&self) -> bool {
        self.packs.lock().is_empty() && self.chunks.lock().is_empty()
    }

    pub fn has_pack(&self, id: &PackId) -> bool {
        self.packs.lock().contains(id)
    }

    fn of(&self, name: &Name, excluded: bool) -> Option<Error> {
        (excluded || self.chunks.lock().contains(&name.prefix())).then(|| {
            let where_ = if excluded { "its pack is missing or damaged" } else { "it is damaged" };
            Error::integrity(format!("chunk {name}"), where_)
        })
    }
}

fn tell(findings: &Findings, path: &[u8], error: Error) -> Result<()> {
    let code = match &error {
        Error::ChunkMissing { .. } => "chunk-missing",
        Error::ObjectMissing { .. } => "pack-missing",
        Error::NewerFormat { .. } => "newer-format",
        Error::Integrity { .. } => "chunk-damaged",
        _ => return Err(error),
    };
    findings.error(path, code, error.to_string());
    Ok(())
}

/// The first walk: tells all trouble.
pub(super) struct First<'a> {
    pub findings: &'a Findings,
    pub damage: &'a Damage,
}

impl Trouble for First<'_> {
    fn trouble(&self, path: &[u8], error: Error) -> Result<()> {
        tell(self.findings, path, error)
    }

    fn known(&self, name: &Name, excluded: bool) -> Option<Error> {
        self.damage.of(name, excluded)
    }
}

/// A second walk: tells only of what was found damaged after the first.
pub(super) struct Again<'a> {
    pub findings: &'a Findings,
    pub damage: &'a Damage,
}

impl Trouble for Again<'_> {
    fn trouble(&self, _path: &[u8], _error: Error) -> Result<()> {
        Ok(())
    }

    fn known(&self, name: &Name, excluded: bool) -> Option<Error> {
        self.damage.of(name, excluded)
    }

    fn damaged(&self, path: &[u8], error: Error) -> Result<()> {
        tell(self.findings, path, error)
    }
}
