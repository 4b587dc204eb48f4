//! A limit: how long it takes to look at every name of a tree with several threads, and to do
//! nothing else. `rustc -O walk_lstat.rs`, then `walk_lstat DIRECTORY`.

use std::path::PathBuf;
use std::sync::{Condvar, Mutex};

#[derive(Default)]
struct Queue {
    waiting: Vec<PathBuf>,
    busy: usize,
}

fn main() {
    let root = std::env::args_os().nth(1).expect("want DIRECTORY");
    let queue = Mutex::new(Queue { waiting: vec![root.into()], busy: 0 });
    let changed = Condvar::new();
    let threads = std::thread::available_parallelism().map_or(2, |count| count.get());
    let names: usize = std::thread::scope(|scope| {
        let started: Vec<_> =
            (0..threads).map(|_| scope.spawn(|| walk(&queue, &changed))).collect();
        started.into_iter().map(|thread| thread.join().expect("a thread ended")).sum()
    });
    println!("{names}");
}

fn walk(queue: &Mutex<Queue>, changed: &Condvar) -> usize {
    let mut names = 0;
    loop {
        let mut state = queue.lock().expect("no thread panics");
        let directory = loop {
            if let Some(directory) = state.waiting.pop() {
                state.busy += 1;
                break directory;
            }
            if state.busy == 0 {
                return names;
            }
            state = changed.wait(state).expect("no thread panics");
        };
        drop(state);
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&directory).expect("a readable directory") {
            let entry = entry.expect("a readable directory");
            // Looks at the name itself, as lstat does, relative to the open directory.
            let metadata = entry.metadata().expect("a name that stays");
            names += 1;
            if metadata.is_dir() {
                found.push(entry.path());
            }
        }
        let mut state = queue.lock().expect("no thread panics");
        state.waiting.extend(found);
        state.busy -= 1;
        drop(state);
        changed.notify_all();
    }
}
