//! What differs between two images, in batches that a database driver takes as they are.

use std::sync::Arc;

use crossbeam_channel::{Receiver, bounded};
use holdfast_engine_core::error::{Error, Result};
use holdfast_engine_core::pool::Pool;
use holdfast_engine_core::tree::changes::{Change, What, changes};
use holdfast_engine_core::tree::entry::Entry;
use parking_lot::Mutex;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyTuple};

use crate::errors::to_python;

/// Batches that wait for Python.
const WAITING: usize = 2;

/// Is told of each change.
pub type Visit<'v> = dyn FnMut(Change<'_>) -> Result<()> + 'v;

struct Row {
    dir: u32,
    name: Vec<u8>,
    change: u8,
    kind: u8,
    size: u64,
    mtime_ns: i64,
    mode: u32,
    uid: u32,
    gid: u32,
    inode: u64,
}

#[derive(Default)]
struct Batch {
    dirs: Vec<Vec<u8>>,
    rows: Vec<Row>,
}

impl Batch {
    fn add(&mut self, change: &Change<'_>) {
        if self.dirs.last().map(Vec::as_slice) != Some(change.dir) {
            self.dirs.push(change.dir.to_vec());
        }
        let entry = &change.entry;
        self.rows.push(Row {
            dir: (self.dirs.len() - 1) as u32,
            name: entry.name.to_vec(),
            change: match change.what {
                What::Added => 1,
                What::Removed => 2,
                What::Changed => 3,
            },
            kind: entry.kind as u8,
            size: entry.size,
            mtime_ns: entry.mtime.as_ns(),
            mode: entry.mode,
            uid: entry.uid,
            gid: entry.gid,
            inode: entry.inode,
        });
    }
}

/// Rows of changes, and the directories that they are in.
#[pyclass(frozen, get_all)]
pub struct ChangeBatch {
    dirs: Py<PyList>,
    rows: Py<PyList>,
}

/// An iterator of batches; a thread of the engine is one or two batches ahead.
#[pyclass(frozen)]
pub struct Changes(Mutex<Receiver<Result<Batch>>>);

impl Changes {
    /// Of two trees of a pool; none is an empty one.
    pub fn between(
        pool: Arc<Pool>,
        old: Option<Entry>,
        new: Option<Entry>,
        batch_rows: usize,
    ) -> PyResult<Self> {
        Self::start(batch_rows, move |visit| {
            changes(pool.as_ref(), old.as_ref(), new.as_ref(), visit)
        })
    }

    /// `walk` tells each change, in a thread of its own.
    pub fn start(
        batch_rows: usize,
        walk: impl FnOnce(&mut Visit<'_>) -> Result<()> + Send + 'static,
    ) -> PyResult<Self> {
        let (batches, ready) = bounded(WAITING);
        std::thread::Builder::new().name("holdfast-changes".into()).spawn(move || {
            let mut batch = Batch::default();
            let gone = || Error::Cancelled;
            let walked = walk(&mut |change| {
                batch.add(&change);
                if batch.rows.len() >= batch_rows.max(1) {
                    batches.send(Ok(std::mem::take(&mut batch))).map_err(|_| gone())?;
                }
                Ok(())
            });
            // Whoever dropped the iterator wants no more.
            let _ = match walked {
                Ok(()) if batch.rows.is_empty() => Ok(()),
                Ok(()) => batches.send(Ok(batch)),
                Err(error) => batches.send(Err(error)),
            };
        })?;
        Ok(Changes(Mutex::new(ready)))
    }
}

#[pymethods]
impl Changes {
    fn __iter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<ChangeBatch>> {
        let Ok(batch) = py.detach(|| self.0.lock().recv()) else { return Ok(None) };
        let batch = batch.map_err(|error| to_python(&error))?;
        let rows = batch.rows.iter().map(|row| {
            (
                row.dir,
                PyBytes::new(py, &row.name),
                row.change,
                row.kind,
                row.size,
                row.mtime_ns,
                row.mode,
                row.uid,
                row.gid,
                row.inode,
            )
                .into_pyobject(py)
        });
        let rows = rows.collect::<PyResult<Vec<Bound<'_, PyTuple>>>>()?;
        let dirs = batch.dirs.iter().map(|dir| PyBytes::new(py, dir));
        Ok(Some(ChangeBatch {
            dirs: PyList::new(py, dirs)?.unbind(),
            rows: PyList::new(py, rows)?.unbind(),
        }))
    }
}
