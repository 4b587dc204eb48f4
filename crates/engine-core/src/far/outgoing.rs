//! The bodies of one backup as they go out: the first ones are small, so that the link has something
//! to carry early, and each may be twice as long as the one before, up to a length that costs few
//! requests.

use super::body;

/// The first body is handed over when it has so many bytes, and later ones at most this many.
const FIRST_BYTES: usize = 512 << 10;
const LONGEST_BYTES: usize = 8 << 20;

/// The body that is being filled.
pub(super) struct Outgoing {
    body: body::Writer,
    full_bytes: usize,
}

impl Default for Outgoing {
    fn default() -> Self {
        Outgoing { body: body::Writer::default(), full_bytes: FIRST_BYTES }
    }
}

impl Outgoing {
    /// Lays a block of so many plain bytes into the body; that, or the one before, if it is full.
    pub fn lay(
        &mut self,
        plain_len: usize,
        lay: impl FnOnce(&mut body::Writer),
    ) -> Option<Vec<u8>> {
        let full = if self.body.fits(plain_len) { None } else { self.take() };
        lay(&mut self.body);
        match full {
            None if self.body.len() >= self.full_bytes => self.take(),
            full => full,
        }
    }

    /// What was laid so far, if there is anything; the next body begins.
    pub fn take(&mut self) -> Option<Vec<u8>> {
        if self.body.is_empty() {
            return None;
        }
        self.full_bytes = (self.full_bytes * 2).min(LONGEST_BYTES);
        Some(self.body.take())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::codec::Codec;
    use crate::ids::{Kind, Name};
    use crate::pack::footer::{ChunkInfo, PackKind};

    const BLOCK: usize = 64 << 10;

    fn lay(outgoing: &mut Outgoing) -> Option<Vec<u8>> {
        let chunk = ChunkInfo { name: Name([7; 32]), length: BLOCK as u32, kind: Kind::Data };
        let plain = vec![7; BLOCK];
        outgoing.lay(BLOCK, |body| body.push(PackKind::Data, Codec::Stored, &[chunk], &plain))
    }

    #[test]
    fn bodies_begin_small_and_double() {
        let mut outgoing = Outgoing::default();
        let mut lengths = Vec::new();
        while lengths.len() < 7 {
            lengths.extend(lay(&mut outgoing).map(|body| body.len()));
        }
        let about: Vec<usize> = lengths.iter().map(|length| length / (512 << 10)).collect();
        assert_eq!(about, [1, 2, 4, 8, 16, 16, 16]);
    }

    #[test]
    fn nothing_is_lost_and_nothing_is_made_up() {
        let mut outgoing = Outgoing::default();
        assert!(outgoing.take().is_none());
        assert!(lay(&mut outgoing).is_none());
        assert_eq!(body::parse(&outgoing.take().unwrap()).unwrap().len(), 1);
        assert!(outgoing.take().is_none());
    }
}
