//! A pool and its verbs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use holdfast_engine_core::backup::written::{self, TreeWriter as CoreWriter};
use holdfast_engine_core::backup::{self, machine};
use holdfast_engine_core::check::{self, Checked};
use holdfast_engine_core::counters::{Counters, Stage};
use holdfast_engine_core::error::Error;
use holdfast_engine_core::far::deliver::deliver;
use holdfast_engine_core::far::receive::Reception;
use holdfast_engine_core::far::replicate;
use holdfast_engine_core::far::terms::Terms;
use holdfast_engine_core::finding::Findings;
use holdfast_engine_core::gc;
use holdfast_engine_core::ids::Id;
use holdfast_engine_core::keys::NameKeys;
use holdfast_engine_core::mount::inside::Inside;
use holdfast_engine_core::mount::{Mount as CoreMount, MountOptions};
use holdfast_engine_core::pool::jobs::DEFAULT_LEASE_S;
use holdfast_engine_core::pool::{Header, Pool as CorePool};
use holdfast_engine_core::reader::FileReader as CoreReader;
use holdfast_engine_core::restore::{self, disk};
use holdfast_engine_core::store::Store;
use holdfast_engine_core::tree::ChunkSource;
use holdfast_engine_core::tree::walk::{self, Directory};
use holdfast_engine_core::upkeep::{merge, rebuild};
use pyo3::BoundObject;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::changes::Changes;
use crate::client_key::ClientKey;
use crate::disks::{DiskInput, DiskSink};
use crate::errors::{OrRaise, to_python};
use crate::far::{Receiver, overwrite_of, restored};
use crate::files::{FileReader, Mount, PythonInside};
use crate::run::{Context, Outcome, Run};
use crate::store;
use crate::types::{Entry, Finding, GarbageResult, Image, PoolConfig, PoolStats, VerifyResult};
use crate::written::TreeWriter;

/// An open pool. May be used from several threads.
#[pyclass(frozen)]
pub struct Pool(pub Arc<CorePool>);

fn key_of(bytes: &[u8]) -> PyResult<[u8; 32]> {
    bytes.try_into().map_err(|_| {
        to_python(&Error::Invalid(format!("a pool key has 32 bytes, this one {}", bytes.len())))
    })
}

fn naming_of(bytes: &[u8]) -> PyResult<NameKeys> {
    let wrong = || {
        let (want, found) = (NameKeys::LEN, bytes.len());
        to_python(&Error::Invalid(format!("the naming of a pool has {want} bytes, this {found}")))
    };
    bytes.try_into().map(NameKeys::from_bytes).map_err(|_| wrong())
}

/// An image's id from its 32 hexadecimal digits.
pub fn image_id(text: &str) -> PyResult<Id> {
    Id::parse(text).ok_or_else(|| to_python(&Error::ImageMissing { image: text.to_owned() }))
}

