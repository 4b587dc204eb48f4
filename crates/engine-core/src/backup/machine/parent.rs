//! The image that a machine's backup follows: its files, and its disks chunk by chunk.

use crate::client_key::{DirKey, Sealing};
use crate::counters::Counters;
use crate::disk::CELL_BYTES;
use crate::error::{Error, Result};
use crate::finding::Findings;
use crate::ids::{Kind, Ref};
use crate::ingest::Sink;
use crate::manifest::Manifest;
use crate::repository::Repository;
use crate::tree::codec::data_bytes;
use crate::tree::entry::{Content, Entry, EntryKind, Extent};
use crate::tree::lists;

use super::DISKS;
use crate::backup::previous::PreviousDir;

/// The directories of the parent. One that can't be read is as one that is not there: that costs
/// reading, and is told.
pub struct ParentImage<'a> {
    sink: &'a dyn Sink,
    counters: &'a Counters,
    root: Option<PreviousDir>,
    disks: Option<PreviousDir>,
    is_damaged: bool,
}

impl<'a> ParentImage<'a> {
    pub fn new(
        sink: &'a dyn Sink,
        parent: Option<&Manifest>,
        counters: &'a Counters,
        findings: &Findings,
    ) -> Self {
        let names = sink.sealing().and_then(Sealing::root_dir);
        let mut image = ParentImage { sink, counters, root: None, disks: None, is_damaged: false };
        let top = parent.and_then(|parent| parent.root.subtree);
        image.root = image.load_or_tell(top, names, findings);
        let below = image.root.as_ref().and_then(|root| root.peek(DISKS.as_bytes())?.1.subtree);
        let names = names.map(|names| names.child(DISKS.as_bytes()));
        image.disks = image.load_or_tell(below, names, findings);
        image
    }

    fn load_or_tell(
        &mut self,
        from: Option<Ref>,
        names: Option<DirKey>,
        findings: &Findings,
    ) -> Option<PreviousDir> {
        let loaded = self.load(from?, names.as_ref());
        if let Err(error) = &loaded {
            self.is_damaged = true;
            tell_unreadable(findings, "", error);
        }
        loaded.ok()
    }

    /// Whether it may have more than can be read of it.
    pub fn is_damaged(&self) -> bool {
        self.is_damaged
    }

    fn load(&self, from: Ref, names: Option<&DirKey>) -> Result<PreviousDir> {
        let sealed = self.sink.sealing().map(|sealing| &*sealing.key).zip(names);
        PreviousDir::load(self.sink.repository(), &from, self.counters, sealed)
    }

    /// The names at its top.
    pub fn root(&self) -> Option<&PreviousDir> {
        self.root.as_ref()
    }

    /// A directory at its top; none where it is not there or can't be read.
    pub fn dir(&self, name: &[u8]) -> Option<PreviousDir> {
        let names = self.sink.sealing().and_then(Sealing::root_dir);
        let below = self.root.as_ref()?.peek(name)?.1.subtree?;
        self.load(below, names.map(|names| names.child(name)).as_ref()).ok()
    }

    /// The file of a disk.
    pub fn disk(&self, name: &[u8]) -> Result<Option<Entry>> {
        let Some(found) = self.disks.as_ref().and_then(|disks| disks.find(name)) else {
            return Ok(None);
        };
        Ok(Some(found.decode()?).filter(|entry| entry.kind == EntryKind::File))
    }

    pub fn open(&self, entry: &Entry) -> Result<ParentDisk<'a>> {
        ParentDisk::open(self.sink.repository(), entry)
    }
}

/// Says that something of the parent can't be used.
pub fn tell_unreadable(findings: &Findings, disk: &str, error: &Error) {
    let path = if disk.is_empty() { format!("/{DISKS}") } else { format!("/{DISKS}/{disk}") };
    findings.warning(
        path.as_bytes(),
        "previous-unreadable",
        format!("the previous image cannot be read, so what it has is read again: {error}"),
    );
}

/// A chunk of the parent at its place on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    pub offset: u64,
    pub reference: Ref,
}

impl Placed {
    pub fn end(&self) -> u64 {
        self.offset + u64::from(self.reference.plain_length())
    }
}

/// What is left of a list.
struct List {
    /// Of what it refers to: data at 0, else lists.
    depth: u8,
    refs: std::vec::IntoIter<Ref>,
    /// How many of what is next were asked for already.
    near: usize,
}

