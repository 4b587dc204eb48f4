//! Names of chunks that this job stores but that are not in the index yet.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};

use parking_lot::Mutex;

use crate::ids::Prefix;

const SHARDS: usize = 64;

/// A set for many threads. Names leave it once their packs are indexed, so that it stays small
/// however long the job.
pub struct Claims {
    shards: Vec<Mutex<HashSet<Prefix, BuildHasherDefault<PrefixHasher>>>>,
}

impl Default for Claims {
    fn default() -> Self {
        Claims { shards: (0..SHARDS).map(|_| Mutex::default()).collect() }
    }
}

impl Claims {
    /// True for the first caller.
    pub fn claim(&self, prefix: Prefix) -> bool {
        self.shard(&prefix).lock().insert(prefix)
    }

    /// Whether somebody has claimed it.
    pub fn has(&self, prefix: &Prefix) -> bool {
        self.shard(prefix).lock().contains(prefix)
    }

    /// Forgets all.
    pub fn clear(&self) {
        for shard in &self.shards {
            shard.lock().clear();
        }
    }

    /// Forgets names that the index now knows.
    pub fn release<'a>(&self, prefixes: impl Iterator<Item = &'a Prefix>) {
        for prefix in prefixes {
            self.shard(prefix).lock().remove(prefix);
        }
    }

    fn shard(&self, prefix: &Prefix) -> &Mutex<HashSet<Prefix, BuildHasherDefault<PrefixHasher>>> {
        &self.shards[usize::from(prefix[15]) % SHARDS]
    }
}

/// A prefix is the front of a keyed hash: its first bytes are hash enough.
#[derive(Default)]
pub struct PrefixHasher(u64);

impl Hasher for PrefixHasher {
    fn write(&mut self, bytes: &[u8]) {
        if let Some(Ok(word)) = bytes.get(..8).map(<[u8; 8]>::try_from) {
            self.0 = u64::from_le_bytes(word);
        }
    }

    fn write_usize(&mut self, _length: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_several_claims_wins_until_it_is_released() {
        let claims = Claims::default();
        assert!(claims.claim([1; 16]));
        assert!(!claims.claim([1; 16]));
        assert!(claims.claim([2; 16]));
        claims.release([[1; 16]].iter());
        assert!(claims.claim([1; 16]));
    }
}