/// The outcome of a verb whose result is made once.
pub fn outcome<T, P>(result: T, convert: impl Fn(&T) -> P + Send + 'static) -> Outcome
where
    T: Send + 'static,
    P: for<'py> IntoPyObject<'py, Error = PyErr> + 'static,
{
    Box::new(move |py| {
        let object = convert(&result).into_pyobject(py)?;
        Ok(object.into_any().unbind())
    })
}

fn checked(done: Checked, findings: &Arc<Findings>) -> Outcome {
    let findings = Arc::clone(findings);
    outcome(done, move |done| VerifyResult {
        images: done.images,
        chunks: done.chunks,
        packs: done.packs,
        bytes_read: done.bytes_read,
        problems: findings.kept().into_iter().map(Finding::from).collect(),
        problems_total: findings.total(),
    })
}

impl Pool {
    /// The engine's own.
    pub fn core(&self) -> Arc<CorePool> {
        Arc::clone(&self.0)
    }
}

#[pymethods]
impl Pool {
    #[staticmethod]
    #[pyo3(signature = (store, pool_key, config, created_ns, cache_dir=None, naming=None))]
    fn create(
        py: Python<'_>,
        store: &Bound<'_, PyAny>,
        pool_key: &[u8],
        config: &PoolConfig,
        created_ns: i64,
        cache_dir: Option<PathBuf>,
        naming: Option<&[u8]>,
    ) -> PyResult<Self> {
        let key = key_of(pool_key)?;
        let naming = naming.map(naming_of).transpose()?;
        let store = store::open(store, true)?;
        let (config, cache_dir) = (config.0, cache_dir.as_deref());
        let naming = naming.as_ref();
        let make = || CorePool::create_sharing(store, &key, config, created_ns, naming, cache_dir);
        py.detach(make).or_raise().map(|pool| Pool(Arc::new(pool)))
    }

    #[staticmethod]
    #[pyo3(signature = (store, pool_key, cache_dir=None))]
    fn open(
        py: Python<'_>,
        store: &Bound<'_, PyAny>,
        pool_key: &[u8],
        cache_dir: Option<PathBuf>,
    ) -> PyResult<Self> {
        let key = key_of(pool_key)?;
        let store = store::open(store, false)?;
        let cache_dir: Option<&Path> = cache_dir.as_deref();
        py.detach(|| CorePool::open(store, &key, cache_dir))
            .or_raise()
            .map(|pool| Pool(Arc::new(pool)))
    }

    /// The id of the pool in a store; no key is needed.
    #[staticmethod]
    fn peek<'py>(py: Python<'py>, store: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
        let store: Arc<dyn Store> = store::open(store, false)?;
        let header: Header = py.detach(|| CorePool::peek(store.as_ref())).or_raise()?;
        Ok(PyBytes::new(py, &header.id.0))
    }

    #[getter]
    fn id<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.id().0)
    }

    #[getter]
    fn naming<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.keys().naming().to_bytes())
    }

    #[getter]
    fn config(&self) -> PoolConfig {
        PoolConfig(*self.0.config())
    }

    #[pyo3(signature = (*, paths, source, host, started_ns, exclude=Vec::new(),
                        one_file_system=false, compression=2, workers=0, parent=None, read_all=false,
