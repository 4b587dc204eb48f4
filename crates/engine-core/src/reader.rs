//! Read a file of an image at any place.
//!
//! A reader of a huge file keeps where each list of references begins, not the references: some
//! kilobytes for 100 GiB. It learns this as far as it is asked to read. Holes read as zeros. What
//! the lists yield is checked against the size that the entry says. Threads that read at different
//! places wait for each other only while it learns. Whoever reads on where a read has ended has
//! what comes next brought nearer, where the source is far.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::error::{Error, Result};
use crate::ids::{Kind, Ref};
use crate::pool::ChunkBytes;
use crate::tree::ChunkSource;
use crate::tree::codec;
use crate::tree::entry::{Content, Entry, EntryKind, Extent};
use crate::tree::layout::{self, Stretch};
use crate::tree::lists;

/// Lists of references kept at a time: 160 KiB each at most, 60 as a rule.
const LISTS_KEPT: usize = 64;
/// Data chunks kept at a time, for reads smaller than a chunk. Each may hold its block.
const CHUNKS_KEPT: usize = 16;
/// Places at which reads ended, for telling who reads on.
const ENDS_KEPT: usize = 16;
/// Who reads on has so many bytes brought nearer, from the list that is at hand.
const AHEAD_BYTES: u64 = 4 << 20;
/// Lists that are brought nearer at a time.
const LISTS_AHEAD: usize = 64;
/// More lists than any file has: 4 million stand for more than 100 TiB.
const MAX_LISTS: usize = 1 << 22;

/// One file's bytes. May be shared by threads.
pub struct FileReader {
    source: Arc<dyn ChunkSource>,
    name: String,
    size: u64,
    /// Bytes that are not holes, and bytes that the content yields.
    data: u64,
    length: u64,
    /// Where content goes that is not just the file.
    stretches: Option<Vec<Stretch>>,
    content: Mutex<Chunks>,
    kept: Mutex<VecDeque<(Ref, ChunkBytes)>>,
    /// In the content.
    ends: Mutex<VecDeque<u64>>,
}

/// Where the chunks of a file begin.
enum Chunks {
    Direct(Arc<ChunkList>),
    Listed(ListIndex),
}

/// Neighbouring chunks: each with where its bytes end in the content.
struct ChunkList {
    start: u64,
    refs: Vec<(u64, Ref)>,
}

/// The lists of depth 1, as far as they are known.
struct ListIndex {
    /// How long each is, if that is told.
    lengths: Vec<u64>,
    /// Where each known list's chunks begin.
    known: Vec<(u64, Ref)>,
    /// Where the chunks of the next one begin.
    end: u64,
    /// Lists on the way to the next one, with the depth of what they hold.
    ahead: Vec<(u8, std::vec::IntoIter<Ref>)>,
    kept: VecDeque<(usize, Arc<ChunkList>)>,
}

impl FileReader {
    /// A reader of a regular file.
    pub fn open(source: Arc<dyn ChunkSource>, entry: &Entry) -> Result<Self> {
        let name = entry.name.escape_ascii().to_string();
        if entry.kind != EntryKind::File {
            return Err(Error::Invalid(format!(
                "'{name}' is not a file but a {}",
                entry.kind.as_str()
            )));
        }
        let is_plain = entry.extents.is_none() && entry.skips.is_empty();
        let stretches = (!is_plain).then(|| layout::stretches(entry));
        let content = match &entry.content {
            Content::Empty => Chunks::Direct(Arc::new(ChunkList::new(0, &[]))),
            Content::Direct(refs) => Chunks::Direct(Arc::new(ChunkList::new(0, refs))),
            Content::Listed { depth, list } => {
                let ahead = vec![(*depth, vec![*list].into_iter())];
                let (known, kept) = (Vec::new(), VecDeque::new());
                let lengths = entry.lists.clone();
                Chunks::Listed(ListIndex { lengths, known, end: 0, ahead, kept })
            }
        };
        Ok(FileReader {
            source,
            name,
            size: entry.size,
            data: codec::data_bytes(entry),
            length: codec::content_bytes(entry),
            stretches,
            content: Mutex::new(content),
            kept: Mutex::default(),
            ends: Mutex::default(),
        })
    }

    pub fn size(&self) -> u64 {
        self.size
    }

