//! Choosing, by a seed, what of the unsynced bytes and names a power cut takes.

use std::collections::BTreeMap;

/// The grain in which unsynced bytes are kept or lost.
const SECTOR_BYTES: usize = 512;

/// SplitMix64 (Steele, Lea, Flood 2014): enough for choosing what is lost.
pub(super) struct Random(pub u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    fn coin(&mut self) -> bool {
        self.next() & 1 == 1
    }
}

/// The length is the old, the new, or between; of the bytes each sector is the new, or the old
/// (zero where there was none).
pub(super) fn lose_some_bytes(now: &mut Vec<u8>, durable: &[u8], random: &mut Random) {
    if now == durable {
        return;
    }
    let (old, new) = (durable.len(), now.len());
    let length = match random.next() % 4 {
        0 => old,
        1 => old.min(new) + random.next() as usize % (old.abs_diff(new) + 1),
        _ => new,
    };
    now.resize(length, 0);
    for (at, sector) in now.chunks_mut(SECTOR_BYTES).enumerate() {
        if random.coin() {
            let before = durable.get(at * SECTOR_BYTES..).unwrap_or_default();
            for (place, byte) in sector.iter_mut().enumerate() {
                *byte = before.get(place).copied().unwrap_or(0);
            }
        }
    }
}

/// Each name that was changed is as it was or as it became.
pub(super) fn lose_some_names(
    now: &mut BTreeMap<String, usize>,
    durable: &BTreeMap<String, usize>,
    random: &mut Random,
) {
    let mut names: Vec<String> = now.keys().chain(durable.keys()).cloned().collect();
    names.sort();
    names.dedup();
    for name in names {
        let before = durable.get(&name);
        if now.get(&name) == before || random.coin() {
            continue;
        }
        match before {
            Some(node) => now.insert(name, *node),
            None => now.remove(&name),
        };
    }
}
