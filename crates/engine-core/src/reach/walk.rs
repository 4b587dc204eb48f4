//! Walks the trees of images and marks every chunk that they need.
//!
//! A name is bound to its kind, so a tree or list that is marked already was walked already:
//! what images share is read once. Memory is the bitmaps and, for each thread, what one directory
//! object names on each level.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

use crate::cancel::Cancel;
use crate::counters::{Counters, Stage, add};
use crate::error::{Error, Result};
use crate::ids::{Kind, Name, Ref};
use crate::reach::live::{LiveSet, Marked};
use crate::reach::path::Path;
use crate::tree::codec::{self, RawContent, TreeObject};
use crate::tree::entry::EntryKind;
use crate::tree::{ChunkSource, lists};

/// What to do about a chunk that is missing, damaged or not what it should be: go on (`Ok`) or
/// end the walk. `path` is "IMAGE:/path".
pub trait Trouble: Sync {
    fn trouble(&self, path: &[u8], error: Error) -> Result<()>;

    /// What is known beforehand to be wrong with a chunk; `excluded`: it lies in excluded packs
    /// only.
    fn known(&self, _name: &Name, _excluded: bool) -> Option<Error> {
        None
    }

    /// Told of each reference to a chunk that is known to be wrong.
    fn damaged(&self, path: &[u8], error: Error) -> Result<()> {
        self.trouble(path, error)
    }
}

/// Trouble ends the walk; the error names the file.
pub struct Stop;

impl Trouble for Stop {
    fn trouble(&self, path: &[u8], error: Error) -> Result<()> {
        let path = String::from_utf8_lossy(path).into_owned();
        Err(match error {
            Error::ChunkMissing { name } => {
                Error::integrity(path, format!("its chunk {name} is in no known pack"))
            }
            Error::Integrity { object, reason } => {
                Error::integrity(path, format!("{object} is damaged: {reason}"))
            }
            other => other,
        })
    }
}

/// The root of one image.
pub struct Root {
    /// The image in words.
    pub image: String,
    pub tree: Ref,
}

/// A tree object or a list that was marked and is still to be read.
enum Item {
    Tree { tree: Ref, path: Arc<Path> },
    List { list: Ref, depth: u8, path: Arc<Path> },
}

/// Items that any thread may take.
#[derive(Default)]
struct Shared {
    items: Vec<Item>,
    /// Threads that wait for an item; when all do, the walk is over.
    idle: usize,
    over: bool,
}

struct Walk<'a> {
    source: &'a dyn ChunkSource,
    live: &'a LiveSet,
    trouble: &'a dyn Trouble,
    counters: &'a Counters,
    cancel: &'a Cancel,
    threads: usize,
    shared: Mutex<Shared>,
    changed: Condvar,
}

/// Marks everything that the images need.
pub fn walk(
    source: &dyn ChunkSource,
    live: &LiveSet,
    roots: impl IntoIterator<Item = Root>,
    trouble: &dyn Trouble,
    counters: &Counters,
    cancel: &Cancel,
) -> Result<()> {
    let threads = std::thread::available_parallelism().map_or(2, usize::from).clamp(2, 16);
    let walk = Walk {
        source,
        live,
        trouble,
        counters,
        cancel,
        threads,
        shared: Mutex::default(),
        changed: Condvar::new(),
    };
    let mut items = Vec::new();
    for root in roots {
        let path = Path::root(&root.image);
        if walk.mark(Kind::Tree, &root.tree, &path, b"")? {
            items.push(Item::Tree { tree: root.tree, path });
        }
    }
    // The last is taken first: begin with the oldest image, whose parts lie together.
    items.reverse();
    walk.shared.lock().items = items;
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(|| walk.run())).collect();
        let mut outcome = Ok(());
        for thread in running {
            let ended = thread
                .join()
                .unwrap_or_else(|_| Err(Error::Invalid("a thread of the walk died".into())));
            if outcome.is_ok() {
                outcome = ended;
            }
        }
        outcome
    })
}

