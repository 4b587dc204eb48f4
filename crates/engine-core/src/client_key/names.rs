//! Names of files that the pool can't read: the same for the same name in the same directory, of
//! one image after the other, and nothing to go by otherwise.

use super::ClientKey;
use crate::error::{Error, Result};
use crate::tree::codec::is_legal_name;

/// What a sealed name begins with, so that people see what it is.
pub const PREFIX: &[u8] = b"sealed:";
/// Names are filled up to a multiple of so many bytes.
const STEP: usize = 16;
const ID_BYTES: usize = 16;
/// The longest name that can be sealed: far above what a file system gives.
const LONGEST: usize = 2048;
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// What names in one directory are sealed with; made of all names on the way to it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct DirKey([u8; 32]);

impl DirKey {
    /// Of a directory in this one, by its plain name.
    #[must_use]
    pub fn child(&self, name: &[u8]) -> Self {
        DirKey(*blake3::keyed_hash(&self.0, name).as_bytes())
    }

    pub(crate) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl ClientKey {
    /// Of the directory `/`.
    pub fn root_dir(&self) -> DirKey {
        DirKey(self.top)
    }

    /// The sealed form of a name in a directory.
    pub fn seal_name(&self, dir: &DirKey, name: &[u8]) -> Result<Vec<u8>> {
        if name.len() > LONGEST || !is_legal_name(name) {
            return Err(Error::Invalid(format!(
                "a name of {} bytes can't be sealed; at most {LONGEST} can",
                name.len()
            )));
        }
        let mut padded = name.to_vec();
        padded.resize(name.len().next_multiple_of(STEP), 0);
        let mut bytes = self.name_id(dir, &padded).to_vec();
        self.mask(dir, &bytes, &mut padded);
        bytes.extend_from_slice(&padded);
        let mut sealed = PREFIX.to_vec();
        encode(&bytes, &mut sealed);
        Ok(sealed)
    }

    /// The plain name that was sealed in this directory; `None` if this is none.
    pub fn open_name(&self, dir: &DirKey, sealed: &[u8]) -> Option<Vec<u8>> {
        let bytes = decode(sealed.strip_prefix(PREFIX)?)?;
        let (id, masked) = bytes.split_at_checked(ID_BYTES)?;
        let mut name = masked.to_vec();
        self.mask(dir, id, &mut name);
        if self.name_id(dir, &name) != id || !name.len().is_multiple_of(STEP) {
            return None;
        }
        let length = name.iter().rposition(|byte| *byte != 0)? + 1;
        name.truncate(length);
        is_legal_name(&name).then_some(name)
    }

    /// The sealed form of an absolute path, part by part; parts that are sealed stay.
    pub fn seal_path(&self, path: &[u8]) -> Vec<u8> {
        self.along(path, |dir, part| {
            let sealed = match self.open_name(dir, part) {
                Some(plain) => return (plain, part.to_vec()),
                None => self.seal_name(dir, part).unwrap_or_else(|_| PREFIX.to_vec()),
            };
            (part.to_vec(), sealed)
        })
    }

    /// The plain form of a path of which any parts are sealed. What does not open stays.
    pub fn open_path(&self, path: &[u8]) -> Vec<u8> {
        self.along(path, |dir, part| {
            let plain = self.open_name(dir, part).unwrap_or_else(|| part.to_vec());
            (plain.clone(), plain)
        })
    }

    /// Puts something in place of each part; `each` says the part's plain name, and what.
    fn along(
        &self,
        path: &[u8],
        mut each: impl FnMut(&DirKey, &[u8]) -> (Vec<u8>, Vec<u8>),
    ) -> Vec<u8> {
        let mut dir = self.root_dir();
        let mut done = Vec::with_capacity(path.len());
        for (at, part) in path.split(|byte| *byte == b'/').enumerate() {
            if at > 0 {
                done.push(b'/');
            }
            if !part.is_empty() {
                let (plain, shown) = each(&dir, part);
                dir = dir.child(&plain);
                done.extend_from_slice(&shown);
            }
        }
        done
    }

    fn name_id(&self, dir: &DirKey, padded: &[u8]) -> [u8; ID_BYTES] {
        let mut id = [0; ID_BYTES];
        id.copy_from_slice(&self.name.id_of(dir.bytes(), padded)[..ID_BYTES]);
        id
    }

    /// Masks a name, or takes the mask off again.
    fn mask(&self, dir: &DirKey, id: &[u8], name: &mut [u8]) {
        let mut stream = vec![0; name.len()];
        blake3::Hasher::new_keyed(&self.name.seal)
            .update(dir.bytes())
            .update(id)
            .finalize_xof()
            .fill(&mut stream);
        for (byte, mask) in name.iter_mut().zip(stream) {
            *byte ^= mask;
        }
    }
}

/// Base 32 (RFC 4648) in small letters, without padding.
fn encode(bytes: &[u8], out: &mut Vec<u8>) {
    let (mut held, mut bits) = (0_u32, 0);
    for byte in bytes {
        held = held << 8 | u32::from(*byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            out.push(ALPHABET[(held >> bits & 31) as usize]);
        }
        held &= (1 << bits) - 1;
    }
    if bits > 0 {
        out.push(ALPHABET[(held << (5 - bits) & 31) as usize]);
    }
}

fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() * 5 / 8);
    let (mut held, mut bits) = (0_u32, 0);
    for letter in text {
        let value = match letter {
            b'a'..=b'z' => letter - b'a',
            b'2'..=b'7' => letter - b'2' + 26,
            _ => return None,
        };
        held = held << 5 | u32::from(value);
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            bytes.push((held >> bits) as u8);
        }
        held &= (1 << bits) - 1;
    }
    // One spelling only: nothing is left, and no letter too many.
    (held == 0 && bits < 5).then_some(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn key() -> ClientKey {
        ClientKey::derive(&[1; 32])
    }

    #[test]
    fn a_sealed_name_tells_neither_its_directory_nor_its_exact_length() {
        let (key, other) = (key(), ClientKey::derive(&[2; 32]));
        let root = key.root_dir();
        let seal = |name: &[u8]| key.seal_name(&root, name).unwrap();
        assert!(seal(b"a").starts_with(PREFIX));
        assert_eq!(seal(b"a").len(), seal(b"fifteen letters").len());
        assert!(seal(b"seventeen letters").len() > seal(b"a").len());
        assert_eq!(seal(b"a"), seal(b"a"));
        let elsewhere = key.seal_name(&root.child(b"x"), b"a").unwrap();
        assert_ne!(elsewhere, seal(b"a"));
        assert_eq!(key.open_name(&root, &elsewhere), None);
        assert_eq!(other.open_name(&other.root_dir(), &seal(b"a")), None);
        assert!(seal(&[b'n'; 255]).len() < 512);
    }

    #[test]
    fn what_is_no_name_is_neither_sealed_nor_opened() {
        let (key, root) = (key(), key().root_dir());
        for name in [&b""[..], b".", b"..", b"a/b", b"a\0", &[b'n'; 2049]] {
            assert!(key.seal_name(&root, name).is_err());
        }
        let sealed = key.seal_name(&root, b"name").unwrap();
        for at in 0..sealed.len() {
            let mut bad = sealed.clone();
            bad[at] = if bad[at] == b'b' { b'c' } else { b'b' };
            assert_eq!(key.open_name(&root, &bad), None);
            assert_eq!(key.open_name(&root, &sealed[..at]), None);
        }
        assert_eq!(key.open_name(&root, &[sealed.as_slice(), b"a"].concat()), None);
    }

    #[test]
    fn paths_go_there_and_back_whichever_parts_are_sealed() {
        let key = key();
        let sealed = key.seal_path(b"/srv/a file/x");
        assert_eq!(key.seal_path(&sealed), sealed);
        assert_eq!(key.open_path(&sealed), b"/srv/a file/x");
        let parts: Vec<&[u8]> = sealed.split(|byte| *byte == b'/').collect();
        let mixed = [b"/srv/", parts[2], b"/x"].concat();
        assert_eq!(key.open_path(&mixed), b"/srv/a file/x");
        assert_eq!(key.open_path(b"/sealed:zzz/x"), b"/sealed:zzz/x");
        assert_eq!((key.seal_path(b""), key.seal_path(b"/")), (Vec::new(), b"/".to_vec()));
    }

    proptest! {
        #[test]
        fn every_legal_name_comes_back(name in vec(1..=255_u8, 1..300), dir in vec(1..=255_u8, 1..9)) {
            prop_assume!(is_legal_name(&name));
            let (key, dir) = (key(), key().root_dir().child(&dir));
            let sealed = key.seal_name(&dir, &name).unwrap();
            prop_assert!(is_legal_name(&sealed));
            prop_assert!(sealed.is_ascii());
            prop_assert_eq!(key.open_name(&dir, &sealed), Some(name));
        }

        #[test]
        fn base_32_comes_back_and_has_one_spelling(bytes in vec(any::<u8>(), 0..64)) {
            let mut text = Vec::new();
            encode(&bytes, &mut text);
            prop_assert_eq!(decode(&text), Some(bytes));
            if let Some(last) = text.pop() {
                prop_assert_ne!(decode(&text).map(|bytes| { let mut t = Vec::new(); encode(&bytes, &mut t); t }), Some([text.as_slice(), &[last]].concat()));
            }
        }
    }
}
