//! What differs between two trees.
//!
//! Both are gone through side by side in order of names. What is the same object on both sides
//! is skipped unread: the cost is that of the changes, not of the trees. No recursion; memory is
//! a few tree objects for each directory on the way down.

use std::cmp::Ordering;

use super::ChunkSource;
use super::codec::Peek;
use super::entry::{Entry, EntryKind};
use super::walk::{Cursor, Directory, Next};
use crate::error::Result;
use crate::ids::Ref;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    Added,
    Removed,
    /// Content or metadata.
    Changed,
}

/// One entry that is not the same in both trees.
#[derive(Clone, Copy, Debug)]
pub struct Change<'a> {
    /// The directory that it is in: "/" or "/a/b".
    pub dir: &'a [u8],
    /// Its new state, or the old one if it was removed.
    pub entry: Peek<'a>,
    pub what: What,
}

/// Calls `visit` with every change from `old` to `new` below the two roots; `None` is an empty
/// tree. A directory comes before what is in it. A directory is changed when its own metadata is:
/// changes in it do not count. The device number does not count either, for it may differ from
/// one start of a machine to the next.
pub fn changes(
    source: &dyn ChunkSource,
    old: Option<&Entry>,
    new: Option<&Entry>,
    visit: &mut dyn FnMut(Change<'_>) -> Result<()>,
) -> Result<()> {
    let old = old.and_then(|entry| entry.subtree);
    let new = new.and_then(|entry| entry.subtree);
    let mut walk = Walk { source, visit, path: b"/".to_vec(), open: Vec::new() };
    walk.descend(old, new, None)?;
    while let Some(pair) = walk.open.last_mut() {
        match pair.step()? {
            Step::Opened => {}
            Step::Same => pair.advance(),
            Step::Take { old, new } => walk.take(old, new)?,
            Step::End => {
                walk.open.pop();
                let length = walk.open.last().map_or(0, |pair| pair.path_len);
                walk.path.truncate(length);
            }
        }
    }
    Ok(())
}

struct Walk<'a, 'v> {
    source: &'a dyn ChunkSource,
    visit: &'v mut dyn FnMut(Change<'_>) -> Result<()>,
    path: Vec<u8>,
    open: Vec<Pair<'a>>,
}

/// The two sides of one directory.
pub(crate) struct Pair<'a> {
    pub(crate) old: Cursor<'a>,
    pub(crate) new: Cursor<'a>,
    path_len: usize,
}

pub(crate) enum Step {
    /// An object was read; nothing to report yet.
    Opened,
    /// The same entry, or the same object, comes next on both sides: see [`Pair::advance`].
    Same,
    /// The entries that come next on the sides named, which have one name.
    Take {
        old: bool,
        new: bool,
    },
    End,
}

impl<'a> Pair<'a> {
    /// The start of two directories.
    pub(crate) fn open(source: &'a dyn ChunkSource, old: Ref, new: Ref) -> Result<Self> {
        let open = |root| Directory::open(source, root).map(|directory| directory.cursor());
        Ok(Pair { old: open(old)?, new: open(new)?, path_len: 0 })
    }

    /// Steps past what comes next on both sides.
    pub(crate) fn advance(&mut self) {
        self.old.advance();
        self.new.advance();
    }