    /// Fills `buffer` from `offset`; the number of bytes read, less than asked only at the end.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let length = self.size.saturating_sub(offset).min(buffer.len() as u64) as usize;
        let mut rest = buffer.get_mut(..length).unwrap_or_default();
        let mut at = offset;
        while !rest.is_empty() {
            let (place, run) = self.run_at(at);
            let run = run.min(rest.len() as u64) as usize;
            let (now, later) = rest.split_at_mut(run);
            match place {
                Some(data) => self.read_data(data, now)?,
                None => now.fill(0),
            }
            at += run as u64;
            rest = later;
        }
        Ok(length)
    }

    /// The first byte of data at or after `offset`, as `SEEK_DATA` finds it.
    pub fn next_data(&self, offset: u64) -> Option<u64> {
        match self.run_at(offset) {
            _ if offset >= self.size => None,
            (Some(_), _) => Some(offset),
            (None, run) => Some(offset + run).filter(|next| *next < self.size),
        }
    }

    /// The first byte of a hole at or after `offset`, as `SEEK_HOLE` finds it: the end counts.
    pub fn next_hole(&self, offset: u64) -> Option<u64> {
        let mut at = offset;
        while at < self.size {
            match self.run_at(at) {
                (Some(_), run) => at += run,
                (None, _) => return Some(at),
            }
        }
        (offset < self.size).then_some(self.size)
    }

    /// Bytes that are not holes.
    pub fn data_bytes(&self) -> u64 {
        self.data
    }

    /// What lies at `offset`: the place in the content, or a hole; and for how many bytes.
    fn run_at(&self, offset: u64) -> (Option<u64>, u64) {
        let to_end = self.size.saturating_sub(offset);
        let Some(stretches) = &self.stretches else { return (Some(offset), to_end) };
        let after = stretches.partition_point(|stretch| stretch.offset <= offset);
        if let Some(stretch) = after.checked_sub(1).and_then(|index| stretches.get(index)) {
            let inside = offset - stretch.offset;
            if inside < stretch.length {
                return (Some(stretch.content + inside), stretch.length - inside);
            }
        }
        (None, stretches.get(after).map_or(to_end, |next| next.offset - offset))
    }

    /// Where data is between `offset` and `length` bytes later, in order.
    pub fn data_extents(&self, offset: u64, length: u64) -> Vec<Extent> {
        let end = offset.saturating_add(length).min(self.size);
        let mut found = Vec::new();
        let mut at = offset;
        while at < end {
            let (place, run) = self.run_at(at);
            let run = run.min(end - at);
            if place.is_some() {
                extend(&mut found, at, run);
            }
            at += run;
        }
        found
    }

    /// Fills `buffer` with the content from `at`.
    fn read_data(&self, mut at: u64, mut buffer: &mut [u8]) -> Result<()> {
        let mut reads_on = self.has_ended_at(at);
        while !buffer.is_empty() {
            let list = self.list(at)?;
            let (index, start, reference) =
                list.locate(at).ok_or_else(|| self.mismatch(list.end()))?;
            let chunk = self.chunk(&reference, || {
                if reads_on {
                    self.source.ahead(Kind::Data, &list.refs_from(index, AHEAD_BYTES));
                }
            })?;
            let from = usize::try_from(at - start).ok().and_then(|from| chunk.get(from..));
            let part = from.filter(|part| !part.is_empty()).ok_or_else(|| self.mismatch(at))?;
            let length = part.len().min(buffer.len());
            let (now, later) = buffer.split_at_mut(length);
            now.copy_from_slice(&part[..length]);
            at += length as u64;
            buffer = later;
            reads_on = true;
        }
        let mut ends = self.ends.lock();
        if ends.len() == ENDS_KEPT {
            ends.pop_front();
        }
        ends.push_back(at);
        Ok(())
    }

    /// Whether a read has ended here. That it has is forgotten.
    fn has_ended_at(&self, at: u64) -> bool {
        let mut ends = self.ends.lock();
        let found = ends.iter().position(|end| *end == at);
        found.is_some_and(|found| ends.remove(found).is_some())
    }

    /// The chunks around the content's byte `at`.
    fn list(&self, at: u64) -> Result<Arc<ChunkList>> {
        let (position, start, reference) = match &mut *self.content.lock() {
            Chunks::Direct(list) => return Ok(Arc::clone(list)),
            Chunks::Listed(index) => {
                while index.end <= at {
                    self.learn_list(index)?;
                }
                let after = index.known.partition_point(|(start, _)| *start <= at);
                let position = after.saturating_sub(1);
                if let Some(list) = index.kept(position) {
                    return Ok(list);
                }
                let found = index.known.get(position).ok_or_else(|| self.mismatch(index.end))?;
                (position, found.0, found.1)
            }
        };
        // Nobody waits for this but who wants this list.
        let refs = self.read_list(&reference)?;
        let list = Arc::new(ChunkList::new(start, &refs));
        match &mut *self.content.lock() {
            Chunks::Direct(_) => Ok(list),
            Chunks::Listed(index) => {
                if index.lengths.get(position).is_some_and(|told| start + told != list.end()) {
                    return Err(self.mismatch(list.end()));
                }
                Ok(index.keep(position, list))
            }
        }
    }

    fn read_list(&self, reference: &Ref) -> Result<Vec<Ref>> {
        lists::read_list(&*self.source, reference)
    }

    /// Reads one list more. Those not yet known begin where the known ones end.
    fn learn_list(&self, index: &mut ListIndex) -> Result<()> {
        while let Some((depth, lists)) = index.ahead.last_mut() {
            let depth = *depth;
            if lists.len().is_multiple_of(LISTS_AHEAD) {
                let next = lists.as_slice();
                self.source.ahead(Kind::List, next.get(..LISTS_AHEAD).unwrap_or(next));
            }
            let Some(reference) = lists.next() else {
                index.ahead.pop();
                continue;
            };
            match self.open_list(index, depth, &reference) {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(error) => {
                    // The next attempt begins here again: to skip a list would misplace the rest.
                    index.ahead.push((depth, vec![reference].into_iter()));
                    return Err(error);
                }
            }
        }
        Err(self.mismatch(index.end))
    }

    /// Reads a list; whether it was one of references to data, which is now known.
    fn open_list(&self, index: &mut ListIndex, depth: u8, reference: &Ref) -> Result<bool> {
        if depth <= 1
            && let Some(length) = index.lengths.get(index.known.len())
        {
            let end = index.end.saturating_add(*length);
            index.known.push((index.end, *reference));
            index.end = end;
            return Ok(true);
        }
        let refs = self.read_list(reference)?;
        if depth > 1 {
            index.ahead.push((depth - 1, refs.into_iter()));
            return Ok(false);
        }
        let list = ChunkList::new(index.end, &refs);
        if list.end() > self.length || index.known.len() >= MAX_LISTS {
            return Err(self.mismatch(list.end()));
        }
        index.known.push((index.end, *reference));
        index.end = list.end();
        index.keep(index.known.len() - 1, Arc::new(list));
        Ok(true)
    }

    /// A chunk; before one is fetched, `nearer` may have its neighbours brought.
    fn chunk(&self, reference: &Ref, nearer: impl FnOnce()) -> Result<ChunkBytes> {
        let kept = |chunks: &VecDeque<(Ref, ChunkBytes)>| {
            chunks.iter().find(|(kept, _)| kept == reference).map(|(_, chunk)| chunk.clone())
        };
        if let Some(chunk) = kept(&self.kept.lock()) {
            return Ok(chunk);
        }
        nearer();
        let chunk = self.source.shared(Kind::Data, reference)?;
        if chunk.len() as u64 != u64::from(reference.plain_length()) {
            return Err(Error::integrity(
                format!("data chunk {}", reference.name),
                format!("{} bytes instead of {}", chunk.len(), reference.plain_length()),
            ));
        }
        let mut chunks = self.kept.lock();
        if chunks.len() == CHUNKS_KEPT {
            chunks.pop_front();
        }
        chunks.push_back((*reference, chunk.clone()));
        Ok(chunk)
    }

    fn mismatch(&self, found: u64) -> Error {
        Error::integrity(
            format!("the content of '{}'", self.name),
            format!("it should be {} bytes, and differs at {found}", self.length),
        )
    }
}