impl Walk<'_> {
    fn run(&self) -> Result<()> {
        let mut own = Vec::new();
        let outcome = loop {
            let Some(item) = own.pop().or_else(|| self.take()) else {
                break Ok(());
            };
            if let Err(error) = self.cancel.check().and_then(|()| self.visit(item, &mut own)) {
                break Err(error);
            }
            self.share(&mut own);
        };
        if outcome.is_err() {
            let mut shared = self.shared.lock();
            shared.over = true;
            shared.items.clear();
            self.changed.notify_all();
        }
        outcome
    }

    /// Waits for an item; `None` when there will be no more.
    fn take(&self) -> Option<Item> {
        let mut shared = self.shared.lock();
        let waiting = Instant::now();
        loop {
            if shared.over {
                return None;
            }
            if let Some(item) = shared.items.pop() {
                self.counters.starved(Stage::Find, waiting);
                return Some(item);
            }
            shared.idle += 1;
            if shared.idle == self.threads {
                shared.over = true;
                self.changed.notify_all();
                return None;
            }
            self.changed.wait(&mut shared);
            shared.idle -= 1;
        }
    }

    /// Gives half of a thread's items to threads that wait; the oldest, which lead furthest.
    fn share(&self, own: &mut Vec<Item>) {
        if own.len() < 2 {
            return;
        }
        let Some(mut shared) = self.shared.try_lock() else { return };
        if shared.idle > 0 && shared.items.is_empty() && !shared.over {
            let half = own.len() / 2;
            shared.items.extend(own.drain(..half));
            self.changed.notify_all();
        }
    }

    /// Whether the chunk is live only now, so that what it names is still to be marked.
    fn mark(&self, kind: Kind, reference: &Ref, path: &Path, name: &[u8]) -> Result<bool> {
        self.judge(self.live.mark(kind, &reference.name), reference, path, name)
    }

    /// Whether what was marked is live only now; tells of trouble with it.
    fn judge(&self, marked: Marked, reference: &Ref, path: &Path, name: &[u8]) -> Result<bool> {
        let (new, place) = match marked {
            Marked::New(place) => (true, place),
            Marked::Known(place) => (false, place),
            Marked::Missing => {
                let error = Error::ChunkMissing { name: reference.name.to_string() };
                self.trouble.trouble(&full(path, name), error)?;
                return Ok(false);
            }
            Marked::Misplaced => {
                let error = Error::integrity(
                    format!("chunk {}", reference.name),
                    "it is referred to as a chunk of another kind than it is",
                );
                self.trouble.trouble(&full(path, name), error)?;
                return Ok(false);
            }
        };
        if let Some(error) = self.trouble.known(&reference.name, place.excluded) {
            self.trouble.damaged(&full(path, name), error)?;
            return Ok(false);
        }
        let (stored, wanted) = (place.record.place.length, reference.stored_length());
        if stored != wanted {
            let reason = format!("{stored} bytes stored, {wanted} wanted");
            let error = Error::integrity(format!("chunk {}", reference.name), reason);
            self.trouble.trouble(&full(path, name), error)?;
            return Ok(false);
        }
        Ok(new)
    }

    fn visit(&self, item: Item, own: &mut Vec<Item>) -> Result<()> {
        let started = Instant::now();
        let (kind, reference, path) = match &item {
            Item::Tree { tree, path } => (Kind::Tree, tree, path),
            Item::List { list, path, .. } => (Kind::List, list, path),
        };
        let bytes = match self.source.fetch(kind, reference) {
            Ok(bytes) => bytes,
            Err(error) => return self.fault(path, error),
        };
        let from = own.len();
        let outcome = match &item {
            Item::Tree { path, .. } => self.visit_tree(&bytes, path, own),
            Item::List { depth, path, list } => self.visit_list(&bytes, list, *depth, path, own),
        };
        // The first of them is to be taken first, as it was written first.
        own[from..].reverse();
        self.counters.busy(Stage::Find, bytes.len() as u64, started);
        outcome
    }

    /// Tells of trouble with stored data; what is no fault of the data ends the walk.
    fn fault(&self, path: &Path, error: Error) -> Result<()> {
        match error {
            Error::ChunkMissing { .. }
            | Error::Integrity { .. }
            | Error::ObjectMissing { .. }
            | Error::NewerFormat { .. } => self.trouble.trouble(&path.bytes(), error),
            other => Err(other),
        }
    }

    fn visit_tree(&self, bytes: &[u8], path: &Arc<Path>, own: &mut Vec<Item>) -> Result<()> {
        let entries = match codec::decode_object(bytes) {
            Err(error) => return self.fault(path, error),
            Ok(TreeObject::Node { items, .. }) => {
                for (_, tree) in items {
                    if self.mark(Kind::Tree, &tree, path, b"")? {
                        own.push(Item::Tree { tree, path: Arc::clone(path) });
                    }
                }
                return Ok(());
            }
            Ok(TreeObject::Leaf(entries)) => entries,
        };
        let (mut files, mut dirs, mut others) = (0, 0, 0);
        let (mut data, mut names) = (Vec::new(), Vec::new());
        for entry in &entries {
            let seen = match entry.peek() {
                Ok(seen) => seen,
                Err(error) => {
                    self.fault(&path.join(entry.name), error)?;
                    continue;
                }
            };
            match seen.kind {
                EntryKind::File => files += 1,
                EntryKind::Dir => dirs += 1,
                _ => others += 1,
            }
            if let Some(tree) = seen.subtree
                && self.mark(Kind::Tree, &tree, path, entry.name)?
            {
                own.push(Item::Tree { tree, path: path.join(entry.name) });
            }
            match seen.content {
                RawContent::Empty => {}
                RawContent::Direct(refs) => {
                    for reference in Ref::iter(refs).into_iter().flatten() {
                        data.push((reference, entry.name));
                        names.push(reference.name);
                    }
                }
                RawContent::Listed { depth, list } => {
                    if self.mark(Kind::List, &list, path, entry.name)? {
                        own.push(Item::List { list, depth, path: path.join(entry.name) });
                    }
                }
            }
        }
        let totals = [&self.counters.files, &self.counters.dirs, &self.counters.others];
        for (total, count) in totals.into_iter().zip([files, dirs, others]) {
            add(total, count);
        }
        self.looked_up(data.len() as u64);
        self.live.mark_all(Kind::Data, &names, &mut |at, marked| {
            let (reference, name) = &data[at];
            self.judge(marked, reference, path, name).map(|_| ())
        })
    }

    fn visit_list(
        &self,
        bytes: &[u8],
        list: &Ref,
        depth: u8,
        path: &Arc<Path>,
        own: &mut Vec<Item>,
    ) -> Result<()> {
        let Some(refs) = lists::decode_list(bytes) else {
            let reason = format!("{} bytes are no list of references", bytes.len());
            let error = Error::integrity(format!("list chunk {}", list.name), reason);
            return self.fault(path, error);
        };
        self.looked_up(refs.len() as u64);
        let kind = if depth > 1 { Kind::List } else { Kind::Data };
        let names: Vec<Name> = refs.iter().map(|reference| reference.name).collect();
        self.live.mark_all(kind, &names, &mut |at, marked| {
            let list = refs[at];
            if self.judge(marked, &list, path, b"")? && depth > 1 {
                let path = Arc::clone(path);
                own.push(Item::List { list, depth: depth - 1, path });
            }
            Ok(())
        })
    }

    fn looked_up(&self, chunks: u64) {
        let total: &AtomicU64 = &self.counters.chunks_looked_up;
        add(total, chunks);
    }
}

fn full(path: &Path, name: &[u8]) -> Vec<u8> {
    let mut bytes = path.bytes();
    if !name.is_empty() {
        if bytes.last() != Some(&b'/') {
            bytes.push(b'/');
        }
        bytes.extend_from_slice(name);
    }
    bytes
}
