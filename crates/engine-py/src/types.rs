//! Values that the engine hands to Python: frozen, with plain attributes.

use std::collections::BTreeMap;

use holdfast_engine_core::chunker::ChunkSizes;
use holdfast_engine_core::counters::{Snapshot, Stage};
use holdfast_engine_core::finding::Finding as CoreFinding;
use holdfast_engine_core::gc::Collected;
use holdfast_engine_core::manifest::Manifest;
use holdfast_engine_core::pool::{PoolConfig as CoreConfig, Stats};
use holdfast_engine_core::tree::entry::{Content, Entry as CoreEntry};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

use crate::errors::OrRaise;

/// How a pool is made.
#[pyclass(frozen, from_py_object)]
#[derive(Clone)]
pub struct PoolConfig(pub CoreConfig);

#[pymethods]
impl PoolConfig {
    #[new]
    #[pyo3(signature = (*, chunk_min=None, chunk_avg=None, chunk_max=None, block_bytes=None,
                        pack_bytes=None))]
    fn new(
        chunk_min: Option<u32>,
        chunk_avg: Option<u32>,
        chunk_max: Option<u32>,
        block_bytes: Option<u32>,
        pack_bytes: Option<u64>,
    ) -> PyResult<Self> {
        let usual = CoreConfig::default();
        CoreConfig {
            chunks: ChunkSizes {
                min: chunk_min.unwrap_or(usual.chunks.min),
                avg: chunk_avg.unwrap_or(usual.chunks.avg),
                max: chunk_max.unwrap_or(usual.chunks.max),
            },
            block_bytes: block_bytes.unwrap_or(usual.block_bytes),
            pack_bytes: pack_bytes.unwrap_or(usual.pack_bytes),
        }
        .check()
        .map(PoolConfig)
        .or_raise()
    }

    #[getter]
    fn chunk_min(&self) -> u32 {
        self.0.chunks.min
    }

    #[getter]
    fn chunk_avg(&self) -> u32 {
        self.0.chunks.avg
    }

    #[getter]
    fn chunk_max(&self) -> u32 {
        self.0.chunks.max
    }

    #[getter]
    fn block_bytes(&self) -> u32 {
        self.0.block_bytes
    }

    #[getter]
    fn pack_bytes(&self) -> u64 {
        self.0.pack_bytes
    }
}

/// One stage's numbers at a moment.
#[pyclass(frozen, get_all)]
#[derive(Clone)]
pub struct StageCounters {
    name: &'static str,
    items: u64,
    bytes: u64,
    busy_ns: u64,
    starved_ns: u64,
    blocked_ns: u64,
}

macro_rules! counters {
    ($($name:ident),+ $(,)?) => {
        /// A verb's numbers at a moment.
        #[pyclass(frozen, get_all)]
        pub struct Counters {
            $($name: u64,)+
            stages: Vec<StageCounters>,
        }

        impl Counters {
            pub fn new(seen: &Snapshot, stages: &[Stage]) -> Self {
                Counters {
                    $($name: seen.$name,)+
                    stages: stages
                        .iter()
                        .filter_map(|stage| {
                            let own = seen.stages.get(*stage as usize)?;
                            Some(StageCounters {
                                name: stage.as_str(),
                                items: own.items,
                                bytes: own.bytes,
                                busy_ns: own.busy_ns,
                                starved_ns: own.starved_ns,
                                blocked_ns: own.blocked_ns,
                            })
                        })
                        .collect(),
                }
            }
        }
    };
}

counters! {
    files,
    dirs,
    others,
    bytes_found,
    bytes_read,
    bytes_online,
    files_changed,
    files_unchanged,
    chunks_looked_up,
    chunks_hit,
    bytes_new,
    bytes_transmitted,
    bytes_left,
    bytes_stored,
    findings,
    bytes_total,
    files_total,
}

/// A problem with one file.
#[pyclass(frozen)]
#[derive(Clone)]
pub struct Finding(CoreFinding);

impl From<CoreFinding> for Finding {
    fn from(finding: CoreFinding) -> Self {
        Finding(finding)
    }
}

#[pymethods]
impl Finding {
    #[getter]
    fn path(&self) -> &[u8] {
        &self.0.path
    }

    #[getter]
    fn code(&self) -> &str {
        &self.0.code
    }

    #[getter]
    fn message(&self) -> &str {
        &self.0.message
    }

    #[getter]
    fn severity(&self) -> &'static str {
        self.0.severity.as_str()
    }

    fn __repr__(&self) -> String {
        format!("Finding({}: {})", self.0.path.escape_ascii(), self.0.message)
    }
}

/// One name in an image.
#[pyclass(frozen)]
pub struct Entry(pub CoreEntry);

#[pymethods]
impl Entry {
    #[getter]
    fn name(&self) -> &[u8] {
        &self.0.name
    }

