//! The ranges of a disk and where each lies, in bounded memory.
//!
//! Where a disk has more of them than are kept, short ones are joined into what only others can
//! read, which is right wherever it is said.

use super::super::GRAIN_BYTES;

/// Where a range lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lies {
    /// Nowhere: it is zero.
    Zero,
    /// Where only others can read it.
    Elsewhere,
    /// As it is, from this place of a file on.
    In { file: usize, offset: u64 },
}

/// A range of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    pub start: u64,
    pub length: u64,
    pub lies: Lies,
}

/// `Lies` in eight bytes: the upper bits are a file, or what is none.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Place(u64);

const FILE_BITS: u32 = 12;
const OFFSET_BITS: u32 = 64 - FILE_BITS;
const ZERO: Place = Place(0);
const ELSEWHERE: Place = Place(1 << OFFSET_BITS);
const FIRST_FILE: u64 = 2;

impl Place {
    /// What does not fit lies elsewhere.
    fn new(lies: Lies) -> Self {
        match lies {
            Lies::Zero => ZERO,
            Lies::Elsewhere => ELSEWHERE,
            Lies::In { file, offset } => {
                let file = file as u64 + FIRST_FILE;
                let fits = file < 1 << FILE_BITS && offset < 1 << OFFSET_BITS;
                if fits { Place(file << OFFSET_BITS | offset) } else { ELSEWHERE }
            }
        }
    }

    fn lies(self) -> Lies {
        match self.0 >> OFFSET_BITS {
            0 => Lies::Zero,
            1 => Lies::Elsewhere,
            file => Lies::In {
                file: (file - FIRST_FILE) as usize,
                offset: self.0 & ((1 << OFFSET_BITS) - 1),
            },
        }
    }

    /// Whether a range that lies here goes on, after so many bytes, with what lies there.
    fn goes_on(self, length: u64, next: Place) -> bool {
        match self.lies() {
            Lies::In { file, offset } => {
                next == Place::new(Lies::In { file, offset: offset + length })
            }
            Lies::Zero | Lies::Elsewhere => next == self,
        }
    }
}

struct Entry {
    start: u64,
    place: Place,
}

/// Ranges without gaps, from 0 on; neighbours do not go on with each other.
pub struct Runs {
    entries: Vec<Entry>,
    end: u64,
    most: usize,
    /// What is shorter is not kept.
    grain: u64,
}

impl Runs {
    /// Nothing yet; `most` ranges are kept, which are at least two.
    pub fn new(most: usize) -> Self {
        Runs { entries: Vec::new(), end: 0, most: most.max(2), grain: 0 }
    }

    /// Where the last range ends.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Goes on with a range that begins where the last one ended.
    pub fn push(&mut self, length: u64, lies: Lies) {
        if length == 0 {
            return;
        }
        let (start, mut place) = (self.end, Place::new(lies));
        self.end += length;
        if let Some(last) = self.entries.last() {
            if last.place.goes_on(start - last.start, place) {
                return;
            }
            if length < self.grain {
                if last.place == ELSEWHERE {
                    return;
                }
                place = ELSEWHERE;
            }
        }
        self.entries.push(Entry { start, place });
        if self.entries.len() > self.most {
            self.coarsen();
        }
    }

    fn coarsen(&mut self) {
        while self.entries.len() > self.most / 2 {
            self.grain = self.grain.max(GRAIN_BYTES).saturating_mul(2);
            let mut end = self.end;
            for entry in self.entries.iter_mut().rev() {
                if end - entry.start < self.grain {
                    entry.place = ELSEWHERE;
                }
                end = entry.start;
            }
            self.entries.dedup_by(|next, last| next.place == ELSEWHERE && last.place == ELSEWHERE);
        }
    }

    /// No more are coming.
    pub fn close(&mut self) {
        self.entries.shrink_to_fit();
    }

    /// The ranges from the one on that has this byte of the disk.
    pub fn from(&self, offset: u64) -> impl Iterator<Item = Run> + '_ {
        let first = self.entries.partition_point(|entry| entry.start <= offset).saturating_sub(1);
        let entries = self.entries.get(first..).unwrap_or_default();
        let ends = entries.iter().skip(1).map(|next| next.start).chain([self.end]);
        entries.iter().zip(ends).map(|(entry, end)| Run {
            start: entry.start,
            length: end - entry.start,
            lies: entry.place.lies(),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    const UNIT: u64 = 16 << 10;

    fn lies() -> impl Strategy<Value = Lies> {
        prop_oneof![
            Just(Lies::Zero),
            Just(Lies::Elsewhere),
            (0..3_usize, 0..8_u64).prop_map(|(file, at)| Lies::In { file, offset: at * UNIT }),
        ]
    }

    proptest! {
        #[test]
        fn every_byte_lies_where_it_was_said_or_elsewhere(
            said in proptest::collection::vec((1..40_u64, lies()), 0..80),
            most in 2..100_usize,
        ) {
            let mut runs = Runs::new(most);
            for (units, lies) in &said {
                runs.push(units * UNIT, *lies);
            }
            runs.close();
            let found: Vec<Run> = runs.from(0).collect();
            prop_assert!(found.len() <= most);
            let total: u64 = said.iter().map(|(units, _)| units * UNIT).sum();
            prop_assert_eq!(runs.end(), total);
            prop_assert_eq!(found.iter().map(|run| run.length).sum::<u64>(), total);
            let mut at = 0;
            for (units, lies) in &said {
                for unit in 0..*units {
                    let offset = at + unit * UNIT;
                    let run = runs.from(offset).next().unwrap();
                    prop_assert!(run.start <= offset && offset < run.start + run.length);
                    let into = offset - run.start;
                    match (run.lies, *lies) {
                        (Lies::Elsewhere, _) | (Lies::Zero, Lies::Zero) => {}
                        (
                            Lies::In { file, offset },
                            Lies::In { file: truth, offset: begin },
                        ) => {
                            prop_assert_eq!((file, offset + into), (truth, begin + unit * UNIT));
                        }
                        (found, said) => prop_assert!(false, "{:?} for {:?}", found, said),
                    }
                }
                at += units * UNIT;
            }
        }
    }

    #[test]
    fn what_fits_is_kept_exactly_and_what_goes_on_is_one() {
        let mut runs = Runs::new(100);
        runs.push(UNIT, Lies::In { file: 4, offset: 7 });
        runs.push(UNIT, Lies::In { file: 4, offset: 7 + UNIT });
        runs.push(UNIT, Lies::In { file: 5, offset: 7 + 2 * UNIT });
        runs.push(UNIT, Lies::Zero);
        runs.push(0, Lies::Elsewhere);
        runs.push(UNIT, Lies::Zero);
        let found: Vec<Run> = runs.from(0).collect();
        let expected = [
            Run { start: 0, length: 2 * UNIT, lies: Lies::In { file: 4, offset: 7 } },
            Run { start: 2 * UNIT, length: UNIT, lies: Lies::In { file: 5, offset: 7 + 2 * UNIT } },
            Run { start: 3 * UNIT, length: 2 * UNIT, lies: Lies::Zero },
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_place_too_large_to_be_noted_is_elsewhere() {
        for lies in [
            Lies::In { file: 1 << FILE_BITS, offset: 0 },
            Lies::In { file: 0, offset: 1 << OFFSET_BITS },
        ] {
            assert_eq!(Place::new(lies).lies(), Lies::Elsewhere);
        }
        let last = Lies::In { file: (1 << FILE_BITS) - 3, offset: (1 << OFFSET_BITS) - 1 };
        assert_eq!(Place::new(last).lies(), last);
    }
}