/// Adds a stretch of data; it joins the last one where it lies behind it.
fn extend(found: &mut Vec<Extent>, offset: u64, length: u64) {
    match found.last_mut() {
        Some(last) if last.offset + last.length == offset => last.length += length,
        _ => found.push(Extent { offset, length }),
    }
}

impl ChunkList {
    fn new(start: u64, refs: &[Ref]) -> Self {
        let mut end = start;
        let placed = |reference: &Ref| {
            end = end.saturating_add(u64::from(reference.plain_length()));
            (end, *reference)
        };
        ChunkList { start, refs: refs.iter().map(placed).collect() }
    }

    fn end(&self) -> u64 {
        self.refs.last().map_or(self.start, |(end, _)| *end)
    }

    /// The chunk that holds the content's byte `at`: its place among these, and where it begins.
    fn locate(&self, at: u64) -> Option<(usize, u64, Ref)> {
        let index = self.refs.partition_point(|(end, _)| *end <= at);
        let (end, reference) = self.refs.get(index)?;
        Some((index, end - u64::from(reference.plain_length()), *reference))
    }

    /// Chunks from a place on, of so many bytes together.
    fn refs_from(&self, index: usize, bytes: u64) -> Vec<Ref> {
        let rest = self.refs.get(index..).unwrap_or_default();
        let upto = rest.first().map_or(0, |(end, _)| end.saturating_add(bytes));
        rest.iter().take_while(|(end, _)| *end <= upto).map(|(_, reference)| *reference).collect()
    }
}

