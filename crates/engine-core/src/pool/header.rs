//! The object `pool`: what a pool is, readable before its key is known, proven once it is.
//! See `docs/formats/pool-header.md`.

use minicbor::{Decoder, Encoder};

use crate::chunker::ChunkSizes;
use crate::error::{Error, Result};
use crate::ids::{Id, random_bytes};
use crate::keys::{NameKeys, PoolKeys, TAG_LEN};
use crate::store::Store;

pub const KEY: &str = "pool";
pub const MAGIC: [u8; 7] = *b"HFPOOL\0";
/// The newest; a pool that names its chunks by itself has [`VERSION_ALONE`].
pub const VERSION: u8 = 2;
/// The version of a header without the keys that name chunks.
pub const VERSION_ALONE: u8 = 1;
const MAC_LEN: usize = 32;
const SALT_LEN: usize = 32;
/// Salt, the keys that name chunks, sealed, and the tag.
pub const NAMING_LEN: usize = SALT_LEN + NameKeys::LEN + TAG_LEN;
const FRONT_LEN: usize = 12;
/// No header is longer; more is not read.
const MAX_LEN: usize = 64 << 10;

/// What a pool is made with; it never changes afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolConfig {
    pub chunks: ChunkSizes,
    /// Plain bytes of chunks that are compressed and sealed together.
    pub block_bytes: u32,
    /// Stored bytes at which a pack is closed.
    pub pack_bytes: u64,
}

impl Default for PoolConfig {
    fn default() -> Self {
        PoolConfig {
            chunks: ChunkSizes { min: 8 << 10, avg: 32 << 10, max: 128 << 10 },
            block_bytes: 1 << 20,
            pack_bytes: 64 << 20,
        }
    }
}

impl PoolConfig {
    pub fn check(self) -> Result<Self> {
        self.chunks.check()?;
        if !(4096..=8 << 20).contains(&self.block_bytes) {
            return Err(Error::Invalid(format!(
                "blocks of {} bytes: want 4 KiB to 8 MiB",
                self.block_bytes
            )));
        }
        if !(4096..=1 << 30).contains(&self.pack_bytes) {
            return Err(Error::Invalid(format!(
                "packs of {} bytes: want 4 KiB to 1 GiB",
                self.pack_bytes
            )));
        }
        Ok(self)
    }
}

/// A pool's header as read; [`Header::prove`] says whether the key is the pool's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    pub id: Id,
    pub config: PoolConfig,
    pub created_ns: i64,
    /// Sealed: what names chunks here and in other pools. None: it comes from this pool's key.
    pub naming: Option<[u8; NAMING_LEN]>,
}

impl Header {
    /// With chunks named as `naming` does, whatever the pool's key would make of it.
    pub fn sharing(mut self, naming: &NameKeys, keys: &PoolKeys) -> Result<Self> {
        let mut salt = [0; SALT_LEN];
        random_bytes(&mut salt)?;
        self.seal_naming(naming, keys, salt)?;
        Ok(self)
    }

    fn seal_naming(
        &mut self,
        naming: &NameKeys,
        keys: &PoolKeys,
        salt: [u8; SALT_LEN],
    ) -> Result<()> {
        let mut sealed = salt.to_vec();
        sealed.extend_from_slice(&naming.to_bytes());
        keys.header_naming(&salt)?.seal(0, &self.id.0, &mut sealed, SALT_LEN)?;
        self.naming = sealed.try_into().ok();
        Ok(())
    }

    /// The keys of this pool, which name chunks as the header says. It was proven before.
    pub fn open_naming(&self, keys: PoolKeys) -> Result<PoolKeys> {
        let Some(stored) = &self.naming else { return Ok(keys) };
        let (salt, sealed) = stored.split_at(SALT_LEN);
        let (mut key, mut body) = ([0; SALT_LEN], sealed.to_vec());
        key.copy_from_slice(salt);
        let seal = keys.header_naming(&key)?;
        let plain = seal.open(0, &self.id.0, &mut body).and_then(|plain| (&*plain).try_into().ok());
        let naming =
            plain.ok_or_else(|| Error::integrity("pool", "the seal of 'naming' is broken"))?;
        Ok(keys.with_naming(NameKeys::from_bytes(&naming)))
    }

