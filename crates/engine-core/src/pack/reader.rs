//! Reads packs: the footer first, then blocks by their place. What does not authenticate is
//! never handed on.

use crate::codec::Decompressor;
use crate::error::{Error, Result};
use crate::ids::PackId;
use crate::keys::{PoolKeys, SealKey, TAG_LEN};
use crate::store::Store;

use super::footer::{BlockInfo, Footer};
use super::{END_MAGIC, FOOTER_PLACE, HEADER_LEN, MAGIC, MAX_FOOTER_LEN, TRAILER_LEN};

/// An opened pack: its key and its footer.
pub struct Pack {
    pub id: PackId,
    pub size: u64,
    pub footer: Footer,
    header: [u8; HEADER_LEN],
    key: SealKey,
}

impl Pack {
    /// Opens a pack whose size and footer length are known (from an index segment).
    pub fn open(
        store: &dyn Store,
        keys: &PoolKeys,
        id: PackId,
        size: u64,
        footer_len: u32,
    ) -> Result<Self> {
        let tail_len = footer_len as usize + TRAILER_LEN;
        let object = id.key();
        if size < (HEADER_LEN + tail_len) as u64 || footer_len as usize > MAX_FOOTER_LEN {
            return Err(Error::integrity(
                &object,
                format!("size {size} and footer length {footer_len} do not fit together"),
            ));
        }
        let header = store.get_range(&object, 0, HEADER_LEN)?;
        let tail = store.get_range(&object, size - tail_len as u64, tail_len)?;
        Self::parse(keys, id, size, &header, tail)
    }

    /// Opens a pack of which nothing but its name is known.
    pub fn discover(store: &dyn Store, keys: &PoolKeys, id: PackId) -> Result<Self> {
        let object = id.key();
        let size =
            store.size(&object)?.ok_or_else(|| Error::ObjectMissing { key: object.clone() })?;
        if size < (HEADER_LEN + TAG_LEN + TRAILER_LEN) as u64 {
            return Err(Error::integrity(&object, format!("{size} bytes are no pack")));
        }
        let trailer = store.get_range(&object, size - TRAILER_LEN as u64, TRAILER_LEN)?;
        let footer_len = trailer_footer_len(&object, &trailer)?;
        Self::open(store, keys, id, size, footer_len)
    }

    /// `header`: the first 40 bytes; `tail`: sealed footer and trailer.
    pub fn parse(
        keys: &PoolKeys,
        id: PackId,
        size: u64,
        header: &[u8],
        mut tail: Vec<u8>,
    ) -> Result<Self> {
        let object = id.key();
        let damaged = |reason: &str| Error::integrity(&object, reason);
        let header: [u8; HEADER_LEN] =
            header.try_into().map_err(|_| damaged("its header is cut short"))?;
        if header[..7] != MAGIC[..7] {
            return Err(damaged("it does not begin as a pack does"));
        }
        if header[7] != MAGIC[7] {
            return Err(if header[7] > MAGIC[7] {
                Error::NewerFormat {
                    object,
                    found: u64::from(header[7]),
                    known: u64::from(MAGIC[7]),
                }
            } else {
                damaged("unknown format version")
            });
        }
        let footer_len =
            tail.len().checked_sub(TRAILER_LEN).ok_or_else(|| damaged("its end is cut short"))?;
        if trailer_footer_len(&object, &tail[footer_len..])? as usize != footer_len {
            return Err(damaged("its trailer states another footer length"));
        }
        let mut salt = [0; 32];
        salt.copy_from_slice(&header[8..]);
        let key = keys.pack(&salt)?;
        let plain = key
            .open(FOOTER_PLACE, &header, &mut tail[..footer_len])
            .ok_or_else(|| damaged("its footer does not authenticate"))?;
        let footer = Footer::decode(plain).map_err(|error| damaged(&error.to_string()))?;
        if footer.blocks_end() + (footer_len + TRAILER_LEN) as u64 != size {
            return Err(damaged("its blocks do not fill it"));
        }
        Ok(Pack { id, size, footer, header, key })
    }

    pub fn block(&self, number: usize) -> Result<&BlockInfo> {
        self.footer.blocks().get(number).ok_or_else(|| {
            Error::integrity(
                self.id.key(),
                format!("block {number} of {} asked for", self.footer.blocks().len()),
            )
        })
    }

    /// Opens a block's sealed bytes in place; the front of `sealed` is then its body.
    pub fn unseal(&self, number: usize, sealed: &mut [u8]) -> Result<usize> {
        let info = self.block(number)?;
        let place = u32::try_from(number).unwrap_or(FOOTER_PLACE);
        if sealed.len() == info.sealed_len as usize
            && let Some(plain) = self.key.open(place, &self.header, sealed)
        {
            return Ok(plain.len());
        }
        Err(Error::integrity(self.id.key(), format!("block {number} does not authenticate")))
    }

    /// The plain bytes of a block whose body was unsealed.
    pub fn decompress(
        &self,
        number: usize,
        body: &[u8],
        decompressor: &mut Decompressor,
    ) -> Result<Vec<u8>> {
        let info = self.block(number)?;
        decompressor.decode(info.codec, body, info.plain_len as usize).ok_or_else(|| {
            Error::integrity(self.id.key(), format!("block {number} does not decompress"))
        })
    }

    /// Reads, unseals and decompresses one block.
    pub fn read_block(
        &self,
        store: &dyn Store,
        number: usize,
        decompressor: &mut Decompressor,
    ) -> Result<Vec<u8>> {
        let info = *self.block(number)?;
        let mut sealed = store.get_range(&self.id.key(), info.offset, info.sealed_len as usize)?;
        let length = self.unseal(number, &mut sealed)?;
        self.decompress(number, &sealed[..length], decompressor)
    }
}

/// The footer's length as a pack's last 16 bytes state it.
pub fn trailer_footer_len(object: &str, trailer: &[u8]) -> Result<u32> {
    let trailer: &[u8; TRAILER_LEN] =
        trailer.try_into().map_err(|_| Error::integrity(object, "its trailer is cut short"))?;
    if trailer[8..] != END_MAGIC || trailer[4..8] != [0; 4] {
        return Err(Error::integrity(object, "it does not end as a pack does"));
    }
    let length = u32::from_le_bytes([trailer[0], trailer[1], trailer[2], trailer[3]]);
    if (length as usize) < TAG_LEN || length as usize > MAX_FOOTER_LEN {
        return Err(Error::integrity(object, format!("a footer of {length} bytes")));
    }
    Ok(length)
}
