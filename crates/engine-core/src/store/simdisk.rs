//! A disk in memory that forgets on a power cut what was not synced, for tests.
//!
//! It is harsher than real file systems: syncing a file does not save its name, renaming does
//! not save the bytes, names in one folder come and go independently of each other and of those
//! in other folders. What survives here survives anywhere.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::ops::ControlFlow;
use std::sync::Arc;

use parking_lot::Mutex;

use super::disk::{Disk, Found, Space};
use super::temporary::Writer;

/// The grain in which unsynced bytes are kept or lost.
const SECTOR_BYTES: usize = 512;

/// What a power cut takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Everything that was not synced.
    AllUnsynced,
    /// Unsynced bytes; names and folders stay, and with them empty or half-written files.
    UnsyncedBytes,
    /// Of everything that was not synced a part chosen by this seed.
    Some(u64),
    /// Nothing: a process died, the system did not.
    Nothing,
}

#[derive(Clone, Debug)]
enum Node {
    File { now: Vec<u8>, durable: Vec<u8> },
    Folder { now: BTreeMap<String, usize>, durable: BTreeMap<String, usize> },
}

impl Node {
    fn folder() -> Self {
        Node::Folder { now: BTreeMap::new(), durable: BTreeMap::new() }
    }
}

#[derive(Clone, Debug)]
struct State {
    /// Node 0 is the top. Nodes without a name stay: they are few.
    nodes: Vec<Node>,
    /// Times the power came on: files opened earlier are closed.
    boot: u64,
    /// Operations that change the disk, asked for since it was made or [`SimDisk::crash`]ed.
    log: Vec<String>,
    power_off_after: Option<usize>,
    full_after: Option<usize>,
}

/// See the module. Clones share one disk.
#[derive(Clone, Debug)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
}

/// An open file of a [`SimDisk`].
#[derive(Debug)]
pub struct SimFile {
    node: usize,
    boot: u64,
}

impl Default for SimDisk {
    fn default() -> Self {
        Self::new()
    }
}

impl SimDisk {
    pub fn new() -> Self {
        let state = State {
            nodes: vec![Node::folder()],
            boot: 0,
            log: Vec::new(),
            power_off_after: None,
            full_after: None,
        };
        SimDisk { state: Arc::new(Mutex::new(state)) }
    }

    /// Another disk that holds the same now, unsynced state included.
    pub fn copy(&self) -> SimDisk {
        SimDisk { state: Arc::new(Mutex::new(self.state.lock().clone())) }
    }

    /// Operations that change the disk or sync it, since it was made or crashed; each in words.
    pub fn operations(&self) -> Vec<String> {
        self.state.lock().log.clone()
    }

    /// Forgets the operations so far, and so begins to count anew.
    pub fn reset_operations(&self) {
        self.state.lock().log.clear();
    }

    /// After `count` operations the power goes off: then everything fails, reading too, until
    /// [`SimDisk::crash`] turns it on again.
    pub fn power_off_after(&self, count: usize) {
        self.state.lock().power_off_after = Some(count);
    }

    /// After `count` operations there is no space for anything new; `None` makes room again.
    pub fn full_after(&self, count: Option<usize>) {
        self.state.lock().full_after = count;
    }

    /// Whether the power is off.
    pub fn is_off(&self) -> bool {
        self.state.lock().is_off()
    }

    /// Cuts the power, loses what the cut takes, and turns it on again.
    pub fn crash(&self, loss: Loss) {
        let mut state = self.state.lock();
        let mut random = Random(match loss {
            Loss::Some(seed) => seed,
            _ => 0,
        });
        for node in &mut state.nodes {
            match node {
                Node::File { now, durable } => {
                    match loss {
                        Loss::AllUnsynced | Loss::UnsyncedBytes => now.clone_from(durable),
                        Loss::Some(_) => lose_some_bytes(now, durable, &mut random),
                        Loss::Nothing => {}
                    }
                    durable.clone_from(now);
                }
                Node::Folder { now, durable } => {
                    match loss {
                        Loss::AllUnsynced => now.clone_from(durable),
                        Loss::Some(_) => lose_some_names(now, durable, &mut random),
                        Loss::UnsyncedBytes | Loss::Nothing => {}
                    }
                    durable.clone_from(now);
                }
            }
        }
        state.boot += 1;
        state.log.clear();
        state.power_off_after = None;
        state.full_after = None;
    }

    /// Changes what lies at `path`, behind the back of whoever uses the disk: rot, not an
    /// operation. False if there is no such file.
    pub fn tamper(&self, path: &str, change: impl FnOnce(&mut Vec<u8>)) -> bool {
        let mut state = self.state.lock();
        let Ok(at) = state.find(path) else { return false };
        match state.nodes.get_mut(at) {
            Some(Node::File { now, durable }) => {
                change(now);
                durable.clone_from(now);
                true
            }
            _ => false,
        }
    }