    pub fn encode(&self, keys: &PoolKeys) -> Vec<u8> {
        let map = self.encode_map();
        let mut bytes = Vec::with_capacity(FRONT_LEN + map.len() + MAC_LEN);
        bytes.extend_from_slice(&MAGIC);
        bytes.push(if self.naming.is_some() { VERSION } else { VERSION_ALONE });
        bytes.extend_from_slice(&(map.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&map);
        let mac = keys.header_mac(&bytes);
        bytes.extend_from_slice(mac.as_bytes());
        bytes
    }

    fn encode_map(&self) -> Vec<u8> {
        let config = &self.config;
        let mut map = Vec::new();
        let mut to = Encoder::new(&mut map);
        // Writing to a vector does not fail.
        let fields = if self.naming.is_some() { 8 } else { 7 };
        let _ = to.map(fields).and_then(|to| to.str("id")?.bytes(&self.id.0));
        for (name, value) in [
            ("chunk_min", u64::from(config.chunks.min)),
            ("chunk_avg", u64::from(config.chunks.avg)),
            ("chunk_max", u64::from(config.chunks.max)),
            ("block_bytes", u64::from(config.block_bytes)),
            ("pack_bytes", config.pack_bytes),
        ] {
            let _ = to.str(name).and_then(|to| to.u64(value));
        }
        let _ = to.str("created_ns").and_then(|to| to.i64(self.created_ns));
        if let Some(naming) = &self.naming {
            let _ = to.str("naming").and_then(|to| to.bytes(naming));
        }
        map
    }

    /// Reads a header without its key. `place` names the store in messages.
    pub fn decode(place: &str, bytes: &[u8]) -> Result<Self> {
        let foreign =
            |reason: &str| Error::NotAPool { place: place.to_owned(), reason: reason.to_owned() };
        if bytes.get(..7) != Some(&MAGIC[..]) {
            return Err(foreign("its object 'pool' is not a Holdfast pool header"));
        }
        let version = *bytes.get(7).ok_or_else(|| foreign("its header is cut short"))?;
        if version > VERSION {
            return Err(Error::NewerFormat {
                object: format!("pool '{place}'"),
                found: u64::from(version),
                known: u64::from(VERSION),
            });
        }
        let damaged = |reason: &str| Error::integrity("pool", reason);
        if version < VERSION_ALONE {
            return Err(damaged("unknown format version 0"));
        }
        let length: [u8; 4] = bytes
            .get(8..FRONT_LEN)
            .and_then(|raw| raw.try_into().ok())
            .ok_or_else(|| damaged("cut short"))?;
        let length = u32::from_le_bytes(length) as usize;
        if length > MAX_LEN || bytes.len() != FRONT_LEN + length + MAC_LEN {
            return Err(damaged("its length is not what it states"));
        }
        decode_map(version, &bytes[FRONT_LEN..FRONT_LEN + length])
            .map_err(|error| damaged(&error.to_string()))
            .and_then(|header| {
                header.config.check().map_err(|error| damaged(&error.to_string()))?;
                Ok(header)
            })
    }

    /// Whether `keys` are this pool's and the header is as it was written.
    pub fn prove(bytes: &[u8], keys: &PoolKeys) -> Result<()> {
        let split = bytes.len().saturating_sub(MAC_LEN);
        let (front, mac) = bytes.split_at(split);
        let mac: [u8; MAC_LEN] =
            mac.try_into().map_err(|_| Error::integrity("pool", "cut short"))?;
        // Compares in constant time.
        if keys.header_mac(front) == mac {
            Ok(())
        } else {
            Err(Error::WrongKey { object: "the pool".into() })
        }
    }

    /// The header's bytes from a store.
    pub fn load(store: &dyn Store) -> Result<Vec<u8>> {
        match store.get(KEY) {
            Err(Error::ObjectMissing { .. }) => Err(Error::NotAPool {
                place: store.place(),
                reason: "it holds no object named 'pool'".into(),
            }),
            other => other,
        }
    }
}

fn decode_map(version: u8, bytes: &[u8]) -> std::result::Result<Header, minicbor::decode::Error> {
    use minicbor::decode::Error as Bad;
    let mut from = Decoder::new(bytes);
    let has_naming = version > VERSION_ALONE;
    if from.map()? != Some(if has_naming { 8 } else { 7 }) {
        return Err(Bad::message("want a map of seven fields, or of eight in version 2"));
    }
    let expect = |from: &mut Decoder<'_>, name: &'static str| {
        if from.str()? == name { Ok(()) } else { Err(Bad::message(name)) }
    };
    expect(&mut from, "id")?;
    let id = Id(from.bytes()?.try_into().map_err(|_| Bad::message("id of another length"))?);
    let mut number = |name: &'static str| {
        expect(&mut from, name)?;
        from.u64()
    };
    let small = |value: u64| u32::try_from(value).map_err(|_| Bad::message("number too large"));
    let chunks = ChunkSizes {
        min: small(number("chunk_min")?)?,
        avg: small(number("chunk_avg")?)?,
        max: small(number("chunk_max")?)?,
    };
    let block_bytes = small(number("block_bytes")?)?;
    let pack_bytes = number("pack_bytes")?;
    expect(&mut from, "created_ns")?;
    let created_ns = from.i64()?;
    let mut naming = None;
    if has_naming {
        expect(&mut from, "naming")?;
        let bytes = from.bytes()?;
        naming = Some(bytes.try_into().map_err(|_| Bad::message("naming of another length"))?);
    }
    if from.position() != bytes.len() {
        return Err(Bad::message("bytes after the map"));
    }
    let config = PoolConfig { chunks, block_bytes, pack_bytes };
    Ok(Header { id, config, created_ns, naming })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn header() -> Header {
        let config = PoolConfig::default();
        Header { id: Id([5; 16]), config, created_ns: 1_700_000_000, naming: None }
    }

