//! Wraps and unwraps keys with what a person or a machine holds. See `docs/formats/key-slots.md`.
//!
//! Must not know where slots are kept, nor how much work is too much: that is the vault's part.
//! Invariants: keys that are held here are wiped after their use; the memory that Argon2id fills belongs
//! to nothing else and goes back to the system, which clears it, whatever happens.

use argon2::{Algorithm, Argon2, Block, Params, Version};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use memmap2::{Advice, MmapMut};
use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::keys::TAG_LEN;

pub const KEY_LEN: usize = 32;
pub const NONCE_LEN: usize = 12;
pub const WRAPPED_LEN: usize = KEY_LEN + TAG_LEN;

type Key = Zeroizing<[u8; KEY_LEN]>;

/// How a secret becomes the key that wraps.
#[derive(Clone, Copy, Debug)]
pub enum Derivation<'a> {
    /// Of words that can be guessed: Argon2id (RFC 9106, version 1.3).
    Argon2id { memory_kib: u32, passes: u32, lanes: u32 },
    /// Of random bytes: HKDF-SHA-256 (RFC 5869) with this info.
    Hkdf { info: &'a [u8] },
}

/// What a key is wrapped with, and bound to.
#[derive(Clone, Copy)]
pub struct Wrap<'a> {
    pub derivation: Derivation<'a>,
    pub secret: &'a [u8],
    pub salt: &'a [u8],
    pub nonce: &'a [u8; NONCE_LEN],
    /// Authenticated with the key, and not in it.
    pub bound_to: &'a [u8],
}

impl Wrap<'_> {
    /// Seals a key. The nonce must not have been used with this secret and salt before.
    pub fn seal(&self, key: &[u8; KEY_LEN]) -> Result<[u8; WRAPPED_LEN]> {
        let mut wrapped = [0; WRAPPED_LEN];
        let (body, place) = wrapped.split_at_mut(KEY_LEN);
        body.copy_from_slice(key);
        let tag = self
            .cipher()?
            .seal_in_place_separate_tag(self.nonce(), Aad::from(self.bound_to), body)
            .map_err(|_| Error::Invalid("wrapping a key failed".into()))?;
        place.copy_from_slice(tag.as_ref());
        Ok(wrapped)
    }

    /// Opens what `seal` made. `None` if the secret is another, or anything was changed.
    pub fn open(&self, wrapped: &[u8; WRAPPED_LEN]) -> Result<Option<Key>> {
        let mut body = Zeroizing::new(*wrapped);
        let cipher = self.cipher()?;
        let opened = cipher.open_in_place(self.nonce(), Aad::from(self.bound_to), &mut body[..]);
        Ok(opened.ok().and_then(|plain| {
            let mut key = Key::default();
            (plain.len() == KEY_LEN).then(|| {
                key.copy_from_slice(plain);
                key
            })
        }))
    }

    fn nonce(&self) -> Nonce {
        Nonce::assume_unique_for_key(*self.nonce)
    }

    fn cipher(&self) -> Result<LessSafeKey> {
        let key = derive(self.derivation, self.secret, self.salt)?;
        UnboundKey::new(&AES_256_GCM, &key[..])
            .map(LessSafeKey::new)
            .map_err(|_| Error::Unsupported("AES-256-GCM on this machine".into()))
    }
}

fn derive(derivation: Derivation<'_>, secret: &[u8], salt: &[u8]) -> Result<Key> {
    match derivation {
        Derivation::Argon2id { memory_kib, passes, lanes } => {
            let cost = Params::new(memory_kib, passes, lanes, Some(KEY_LEN)).map_err(refused)?;
            argon2id(&Argon2::new(Algorithm::Argon2id, Version::V0x13, cost), secret, salt)
        }
        Derivation::Hkdf { info } => {
            let mut key = Key::default();
            Salt::new(HKDF_SHA256, salt)
                .extract(secret)
                .expand(&[info], HKDF_SHA256)
                .and_then(|made| made.fill(&mut key[..]))
                .map_err(|_| Error::Invalid("HKDF failed".into()))?;
            Ok(key)
        }
    }
}

/// In the thread of the caller alone: lanes of 8 MiB are done before as many threads have met at
/// each of their twelve barriers.
fn argon2id(argon2: &Argon2<'_>, secret: &[u8], salt: &[u8]) -> Result<Key> {
    let mut memory = Memory::new(argon2.params().block_count())?;
    let mut key = Key::default();
    argon2
        .hash_password_into_with_memory(secret, salt, &mut key[..], &mut memory)
        .map_err(refused)?;
    Ok(key)
}

fn refused(error: argon2::Error) -> Error {
    Error::Invalid(format!("Argon2id: {error}"))
}

/// What Argon2id fills. A mapping of its own: it leaves the process as soon as it is let go of, and
/// in large pages it costs sixteen faults instead of eight thousand.
struct Memory(MmapMut);

