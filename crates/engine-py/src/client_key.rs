//! Client keys, as Python holds them.

use std::sync::Arc;

use holdfast_engine_core::client_key::{ClientKey as CoreKey, Names, Sealing};
use holdfast_engine_core::error::Error;
use holdfast_engine_core::manifest::Manifest;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::errors::{OrRaise, to_python};

/// A key that the pool never sees. Prints nothing of itself but its id.
#[pyclass(frozen)]
pub struct ClientKey(pub Arc<CoreKey>);

#[pymethods]
impl ClientKey {
    #[new]
    fn new(secret: &[u8]) -> PyResult<Self> {
        let secret: &[u8; 32] = secret.try_into().map_err(|_| {
            let length = secret.len();
            to_python(&Error::Invalid(format!("a client key has 32 bytes, this one {length}")))
        })?;
        Ok(ClientKey(Arc::new(CoreKey::derive(secret))))
    }

    #[getter]
    fn id(&self) -> String {
        self.0.id().to_string()
    }

    fn seal_path<'py>(&self, py: Python<'py>, path: &[u8]) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.seal_path(path))
    }

    fn open_path<'py>(&self, py: Python<'py>, path: &[u8]) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.open_path(path))
    }

    fn __repr__(&self) -> String {
        format!("ClientKey({})", self.0.id())
    }
}

impl ClientKey {
    pub fn sealing(&self, sealed_names: bool) -> Sealing {
        let names = if sealed_names { Names::Sealed } else { Names::Open };
        Sealing { key: Arc::clone(&self.0), names }
    }
}

/// The id of the client key that an image with this manifest is sealed with.
#[pyfunction]
pub fn client_key_of(manifest: &[u8]) -> PyResult<Option<String>> {
    let image = Manifest::decode(manifest).or_raise()?;
    Ok(image.client_key().map(str::to_owned))
}
