//! Chunks that this client has asked for, or handed over, a while ago: they are not asked for
//! again. Bounded: what is forgotten is asked for once more, which costs a question.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::ids::Name;
use crate::ingest::Claims;

/// Names that are remembered: 48 MiB of them.
const MOST: usize = 1 << 21;

#[derive(Default)]
pub struct Claimed {
    names: Claims,
    count: AtomicUsize,
}

impl Claimed {
    /// True for the first who asks.
    pub fn claim(&self, name: &Name) -> bool {
        if !self.names.claim(name.prefix()) {
            return false;
        }
        if self.count.fetch_add(1, Ordering::Relaxed) >= MOST {
            self.count.store(0, Ordering::Relaxed);
            self.names.clear();
        }
        true
    }
}
