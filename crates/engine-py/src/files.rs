//! Random access to a file of an image.

use std::sync::Arc;

use holdfast_engine_core::reader::FileReader as CoreReader;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::errors::OrRaise;

/// The bytes of a stored file, at any place. May be used from several threads.
#[pyclass(frozen)]
pub struct FileReader(Arc<CoreReader>);

impl FileReader {
    pub fn new(reader: CoreReader) -> Self {
        FileReader(Arc::new(reader))
    }
}

#[pymethods]
impl FileReader {
    #[getter]
    fn size(&self) -> u64 {
        self.0.size()
    }

    /// The bytes from `offset` on: `length` of them, fewer only at the end of the file.
    fn read_at<'py>(
        &self,
        py: Python<'py>,
        offset: u64,
        length: usize,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let left = self.0.size().saturating_sub(offset);
        let length = usize::try_from(left).unwrap_or(length).min(length);
        let mut buffer = vec![0; length];
        let read = py.detach(|| self.0.read_at(offset, &mut buffer)).or_raise()?;
        Ok(PyBytes::new(py, buffer.get(..read).unwrap_or_default()))
    }
}
