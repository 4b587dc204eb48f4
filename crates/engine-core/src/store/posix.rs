//! Objects as files of one folder of a POSIX file system.
//!
//! An object is written under a temporary name in `tmp/`, synced, renamed to its key, and its
//! folder is synced: only then is it reported stored. Folders are made durable before a name in
//! them is. A delete is durable too, so that deletes keep their order over a power cut: an index
//! that names a pack must not come back after the pack is gone.
//!
//! Reading never writes. Files that are no objects are ignored and left alone; links are never
//! followed.

use std::collections::HashSet;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::disk::{Bytes, Disk, Found, SystemDisk, make_folders};
use super::temporary::Writer;
use super::{Store, Upload, key, too_short};
use crate::error::{Error, Result};

/// Written bytes are sent on their way to the disk in steps of this size.
const WRITEBACK_BYTES: u64 = 8 << 20;

/// A read of no more than this is taken for granted to have room in memory.
const WHOLE_BYTES: u64 = 64 << 20;

/// What the top folder of a pool may hold before a pool is made in it: left by an attempt that
/// was cut short, or by the file system.
const OWN_NAMES: [&str; 10] = [
    "pool",
    "keys",
    "packs",
    "index",
    "images",
    "numbers",
    "jobs",
    "marks",
    key::RESERVED,
    "lost+found",
];

/// See the module.
pub struct PosixStore<D: Disk = SystemDisk> {
    disk: D,
    /// Folders whose own name is known to be durable, so that a put syncs one folder only.
    durable: Mutex<HashSet<String>>,
    swept: AtomicBool,
}

impl PosixStore {
    /// The store in the folder at `path`, which must exist. Writes nothing.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let place = path.display().to_string();
        match SystemDisk::open(path) {
            Ok(disk) => Ok(PosixStore::on(disk)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(Error::NotAPool { place, reason: "there is no such folder".into() })
            }
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                Err(Error::NotAPool { place, reason: "it is not a folder".into() })
            }
            Err(error) => Err(Error::io(format!("opening '{place}'"), error)),
        }
    }

    /// The same for a pool that is to be made there: makes the folder, and those above it, where
    /// they are missing. `Invalid` for a folder that holds anything foreign. Whether a pool is
    /// there already is the pool's question.
    pub fn create(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let place = path.display().to_string();
        make_folders(path).map_err(|error| Error::io(format!("making '{place}'"), error))?;
        let store = PosixStore::open(path)?;
        let mut foreign = None;
        store
            .disk
            .list("", &mut |name, _| {
                if OWN_NAMES.contains(&name) {
                    return ControlFlow::Continue(());
                }
                foreign = Some(name.to_owned());
                ControlFlow::Break(())
            })
            .map_err(|error| Error::io(format!("listing '{place}'"), error))?;
        match foreign {
            None => Ok(store),
            Some(name) => Err(Error::Invalid(format!(
                "'{place}' is not empty: it holds '{name}'; a pool needs a folder of its own"
            ))),
        }
    }
}

impl<D: Disk> PosixStore<D> {
    /// The store on this disk.
    pub fn on(disk: D) -> Self {
        PosixStore { disk, durable: Mutex::default(), swept: AtomicBool::new(false) }
    }

    /// Removes temporary files whose writers are dead; returns how many. The first write does
    /// this too.
    pub fn sweep_stale(&self) -> Result<u64> {
        let mut stale = Vec::new();
        let listed = self.disk.list(key::RESERVED, &mut |name, found| {
            if let (Found::File { .. }, Some(writer)) = (found, Writer::of_name(name)) {
                stale.push((format!("{}/{name}", key::RESERVED), writer));
            }
            ControlFlow::Continue(())
        });
        match listed {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            result => result.map_err(|error| self.failed("listing", key::RESERVED, error))?,
        }
        let mut swept = 0;
        for (path, writer) in stale {
            let gone = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
            match self.disk.is_abandoned(&path, &writer) {
                Ok(false) => continue,
                Err(error) if gone(&error) => continue,
                result => result.map_err(|error| self.failed("examining", &path, error))?,
            };
            match self.disk.unlink(&path) {
                Err(error) if gone(&error) => {}
                result => {
                    result.map_err(|error| self.failed("removing", &path, error))?;
                    swept += 1;
                }
            }
        }
        Ok(swept)
    }

    /// An error in words: what was done to which file, and how full the disk is if it is.
    fn failed(&self, doing: &str, path: &str, error: io::Error) -> Error {
        let mut what = format!("{doing} '{}/{path}'", self.disk.place());
        let full =
            matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        if let Some(space) = self.disk.space().filter(|_| full) {
            what = format!("{what} ({space})");
        }
        Error::io(what, error)
    }

