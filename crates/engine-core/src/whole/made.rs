//! Directories that no pool has: those that several images have, and those whose names were opened.
//!
//! Each is known by what it is made of, and is made again when it is wanted after it was forgotten.
//! What it is called by nobody else can say: a pool that has sealed images could else have one of
//! these in the place of a directory of its own, and so show somebody's files elsewhere.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use crate::client_key::{ClientKey, DirKey};
use crate::error::{Error, Result};
use crate::ids::{Kind, Name, Ref, random_bytes};
use crate::tree::codec::{self, RawEntry};
use crate::tree::entry::EntryKind;
use crate::tree::walk::Directory;
use crate::tree::{ChunkSink, ChunkSource, build};

/// Bytes of made directories that are kept, besides the one made last.
const KEPT_BYTES: usize = 64 << 20;

/// A directory of one image.
#[derive(Clone)]
pub(super) struct Part {
    /// What the names in it are sealed with.
    pub opens: Option<(Arc<ClientKey>, DirKey)>,
    pub subtree: Ref,
}

impl Part {
    fn is_same(&self, other: &Part) -> bool {
        let opens = |part: &Part| part.opens.as_ref().map(|(key, dir)| (key.id(), *dir));
        self.subtree == other.subtree && opens(self) == opens(other)
    }
}

/// Directories that were told of, and some that were made.
pub(super) struct MadeTrees {
    secret: [u8; 32],
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// What each is made of. Stays: whoever asks may ask again at any time.
    parts: HashMap<Ref, Arc<[Part]>>,
    /// Of the objects of one that is made of many, which one that is.
    belongs: HashMap<Ref, Ref>,
    kept: HashMap<Ref, (u64, Arc<Made>)>,
    bytes: usize,
    clock: u64,
}

/// One that was made: its objects.
pub(super) struct Made {
    top: Ref,
    objects: HashMap<Ref, Vec<u8>>,
}

impl MadeTrees {
    pub(super) fn new() -> Result<Self> {
        Ok(MadeTrees { secret: secret()?, inner: Mutex::default() })
    }

    /// What stands for a directory that is made of these; none for one without entries, and the
    /// image's own where that is it.
    pub(super) fn joined(&self, mut parts: Vec<Part>) -> Option<Ref> {
        let mut different: Vec<Part> = Vec::with_capacity(parts.len());
        for part in parts.drain(..) {
            if !different.iter().any(|known| known.is_same(&part)) {
                different.push(part);
            }
        }
        if let [Part { opens: None, subtree }] = different.as_slice() {
            return Some(*subtree);
        }
        if different.is_empty() {
            return None;
        }
        let mut hasher = blake3::Hasher::new_keyed(&self.secret);
        for Part { opens, subtree } in &different {
            match opens {
                Some((key, dir)) => hasher.update(&[1]).update(&key.id().0).update(dir.bytes()),
                None => hasher.update(&[0]),
            };
            hasher.update(&subtree.to_bytes());
        }
        let reference = Ref { name: Name(*hasher.finalize().as_bytes()), length: 1 };
        self.inner.lock().parts.entry(reference).or_insert_with(|| different.into());
        Some(reference)
    }

    /// The bytes of an object of a directory that was told of; `None` for any other.
    pub(super) fn object(
        &self,
        reference: &Ref,
        from: &dyn ChunkSource,
    ) -> Result<Option<Vec<u8>>> {
        let (directory, parts) = {
            let inner = self.inner.lock();
            let directory = inner.belongs.get(reference).copied().unwrap_or(*reference);
            let Some(parts) = inner.parts.get(&directory).cloned() else { return Ok(None) };
            (directory, parts)
        };
        let known = self.inner.lock().get(&directory);
        let made = match known {
            Some(made) => made,
            None => {
                let made = Arc::new(self.make(&directory, &parts, from)?);
                self.inner.lock().keep(directory, Arc::clone(&made));
                made
            }
        };
        let wanted = if *reference == directory { &made.top } else { reference };
        Ok(made.objects.get(wanted).cloned())
    }

