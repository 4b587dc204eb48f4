//! A pool that is reached through somebody else: both ends.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use holdfast_engine_core::backup::{self, machine};
use holdfast_engine_core::counters::Stage;
use holdfast_engine_core::error::{Error, Result};
use holdfast_engine_core::far::receive::{Commit, Reception as CoreReception};
use holdfast_engine_core::far::terms::Terms;
use holdfast_engine_core::far::trees::Trees;
use holdfast_engine_core::far::{self, Compress, Far, Link};
use holdfast_engine_core::finding::Finding as CoreFinding;
use holdfast_engine_core::manifest::Manifest;
use holdfast_engine_core::restore;
use holdfast_engine_core::restore::target::Overwrite;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::client_key::ClientKey;
use crate::disks::{DiskInput, DiskSink};
use crate::errors::{OrRaise, to_python};
use crate::files::FileReader;
use crate::pool::{Pool, image_id, outcome};
use crate::run::{Context, Run};
use crate::types::{Counters, Finding, Image, RestoreResult};

/// A link whose work a Python object does. Its methods are called from the engine's threads,
/// several at a time.
struct PythonLink(Py<PyAny>);

impl PythonLink {
    fn call<T>(
        &self,
        what: &'static str,
        call: impl FnOnce(&Bound<'_, PyAny>) -> PyResult<T>,
    ) -> Result<T> {
        Python::attach(|py| {
            call(self.0.bind(py)).map_err(|error| Error::Link { what, cause: Arc::new(error) })
        })
    }

    fn ask(&self, what: &'static str, method: &str, question: &[u8]) -> Result<Vec<u8>> {
        self.call(what, |link| {
            let answer = link.call_method1(method, (PyBytes::new(link.py(), question),))?;
            Ok(answer.cast::<PyBytes>()?.as_bytes().to_vec())
        })
    }
}

impl Link for PythonLink {
    fn missing(&self, names: &[u8]) -> Result<Vec<u8>> {
        self.ask("asking what is missing", "missing", names)
    }

    fn send(&self, body: Vec<u8>) -> Result<()> {
        self.call("sending blocks", |link| {
            link.call_method1("send", (PyBytes::new(link.py(), &body),)).map(drop)
        })
    }

    fn read(&self, wanted: &[u8]) -> Result<Vec<u8>> {
        self.ask("reading chunks", "read", wanted)
    }

