//! Several images as one tree, with the names in them opened: what a backup has, of all its streams.
//!
//! A directory that one image alone has, with names in the open, is that image's own: it costs
//! nothing, and is told to be the same in two trees unread. Any other is made when it is first looked
//! into: see `made`. What several images have under one name is that of the first of them, unless it
//! is a directory in each: then it has what any of them has in it, and the attributes of the first.
//! Nothing is written.

mod made;
mod source;

use std::sync::Arc;

use crate::client_key::{ClientKey, Names, needed};
use crate::error::{Error, Result};
use crate::keys::NameKeys;
use crate::manifest::Manifest;
use crate::reader::FileReader;
use crate::tree::ChunkSource;
use crate::tree::changes::{self, Change};
use crate::tree::entry::Entry;
use crate::tree::walk::{self, Directory};

use made::Part;
use source::{Either, Source};

/// One image of a tree.
pub struct Layer {
    pool: Arc<dyn ChunkSource>,
    root: Entry,
    /// What its data, and maybe its names, are opened with.
    key: Option<(Arc<ClientKey>, Names)>,
    /// Why its data can't be read.
    locked: Option<Locked>,
}

struct Locked {
    image: String,
    key: String,
}

impl Layer {
    /// An image of a pool, which names chunks so. Where it is sealed with one of `keys`, that opens
    /// it, and has to prove it: `Integrity` if it is not what was sealed. Where it is sealed with
    /// another, its names are shown as the pool has them.
    pub fn new(
        pool: Arc<dyn ChunkSource>,
        naming: &NameKeys,
        image: Manifest,
        keys: &[Arc<ClientKey>],
    ) -> Result<Self> {
        let mut layer = Layer { pool, root: image.root.clone(), key: None, locked: None };
        let Some(wanted) = image.client_key() else { return Ok(layer) };
        let Some(key) = keys.iter().find(|key| key.id().to_string() == wanted) else {
            let (image, key) = (format!("image {}", image.id), wanted.to_owned());
            layer.locked = Some(Locked { image, key });
            return Ok(layer);
        };
        let names = key.prove(&image, naming)?;
        if names == Names::Sealed {
            layer.root = key.open_root(&layer.root)?;
        }
        layer.key = Some((Arc::clone(key), names));
        Ok(layer)
    }

    /// What is in its root.
    fn part(&self) -> Option<Part> {
        let subtree = self.root.subtree?;
        let sealed = self.key.as_ref().filter(|(_, names)| *names == Names::Sealed);
        let opens = sealed.map(|(key, _)| (Arc::clone(key), key.root_dir()));
        Some(Part { opens, subtree })
    }
}

/// See the module. May be used from several threads.
pub struct WholeTree {
    source: Arc<Source>,
    root: Entry,
    keys: Vec<Arc<ClientKey>>,
    locked: Option<Locked>,
}

impl WholeTree {
    /// One tree of one image or more.
    pub fn new(layers: Vec<Layer>) -> Result<Self> {
        let Some(first) = layers.first() else {
            return Err(Error::Invalid("a tree of no image".into()));
        };
        let mut root = first.root.clone();
        let mut keys: Vec<Arc<ClientKey>> = Vec::new();
        for (key, _) in layers.iter().filter_map(|layer| layer.key.as_ref()) {
            if !keys.iter().any(|known| known.id() == key.id()) {
                keys.push(Arc::clone(key));
            }
        }
        let parts = layers.iter().filter_map(Layer::part).collect();
        let all_sealed = layers.iter().all(|layer| layer.key.is_some());
        let mut pools: Vec<Arc<dyn ChunkSource>> = Vec::new();
        let mut locked = None;
        for layer in layers {
            locked = locked.or(layer.locked);
            if !pools.iter().any(|pool| Arc::ptr_eq(pool, &layer.pool)) {
                pools.push(layer.pool);
            }
        }
        let source = Arc::new(Source::new(pools, keys.clone(), all_sealed)?);
        root.subtree = source.joined(parts);
        Ok(WholeTree { source, root, keys, locked })
    }

    /// Where its chunks come from: its own, and those of the images.
    pub fn source(&self) -> Arc<dyn ChunkSource> {
        Arc::clone(&self.source) as Arc<dyn ChunkSource>
    }

    pub fn root(&self) -> &Entry {
        &self.root
    }

    /// `ClientKeyNeeded` where the data of an image can't be read for want of its key.
    pub fn require_readable(&self) -> Result<()> {
        match &self.locked {
            Some(Locked { image, key }) => Err(needed(image, key)),
            None => Ok(()),
        }
    }

    /// What is at an absolute path, of which parts may be named as the pool shows them.
    pub fn find(&self, path: &[u8]) -> Result<Entry> {
        let plain = self.keys.iter().fold(path.to_vec(), |path, key| key.open_path(&path));
        walk::find(&*self.source, &self.root, &plain)
    }

    /// What is in a directory, by name.
    pub fn list(&self, path: &[u8]) -> Result<Vec<Entry>> {
        let entry = self.find(path)?;
        Directory::of(&*self.source, &entry)?.entries().collect()
    }

    /// A file, for reading at any place. `ClientKeyNeeded` as [`Self::require_readable`].
    pub fn open(&self, path: &[u8]) -> Result<FileReader> {
        let entry = self.find(path)?;
        self.require_readable()?;
        FileReader::open(self.source(), &entry)
    }

    /// What became of `old`, which may be nothing, in this tree: see [`changes::changes`].
    pub fn changes_since(
        &self,
        old: Option<&WholeTree>,
        visit: &mut dyn FnMut(Change<'_>) -> Result<()>,
    ) -> Result<()> {
        let Some(old) = old else {
            return changes::changes(&*self.source, None, Some(&self.root), visit);
        };
        let both = Either(Arc::clone(&self.source), Arc::clone(&old.source));
        changes::changes(&both, Some(&old.root), Some(&self.root), visit)
    }
}
