//! Client keys: backups that the pool stores and can't read. See `docs/formats/client-keys.md`.
//!
//! What is sealed here is sealed again by the pool, and named by it as it lies here, so that a
//! media server proves, deduplicates and collects it as anything else. Knows no pool and no file.
//! Holds secrets: nothing here prints them. Every key has one purpose; equal plain bytes in an
//! equal place are sealed to equal bytes.

pub mod chunk;
pub mod entry;
pub mod image;
pub mod names;
pub mod opened;
pub mod rules;

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::ids::Id;
use crate::keys::{SealKey, TAG_LEN};

pub use image::Names;
pub use names::DirKey;

/// What sealing something adds.
pub const BOX_BYTES: usize = 32 + TAG_LEN;

/// A key that only the owner of the data has, and what is derived from it.
#[derive(Clone)]
pub struct ClientKey {
    id: Id,
    chunk: BoxKeys,
    entry: BoxKeys,
    name: BoxKeys,
    top: [u8; 32],
    gear: [u8; 32],
    image: [u8; 32],
}

impl ClientKey {
    pub fn derive(secret: &[u8; 32]) -> Self {
        let sub = |purpose: &str| {
            blake3::derive_key(&format!("holdfast client key v1: {purpose}"), secret)
        };
        let boxed = |what: &str| BoxKeys {
            id: sub(&format!("{what} id")),
            seal: sub(&format!("{what} seal")),
        };
        let mut id = [0; 16];
        id.copy_from_slice(&sub("id")[..16]);
        ClientKey {
            id: Id(id),
            chunk: boxed("chunk"),
            entry: boxed("entry"),
            name: boxed("name"),
            top: sub("root directory"),
            gear: sub("chunker gear"),
            image: sub("image"),
        }
    }

    /// What it is called by; tells nothing of it.
    pub fn id(&self) -> Id {
        self.id
    }

    /// The secret of the table that cuts.
    pub fn gear(&self) -> [u8; 32] {
        self.gear
    }
}

/// How a backup is sealed by its client.
#[derive(Clone)]
pub struct Sealing {
    pub key: Arc<ClientKey>,
    pub names: Names,
}

impl Sealing {
    /// What names in the root directory are sealed with, where names are.
    pub fn root_dir(&self) -> Option<DirKey> {
        (self.names == Names::Sealed).then(|| self.key.root_dir())
    }
}

/// Two keys for one purpose: one names what is sealed, the other seals it.
#[derive(Clone)]
struct BoxKeys {
    id: [u8; 32],
    seal: [u8; 32],
}

impl BoxKeys {
    /// What `plain` is called in `context`: equal for equal bytes, and only for those.
    fn id_of(&self, context: &[u8], plain: &[u8]) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_keyed(&self.id);
        hasher.update(&(context.len() as u64).to_le_bytes());
        hasher.update(context);
        hasher.update(plain);
        *hasher.finalize().as_bytes()
    }

    /// The key of one message, so that the nonce may be the same for all.
    fn key_of(&self, id: &[u8; 32]) -> Result<SealKey> {
        SealKey::new(blake3::keyed_hash(&self.seal, id).as_bytes())
    }

    /// Replaces `out` by the sealed form of `plain`.
    fn seal(&self, context: &[u8], plain: &[u8], out: &mut Vec<u8>) -> Result<()> {
        let id = self.id_of(context, plain);
        out.clear();
        out.reserve(plain.len() + BOX_BYTES);
        out.extend_from_slice(&id);
        out.extend_from_slice(plain);
        self.key_of(&id)?.seal(0, &[], out, id.len())
    }

    /// The plain bytes; `None` where this is not what was sealed in this context.
    fn open<'a>(&self, context: &[u8], sealed: &'a mut [u8]) -> Option<&'a [u8]> {
        let (id, rest) = sealed.split_first_chunk_mut::<32>()?;
        let plain = self.key_of(id).ok()?.open(0, &[], rest)?;
        (self.id_of(context, plain) == *id).then_some(&*plain)
    }
}

/// Says which key is wanted, and where it is to be had.
pub fn needed(object: impl Into<String>, key: impl Into<String>) -> Error {
    Error::ClientKeyNeeded { object: object.into(), key: key.into() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_box_opens_only_whole_in_its_context_and_under_its_key() {
        let keys = ClientKey::derive(&[1; 32]).chunk;
        let mut sealed = Vec::new();
        keys.seal(b"here", b"secret", &mut sealed).unwrap();
        assert_eq!(sealed.len(), 6 + BOX_BYTES);
        let open = |keys: &BoxKeys, context: &[u8], bytes: &[u8]| {
            keys.open(context, &mut bytes.to_vec()).map(<[u8]>::to_vec)
        };
        assert_eq!(open(&keys, b"here", &sealed).as_deref(), Some(&b"secret"[..]));
        assert_eq!(open(&keys, b"there", &sealed), None);
        assert_eq!(open(&ClientKey::derive(&[2; 32]).chunk, b"here", &sealed), None);
        assert_eq!(open(&ClientKey::derive(&[1; 32]).entry, b"here", &sealed), None);
        for at in 0..sealed.len() {
            let mut bad = sealed.clone();
            bad[at] ^= 0x40;
            assert_eq!(open(&keys, b"here", &bad), None, "{at}");
            assert_eq!(open(&keys, b"here", &sealed[..at]), None, "{at}");
        }
        let mut again = Vec::new();
        keys.seal(b"here", b"secret", &mut again).unwrap();
        assert_eq!(again, sealed);
    }

    #[test]
    fn ids_differ_and_tell_nothing_of_each_other() {
        let ids = [[1; 32], [2; 32]].map(|secret| ClientKey::derive(&secret).id());
        assert_ne!(ids[0], ids[1]);
        assert_ne!(ids[0].0[..], [1; 16]);
    }
}
