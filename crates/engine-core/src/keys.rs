//! The pool's key and what is derived from it. See `docs/formats/pool-header.md`.
//!
//! Holds secrets: nothing here prints them. Every key has one purpose.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

use crate::error::{Error, Result};
use crate::ids::{Id, Kind, Name, Prefix};

/// Length of an AES-GCM tag: what sealing adds to a body.
pub const TAG_LEN: usize = 16;

/// What whoever cuts and names chunks of a pool needs, and no more: it opens nothing that is
/// stored. A client of a pool far away is given this.
#[derive(Clone, PartialEq, Eq)]
pub struct NameKeys {
    names: [[u8; 32]; 3],
    gear: [u8; 32],
}

impl NameKeys {
    pub const LEN: usize = 128;

    /// The name of a chunk of this kind.
    pub fn name(&self, kind: Kind, plain: &[u8]) -> Name {
        Name(*blake3::keyed_hash(&self.names[kind as usize], plain).as_bytes())
    }

    /// The chunker's table of 256 random words.
    pub fn gear(&self) -> Box<[u64; 256]> {
        let mut bytes = [0; 2048];
        blake3::Hasher::new_keyed(&self.gear).finalize_xof().fill(&mut bytes);
        let mut gear = Box::new([0; 256]);
        for (word, raw) in gear.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = u64::from_le_bytes([
                raw[0], raw[1], raw[2], raw[3], raw[4], raw[5], raw[6], raw[7],
            ]);
        }
        gear
    }

    /// The same names, cut by another secret.
    #[must_use]
    pub fn with_gear(&self, gear: [u8; 32]) -> Self {
        NameKeys { gear, ..self.clone() }
    }

    pub fn to_bytes(&self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        let parts = self.names.iter().chain([&self.gear]);
        for (place, key) in bytes.chunks_exact_mut(32).zip(parts) {
            place.copy_from_slice(key);
        }
        bytes
    }

    pub fn from_bytes(bytes: &[u8; Self::LEN]) -> Self {
        let mut keys = [[0; 32]; 4];
        for (key, part) in keys.iter_mut().zip(bytes.chunks_exact(32)) {
            key.copy_from_slice(part);
        }
        let [data, tree, list, gear] = keys;
        NameKeys { names: [data, tree, list], gear }
    }
}

/// All sub-keys of a pool.
#[derive(Clone)]
pub struct PoolKeys {
    naming: NameKeys,
    pack: [u8; 32],
    index: [u8; 32],
    index_records: [u8; 32],
    object: [u8; 32],
    header: [u8; 32],
    header_naming: [u8; 32],
}

impl PoolKeys {
    pub fn derive(pool_key: &[u8; 32]) -> Self {
        let sub =
            |purpose: &str| blake3::derive_key(&format!("holdfast pool v1: {purpose}"), pool_key);
        PoolKeys {
            naming: NameKeys {
                names: [sub("name data chunk"), sub("name tree chunk"), sub("name list chunk")],
                gear: sub("chunker gear"),
            },
            pack: sub("pack"),
            index: sub("index"),
            index_records: sub("index records"),
            object: sub("object"),
            header: sub("header"),
            header_naming: sub("header naming"),
        }
    }

    /// The same, but for the keys that cut and name chunks: those may be shared between pools.
    pub fn with_naming(self, naming: NameKeys) -> Self {
        PoolKeys { naming, ..self }
    }

    /// Those that cut and name chunks.
    pub fn naming(&self) -> &NameKeys {
        &self.naming
    }

    /// The name of a chunk of this kind.
    pub fn name(&self, kind: Kind, plain: &[u8]) -> Name {
        self.naming.name(kind, plain)
    }

    /// The key that seals the pack with this salt.
    pub fn pack(&self, salt: &[u8; 32]) -> Result<SealKey> {
        SealKey::new(blake3::keyed_hash(&self.pack, salt).as_bytes())
    }

    /// The key that seals the small object (image, job, mark) with this salt.
    pub fn object(&self, salt: &[u8; 32]) -> Result<SealKey> {
        SealKey::new(blake3::keyed_hash(&self.object, salt).as_bytes())
    }