    fn change<T>(
        &self,
        words: String,
        allocates: bool,
        act: impl FnOnce(&mut State) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut state = self.state.lock();
        state.powered()?;
        if allocates && state.full_after.is_some_and(|after| state.log.len() >= after) {
            // Counted, so that what follows a full disk is numbered as without it.
            state.log.push(words);
            return Err(ErrorKind::StorageFull.into());
        }
        state.log.push(words);
        act(&mut state)
    }
}

impl State {
    fn is_off(&self) -> bool {
        self.power_off_after.is_some_and(|after| self.log.len() >= after)
    }

    fn powered(&self) -> io::Result<()> {
        if self.is_off() { Err(io::Error::other("the power is off")) } else { Ok(()) }
    }

    fn folder(&self, at: usize) -> io::Result<&BTreeMap<String, usize>> {
        match self.nodes.get(at) {
            Some(Node::Folder { now, .. }) => Ok(now),
            _ => Err(ErrorKind::NotADirectory.into()),
        }
    }

    fn find(&self, path: &str) -> io::Result<usize> {
        let mut at = 0;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            at = *self.folder(at)?.get(name).ok_or(ErrorKind::NotFound)?;
        }
        Ok(at)
    }

    /// The names of the folder that holds `path`, and the name in it.
    fn place<'a>(&mut self, path: &'a str) -> io::Result<(&mut BTreeMap<String, usize>, &'a str)> {
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        let at = self.find(folder)?;
        match self.nodes.get_mut(at) {
            Some(Node::Folder { now, .. }) => Ok((now, name)),
            _ => Err(ErrorKind::NotADirectory.into()),
        }
    }

    fn add(&mut self, path: &str, node: Node) -> io::Result<usize> {
        let at = self.nodes.len();
        let (names, name) = self.place(path)?;
        if names.contains_key(name) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        names.insert(name.to_owned(), at);
        self.nodes.push(node);
        Ok(at)
    }

    fn opened(&mut self, file: &SimFile) -> io::Result<(&mut Vec<u8>, &mut Vec<u8>)> {
        match self.nodes.get_mut(file.node) {
            Some(Node::File { now, durable }) if file.boot == self.boot => Ok((now, durable)),
            _ => Err(io::Error::other("the file was open when the power went off")),
        }
    }

    fn rename(&mut self, from: &str, to: &str, replace: bool) -> io::Result<()> {
        let at = self.find(from)?;
        if matches!(self.nodes.get(at), Some(Node::Folder { .. })) {
            return Err(ErrorKind::IsADirectory.into());
        }
        if let Ok(taken) = self.find(to) {
            match self.nodes.get(taken) {
                _ if !replace => return Err(ErrorKind::AlreadyExists.into()),
                Some(Node::Folder { .. }) => return Err(ErrorKind::IsADirectory.into()),
                _ => {}
            }
        }
        let (names, name) = self.place(to)?;
        names.insert(name.to_owned(), at);
        let (names, name) = self.place(from)?;
        names.remove(name);
        Ok(())
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): enough for choosing what is lost.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    fn coin(&mut self) -> bool {
        self.next() & 1 == 1
    }
}

/// The length is the old, the new, or between; of the bytes each sector is the new, or the old
/// (zero where there was none).
fn lose_some_bytes(now: &mut Vec<u8>, durable: &[u8], random: &mut Random) {
    if now == durable {
        return;
    }
    let (old, new) = (durable.len(), now.len());
    let length = match random.next() % 4 {
        0 => old,
        1 => old.min(new) + random.next() as usize % (old.abs_diff(new) + 1),
        _ => new,
    };
    now.resize(length, 0);
    for (at, sector) in now.chunks_mut(SECTOR_BYTES).enumerate() {
        if random.coin() {
            let before = durable.get(at * SECTOR_BYTES..).unwrap_or_default();
            for (place, byte) in sector.iter_mut().enumerate() {
                *byte = before.get(place).copied().unwrap_or(0);
            }
        }
    }
}

/// Each name that was changed is as it was or as it became.
fn lose_some_names(
    now: &mut BTreeMap<String, usize>,
    durable: &BTreeMap<String, usize>,
    random: &mut Random,
) {
    let mut names: Vec<String> = now.keys().chain(durable.keys()).cloned().collect();
    names.sort();
    names.dedup();
    for name in names {
        let before = durable.get(&name);
        if now.get(&name) == before || random.coin() {
            continue;
        }
        match before {
            Some(node) => now.insert(name, *node),
            None => now.remove(&name),
        };
    }
}

impl Disk for SimDisk {
    type File = SimFile;

