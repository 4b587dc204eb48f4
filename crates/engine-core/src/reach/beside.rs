//! Marks what another image has where an image has the same, so that a walk of the image finds only
//! what differs: both trees are gone through side by side, and the cost is that of the changes.
//!
//! What is marked, the other image has, with all that is below it. That not everything is marked
//! that it has costs work, nothing else: what was moved far away is walked again.

use std::collections::HashSet;

use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::ids::{Kind, Name, Ref};
use crate::tasks::{Tasks, in_threads, thread_count};
use crate::tree::changes::{self, Pair, Step};
use crate::tree::codec::{Peek, RawContent};
use crate::tree::entry::EntryKind;
use crate::tree::walk::Next;
use crate::tree::{ChunkSource, lists};

use super::LiveSet;

/// Threads that wait for trees to come.
const WAITING: usize = 2;

struct Beside<'a> {
    source: &'a dyn ChunkSource,
    live: &'a LiveSet,
    cancel: &'a Cancel,
    /// Directories that differ: of the other image, and of the image.
    pairs: Tasks<(Ref, Ref)>,
}

/// Marks what the tree `other` has in common with `tree`. Of what can't be read nothing is marked.
pub fn vouch(
    source: &dyn ChunkSource,
    live: &LiveSet,
    other: Ref,
    tree: Ref,
    cancel: &Cancel,
) -> Result<()> {
    let beside = Beside { source, live, cancel, pairs: Tasks::new((other, tree)) };
    let work = || {
        let mut ended = false;
        while let Some((other, tree)) = beside.pairs.next(ended) {
            ended = true;
            cancel.check()?;
            readable(beside.directories(other, tree))?;
        }
        Ok(())
    };
    in_threads(thread_count(0, WAITING), work, || beside.pairs.abandon())
}

/// Damage is told by whoever needs what is damaged.
fn readable(outcome: Result<()>) -> Result<()> {
    match outcome {
        Err(
            Error::ChunkMissing { .. }
            | Error::ObjectMissing { .. }
            | Error::Integrity { .. }
            | Error::NewerFormat { .. },
        ) => Ok(()),
        other => other,
    }
}

impl Beside<'_> {
    fn directories(&self, other: Ref, tree: Ref) -> Result<()> {
        self.live.mark(Kind::Tree, &other.name);
        if other == tree {
            return Ok(());
        }
        let mut pair = Pair::open(self.source, other, tree)?;
        loop {
            match pair.step()? {
                Step::Opened => {}
                Step::Same => {
                    if let Next::Object { reference, .. } = pair.old.peek() {
                        self.live.mark(Kind::Tree, &reference.name);
                    } else if let Some(entry) = changes::peek(&pair.old)? {
                        self.entry(&entry)?;
                    }
                    pair.advance();
                }
                Step::Take { old, new } => {
                    if old && let Some(theirs) = changes::peek(&pair.old)? {
                        self.entry(&theirs)?;
                        if new && let Some(ours) = changes::peek(&pair.new)? {
                            self.both(&theirs, &ours)?;
                        }
                    }
                    if old {
                        pair.old.advance();
                    }
                    if new {
                        pair.new.advance();
                    }
                }
                Step::End => return Ok(()),
            }
        }
    }

    /// Marks what an entry of the other image names.
    fn entry(&self, entry: &Peek<'_>) -> Result<()> {
        if let Some(tree) = entry.subtree {
            self.live.mark(Kind::Tree, &tree.name);
        }
        match entry.content {
            RawContent::Empty => Ok(()),
            RawContent::Direct(refs) => {
                let refs: Vec<Ref> = Ref::iter(refs).into_iter().flatten().collect();
                self.all(Kind::Data, &refs)
            }
            RawContent::Listed { list, .. } => {
                self.live.mark(Kind::List, &list.name);
                Ok(())
            }
        }
    }

    /// Looks into what has one name in both images and differs.
    fn both(&self, theirs: &Peek<'_>, ours: &Peek<'_>) -> Result<()> {
        if (theirs.kind, ours.kind) == (EntryKind::Dir, EntryKind::Dir)
            && let (Some(other), Some(tree)) = (theirs.subtree, ours.subtree)
            && other != tree
        {
            self.pairs.push((other, tree));
        }
        match (theirs.content, ours.content) {
            (
                RawContent::Listed { depth, list: other },
                RawContent::Listed { depth: as_deep, list },
            ) if depth == as_deep && other != list => readable(self.lists(depth, other, list)),
            _ => Ok(()),
        }
    }

    /// Goes down, depth by depth, into the lists that differ. Of references to data no more are in
    /// memory than one list has.
    fn lists(&self, depth: u8, other: Ref, list: Ref) -> Result<()> {
        let (mut theirs, mut ours) = (vec![other], vec![list]);
        for _ in 1..depth {
            let (below, own) = (self.below(&theirs)?, self.below(&ours)?);
            self.all(Kind::List, &below)?;
            (theirs, ours) = (without(&below, &own), without(&own, &below));
        }
        for list in theirs {
            self.cancel.check()?;
            self.all(Kind::Data, &lists::read_list(self.source, &list)?)?;
        }
        Ok(())
    }

    fn below(&self, lists: &[Ref]) -> Result<Vec<Ref>> {
        let mut below = Vec::new();
        for list in lists {
            self.cancel.check()?;
            below.extend(lists::read_list(self.source, list)?);
        }
        Ok(below)
    }

    fn all(&self, kind: Kind, refs: &[Ref]) -> Result<()> {
        let names: Vec<Name> = refs.iter().map(|reference| reference.name).collect();
        self.live.mark_all(kind, &names, &mut |_, _| Ok(()))
    }
}

/// Those that are not among the others.
fn without(refs: &[Ref], others: &[Ref]) -> Vec<Ref> {
    let others: HashSet<Name> = others.iter().map(|reference| reference.name).collect();
    refs.iter().filter(|reference| !others.contains(&reference.name)).copied().collect()
}
