//! Files that wait until the directories around them are made, and then come in the order in
//! which their content is stored, whatever directories they are in: each block is fetched and
//! opened about once, however many files share what is in it.

use std::collections::HashMap;
use std::sync::Arc;

use crate::error::Result;
use crate::ids::{PackId, Ref};
use crate::repository::{Repository, StoredAt};
use crate::tree::codec::{Peek, RawContent};

use super::worker::Node;

/// Bytes of entries that wait at a time, and their number: enough for a few hundred thousand.
const WAITING_BYTES: usize = 24 << 20;
const WAITING_FILES: usize = 400_000;
/// Files that are given together at least, unless they hold many bytes, and at most.
const BATCH_FILES: usize = 64;
const BATCH_BYTES: u64 = 4 << 20;
const BATCH_FILES_MOST: usize = 1024;

/// Where a file's first chunk lies. Those without come first: large files, whose chunks are in
/// lists, and what has no content.
pub type Place = Option<StoredAt>;

/// Looks up where the content of an entry begins.
pub fn place(from: &dyn Repository, entry: &Peek<'_>) -> Place {
    let RawContent::Direct(refs) = entry.content else { return None };
    let first = refs.get(..Ref::SIZE).and_then(Ref::from_bytes)?;
    from.stored_at(&first.name)
}

struct Waiting {
    /// As [`Place`], with the pack's number in `packs`.
    place: Option<(u32, u16, u32)>,
    /// What of `raw` is its entry.
    start: u32,
    length: u32,
    size: u64,
    node: Arc<Node>,
}

/// See the module.
#[derive(Default)]
pub struct Gathered {
    files: Vec<Waiting>,
    raw: Vec<u8>,
    packs: HashMap<PackId, u32>,
}

/// Files to be restored together: where each goes, and its encoded entry.
pub type Batch<'a> = Vec<(Arc<Node>, &'a [u8])>;

impl Gathered {
    /// Adds an encoded entry of a directory, and the size of its file.
    pub fn add(&mut self, node: &Arc<Node>, entry: &[u8], size: u64, place: Place) {
        let place = place.map(|(pack, block, offset)| {
            let next = u32::try_from(self.packs.len()).unwrap_or(u32::MAX);
            (*self.packs.entry(pack).or_insert(next), block, offset)
        });
        // What is full is not far above its bound, and an object of a tree is far below 4 GiB.
        let start = u32::try_from(self.raw.len()).unwrap_or(u32::MAX);
        let length = u32::try_from(entry.len()).unwrap_or(u32::MAX);
        self.raw.extend_from_slice(entry);
        self.files.push(Waiting { place, start, length, size, node: Arc::clone(node) });
    }

    /// Whether it is time to restore what waits.
    pub fn is_full(&self) -> bool {
        self.raw.len() >= WAITING_BYTES || self.files.len() >= WAITING_FILES
    }

    /// Hands all out in order, in batches that end where a block ends.
    pub fn hand_out(mut self, mut give: impl FnMut(Batch<'_>) -> Result<()>) -> Result<()> {
        self.files.sort_by_key(|file| file.place);
        let mut batch = Batch::new();
        let (mut bytes, mut block) = (0, None);
        for Waiting { place, start, length, size, node } in self.files {
            let own = place.map(|(pack, block, _)| (pack, block));
            let enough = batch.len() >= BATCH_FILES || bytes >= BATCH_BYTES;
            // Large files go one by one: threads take turns at writing to one file.
            let apart = own != block || own.is_none();
            if (enough && apart) || batch.len() >= BATCH_FILES_MOST {
                give(std::mem::take(&mut batch))?;
                bytes = 0;
            }
            bytes += size;
            block = own;
            let (start, length) = (start as usize, length as usize);
            batch.push((node, self.raw.get(start..start + length).unwrap_or_default()));
        }
        if batch.is_empty() { Ok(()) } else { give(batch) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::finding::Findings;
    use crate::restore::target::{Options, Overwrite, Target};
    use std::os::unix::ffi::OsStrExt;

    fn node(top: &tempfile::TempDir) -> Arc<Node> {
        let options = Options { overwrite: Overwrite::Never, numeric_owners: false };
        let to = top.path().as_os_str().as_bytes();
        let target = Target::open(to, options, Arc::new(Findings::default())).unwrap();
        Node::root(Arc::clone(target.root()))
    }

    fn batches(gathered: Gathered) -> Vec<Vec<Vec<u8>>> {
        let mut batches = Vec::new();
        let given = gathered.hand_out(|batch| {
            batches.push(batch.into_iter().map(|(_, raw)| raw.to_vec()).collect());
            Ok(())
        });
        given.unwrap();
        batches
    }

    #[test]
    fn files_come_by_block_and_no_block_is_in_two_batches() {
        let top = tempfile::tempdir().unwrap();
        let node = node(&top);
        let mut gathered = Gathered::default();
        // Ten blocks of two packs, 50 files in each, found in an order that has nothing of that.
        for number in 0..500_u32 {
            let block = number * 7 % 10;
            let place = (PackId([(block % 2) as u8; 32]), (block / 2) as u16, number);
            gathered.add(&node, format!("{block}").as_bytes(), 100, Some(place));
        }
        for _ in 0..3 {
            gathered.add(&node, b"large", 1 << 30, None);
        }
        let mut batches = batches(gathered);
        assert_eq!(batches.iter().map(Vec::len).sum::<usize>(), 503);
        assert_eq!(batches.drain(..3).collect::<Vec<_>>(), [[b"large"]; 3]);
        for (at, batch) in batches.iter().enumerate() {
            let mut blocks = batch.clone();
            blocks.dedup();
            assert!(blocks.len() <= 2, "{blocks:?}");
            for later in &batches[at + 1..] {
                assert!(later.iter().all(|raw| !blocks.contains(raw)));
            }
        }
    }

    #[test]
    fn many_files_of_one_block_are_several_batches() {
        let top = tempfile::tempdir().unwrap();
        let node = node(&top);
        let mut gathered = Gathered::default();
        for number in 0..5000 {
            gathered.add(&node, b"small", 1, Some((PackId([1; 32]), 3, number)));
        }
        let sizes: Vec<_> = batches(gathered).iter().map(Vec::len).collect();
        assert_eq!(sizes, [1024, 1024, 1024, 1024, 904]);
    }

    #[test]
    fn what_waits_is_bounded() {
        let top = tempfile::tempdir().unwrap();
        let node = node(&top);
        let mut gathered = Gathered::default();
        let mut added = 0_usize;
        while !gathered.is_full() {
            gathered.add(&node, &[7; 1000], 1, None);
            added += 1;
        }
        assert_eq!(added, WAITING_BYTES.div_ceil(1000));
    }
}
