//! What a media server tells a client of a pool: how its chunks are cut and named. Opens nothing.

use crate::cbor::{self, Parsed, Reader};
use crate::chunker::ChunkSizes;
use crate::error::{Error, Result};
use crate::ids::Id;
use crate::keys::NameKeys;
use crate::pool::{Pool, PoolConfig};

const VERSION: u64 = 1;

#[derive(Clone, PartialEq, Eq)]
pub struct Terms {
    pub pool: Id,
    pub naming: NameKeys,
    pub chunks: ChunkSizes,
    /// Plain bytes of chunks that are compressed together.
    pub block_bytes: u32,
    /// No mark stands: what an earlier image names may be named again unasked.
    pub may_reuse: bool,
}

impl Terms {
    pub fn of(pool: &Pool, may_reuse: bool) -> Self {
        let PoolConfig { chunks, block_bytes, .. } = *pool.config();
        Terms {
            pool: pool.id(),
            naming: pool.keys().naming().clone(),
            chunks,
            block_bytes,
            may_reuse,
        }
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        cbor::write_array(&mut out, 8);
        cbor::write_uint(&mut out, VERSION);
        cbor::write_bytes(&mut out, &self.pool.0);
        cbor::write_bytes(&mut out, &self.naming.to_bytes());
        for length in [self.chunks.min, self.chunks.avg, self.chunks.max, self.block_bytes] {
            cbor::write_uint(&mut out, u64::from(length));
        }
        cbor::write_uint(&mut out, u64::from(self.may_reuse));
        out
    }

    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let (version, terms) =
            Self::parse(bytes).map_err(|malformed| malformed.within("the terms of a pool"))?;
        if version > VERSION {
            let object = "the terms of a pool".into();
            return Err(Error::NewerFormat { object, found: version, known: VERSION });
        }
        let Some(terms) = terms else {
            return Err(Error::integrity("the terms of a pool", "they have no known version"));
        };
        let config = PoolConfig {
            chunks: terms.chunks,
            block_bytes: terms.block_bytes,
            ..PoolConfig::default()
        };
        config.check()?;
        Ok(terms)
    }

    fn parse(bytes: &[u8]) -> Parsed<(u64, Option<Self>)> {
        let mut reader = Reader::new(bytes);
        let fields = reader.array()?;
        let version = reader.uint()?;
        if version != VERSION {
            return Ok((version, None));
        }
        if fields != 8 {
            return reader.fail("another number of fields");
        }
        let pool = Id(reader.fixed()?);
        let naming = NameKeys::from_bytes(&reader.fixed()?);
        let chunks = ChunkSizes { min: reader.u32()?, avg: reader.u32()?, max: reader.u32()? };
        let block_bytes = reader.u32()?;
        let may_reuse = match reader.uint()? {
            0 => false,
            1 => true,
            _ => return reader.fail("neither yes nor no"),
        };
        reader.end()?;
        Ok((version, Some(Terms { pool, naming, chunks, block_bytes, may_reuse })))
    }
}
