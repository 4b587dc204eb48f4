//! Whether index, store and footers say the same.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::error::{Error, Result};
use crate::finding::Findings;
use crate::ids::PackId;
use crate::index::open::verify_stored;
use crate::index::{PackEntry, Place, Snapshot};
use crate::pack::footer::ChunkInfo;

use super::Check;
use super::damage::Damage;

impl Check<'_> {
    /// Every byte of the segments is authentic, and their records are in order.
    pub(super) fn verify_segments(&self, snapshot: &Snapshot) -> Result<()> {
        for segment in snapshot.segments() {
            self.cancel.check()?;
            let keys = self.pool.keys();
            let verified = segment
                .verify(keys)
                .and_then(|()| verify_stored(self.pool.store(), keys, &segment.id()));
            if let Err(error) = verified {
                self.problem(&segment.key(), error)?;
            }
        }
        Ok(())
    }

    /// Compares listed packs with those in the store; those that are there in their size.
    pub(super) fn compare_with_store(
        &self,
        snapshot: &Snapshot,
        damage: &Damage,
    ) -> Result<Vec<PackEntry>> {
        let listed = snapshot.packs();
        let mut stored: Vec<(PackId, u64)> = Vec::new();
        self.pool.store().list("packs/", &mut |key, size| {
            match PackId::from_key(key) {
                Some(id) => stored.push((id, size)),
                None => self.findings.warning(key.as_bytes(), "unknown-object", "it is no pack"),
            }
            Ok(())
        })?;
        stored.sort_unstable();
        for (id, _) in &stored {
            if listed.binary_search_by_key(id, |pack| pack.id).is_err() {
                let message = "no index segment lists it: a job that ended early left it, or one \
                               that runs is writing it; the next backup or collection sees to it";
                self.findings.warning(id.key().as_bytes(), "pack-unlisted", message);
            }
        }
        let size_of = |id: &PackId| {
            stored.binary_search_by_key(id, |(id, _)| *id).ok().map(|at| stored[at].1)
        };
        Ok(listed
            .into_iter()
            .filter(|pack| self.is_present(pack, size_of(&pack.id), damage))
            .collect())
    }

    /// Of these packs those that are in the store in their size.
    pub(super) fn present(&self, packs: &[PackEntry], damage: &Damage) -> Result<Vec<PackEntry>> {
        let mut present = Vec::new();
        for pack in packs {
            self.cancel.check()?;
            let size = match self.pool.store().size(&pack.id.key()) {
                Ok(size) => size,
                Err(error) => {
                    damage.pack(pack.id);
                    self.problem(&pack.id.key(), error)?;
                    continue;
                }
            };
            if self.is_present(pack, size, damage) {
                present.push(*pack);
            }
        }
        Ok(present)
    }

    fn is_present(&self, pack: &PackEntry, size: Option<u64>, damage: &Damage) -> bool {
        let key = pack.id.key();
        let (code, message) = match size {
            Some(size) if size == pack.size => return true,
            Some(size) => {
                ("pack-damaged", format!("{size} bytes long, {} in the index", pack.size))
            }
            None => ("pack-missing", "the index lists it, the store has it not".to_owned()),
        };
        damage.pack(pack.id);
        self.findings.error(key.as_bytes(), code, message);
        false
    }
}

/// How many records of each segment and pack were found in the pack's footer.
pub(super) struct Matched(Vec<Box<[AtomicU32]>>);

impl Matched {
    pub fn new(snapshot: &Snapshot) -> Self {
        let none = |packs: u32| (0..packs).map(|_| AtomicU32::new(0)).collect();
        Matched(snapshot.segments().iter().map(|segment| none(segment.pack_count())).collect())
    }

    /// Finds the records of a chunk of this pack; false when no segment knows the chunk.
    pub fn find(
        &self,
        snapshot: &Snapshot,
        pack: &PackId,
        chunk: &ChunkInfo,
        place: Place,
    ) -> bool {
        let mut known = false;
        for position in snapshot.positions(&chunk.name) {
            known = true;
            let segment = &snapshot.segments()[position.segment];
            let Some(record) = segment.record(position.record) else { continue };
            if record.place == place
                && segment.pack(record.pack).is_some_and(|listed| listed.id == *pack)
                && let Some(count) = self.0[position.segment].get(record.pack as usize)
            {
                count.fetch_add(1, Ordering::Relaxed);
            }
        }
        known
    }

    /// Tells of packs in which the index lists what their footers do not have.
    pub fn compare(&self, snapshot: &Snapshot, damage: &Damage, findings: &Findings) {
        for (segment, matched) in snapshot.segments().iter().zip(&self.0) {
            let mut listed = vec![0_u32; matched.len()];
            for position in 0..segment.len() {
                let record = segment.record(position);
                if let Some(count) = record.and_then(|record| listed.get_mut(record.pack as usize))
                {
                    *count += 1;
                }
            }
            for (ordinal, (listed, matched)) in listed.iter().zip(matched).enumerate() {
                let wrong = listed.saturating_sub(matched.load(Ordering::Relaxed));
                let Some(pack) = segment.pack(ordinal as u32) else { continue };
                if wrong > 0 && !damage.has_pack(&pack.id) {
                    let reason = format!("it lists {wrong} chunks that {} has not", pack.id.key());
                    let error = Error::integrity(segment.key(), reason);
                    findings.error(segment.key().as_bytes(), "index-disagrees", error.to_string());
                }
            }
        }
    }
}