    fn place(&self) -> String {
        "simulated disk".into()
    }

    fn writer(&self) -> Writer {
        Writer { run: format!("boot{}", self.state.lock().boot), pid: 1 }
    }

    fn is_abandoned(&self, _path: &str, writer: &Writer) -> io::Result<bool> {
        self.state.lock().powered()?;
        Ok(*writer != self.writer())
    }

    fn create(&self, path: &str) -> io::Result<SimFile> {
        self.change(format!("create {path}"), true, |state| {
            let node = state.add(path, Node::File { now: Vec::new(), durable: Vec::new() })?;
            Ok(SimFile { node, boot: state.boot })
        })
    }

    fn write(&self, file: &mut SimFile, data: &[u8]) -> io::Result<()> {
        self.change(format!("write {} bytes", data.len()), true, |state| {
            state.opened(file)?.0.extend_from_slice(data);
            Ok(())
        })
    }

    fn sync_file(&self, file: &SimFile) -> io::Result<()> {
        self.change("sync a file".into(), false, |state| {
            let (now, durable) = state.opened(file)?;
            durable.clone_from(now);
            Ok(())
        })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.change(format!("rename {from} to {to}"), false, |state| state.rename(from, to, true))
    }

    fn rename_noreplace(&self, from: &str, to: &str) -> io::Result<()> {
        self.change(format!("rename {from} to {to} if absent"), false, |state| {
            state.rename(from, to, false)
        })
    }

    fn sync_dir(&self, path: &str) -> io::Result<()> {
        self.change(format!("sync the folder '{path}'"), false, |state| {
            let at = state.find(path)?;
            match state.nodes.get_mut(at) {
                Some(Node::Folder { now, durable }) => {
                    durable.clone_from(now);
                    Ok(())
                }
                _ => Err(ErrorKind::NotADirectory.into()),
            }
        })
    }

    fn mkdir(&self, path: &str) -> io::Result<()> {
        self.change(format!("make the folder {path}"), true, |state| {
            state.add(path, Node::folder()).map(drop)
        })
    }

    fn unlink(&self, path: &str) -> io::Result<()> {
        self.change(format!("unlink {path}"), false, |state| {
            let at = state.find(path)?;
            if matches!(state.nodes.get(at), Some(Node::Folder { .. })) {
                return Err(ErrorKind::IsADirectory.into());
            }
            let (names, name) = state.place(path)?;
            names.remove(name);
            Ok(())
        })
    }

    fn open(&self, path: &str) -> io::Result<SimFile> {
        let state = self.state.lock();
        state.powered()?;
        let node = state.find(path)?;
        match state.nodes.get(node) {
            Some(Node::File { .. }) => Ok(SimFile { node, boot: state.boot }),
            _ => Err(ErrorKind::NotFound.into()),
        }
    }

    fn size_of(&self, file: &SimFile) -> io::Result<u64> {
        let mut state = self.state.lock();
        state.powered()?;
        Ok(state.opened(file)?.0.len() as u64)
    }