    #[getter]
    fn kind(&self) -> &'static str {
        self.0.kind.as_str()
    }

    #[getter]
    fn mode(&self) -> u32 {
        self.0.mode
    }

    #[getter]
    fn uid(&self) -> u32 {
        self.0.uid
    }

    #[getter]
    fn gid(&self) -> u32 {
        self.0.gid
    }

    #[getter]
    fn user(&self) -> Option<&str> {
        self.0.user.as_deref()
    }

    #[getter]
    fn group(&self) -> Option<&str> {
        self.0.group.as_deref()
    }

    #[getter]
    fn mtime_ns(&self) -> i128 {
        exact_ns(self.0.mtime.sec, self.0.mtime.nsec)
    }

    #[getter]
    fn ctime_ns(&self) -> i128 {
        exact_ns(self.0.ctime.sec, self.0.ctime.nsec)
    }

    #[getter]
    fn inode(&self) -> u64 {
        self.0.inode
    }

    #[getter]
    fn nlink(&self) -> u64 {
        self.0.nlink
    }

    #[getter]
    fn size(&self) -> u64 {
        self.0.size
    }

    #[getter]
    fn target(&self) -> Option<&[u8]> {
        self.0.target.as_deref()
    }

    #[getter]
    fn rdev(&self) -> Option<(u32, u32)> {
        self.0.rdev
    }

    #[getter]
    fn xattrs<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let map = PyDict::new(py);
        for (name, value) in &self.0.xattrs {
            map.set_item(PyBytes::new(py, name), PyBytes::new(py, value))?;
        }
        Ok(map)
    }

    /// References that the entry holds itself; one for a long list.
    #[getter]
    fn chunks(&self) -> usize {
        match &self.0.content {
            Content::Empty => 0,
            Content::Direct(refs) => refs.len(),
            Content::Listed { .. } => 1,
        }
    }

    fn __repr__(&self) -> String {
        format!("Entry({} {})", self.0.kind.as_str(), self.0.name.escape_ascii())
    }
}

fn exact_ns(sec: i64, nsec: u32) -> i128 {
    i128::from(sec) * 1_000_000_000 + i128::from(nsec)
}

/// An image's manifest.
#[pyclass(frozen)]
pub struct Image(pub Manifest);

#[pymethods]
impl Image {
    #[getter]
    fn id(&self) -> String {
        self.0.id.to_string()
    }

    #[getter]
    fn number(&self) -> u64 {
        self.0.number
    }

    #[getter]
    fn source(&self) -> &str {
        &self.0.source.name
    }

    #[getter]
    fn host(&self) -> &str {
        &self.0.source.host
    }

    #[getter]
    fn paths<'py>(&self, py: Python<'py>) -> Vec<Bound<'py, PyBytes>> {
        self.0.source.paths.iter().map(|path| PyBytes::new(py, path)).collect()
    }

    #[getter]
    fn started_ns(&self) -> i64 {
        self.0.started_ns
    }

    #[getter]
    fn finished_ns(&self) -> i64 {
        self.0.finished_ns
    }

    #[getter]
    fn parent(&self) -> Option<String> {
        self.0.parent.map(|id| id.to_string())
    }

    #[getter]
    fn status(&self) -> &'static str {
        self.0.status.as_str()
    }

    #[getter]
    fn stats(&self) -> BTreeMap<String, u64> {
        self.0.stats.clone()
    }

    #[getter]
    fn findings(&self) -> Vec<Finding> {
        self.0.findings.iter().cloned().map(Finding).collect()
    }

    #[getter]
    fn findings_total(&self) -> u64 {
        self.0.findings_total
    }

    #[getter]
    fn software(&self) -> &str {
        &self.0.software
    }

    #[getter]
    fn labels(&self) -> BTreeMap<&str, &str> {
        self.0.labels().collect()
    }

    #[getter]
    fn client_key(&self) -> Option<&str> {
        self.0.client_key()
    }

    #[getter]
    fn has_sealed_names(&self) -> bool {
        self.0.has_sealed_names()
    }

    fn __repr__(&self) -> String {
        format!("Image({} {})", self.0.id, self.0.source.name)
    }
}

/// What a restore did.
#[pyclass(frozen, get_all)]
pub struct RestoreResult {
    pub files: u64,
    pub dirs: u64,
    pub bytes: u64,
    pub findings: Vec<Finding>,
    pub findings_total: u64,
    pub verified_files: u64,
}

/// What a verification or a check of the pool found.
#[pyclass(frozen, get_all)]
pub struct VerifyResult {
    pub images: u64,
    pub chunks: u64,
    pub packs: u64,
    pub bytes_read: u64,
    pub problems: Vec<Finding>,
    pub problems_total: u64,
}

/// What a garbage collection did, or would do.
#[pyclass(frozen, get_all)]
pub struct GarbageResult {
    pub packs_before: u64,
    pub packs_deleted: u64,
    pub packs_rewritten: u64,
    pub bytes_freed: u64,
    pub bytes_live: u64,
    pub bytes_total: u64,
    pub chunks_live: u64,
    pub chunks_total: u64,
    /// Jobs that began before the mark and still run: the space returns after them.
    pub waiting_for: Vec<String>,
    pub dry_run: bool,
}

/// How full a pool is.
#[pyclass(frozen, get_all)]
pub struct PoolStats {
    pub packs: u64,
    pub pack_bytes: u64,
    pub chunks: u64,
    pub chunk_bytes: u64,
    pub index_segments: u64,
    pub index_bytes: u64,
    pub images: u64,
}

impl From<Collected> for GarbageResult {
    fn from(done: Collected) -> Self {
        GarbageResult {
            packs_before: done.packs_before,
            packs_deleted: done.packs_deleted,
            packs_rewritten: done.packs_rewritten,
            bytes_freed: done.bytes_freed,
            bytes_live: done.bytes_live,
            bytes_total: done.bytes_total,
            chunks_live: done.chunks_live,
            chunks_total: done.chunks_total,
            waiting_for: done.waiting_for,
            dry_run: done.dry_run,
        }
    }
}

impl From<Stats> for PoolStats {
    fn from(stats: Stats) -> Self {
        PoolStats {
            packs: stats.packs,
            pack_bytes: stats.pack_bytes,
            chunks: stats.chunks,
            chunk_bytes: stats.chunk_bytes,
            index_segments: stats.index_segments,
            index_bytes: stats.index_bytes,
            images: stats.images,
        }
    }
}
