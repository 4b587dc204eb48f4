//! Blocks that wait to be asked for, put together into questions.
//!
//! While no question is under way the next one is asked at once. While one is, whatever comes
//! within a moment goes with it: over a link with a long way few questions then carry all that
//! there is, and none waits for the answer to another.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use parking_lot::Mutex;

use crate::pack::footer::{ChunkInfo, PackKind};

/// Blocks that are asked for together.
const BLOCKS: usize = 4;
/// How long a question waits to become longer, while others are under way.
const MOMENT: Duration = Duration::from_millis(5);

/// Chunks laid end to end, of which the pool may have some.
pub(super) struct Batch {
    pub kind: PackKind,
    pub plain: Vec<u8>,
    pub chunks: Vec<ChunkInfo>,
}

/// What several threads take questions from.
pub(super) struct Questions {
    waiting: Receiver<Batch>,
    /// Of one who gathers no other takes blocks away.
    turn: Mutex<()>,
    under_way: AtomicUsize,
}

impl Questions {
    pub fn new(waiting: Receiver<Batch>) -> Self {
        Questions { waiting, turn: Mutex::new(()), under_way: AtomicUsize::new(0) }
    }

    /// What is to be asked next; none once there will be no more. From here on it counts as under
    /// way, until [`Questions::answered`].
    pub fn next(&self) -> Option<Vec<Batch>> {
        let _turn = self.turn.lock();
        let mut batches = vec![self.waiting.recv().ok()?];
        let upto = Instant::now() + MOMENT;
        while batches.len() < BLOCKS {
            let more = match self.under_way.load(Ordering::Acquire) {
                0 => self.waiting.try_recv().ok(),
                _ => self.waiting.recv_deadline(upto).ok(),
            };
            let Some(more) = more else { break };
            batches.push(more);
        }
        self.under_way.fetch_add(1, Ordering::AcqRel);
        Some(batches)
    }

    /// A question is answered, or failed.
    pub fn answered(&self) {
        self.under_way.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use crossbeam_channel::unbounded;

    use super::*;

    fn batch(number: u8) -> Batch {
        Batch { kind: PackKind::Data, plain: vec![number], chunks: Vec::new() }
    }

    fn numbers(batches: &[Batch]) -> Vec<u8> {
        batches.iter().map(|batch| batch.plain[0]).collect()
    }

    #[test]
    fn the_first_question_waits_for_nothing() {
        let (to_ask, waiting) = unbounded();
        let questions = Questions::new(waiting);
        to_ask.send(batch(1)).unwrap();
        assert_eq!(numbers(&questions.next().unwrap()), [1]);
        questions.answered();
        to_ask.send(batch(2)).unwrap();
        assert_eq!(numbers(&questions.next().unwrap()), [2], "nothing is under way again");
    }

    #[test]
    fn what_comes_while_one_is_under_way_goes_together() {
        let (to_ask, waiting) = unbounded();
        let questions = Questions::new(waiting);
        to_ask.send(batch(1)).unwrap();
        questions.next().unwrap();
        to_ask.send(batch(2)).unwrap();
        let both = std::thread::scope(|scope| {
            let gathering = scope.spawn(|| questions.next().unwrap());
            // It is there already or comes within the moment: as far as this machine keeps up.
            to_ask.send(batch(3)).unwrap();
            gathering.join().unwrap()
        });
        assert_eq!(numbers(&both), [2, 3]);
    }

    #[test]
    fn a_question_is_no_longer_than_that() {
        let (to_ask, waiting) = unbounded();
        let questions = Questions::new(waiting);
        for number in 0..6 {
            to_ask.send(batch(number)).unwrap();
        }
        drop(to_ask);
        assert_eq!(numbers(&questions.next().unwrap()), [0, 1, 2, 3]);
        assert_eq!(numbers(&questions.next().unwrap()), [4, 5], "nothing more will come");
        assert!(questions.next().is_none());
    }
}
