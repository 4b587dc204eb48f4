//! A pool's store as Python names it: a directory, or an object with the methods of
//! `holdfast.engine.Store`.

use std::path::PathBuf;
use std::sync::Arc;

use holdfast_engine_core::error::{Error, Result};
use holdfast_engine_core::store::posix::PosixStore;
use holdfast_engine_core::store::{BufferedUpload, Store, Upload};
use pyo3::exceptions::{PyFileNotFoundError, PyOSError, PyPermissionError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::errors::OrRaise;

/// `EBADMSG` of Linux: what file systems say of data that is not what was written.
const BAD_MESSAGE: i32 = 74;

/// The store that a specification means. With `create`, a directory is made where it is missing.
pub fn open(specification: &Bound<'_, PyAny>, create: bool) -> PyResult<Arc<dyn Store>> {
    if let Ok(path) = specification.extract::<PathBuf>() {
        let opened = specification
            .py()
            .detach(|| if create { PosixStore::create(&path) } else { PosixStore::open(&path) });
        return Ok(Arc::new(opened.or_raise()?));
    }
    let place = specification.str()?.to_string();
    Ok(Arc::new(PythonStore { object: specification.clone().unbind(), place }))
}

/// A store whose work a Python object does. Its methods are called from the engine's threads,
/// several at a time.
struct PythonStore {
    object: Py<PyAny>,
    place: String,
}

impl PythonStore {
    fn call<T>(
        &self,
        doing: &str,
        key: &str,
        call: impl FnOnce(&Bound<'_, PyAny>) -> PyResult<T>,
    ) -> Result<T> {
        Python::attach(|py| {
            call(self.object.bind(py)).map_err(|error| translate(py, &error, doing, key))
        })
    }
}

fn translate(py: Python<'_>, error: &PyErr, doing: &str, key: &str) -> Error {
    if error.is_instance_of::<PyFileNotFoundError>(py) {
        return Error::ObjectMissing { key: key.to_owned() };
    }
    let what = format!("{doing} '{key}'");
    let text = error.value(py).to_string();
    if error.is_instance_of::<PyPermissionError>(py) {
        return Error::NoPermission { what: format!("{what}: {text}") };
    }
    let number: Option<i32> = error
        .is_instance_of::<PyOSError>(py)
        .then(|| error.value(py).getattr("errno").ok()?.extract().ok())
        .flatten();
    if number == Some(BAD_MESSAGE) {
        return Error::integrity(format!("object '{key}'"), text);
    }
    match number.map(std::io::Error::from_raw_os_error) {
        Some(source) if source.kind() == std::io::ErrorKind::StorageFull => Error::io(what, source),
        _ => Error::io(what, std::io::Error::other(text)),
    }
}

impl Store for PythonStore {
    fn place(&self) -> String {
        self.place.clone()
    }

    fn get(&self, key: &str) -> Result<Vec<u8>> {
        self.call("reading", key, |store| bytes_of(&store.call_method1("get", (key,))?))
    }

    fn get_range(&self, key: &str, offset: u64, length: usize) -> Result<Vec<u8>> {
        let bytes = self.call("reading", key, |store| {
            bytes_of(&store.call_method1("get_range", (key, offset, length))?)
        })?;
        if bytes.len() == length {
            Ok(bytes)
        } else {
            Err(Error::integrity(
                format!("object '{key}'"),
                format!("{length} bytes wanted at {offset}, {} read", bytes.len()),
            ))
        }
    }

    fn put(&self, key: &str, data: &[u8]) -> Result<()> {
        self.call("writing", key, |store| {
            store.call_method1("put", (key, PyBytes::new(store.py(), data))).map(drop)
        })
    }

    fn put_if_absent(&self, key: &str, data: &[u8]) -> Result<bool> {
        self.call("writing", key, |store| {
            store.call_method1("put_if_absent", (key, PyBytes::new(store.py(), data)))?.extract()
        })
    }

    fn size(&self, key: &str) -> Result<Option<u64>> {
        self.call("asking for", key, |store| store.call_method1("size", (key,))?.extract())
    }

    fn list(&self, prefix: &str, visit: &mut dyn FnMut(&str, u64) -> Result<()>) -> Result<()> {
        let pages = self.call("listing", prefix, |store| {
            Ok(store.call_method1("list", (prefix,))?.try_iter()?.unbind())
        })?;
        loop {
            let page: Option<Vec<(String, u64)>> = self.call("listing", prefix, |store| {
                pages
                    .clone_ref(store.py())
                    .into_bound(store.py())
                    .next()
                    .map_or(Ok(None), |page| page?.extract().map(Some))
            })?;
            let Some(page) = page else { return Ok(()) };
            for (key, size) in &page {
                visit(key, *size)?;
            }
        }
    }

    fn delete(&self, key: &str) -> Result<()> {
        let deleted =
            self.call("deleting", key, |store| store.call_method1("delete", (key,)).map(drop));
        match deleted {
            Err(Error::ObjectMissing { .. }) => Ok(()),
            other => other,
        }
    }

    fn upload(&self) -> Result<Box<dyn Upload + '_>> {
        Ok(Box::new(BufferedUpload::new(self)))
    }
}

/// A copy of what supports the buffer protocol as bytes do.
fn bytes_of(value: &Bound<'_, PyAny>) -> PyResult<Vec<u8>> {
    match value.cast::<PyBytes>() {
        Ok(bytes) => Ok(bytes.as_bytes().to_vec()),
        Err(_) => Ok(value.call_method0("__bytes__")?.extract::<Vec<u8>>()?),
    }
}
