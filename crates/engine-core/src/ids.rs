//! Identifiers: chunk names, references, packs, images, jobs.

use std::fmt;

use crate::error::{Error, Result};

/// What a chunk holds. Each kind is named under a key of its own, so a name is bound to a kind
/// and no file's bytes can pass for a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Kind {
    Data = 0,
    Tree = 1,
    List = 2,
}

impl Kind {
    pub fn from_u8(value: u8) -> Option<Self> {
        match value {
            0 => Some(Kind::Data),
            1 => Some(Kind::Tree),
            2 => Some(Kind::List),
            _ => None,
        }
    }
}

/// The 32-byte keyed BLAKE3 of a chunk's plaintext.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(pub [u8; 32]);

/// The first 16 bytes of a name: what the index holds.
pub type Prefix = [u8; 16];

impl Name {
    pub fn prefix(&self) -> Prefix {
        let mut prefix = [0; 16];
        prefix.copy_from_slice(&self.0[..16]);
        prefix
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

/// Points at a chunk: its name and its length. 36 bytes when stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ref {
    pub name: Name,
    /// The plain length, below 2^24. Of a chunk that a client sealed, the upper 8 bits say besides
    /// how long it is as stored: see `docs/formats/client-keys.md`.
    pub length: u32,
}

/// What sealing a chunk with a client key adds at most.
pub const CLIENT_SEAL_BYTES: u32 = 52;
const PLAIN_LENGTH: u32 = 0x00FF_FFFF;

impl Ref {
    pub const SIZE: usize = 36;

    /// The length field of a chunk that a client sealed: it has `plain` bytes, and `sealed` or a
    /// few more as stored, `sealed` being at most [`CLIENT_SEAL_BYTES`] more than `plain`.
    pub fn sealed_length(plain: u32, sealed: u32) -> u32 {
        let most = u64::from(plain + CLIENT_SEAL_BYTES);
        let parts = (u64::from(sealed) * 255).div_ceil(most).clamp(1, 255) as u32;
        plain | parts << 24
    }

    /// Bytes that the chunk is of whatever it is a part of.
    pub fn plain_length(&self) -> u32 {
        self.length & PLAIN_LENGTH
    }

    /// Bytes that the pool stores under its name.
    pub fn stored_length(&self) -> u32 {
        match self.length >> 24 {
            0 => self.length,
            parts => {
                let most = u64::from(self.plain_length() + CLIENT_SEAL_BYTES);
                // At most `most`, which is far below 2^32.
                (most * u64::from(parts)).div_ceil(255) as u32
            }
        }
    }

    /// Whether a client sealed it, so that the pool stores what it can't read.
    pub fn is_client_sealed(&self) -> bool {
        self.length > PLAIN_LENGTH
    }

    pub fn to_bytes(self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        bytes[..32].copy_from_slice(&self.name.0);
        bytes[32..].copy_from_slice(&self.length.to_le_bytes());
        bytes
    }

    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let name: [u8; 32] = bytes.get(..32)?.try_into().ok()?;
        let length: [u8; 4] = bytes.get(32..36)?.try_into().ok()?;
        (bytes.len() == Self::SIZE)
            .then_some(Ref { name: Name(name), length: u32::from_le_bytes(length) })
    }

    /// References laid end to end; `None` unless the length is a multiple of [`Ref::SIZE`].
    pub fn iter(bytes: &[u8]) -> Option<impl ExactSizeIterator<Item = Ref> + '_> {
        bytes.len().is_multiple_of(Self::SIZE).then(|| {
            bytes.chunks_exact(Self::SIZE).map(|item| {
                let mut name = [0; 32];
                name.copy_from_slice(&item[..32]);
                let length = u32::from_le_bytes([item[32], item[33], item[34], item[35]]);
                Ref { name: Name(name), length }
            })
        })
    }
}

/// A pack's name: the unkeyed BLAKE3 of all its bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PackId(pub [u8; 32]);

impl PackId {
    /// Where the pack lies in a store: `packs/ab/ab…`.
    pub fn key(&self) -> String {
        let text = hex(&self.0);
        format!("packs/{}/{}", &text[..2], text)
    }

    pub fn from_key(key: &str) -> Option<Self> {
        let text = key.strip_prefix("packs/")?.get(3..)?;
        let id = PackId(unhex(text)?);
        (id.key() == key).then_some(id)
    }
}

impl fmt::Debug for PackId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for PackId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

/// Sixteen random bytes that name an image, an index segment, a job, a mark or a pool.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id(pub [u8; 16]);

impl Id {
    pub fn random() -> Result<Self> {
        let mut bytes = [0; 16];
        random_bytes(&mut bytes)?;
        Ok(Id(bytes))
    }

    pub fn parse(text: &str) -> Option<Self> {
        unhex(text).map(Id)
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

/// Fills `bytes` from the operating system's generator.
pub fn random_bytes(bytes: &mut [u8]) -> Result<()> {
    getrandom::fill(bytes)
        .map_err(|error| Error::io("asking the system for random bytes", error.into()))
}

pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

/// Exactly `2 * N` lower-case hexadecimal digits.
pub fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = value(pair[0])? << 4 | value(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pack_key_names_its_pack_and_nothing_else_does() {
        let id = PackId([0xab; 32]);
        assert_eq!(PackId::from_key(&id.key()), Some(id));
        assert_eq!(PackId::from_key(&id.key().replacen("packs/ab/", "packs/ac/", 1)), None);
        assert_eq!(PackId::from_key("packs/"), None);
        assert_eq!(PackId::from_key("packs/ab/xyz"), None);
    }

    #[test]
    fn a_sealed_length_says_both_and_is_never_shorter_than_what_is_stored() {
        for plain in [1, 2, 255, 256, 8191, 32_768, 131_020, 8_388_556, (1 << 24) - 1] {
            let most = plain + CLIENT_SEAL_BYTES;
            for sealed in [53, 60, most / 3, most / 2, most - 1, most] {
                let sealed = sealed.clamp(53, most);
                let length = Ref::sealed_length(plain, sealed);
                let reference = Ref { name: Name([1; 32]), length };
                assert!(reference.is_client_sealed());
                assert_eq!(reference.plain_length(), plain);
                let stored = reference.stored_length();
                assert!((sealed..=most).contains(&stored), "{plain} {sealed} {stored}");
                assert!(stored - sealed <= most.div_ceil(255), "{plain} {sealed} {stored}");
                assert_eq!(Ref::from_bytes(&reference.to_bytes()), Some(reference));
            }
        }
        let open = Ref { name: Name([1; 32]), length: (1 << 24) - 1 };
        assert!(!open.is_client_sealed());
        assert_eq!((open.plain_length(), open.stored_length()), (open.length, open.length));
    }

    #[test]
    fn a_reference_survives_its_bytes() {
        let reference = Ref { name: Name([7; 32]), length: 123_456 };
        assert_eq!(Ref::from_bytes(&reference.to_bytes()), Some(reference));
        assert_eq!(Ref::from_bytes(&[0; 35]), None);
        assert_eq!(Ref::from_bytes(&[0; 37]), None);
    }
}
