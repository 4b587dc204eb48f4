//! What the workers of a backup do next. Directories are taken newest first, so that a walk holds
//! few of them open; blocks that wait for compression come before new work, so that memory is
//! freed before more is filled.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use crate::pack::footer::ChunkInfo;

use super::node::DirNode;

/// A piece of work.
pub enum Work {
    /// List a directory and split its names into batches.
    Directory(Arc<DirNode>),
    /// Some names of a directory, as places in its inode order.
    Batch { node: Arc<DirNode>, from: usize, to: usize },
    /// A full block of new data chunks.
    Block { plain: Vec<u8>, chunks: Vec<ChunkInfo> },
}

#[derive(Default)]
struct State {
    tasks: Vec<Work>,
    blocks: VecDeque<Work>,
    idle: usize,
    done: bool,
}

/// Shared by the workers.
#[derive(Default)]
pub struct Queue {
    state: Mutex<State>,
    ready: Condvar,
}

impl Queue {
    pub fn push(&self, tasks: impl IntoIterator<Item = Work>) {
        let mut state = self.state.lock();
        let before = state.tasks.len();
        state.tasks.extend(tasks);
        let added = state.tasks.len() - before;
        let wake = state.idle.min(added);
        drop(state);
        for _ in 0..wake {
            self.ready.notify_one();
        }
    }

    /// Gives a full block to a worker that has nothing to do; hands it back when all are busy,
    /// since the giver's own cache is then the best place for it.
    pub fn offer(
        &self,
        plain: Vec<u8>,
        chunks: Vec<ChunkInfo>,
    ) -> Option<(Vec<u8>, Vec<ChunkInfo>)> {
        let mut state = self.state.lock();
        if state.blocks.len() >= state.idle {
            return Some((plain, chunks));
        }
        state.blocks.push_back(Work::Block { plain, chunks });
        drop(state);
        self.ready.notify_one();
        None
    }

    /// Waits for work; `None` when there will be none any more.
    pub fn next(&self) -> Option<Work> {
        let mut state = self.state.lock();
        loop {
            let next = state.blocks.pop_front().or_else(|| state.tasks.pop());
            if next.is_some() || state.done {
                return next;
            }
            state.idle += 1;
            self.ready.wait(&mut state);
            state.idle -= 1;
        }
    }

    /// No more directories will come. What is queued is still handed out.
    pub fn finish(&self) {
        self.state.lock().done = true;
        self.ready.notify_all();
    }

    /// Ends the work: what is queued is dropped.
    pub fn abandon(&self) {
        let mut state = self.state.lock();
        state.done = true;
        let tasks = std::mem::take(&mut state.tasks);
        let blocks = std::mem::take(&mut state.blocks);
        drop(state);
        drop((tasks, blocks));
        self.ready.notify_all();
    }
}
