//! The image that a machine's backup follows: its files, and its disks chunk by chunk.

use std::collections::VecDeque;

use crate::client_key::{DirKey, Sealing};
use crate::counters::Counters;
use crate::disk::CELL_BYTES;
use crate::error::{Error, Result};
use crate::finding::Findings;
use crate::ids::{Kind, Ref};
use crate::ingest::Sink;
use crate::manifest::Manifest;
use crate::repository::Repository;
use crate::tree::entry::{Content, Entry, EntryKind, Extent};
use crate::tree::layout::{Layout, Placed, mismatch};
use crate::tree::lists;

use super::DISKS;
use super::ranges::{Range, same_from};
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

    /// The chunks of a disk, of which these ranges are known.
    pub fn open(&self, entry: &Entry, ranges: &[Range]) -> Result<ParentDisk<'a>> {
        ParentDisk::open(self.sink.repository(), entry, ranges)
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

/// What is left of a list.
struct List {
    /// Of what it refers to: data at 0, else lists.
    depth: u8,
    refs: std::vec::IntoIter<Ref>,
    /// How many of what is next were asked for already.
    near: usize,
}

/// A list of depth 1, where its bytes begin in the content, and from where on its chunks are the
/// disk's.
struct ListAt {
    list: Ref,
    content: u64,
    offset: u64,
}

/// Lists that are taken over as they are, and what they make of the disk.
pub struct KeptLists {
    /// Each with its bytes of content.
    pub lists: Vec<(Ref, u64)>,
    pub extents: Vec<Extent>,
    /// In the content of these lists.
    pub skips: Vec<Extent>,
    /// Where on the disk they end.
    pub upto: u64,
}

/// From a pool far away, lists come so many at a time.
const LISTS_AHEAD: usize = 64;
/// Lists that the pool is asked for at a time.
const LISTS_ASKED: usize = 4096;
/// Lists that are taken over at a time.
const LISTS_KEPT: usize = 1024;

/// Walks the chunks of a disk from its beginning to its end. Where the disk tells how much each of
/// its lists has, those that nothing is wanted of are never fetched.
pub struct ParentDisk<'a> {
    from: &'a dyn Repository,
    name: String,
    extents: Vec<Extent>,
    skips: Vec<Extent>,
    layout: Layout,
    size: u64,
    /// Where each list begins; empty where that is not known.
    index: Vec<ListAt>,
    /// Which of them are looked into, and how many of these were asked for.
    wanted: Vec<usize>,
    near: usize,
    /// The list after the open one.
    list: usize,
    /// Lists being read, the outermost first.
    open: Vec<List>,
    next: VecDeque<Placed>,
}

impl<'a> ParentDisk<'a> {
    fn open(from: &'a dyn Repository, entry: &Entry, ranges: &[Range]) -> Result<Self> {
        let whole = [Extent { offset: 0, length: entry.size }];
        let whole = if entry.size == 0 { &whole[..0] } else { &whole[..] };
        let mut disk = ParentDisk {
            from,
            name: entry.name.escape_ascii().to_string(),
            extents: entry.extents.as_deref().unwrap_or(whole).to_vec(),
            skips: entry.skips.clone(),
            layout: Layout::new(entry),
            size: entry.size,
            index: Vec::new(),
            wanted: Vec::new(),
            near: 0,
            list: 0,
            open: Vec::new(),
            next: VecDeque::new(),
        };
        disk.read_index(entry)?;
        if disk.index.is_empty() {
            let (depth, refs) = match &entry.content {
                Content::Empty => (0, Vec::new()),
                Content::Direct(refs) => (0, refs.clone()),
                Content::Listed { depth, list } => (*depth, vec![*list]),
            };
            disk.open.push(List { depth, refs: refs.into_iter(), near: 0 });
        }
        let is_wanted = |at: &usize| same_from(ranges, disk.domain(*at).0) < disk.domain(*at).1;
        disk.wanted = (0..disk.index.len()).filter(is_wanted).collect();
        Ok(disk)
    }

