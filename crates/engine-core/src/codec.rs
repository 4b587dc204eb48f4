//! Compression of blocks. A body that does not shrink is stored as it is.

use crate::error::{Error, Result};

/// How a block's body is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Codec {
    Stored = 0,
    Zstd = 1,
}

impl Codec {
    pub fn from_u8(value: u8) -> Option<Self> {
        match value {
            0 => Some(Codec::Stored),
            1 => Some(Codec::Zstd),
            _ => None,
        }
    }
}

/// The levels that a policy may choose.
pub const LEVELS: std::ops::RangeInclusive<i32> = -7..=19;
/// Those at which a media server compresses what was left to it: the others would cost it too much.
pub const LEFT_LEVELS: std::ops::RangeInclusive<i32> = -7..=4;
/// 0 in the interfaces means "store, do not compress".
pub const STORE_LEVEL: i32 = 0;

/// Compresses blocks; one for each thread, its tables are reused.
pub struct Compressor {
    /// `None`: everything is stored.
    zstd: Option<zstd::bulk::Compressor<'static>>,
}

impl Compressor {
    pub fn new(level: i32) -> Result<Self> {
        if !LEVELS.contains(&level) {
            return Err(Error::Invalid(format!(
                "compression level {level}: want {} to {}, 0 to store",
                LEVELS.start(),
                LEVELS.end()
            )));
        }
        let zstd = if level == STORE_LEVEL {
            None
        } else {
            Some(
                zstd::bulk::Compressor::new(level)
                    .map_err(|error| Error::io("preparing the compressor", error))?,
            )
        };
        Ok(Compressor { zstd })
    }

    /// Replaces `body` by the encoded form of `plain`; says which codec that is.
    pub fn encode(&mut self, plain: &[u8], body: &mut Vec<u8>) -> Result<Codec> {
        if self.shrink(plain, body)? {
            return Ok(Codec::Zstd);
        }
        body.clear();
        body.extend_from_slice(plain);
        Ok(Codec::Stored)
    }

    /// Replaces `body` by the compressed form of `plain`; false, and `body` is of no use, if that
    /// is not worth it.
    pub fn shrink(&mut self, plain: &[u8], body: &mut Vec<u8>) -> Result<bool> {
        body.clear();
        let Some(zstd) = &mut self.zstd else { return Ok(false) };
        body.reserve(zstd::zstd_safe::compress_bound(plain.len()));
        zstd.compress_to_buffer(plain, body)
            .map_err(|error| Error::io("compressing a block", error))?;
        Ok(body.len() < plain.len() - plain.len() / 32)
    }
}

/// Decompresses blocks; one for each thread.
pub struct Decompressor(zstd::bulk::Decompressor<'static>);

impl Decompressor {
    pub fn new() -> Result<Self> {
        zstd::bulk::Decompressor::new()
            .map(Decompressor)
            .map_err(|error| Error::io("preparing the decompressor", error))
    }

    /// The plain bytes, which must be exactly `plain_len`; `None` if `body` does not hold them.
    /// Never takes more memory than `plain_len`.
    pub fn decode(&mut self, codec: Codec, body: &[u8], plain_len: usize) -> Option<Vec<u8>> {
        let plain = match codec {
            Codec::Stored => body.to_vec(),
            Codec::Zstd => self.0.decompress(body, plain_len).ok()?,
        };
        (plain.len() == plain_len).then_some(plain)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn round_trip(level: i32, plain: &[u8]) -> Codec {
        let mut body = Vec::new();
        let codec = Compressor::new(level).unwrap().encode(plain, &mut body).unwrap();
        let mut decoder = Decompressor::new().unwrap();
        assert_eq!(decoder.decode(codec, &body, plain.len()).as_deref(), Some(plain));
        assert_eq!(decoder.decode(codec, &body, plain.len() + 1), None);
        codec
    }

    #[test]
    fn text_shrinks_and_noise_is_stored() {
        let mut noise = vec![0; 100_000];
        blake3::Hasher::new().finalize_xof().fill(&mut noise);
        assert_eq!(round_trip(3, &b"again and ".repeat(1000)), Codec::Zstd);
        assert_eq!(round_trip(3, &noise), Codec::Stored);
        assert_eq!(round_trip(STORE_LEVEL, b"again again again"), Codec::Stored);
        assert_eq!(round_trip(3, b""), Codec::Stored);
    }

    #[test]
    fn a_bomb_is_refused_within_the_promised_length() {
        let mut body = Vec::new();
        Compressor::new(3).unwrap().encode(&vec![0; 1 << 24], &mut body).unwrap();
        assert_eq!(Decompressor::new().unwrap().decode(Codec::Zstd, &body, 4096), None);
    }
}
