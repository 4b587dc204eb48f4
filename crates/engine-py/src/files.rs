//! Files of an image as something else than a restore: read at any place, or mounted.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use holdfast_engine_core::disk::nbd::serve::{self, Agreed};
use holdfast_engine_core::error::{Error, Result};
use holdfast_engine_core::mount::Mount as CoreMount;
use holdfast_engine_core::mount::inside::{InsideFiles, Xattrs};
use holdfast_engine_core::reader::FileReader as CoreReader;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::disks::own;
use crate::errors::{OrRaise, to_python};
use crate::types::Finding;

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

    /// Where data is: offsets and lengths, in order. What is not told is a hole.
    fn data_extents(&self, offset: u64, length: u64) -> Vec<(u64, u64)> {
        let found = self.0.data_extents(offset, length);
        found.iter().map(|extent| (extent.offset, extent.length)).collect()
    }

    /// Answers a client of an NBD server over a connected socket that is past negotiation, until
    /// it leaves. `troubled` is told of what could not be read, from any thread.
    #[pyo3(signature = (fd, begun, *, structured, allocation, troubled))]
    fn serve_nbd(
        &self,
        py: Python<'_>,
        fd: i32,
        begun: Vec<u8>,
        structured: bool,
        allocation: bool,
        troubled: Py<PyAny>,
    ) -> PyResult<()> {
        let socket = own(&[fd])?.pop();
        let socket = socket.ok_or_else(|| to_python(&Error::Invalid("no socket".into())))?;
        let agreed = Agreed { is_structured: structured, tells_allocation: allocation };
        let tell = |error: &Error| {
            Python::attach(|py| {
                // Who is told has no say in whether the client is answered.
                let told = troubled.call1(py, (to_python(error).into_value(py),));
                if let Err(error) = told {
                    error.write_unraisable(py, None);
                }
            });
        };
        py.detach(|| serve::serve(socket, begun, &self.0, agreed, &tell)).or_raise()
    }
}

/// Who reads what lies inside of an image's disks: a Python object. Its methods are called from
/// the threads of a mount, several at a time.
pub struct PythonInside(pub Py<PyAny>);

impl PythonInside {
    fn call<T>(
        &self,
        path: &[u8],
        call: impl FnOnce(&Bound<'_, PyAny>) -> PyResult<T>,
    ) -> Result<T> {
        Python::attach(|py| call(self.0.bind(py))).map_err(|error| {
            let what = format!("reading '{}'", path.escape_ascii());
            Error::io(what, io::Error::other(Python::attach(|py| error.value(py).to_string())))
        })
    }
}

impl InsideFiles for PythonInside {
    fn read(
        &self,
        path: &[u8],
        inode: u64,
        size: u64,
        offset: u64,
        length: usize,
    ) -> Result<Vec<u8>> {
        self.call(path, |files| {
            let path = PyBytes::new(files.py(), path);
            let found = files.call_method1("read", (path, inode, size, offset, length))?;
            Ok(found.cast::<PyBytes>()?.as_bytes().to_vec())
        })
    }

    fn xattrs(&self, path: &[u8], inode: u64) -> Result<Xattrs> {
        self.call(path, |files| {
            let path = PyBytes::new(files.py(), path);
            files.call_method1("xattrs", (path, inode))?.extract()
        })
    }
}

/// A mounted image. It is unmounted when this goes.
#[pyclass(frozen)]
pub struct Mount(CoreMount);

impl Mount {
    pub fn new(mount: CoreMount) -> Self {
        Mount(mount)
    }
}

#[pymethods]
impl Mount {
    fn unmount(&self, py: Python<'_>) -> PyResult<()> {
        py.detach(|| self.0.unmount()).or_raise()
    }

    /// True once it is unmounted, by whomever. Raises what a signal handler raises.
    fn wait(&self, py: Python<'_>, timeout_s: f64) -> PyResult<bool> {
        let timeout = Duration::try_from_secs_f64(timeout_s).unwrap_or(Duration::ZERO);
        let deadline = Instant::now() + timeout.min(Duration::from_secs(1 << 30));
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if py.detach(|| self.0.wait(left.min(Duration::from_millis(50)))) {
                return Ok(true);
            }
            py.check_signals()?;
            if left.is_zero() {
                return Ok(false);
            }
        }
    }

    /// What could not be read so far.
    fn findings(&self) -> Vec<Finding> {
        self.0.findings().into_iter().map(Finding::from).collect()
    }
}