/// From a pool far away, lists come so many at a time.
const LISTS_AHEAD: usize = 64;

/// Walks the chunks of a disk from its beginning to its end.
pub struct ParentDisk<'a> {
    from: &'a dyn Repository,
    extents: Vec<Extent>,
    /// Lists being read, the outermost first.
    open: Vec<List>,
    /// The extent in which the next chunk begins, and how much of it lies before.
    extent: usize,
    inside: u64,
    next: Option<Placed>,
}

impl<'a> ParentDisk<'a> {
    fn open(from: &'a dyn Repository, entry: &Entry) -> Result<Self> {
        let extents = match &entry.extents {
            Some(extents) => extents.clone(),
            None if entry.size == 0 => Vec::new(),
            None => vec![Extent { offset: 0, length: data_bytes(entry) }],
        };
        let first = match &entry.content {
            Content::Empty => (0, Vec::new()),
            Content::Direct(refs) => (0, refs.clone()),
            Content::Listed { depth, list } => (*depth, vec![*list]),
        };
        let open = vec![List { depth: first.0, refs: first.1.into_iter(), near: 0 }];
        Ok(ParentDisk { from, extents, open, extent: 0, inside: 0, next: None })
    }

    /// Tells in order what is between `from` and `upto`: the length of each stretch, and whether it
    /// is a hole.
    pub fn holes(&self, from: u64, upto: u64, mut tell: impl FnMut(u64, bool)) {
        let first = self.extents.partition_point(|extent| extent.offset + extent.length <= from);
        let mut at = from;
        for extent in self.extents.get(first..).unwrap_or_default() {
            if at >= upto || extent.offset >= upto {
                break;
            }
            if extent.offset > at {
                tell(extent.offset - at, true);
                at = extent.offset;
            }
            let end = (extent.offset + extent.length).min(upto);
            tell(end - at, false);
            at = end;
        }
        if at < upto {
            tell(upto - at, true);
        }
    }

    /// The chunks that lie wholly between `from` and `upto`, each in one cell and in one extent;
    /// others are passed over. Never goes back.
    pub fn take(&mut self, from: u64, upto: u64, out: &mut Vec<Placed>) -> Result<()> {
        out.clear();
        loop {
            let next = match self.next.take() {
                Some(next) => next,
                None => match self.step()? {
                    Some(next) => next,
                    None => return Ok(()),
                },
            };
            if next.offset >= upto {
                self.next = Some(next);
                return Ok(());
            }
            if next.offset >= from && next.end() <= upto {
                out.push(next);
            }
        }
    }

    /// The next chunk that lies in one cell and in one extent.
    fn step(&mut self) -> Result<Option<Placed>> {
        while let Some(reference) = self.reference()? {
            let length = u64::from(reference.plain_length());
            let Some(extent) = self.extents.get(self.extent) else {
                return Err(Error::integrity("a disk of the parent", "it has too many chunks"));
            };
            let offset = extent.offset + self.inside;
            let is_whole = length <= extent.length - self.inside;
            self.pass(length);
            let in_one_cell = offset / CELL_BYTES == (offset + length.max(1) - 1) / CELL_BYTES;
            if is_whole && in_one_cell {
                return Ok(Some(Placed { offset, reference }));
            }
        }
        Ok(None)
    }

    /// Goes on by so many bytes of content.
    fn pass(&mut self, length: u64) {
        self.inside += length;
        while let Some(extent) = self.extents.get(self.extent)
            && self.inside >= extent.length
        {
            self.inside -= extent.length;
            self.extent += 1;
        }
    }

    fn reference(&mut self) -> Result<Option<Ref>> {
        while let Some(List { depth, refs, near }) = self.open.last_mut() {
            let depth = *depth;
            if depth > 0 && *near == 0 && self.from.stretch_bytes().is_some() {
                let ahead = refs.as_slice();
                let ahead = ahead.get(..LISTS_AHEAD).unwrap_or(ahead);
                self.from.prefetch(Kind::List, ahead, &Counters::default());
                *near = ahead.len();
            }
            match refs.next() {
                None => drop(self.open.pop()),
                Some(reference) if depth == 0 => return Ok(Some(reference)),
                Some(reference) => {
                    *near = near.saturating_sub(1);
                    let refs = lists::read_list(self.from, &reference)?.into_iter();
                    self.open.push(List { depth: depth - 1, refs, near: 0 });
                }
            }
        }
        Ok(None)
    }
}
