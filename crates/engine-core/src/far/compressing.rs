//! Whether new data is compressed here or left to the media server, which then compresses it before it
//! stores it: judged during the backup, by how much gets through either way.
//!
//! Never changes what ends up in the pool. Data is left only while the link waits for it, and only
//! as long as that brings more of it through: so what decides is the slower of both ends and of the
//! link between them, whichever that is.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Who compresses new data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compress {
    /// The client, all of it.
    #[default]
    Here,
    /// The client or the media server, as is faster.
    Measured,
    /// The media server, all of it.
    There,
}

impl Compress {
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "here" => Some(Compress::Here),
            "measured" => Some(Compress::Measured),
            "there" => Some(Compress::There),
            _ => None,
        }
    }
}

/// What is measured at least, before anything is concluded from it.
const WINDOW: Duration = Duration::from_millis(800);
const WINDOW_BYTES: u64 = 32 << 20;
/// What is not measured after a change: what was under way before it.
const SETTLING: Duration = Duration::from_millis(200);
/// Only while the link waits for so much of the time is leaving tried.
const IDLE: f64 = 0.25;
/// Only where compressing takes so much of one processor, and so much of the bytes away.
const WORTH_BUSY: f64 = 0.2;
const WORTH_SHRUNK: f64 = 0.95;
/// So many times as much has to get through to have data left.
const GAIN: f64 = 1.125;
/// Leaving it brings less than that of what it did: time to look again.
const FALLEN: f64 = 0.8;
/// Windows until the next look, which become more each time that nothing was to be gained.
const FIRST_PAUSE: u32 = 2;
const LONGEST_PAUSE: u32 = 64;
const STAY: u32 = 32;

/// What was seen for a while of one and the same way.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Window {
    /// Bytes of new data a second that went on, before they are compressed.
    rate: f64,
    /// Of those that were compressed, what was left of each byte.
    shrunk: f64,
    /// Processors that were compressing.
    busy: f64,
    /// For what share of the time a sending thread waited for something to send.
    idle: f64,
}

/// What is being found out.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Looking {
    No,
    /// Whether the other way brings more than this one did.
    Beside(f64),
}

/// Windows in, the way to go on out. Knows no clock.
#[derive(Debug)]
struct Judge {
    leaves: bool,
    looking: Looking,
    /// What leaving brought when it was found to be better.
    best: f64,
    wait: u32,
    pause: u32,
}

impl Judge {
    fn new() -> Self {
        Judge { leaves: false, looking: Looking::No, best: 0.0, wait: 0, pause: FIRST_PAUSE }
    }

    /// Whether data is left from now on.
    fn judge(&mut self, seen: Window) -> bool {
        match self.looking {
            Looking::No => {
                self.wait += 1;
                let fallen = self.leaves && seen.rate < self.best * FALLEN;
                let worth = self.leaves
                    || seen.idle >= IDLE && seen.busy >= WORTH_BUSY && seen.shrunk <= WORTH_SHRUNK;
                if worth && (self.wait >= self.pause || fallen) {
                    self.looking = Looking::Beside(seen.rate);
                    self.leaves = !self.leaves;
                }
            }
            Looking::Beside(before) => {
                // What is not clearly better left is compressed here, whichever came first.
                let (left, here) =
                    if self.leaves { (seen.rate, before) } else { (before, seen.rate) };
                let was_left = !self.leaves;
                self.leaves = left >= here * GAIN;
                self.best = left;
                self.pause = match (self.leaves, was_left) {
                    (true, true) => (self.pause * 2).min(LONGEST_PAUSE),
                    (true, false) => STAY,
                    (false, true) => FIRST_PAUSE,
                    (false, false) => (self.pause * 2).min(LONGEST_PAUSE),
                };
                self.looking = Looking::No;
                self.wait = 0;
            }
        }
        self.leaves
    }
}

/// Sums since the window began.
#[derive(Default)]
struct Sums {
    plain: AtomicU64,
    tried: AtomicU64,
    shrunk: AtomicU64,
    busy_ns: AtomicU64,
    idle_ns: AtomicU64,
}

struct Turn {
    judge: Judge,
    began: Instant,
    settled: bool,
}

/// What the threads of one backup share of this.
pub(super) struct Compressing {
    way: Compress,
    senders: f64,
    leaves: AtomicBool,
    sums: Sums,
    turn: Mutex<Turn>,
}

impl Compressing {
    /// `senders` threads send.
    pub fn new(way: Compress, senders: usize) -> Self {
        Compressing {
            way,
            senders: senders as f64,
            leaves: AtomicBool::new(way == Compress::There),
            sums: Sums::default(),
            turn: Mutex::new(Turn { judge: Judge::new(), began: Instant::now(), settled: false }),
        }
    }

    /// Whether the next block is left to the media server.
    pub fn leaves(&self) -> bool {
        self.leaves.load(Ordering::Relaxed)
    }

    /// Notes a block of data that goes on; of one that was compressed how long it is then, and how
    /// long that took.
    pub fn note(&self, plain: usize, compressed: Option<(usize, Duration)>) {
        if self.way != Compress::Measured {
            return;
        }
        let sums = &self.sums;
        sums.plain.fetch_add(plain as u64, Ordering::Relaxed);
        if let Some((shrunk, took)) = compressed {
            sums.tried.fetch_add(plain as u64, Ordering::Relaxed);
            sums.shrunk.fetch_add(shrunk as u64, Ordering::Relaxed);
            sums.busy_ns.fetch_add(ns(took), Ordering::Relaxed);
        }
        self.look(Instant::now());
    }