    /// What comes next. Only objects are read; nothing is stepped past.
    pub(crate) fn step(&mut self) -> Result<Step> {
        let (expand_old, expand_new) = match (self.old.peek(), self.new.peek()) {
            (Next::End, Next::End) => return Ok(Step::End),
            (Next::Entry(old), Next::Entry(new)) => match old.name.cmp(new.name) {
                Ordering::Less => return Ok(Step::Take { old: true, new: false }),
                Ordering::Greater => return Ok(Step::Take { old: false, new: true }),
                Ordering::Equal if old.raw == new.raw => return Ok(Step::Same),
                Ordering::Equal => return Ok(Step::Take { old: true, new: true }),
            },
            (Next::Entry(_), Next::End) => return Ok(Step::Take { old: true, new: false }),
            (Next::End, Next::Entry(_)) => return Ok(Step::Take { old: false, new: true }),
            // An entry before the object's first stands alone; else the object may hold its pair.
            (Next::Entry(old), Next::Object { first_name, .. }) if old.name < first_name => {
                return Ok(Step::Take { old: true, new: false });
            }
            (Next::Object { first_name, .. }, Next::Entry(new)) if new.name < first_name => {
                return Ok(Step::Take { old: false, new: true });
            }
            (
                Next::Object { level: old_level, first_name: old_name, reference: old },
                Next::Object { level: new_level, first_name: new_name, reference: new },
            ) => {
                if old == new {
                    return Ok(Step::Same);
                }
                // Objects of one level that begin alike may still be equal one level down, and
                // a side that lags may come to an object that the other side stands before.
                match (old_level.cmp(&new_level), old_name.cmp(new_name)) {
                    (Ordering::Greater, _) | (Ordering::Equal, Ordering::Less) => (true, false),
                    (Ordering::Less, _) | (Ordering::Equal, Ordering::Greater) => (false, true),
                    (Ordering::Equal, Ordering::Equal) => (true, true),
                }
            }
            (old, new) => (matches!(old, Next::Object { .. }), matches!(new, Next::Object { .. })),
        };
        if expand_old {
            self.old.expand()?;
        }
        if expand_new {
            self.new.expand()?;
        }
        Ok(Step::Opened)
    }
}

impl<'a> Walk<'a, '_> {
    fn take(&mut self, take_old: bool, take_new: bool) -> Result<()> {
        let Some(pair) = self.open.last_mut() else { return Ok(()) };
        let old = if take_old { peek(&pair.old)? } else { None };
        let new = if take_new { peek(&pair.new)? } else { None };
        let change = match (old, new) {
            (Some(old), Some(new)) => differ(&old, &new).then_some((new, What::Changed)),
            (Some(old), None) => Some((old, What::Removed)),
            (None, Some(new)) => Some((new, What::Added)),
            (None, None) => return Ok(()),
        };
        if let Some((entry, what)) = change {
            (self.visit)(Change { dir: &self.path, entry, what })?;
        }
        let is_dir = |seen: &Peek<'_>| seen.kind == EntryKind::Dir;
        let below = |seen: Option<Peek<'_>>| seen.filter(is_dir).and_then(|seen| seen.subtree);
        let (old_below, new_below) = (below(old), below(new));
        let name = (old_below != new_below).then(|| match (old, new) {
            (Some(seen), _) | (_, Some(seen)) => seen.name.to_vec(),
            (None, None) => Vec::new(),
        });
        if take_old {
            pair.old.advance();
        }
        if take_new {
            pair.new.advance();
        }
        match name {
            Some(name) => self.descend(old_below, new_below, Some(&name)),
            None => Ok(()),
        }
    }

    fn descend(&mut self, old: Option<Ref>, new: Option<Ref>, name: Option<&[u8]>) -> Result<()> {
        if old == new {
            return Ok(());
        }
        let open = |root: Option<Ref>| match root {
            Some(root) => Directory::open(self.source, root),
            None => Ok(Directory::empty(self.source)),
        };
        let (old, new) = (open(old)?.cursor(), open(new)?.cursor());
        if let Some(name) = name {
            if self.path != b"/" {
                self.path.push(b'/');
            }
            self.path.extend_from_slice(name);
        }
        self.open.push(Pair { old, new, path_len: self.path.len() });
        Ok(())
    }
}

/// The entry that comes next, if it is one.
pub(crate) fn peek<'c>(cursor: &'c Cursor<'_>) -> Result<Option<Peek<'c>>> {
    match cursor.peek() {
        Next::Entry(entry) => entry.peek().map(Some),
        _ => Ok(None),
    }
}

/// Whether two states of one name differ in themselves.
fn differ(old: &Peek<'_>, new: &Peek<'_>) -> bool {
    let same = Peek { device: new.device, subtree: new.subtree, ..*old };
    same != *new
}