    /// The header of a pool that names chunks as the one of key 2 does, with key 1.
    fn sharing() -> (PoolKeys, Header) {
        let keys = PoolKeys::derive(&[1; 32]);
        let other = PoolKeys::derive(&[2; 32]);
        let header = header().sharing(other.naming(), &keys).unwrap();
        (keys, header)
    }

    #[test]
    fn a_header_comes_back_and_proves_its_key() {
        let keys = PoolKeys::derive(&[1; 32]);
        let bytes = header().encode(&keys);
        assert_eq!(Header::decode("here", &bytes).unwrap(), header());
        Header::prove(&bytes, &keys).unwrap();
        let error = Header::prove(&bytes, &PoolKeys::derive(&[2; 32])).unwrap_err();
        assert_eq!(error.code(), "wrong-key");
    }

    #[test]
    fn each_flipped_bit_is_noticed() {
        let (keys, sharing) = sharing();
        for bytes in [header().encode(&keys), sharing.encode(&keys)] {
            for at in 0..bytes.len() * 8 {
                let mut bad = bytes.clone();
                bad[at / 8] ^= 1 << (at % 8);
                let outcome = Header::decode("here", &bad).and_then(|_| Header::prove(&bad, &keys));
                assert!(outcome.is_err(), "bit {at}");
            }
        }
    }

    #[test]
    fn keys_that_name_chunks_come_back_from_a_header_and_no_other_key_does() {
        let (keys, sharing) = sharing();
        let bytes = sharing.encode(&keys);
        assert_eq!(bytes[7], VERSION);
        let read = Header::decode("here", &bytes).unwrap();
        assert_eq!(read, sharing);
        let opened = read.open_naming(keys.clone()).unwrap();
        let other = PoolKeys::derive(&[2; 32]);
        assert!(opened.naming() == other.naming() && opened.naming() != keys.naming());
        assert_eq!(opened.header_mac(b"x"), keys.header_mac(b"x"));
        assert!(!bytes.windows(32).any(|part| part == &other.naming().to_bytes()[..32]));
        // The same keys are sealed to other bytes in each pool.
        assert_ne!(header().sharing(other.naming(), &keys).unwrap(), sharing);
        assert!(header().open_naming(keys.clone()).unwrap().naming() == keys.naming());
    }

    #[test]
    fn naming_of_another_pool_or_key_does_not_open() {
        let (keys, sharing) = sharing();
        let moved = Header { id: Id([6; 16]), ..sharing.clone() };
        assert_eq!(moved.open_naming(keys).err().unwrap().code(), "integrity");
        let wrong = sharing.open_naming(PoolKeys::derive(&[3; 32]));
        assert_eq!(wrong.err().unwrap().code(), "integrity");
    }

    #[test]
    fn a_version_and_the_fields_of_another_are_refused() {
        let (keys, sharing) = sharing();
        for (header, version) in [(header(), VERSION), (sharing, VERSION_ALONE)] {
            let mut bytes = header.encode(&keys);
            bytes[7] = version;
            assert_eq!(Header::decode("here", &bytes).unwrap_err().code(), "integrity");
        }
    }

    #[test]
    fn a_newer_pool_is_refused_before_anything_else_is_read() {
        let error = Header::decode("here", b"HFPOOL\0\x03whatever").unwrap_err();
        assert_eq!(error.code(), "newer-format");
        assert_eq!(Header::decode("here", b"PK\x03\x04").unwrap_err().code(), "not-a-pool");
    }
}
