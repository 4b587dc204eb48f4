//! Directories as a client has seen them in earlier backups, in a file of its own: what is compared
//! with need not come over a network.
//!
//! Holds copies only. Nothing that is read from it is believed unless it has its name, and a file
//! that is damaged, cut short or of another pool is as good as none.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

use crate::ids::{Id, Kind, Name, Ref};
use crate::keys::NameKeys;
use crate::pack::MAX_BLOCK_LEN;

const MAGIC: [u8; 8] = *b"HFTREES\x01";
const HEAD_LEN: u64 = 24;
/// A name and a length before each object.
const ENTRY_LEN: u64 = 36;
/// What is not worth keeping may take so much room before the file is made anew.
const IDLE_BYTES: u64 = 16 << 20;

#[derive(Clone, Copy)]
struct Place {
    offset: u64,
    length: u32,
    /// Asked for, or put, since the file was opened.
    wanted: bool,
}

struct Known {
    places: HashMap<Name, Place>,
    end: u64,
    /// An error of the disk ends the writing: a gap would hide what comes after it.
    sealed: bool,
}

/// See the module. Called from many threads.
pub struct Trees {
    path: PathBuf,
    pool: Id,
    file: File,
    known: Mutex<Known>,
}

impl Trees {
    /// Opens the file, or makes it. Of several processes at a time one has it.
    pub fn open(path: &Path, pool: Id) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(path)?;
        rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive)?;
        let known = match read_places(&file, pool)? {
            Some(known) => known,
            None => {
                file.set_len(0)?;
                file.write_all_at(&head(pool), 0)?;
                Known { places: HashMap::new(), end: HEAD_LEN, sealed: false }
            }
        };
        // What was cut short is written over.
        file.set_len(known.end)?;
        Ok(Trees { path: path.to_owned(), pool, file, known: Mutex::new(known) })
    }

    pub fn has(&self, name: &Name) -> bool {
        self.known.lock().places.contains_key(name)
    }

    /// The object, if it is here and is what it says.
    pub fn get(&self, reference: &Ref, naming: &NameKeys) -> Option<Vec<u8>> {
        let place = {
            let mut known = self.known.lock();
            let place = known.places.get_mut(&reference.name)?;
            place.wanted = true;
            *place
        };
        let mut bytes = vec![0; place.length as usize];
        let read = self.file.read_exact_at(&mut bytes, place.offset);
        let is_right = read.is_ok()
            && place.length == reference.length
            && naming.name(Kind::Tree, &bytes) == reference.name;
        if !is_right {
            self.known.lock().places.remove(&reference.name);
        }
        is_right.then_some(bytes)
    }

    /// Keeps an object. One that cannot be kept is not.
    pub fn put(&self, name: Name, bytes: &[u8]) {
        let Ok(length) = u32::try_from(bytes.len()) else { return };
        let mut known = self.known.lock();
        if let Some(place) = known.places.get_mut(&name) {
            place.wanted = true;
            return;
        }
        if known.sealed {
            return;
        }
        let mut entry = Vec::with_capacity(ENTRY_LEN as usize + bytes.len());
        entry.extend_from_slice(&name.0);
        entry.extend_from_slice(&length.to_le_bytes());
        entry.extend_from_slice(bytes);
        if self.file.write_all_at(&entry, known.end).is_err() {
            known.sealed = true;
            let _ = self.file.set_len(known.end);
            return;
        }
        let offset = known.end + ENTRY_LEN;
        known.end += entry.len() as u64;
        known.places.insert(name, Place { offset, length, wanted: true });
    }

    /// After a backup that went through: lets go of what it did not want, where that is much.
    pub fn tidy(&self) -> io::Result<()> {
        let known = self.known.lock();
        let wanted = known.places.iter().filter(|(_, place)| place.wanted);
        let mut live: Vec<(&Name, &Place)> = wanted.collect();
        let bytes: u64 = live.iter().map(|(_, place)| ENTRY_LEN + u64::from(place.length)).sum();
        let idle = known.end.saturating_sub(HEAD_LEN + bytes);
        if idle < IDLE_BYTES || idle < bytes {
            return Ok(());
        }
        live.sort_unstable_by_key(|(_, place)| place.offset);
        let next = self.path.with_extension("next");
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let file = options.open(&next)?;
        file.write_all_at(&head(self.pool), 0)?;
        let mut end = HEAD_LEN;
        let mut entry = Vec::new();
        for (_, place) in live {
            entry.resize(ENTRY_LEN as usize + place.length as usize, 0);
            self.file.read_exact_at(&mut entry, place.offset - ENTRY_LEN)?;
            file.write_all_at(&entry, end)?;
            end += entry.len() as u64;
        }
        std::fs::rename(next, &self.path)
    }
}

fn head(pool: Id) -> [u8; HEAD_LEN as usize] {
    let mut head = [0; HEAD_LEN as usize];
    head[..8].copy_from_slice(&MAGIC);
    head[8..].copy_from_slice(&pool.0);
    head
}

