//! What a simulated disk holds, now and durably.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};

use super::SimFile;

#[derive(Clone, Debug)]
pub(super) enum Node {
    File { now: Vec<u8>, durable: Vec<u8> },
    Folder { now: BTreeMap<String, usize>, durable: BTreeMap<String, usize> },
}

impl Node {
    pub fn folder() -> Self {
        Node::Folder { now: BTreeMap::new(), durable: BTreeMap::new() }
    }
}

#[derive(Clone, Debug)]
pub(super) struct State {
    /// Node 0 is the top. Nodes without a name stay: they are few.
    pub nodes: Vec<Node>,
    /// Times the power came on: files opened earlier are closed.
    pub boot: u64,
    /// Operations that change the disk, asked for since it was made or [`SimDisk::crash`]ed.
    pub log: Vec<String>,
    pub power_off_after: Option<usize>,
    pub full_after: Option<usize>,
}

impl State {
    pub fn is_off(&self) -> bool {
        self.power_off_after.is_some_and(|after| self.log.len() >= after)
    }

    pub fn powered(&self) -> io::Result<()> {
        if self.is_off() { Err(io::Error::other("the power is off")) } else { Ok(()) }
    }

    pub fn folder(&self, at: usize) -> io::Result<&BTreeMap<String, usize>> {
        match self.nodes.get(at) {
            Some(Node::Folder { now, .. }) => Ok(now),
            _ => Err(ErrorKind::NotADirectory.into()),
        }
    }

    pub fn find(&self, path: &str) -> io::Result<usize> {
        let mut at = 0;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            at = *self.folder(at)?.get(name).ok_or(ErrorKind::NotFound)?;
        }
        Ok(at)
    }

    /// The names of the folder that holds `path`, and the name in it.
    pub fn place<'a>(
        &mut self,
        path: &'a str,
    ) -> io::Result<(&mut BTreeMap<String, usize>, &'a str)> {
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        let at = self.find(folder)?;
        match self.nodes.get_mut(at) {
            Some(Node::Folder { now, .. }) => Ok((now, name)),
            _ => Err(ErrorKind::NotADirectory.into()),
        }
    }

    pub fn add(&mut self, path: &str, node: Node) -> io::Result<usize> {
        let at = self.nodes.len();
        let (names, name) = self.place(path)?;
        if names.contains_key(name) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        names.insert(name.to_owned(), at);
        self.nodes.push(node);
        Ok(at)
    }

    pub fn opened(&mut self, file: &SimFile) -> io::Result<(&mut Vec<u8>, &mut Vec<u8>)> {
        match self.nodes.get_mut(file.node) {
            Some(Node::File { now, durable }) if file.boot == self.boot => Ok((now, durable)),
            _ => Err(io::Error::other("the file was open when the power went off")),
        }
    }

    pub fn rename(&mut self, from: &str, to: &str, replace: bool) -> io::Result<()> {
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
