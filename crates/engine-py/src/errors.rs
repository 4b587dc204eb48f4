//! Engine errors as Python exceptions. The classes are `holdfast.base.errors`, found by code, so
//! that there is one table and it is tested in one place.

use holdfast_engine_core::error::{Error, Result};
use pyo3::prelude::*;

/// The exception for an engine error, not yet raised.
pub fn to_python(error: &Error) -> PyErr {
    Python::attach(|py| {
        if let Error::Link { cause, .. } = error
            && let Some(raised) = cause.downcast_ref::<PyErr>()
        {
            return raised.clone_ref(py);
        }
        let made = py
            .import("holdfast.base.errors")
            .and_then(|errors| errors.getattr("from_code"))
            .and_then(|from_code| from_code.call1((error.code(), error.to_string())));
        match made {
            Ok(exception) => PyErr::from_value(exception),
            Err(failure) => failure,
        }
    })
}

/// `?` for engine results in functions that Python calls.
pub trait OrRaise<T> {
    fn or_raise(self) -> PyResult<T>;
}

impl<T> OrRaise<T> for Result<T> {
    fn or_raise(self) -> PyResult<T> {
        self.map_err(|error| to_python(&error))
    }
}
