//! What is known of a directory while it is backed up: its names beside those of the previous image,
//! and what became of each.
//!
//! Must not look at the disk. Invariant: an entry that is as before is not copied, so that a
//! directory in which nothing changed has no bytes of its own.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use crate::client_key::DirKey;
use crate::ids::Ref;
use crate::scan::handle::DirHandle;
use crate::scan::list::NameList;
use crate::tree::codec::RawEntry;

use super::previous::PreviousDir;
use super::selection::Selection;

/// A directory at work.
pub struct DirNode {
    /// Above it, and its place among the names there. `None`: the image's root.
    pub parent: Option<(Arc<DirNode>, usize)>,
    pub handle: Arc<DirHandle>,
    /// The path below the root of its scope; kept only where rules ask for it.
    pub below: Vec<u8>,
    pub selection: Selection,
    pub previous_ref: Option<Ref>,
    /// With what names in it are sealed, where names are.
    pub names: Option<DirKey>,
    pub listing: OnceLock<Listing>,
    pub entries: Mutex<Entries>,
    /// Batches and directories that are still to end.
    pub pending: AtomicUsize,
    pub changed: AtomicBool,
}

impl DirNode {
    pub fn root(
        handle: Arc<DirHandle>,
        selection: Selection,
        previous_ref: Option<Ref>,
        names: Option<DirKey>,
    ) -> Arc<Self> {
        selection.begins(handle.stat());
        Arc::new(DirNode {
            parent: None,
            handle,
            below: Vec::new(),
            selection,
            previous_ref,
            names,
            listing: OnceLock::new(),
            entries: Mutex::default(),
            pending: AtomicUsize::new(0),
            changed: AtomicBool::new(false),
        })
    }

    /// Its place among the sorted names above it.
    pub fn place(&self) -> usize {
        self.parent.as_ref().map_or(0, |(_, place)| *place)
    }

    /// The entry that the previous image has of the name at a place here.
    pub fn before(&self, place: usize) -> Option<RawEntry<'_>> {
        self.listing.get()?.before(place)
    }

    /// Its own entry in the previous image.
    pub fn own_before(&self) -> Option<RawEntry<'_>> {
        let (above, place) = self.parent.as_ref()?;
        above.before(*place)
    }

    /// Its entries are not those that the previous image has.
    pub fn differs(&self) {
        self.changed.store(true, Ordering::Relaxed);
    }
}

impl Drop for DirNode {
    /// Drops the way up without recursion: a path may be ten thousand directories deep.
    fn drop(&mut self) {
        let mut above = self.parent.take();
        while let Some((node, _)) = above {
            above = Arc::into_inner(node).and_then(|mut node| node.parent.take());
        }
    }
}

/// The names of a directory, and what the previous image has of them.
pub struct Listing {
    pub names: NameList,
    /// Places in the order in which to look at them.
    pub order: Vec<u32>,
    previous: Option<PreviousDir>,
    /// For each place, the entry of that name in `previous`.
    matches: Vec<Option<u32>>,
}

impl Listing {
    pub fn new(names: NameList, previous: Option<PreviousDir>) -> Self {
        let order = names.by_inode();
        let matches = previous.as_ref().map_or_else(Vec::new, |dir| dir.matches(&names));
        Listing { names, order, previous, matches }
    }

    /// Whether each name that the previous image has is still there.
    pub fn has_all_before(&self) -> bool {
        let found = self.matches.iter().flatten().count();
        self.previous.as_ref().is_some_and(|dir| dir.len() == found)
    }

    /// The entry that the previous image has of the name at this place.
    pub fn before(&self, place: usize) -> Option<RawEntry<'_>> {
        let at = (*self.matches.get(place)?)?;
        self.previous.as_ref()?.entry(at as usize)
    }
}

/// What became of a name.
#[derive(Clone, Debug, Default)]
pub enum Slot {
    #[default]
    LeftOut,
    /// As the previous image has it.
    Before,
    /// Encoded anew: where, among the bytes of its directory.
    Own(Range<usize>),
}

/// What became of the names so far, by their places.
#[derive(Default)]
pub struct Entries {
    arena: Vec<u8>,
    slots: Vec<Slot>,
}

impl Entries {
    /// Makes room for so many names.
    pub fn expect(&mut self, names: usize) {
        self.slots.resize(names, Slot::LeftOut);
    }

    /// Takes over what a batch found; places in `arena` are of the batch's own bytes.
    pub fn put_all(&mut self, arena: &[u8], slots: impl Iterator<Item = (usize, Slot)>) {
        let base = self.arena.len();
        self.arena.extend_from_slice(arena);
        for (place, slot) in slots {
            if let Some(own) = self.slots.get_mut(place) {
                *own = match slot {
                    Slot::Own(range) => Slot::Own(base + range.start..base + range.end),
                    other => other,
                };
            }
        }
    }

    /// All entries, in order of their names.
    pub fn raw<'e>(&'e self, listing: &'e Listing) -> impl Iterator<Item = RawEntry<'e>> {
        self.slots.iter().enumerate().filter_map(move |(place, slot)| match slot {
            Slot::LeftOut => None,
            Slot::Before => listing.before(place),
            Slot::Own(range) => {
                let name = listing.names.get(place)?.name;
                Some(RawEntry { name, raw: self.arena.get(range.clone())? })
            }
        })
    }
}
