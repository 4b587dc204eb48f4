//! What the workers of one backup share.

use parking_lot::Mutex;

use crate::counters::Counters;
use crate::finding::Findings;
use crate::scan::names::Names;
use crate::scan::xattr::Xattrs;
use crate::tree::entry::{Entry, Time};

use super::queue::Queue;

pub struct Job<'a> {
    pub counters: &'a Counters,
    pub findings: &'a Findings,
    pub queue: Queue,
    pub names: Names,
    pub xattrs: Xattrs,
    /// Only files whose last change lies before this may be taken over unread: a later change
    /// could carry the same time stamp as the one that the previous image has seen.
    pub trusted_before: Time,
    /// zstd level of what is sealed here.
    pub level: i32,
    root: Mutex<Option<Entry>>,
}

impl<'a> Job<'a> {
    pub fn new(
        counters: &'a Counters,
        findings: &'a Findings,
        trusted_before: Time,
        level: i32,
    ) -> Self {
        Job {
            counters,
            findings,
            queue: Queue::default(),
            names: Names::default(),
            xattrs: Xattrs::new(),
            trusted_before,
            level,
            root: Mutex::new(None),
        }
    }

    /// The image's root is complete: there is no more to find.
    pub fn set_root(&self, entry: Entry) {
        *self.root.lock() = Some(entry);
        self.queue.finish();
    }

    pub fn take_root(&self) -> Option<Entry> {
        self.root.lock().take()
    }
}