/// Where each object lies; none if this is no such file, or another pool's.
fn read_places(file: &File, pool: Id) -> io::Result<Option<Known>> {
    let size = file.metadata()?.len();
    let mut from = BufReader::with_capacity(1 << 20, file);
    let mut found = [0; HEAD_LEN as usize];
    if size < HEAD_LEN || from.read_exact(&mut found).is_err() || found != head(pool) {
        return Ok(None);
    }
    let (mut places, mut end) = (HashMap::new(), HEAD_LEN);
    while end + ENTRY_LEN <= size {
        let mut entry = [0; ENTRY_LEN as usize];
        from.read_exact(&mut entry)?;
        let (name, length) = entry.split_at(32);
        let mut key = [0; 32];
        key.copy_from_slice(name);
        let length = u32::from_le_bytes([length[0], length[1], length[2], length[3]]);
        let offset = end + ENTRY_LEN;
        if length as usize > MAX_BLOCK_LEN || offset + u64::from(length) > size {
            break;
        }
        from.seek_relative(i64::from(length))?;
        places.insert(Name(key), Place { offset, length, wanted: false });
        end = offset + u64::from(length);
    }
    Ok(Some(Known { places, end, sealed: false }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::keys::PoolKeys;

    const POOL: Id = Id([4; 16]);

    fn naming() -> NameKeys {
        PoolKeys::derive(&[1; 32]).naming().clone()
    }

    fn object(number: u32, length: usize) -> (Ref, Vec<u8>) {
        let mut bytes = number.to_le_bytes().to_vec();
        bytes.resize(length, 7);
        let name = naming().name(Kind::Tree, &bytes);
        (Ref { name, length: length as u32 }, bytes)
    }

    fn put(trees: &Trees, number: u32, length: usize) -> Ref {
        let (reference, bytes) = object(number, length);
        trees.put(reference.name, &bytes);
        reference
    }

    #[test]
    fn what_was_put_is_there_when_the_file_is_opened_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trees");
        let refs: Vec<Ref> = {
            let trees = Trees::open(&path, POOL).unwrap();
            (0..50).map(|number| put(&trees, number, 100 + number as usize)).collect()
        };
        let trees = Trees::open(&path, POOL).unwrap();
        for (number, reference) in refs.iter().enumerate() {
            assert!(trees.has(&reference.name));
            let found = trees.get(reference, &naming()).unwrap();
            assert_eq!(found, object(number as u32, 100 + number).1);
        }
        assert!(trees.get(&object(99, 10).0, &naming()).is_none());
    }

    #[test]
    fn a_file_that_is_cut_anywhere_has_what_is_before_the_cut_and_takes_more() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trees");
        let refs: Vec<Ref> = {
            let trees = Trees::open(&path, POOL).unwrap();
            (0..3).map(|number| put(&trees, number, 10)).collect()
        };
        let whole = std::fs::read(&path).unwrap();
        for upto in 0..whole.len() {
            std::fs::write(&path, &whole[..upto]).unwrap();
            let trees = Trees::open(&path, POOL).unwrap();
            let there = (upto.saturating_sub(24)) / 46;
            for (number, reference) in refs.iter().enumerate() {
                assert_eq!(trees.get(reference, &naming()).is_some(), number < there, "{upto}");
            }
            let more = put(&trees, 77, 500);
            drop(trees);
            let trees = Trees::open(&path, POOL).unwrap();
            assert!(trees.get(&more, &naming()).is_some(), "{upto}");
        }
    }

    #[test]
    fn a_changed_byte_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trees");
        let reference = put(&Trees::open(&path, POOL).unwrap(), 1, 50);
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut bad = whole.clone();
            bad[at] ^= 0x10;
            std::fs::write(&path, bad).unwrap();
            let trees = Trees::open(&path, POOL).unwrap();
            assert!(trees.get(&reference, &naming()).is_none(), "byte {at}");
        }
    }

    #[test]
    fn another_pools_file_is_begun_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trees");
        let reference = put(&Trees::open(&path, POOL).unwrap(), 1, 50);
        assert!(!Trees::open(&path, Id([5; 16])).unwrap().has(&reference.name));
        assert!(!Trees::open(&path, POOL).unwrap().has(&reference.name));
    }

    #[test]
    fn one_process_has_it_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trees");
        let _first = Trees::open(&path, POOL).unwrap();
        assert!(Trees::open(&path, POOL).is_err());
    }

    #[test]
    fn what_no_backup_wants_any_more_goes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trees");
        {
            let trees = Trees::open(&path, POOL).unwrap();
            for number in 0..20 {
                put(&trees, number, 1 << 20);
            }
            trees.tidy().unwrap();
        }
        assert!(std::fs::metadata(&path).unwrap().len() > 20 << 20, "all were wanted");
        let wanted = object(3, 1 << 20).0;
        {
            let trees = Trees::open(&path, POOL).unwrap();
            trees.get(&wanted, &naming()).unwrap();
            put(&trees, 100, 40);
            trees.tidy().unwrap();
        }
        assert!(std::fs::metadata(&path).unwrap().len() < 2 << 20);
        let trees = Trees::open(&path, POOL).unwrap();
        assert!(trees.get(&wanted, &naming()).is_some());
        assert!(trees.has(&object(100, 40).0.name));
        assert!(!trees.has(&object(4, 1 << 20).0.name));
    }
}
