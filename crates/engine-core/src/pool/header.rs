//! The object `pool`: what a pool is, readable before its key is known, proven once it is.
//! See `docs/formats/pool-header.md`.

use minicbor::{Decoder, Encoder};

use crate::chunker::ChunkSizes;
use crate::error::{Error, Result};
use crate::ids::Id;
use crate::keys::PoolKeys;
use crate::store::Store;

pub const KEY: &str = "pool";
pub const MAGIC: [u8; 7] = *b"HFPOOL\0";
pub const VERSION: u8 = 1;
const MAC_LEN: usize = 32;
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
}

impl Header {
    pub fn encode(&self, keys: &PoolKeys) -> Vec<u8> {
        let map = self.encode_map();
        let mut bytes = Vec::with_capacity(FRONT_LEN + map.len() + MAC_LEN);
        bytes.extend_from_slice(&MAGIC);
        bytes.push(VERSION);
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
        let _ = to.map(7).and_then(|to| to.str("id")?.bytes(&self.id.0));
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
        if version != VERSION {
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
        decode_map(&bytes[FRONT_LEN..FRONT_LEN + length])
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

fn decode_map(bytes: &[u8]) -> std::result::Result<Header, minicbor::decode::Error> {
    use minicbor::decode::Error as Bad;
    let mut from = Decoder::new(bytes);
    if from.map()? != Some(7) {
        return Err(Bad::message("want a map of seven fields"));
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
    if from.position() != bytes.len() {
        return Err(Bad::message("bytes after the map"));
    }
    Ok(Header { id, config: PoolConfig { chunks, block_bytes, pack_bytes }, created_ns })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn header() -> Header {
        Header { id: Id([5; 16]), config: PoolConfig::default(), created_ns: 1_700_000_000 }
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
        let keys = PoolKeys::derive(&[1; 32]);
        let bytes = header().encode(&keys);
        for at in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[at / 8] ^= 1 << (at % 8);
            let outcome = Header::decode("here", &bad).and_then(|_| Header::prove(&bad, &keys));
            assert!(outcome.is_err(), "bit {at}");
        }
    }

    #[test]
    fn a_newer_pool_is_refused_before_anything_else_is_read() {
        let error = Header::decode("here", b"HFPOOL\0\x02whatever").unwrap_err();
        assert_eq!(error.code(), "newer-format");
        assert_eq!(Header::decode("here", b"PK\x03\x04").unwrap_err().code(), "not-a-pool");
    }
}
