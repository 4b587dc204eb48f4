//! Compression of blocks. A body that does not shrink is stored as it is.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

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

/// How fast blocks were compressed here lately, and so whether it pays for the sake of a link.
#[derive(Default)]
pub struct Pace {
    bytes_per_s: AtomicU64,
    declined: AtomicU64,
}

impl Pace {
    /// When it did not pay so often it is tried all the same: the processor may have become free.
    const LOOK_AGAIN: u64 = 32;

    /// Notes that so many bytes took so long.
    pub fn note(&self, bytes: u64, took: Duration) {
        let nanoseconds = took.as_nanos().max(1);
        let rate = u128::from(bytes) * 1_000_000_000 / nanoseconds;
        let rate = u64::try_from(rate).unwrap_or(u64::MAX).max(1);
        let before = self.bytes_per_s.load(Ordering::Relaxed);
        let rate = if before == 0 { rate } else { before - before / 4 + rate / 4 };
        self.bytes_per_s.store(rate.max(1), Ordering::Relaxed);
    }

    /// Whether bytes that would shrink to `shrunk` are sooner at the other end of a link compressed
    /// than as they are. Of a link that nobody knows anything of they are.
    pub fn pays(&self, plain: u64, shrunk: u64, link_bytes_per_s: Option<u64>) -> bool {
        if shrunk >= plain - plain / 32 {
            return false;
        }
        let pace = self.bytes_per_s.load(Ordering::Relaxed);
        let Some(link) = link_bytes_per_s.filter(|_| pace > 0) else { return true };
        // plain / pace < (plain - shrunk) / link
        let pays =
            u128::from(plain) * u128::from(link) < u128::from(plain - shrunk) * u128::from(pace);
        pays || self.declined.fetch_add(1, Ordering::Relaxed) % Self::LOOK_AGAIN
            == Self::LOOK_AGAIN - 1
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
    fn it_pays_to_compress_where_the_link_is_slower_than_the_processor() {
        let pace = Pace::default();
        assert!(pace.pays(100, 50, Some(u64::MAX)), "nothing is known of the processor");
        pace.note(400 << 20, Duration::from_secs(1));
        assert!(pace.pays(100, 50, None), "nothing is known of the link");
        assert!(pace.pays(100, 50, Some(100 << 20)));
        assert!(!pace.pays(100, 50, Some(300 << 20)));
        assert!(pace.pays(100, 10, Some(300 << 20)), "so little is left of it");
        assert!(!pace.pays(100, 99, Some(1)), "it does not shrink");
        assert!(!pace.pays(0, 0, Some(1)));
    }

    #[test]
    fn a_processor_that_becomes_free_is_noticed() {
        let pace = Pace::default();
        pace.note(1 << 20, Duration::from_secs(1));
        let mut tried = 0;
        for _ in 0..1000 {
            if pace.pays(100, 50, Some(100 << 20)) {
                tried += 1;
                pace.note(400 << 20, Duration::from_secs(1));
            }
        }
        assert!(tried > 700, "{tried}");
    }

    #[test]
    fn a_bomb_is_refused_within_the_promised_length() {
        let mut body = Vec::new();
        Compressor::new(3).unwrap().encode(&vec![0; 1 << 24], &mut body).unwrap();
        assert_eq!(Decompressor::new().unwrap().decode(Codec::Zstd, &body, 4096), None);
    }
}
