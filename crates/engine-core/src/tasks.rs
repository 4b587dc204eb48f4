//! A stack of tasks for several threads. The newest is taken first, so that a walk of a tree holds
//! little of it; the end is when nothing is queued and nobody works.

use parking_lot::{Condvar, Mutex};

struct State<T> {
    tasks: Vec<T>,
    /// Threads that work on a task, and may still add more.
    working: usize,
    waiting: usize,
    abandoned: bool,
}

/// See the module. `T` is a piece of work.
pub struct Tasks<T> {
    state: Mutex<State<T>>,
    ready: Condvar,
}

impl<T> Tasks<T> {
    pub fn new(first: T) -> Self {
        let state = State { tasks: vec![first], working: 0, waiting: 0, abandoned: false };
        Tasks { state: Mutex::new(state), ready: Condvar::new() }
    }

    /// Adds a task.
    pub fn push(&self, task: T) {
        let mut state = self.state.lock();
        state.tasks.push(task);
        let wake = state.waiting > 0;
        drop(state);
        if wake {
            self.ready.notify_one();
        }
    }

    /// Adds a task if few wait already; otherwise hands it back, to be done by who made it. Keeps
    /// what is queued small however large a directory or a file.
    pub fn offer(&self, task: T) -> Option<T> {
        let mut state = self.state.lock();
        if state.tasks.len() >= 64.max(4 * state.waiting) {
            return Some(task);
        }
        state.tasks.push(task);
        let wake = state.waiting > 0;
        drop(state);
        if wake {
            self.ready.notify_one();
        }
        None
    }

    /// The next task, after the one that the caller has ended if `ended`. `None`: all is done.
    pub fn next(&self, ended: bool) -> Option<T> {
        let mut state = self.state.lock();
        if ended {
            state.working -= 1;
        }
        loop {
            if state.abandoned {
                return None;
            }
            if let Some(task) = state.tasks.pop() {
                state.working += 1;
                return Some(task);
            }
            if state.working == 0 {
                self.ready.notify_all();
                return None;
            }
            state.waiting += 1;
            self.ready.wait(&mut state);
            state.waiting -= 1;
        }
    }

    /// Ends the work: what is queued is dropped.
    pub fn abandon(&self) {
        let mut state = self.state.lock();
        state.abandoned = true;
        let tasks = std::mem::take(&mut state.tasks);
        drop(state);
        drop(tasks);
        self.ready.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[test]
    fn every_task_is_done_once_by_some_thread() {
        let tasks = Tasks::new(1000_u64);
        let done = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let mut ended = false;
                    while let Some(task) = tasks.next(ended) {
                        ended = true;
                        done.fetch_add(1, Ordering::Relaxed);
                        for below in [task / 2, task - task / 2] {
                            if task > 1 {
                                tasks.push(below);
                            }
                        }
                    }
                });
            }
        });
        // A binary tree with a thousand leaves.
        assert_eq!(done.load(Ordering::Relaxed), 1999);
    }
}
