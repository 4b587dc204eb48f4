//! Rubbish that looks like something: the same for the same seeds, on every machine.

/// Endless changes to a set of seeds.
pub struct Mutations {
    seeds: Vec<Vec<u8>>,
    random: blake3::OutputReader,
}

/// Numbers at which lengths and counts go wrong.
const EDGES: [u64; 10] =
    [0, 1, 0x17, 0x18, 0xff, 0x100, 0xffff, 0x7fff_ffff, 0xffff_ffff, u64::MAX];

impl Mutations {
    /// `name` sets the random numbers.
    pub fn new(name: &str, seeds: Vec<Vec<u8>>) -> Self {
        let random = blake3::Hasher::new().update(name.as_bytes()).finalize_xof();
        Mutations { seeds, random }
    }

    /// Below `limit`; 0 if that is 0.
    fn below(&mut self, limit: usize) -> usize {
        let mut bytes = [0; 8];
        self.random.fill(&mut bytes);
        (u64::from_le_bytes(bytes) % (limit.max(1) as u64)) as usize
    }

    fn seed(&mut self) -> Vec<u8> {
        let at = self.below(self.seeds.len());
        self.seeds.get(at).cloned().unwrap_or_default()
    }

    fn mutate(&mut self, bytes: &mut Vec<u8>) {
        let at = self.below(bytes.len());
        let end = (at + 1 + self.below(16)).min(bytes.len());
        match self.below(8) {
            _ if bytes.is_empty() => bytes.push(self.below(256) as u8),
            0 => bytes[at] ^= 1 << self.below(8),
            1 => bytes[at] = self.below(256) as u8,
            2 => bytes.truncate(at),
            3 => drop(bytes.drain(at..end)),
            4 => {
                let part = bytes[at..end].to_vec();
                bytes.splice(at..at, part);
            }
            5 => {
                let edge = EDGES[self.below(EDGES.len())];
                let (little, big) = (edge.to_le_bytes(), edge.to_be_bytes());
                let wide = 1 << self.below(4);
                let number = if self.below(2) == 0 { &little[..wide] } else { &big[8 - wide..] };
                let end = (at + wide).min(bytes.len());
                bytes.splice(at..end, number.iter().copied());
            }
            6 => {
                let other = self.seed();
                let from = self.below(other.len());
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
            _ => {
                let mut noise = vec![0; 1 + self.below(8)];
                self.random.fill(&mut noise);
                bytes.splice(at..at, noise);
            }
        }
    }
}

impl Iterator for Mutations {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        let mut bytes = self.seed();
        for _ in 0..=self.below(4) {
            self.mutate(&mut bytes);
        }
        Some(bytes)
    }
}