    fn commit(&self, draft: &[u8]) -> Result<Vec<u8>> {
        self.ask("committing the image", "commit", draft)
    }
}

/// A pool far away, as a client has it.
#[pyclass(frozen)]
pub struct RemotePool(Arc<Far>);

#[pymethods]
impl RemotePool {
    #[new]
    #[pyo3(signature = (terms, link, trees=None, client_key=None, sealed_names=false,
                        compress="here"))]
    fn new(
        terms: &[u8],
        link: &Bound<'_, PyAny>,
        trees: Option<PathBuf>,
        client_key: Option<&ClientKey>,
        sealed_names: bool,
        compress: &str,
    ) -> PyResult<Self> {
        let compress = Compress::parse(compress).ok_or_else(|| {
            to_python(&Error::Invalid(format!(
                "where to compress is '{compress}': want here, measured or there"
            )))
        })?;
        let terms = Terms::decode(terms).or_raise()?;
        let pool = terms.pool;
        let link = Arc::new(PythonLink(link.clone().unbind()));
        let far = Far::new(terms, link).compressing(compress);
        // Without them everything works, and takes longer.
        let trees = trees.and_then(|path| Trees::open(&path, pool).ok());
        let far = match trees {
            Some(trees) => far.remembering(trees),
            None => far,
        };
        let far = match client_key {
            Some(key) => far.sealing(key.sealing(sealed_names)).or_raise()?,
            None => far,
        };
        Ok(RemotePool(Arc::new(far)))
    }

    /// Of the pool that the terms are of.
    #[getter]
    fn id<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.pool_id().0)
    }

    #[pyo3(signature = (*, paths, source, host, started_ns, exclude=Vec::new(),
                        one_file_system=false, compression=2, workers=0, parent=None,
                        read_all=false, labels=BTreeMap::new(),
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
        parent: Option<Vec<u8>>,
        read_all: bool,
        labels: BTreeMap<String, String>,
        software: String,
    ) -> PyResult<Run> {
        let parent = parent.as_deref().map(Manifest::decode).transpose().or_raise()?;
        let request = backup::Request {
            paths,
            source,
            host,
            started_ns,
            exclude,
            one_file_system,
            level: compression,
            workers,
            parent: None,
            read_all,
            labels,
            software,
        };
        let far = Arc::clone(&self.0);
        Run::start(&Stage::FAR_BACKUP, move |context| {
            let (counters, findings) = (&context.counters, &context.findings);
            far::backup::run(&far, &request, parent.as_ref(), counters, findings, &context.cancel)
                .map(|manifest| outcome(manifest, |manifest| Image(manifest.clone())))
        })
    }

    /// As `Pool.backup_machine`.
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
        parent: Option<Vec<u8>>,
        labels: BTreeMap<String, String>,
        software: String,
    ) -> PyResult<Run> {
        let parent = parent.as_deref().map(Manifest::decode).transpose().or_raise()?;
        let request = machine::Request {
            files,
            disks: disks.iter().map(|disk| disk.0.clone()).collect(),
            source,
            host,
            started_ns,
            level: compression,
            workers,
            parent: None,
            labels,
            software,
        };
        let far = Arc::clone(&self.0);
        Run::start(&Stage::FAR_BACKUP, move |context| {
            let Context { counters, findings, cancel } = context;
            let parent = parent.as_ref();
            far::backup::run_machine(&far, &request, parent, counters, findings, cancel)
                .map(|manifest| outcome(manifest, |manifest| Image(manifest.clone())))
        })
    }

    /// Sends an image of a pool that is here. `base`: the manifest of an image that this pool has.
    #[pyo3(signature = (pool, image, base=None))]
    fn replicate(&self, pool: &Pool, image: &str, base: Option<Vec<u8>>) -> PyResult<Run> {
        let image = image_id(image)?;
        let base = base.as_deref().map(Manifest::decode).transpose().or_raise()?;
        let (far, pool) = (Arc::clone(&self.0), pool.core());
        Run::start(&Stage::REPLICATE, move |context| {
            let (counters, cancel) = (&context.counters, &context.cancel);
            far::replicate::run(&far, &pool, &image, base.as_ref(), counters, cancel)
                .map(|manifest| outcome(manifest, |manifest| Image(manifest.clone())))
        })
    }

    #[pyo3(signature = (manifest, *, paths, to, overwrite="never", strip_components=0,
                        verify=false, workers=0))]
    #[allow(clippy::too_many_arguments)]
    fn restore(
        &self,
        manifest: &[u8],
        paths: Vec<Vec<u8>>,
        to: Vec<u8>,
        overwrite: &str,
        strip_components: usize,
        verify: bool,
        workers: usize,
    ) -> PyResult<Run> {
        let image = Manifest::decode(manifest).or_raise()?;
        let request = restore::Request {
            image: image.id,
            paths,
            to,
            overwrite: overwrite_of(overwrite)?,
            strip_components,
            verify,
            workers,
        };
        let far = Arc::clone(&self.0);
        Run::start(&Stage::RESTORE, move |context| {
            let (counters, findings) = (&context.counters, &context.findings);
            let cancel = &context.cancel;
            far::restore::run(&far, image, &request, counters, findings, cancel)
                .map(|done| restored(done, findings.kept(), findings.total()))
        })
    }

    /// As `Pool.restore_disk`, of the image with this manifest.
    #[pyo3(signature = (manifest, path, to, *, verify=false, workers=0))]
    fn restore_disk(
        &self,
        manifest: &[u8],
        path: Vec<u8>,
        to: &DiskSink,
        verify: bool,
        workers: usize,
    ) -> PyResult<Run> {
        let image = Manifest::decode(manifest).or_raise()?;
        let request = to.request(path, verify, workers);
        let (far, to) = (Arc::clone(&self.0), Arc::clone(&to.0));
        Run::start(&Stage::RESTORE, move |context| {
            let Context { counters, findings, cancel } = context;
            far::restore::run_disk(&far, &image, &request, &*to, counters, cancel)
                .map(|done| restored(done, findings.kept(), findings.total()))
        })
    }

    /// A file of the image with this manifest, for reading at any place.
    fn open_file(&self, py: Python<'_>, manifest: &[u8], path: Vec<u8>) -> PyResult<FileReader> {
        let image = Manifest::decode(manifest).or_raise()?;
        py.detach(|| far::open::file(&self.0, &image, &path)).or_raise().map(FileReader::new)
    }
}

