//! An image whose directories Python tells one by one.

use holdfast_engine_core::backup::written::{Row, TreeWriter as CoreWriter};
use holdfast_engine_core::error::Error;
use holdfast_engine_core::tree::entry::EntryKind;
use pyo3::prelude::*;

use crate::errors::{OrRaise, to_python};
use crate::types::Image;

/// Name, kind, mode, uid, gid, size, mtime_ns, ctime_ns, inode, target.
type Tuple = (Vec<u8>, u8, u32, u32, u32, u64, i64, i64, u64, Option<Vec<u8>>);

/// Takes the directories of an image. May be used from several threads.
#[pyclass(frozen)]
pub struct TreeWriter(CoreWriter);

impl TreeWriter {
    pub fn new(writer: CoreWriter) -> Self {
        TreeWriter(writer)
    }
}

fn row(tuple: Tuple) -> PyResult<Row> {
    let (name, kind, mode, uid, gid, size, mtime_ns, ctime_ns, inode, target) = tuple;
    let kind = EntryKind::from_u8(kind)
        .ok_or_else(|| to_python(&Error::Invalid(format!("{kind} is no kind of a name"))))?;
    Ok(Row { name, kind, mode, uid, gid, size, mtime_ns, ctime_ns, inode, target })
}

#[pymethods]
impl TreeWriter {
    fn add_dir(&self, py: Python<'_>, path: Vec<u8>, entries: Vec<Tuple>) -> PyResult<()> {
        let rows = entries.into_iter().map(row).collect::<PyResult<_>>()?;
        py.detach(|| self.0.add_dir(&path, rows)).or_raise()
    }

    fn finish(&self, py: Python<'_>) -> PyResult<Image> {
        py.detach(|| self.0.finish()).or_raise().map(Image)
    }

    fn abandon(&self, py: Python<'_>) {
        py.detach(|| self.0.abandon());
    }
}

impl Drop for TreeWriter {
    /// Its thread may want the interpreter, for a store that is made of Python.
    fn drop(&mut self) {
        Python::attach(|py| py.detach(|| self.0.abandon()));
    }
}
