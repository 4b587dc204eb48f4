//! Chunks of data that a client seals before anybody names them.
//!
//! Each is compressed by itself, and filled up so that its length tells little of how well that
//! went: the pool can't compress what it can't read.

use parking_lot::Mutex;

use super::{BOX_BYTES, ClientKey};
use crate::codec::{Codec, Compressor, Decompressor};
use crate::error::{Error, Result};
use crate::ids::{CLIENT_SEAL_BYTES, Name, Ref};

/// Codec and length of the body, before it.
const HEAD_BYTES: usize = CLIENT_SEAL_BYTES as usize - BOX_BYTES;

/// Seals chunks; one for each thread, its memory is used again.
pub struct ChunkSealer {
    compressor: Compressor,
    body: Vec<u8>,
    plain: Vec<u8>,
    sealed: Vec<u8>,
}

impl ChunkSealer {
    pub fn new(level: i32) -> Result<Self> {
        let compressor = Compressor::new(level)?;
        Ok(ChunkSealer { compressor, body: Vec::new(), plain: Vec::new(), sealed: Vec::new() })
    }

    /// Seals a chunk, which is not empty; see [`ChunkSealer::sealed`]. The length for its
    /// reference.
    pub fn seal(&mut self, key: &ClientKey, data: &[u8]) -> Result<u32> {
        let plain_len = u32::try_from(data.len()).ok().filter(|length| *length < 1 << 24);
        let plain_len =
            plain_len.ok_or_else(|| Error::Invalid(format!("a chunk of {} bytes", data.len())))?;
        let (codec, body) = match self.compressor.shrink(data, &mut self.body)? {
            true => (Codec::Zstd, self.body.as_slice()),
            false => (Codec::Stored, data),
        };
        // A body is never longer than what it holds.
        let length = body.len() as u32;
        let code = Ref::sealed_length(plain_len, length + CLIENT_SEAL_BYTES);
        let stored = Ref { name: Name([0; 32]), length: code }.stored_length() as usize;
        self.plain.clear();
        self.plain.push(codec as u8);
        self.plain.extend_from_slice(&length.to_le_bytes()[..HEAD_BYTES - 1]);
        self.plain.extend_from_slice(body);
        self.plain.resize(stored - BOX_BYTES, 0);
        key.chunk.seal(&[], &self.plain, &mut self.sealed)?;
        Ok(code)
    }

    /// What was sealed last.
    pub fn sealed(&self) -> &[u8] {
        &self.sealed
    }
}

/// Opens chunks. Called from many threads.
#[derive(Default)]
pub struct ChunkOpener {
    decompressors: Mutex<Vec<Decompressor>>,
}

impl ChunkOpener {
    /// The plain bytes of the chunk that `reference` names, whose stored bytes these are.
    pub fn open(&self, key: &ClientKey, reference: &Ref, stored: &[u8]) -> Result<Vec<u8>> {
        let damaged = |reason: &str| {
            Error::integrity(
                format!("chunk {}", reference.name),
                format!("under client key {}, {reason}", key.id()),
            )
        };
        let mut bytes = stored.to_vec();
        let plain = key.chunk.open(&[], &mut bytes).ok_or_else(|| damaged("it does not open"))?;
        let mut decompressor = match self.decompressors.lock().pop() {
            Some(decompressor) => decompressor,
            None => Decompressor::new()?,
        };
        let data = unpack(plain, reference.plain_length() as usize, &mut decompressor);
        self.decompressors.lock().push(decompressor);
        data.ok_or_else(|| damaged("it is not what its reference says"))
    }
}

/// The bytes of a chunk of this length, out of what was sealed; `None` where that is none.
pub(crate) fn unpack(plain: &[u8], length: usize, with: &mut Decompressor) -> Option<Vec<u8>> {
    let (head, rest) = plain.split_first_chunk::<HEAD_BYTES>()?;
    let codec = Codec::from_u8(head[0])?;
    let body_len = u32::from_le_bytes([head[1], head[2], head[3], 0]) as usize;
    let (body, filling) = rest.split_at_checked(body_len)?;
    if filling.iter().any(|byte| *byte != 0) {
        return None;
    }
    with.decode(codec, body, length)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn sealed(data: &[u8], level: i32) -> (Ref, Vec<u8>) {
        let mut sealer = ChunkSealer::new(level).unwrap();
        let length = sealer.seal(&ClientKey::derive(&[1; 32]), data).unwrap();
        (Ref { name: Name([3; 32]), length }, sealer.sealed().to_vec())
    }

    #[test]
    fn text_shrinks_and_no_chunk_says_exactly_how_far() {
        let (reference, bytes) = sealed(&b"again and ".repeat(1000), 2);
        assert!(bytes.len() < 300, "{}", bytes.len());
        assert_eq!(bytes.len(), reference.stored_length() as usize);
        let (_, other) = sealed(&b"again or ".repeat(1112)[..10_000], 2);
        assert_eq!(other.len(), bytes.len());
    }

    #[test]
    fn a_changed_or_cut_chunk_is_noticed() {
        let (key, opener) = (ClientKey::derive(&[1; 32]), ChunkOpener::default());
        let (reference, bytes) = sealed(b"only a few bytes", 2);
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            for bad in [bad.as_slice(), &bytes[..at]] {
                assert_eq!(opener.open(&key, &reference, bad).unwrap_err().code(), "integrity");
            }
        }
        let other = ClientKey::derive(&[2; 32]);
        assert_eq!(opener.open(&other, &reference, &bytes).unwrap_err().code(), "integrity");
        let longer = Ref { length: reference.length + 1, ..reference };
        assert_eq!(opener.open(&key, &longer, &bytes).unwrap_err().code(), "integrity");
    }

    proptest! {
        #[test]
        fn a_chunk_comes_back_and_is_as_long_as_its_reference_says(
            runs in proptest::collection::vec((any::<u8>(), 1..900_usize), 1..40),
            noise in 0..5000_usize, level in 0..4,
        ) {
            let mut data: Vec<u8> =
                runs.iter().flat_map(|(byte, count)| vec![*byte; *count]).collect();
            let start = data.len();
            data.resize(start + noise, 0);
            blake3::Hasher::new().finalize_xof().fill(&mut data[start..]);
            let (reference, bytes) = sealed(&data, level);
            prop_assert_eq!(reference.plain_length() as usize, data.len());
            prop_assert_eq!(reference.stored_length() as usize, bytes.len());
            prop_assert!(bytes.len() <= data.len() + CLIENT_SEAL_BYTES as usize);
            prop_assert_eq!(&sealed(&data, level).1, &bytes);
            let opened = ChunkOpener::default().open(&ClientKey::derive(&[1; 32]), &reference, &bytes);
            prop_assert_eq!(opened.unwrap(), data);
        }
    }
}