labels=BTreeMap::new(),
                        software=String::from("holdfast")))]
    #[allow(clippy::too_many_arguments)]
    fn backup(
        &self,
        paths: Vec<Vec<u8>>,
        source: String,
        host: String,
        started_ns: i64,
        exclude: Vec<String>,
        one_file_system: bool,
        compression: i32,
        workers: usize,
        parent: Option<String>,
        read_all: bool,
        labels: BTreeMap<String, String>,
        software: String,
    ) -> PyResult<Run> {
        let request = backup::Request {
            paths,
            source,
            host,
            started_ns,
            exclude,
            one_file_system,
            level: compression,
            workers,
            parent: parent.as_deref().map(image_id).transpose()?,
            read_all,
            labels,
            software,
        };
        let pool = Arc::clone(&self.0);
        Run::start(&Stage::BACKUP, move |context| {
            backup::run(&pool, &request, &context.counters, &context.findings, &context.cancel)
                .map(|manifest| outcome(manifest, |manifest| Image(manifest.clone())))
        })
    }

    /// Backs up a virtual machine.
    #[pyo3(signature = (*, files, disks, source, host, started_ns, compression=2, workers=0,
                        parent=None, labels=BTreeMap::new(), software=String::from("holdfast")))]
    #[allow(clippy::too_many_arguments)]
    fn backup_machine(
        &self,
        files: BTreeMap<String, Vec<u8>>,
        disks: Vec<PyRef<'_, DiskInput>>,
        source: String,
        host: String,
        started_ns: i64,
        compression: i32,
        workers: usize,
        parent: Option<String>,
        labels: BTreeMap<String, String>,
        software: String,
    ) -> PyResult<Run> {
        let request = machine::Request {
            files,
            disks: disks.iter().map(|disk| disk.0.clone()).collect(),
            source,
            host,
            started_ns,
            level: compression,
            workers,
            parent: parent.as_deref().map(image_id).transpose()?,
            labels,
            software,
        };
        let pool = Arc::clone(&self.0);
        Run::start(&Stage::BACKUP, move |context| {
            let Context { counters, findings, cancel } = context;
            machine::run(&pool, &request, counters, findings, cancel)
                .map(|manifest| outcome(manifest, |manifest| Image(manifest.clone())))
        })
    }

    #[pyo3(signature = (image, *, paths, to, overwrite="never", strip_components=0, verify=false,
                        workers=0, client_key=None))]
    #[allow(clippy::too_many_arguments)]
    fn restore(
        &self,
        image: &str,
        paths: Vec<Vec<u8>>,
        to: Vec<u8>,
        overwrite: &str,
        strip_components: usize,
        verify: bool,
        workers: usize,
        client_key: Option<&ClientKey>,
    ) -> PyResult<Run> {
        let request = restore::Request {
            image: image_id(image)?,
            paths,
            to,
            overwrite: overwrite_of(overwrite)?,
            strip_components,
            verify,
            workers,
        };
        let pool = Arc::clone(&self.0);
        let key = client_key.map(|key| Arc::clone(&key.0));
        Run::start(&Stage::RESTORE, move |context| {
            let Context { counters, findings, cancel } = context;
            let key = key.as_deref();
            restore::run_with(&pool, &request, key, counters, findings, cancel)
                .map(|done| restored(done, findings.kept(), findings.total()))
        })
    }

    /// Writes a file of an image as a disk.
    #[pyo3(signature = (image, path, to, *, verify=false, workers=0, client_key=None))]
    #[allow(clippy::too_many_arguments)]
    fn restore_disk(
        &self,
        image: &str,
        path: Vec<u8>,
        to: &DiskSink,
        verify: bool,
        workers: usize,
        client_key: Option<&ClientKey>,
    ) -> PyResult<Run> {
        let image = image_id(image)?;
        let request = to.request(path, verify, workers);
        let (pool, to) = (Arc::clone(&self.0), Arc::clone(&to.0));
        let key = client_key.map(|key| Arc::clone(&key.0));
        Run::start(&Stage::RESTORE, move |context| {
            let Context { counters, findings, cancel } = context;
            let (image, key) = (pool.image(&image)?, key.as_deref());
            disk::run(&*pool, &image, &request, key, &*to, counters, cancel)
                .map(|done| restored(done, findings.kept(), findings.total()))
        })
    }

    /// Begins an image whose directories are told one by one.
    #[pyo3(signature = (*, source, host, started_ns, labels=BTreeMap::new(),
                        software=String::from("holdfast"), parent=None))]
    fn write_index(
        &self,
        source: String,
        host: String,
        started_ns: i64,
        labels: BTreeMap<String, String>,
        software: String,
        parent: Option<&str>,
    ) -> PyResult<TreeWriter> {
        let parent = parent.map(image_id).transpose()?;
        let request = written::Request { source, host, started_ns, parent, labels, software };
        CoreWriter::begin(self.core(), request).or_raise().map(TreeWriter::new)
    }

    /// Begins to receive a backup from a client.
    #[pyo3(signature = (*, started_ns))]
    fn receive(&self, py: Python<'_>, started_ns: i64) -> PyResult<Receiver> {
        let pool = Arc::clone(&self.0);
        py.detach(|| Reception::begin(pool, started_ns)).or_raise().map(Receiver)
    }

    /// Chunks that a client wants, as a body of blocks. Over a link that carries so many bytes a second.
    #[pyo3(signature = (wanted, *, link_bytes_per_s=None))]
    fn deliver<'py>(
        &self,
        py: Python<'py>,
        wanted: &[u8],
        link_bytes_per_s: Option<u64>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let counters = Counters::default();
        let deliver = || deliver(&self.0, wanted, link_bytes_per_s, &counters);
        let body = py.detach(deliver).or_raise()?;
        Ok(PyBytes::new(py, &body))
    }

    /// What a client needs to know of the pool to restore from it.
    #[getter]
    fn terms<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &Terms::of(&self.0, true).encode())
    }

    /// An image's manifest in its plain bytes, for a client.
    fn manifest<'py>(&self, py: Python<'py>, id: &str) -> PyResult<Bound<'py, PyBytes>> {
        let id = image_id(id)?;
        let bytes = py.detach(|| self.0.image(&id).and_then(|image| image.encode())).or_raise()?;
        Ok(PyBytes::new(py, &bytes))
    }

    /// Sends an image to another pool that is open here.
    #[pyo3(signature = (image, target, *, started_ns, base=None))]
    fn replicate(
        &self,
        image: &str,
        target: &Pool,
        started_ns: i64,
        base: Option<&str>,
    ) -> PyResult<Run> {
        let (image, base) = (image_id(image)?, base.map(image_id).transpose()?);
        let (pool, target) = (self.core(), target.core());
        Run::start(&Stage::REPLICATE, move |context| {
            let (to, base) = (Arc::clone(&target), base.as_ref());
            let (counters, cancel) = (&context.counters, &context.cancel);
            replicate::between(&pool, to, &image, base, started_ns, counters, cancel)
                .map(|manifest| outcome(manifest, |manifest| Image(manifest.clone())))
        })
    }

    /// Has the images that are yet to come bear higher numbers than this one.
    fn go_on_above(&self, py: Python<'_>, number: u64) -> PyResult<()> {
        py.detach(|| self.0.claim_number(number)).or_raise().map(drop)
    }

    /// All images by number.
    fn images(&self, py: Python<'_>) -> PyResult<Vec<Image>> {
        let images = py.detach(|| self.0.images()).or_raise()?;
        Ok(images.into_iter().map(Image).collect())
    }

    /// The ids of all images, in no order; reads no manifest.
    fn image_ids(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        let ids = py.detach(|| self.0.image_ids()).or_raise()?;
        Ok(ids.iter().map(ToString::to_string).collect())
    }

    fn image(&self, py: Python<'_>, id: &str) -> PyResult<Image> {
        let id = image_id(id)?;
        py.detach(|| self.0.image(&id)).or_raise().map(Image)
    }

    fn expire(&self, py: Python<'_>, id: &str) -> PyResult<()> {
        let id = image_id(id)?;
        py.detach(|| self.0.expire(&id)).or_raise()
    }

    /// What an image says of a path.
    fn entry(&self, py: Python<'_>, image: &str, path: Vec<u8>) -> PyResult<Entry> {
        let id = image_id(image)?;
        py.detach(|| {
            let root = self.0.image(&id)?.root;
            walk::find(self.0.as_ref(), &root, &path)
        })
        .or_raise()
        .map(Entry)
    }

    /// The entries of a directory, by name.
    fn list_dir(&self, py: Python<'_>, image: &str, path: Vec<u8>) -> PyResult<Vec<Entry>> {
        let id = image_id(image)?;
        py.detach(|| {
            let root = self.0.image(&id)?.root;
            let entry = walk::find(self.0.as_ref(), &root, &path)?;
            Directory::of(self.0.as_ref(), &entry)?
                .entries()
                .map(|entry| entry.map(Entry))
                .collect::<Result<Vec<_>, Error>>()
        })
        .or_raise()
    }

    /// Batches of what differs; `None` stands for an empty tree.
    #[pyo3(signature = (old, new, *, batch_rows=50_000))]
    fn changes(
        &self,
        py: Python<'_>,
        old: Option<&str>,
        new: Option<&str>,
        batch_rows: usize,
    ) -> PyResult<Changes> {
        let root = |image: Option<&str>| match image {
            None => Ok(None),
            Some(text) => {
                let id = image_id(text)?;
                py.detach(|| self.0.image(&id)).or_raise().map(|manifest| Some(manifest.root))
            }
        };
        Changes::between(Arc::clone(&self.0), root(old)?, root(new)?, batch_rows)
    }

    /// Keeps so many bytes of what was read and decompressed, but not less than usual.
    fn keep_blocks(&self, bytes: u64) {
        self.0.keep_blocks(bytes);
    }

    /// A file of an image, for reading at any place.
    fn open_file(&self, py: Python<'_>, image: &str, path: Vec<u8>) -> PyResult<FileReader> {
        let id = image_id(image)?;
        py.detach(|| {
            let image = self.0.image(&id)?;
            let entry = walk::find(self.0.as_ref(), &image.root, &path)?;
            image.require_readable()?;
            CoreReader::open(Arc::clone(&self.0) as Arc<dyn ChunkSource>, &entry)
        })
        .or_raise()
        .map(FileReader::new)
    }

    fn stats(&self, py: Python<'_>) -> PyResult<PoolStats> {
        py.detach(|| self.0.stats()).or_raise().map(PoolStats::from)
    }

    #[pyo3(signature = (*, now_ns, dry_run=false, lease_s=DEFAULT_LEASE_S, compression=2))]
    fn collect_garbage(
        &self,
        now_ns: i64,
        dry_run: bool,
        lease_s: u64,
        compression: i32,
    ) -> PyResult<Run> {
        let request = gc::Request { now_ns, dry_run, lease_s, level: compression };
        let pool = Arc::clone(&self.0);
        Run::start(&Stage::BACKUP, move |context| {
            gc::collect(&pool, &request, &context.counters, &context.cancel)
                .map(|done| outcome(done, |done| GarbageResult::from(done.clone())))
        })
    }

    /// Makes the index again from the footers of all packs.
    #[pyo3(signature = (*, now_ns, lease_s=DEFAULT_LEASE_S))]
    fn rebuild_index(&self, now_ns: i64, lease_s: u64) -> PyResult<Run> {
        let pool = Arc::clone(&self.0);
        Run::start(&Stage::RESTORE, move |context| {
            let Context { counters, findings, cancel } = context;
            rebuild::rebuild(&pool, now_ns, lease_s, counters, findings, cancel)?;
            pool.stats().map(|stats| outcome(stats, |stats| PoolStats::from(*stats)))
        })
    }

    /// Merges all index segments into one.
    #[pyo3(signature = (*, now_ns))]
    fn merge_index(&self, now_ns: i64) -> PyResult<Run> {
        let pool = Arc::clone(&self.0);
        Run::start(&Stage::RESTORE, move |context| {
            merge::merge_all(&pool, now_ns, &context.cancel)?;
            pool.stats().map(|stats| outcome(stats, |stats| PoolStats::from(*stats)))
        })
    }

    /// Mounts an image, read only, at an existing directory. `inside`: an index image of this pool,
    /// and who reads what it names.
    #[pyo3(signature = (image, at, allow_other=false, inside=None))]
    fn mount(
        &self,
        py: Python<'_>,
        image: &str,
        at: PathBuf,
        allow_other: bool,
        inside: Option<(String, Py<PyAny>)>,
    ) -> PyResult<Mount> {
        let id = image_id(image)?;
        let inside = inside
            .map(|(index, files)| Ok::<_, PyErr>((image_id(&index)?, PythonInside(files))))
            .transpose()?;
        py.detach(|| {
            let manifest = self.0.image(&id)?;
            manifest.require_readable()?;
            let inside = match inside {
                Some((index, files)) => {
                    let root = self.0.image(&index)?.root;
                    Some(Inside { root, files: Arc::new(files) })
                }
                None => None,
            };
            let stat = |name: &str| manifest.stats.get(name).copied().unwrap_or(0);
            let options = MountOptions {
                allow_other,
                total_bytes: stat("bytes_found"),
                total_files: stat("files") + stat("dirs") + stat("others"),
                ..MountOptions::default()
            };
            let source = Arc::clone(&self.0) as Arc<dyn ChunkSource>;
            CoreMount::with_inside(source, &manifest.root, &at, &options, inside)
        })
        .or_raise()
        .map(Mount::new)
    }

    /// Follows images to their last chunk.
    #[pyo3(signature = (images, *, read_data=false))]
    fn verify(&self, images: Option<Vec<String>>, read_data: bool) -> PyResult<Run> {
        let images: Option<Vec<Id>> =
            images.map(|texts| texts.iter().map(|text| image_id(text)).collect()).transpose()?;
        let pool = Arc::clone(&self.0);
        Run::start(&Stage::RESTORE, move |context| {
            let Context { counters, findings, cancel } = context;
            let request = check::Request { read_data };
            check::verify(&pool, images.as_deref(), request, counters, findings, cancel)
                .map(|done| checked(done, findings))
        })
    }

    /// Looks at every object of the pool, and whether they agree.
    #[pyo3(signature = (*, read_data=false))]
    fn check(&self, read_data: bool) -> PyResult<Run> {
        let pool = Arc::clone(&self.0);
        Run::start(&Stage::RESTORE, move |context| {
            let Context { counters, findings, cancel } = context;
            let request = check::Request { read_data };
            check::check(&pool, request, counters, findings, cancel)
                .map(|done| checked(done, findings))
        })
    }
}
