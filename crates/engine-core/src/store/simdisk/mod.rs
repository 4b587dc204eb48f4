//! A disk in memory that forgets on a power cut what was not synced, for tests.
//!
//! It is harsher than real file systems: syncing a file does not save its name, renaming does
//! not save the bytes, names in one folder come and go independently of each other and of those
//! in other folders. What survives here survives anywhere.

mod loss;
mod state;

use std::io::{self, ErrorKind};
use std::ops::ControlFlow;
use std::sync::Arc;

use parking_lot::Mutex;

use super::disk::{Disk, Found, Space};
use super::temporary::Writer;
use loss::{Random, lose_some_bytes, lose_some_names};
use state::{Node, State};

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

    fn sync_file(&self, file: &mut SimFile) -> io::Result<()> {
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

    fn open(&self, path: &str) -> io::Result<(SimFile, u64)> {
        let state = self.state.lock();
        state.powered()?;
        let node = state.find(path)?;
        match state.nodes.get(node) {
            Some(Node::File { now, .. }) => {
                Ok((SimFile { node, boot: state.boot }, now.len() as u64))
            }
            _ => Err(ErrorKind::NotFound.into()),
        }
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
mod tests;