impl Memory {
    fn new(blocks: usize) -> Result<Self> {
        let bytes = blocks.saturating_mul(Block::SIZE);
        let map = MmapMut::map_anon(bytes).map_err(|source| Error::Io {
            what: format!("can't have {} MiB of memory for Argon2id", bytes >> 20),
            source,
        })?;
        // Only advice: a kernel without large pages does it in small ones.
        let _ = map.advise(Advice::HugePage);
        let _ = map.advise(Advice::DontDump);
        Ok(Memory(map))
    }
}

impl AsMut<[Block]> for Memory {
    fn as_mut(&mut self) -> &mut [Block] {
        // SAFETY: a block is 1024 bytes of plain words, for which any bytes will do, and asks to lie
        // at a multiple of 64; whatever does not, and a rest that is no block, is not in the middle.
        let (before, blocks, _) = unsafe { self.0.align_to_mut::<Block>() };
        debug_assert!(before.is_empty(), "a mapping begins with a page");
        blocks
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use argon2::{AssociatedData, ParamsBuilder};

    use super::*;

    const NONCE: [u8; NONCE_LEN] = [9; NONCE_LEN];
    const CHEAP: Derivation<'_> = Derivation::Argon2id { memory_kib: 64, passes: 1, lanes: 1 };

    fn wrap<'a>(derivation: Derivation<'a>, secret: &'a [u8]) -> Wrap<'a> {
        Wrap { derivation, secret, salt: &[8; 32], nonce: &NONCE, bound_to: b"pool and cost" }
    }

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        digits
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect()
    }

    /// RFC 9106, 5.3.
    #[test]
    fn argon2id_is_that_of_the_rfc() {
        let cost = ParamsBuilder::new()
            .m_cost(32)
            .t_cost(3)
            .p_cost(4)
            .data(AssociatedData::new(&[4; 12]).unwrap())
            .output_len(KEY_LEN)
            .build()
            .unwrap();
        let argon2 =
            Argon2::new_with_secret(&[3; 8], Algorithm::Argon2id, Version::V0x13, cost).unwrap();
        assert_eq!(
            argon2id(&argon2, &[1; 32], &[2; 16]).unwrap()[..],
            hex("0d 64 0d f5 8d 78 76 6c 08 c0 37 a3 4a 8b 53 c9
                 d0 1e f0 45 2d 75 b6 5e b5 25 20 e9 6b 01 e6 59")
        );
    }

    /// RFC 5869, A.1, as far as 32 bytes of its 42.
    #[test]
    fn hkdf_is_that_of_the_rfc() {
        let info = hex("f0f1f2f3f4f5f6f7f8f9");
        let salt = hex("000102030405060708090a0b0c");
        let key = derive(Derivation::Hkdf { info: &info }, &[0x0b; 22], &salt).unwrap();
        assert_eq!(
            key[..],
            hex("3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf")
        );
    }

    #[test]
    fn what_was_wrapped_opens_with_the_same_and_nothing_else() {
        let info = b"a key file";
        for derivation in [CHEAP, Derivation::Hkdf { info }] {
            let made = wrap(derivation, b"words");
            let sealed = made.seal(&[7; KEY_LEN]).unwrap();
            assert_eq!(made.open(&sealed).unwrap().unwrap()[..], [7; KEY_LEN]);
            let others = [
                Wrap { secret: b"other", ..made },
                Wrap { salt: &[1; 32], ..made },
                Wrap { nonce: &[1; NONCE_LEN], ..made },
                Wrap { bound_to: b"another pool", ..made },
                Wrap { derivation: Derivation::Hkdf { info: b"another" }, ..made },
            ];
            for other in others {
                assert!(other.open(&sealed).unwrap().is_none());
            }
            for bit in 0..WRAPPED_LEN * 8 {
                let mut flipped = sealed;
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert!(made.open(&flipped).unwrap().is_none(), "bit {bit}");
            }
        }
    }

    #[test]
    fn a_cost_that_is_none_is_refused_in_words() {
        for (memory_kib, passes, lanes) in
            [(0, 1, 1), (64, 0, 1), (64, 1, 0), (7, 1, 1), (31, 1, 4)]
        {
            let asked = Derivation::Argon2id { memory_kib, passes, lanes };
            let error = wrap(asked, b"words").seal(&[7; KEY_LEN]).unwrap_err();
            assert_eq!(error.code(), "invalid");
            assert!(error.to_string().starts_with("Argon2id: "), "{error}");
        }
    }

    #[test]
    fn memory_that_can_not_be_had_is_an_error() {
        let error = Memory::new(usize::MAX / Block::SIZE).err().unwrap();
        assert!(error.to_string().contains("memory for Argon2id"), "{error}");
    }

    #[test]
    fn memory_has_as_many_blocks_as_were_asked_for() {
        for blocks in [8, 9, 100] {
            let mut memory = Memory::new(blocks).unwrap();
            assert_eq!(memory.as_mut().len(), blocks);
        }
    }
}
