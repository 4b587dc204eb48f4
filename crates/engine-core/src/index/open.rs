//! Getting at the bytes of a segment: mapped where they are local, else from a copy that is made
//! once, else in memory.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use memmap2::Mmap;

use crate::error::{Error, Result};
use crate::ids::Id;
use crate::index::segment::{self, Bytes, MAC, Segment};
use crate::keys::PoolKeys;
use crate::store::Store;

/// How much of a remote segment is fetched at a time.
const FETCH: u64 = 8 << 20;

impl Segment {
    /// Maps the segment where its bytes are local; else a copy in `cache_dir`, made if need be;
    /// else holds the bytes in memory. `ObjectMissing` when it is gone: list again.
    pub fn open(
        store: &dyn Store,
        keys: &PoolKeys,
        pool: &Id,
        id: Id,
        cache_dir: Option<&Path>,
    ) -> Result<Self> {
        let key = segment::key(&id);
        if let Some(path) = store.local_path(&key) {
            let bytes = map(&path, &key)?;
            return Self::from_bytes(keys, pool, id, bytes);
        }
        let Some(cache_dir) = cache_dir else {
            return Self::from_owned(keys, pool, id, store.get(&key)?);
        };
        let path = cache_dir.join(id.to_string());
        if path.exists()
            && let Ok(segment) =
                map(&path, &key).and_then(|bytes| Self::from_bytes(keys, pool, id, bytes))
        {
            return Ok(segment);
        }
        download(store, keys, &key, &path)?;
        Self::from_bytes(keys, pool, id, map(&path, &key)?)
    }
}

/// Authenticates the segment as the store has it now, whatever is open or copied of it.
pub fn verify_stored(store: &dyn Store, keys: &PoolKeys, id: &Id) -> Result<()> {
    stream(store, keys, &segment::key(id), &mut |_| Ok(()))
}

fn map(path: &Path, key: &str) -> Result<Bytes> {
    let failed = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => Error::ObjectMissing { key: key.to_owned() },
        _ => Error::io(format!("opening {key}"), error),
    };
    let file = File::open(path).map_err(failed)?;
    if file.metadata().map_err(failed)?.len() == 0 {
        return Ok(Bytes::Owned(Vec::new()));
    }
    // SAFETY: a published segment is never written again, it is only unlinked, and a mapping
    // outlives that. Whoever truncates it behind our back kills this process with SIGBUS: no
    // memory is corrupted, and the pool stays sound, as it does for any killed process.
    let map = unsafe { Mmap::map(&file) }.map_err(failed)?;
    Ok(Bytes::Mapped(map))
}

/// Copies a remote segment to `path`, authenticated on the way; a reader sees it whole or not.
fn download(store: &dyn Store, keys: &PoolKeys, key: &str, path: &Path) -> Result<()> {
    let failed = |error| Error::io(format!("copying {key} to {}", path.display()), error);
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory).map_err(failed)?;
    }
    let temporary = path.with_extension(format!("{}.tmp", Id::random()?));
    let copy = || {
        let mut file = File::create(&temporary).map_err(failed)?;
        stream(store, keys, key, &mut |piece| file.write_all(piece).map_err(failed))?;
        std::fs::rename(&temporary, path).map_err(failed)
    };
    let copied = copy();
    if copied.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    copied
}

/// Hands out the bytes of a segment in pieces; fails at the end if they are not authentic.
fn stream(
    store: &dyn Store,
    keys: &PoolKeys,
    key: &str,
    sink: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let damaged = |reason: &str| Error::integrity(key, reason);
    let size = store.size(key)?.ok_or_else(|| Error::ObjectMissing { key: key.to_owned() })?;
    let body = size.checked_sub(MAC as u64).ok_or_else(|| damaged("it is too short"))?;
    let mut hasher = keys.index_mac();
    let mut offset = 0;
    while offset < body {
        let length = FETCH.min(body - offset);
        let piece = store.get_range(key, offset, length as usize)?;
        hasher.update(&piece);
        sink(&piece)?;
        offset += length;
    }
    let mac = store.get_range(key, body, MAC)?;
    if hasher.finalize() != *mac.as_slice() {
        return Err(damaged("it is not authentic"));
    }
    sink(&mac)
}
