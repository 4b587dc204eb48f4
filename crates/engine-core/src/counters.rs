//! Live numbers of a running verb. Writers add with relaxed atomics, in batches where the work
//! is small; readers take a [`Snapshot`] at any time without stopping anyone.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// The steps that work passes through. A backup
/// uses the first eight, a restore the next five; a backup to a pool far away sends instead of
/// sealing and storing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Stage {
    Find,
    Open,
    Read,
    Chunk,
    Hash,
    Compress,
    Seal,
    Store,
    Fetch,
    Unseal,
    Decompress,
    Write,
    Finish,
    Send,
}

impl Stage {
    pub const COUNT: usize = 14;
    pub const BACKUP: [Stage; 8] = [
        Stage::Find,
        Stage::Open,
        Stage::Read,
        Stage::Chunk,
        Stage::Hash,
        Stage::Compress,
        Stage::Seal,
        Stage::Store,
    ];
    pub const FAR_BACKUP: [Stage; 7] = [
        Stage::Find,
        Stage::Open,
        Stage::Read,
        Stage::Chunk,
        Stage::Hash,
        Stage::Compress,
        Stage::Send,
    ];
    pub const RECEIVE: [Stage; 4] = [Stage::Hash, Stage::Compress, Stage::Seal, Stage::Store];
    pub const REPLICATE: [Stage; 6] =
        [Stage::Find, Stage::Fetch, Stage::Unseal, Stage::Decompress, Stage::Compress, Stage::Send];
    pub const RESTORE: [Stage; 5] =
        [Stage::Fetch, Stage::Unseal, Stage::Decompress, Stage::Write, Stage::Finish];

    /// The name a person sees. Unsealing a block is the "open" of a restore.
    pub fn as_str(self) -> &'static str {
        match self {
            Stage::Find => "find",
            Stage::Open | Stage::Unseal => "open",
            Stage::Read => "read",
            Stage::Chunk => "chunk",
            Stage::Hash => "hash",
            Stage::Compress => "compress",
            Stage::Seal => "seal",
            Stage::Store => "store",
            Stage::Fetch => "fetch",
            Stage::Decompress => "decompress",
            Stage::Write => "write",
            Stage::Finish => "finish",
            Stage::Send => "send",
        }
    }
}

/// One stage's numbers. `busy` is time at work in it; `starved` is time a thread that serves it
/// waited for something to work on; `blocked` is time it waited for room to hand its result on.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct StageCounter {
    pub items: AtomicU64,
    pub bytes: AtomicU64,
    pub busy_ns: AtomicU64,
    pub starved_ns: AtomicU64,
    pub blocked_ns: AtomicU64,
}

macro_rules! totals {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {
        /// Totals of a verb; a field that a verb does not use stays 0.
        #[derive(Debug, Default)]
        pub struct Counters {
            $($(#[$doc])* pub $name: AtomicU64,)+
            stages: [StageCounter; Stage::COUNT],
        }

        /// The numbers at one moment.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct Snapshot {
            $($(#[$doc])* pub $name: u64,)+
            pub stages: Vec<StageSnapshot>,
        }

        impl Counters {
            /// A copy of every number; never waits for the work.
            pub fn snapshot(&self) -> Snapshot {
                Snapshot {
                    $($name: self.$name.load(Ordering::Relaxed),)+
                    stages: (0..Stage::COUNT).map(|at| self.stages[at].snapshot()).collect(),
                }
            }

            /// Adds what a thread gathered on its own and empties it.
            pub fn absorb(&self, tally: &mut Tally) {
                $(if tally.$name > 0 {
                    self.$name.fetch_add(tally.$name, Ordering::Relaxed);
                })+
                for (stage, own) in self.stages.iter().zip(&tally.stages) {
                    if own.items > 0 || own.busy_ns > 0 {
                        stage.items.fetch_add(own.items, Ordering::Relaxed);
                        stage.bytes.fetch_add(own.bytes, Ordering::Relaxed);
                        stage.busy_ns.fetch_add(own.busy_ns, Ordering::Relaxed);
                    }
                }
                *tally = Tally::default();
            }
        }

        /// What one thread adds up by itself between two visits to the shared [`Counters`], so
        /// that small files do not fight over them.
        #[derive(Debug, Default)]
        pub struct Tally {
            $(pub $name: u64,)+
            stages: [StageSnapshot; Stage::COUNT],
        }

        impl Tally {
            /// As [`Counters::busy`].
            pub fn busy(&mut self, stage: Stage, bytes: u64, since: Instant) -> Instant {
                self.busy_with(stage, 1, bytes, since)
            }

            /// The same of several items.
            pub fn busy_with(
                &mut self,
                stage: Stage,
                items: u64,
                bytes: u64,
                since: Instant,
            ) -> Instant {
                let now = Instant::now();
                let own = &mut self.stages[stage as usize];
                own.items += items;
                own.bytes += bytes;
                own.busy_ns += elapsed_ns(since, now);
                now
            }
        }

        impl Snapshot {
            /// Names and values of all totals.
            pub fn totals(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name)),+]
            }
        }
    };
}

