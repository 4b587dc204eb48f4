//! Virtual disks: what they are read by, which of their ranges, and what they are written by.

use std::fs::File;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use holdfast_engine_core::backup::machine::{DiskInput as CoreInput, Range, What};
use holdfast_engine_core::disk::laid_out::Format;
use holdfast_engine_core::disk::map::{DiskMap as CoreMap, Layer, MappedSource, Part};
use holdfast_engine_core::disk::nbd::{Abilities, NbdSink, NbdSource};
use holdfast_engine_core::disk::{
    DiskSink as CoreSink, DiskSource as CoreSource, FileSink, FileSource, LaidOutSink,
};
use holdfast_engine_core::error::Error;
use holdfast_engine_core::restore::disk::{Progress, Request};
use holdfast_engine_core::tree::entry::Extent;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::errors::{OrRaise, to_python};

/// The engine's own of each of these descriptors.
pub fn own(fds: &[i32]) -> PyResult<Vec<OwnedFd>> {
    let one = |fd: &i32| {
        if *fd < 0 {
            let text = format!("{fd} is no file descriptor");
            return Err(to_python(&Error::Invalid(text)));
        }
        // SAFETY: the descriptor is open while the caller, who has it, waits for this call.
        let fd = unsafe { BorrowedFd::borrow_raw(*fd) };
        Ok(fd.try_clone_to_owned()?)
    };
    fds.iter().map(one).collect()
}

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

    /// A disk that an NBD server has, over connected sockets.
    #[staticmethod]
    #[pyo3(signature = (fds, *, size, structured, grain=None))]
    fn nbd(fds: Vec<i32>, size: u64, structured: bool, grain: Option<u64>) -> PyResult<Self> {
        let mut source = NbdSource::new(own(&fds)?, size, structured).or_raise()?;
        if let Some(grain) = grain {
            source = source.in_grains(grain).or_raise()?;
        }
        Ok(DiskSource(Arc::new(source)))
    }

    /// A disk by its map: `rest` is asked for what lies in no file as it is.
    #[staticmethod]
    fn mapped(map: &Bound<'_, DiskMap>, rest: &Bound<'_, DiskSource>) -> PyResult<Self> {
        let rest = Arc::clone(&rest.get().0);
        let source = MappedSource::new(Arc::clone(&map.get().0), rest).or_raise()?;
        Ok(DiskSource(Arc::new(source)))
    }

    /// Lets go of what it is read by.
    fn close(&self, py: Python<'_>) {
        py.detach(|| self.0.close());
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

/// A layer as Python has it: its parts, each the number of a file or none and how much of the disk
/// it covers, and its slack.
type PyLayer = (Vec<(Option<usize>, u64)>, Option<u64>);

/// Where the ranges of a disk lie in files.
#[pyclass(frozen)]
pub struct DiskMap(Arc<CoreMap>);

#[pymethods]
impl DiskMap {
    /// What `qemu-img map --output=json` says, from a descriptor, to its end.
    #[staticmethod]
    #[pyo3(signature = (fd, *, size, files, layers))]
    fn read(
        py: Python<'_>,
        fd: i32,
        size: u64,
        files: Vec<PathBuf>,
        layers: Vec<PyLayer>,
    ) -> PyResult<Self> {
        let said = own(&[fd])?.into_iter().map(File::from).next();
        let said = said.ok_or_else(|| to_python(&Error::Invalid("no file descriptor".into())))?;
        let part = |(file, covers)| Part { file, covers };
        let layer =
            |(parts, slack): PyLayer| Layer { parts: parts.into_iter().map(part).collect(), slack };
        let layers: Vec<_> = layers.into_iter().map(layer).collect();
        let map = py.detach(|| CoreMap::read(said, size, &files, &layers)).or_raise()?;
        Ok(DiskMap(Arc::new(map)))
    }

    #[getter]
    fn size(&self) -> u64 {
        self.0.size()
    }

    /// The path of a file that is too short, its size and what that had to be at least.
    #[getter]
    fn truncated(&self) -> Option<(PathBuf, u64, u64)> {
        self.0.truncated().map(|found| (found.path.clone(), found.size, found.needed))
    }

    /// Bytes that are read in files.
    fn direct_bytes(&self, py: Python<'_>) -> u64 {
        py.detach(|| self.0.direct_bytes())
    }

    /// What a backup has to read, as `DiskInput` takes it, in at most so many ranges.
    fn ranges(&self, py: Python<'_>, most: usize) -> Vec<(u64, u64, u8)> {
        let kind = |is_zero| if is_zero { What::Hole } else { What::Data } as u8;
        let found = py.detach(|| self.0.stretches(most));
        found.into_iter().map(|one| (one.offset, one.length, kind(one.is_zero))).collect()
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

/// What a disk is written by, and how far that is.
#[pyclass(frozen)]
pub struct DiskSink(pub Arc<dyn CoreSink>, Progress);

impl DiskSink {
    /// What is to be written by it.
    pub fn request(&self, path: Vec<u8>, verify: bool, workers: usize) -> Request {
        Request { path, verify, workers, progress: self.1.clone() }
    }
}

fn progress(begin: u64, keep_bytes: u64) -> Progress {
    let progress = Progress { begin, keep_bytes, ..Progress::default() };
    progress.kept_until.store(begin, Ordering::Release);
    progress
}

#[pymethods]
impl DiskSink {
    /// A new sparse file, or a block device.
    #[staticmethod]
    fn file(py: Python<'_>, path: PathBuf, size: u64) -> PyResult<Self> {
        let opened = py.detach(|| FileSink::open(&path, size)).or_raise()?;
        Ok(DiskSink(Arc::new(opened), Progress::default()))
    }

    /// A file that a restore makes, or goes on with: raw, or of a format that is laid out.
    #[staticmethod]
    #[pyo3(signature = (path, image_format, *, size, begin=0, keep_bytes=0))]
    fn image(
        py: Python<'_>,
        path: PathBuf,
        image_format: &str,
        size: u64,
        begin: u64,
        keep_bytes: u64,
    ) -> PyResult<Self> {
        let open = || -> Result<Arc<dyn CoreSink>, Error> {
            if image_format == "raw" {
                return Ok(Arc::new(FileSink::again(&path, size)?));
            }
            let unknown =
                || Error::Invalid(format!("the engine writes no disk as '{image_format}'"));
            let format = Format::named(image_format).ok_or_else(unknown)?;
            Ok(Arc::new(LaidOutSink::open(&path, format, size)?))
        };
        let sink = py.detach(open).or_raise()?;
        Ok(DiskSink(sink, progress(begin, keep_bytes)))
    }

    /// A disk that an NBD server has, over connected sockets.
    #[staticmethod]
    #[pyo3(signature = (fds, *, size, structured, can_zero, fresh, can_flush=true, one_flush=false,
                        stale=Vec::new(), begin=0, keep_bytes=0))]
    #[allow(clippy::too_many_arguments)]
    fn nbd(
        fds: Vec<i32>,
        size: u64,
        structured: bool,
        can_zero: bool,
        fresh: bool,
        can_flush: bool,
        one_flush: bool,
        stale: Vec<(u64, u64)>,
        begin: u64,
        keep_bytes: u64,
    ) -> PyResult<Self> {
        let mut stale: Vec<_> =
            stale.into_iter().map(|(offset, length)| Extent { offset, length }).collect();
        if !fresh {
            stale = vec![Extent { offset: 0, length: size }];
        }
        let abilities =
            Abilities { is_structured: structured, can_zero, can_flush, one_flush, stale };
        let sink = NbdSink::new(own(&fds)?, size, abilities).or_raise()?;
        Ok(DiskSink(Arc::new(sink), progress(begin, keep_bytes)))
    }

    /// All before this outlasts a loss of power.
    #[getter]
    fn kept_until(&self) -> u64 {
        self.1.kept_until.load(Ordering::Acquire)
    }

    /// Lets go of what it is written by.
    fn close(&self, py: Python<'_>) {
        py.detach(|| self.0.close());
    }

    #[getter]
    fn size(&self) -> u64 {
        self.0.size()
    }
}