impl ListIndex {
    fn kept(&self, position: usize) -> Option<Arc<ChunkList>> {
        let found = self.kept.iter().find(|(kept, _)| *kept == position);
        found.map(|(_, list)| Arc::clone(list))
    }

    fn keep(&mut self, position: usize, list: Arc<ChunkList>) -> Arc<ChunkList> {
        if let Some(list) = self.kept(position) {
            return list;
        }
        if self.kept.len() == LISTS_KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back((position, Arc::clone(&list)));
        list
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::ids::Name;
    use crate::tree::ChunkSink;
    use crate::tree::memory::MemoryChunks;
    use crate::tree::walk::LoadedObject;

    /// The content of a file cut into chunks of these sizes.
    fn stored(sink: &dyn ChunkSink, data: &[u8], mut cut: impl FnMut() -> usize) -> Content {
        let mut streaming = lists::StreamingRefs::new(sink);
        let mut rest = data;
        while !rest.is_empty() {
            let (chunk, later) = rest.split_at(cut().clamp(1, rest.len()));
            streaming.push(sink.store(Kind::Data, chunk).unwrap()).unwrap();
            rest = later;
        }
        streaming.finish().unwrap()
    }

    fn pattern(length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        blake3::Hasher::new().finalize_xof().fill(&mut bytes);
        bytes
    }

    fn file(content: Content, size: u64) -> Entry {
        Entry { size, content, ..Entry::new(b"file", EntryKind::File) }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_part_of_a_file_reads_as_it_was(
            length in 0..60_000_usize, cut in 1..40_usize,
            reads in vec((0..70_000_u64, 0..5_000_usize), 1..12),
        ) {
            let chunks = Arc::new(MemoryChunks::new());
            let data = pattern(length);
            let content = stored(&*chunks, &data, || cut);
            let reader = FileReader::open(chunks, &file(content, length as u64)).unwrap();
            for (offset, count) in reads {
                let mut buffer = vec![1; count];
                let read = reader.read_at(offset, &mut buffer).unwrap();
                let from = (offset as usize).min(length);
                let expected = &data[from..(from + count).min(length)];
                prop_assert_eq!(&buffer[..read], expected);
            }
        }

        #[test]
        fn holes_read_as_zeros_and_are_found(
            runs in vec((1..300_u64, 1..300_u64), 0..10), hole_at_end in 0..300_u64,
            starts_with_data in any::<bool>(), offset in 0..6_000_u64,
        ) {
            let (mut extents, mut whole) = (Vec::new(), Vec::new());
            for (index, (gap, length)) in runs.into_iter().enumerate() {
                let gap = if index == 0 && starts_with_data { 0 } else { gap };
                whole.resize(whole.len() + gap as usize, 0);
                extents.push(Extent { offset: whole.len() as u64, length });
                whole.extend(pattern(length as usize).iter().map(|byte| byte | 1));
            }
            whole.resize(whole.len() + hole_at_end as usize, 0);
            let data: Vec<u8> = whole.iter().copied().filter(|byte| *byte != 0).collect();
            let chunks = Arc::new(MemoryChunks::new());
            let mut entry = file(stored(&*chunks, &data, || 7), whole.len() as u64);
            entry.extents = Some(extents);
            let mut raw = Vec::new();
            codec::encode_entry(&entry, &mut raw).unwrap();
            let reader = FileReader::open(chunks, &entry).unwrap();
            let mut buffer = vec![9; whole.len() + 5];
            prop_assert_eq!(reader.read_at(0, &mut buffer).unwrap(), whole.len());
            prop_assert_eq!(&buffer[..whole.len()], &whole);
            let end = whole.len();
            let at = (offset as usize).min(end);
            let next = |zero: bool| (at..end).find(|at| (whole[*at] == 0) == zero);
            let expected_hole = next(true).or((at < end).then_some(end));
            prop_assert_eq!(reader.next_data(at as u64), next(false).map(|at| at as u64));
            prop_assert_eq!(reader.next_hole(at as u64), expected_hole.map(|at| at as u64));
        }
    }

    /// Data chunks of 64 KiB that are made when asked for; lists come from memory.
    struct HugeFile(MemoryChunks);

    impl ChunkSource for HugeFile {
        fn fetch(&self, kind: Kind, reference: &Ref) -> Result<Vec<u8>> {
            match kind {
                Kind::Data => Ok(reference.name.0.repeat(reference.length as usize / 32)),
                _ => self.0.fetch(kind, reference),
            }
        }

        fn tree(&self, _: &Ref) -> Result<Arc<LoadedObject>> {
            Err(Error::Unsupported("directories".into()))
        }
    }

    #[test]
    fn a_file_of_100_gib_is_read_anywhere_with_its_lists_read_once() {
        let huge = HugeFile(MemoryChunks::new());
        let count = (100_u64 << 30) / (64 << 10);
        let name = |at: u64| Name(*blake3::hash(&at.to_le_bytes()).as_bytes());
        let mut streaming = lists::StreamingRefs::new(&huge.0);
        for at in 0..count {
            streaming.push(Ref { name: name(at), length: 64 << 10 }).unwrap();
        }
        let content = streaming.finish().unwrap();
        let lists = huge.0.len() as u64;
        let huge = Arc::new(huge);
        let reader = FileReader::open(huge.clone(), &file(content, 100 << 30)).unwrap();
        let mut buffer = [0; 64];
        for at in [0, count - 1, count / 2, count / 3] {
            reader.read_at(at * (64 << 10) + 32, &mut buffer).unwrap();
            assert_eq!(buffer, *name(at).0.repeat(2).as_slice());
        }
        let fetched = huge.0.take_fetched();
        assert!(fetched <= lists + 3, "{fetched} of {lists} lists read");
        assert_eq!(reader.read_at((100 << 30) - 1, &mut buffer).unwrap(), 1);
        assert_eq!(reader.read_at(100 << 30, &mut buffer).unwrap(), 0);
    }

    #[test]
    fn content_that_is_not_as_long_as_the_file_is_refused() {
        let chunks = Arc::new(MemoryChunks::new());
        let content = stored(&*chunks, &pattern(4_000), || 10);
        for size in [3_999, 4_001] {
            let reader = FileReader::open(chunks.clone(), &file(content.clone(), size)).unwrap();
            for _ in 0..2 {
                let error = reader.read_at(0, &mut [0; 5_000]).unwrap_err();
                assert_eq!(error.code(), "integrity");
            }
        }
    }

    #[test]
    fn a_lost_list_or_chunk_fails_every_time_and_nothing_else_is_read_in_its_place() {
        let chunks = Arc::new(MemoryChunks::new());
        let data = pattern(100_000);
        let content = stored(&*chunks, &data, || 10);
        let Content::Listed { list, .. } = content else { unreachable!() };
        let refs = lists::read_refs(&*chunks, &content).unwrap();
        chunks.lose(&refs[20]);
        let inner = lists::read_list(&*chunks, &list).unwrap();
        chunks.lose(&inner[1]);
        let reader = FileReader::open(chunks, &file(content, 100_000)).unwrap();
        let mut buffer = [0; 10];
        for _ in 0..2 {
            assert_eq!(reader.read_at(200, &mut buffer).unwrap_err().code(), "chunk-missing");
            assert_eq!(reader.read_at(99_000, &mut buffer).unwrap_err().code(), "chunk-missing");
        }
        reader.read_at(100, &mut buffer).unwrap();
        assert_eq!(buffer, data[100..110]);
    }

    #[test]
    fn only_files_are_read() {
        let chunks = Arc::new(MemoryChunks::new());
        let error = FileReader::open(chunks, &Entry::new(b"d", EntryKind::Dir)).err().unwrap();
        assert_eq!(error.code(), "invalid");
    }
}