totals! {
    files,
    dirs,
    /// Symbolic links, devices, FIFOs, sockets.
    others,
    /// Sizes of all regular files found.
    bytes_found,
    bytes_read,
    /// Sizes of the files that changed ("online").
    bytes_online,
    files_changed,
    files_unchanged,
    chunks_looked_up,
    chunks_hit,
    /// Plain bytes of chunks that the pool did not have.
    bytes_new,
    /// The same after compression ("transmitted").
    bytes_transmitted,
    /// Those of `bytes_new` that went as they are, as that was faster; the media server compresses
    /// them before it stores them.
    bytes_left,
    /// Bytes written to the store, seals, footers and index included.
    bytes_stored,
    findings,
    /// The known goal, for progress; 0 while it is not known.
    bytes_total,
    files_total,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StageSnapshot {
    pub items: u64,
    pub bytes: u64,
    pub busy_ns: u64,
    pub starved_ns: u64,
    pub blocked_ns: u64,
}

impl StageCounter {
    fn snapshot(&self) -> StageSnapshot {
        StageSnapshot {
            items: self.items.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            busy_ns: self.busy_ns.load(Ordering::Relaxed),
            starved_ns: self.starved_ns.load(Ordering::Relaxed),
            blocked_ns: self.blocked_ns.load(Ordering::Relaxed),
        }
    }
}

impl Counters {
    pub fn stage(&self, stage: Stage) -> &StageCounter {
        &self.stages[stage as usize]
    }

    /// Adds one item of `bytes` bytes that took from `since` until now; returns now, so that
    /// neighbouring stages share a reading of the clock.
    pub fn busy(&self, stage: Stage, bytes: u64, since: Instant) -> Instant {
        let now = Instant::now();
        let counter = self.stage(stage);
        counter.items.fetch_add(1, Ordering::Relaxed);
        counter.bytes.fetch_add(bytes, Ordering::Relaxed);
        counter.busy_ns.fetch_add(elapsed_ns(since, now), Ordering::Relaxed);
        now
    }

    pub fn starved(&self, stage: Stage, since: Instant) -> Instant {
        let now = Instant::now();
        self.stage(stage).starved_ns.fetch_add(elapsed_ns(since, now), Ordering::Relaxed);
        now
    }

    pub fn blocked(&self, stage: Stage, since: Instant) -> Instant {
        let now = Instant::now();
        self.stage(stage).blocked_ns.fetch_add(elapsed_ns(since, now), Ordering::Relaxed);
        now
    }
}

/// Adds to a total.
pub fn add(counter: &AtomicU64, amount: u64) {
    counter.fetch_add(amount, Ordering::Relaxed);
}

fn elapsed_ns(since: Instant, now: Instant) -> u64 {
    u64::try_from(now.saturating_duration_since(since).as_nanos()).unwrap_or(u64::MAX)
}
