//! Which packs are worth collecting.

use crate::error::Result;
use crate::ids::PackId;
use crate::pool::Pool;
use crate::reach::Tally;

use super::{Collected, Survey};

/// A pack is rewritten when less than this share of its chunks' bytes is live.
const LIVE_SHARE_PERCENT: u64 = 75;
/// Of the bytes of all packs that stay, this share may be dead; above it, the packs with the most
/// dead in them are rewritten too, however much in them is live.
const DEAD_SHARE_PERCENT: u64 = 5;
/// A pack below this part of the usual size is small.
const SMALL_PART: u64 = 4;
/// So many small packs of one kind are merged.
const SMALL_PACKS: usize = 8;

/// A pack in the store that no segment lists, and its size: left by a job that ended early, or
/// written by one that runs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unlisted {
    pub id: PackId,
    pub size: u64,
}

/// What becomes of a listed pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Keep,
    /// Nothing in it is live.
    Delete,
    /// Its live chunks move to a new pack.
    Rewrite,
}

fn verdict(tally: &Tally, merge_small: bool) -> Verdict {
    if tally.live_chunks == 0 {
        Verdict::Delete
    } else if merge_small
        || tally.live_bytes.saturating_mul(100) < tally.bytes.saturating_mul(LIVE_SHARE_PERCENT)
    {
        Verdict::Rewrite
    } else {
        Verdict::Keep
    }
}

/// Whether a pack is small enough to be merged with others like it.
fn is_small(pool: &Pool, tally: &Tally) -> bool {
    tally.pack.size < pool.config().pack_bytes / SMALL_PART
}

/// Packs of the store that `tallies` (sorted by id) do not name.
pub(super) fn unlisted(pool: &Pool, tallies: &[Tally]) -> Result<Vec<Unlisted>> {
    let mut unlisted = Vec::new();
    pool.store().list("packs/", &mut |key, size| {
        if let Some(id) = PackId::from_key(key)
            && tallies.binary_search_by_key(&id, |tally| tally.pack.id).is_err()
        {
            unlisted.push(Unlisted { id, size });
        }
        Ok(())
    })?;
    Ok(unlisted)
}

/// What each listed pack deserves, in the order of `tallies`.
pub(super) fn verdicts(pool: &Pool, tallies: &[Tally]) -> Vec<Verdict> {
    let merges = [0, 1].map(|kind| {
        let small = |tally: &&Tally| {
            tally.pack.kind == kind && tally.live_chunks > 0 && is_small(pool, tally)
        };
        tallies.iter().filter(small).count() >= SMALL_PACKS
    });
    let judge = |tally: &Tally| {
        let merge = merges.get(usize::from(tally.pack.kind)).copied().unwrap_or(false);
        verdict(tally, merge && is_small(pool, tally))
    };
    let mut verdicts: Vec<Verdict> = tallies.iter().map(judge).collect();
    rewrite_deadest(tallies, &mut verdicts);
    verdicts
}

/// Rewrites more packs, the deadest first, until no more is dead than may stay.
fn rewrite_deadest(tallies: &[Tally], verdicts: &mut [Verdict]) {
    let dead = |tally: &Tally| tally.bytes.saturating_sub(tally.live_bytes);
    let mut kept: Vec<(&Tally, &mut Verdict)> = tallies
        .iter()
        .zip(verdicts.iter_mut())
        .filter(|(_, verdict)| **verdict == Verdict::Keep)
        .collect();
    let live: u64 = tallies.iter().map(|tally| tally.live_bytes).sum();
    let mut dead_total: u64 = kept.iter().map(|(tally, _)| dead(tally)).sum();
    let too_much = |dead: u64| {
        dead.saturating_mul(100 - DEAD_SHARE_PERCENT) > live.saturating_mul(DEAD_SHARE_PERCENT)
    };
    let per_mille = |tally: &Tally| dead(tally).saturating_mul(1000) / tally.bytes.max(1);
    kept.sort_by_key(|(tally, _)| std::cmp::Reverse(per_mille(tally)));
    for (tally, verdict) in kept {
        if !too_much(dead_total) {
            return;
        }
        dead_total -= dead(tally);
        *verdict = Verdict::Rewrite;
    }
}