    /// Reads all lists but those of depth 1, if it is told what those have.
    fn read_index(&mut self, entry: &Entry) -> Result<()> {
        let Content::Listed { depth, list } = entry.content else { return Ok(()) };
        if entry.lists.is_empty() {
            return Ok(());
        }
        let mut lists = vec![list];
        for _ in 1..depth {
            if self.from.stretch_bytes().is_some() {
                self.from.prefetch(Kind::List, &lists, &Counters::default());
            }
            let mut below = Vec::new();
            for list in &lists {
                below.extend(lists::read_list(self.from, list)?);
            }
            lists = below;
        }
        if lists.len() != entry.lists.len() {
            return Err(mismatch(entry));
        }
        let mut content = 0;
        for (list, length) in lists.into_iter().zip(&entry.lists) {
            let first = if content == 0 { Some(0) } else { self.layout.offset_at(content) };
            let last = self.index.last().map(|last| last.offset);
            let Some(offset) = first.filter(|first| last.is_none_or(|last| last < *first)) else {
                // Nothing of it is on the disk: nobody writes that, and it is walked as it is.
                self.index.clear();
                return Ok(());
            };
            self.index.push(ListAt { list, content, offset });
            content += length;
        }
        Ok(())
    }

    /// From where to where the disk is what a list says.
    fn domain(&self, at: usize) -> (u64, u64) {
        let from = self.index.get(at).map_or(self.size, |list| list.offset);
        (from, self.index.get(at + 1).map_or(self.size, |list| list.offset))
    }

    /// The lists that nothing is wanted of, some at a time.
    pub fn unwanted(&self) -> impl Iterator<Item = impl Iterator<Item = Ref> + '_> + '_ {
        let is_wanted = |at: &usize| self.wanted.binary_search(at).is_ok();
        (0..self.index.len()).step_by(LISTS_ASKED).map(move |first| {
            let some = first..(first + LISTS_ASKED).min(self.index.len());
            let unwanted = some.filter(move |at| !is_wanted(at));
            unwanted.filter_map(|at| self.index.get(at)).map(|list| list.list)
        })
    }

    /// How many extents and how many passed over stretches it has.
    pub fn counts(&self) -> (usize, usize) {
        (self.extents.len(), self.skips.len())
    }

    /// The lists that begin at this place of the disk and end where it is the same at last.
    pub fn lists(&self, from: u64, same_upto: u64) -> Option<KeptLists> {
        let first = self.index.binary_search_by_key(&from, |list| list.offset).ok()?;
        let is_same = |at: &usize| self.domain(*at).1 <= same_upto;
        let count = (first..self.index.len()).take(LISTS_KEPT).take_while(is_same).count();
        let after = first + count;
        let lists = self.index.get(first..after).filter(|lists| !lists.is_empty())?;
        let content_of = |at: usize| self.index.get(at).map_or(self.end(), |list| list.content);
        let number = |(at, list): (usize, &ListAt)| {
            (list.list, content_of(first + at + 1) - content_of(first + at))
        };
        let (start, end) = (content_of(first), content_of(after));
        let mut extents = Vec::<Extent>::new();
        let stretches = self.layout.stretches();
        let begin = stretches.partition_point(|stretch| stretch.end() <= start);
        for stretch in stretches.get(begin..).unwrap_or_default() {
            let (from, upto) = (stretch.content.max(start), stretch.end().min(end));
            if from >= upto {
                break;
            }
            let (offset, length) = (stretch.offset + (from - stretch.content), upto - from);
            match extents.last_mut() {
                Some(last) if last.offset + last.length == offset => last.length += length,
                _ => extents.push(Extent { offset, length }),
            }
        }
        let begin = self.skips.partition_point(|skip| skip.offset + skip.length <= start);
        let skips = self.skips.get(begin..).unwrap_or_default().iter();
        let skips = skips.take_while(|skip| skip.offset < end).map(|skip| {
            let (from, upto) = (skip.offset.max(start), (skip.offset + skip.length).min(end));
            Extent { offset: from - start, length: upto - from }
        });
        Some(KeptLists {
            lists: lists.iter().enumerate().map(number).collect(),
            extents,
            skips: skips.collect(),
            upto: self.domain(after).0,
        })
    }

