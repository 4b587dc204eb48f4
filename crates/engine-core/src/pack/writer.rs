//! Writes one pack: seals block after block, then the footer, then publishes it under the hash
//! of its bytes. Never decides what goes in. Nothing of it is visible before it is durable.

use crate::codec::Codec;
use crate::error::{Error, Result};
use crate::ids::{PackId, random_bytes};
use crate::keys::{PoolKeys, SealKey};
use crate::store::Upload;

use super::footer::{BlockInfo, ChunkInfo, Footer, PackKind};
use super::{END_MAGIC, FOOTER_PLACE, HEADER_LEN, MAGIC, MAX_BLOCKS};

/// A block's chunks, encoded but not yet sealed.
pub struct Block {
    pub body: Vec<u8>,
    pub codec: Codec,
    pub plain_len: u32,
    pub chunks: Vec<ChunkInfo>,
}

/// A pack that is complete but not yet published.
pub struct SealedPack<'a> {
    pub id: PackId,
    pub size: u64,
    pub footer_len: u32,
    pub footer: Footer,
    upload: Box<dyn Upload + 'a>,
}

impl SealedPack<'_> {
    /// Makes the pack durable under its name.
    pub fn publish(self) -> Result<PublishedPack> {
        self.upload.finish(&self.id.key())?;
        Ok(PublishedPack {
            id: self.id,
            size: self.size,
            footer_len: self.footer_len,
            footer: self.footer,
        })
    }
}

/// A pack in the store, ready to be indexed.
pub struct PublishedPack {
    pub id: PackId,
    pub size: u64,
    /// Length of the sealed footer.
    pub footer_len: u32,
    pub footer: Footer,
}

/// See the module.
pub struct PackWriter<'a> {
    kind: PackKind,
    header: [u8; HEADER_LEN],
    key: SealKey,
    upload: Box<dyn Upload + 'a>,
    hasher: blake3::Hasher,
    size: u64,
    blocks: Vec<BlockInfo>,
    chunks: Vec<ChunkInfo>,
}

impl<'a> PackWriter<'a> {
    pub fn new(keys: &PoolKeys, kind: PackKind, upload: Box<dyn Upload + 'a>) -> Result<Self> {
        let mut salt = [0; 32];
        random_bytes(&mut salt)?;
        Self::with_salt(keys, kind, upload, salt)
    }

    /// With a salt from the caller, for vectors. A salt must never be used twice.
    pub fn with_salt(
        keys: &PoolKeys,
        kind: PackKind,
        upload: Box<dyn Upload + 'a>,
        salt: [u8; 32],
    ) -> Result<Self> {
        let mut header = [0; HEADER_LEN];
        header[..8].copy_from_slice(&MAGIC);
        header[8..].copy_from_slice(&salt);
        let mut writer = PackWriter {
            kind,
            header,
            key: keys.pack(&salt)?,
            upload,
            hasher: blake3::Hasher::new(),
            size: 0,
            blocks: Vec::new(),
            chunks: Vec::new(),
        };
        writer.write(&header)?;
        Ok(writer)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.hasher.update(bytes);
        self.size += bytes.len() as u64;
        self.upload.write(bytes)
    }

    /// Bytes so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    pub fn is_full(&self, pack_bytes: u64) -> bool {
        self.size >= pack_bytes || self.blocks.len() >= MAX_BLOCKS
    }

    /// Seals a block's body in place. Seal in the order of [`PackWriter::append`].
    pub fn seal(&self, block: &mut Block) -> Result<()> {
        self.key.seal(self.blocks.len() as u32, &self.header, &mut block.body, 0)
    }

    /// Appends a block that [`PackWriter::seal`] has just sealed.
    pub fn append(&mut self, block: Block) -> Result<()> {
        if self.blocks.len() >= MAX_BLOCKS {
            return Err(Error::Invalid(format!("a pack has at most {MAX_BLOCKS} blocks")));
        }
        let sealed_len = u32::try_from(block.body.len())
            .map_err(|_| Error::Invalid("a block of 4 GiB or more".into()))?;
        self.blocks.push(BlockInfo {
            offset: self.size,
            sealed_len,
            plain_len: block.plain_len,
            chunk_count: block.chunks.len() as u32,
            codec: block.codec,
        });
        self.chunks.extend_from_slice(&block.chunks);
        self.write(&block.body)
    }

    /// Writes the footer and gives the pack its name.
    pub fn finish(mut self) -> Result<SealedPack<'a>> {
        let footer = Footer::new(
            self.kind,
            std::mem::take(&mut self.blocks),
            std::mem::take(&mut self.chunks),
        )?;
        let mut end = footer.encode();
        self.key.seal(FOOTER_PLACE, &self.header, &mut end, 0)?;
        let footer_len = u32::try_from(end.len())
            .map_err(|_| Error::Invalid("a pack footer of 4 GiB or more".into()))?;
        end.extend_from_slice(&footer_len.to_le_bytes());
        end.extend_from_slice(&[0; 4]);
        end.extend_from_slice(&END_MAGIC);
        self.write(&end)?;
        Ok(SealedPack {
            id: PackId(*self.hasher.finalize().as_bytes()),
            size: self.size,
            footer_len,
            footer,
            upload: self.upload,
        })
    }
}