/// How files that are there are treated.
pub fn overwrite_of(text: &str) -> PyResult<Overwrite> {
    Overwrite::parse(text).ok_or_else(|| {
        to_python(&Error::Invalid(format!("overwrite '{text}': want never, older or always")))
    })
}

/// What a restore says at its end.
pub fn restored(
    done: restore::Outcome,
    findings: Vec<CoreFinding>,
    findings_total: u64,
) -> crate::run::Outcome {
    outcome((done, findings), move |(done, findings)| RestoreResult {
        files: done.files,
        dirs: done.dirs,
        bytes: done.bytes,
        findings: findings.iter().cloned().map(Finding::from).collect(),
        findings_total,
        verified_files: done.verified_files,
    })
}

/// One backup that a media server receives.
#[pyclass(frozen)]
pub struct Receiver(pub CoreReception);

#[pymethods]
impl Receiver {
    /// What the client needs to know of the pool.
    #[getter]
    fn terms<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.terms().encode())
    }

    fn missing<'py>(&self, py: Python<'py>, names: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
        let answer = py.detach(|| self.0.missing(names)).or_raise()?;
        Ok(PyBytes::new(py, &answer))
    }

    fn take(&self, py: Python<'_>, body: &[u8]) -> PyResult<()> {
        py.detach(|| self.0.take(body)).or_raise()
    }

    #[pyo3(signature = (draft, *, source, host, labels, finished_ns))]
    fn commit(
        &self,
        py: Python<'_>,
        draft: &[u8],
        source: String,
        host: String,
        labels: BTreeMap<String, String>,
        finished_ns: i64,
    ) -> PyResult<Image> {
        let commit = Commit { source, host, labels, finished_ns };
        py.detach(|| self.0.commit(draft, commit)).or_raise().map(Image)
    }

    /// The manifest of an image that the pool has, so that what it has need not come.
    fn vouch<'py>(&self, py: Python<'py>, image: &str) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let image = image_id(image)?;
        let found = py.detach(|| self.0.vouch(&image)).or_raise()?;
        let bytes = found.map(|manifest| manifest.encode()).transpose().or_raise()?;
        Ok(bytes.map(|bytes| PyBytes::new(py, &bytes)))
    }

    #[pyo3(signature = (manifest, *, image, source))]
    fn adopt(&self, py: Python<'_>, manifest: &[u8], image: &str, source: &str) -> PyResult<Image> {
        let image = image_id(image)?;
        py.detach(|| self.0.adopt(manifest, &image, Some(source))).or_raise().map(Image)
    }

    fn abandon(&self, py: Python<'_>) -> PyResult<()> {
        py.detach(|| self.0.abandon()).or_raise()
    }

    fn counters(&self) -> Counters {
        Counters::new(&self.0.counters().snapshot(), &Stage::RECEIVE)
    }
}

impl Drop for Receiver {
    /// Its thread may want the interpreter, for a store that is made of Python.
    fn drop(&mut self) {
        Python::attach(|py| {
            let _ = py.detach(|| self.0.abandon());
        });
    }
}
