//! Sealed small objects: image manifests, records of jobs, garbage marks. See
//! `docs/formats/manifest.md`.
//!
//! An object opens only under the key that it was sealed for: nobody without the pool's key can
//! put one image in the place of another.

use crate::error::{Error, Result};
use crate::ids::random_bytes;
use crate::keys::{PoolKeys, TAG_LEN};

const MAGIC: &[u8; 6] = b"HFOBJ\0";
const VERSION: u8 = 1;
const HEAD_LEN: usize = 8;
const SALT_LEN: usize = 32;
/// Everything before the ciphertext.
const FRONT_LEN: usize = HEAD_LEN + SALT_LEN;

/// What a sealed object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ObjectType {
    Image = b'I',
    Job = b'J',
    Mark = b'M',
}

/// The bytes to store under `key`.
pub fn seal_object(
    keys: &PoolKeys,
    object_type: ObjectType,
    key: &str,
    plain: &[u8],
) -> Result<Vec<u8>> {
    let mut salt = [0; SALT_LEN];
    random_bytes(&mut salt)?;
    let mut bytes = Vec::with_capacity(FRONT_LEN + plain.len() + TAG_LEN);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&[object_type as u8, VERSION]);
    bytes.extend_from_slice(&salt);
    let context = context(&bytes, key);
    bytes.extend_from_slice(plain);
    keys.object(&salt)?.seal(0, &context, &mut bytes, FRONT_LEN)?;
    Ok(bytes)
}

/// The plain bytes of what is stored under `key`.
pub fn open_object(
    keys: &PoolKeys,
    object_type: ObjectType,
    key: &str,
    bytes: &[u8],
) -> Result<Vec<u8>> {
    let damaged = |reason: &str| Error::integrity(format!("object '{key}'"), reason);
    let (Some(front), Some(sealed)) = (bytes.get(..FRONT_LEN), bytes.get(FRONT_LEN..)) else {
        return Err(damaged(&format!("it is only {} bytes long", bytes.len())));
    };
    if !front.starts_with(MAGIC) {
        return Err(damaged("it does not begin as a sealed object does"));
    }
    let version = front[7];
    if version > VERSION {
        return Err(Error::NewerFormat {
            object: format!("object '{key}'"),
            found: u64::from(version),
            known: u64::from(VERSION),
        });
    }
    if version != VERSION || front[6] != object_type as u8 {
        return Err(damaged("it is of another type"));
    }
    let mut salt = [0; SALT_LEN];
    salt.copy_from_slice(&front[HEAD_LEN..]);
    let mut body = sealed.to_vec();
    let plain = keys
        .object(&salt)?
        .open(0, &context(front, key), &mut body)
        .ok_or_else(|| damaged("its seal is broken"))?
        .len();
    body.truncate(plain);
    Ok(body)
}

fn context(front: &[u8], key: &str) -> Vec<u8> {
    [front, key.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const KEY: &str = "images/00112233445566778899aabbccddeeff";

    fn sealed() -> (PoolKeys, Vec<u8>) {
        let keys = PoolKeys::derive(&[1; 32]);
        let bytes = seal_object(&keys, ObjectType::Image, KEY, b"the manifest").unwrap();
        (keys, bytes)
    }

    #[test]
    fn a_sealed_object_opens_to_what_was_sealed() {
        let (keys, bytes) = sealed();
        assert_eq!(open_object(&keys, ObjectType::Image, KEY, &bytes).unwrap(), b"the manifest");
        assert!(!bytes.windows(8).any(|window| window == b"manifest"));
    }

    #[test]
    fn an_object_in_the_place_of_another_is_refused() {
        let (keys, bytes) = sealed();
        for (object_type, key) in
            [(ObjectType::Job, KEY), (ObjectType::Image, "images/0"), (ObjectType::Image, "")]
        {
            let error = open_object(&keys, object_type, key, &bytes).unwrap_err();
            assert_eq!(error.code(), "integrity");
        }
        let other = PoolKeys::derive(&[2; 32]);
        assert!(open_object(&other, ObjectType::Image, KEY, &bytes).is_err());
    }

    #[test]
    fn every_flipped_bit_and_every_missing_byte_is_noticed() {
        let (keys, bytes) = sealed();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(open_object(&keys, ObjectType::Image, KEY, &flipped).is_err(), "bit {bit}");
        }
        for length in 0..bytes.len() {
            assert!(open_object(&keys, ObjectType::Image, KEY, &bytes[..length]).is_err());
        }
    }

    #[test]
    fn a_newer_version_is_named_as_such() {
        let (keys, mut bytes) = sealed();
        bytes[7] = 2;
        let error = open_object(&keys, ObjectType::Image, KEY, &bytes).unwrap_err();
        assert_eq!(error.code(), "newer-format");
    }
}
