//! Virtual disks: what they are read by, and which of their ranges.

use std::path::PathBuf;
use std::sync::Arc;

use holdfast_engine_core::backup::machine::{DiskInput as CoreInput, Range, What};
use holdfast_engine_core::disk::{DiskSource as CoreSource, FileSource};
use holdfast_engine_core::error::Error;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::errors::{OrRaise, to_python};

/// What a disk is read by. May be used from several threads.
#[pyclass(frozen)]
pub struct DiskSource(Arc<dyn CoreSource>);

#[pymethods]
impl DiskSource {
    /// A raw file or a block device.
    #[staticmethod]
    fn file(py: Python<'_>, path: PathBuf) -> PyResult<Self> {
        let opened = py.detach(|| FileSource::open(&path)).or_raise()?;
        Ok(DiskSource(Arc::new(opened)))
    }

    #[getter]
    fn size(&self) -> u64 {
        self.0.size()
    }

    /// The bytes from `offset` on: `length` of them, fewer only at the end of the disk.
    fn read_at<'py>(
        &self,
        py: Python<'py>,
        offset: u64,
        length: usize,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let bytes = py.detach(|| self.0.read_at(offset, length, &|| Ok(()))).or_raise()?;
        Ok(PyBytes::new(py, &bytes))
    }
}

/// A disk that is to be backed up.
#[pyclass(frozen)]
pub struct DiskInput(pub CoreInput);

#[pymethods]
impl DiskInput {
    #[new]
    fn new(
        name: String,
        size: u64,
        ranges: Vec<(u64, u64, u8)>,
        source: &Bound<'_, DiskSource>,
        mtime_ns: i64,
    ) -> PyResult<Self> {
        let ranges = ranges.into_iter().map(|(offset, length, kind)| {
            let what = What::from_u8(kind).ok_or_else(|| {
                to_python(&Error::Invalid(format!("{kind} is no kind of range of a disk")))
            })?;
            Ok(Range { offset, length, what })
        });
        let ranges = ranges.collect::<PyResult<_>>()?;
        let source = Arc::clone(&source.get().0);
        Ok(DiskInput(CoreInput { name, size, ranges, source, mtime_ns }))
    }

    #[getter]
    fn name(&self) -> &str {
        &self.0.name
    }

    #[getter]
    fn size(&self) -> u64 {
        self.0.size
    }
}