    /// A read that failed: nothing there is `ObjectMissing`.
    fn unread(&self, key: &str, error: io::Error) -> Error {
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
                Error::ObjectMissing { key: key.to_owned() }
            }
            _ => self.failed("reading", key, error),
        }
    }

    fn begin(&self) -> Result<Temporary<'_, D>> {
        if !self.swept.swap(true, Ordering::Relaxed) {
            // What cannot be swept now is swept some other time; writing goes on.
            let _ = self.sweep_stale();
        }
        let path = self.disk.writer().new_path()?;
        let file = match self.disk.create(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.make_folder(key::RESERVED)?;
                self.disk.create(&path)
            }
            result => result,
        };
        let file = file.map_err(|error| self.failed("creating", &path, error))?;
        Ok(Temporary { store: self, file: Some(file), path, written: 0, started: 0 })
    }

    fn make_folder(&self, folder: &str) -> Result<()> {
        match self.disk.mkdir(folder) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            result => result.map_err(|error| self.failed("making the folder", folder, error)),
        }
    }

    fn sync_folder(&self, folder: &str) -> Result<()> {
        self.disk.sync_dir(folder).map_err(|error| self.failed("syncing the folder", folder, error))
    }

    /// Makes `folder` and those above it, durably. One that was there may be another process's
    /// and not durable yet, so it is treated as new once.
    fn ensure_folder(&self, folder: &str) -> Result<()> {
        if folder.is_empty() || self.durable.lock().contains(folder) {
            return Ok(());
        }
        let ends = folder.match_indices('/').map(|(at, _)| at).chain([folder.len()]);
        for above in ends.filter_map(|end| folder.get(..end)) {
            if !self.durable.lock().contains(above) {
                self.make_folder(above)?;
                self.sync_folder(key::parent(above))?;
                self.durable.lock().insert(above.to_owned());
            }
        }
        Ok(())
    }
}

impl<D: Disk> Store for PosixStore<D> {
    fn place(&self) -> String {
        self.disk.place()
    }

    fn get(&self, key: &str) -> Result<Vec<u8>> {
        key::check(key)?;
        let (file, size) = self.disk.open(key).map_err(|error| self.unread(key, error))?;
        self.read(key, &file, 0, size, size)
    }

    fn get_range(&self, key: &str, offset: u64, length: usize) -> Result<Vec<u8>> {
        key::check(key)?;
        let (file, size) = self.disk.open(key).map_err(|error| self.unread(key, error))?;
        self.read(key, &file, offset, length as u64, size)
    }

    fn put(&self, key: &str, data: &[u8]) -> Result<()> {
        key::check(key)?;
        let mut temporary = self.begin()?;
        temporary.write(data)?;
        temporary.publish(key)
    }

    fn put_if_absent(&self, key: &str, data: &[u8]) -> Result<bool> {
        key::check(key)?;
        let taken = self.size(key)?.is_some();
        let won = if taken {
            false
        } else {
            let mut temporary = self.begin()?;
            temporary.write(data)?;
            temporary.publish_if_absent(key)?
        };
        if !won {
            // The winner may not have come to it yet, and the caller will rely on the object.
            self.sync_folder(key::parent(key))?;
        }
        Ok(won)
    }

    fn size(&self, key: &str) -> Result<Option<u64>> {
        key::check(key)?;
        match self.disk.stat(key).map_err(|error| self.failed("reading", key, error))? {
            Some(Found::File { size }) => Ok(Some(size)),
            _ => Ok(None),
        }
    }

    fn list(&self, prefix: &str, visit: &mut dyn FnMut(&str, u64) -> Result<()>) -> Result<()> {
        let mut folders = vec![key::check_prefix(prefix)?.to_owned()];
        while let Some(folder) = folders.pop() {
            let mut result = Ok(());
            let listed = self.disk.list(&folder, &mut |name, found| {
                let key = if folder.is_empty() { name.into() } else { format!("{folder}/{name}") };
                match found {
                    _ if !key::is_valid(&key) => {}
                    Found::Folder => folders.push(key),
                    Found::File { size } => result = visit(&key, size),
                    Found::Other => {}
                }
                if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            });
            result?;
            match listed {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                result => result.map_err(|error| self.failed("listing", &folder, error))?,
            }
        }
        Ok(())
    }

    fn delete(&self, key: &str) -> Result<()> {
        use io::ErrorKind::{IsADirectory, NotADirectory, NotFound};
        key::check(key)?;
        match self.disk.unlink(key) {
            Err(error) if matches!(error.kind(), NotFound | NotADirectory | IsADirectory) => Ok(()),
            result => {
                result.map_err(|error| self.failed("removing", key, error))?;
                self.sync_folder(key::parent(key))
            }
        }
    }

