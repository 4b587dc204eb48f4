//! Numbers of images: each is given once, and later images have higher ones, whatever has been
//! expired since and however many writers there are. No clock is asked.

use crate::error::{Error, Result};
use crate::ids::Id;

use super::Pool;

/// The highest number given stands as an object of this prefix: 16 hexadecimal digits. It holds 16
/// random bytes, by which a writer knows its own where the answer to a put was lost.
const PREFIX: &str = "numbers/";

impl Pool {
    /// A number above `above`, above all images and above all that were given before. Of several
    /// writers that ask at once each gets its own. Images are read only where nothing else tells.
    pub fn claim_number(&self, above: u64) -> Result<u64> {
        let claim = Id::random()?;
        let given = self.numbers_given()?;
        let mut number = match given.iter().copied().max() {
            Some(highest) => highest.max(above),
            None => {
                let images = self.readable_images()?;
                images.iter().map(|image| image.number).max().unwrap_or(0).max(above)
            }
        };
        loop {
            number = number
                .checked_add(1)
                .ok_or_else(|| Error::integrity(PREFIX, "the numbers of images are used up"))?;
            if self.store().put_if_absent(&key(number), &claim.0)? {
                break;
            }
        }
        // Whoever lists sees this one or a higher, so the lower ones have served.
        for old in given {
            self.store().delete(&key(old))?;
        }
        Ok(number)
    }

    /// Has every number that is yet to be given be above this one, which another pool gave.
    pub fn keep_numbers_above(&self, number: u64) -> Result<()> {
        if self.numbers_given()?.iter().any(|given| *given >= number) {
            return Ok(());
        }
        self.claim_number(number.saturating_sub(1)).map(drop)
    }

    fn numbers_given(&self) -> Result<Vec<u64>> {
        let mut given = Vec::new();
        self.store().list(PREFIX, &mut |key, _| {
            given.extend(key.strip_prefix(PREFIX).and_then(parse));
            Ok(())
        })?;
        Ok(given)
    }
}

fn key(number: u64) -> String {
    format!("{PREFIX}{number:016x}")
}

fn parse(digits: &str) -> Option<u64> {
    let is_key = digits.len() == 16
        && digits.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
    is_key.then(|| u64::from_str_radix(digits, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::pool::PoolConfig;
    use crate::store::Store;
    use crate::store::memory::MemoryStore;
    use std::sync::Arc;

    #[test]
    fn racing_writers_get_numbers_of_their_own_and_one_object_stays() {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let pool = Pool::create(store, &[1; 32], PoolConfig::default(), 0, None).unwrap();
        assert_eq!(pool.claim_number(0).unwrap(), 1);
        assert_eq!(pool.claim_number(41).unwrap(), 42);
        assert_eq!(pool.claim_number(0).unwrap(), 43);
        for (other, next) in [(7, 44), (44, 45), (60, 61)] {
            pool.keep_numbers_above(other).unwrap();
            assert_eq!(pool.claim_number(0).unwrap(), next);
        }
        let mut numbers: Vec<u64> = std::thread::scope(|scope| {
            let claims: Vec<_> =
                (0..8).map(|_| scope.spawn(|| pool.claim_number(0).unwrap())).collect();
            claims.into_iter().map(|claim| claim.join().unwrap()).collect()
        });
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), 8);
        assert!(pool.claim_number(0).unwrap() > *numbers.last().unwrap());
        let mut left = 0;
        pool.store()
            .list(PREFIX, &mut |_, _| {
                left += 1;
                Ok(())
            })
            .unwrap();
        assert_eq!(left, 1);
    }
}