    fn make(&self, directory: &Ref, parts: &[Part], from: &dyn ChunkSource) -> Result<Made> {
        let mut slots: BTreeMap<Vec<u8>, Slot> = BTreeMap::new();
        for part in parts {
            let listed = Directory::open(from, part.subtree)?;
            let mut cursor = listed.cursor();
            while let Some(entry) = cursor.entry()? {
                match &part.opens {
                    Some((key, dir)) => {
                        let opened = key.open_entry(dir, &entry)?;
                        let name = opened.as_raw().name;
                        let below = Some((Arc::clone(key), dir.child(name)));
                        add(&mut slots, opened.as_raw(), below)?;
                    }
                    None => add(&mut slots, entry, None)?,
                }
                cursor.advance();
            }
        }
        let mut rows = Vec::with_capacity(slots.len());
        for (name, slot) in slots {
            let raw = self.with_below(slot)?;
            rows.push((name, raw));
        }
        let objects = Objects { secret: self.secret, directory: *directory, of: Mutex::default() };
        let top = build::write_directory(
            &objects,
            rows.iter().map(|(name, raw)| RawEntry { name, raw }),
        )?;
        Ok(Made { top, objects: objects.of.into_inner() })
    }

    /// The entry of a name, with what is below it in all images.
    fn with_below(&self, slot: Slot) -> Result<Vec<u8>> {
        let Slot { raw, below, is_dir } = slot;
        if !is_dir {
            return Ok(raw);
        }
        let subtree = self.joined(below);
        let mut entry = codec::decode_entry(&raw)?;
        if entry.subtree == subtree {
            return Ok(raw);
        }
        entry.subtree = subtree;
        let mut changed = Vec::with_capacity(raw.len() + Ref::SIZE);
        codec::encode_entry(&entry, &mut changed)?;
        Ok(changed)
    }
}

/// A name, of the first image that has it.
struct Slot {
    raw: Vec<u8>,
    is_dir: bool,
    below: Vec<Part>,
}

fn add(
    slots: &mut BTreeMap<Vec<u8>, Slot>,
    entry: RawEntry<'_>,
    opens: Option<(Arc<ClientKey>, DirKey)>,
) -> Result<()> {
    let seen = entry.peek()?;
    let is_dir = seen.kind == EntryKind::Dir;
    let part = seen.subtree.map(|subtree| Part { opens, subtree });
    match slots.get_mut(entry.name) {
        None => {
            let slot = Slot { raw: entry.raw.to_vec(), is_dir, below: part.into_iter().collect() };
            slots.insert(entry.name.to_vec(), slot);
        }
        Some(first) if first.is_dir && is_dir => first.below.extend(part),
        Some(_) => {}
    }
    Ok(())
}

impl Inner {
    fn get(&mut self, directory: &Ref) -> Option<Arc<Made>> {
        self.clock += 1;
        let (used, made) = self.kept.get_mut(directory)?;
        *used = self.clock;
        Some(Arc::clone(made))
    }

    fn keep(&mut self, directory: Ref, made: Arc<Made>) {
        if made.objects.len() > 1 {
            self.belongs.extend(made.objects.keys().map(|object| (*object, directory)));
        }
        self.bytes += made.bytes();
        if let Some((_, same)) = self.kept.insert(directory, (self.clock, made)) {
            self.bytes -= same.bytes();
        }
        while self.bytes > KEPT_BYTES && self.kept.len() > 1 {
            let others = self.kept.iter().filter(|(one, _)| **one != directory);
            let Some(oldest) = others.min_by_key(|(_, (used, _))| *used).map(|(one, _)| *one)
            else {
                return;
            };
            if let Some((_, made)) = self.kept.remove(&oldest) {
                self.bytes -= made.bytes();
            }
        }
    }
}

impl Made {
    fn bytes(&self) -> usize {
        self.objects.values().map(Vec::len).sum()
    }
}

/// Takes the objects of one directory.
struct Objects {
    secret: [u8; 32],
    directory: Ref,
    of: Mutex<HashMap<Ref, Vec<u8>>>,
}

impl ChunkSink for Objects {
    fn store(&self, _: Kind, plain: &[u8]) -> Result<Ref> {
        let length = u32::try_from(plain.len())
            .map_err(|_| Error::Invalid("a directory of too many entries".into()))?;
        let mut hasher = blake3::Hasher::new_keyed(&self.secret);
        hasher.update(&[2]).update(&self.directory.to_bytes()).update(plain);
        let reference = Ref { name: Name(*hasher.finalize().as_bytes()), length };
        self.of.lock().insert(reference, plain.to_vec());
        Ok(reference)
    }
}

/// One for the process, so that equal directories of two trees are known to be equal.
fn secret() -> Result<[u8; 32]> {
    static SECRET: OnceLock<[u8; 32]> = OnceLock::new();
    if let Some(known) = SECRET.get() {
        return Ok(*known);
    }
    let mut drawn = [0; 32];
    random_bytes(&mut drawn)?;
    Ok(*SECRET.get_or_init(|| drawn))
}