    /// Notes that a sending thread had nothing to send since then.
    pub fn waited(&self, since: Instant) {
        if self.way == Compress::Measured {
            self.sums.idle_ns.fetch_add(ns(since.elapsed()), Ordering::Relaxed);
        }
    }

    fn look(&self, now: Instant) {
        // Whoever comes while another looks has nothing to add.
        let Some(mut turn) = self.turn.try_lock() else { return };
        let passed = now.saturating_duration_since(turn.began);
        if !turn.settled {
            if passed >= SETTLING {
                self.take();
                turn.settled = true;
                turn.began = now;
            }
            return;
        }
        if passed < WINDOW || self.sums.plain.load(Ordering::Relaxed) < WINDOW_BYTES {
            return;
        }
        let seen = self.take();
        let [plain, tried, shrunk, busy_ns, idle_ns] = seen.map(|sum| sum as f64);
        let took_s = passed.as_secs_f64();
        let leaves = turn.judge.judge(Window {
            rate: plain / took_s,
            shrunk: if tried > 0.0 { shrunk / tried } else { 1.0 },
            busy: busy_ns / 1e9 / took_s,
            idle: idle_ns / 1e9 / took_s / self.senders,
        });
        turn.settled = self.leaves.swap(leaves, Ordering::Relaxed) == leaves;
        turn.began = now;
    }

    fn take(&self) -> [u64; 5] {
        let Sums { plain, tried, shrunk, busy_ns, idle_ns } = &self.sums;
        [plain, tried, shrunk, busy_ns, idle_ns].map(|sum| sum.swap(0, Ordering::Relaxed))
    }
}

fn ns(took: Duration) -> u64 {
    u64::try_from(took.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    /// Two ends and a link, as rates in bytes of new data a second.
    #[derive(Clone, Copy, Debug)]
    struct World {
        here: f64,
        left: f64,
        idle: f64,
        shrunk: f64,
    }

    impl World {
        fn window(self, leaves: bool) -> Window {
            match leaves {
                true => Window { rate: self.left, shrunk: 1.0, busy: 0.0, idle: self.idle },
                false => {
                    Window { rate: self.here, shrunk: self.shrunk, busy: 1.0, idle: self.idle }
                }
            }
        }

        /// In how many of so many windows data was left.
        fn left_in(self, judge: &mut Judge, windows: u32) -> u32 {
            let mut count = 0;
            for _ in 0..windows {
                let leaves = judge.leaves;
                count += u32::from(leaves);
                judge.judge(self.window(leaves));
            }
            count
        }
    }

    const FAST_LINK: World = World { here: 100.0, left: 250.0, idle: 0.9, shrunk: 0.5 };

    #[test]
    fn data_is_left_where_that_brings_more_through() {
        let left = FAST_LINK.left_in(&mut Judge::new(), 1000);
        assert!(left > 950, "{left}");
    }

    #[test]
    fn where_the_link_does_not_wait_nothing_is_even_tried() {
        let slow = World { idle: 0.1, ..FAST_LINK };
        assert_eq!(slow.left_in(&mut Judge::new(), 1000), 0);
        let noise = World { shrunk: 0.99, ..FAST_LINK };
        assert_eq!(noise.left_in(&mut Judge::new(), 1000), 0);
    }

    #[test]
    fn where_nothing_is_to_be_gained_it_is_tried_seldom() {
        // As when the source is what is slow, or both ends share one processor.
        for gain in [0.4, 0.9, 1.0, 1.1] {
            let world = World { left: FAST_LINK.here * gain, ..FAST_LINK };
            let left = world.left_in(&mut Judge::new(), 1000);
            assert!((1..=25).contains(&left), "{left}");
        }
    }

    #[test]
    fn a_link_that_became_slow_has_data_compressed_soon() {
        let mut judge = Judge::new();
        assert!(FAST_LINK.left_in(&mut judge, 50) > 40);
        let slow = World { here: 20.0, left: 10.0, idle: 0.0, shrunk: 0.5 };
        let left = slow.left_in(&mut judge, 1000);
        assert!(left <= 4, "{left}");
        assert!(FAST_LINK.left_in(&mut judge, 200) > 180);
    }

    proptest! {
        #[test]
        fn the_better_way_is_gone_most_of_the_time(
            here in 1.0_f64..1000.0,
            left in 1.0_f64..1000.0,
            before in proptest::collection::vec((1.0_f64..1000.0, 0.0_f64..1.0), 0..50),
        ) {
            let mut judge = Judge::new();
            for (rate, idle) in before {
                let busy = if judge.leaves { 0.0 } else { 1.0 };
                judge.judge(Window { rate, shrunk: 0.5, busy, idle });
            }
            let world = World { here, left, idle: 0.5, shrunk: 0.5 };
            world.left_in(&mut judge, 100);
            let count = world.left_in(&mut judge, 1000);
            if left >= here * GAIN {
                prop_assert!(count > 900, "{count}");
            } else {
                prop_assert!(count < 100, "{count}");
            }
        }
    }

    #[test]
    fn what_is_fixed_is_not_judged() {
        for (way, leaves) in [(Compress::Here, false), (Compress::There, true)] {
            let compressing = Compressing::new(way, 3);
            for _ in 0..100 {
                compressing.note(1 << 30, Some((1 << 10, Duration::from_secs(1))));
                compressing.waited(Instant::now());
            }
            assert_eq!(compressing.leaves(), leaves);
        }
    }

    #[test]
    fn names_of_ways_are_read() {
        assert_eq!(Compress::parse("here"), Some(Compress::Here));
        assert_eq!(Compress::parse("measured"), Some(Compress::Measured));
        assert_eq!(Compress::parse("there"), Some(Compress::There));
        assert_eq!(Compress::parse("nowhere"), None);
    }
}