    fn read_at(&self, file: &SimFile, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut state = self.state.lock();
        state.powered()?;
        let data = state.opened(file)?.0;
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        let rest = data.get(from..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        for (to, from) in buffer.iter_mut().zip(rest) {
            *to = *from;
        }
        Ok(count)
    }

    fn stat(&self, path: &str) -> io::Result<Option<Found>> {
        let state = self.state.lock();
        state.powered()?;
        let found = |at: usize| match state.nodes.get(at) {
            Some(Node::File { now, .. }) => Found::File { size: now.len() as u64 },
            _ => Found::Folder,
        };
        Ok(state.find(path).ok().map(found))
    }

    fn list(
        &self,
        path: &str,
        visit: &mut dyn FnMut(&str, Found) -> ControlFlow<()>,
    ) -> io::Result<()> {
        let names: Vec<String> = {
            let state = self.state.lock();
            state.powered()?;
            state.folder(state.find(path)?)?.keys().cloned().collect()
        };
        for name in names {
            let found = self.stat(&format!("{path}/{name}"))?;
            if found.is_some_and(|found| visit(&name, found).is_break()) {
                break;
            }
        }
        Ok(())
    }

    /// Known once it is limited: a full disk is as large as what it holds.
    fn space(&self) -> Option<Space> {
        let state = self.state.lock();
        state.full_after?;
        let size = |node: &Node| match node {
            Node::File { now, .. } => now.len() as u64,
            Node::Folder { .. } => 0,
        };
        Some(Space { free: 0, total: state.nodes.iter().map(size).sum() })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn write(disk: &SimDisk, path: &str, data: &[u8]) -> SimFile {
        let mut file = disk.create(path).unwrap();
        disk.write(&mut file, data).unwrap();
        file
    }

    fn read(disk: &SimDisk, path: &str) -> Option<Vec<u8>> {
        let file = disk.open(path).ok()?;
        let mut data = vec![0; disk.size_of(&file).unwrap() as usize];
        disk.read_at(&file, &mut data, 0).unwrap();
        Some(data)
    }

    #[test]
    fn a_power_cut_takes_bytes_that_were_not_synced() {
        let disk = SimDisk::new();
        let mut file = write(&disk, "a", b"synced");
        disk.sync_file(&file).unwrap();
        disk.write(&mut file, b" and not").unwrap();
        write(&disk, "b", b"never synced");
        disk.sync_dir("").unwrap();
        assert_eq!(read(&disk, "a").unwrap(), b"synced and not");
        disk.crash(Loss::AllUnsynced);
        assert_eq!(read(&disk, "a").unwrap(), b"synced");
        assert_eq!(read(&disk, "b").unwrap(), b"");
        assert!(disk.write(&mut file, b"late").is_err(), "a file stayed open over a power cut");
    }

    #[test]
    fn a_power_cut_takes_names_that_were_not_synced_and_undoes_renames() {
        let disk = SimDisk::new();
        disk.sync_file(&write(&disk, "old", b"1")).unwrap();
        disk.sync_dir("").unwrap();
        disk.sync_file(&write(&disk, "new", b"2")).unwrap();
        disk.rename("old", "moved").unwrap();
        let (kept, lost) = (disk.copy(), disk);
        lost.crash(Loss::AllUnsynced);
        assert_eq!(read(&lost, "old").unwrap(), b"1");
        assert_eq!((read(&lost, "new"), read(&lost, "moved")), (None, None));
        kept.crash(Loss::UnsyncedBytes);
        assert_eq!(read(&kept, "moved").unwrap(), b"1");
        assert_eq!(read(&kept, "new").unwrap(), b"2");
        assert_eq!(read(&kept, "old"), None);
    }

    #[test]
    fn a_folder_that_was_not_synced_takes_its_files_with_it() {
        let disk = SimDisk::new();
        disk.mkdir("d").unwrap();
        disk.sync_file(&write(&disk, "d/a", b"1")).unwrap();
        disk.sync_dir("d").unwrap();
        disk.crash(Loss::AllUnsynced);
        assert_eq!(disk.stat("d").unwrap(), None);
    }

    #[test]
    fn an_unlink_that_was_not_synced_is_undone() {
        let disk = SimDisk::new();
        disk.sync_file(&write(&disk, "a", b"1")).unwrap();
        disk.sync_dir("").unwrap();
        disk.unlink("a").unwrap();
        disk.crash(Loss::AllUnsynced);
        assert_eq!(read(&disk, "a").unwrap(), b"1");
    }

    #[test]
    fn a_seed_chooses_what_is_lost_and_never_what_was_synced() {
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..64 {
            let disk = SimDisk::new();
            disk.sync_file(&write(&disk, "safe", b"safe")).unwrap();
            disk.sync_dir("").unwrap();
            write(&disk, "a", &[1; 2000]);
            disk.unlink("safe").unwrap();
            disk.sync_dir("").unwrap();
            disk.sync_file(&write(&disk, "b", b"b")).unwrap();
            disk.crash(Loss::Some(seed));
            assert_eq!(read(&disk, "safe"), None);
            assert!(read(&disk, "b").is_none_or(|data| data == b"b"));
            seen.insert((read(&disk, "a"), read(&disk, "b")));
        }
        assert!(seen.len() > 16, "only {} outcomes", seen.len());
    }

    #[test]
    fn after_the_power_goes_off_nothing_works_until_the_crash() {
        let disk = SimDisk::new();
        disk.power_off_after(1);
        disk.mkdir("d").unwrap();
        assert!(disk.is_off());
        assert!(disk.mkdir("e").is_err() && disk.stat("d").is_err() && disk.open("d").is_err());
        assert_eq!(disk.operations(), ["make the folder d"]);
        disk.crash(Loss::Nothing);
        assert_eq!(disk.stat("d").unwrap(), Some(Found::Folder));
        assert_eq!(disk.stat("e").unwrap(), None);
    }

    #[test]
    fn a_full_disk_takes_nothing_new_but_lets_go() {
        let disk = SimDisk::new();
        let mut file = write(&disk, "a", b"1");
        disk.full_after(Some(0));
        let full = |result: io::Result<()>| result.unwrap_err().kind() == ErrorKind::StorageFull;
        assert!(full(disk.write(&mut file, b"2")));
        assert!(full(disk.mkdir("d")));
        assert!(full(disk.create("b").map(drop)));
        disk.unlink("a").unwrap();
        disk.full_after(None);
        disk.mkdir("d").unwrap();
    }
}
