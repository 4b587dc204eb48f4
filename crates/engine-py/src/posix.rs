//! The engine's own store on a directory, as a `holdfast.engine.Store`: so that one contract
//! suite runs on it and on the stores that are written in Python.

use std::path::PathBuf;

use holdfast_engine_core::error::{Error, Result};
use holdfast_engine_core::store::Store;
use holdfast_engine_core::store::posix::PosixStore as CoreStore;
use pyo3::exceptions::{PyFileNotFoundError, PyOSError, PyPermissionError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyIterator, PyList};

use crate::errors::{OrRaise, to_python};

const EBADMSG: i32 = 74;
const ENOSPC: i32 = 28;
const EIO: i32 = 5;
const PAGE: usize = 1000;

/// Objects as files of a directory, which is made where it is missing.
#[pyclass(frozen)]
pub struct PosixStore(CoreStore);

/// Errors as the protocol has them.
fn raised<T>(result: Result<T>) -> PyResult<T> {
    result.map_err(|error| {
        let text = error.to_string();
        match error {
            Error::ObjectMissing { .. } => PyFileNotFoundError::new_err(text),
            Error::NoPermission { .. } => PyPermissionError::new_err(text),
            Error::NoSpace { .. } => PyOSError::new_err((ENOSPC, text)),
            Error::Integrity { .. } => PyOSError::new_err((EBADMSG, text)),
            Error::Io { source, .. } => {
                PyOSError::new_err((source.raw_os_error().unwrap_or(EIO), text))
            }
            Error::Invalid(_) => PyValueError::new_err(text),
            other => to_python(&other),
        }
    })
}

#[pymethods]
impl PosixStore {
    #[new]
    fn new(py: Python<'_>, path: PathBuf) -> PyResult<Self> {
        py.detach(|| CoreStore::create(&path)).or_raise().map(PosixStore)
    }

    #[getter]
    fn place(&self) -> String {
        self.0.place()
    }

    fn __str__(&self) -> String {
        self.0.place()
    }

    fn get<'py>(&self, py: Python<'py>, key: &str) -> PyResult<Bound<'py, PyBytes>> {
        raised(py.detach(|| self.0.get(key))).map(|bytes| PyBytes::new(py, &bytes))
    }

    fn get_range<'py>(
        &self,
        py: Python<'py>,
        key: &str,
        offset: u64,
        length: usize,
    ) -> PyResult<Bound<'py, PyBytes>> {
        raised(py.detach(|| self.0.get_range(key, offset, length)))
            .map(|bytes| PyBytes::new(py, &bytes))
    }

    fn put(&self, py: Python<'_>, key: &str, data: &[u8]) -> PyResult<()> {
        raised(py.detach(|| self.0.put(key, data)))
    }

    fn put_if_absent(&self, py: Python<'_>, key: &str, data: &[u8]) -> PyResult<bool> {
        raised(py.detach(|| self.0.put_if_absent(key, data)))
    }

    fn size(&self, py: Python<'_>, key: &str) -> PyResult<Option<u64>> {
        raised(py.detach(|| self.0.size(key)))
    }

    /// Pages of a thousand.
    fn list<'py>(&self, py: Python<'py>, prefix: &str) -> PyResult<Bound<'py, PyIterator>> {
        let mut found = Vec::new();
        raised(py.detach(|| {
            self.0.list(prefix, &mut |key, size| {
                found.push((key.to_owned(), size));
                Ok(())
            })
        }))?;
        PyList::new(py, found.chunks(PAGE).map(<[_]>::to_vec))?.try_iter()
    }

    fn delete(&self, py: Python<'_>, key: &str) -> PyResult<()> {
        raised(py.detach(|| self.0.delete(key)))
    }
}
