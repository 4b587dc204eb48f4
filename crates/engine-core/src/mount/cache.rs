//! Parts of directories, kept while a mount asks for them again and again.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::error::Result;
use crate::ids::{Kind, Ref};
use crate::pool::ChunkBytes;
use crate::tree::ChunkSource;
use crate::tree::walk::LoadedObject;

const MAX_OBJECTS: usize = 512;
const MAX_BYTES: usize = 64 << 20;

/// A source that keeps the tree objects used last, and nothing else.
pub(super) struct KeptTrees {
    inner: Arc<dyn ChunkSource>,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    objects: HashMap<Ref, (u64, Arc<LoadedObject>)>,
    bytes: usize,
    clock: u64,
}

impl KeptTrees {
    pub(super) fn new(inner: Arc<dyn ChunkSource>) -> Self {
        KeptTrees { inner, kept: Mutex::default() }
    }
}

impl ChunkSource for KeptTrees {
    fn fetch(&self, kind: Kind, reference: &Ref) -> Result<Vec<u8>> {
        self.inner.fetch(kind, reference)
    }

    fn shared(&self, kind: Kind, reference: &Ref) -> Result<ChunkBytes> {
        self.inner.shared(kind, reference)
    }

    fn ahead(&self, kind: Kind, references: &[Ref]) {
        self.inner.ahead(kind, references);
    }

    fn tree(&self, reference: &Ref) -> Result<Arc<LoadedObject>> {
        if let Some(object) = self.kept.lock().get(reference) {
            return Ok(object);
        }
        let object = self.inner.tree(reference)?;
        self.kept.lock().add(*reference, object.clone());
        Ok(object)
    }
}

impl Kept {
    fn get(&mut self, reference: &Ref) -> Option<Arc<LoadedObject>> {
        self.clock += 1;
        let (used, object) = self.objects.get_mut(reference)?;
        *used = self.clock;
        Some(object.clone())
    }

    fn add(&mut self, reference: Ref, object: Arc<LoadedObject>) {
        self.bytes += object.memory_bytes();
        if let Some((_, same)) = self.objects.insert(reference, (self.clock, object)) {
            self.bytes -= same.memory_bytes();
        }
        while self.objects.len() > MAX_OBJECTS || self.bytes > MAX_BYTES {
            let oldest = self.objects.iter().min_by_key(|(_, (used, _))| *used);
            let Some(oldest) = oldest.map(|(reference, _)| *reference) else { return };
            if let Some((_, object)) = self.objects.remove(&oldest) {
                self.bytes -= object.memory_bytes();
            }
        }
    }
}