    /// Authenticates an index segment.
    pub fn index_mac(&self) -> blake3::Hasher {
        blake3::Hasher::new_keyed(&self.index)
    }

    /// Hides where the chunks of the index segment of this id lie, and how long they are.
    pub fn index_records(&self, segment: &Id) -> RecordKey {
        RecordKey(*blake3::keyed_hash(&self.index_records, &segment.0).as_bytes())
    }

    /// Authenticates the pool header.
    pub fn header_mac(&self, bytes: &[u8]) -> blake3::Hash {
        blake3::keyed_hash(&self.header, bytes)
    }

    /// The key that seals, in the pool header, the keys that name chunks.
    pub fn header_naming(&self, salt: &[u8; 32]) -> Result<SealKey> {
        SealKey::new(blake3::keyed_hash(&self.header_naming, salt).as_bytes())
    }
}

/// Hides the records of one index segment. A prefix stands in a segment once, so no mask is used
/// twice.
#[derive(Clone)]
pub struct RecordKey([u8; 32]);

impl RecordKey {
    /// What the bytes after this prefix are combined with (exclusive or).
    pub fn mask(&self, prefix: &Prefix) -> [u8; 12] {
        let mut mask = [0; 12];
        mask.copy_from_slice(&blake3::keyed_hash(&self.0, prefix).as_bytes()[..12]);
        mask
    }
}

/// AES-256-GCM under a key that seals one pack or one object only, so that a counter is a nonce.
pub struct SealKey(LessSafeKey);

impl SealKey {
    pub(crate) fn new(bytes: &[u8; 32]) -> Result<Self> {
        UnboundKey::new(&AES_256_GCM, bytes)
            .map(|key| SealKey(LessSafeKey::new(key)))
            .map_err(|_| Error::Unsupported("AES-256-GCM on this machine".into()))
    }

    fn nonce(place: u32) -> Nonce {
        let mut nonce = [0; NONCE_LEN];
        nonce[..4].copy_from_slice(&place.to_le_bytes());
        Nonce::assume_unique_for_key(nonce)
    }

    /// Seals `body[from..]` in place and appends the tag.
    pub fn seal(&self, place: u32, aad: &[u8], body: &mut Vec<u8>, from: usize) -> Result<()> {
        let failed = || Error::Invalid("sealing failed".into());
        let tag = self
            .0
            .seal_in_place_separate_tag(
                Self::nonce(place),
                Aad::from(aad),
                body.get_mut(from..).ok_or_else(failed)?,
            )
            .map_err(|_| failed())?;
        body.extend_from_slice(tag.as_ref());
        Ok(())
    }

    /// Opens `sealed` in place; the plain bytes are its front. `None` if it is not authentic.
    pub fn open<'a>(&self, place: u32, aad: &[u8], sealed: &'a mut [u8]) -> Option<&'a mut [u8]> {
        self.0.open_in_place(Self::nonce(place), Aad::from(aad), sealed).ok()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_same_bytes_have_another_name_for_each_kind_and_pool() {
        let (a, b) = (PoolKeys::derive(&[1; 32]), PoolKeys::derive(&[2; 32]));
        let names = [
            a.name(Kind::Data, b"x"),
            a.name(Kind::Tree, b"x"),
            a.name(Kind::List, b"x"),
            b.name(Kind::Data, b"x"),
        ];
        for (index, name) in names.iter().enumerate() {
            assert!(!names[..index].contains(name));
        }
        assert_eq!(a.name(Kind::Data, b"x"), names[0]);
    }

    #[test]
    fn a_seal_opens_only_at_its_place_with_its_context() {
        let key = PoolKeys::derive(&[1; 32]).pack(&[3; 32]).unwrap();
        let mut sealed = b"..body".to_vec();
        key.seal(5, b"context", &mut sealed, 2).unwrap();
        assert_eq!(sealed.len(), 6 + TAG_LEN);
        let open = |place, aad: &[u8]| {
            let mut copy = sealed[2..].to_vec();
            key.open(place, aad, &mut copy).map(|plain| plain.to_vec())
        };
        assert_eq!(open(5, b"context").as_deref(), Some(&b"body"[..]));
        assert_eq!(open(6, b"context"), None);
        assert_eq!(open(5, b"other"), None);
    }
}
