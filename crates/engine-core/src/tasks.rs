//! Work for several threads, from a stack of tasks. The newest is taken first, so that a walk of a tree holds
//! little of it; the end is when nothing is queued and nobody works.

use parking_lot::{Condvar, Mutex};

use crate::error::{Error, Result};

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

/// Runs `work` in several threads. The first failure calls `abandon`, which is to make the others
/// end. A fault is told rather than the cancellations that follow from it.
pub fn in_threads(
    count: usize,
    work: impl Fn() -> Result<()> + Sync,
    abandon: impl Fn() + Sync,
) -> Result<()> {
    let one = || work().inspect_err(|_| abandon());
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..count).map(|_| scope.spawn(one)).collect();
        let mut outcome = Ok(());
        for thread in running {
            let ended = thread
                .join()
                .unwrap_or_else(|_| Err(Error::Invalid("a thread of the engine died".into())));
            if matches!(outcome, Ok(()) | Err(Error::Cancelled)) && ended.is_err() {
                outcome = ended;
            }
        }
        outcome
    })
}

/// Threads for work that both computes and waits for disks: so many more than processors wait.
pub fn thread_count(wanted: usize, waiting: usize) -> usize {
    if wanted > 0 {
        return wanted.min(256);
    }
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    (cores + waiting).min(64)
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