    /// Where the first list begins between two places of the disk that can be taken over as it is:
    /// `same` tells up to where the disk is the same from a place on.
    pub fn next_list(&self, from: u64, upto: u64, same: impl Fn(u64) -> u64) -> Option<u64> {
        let first = self.index.partition_point(|list| list.offset <= from);
        let next = (first..self.index.len()).map(|at| self.domain(at));
        let mut near = next.take_while(|(start, _)| *start < upto);
        near.find(|(start, end)| same(*start) >= *end).map(|(start, _)| start)
    }

    /// Bytes of its content.
    fn end(&self) -> u64 {
        self.layout.end()
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

    /// The parts of chunks that lie between `from` and `upto`, or partly so, each in one cell; such
    /// as lie in two are passed over. Never goes back.
    pub fn take(&mut self, from: u64, upto: u64, out: &mut Vec<Placed>) -> Result<()> {
        out.clear();
        self.go_to(from)?;
        loop {
            while let Some(next) = self.next.front() {
                if next.offset >= upto {
                    return Ok(());
                }
                if next.end() > from {
                    out.push(*next);
                }
                if next.end() > upto {
                    return Ok(());
                }
                self.next.pop_front();
            }
            let Some(reference) = self.reference()? else { return Ok(()) };
            let next = &mut self.next;
            let is_of_it = self.layout.place(reference, |part| {
                if part.offset / CELL_BYTES == (part.end() - 1) / CELL_BYTES {
                    next.push_back(part);
                }
            });
            if !is_of_it {
                return Err(self.mismatch());
            }
        }
    }

    fn mismatch(&self) -> Error {
        let object = format!("the content of '{}'", self.name);
        Error::integrity(object, "its chunks do not cover it")
    }

    /// Opens the list that has what lies at a place of the disk, if it is a later one.
    fn go_to(&mut self, offset: u64) -> Result<()> {
        let after = self.index.partition_point(|list| list.offset <= offset);
        if after > self.list {
            self.open_list(after - 1)?;
        }
        Ok(())
    }

    fn open_list(&mut self, at: usize) -> Result<()> {
        let Some(ListAt { list, content, .. }) = self.index.get(at) else { return Ok(()) };
        let (list, content) = (*list, *content);
        let end = self.index.get(at + 1).map_or(self.end(), |next| next.content);
        self.bring_near(at);
        let refs = lists::read_list(self.from, &list)?;
        let bytes = refs.iter().map(|reference| u64::from(reference.plain_length())).sum::<u64>();
        if content + bytes != end {
            return Err(self.mismatch());
        }
        self.layout.seek(content);
        self.next.clear();
        self.open = vec![List { depth: 0, refs: refs.into_iter(), near: 0 }];
        self.list = at + 1;
        Ok(())
    }

    /// Has the lists that are looked into next fetched together.
    fn bring_near(&mut self, at: usize) {
        let first = self.wanted.partition_point(|wanted| *wanted < at);
        if self.from.stretch_bytes().is_none() || first < self.near {
            return;
        }
        let ahead = self.wanted.iter().skip(first).take(LISTS_AHEAD);
        let lists: Vec<Ref> =
            ahead.filter_map(|at| self.index.get(*at)).map(|list| list.list).collect();
        self.from.prefetch(Kind::List, &lists, &Counters::default());
        self.near = first + lists.len();
    }

    fn reference(&mut self) -> Result<Option<Ref>> {
        loop {
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
            if self.list >= self.index.len() {
                return Ok(None);
            }
            self.open_list(self.list)?;
        }
    }
}
