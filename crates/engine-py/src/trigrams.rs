//! Names for an index of trigrams, in batches as a database driver takes them.

use holdfast_engine_core::trigrams::{Segment, Trigrams as Inner};
use parking_lot::Mutex;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyString};

/// What is stored of one segment.
#[pyclass(frozen, get_all)]
pub struct TrigramSegment {
    blocks: Py<PyList>,
    terms: Py<PyList>,
    pages: u32,
}

#[pyclass(frozen)]
pub struct Trigrams(Mutex<Inner>);

#[pymethods]
impl Trigrams {
    #[new]
    fn new() -> Self {
        Trigrams(Mutex::new(Inner::default()))
    }

    fn add(
        &self,
        names: Vec<(i64, Bound<'_, PyBytes>, Option<Bound<'_, PyString>>)>,
    ) -> PyResult<()> {
        let mut inner = self.0.lock();
        for (id, name, folded) in &names {
            match folded {
                Some(folded) => inner.add(*id, &folded.to_cow()?),
                None => {
                    let lower = name.as_bytes().to_ascii_lowercase();
                    inner.add(*id, &String::from_utf8_lossy(&lower));
                }
            }
        }
        Ok(())
    }

    #[getter]
    fn is_full(&self) -> bool {
        self.0.lock().is_full()
    }

    #[getter]
    fn tokens(&self) -> u64 {
        self.0.lock().tokens()
    }

    fn segment(&self, py: Python<'_>, number: u16) -> PyResult<TrigramSegment> {
        let Segment { blocks, terms, pages } = py.detach(|| self.0.lock().segment(number));
        let blocks = blocks.iter().map(|(id, block)| (*id, PyBytes::new(py, block)));
        let terms = terms.iter().map(|(term, page)| (number, PyBytes::new(py, term), *page));
        Ok(TrigramSegment {
            blocks: PyList::new(py, blocks)?.unbind(),
            terms: PyList::new(py, terms)?.unbind(),
            pages,
        })
    }
}
