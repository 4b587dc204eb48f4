//! Several images as one tree: see the engine's `whole`.

use std::path::PathBuf;
use std::sync::Arc;

use holdfast_engine_core::error::Error;
use holdfast_engine_core::manifest::Manifest;
use holdfast_engine_core::mount::{Mount as CoreMount, MountOptions};
use holdfast_engine_core::repository::Repository;
use holdfast_engine_core::tree::ChunkSource;
use holdfast_engine_core::whole::{Layer, WholeTree as CoreTree};
use pyo3::prelude::*;

use crate::changes::Changes;
use crate::client_key::ClientKey;
use crate::errors::OrRaise;
use crate::files::{FileReader, Mount};
use crate::pool::{Pool, image_id};
use crate::types::Entry;

/// What several images have, as one tree, with names opened by client keys. May be used from
/// several threads.
#[pyclass(frozen)]
pub struct WholeTree {
    tree: Arc<CoreTree>,
    total_bytes: u64,
    total_files: u64,
}

#[pymethods]
impl WholeTree {
    #[new]
    #[pyo3(signature = (images, client_keys=Vec::new()))]
    fn new(
        py: Python<'_>,
        images: Vec<(PyRef<'_, Pool>, String)>,
        client_keys: Vec<PyRef<'_, ClientKey>>,
    ) -> PyResult<Self> {
        let keys: Vec<_> = client_keys.iter().map(|key| Arc::clone(&key.0)).collect();
        let wanted = images.iter().map(|(pool, id)| Ok((Arc::clone(&pool.0), image_id(id)?)));
        let wanted = wanted.collect::<PyResult<Vec<_>>>()?;
        py.detach(|| {
            let (mut total_bytes, mut total_files) = (0_u64, 0_u64);
            let layers = wanted.into_iter().map(|(pool, id)| {
                let image = pool.image(&id)?;
                total_bytes = total_bytes.saturating_add(stat(&image, "bytes_found"));
                for count in ["files", "dirs", "others"] {
                    total_files = total_files.saturating_add(stat(&image, count));
                }
                let source = Arc::clone(&pool) as Arc<dyn ChunkSource>;
                Layer::new(source, pool.naming(), image, &keys)
            });
            let tree = CoreTree::new(layers.collect::<Result<_, Error>>()?)?;
            Ok(WholeTree { tree: Arc::new(tree), total_bytes, total_files })
        })
        .or_raise()
    }

    /// What is said of a path.
    fn entry(&self, py: Python<'_>, path: Vec<u8>) -> PyResult<Entry> {
        py.detach(|| self.tree.find(&path)).or_raise().map(Entry)
    }

    /// The entries of a directory, by name.
    fn list_dir(&self, py: Python<'_>, path: Vec<u8>) -> PyResult<Vec<Entry>> {
        let found = py.detach(|| self.tree.list(&path)).or_raise()?;
        Ok(found.into_iter().map(Entry).collect())
    }

    /// A file, for reading at any place.
    fn open_file(&self, py: Python<'_>, path: Vec<u8>) -> PyResult<FileReader> {
        py.detach(|| self.tree.open(&path)).or_raise().map(FileReader::new)
    }

    /// Batches of what differs from an older tree; `None` stands for an empty one.
    #[pyo3(signature = (old, *, batch_rows=50_000))]
    fn changes_since(
        &self,
        old: Option<PyRef<'_, WholeTree>>,
        batch_rows: usize,
    ) -> PyResult<Changes> {
        let (new, old) = (Arc::clone(&self.tree), old.map(|old| Arc::clone(&old.tree)));
        Changes::start(batch_rows, move |visit| new.changes_since(old.as_deref(), visit))
    }

    /// Mounts it, read only, at an existing directory.
    #[pyo3(signature = (at, allow_other=false))]
    fn mount(&self, py: Python<'_>, at: PathBuf, allow_other: bool) -> PyResult<Mount> {
        py.detach(|| {
            self.tree.require_readable()?;
            let options = MountOptions {
                allow_other,
                total_bytes: self.total_bytes,
                total_files: self.total_files,
                ..MountOptions::default()
            };
            CoreMount::new(self.tree.source(), self.tree.root(), &at, &options)
        })
        .or_raise()
        .map(Mount::new)
    }
}

fn stat(image: &Manifest, name: &str) -> u64 {
    image.stats.get(name).copied().unwrap_or(0)
}
