//! Hard links: the first name of a file is restored with its content, further names are linked
//! to it once it is there.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::tree::entry::Entry;

use super::target::{Placed, TargetDir};
use super::worker::Node;

/// A name that waits for the first of its file.
pub struct Waiting {
    pub node: Arc<Node>,
    pub entry: Entry,
}

/// The first name, which has the content.
#[derive(Clone)]
pub struct First {
    pub dir: Arc<TargetDir>,
    pub name: Vec<u8>,
    pub placed: Placed,
}

enum State {
    /// The first name is being restored; these wait.
    Coming(Vec<Waiting>),
    There(First),
}

/// What to do with a name of a file that has several.
pub enum Role {
    /// It is the first: restore it, then tell.
    First(Entry),
    /// Link it to the one that is there.
    Link(First, Entry),
    /// It was put aside and comes back when the first is told of.
    Waits,
}

/// By device and inode at the source.
#[derive(Default)]
pub struct Links(Mutex<HashMap<(u64, u64), State>>);

impl Links {
    pub fn role(&self, node: &Arc<Node>, entry: Entry) -> Role {
        let mut states = self.0.lock();
        match states.get_mut(&(entry.device, entry.inode)) {
            None => {
                states.insert((entry.device, entry.inode), State::Coming(Vec::new()));
                Role::First(entry)
            }
            Some(State::There(first)) => Role::Link(first.clone(), entry),
            Some(State::Coming(waiting)) => {
                node.begin();
                waiting.push(Waiting { node: Arc::clone(node), entry });
                Role::Waits
            }
        }
    }

    /// The first name is there: those that waited can be linked to it.
    pub fn there(&self, entry: &Entry, first: First) -> Vec<Waiting> {
        let mut states = self.0.lock();
        match states.insert((entry.device, entry.inode), State::There(first)) {
            Some(State::Coming(waiting)) => waiting,
            _ => Vec::new(),
        }
    }

    /// The first name was not restored: another one is to try.
    pub fn failed(&self, entry: &Entry) -> Vec<Waiting> {
        match self.0.lock().remove(&(entry.device, entry.inode)) {
            Some(State::Coming(waiting)) => waiting,
            _ => Vec::new(),
        }
    }
}