/// The packs of a new mark.
pub(super) fn candidates(pool: &Pool, tallies: &[Tally], unlisted: &[Unlisted]) -> Vec<PackId> {
    let verdicts = verdicts(pool, tallies);
    let listed = tallies.iter().zip(verdicts).filter(|(_, verdict)| *verdict != Verdict::Keep);
    listed.map(|(tally, _)| tally.pack.id).chain(unlisted.iter().map(|pack| pack.id)).collect()
}

/// What a collection would do. Packs written in place of rewritten ones are estimated by the live
/// share of those.
pub(super) fn forecast(pool: &Pool, survey: &Survey, unlisted: &[Unlisted]) -> Collected {
    let mut forecast = Collected { dry_run: true, ..Collected::default() };
    survey.tell(&mut forecast, unlisted.len());
    for (tally, verdict) in survey.tallies.iter().zip(verdicts(pool, &survey.tallies)) {
        let dead = u128::from(tally.bytes - tally.live_bytes.min(tally.bytes));
        let freed = u128::from(tally.pack.size) * dead / u128::from(tally.bytes.max(1));
        match verdict {
            Verdict::Keep => {}
            Verdict::Delete => {
                forecast.packs_deleted += 1;
                forecast.bytes_freed += tally.pack.size;
            }
            Verdict::Rewrite => {
                forecast.packs_deleted += 1;
                forecast.packs_rewritten += 1;
                forecast.bytes_freed += u64::try_from(freed).unwrap_or(u64::MAX);
            }
        }
    }
    forecast.packs_deleted += unlisted.len() as u64;
    forecast.bytes_freed += unlisted.iter().map(|pack| pack.size).sum::<u64>();
    forecast
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::PackEntry;

    fn tally(live_bytes: u64) -> Tally {
        let pack = PackEntry { id: PackId([0; 32]), size: 500, footer_len: 10, kind: 0 };
        Tally { pack, live_chunks: live_bytes.min(1), live_bytes, chunks: 10, bytes: 1000 }
    }

    fn after(live: &[u64]) -> Vec<Verdict> {
        let tallies: Vec<Tally> = live.iter().map(|live| tally(*live)).collect();
        let mut verdicts: Vec<Verdict> =
            tallies.iter().map(|tally| verdict(tally, false)).collect();
        rewrite_deadest(&tallies, &mut verdicts);
        verdicts
    }

    #[test]
    fn packs_that_are_hardly_alive_are_rewritten_and_dead_ones_deleted() {
        use Verdict::{Delete, Keep, Rewrite};
        assert_eq!(after(&[1000, 0, 749, 1000]), [Keep, Delete, Rewrite, Keep]);
    }

    #[test]
    fn what_stays_dead_in_all_is_little_and_the_deadest_packs_go_first() {
        use Verdict::{Keep, Rewrite};
        assert_eq!(after(&[950, 960, 950]), [Keep; 3]);
        assert_eq!(after(&[900, 800, 1000, 910]), [Keep, Rewrite, Keep, Keep]);
        assert_eq!(after(&[900, 899, 901, 898]), [Rewrite, Rewrite, Keep, Rewrite]);
        for share in [76, 80, 90, 95, 99] {
            let live = vec![share * 10; 20];
            let stays: u64 = after(&live).iter().filter(|one| **one == Keep).count() as u64;
            let dead = stays * (1000 - share * 10);
            assert!(dead * 95 <= 20 * share * 10 * 5, "{share}: {dead}");
        }
    }

    #[test]
    fn a_pool_that_was_collected_is_left_alone() {
        assert_eq!(after(&[]), []);
        assert_eq!(after(&[1000; 5]), [Verdict::Keep; 5]);
    }
}
