//! Interpolation search over sorted prefixes, one at a time or many side by side.
//!
//! Prefixes are evenly spread, so the first guess errs by about the root of the count, the second
//! by the root of that; then the neighbourhood is bracketed in doubling steps and halved. Each
//! guess is a cache miss. Searches that go side by side wait for theirs together: first all
//! guesses are loaded, then all are judged.

/// Guesses before the neighbourhood is searched.
const GUESSES: usize = 3;
/// Searches side by side.
pub const ABREAST: usize = 32;

/// Finds `wanted` among `count` prefixes. Ends for any contents: each step narrows the range.
pub fn search(count: u64, at: impl Fn(u64) -> Option<u128>, wanted: u128) -> Option<u64> {
    let mut probe = Probe::new(count, wanted);
    for _ in 0..GUESSES {
        let guess = probe.guess();
        probe.judge(at(guess)?);
    }
    probe.finish(at)
}

/// As [`search`] for up to [`ABREAST`] prefixes at once; those that are `None` are not searched.
pub fn search_batch(
    count: u64,
    at: impl Fn(u64) -> Option<u128>,
    wanted: &[Option<u128>; ABREAST],
) -> [Option<u64>; ABREAST] {
    let mut probes = wanted
        .map(|wanted| Probe::new(if wanted.is_some() { count } else { 0 }, wanted.unwrap_or(0)));
    for _ in 0..GUESSES {
        let guessed = std::array::from_fn::<_, ABREAST, _>(|index| at(probes[index].guess()));
        for (probe, found) in probes.iter_mut().zip(guessed) {
            probe.judge(found.unwrap_or(0));
        }
    }
    probes.map(|probe| probe.finish(&at))
}

/// One search on its way.
#[derive(Clone, Copy)]
struct Probe {
    wanted: u128,
    /// Where the prefix can still be: `low..high`.
    low: u64,
    high: u64,
    /// What stands before `low`, and at `high`.
    low_prefix: u128,
    high_prefix: u128,
    guess: u64,
    found: bool,
}

impl Probe {
    fn new(count: u64, wanted: u128) -> Self {
        let (low_prefix, high_prefix) = (0, u128::MAX);
        Probe { wanted, low: 0, high: count, low_prefix, high_prefix, guess: 0, found: false }
    }

    fn is_over(&self) -> bool {
        self.found || self.low >= self.high
    }

    /// Where the prefix should be; a position that exists unless nothing was to be searched.
    fn guess(&mut self) -> u64 {
        if !self.is_over() {
            let width = (self.high_prefix.saturating_sub(self.low_prefix) >> 64) as u64;
            let into = (self.wanted.saturating_sub(self.low_prefix) >> 64) as u64;
            let places = self.high - self.low;
            let step = into as f64 / (width as f64 + 1.0) * places as f64;
            self.guess = self.low + (step as u64).min(places - 1);
        }
        self.guess
    }

    fn judge(&mut self, prefix: u128) {
        if self.is_over() {
            return;
        }
        match prefix.cmp(&self.wanted) {
            std::cmp::Ordering::Equal => self.found = true,
            std::cmp::Ordering::Less => (self.low, self.low_prefix) = (self.guess + 1, prefix),
            std::cmp::Ordering::Greater => (self.high, self.high_prefix) = (self.guess, prefix),
        }
    }

    /// Searches the neighbourhood of the last guess.
    fn finish(self, at: impl Fn(u64) -> Option<u128>) -> Option<u64> {
        if self.found {
            return Some(self.guess);
        }
        let Probe { wanted, mut low, mut high, guess, .. } = self;
        let mut step = 4;
        if low == guess + 1 {
            while low < high && high - low > step {
                if at(low + step)? >= wanted {
                    high = low + step + 1;
                    break;
                }
                low += step + 1;
                step *= 2;
            }
        } else {
            while low < high && high - low > step {
                if at(high - 1 - step)? <= wanted {
                    low = high - 1 - step;
                    break;
                }
                high -= step + 1;
                step *= 2;
            }
        }
        while low < high {
            let middle = low + (high - low) / 2;
            match at(middle)?.cmp(&wanted) {
                std::cmp::Ordering::Equal => return Some(middle),
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        None
    }
}
