//! Where a pool's objects lie. The seam between the engine and disks or object stores, and the
//! place where tests inject faults.
//!
//! Contract (one suite runs on every implementation):
//! - a key is as [`key::check`] has it, and no key is a folder of another;
//! - `put` and `Upload::finish` are atomic and durable: once they return, the object survives a
//!   crash whole; until then a reader sees the old state or the new, never a part;
//! - once `delete` returns, the object stays away: deletes keep their order over a crash;
//! - `put_if_absent` lets exactly one of several racing writers win;
//! - what was put is listed and readable at once by every reader;
//! - everything may be called from many threads at a time.

pub mod disk;
#[cfg(any(test, feature = "testing"))]
pub mod faulty;
pub mod key;
pub mod memory;
pub mod posix;
#[cfg(any(test, feature = "testing"))]
pub mod simdisk;
pub mod temporary;

use std::path::PathBuf;
use std::sync::Arc;

use crate::error::{Error, Result};

/// See the module's contract.
pub trait Store: Send + Sync {
    /// The place in words for messages: a path or URL without secrets.
    fn place(&self) -> String;

    /// The whole object. `ObjectMissing` when it is not there.
    fn get(&self, key: &str) -> Result<Vec<u8>>;

    /// Exactly `length` bytes from `offset`; an object that is too short is an `Integrity` error.
    fn get_range(&self, key: &str, offset: u64, length: usize) -> Result<Vec<u8>>;

    fn put(&self, key: &str, data: &[u8]) -> Result<()>;

    /// False, and nothing changed, when the key was taken.
    fn put_if_absent(&self, key: &str, data: &[u8]) -> Result<bool>;

    /// Bytes of the object, `None` when it is not there.
    fn size(&self, key: &str) -> Result<Option<u64>>;

    /// Calls `visit` with every key under `prefix` (which ends with '/', or is "" for all) and
    /// its size, in no particular order, without holding them all in memory. `visit` may use the
    /// store. An object that comes or goes meanwhile may be visited or not.
    fn list(&self, prefix: &str, visit: &mut dyn FnMut(&str, u64) -> Result<()>) -> Result<()>;

    /// Removes the object; one that is not there is fine.
    fn delete(&self, key: &str) -> Result<()>;

    /// Begins an object whose key is known only at its end.
    fn upload(&self) -> Result<Box<dyn Upload + '_>>;

    /// A file of the local system with the object's bytes, for memory mapping.
    fn local_path(&self, _key: &str) -> Option<PathBuf> {
        None
    }
}

/// An object on its way. Dropping it without `finish` leaves nothing behind.
pub trait Upload: Send {
    fn write(&mut self, data: &[u8]) -> Result<()>;

    /// Publishes what was written, as [`Store::put`] would. The same key twice is fine.
    fn finish(self: Box<Self>, key: &str) -> Result<()>;
}

/// An [`Upload`] that gathers its bytes in memory and puts them in one call.
pub struct BufferedUpload<'a> {
    store: &'a dyn Store,
    data: Vec<u8>,
}

impl<'a> BufferedUpload<'a> {
    pub fn new(store: &'a dyn Store) -> Self {
        BufferedUpload { store, data: Vec::new() }
    }
}

impl Upload for BufferedUpload<'_> {
    fn write(&mut self, data: &[u8]) -> Result<()> {
        self.data.extend_from_slice(data);
        Ok(())
    }

    fn finish(self: Box<Self>, key: &str) -> Result<()> {
        self.store.put(key, &self.data)
    }
}

/// A store that several owners share is a store.
impl<S: Store + ?Sized> Store for Arc<S> {
    fn place(&self) -> String {
        (**self).place()
    }

    fn get(&self, key: &str) -> Result<Vec<u8>> {
        (**self).get(key)
    }

    fn get_range(&self, key: &str, offset: u64, length: usize) -> Result<Vec<u8>> {
        (**self).get_range(key, offset, length)
    }

    fn put(&self, key: &str, data: &[u8]) -> Result<()> {
        (**self).put(key, data)
    }

    fn put_if_absent(&self, key: &str, data: &[u8]) -> Result<bool> {
        (**self).put_if_absent(key, data)
    }

    fn size(&self, key: &str) -> Result<Option<u64>> {
        (**self).size(key)
    }

    fn list(&self, prefix: &str, visit: &mut dyn FnMut(&str, u64) -> Result<()>) -> Result<()> {
        (**self).list(prefix, visit)
    }

    fn delete(&self, key: &str) -> Result<()> {
        (**self).delete(key)
    }

    fn upload(&self) -> Result<Box<dyn Upload + '_>> {
        (**self).upload()
    }

    fn local_path(&self, key: &str) -> Option<PathBuf> {
        (**self).local_path(key)
    }
}

/// The error of a read beyond the `size` bytes of an object.
pub fn too_short(key: &str, offset: u64, length: u64, size: u64) -> Error {
    let reason = format!("{length} bytes wanted at {offset}, but it ends at {size}");
    Error::integrity(key, reason)
}

/// [`Store::get_range`] of an object that is in memory.
pub fn range_of(key: &str, data: &[u8], offset: u64, length: usize) -> Result<Vec<u8>> {
    usize::try_from(offset)
        .ok()
        .and_then(|from| data.get(from..from.checked_add(length)?))
        .map(<[u8]>::to_vec)
        .ok_or_else(|| too_short(key, offset, length as u64, data.len() as u64))
}

/// All keys under `prefix`, sorted. For prefixes that hold few objects.
pub fn list_sorted(store: &dyn Store, prefix: &str) -> Result<Vec<(String, u64)>> {
    let mut found = Vec::new();
    store.list(prefix, &mut |key, size| {
        found.push((key.to_owned(), size));
        Ok(())
    })?;
    found.sort();
    Ok(found)
}