    fn upload(&self) -> Result<Box<dyn Upload + '_>> {
        Ok(Box::new(self.begin()?))
    }

    fn local_path(&self, key: &str) -> Option<PathBuf> {
        key::is_valid(key).then(|| self.disk.local_path(key))?
    }
}

impl<D: Disk> PosixStore<D> {
    fn read(
        &self,
        key: &str,
        file: &D::File,
        offset: u64,
        length: u64,
        size: u64,
    ) -> Result<Vec<u8>> {
        if offset.checked_add(length).is_none_or(|end| end > size) {
            return Err(too_short(key, offset, length, size));
        }
        let mut data = zeroes(length)?;
        let count = self.disk.read_at(file, &mut data, offset);
        match count.map_err(|error| self.unread(key, error))? as u64 {
            count if count == length => Ok(data),
            count => Err(too_short(key, offset, length, offset + count)),
        }
    }
}

/// A buffer. Up to [`WHOLE_BYTES`] the system hands out zeroes without the work of writing them;
/// above, a want of memory is an error and not the end of the process.
fn zeroes(length: u64) -> Result<Vec<u8>> {
    let too_much = || Error::Unsupported(format!("reading {} at once", Bytes(length)));
    let count = usize::try_from(length).map_err(|_| too_much())?;
    if length <= WHOLE_BYTES {
        return Ok(vec![0; count]);
    }
    let mut data = Vec::new();
    data.try_reserve_exact(count).map_err(|_| too_much())?;
    data.resize(count, 0);
    Ok(data)
}

/// A file in `tmp/` that becomes an object, or nothing.
struct Temporary<'a, D: Disk> {
    store: &'a PosixStore<D>,
    /// `None` once it has its key.
    file: Option<D::File>,
    path: String,
    written: u64,
    /// How much of it is on its way to the disk.
    started: u64,
}

impl<D: Disk> Temporary<'_, D> {
    /// Makes the bytes durable, and the folder of `key` ready for its name.
    fn settle(&mut self, key: &str) -> Result<()> {
        let (store, length) = (self.store, Bytes(self.written));
        if let Some(file) = &mut self.file {
            store.disk.sync_file(file).map_err(|error| {
                store.failed(&format!("syncing {length} of '{key}' in"), &self.path, error)
            })?;
        }
        store.ensure_folder(key::parent(key))
    }

    /// Gives the file its name by `rename`; once more if its folder was removed meanwhile.
    fn name(
        &mut self,
        key: &str,
        rename: impl Fn(&D, &str, &str) -> io::Result<()>,
    ) -> io::Result<()> {
        match rename(&self.store.disk, &self.path, key) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.store.durable.lock().clear();
                self.store.ensure_folder(key::parent(key)).map_err(io::Error::other)?;
                rename(&self.store.disk, &self.path, key)?;
            }
            result => result?,
        }
        self.file = None;
        Ok(())
    }

    fn publish(mut self, key: &str) -> Result<()> {
        self.settle(key)?;
        let store = self.store;
        self.name(key, D::rename).map_err(|error| store.failed("naming", key, error))?;
        store.sync_folder(key::parent(key))
    }

    /// False if the name was taken; the folder is then not synced.
    fn publish_if_absent(mut self, key: &str) -> Result<bool> {
        self.settle(key)?;
        let store = self.store;
        match self.name(key, D::rename_noreplace) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
            result => result.map_err(|error| store.failed("naming", key, error))?,
        }
        store.sync_folder(key::parent(key))?;
        Ok(true)
    }
}

impl<D: Disk> Upload for Temporary<'_, D> {
    fn write(&mut self, data: &[u8]) -> Result<()> {
        let (store, so_far) = (self.store, Bytes(self.written));
        let Some(file) = &mut self.file else {
            return Err(Error::Invalid("an upload that is finished takes no more bytes".into()));
        };
        store.disk.write(file, data).map_err(|error| {
            let doing = format!("writing {} after {so_far} to", Bytes(data.len() as u64));
            store.failed(&doing, &self.path, error)
        })?;
        self.written += data.len() as u64;
        if self.written - self.started >= WRITEBACK_BYTES {
            store.disk.start_writeback(file, self.started, self.written - self.started);
            self.started = self.written;
        }
        Ok(())
    }

    fn finish(self: Box<Self>, key: &str) -> Result<()> {
        key::check(key)?;
        self.publish(key)
    }
}

impl<D: Disk> Drop for Temporary<'_, D> {
    fn drop(&mut self) {
        if self.file.take().is_some() {
            // Whatever stays is swept once this process is gone.
            let _ = self.store.disk.unlink(&self.path);
        }
    }
}
