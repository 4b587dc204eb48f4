//! Wrapping keys, as Python asks for it.

use holdfast_engine_core::error::{Error, Result};
use holdfast_engine_core::key_slot::{Derivation, Wrap};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::PyBytes;

use crate::errors::OrRaise;

/// How a secret becomes a key: Argon2id's memory in KiB, passes and lanes, or HKDF's info.
#[derive(FromPyObject)]
pub enum How {
    Cost((u32, u32, u32)),
    Info(PyBackedBytes),
}

impl How {
    fn derivation(&self) -> Derivation<'_> {
        match self {
            &How::Cost((memory_kib, passes, lanes)) => {
                Derivation::Argon2id { memory_kib, passes, lanes }
            }
            How::Info(info) => Derivation::Hkdf { info },
        }
    }
}

fn exact<'a, const N: usize>(what: &str, bytes: &'a [u8]) -> Result<&'a [u8; N]> {
    bytes
        .try_into()
        .map_err(|_| Error::Invalid(format!("{what} has {N} bytes, this one {}", bytes.len())))
}

#[pyfunction]
#[pyo3(signature = (key, secret, *, how, salt, nonce, bound_to))]
pub fn wrap_key<'py>(
    py: Python<'py>,
    key: &[u8],
    secret: &[u8],
    how: How,
    salt: &[u8],
    nonce: &[u8],
    bound_to: &[u8],
) -> PyResult<Bound<'py, PyBytes>> {
    let nonce = exact("a nonce", nonce).or_raise()?;
    let key = exact("a key", key).or_raise()?;
    let wrap = Wrap { derivation: how.derivation(), secret, salt, nonce, bound_to };
    let wrapped = py.detach(|| wrap.seal(key)).or_raise()?;
    Ok(PyBytes::new(py, &wrapped))
}

#[pyfunction]
#[pyo3(signature = (wrapped, secret, *, how, salt, nonce, bound_to))]
pub fn unwrap_key<'py>(
    py: Python<'py>,
    wrapped: &[u8],
    secret: &[u8],
    how: How,
    salt: &[u8],
    nonce: &[u8],
    bound_to: &[u8],
) -> PyResult<Option<Bound<'py, PyBytes>>> {
    let nonce = exact("a nonce", nonce).or_raise()?;
    let wrapped = exact("a wrapped key", wrapped).or_raise()?;
    let wrap = Wrap { derivation: how.derivation(), secret, salt, nonce, bound_to };
    let opened = py.detach(|| wrap.open(wrapped)).or_raise()?;
    Ok(opened.map(|key| PyBytes::new(py, &key[..])))
}
