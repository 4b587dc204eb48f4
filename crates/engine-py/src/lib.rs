//! Python face of the data engine: conversions, release of the interpreter lock, one error table.
//! No logic of its own. The Python side's types are in `src/holdfast/engine/_engine.pyi`.

mod changes;
mod client_key;
mod disks;
mod errors;
mod far;
mod files;
mod key_slot;
mod pool;
mod posix;
mod run;
mod store;
mod trigrams;
mod types;
mod whole;
mod written;

use holdfast_engine_core::error::Error;
use pyo3::prelude::*;

/// Every code that an engine error can carry.
#[pyfunction]
fn error_codes() -> Vec<&'static str> {
    Error::CODES.to_vec()
}

#[pyfunction]
fn engine_version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}

/// For a process that ends with its work.
#[pyfunction]
fn keep_freed_memory() {
    holdfast_engine_core::memory::keep_freed();
}

#[pymodule]
mod _engine {
    #[pymodule_export]
    use super::changes::{ChangeBatch, Changes};
    #[pymodule_export]
    use super::client_key::{ClientKey, client_key_of};
    #[pymodule_export]
    use super::disks::{DiskInput, DiskMap, DiskSink, DiskSource};
    #[pymodule_export]
    use super::far::{Receiver, RemotePool};
    #[pymodule_export]
    use super::files::{FileReader, Mount};
    #[pymodule_export]
    use super::key_slot::{unwrap_key, wrap_key};
    #[pymodule_export]
    use super::pool::Pool;
    #[pymodule_export]
    use super::posix::PosixStore;
    #[pymodule_export]
    use super::run::Run;
    #[pymodule_export]
    use super::trigrams::{TrigramSegment, Trigrams};
    #[pymodule_export]
    use super::types::{
        Counters, Entry, Finding, GarbageResult, Image, PoolConfig, PoolStats, RestoreResult,
        StageCounters, VerifyResult,
    };
    #[pymodule_export]
    use super::whole::WholeTree;
    #[pymodule_export]
    use super::written::TreeWriter;
    #[pymodule_export]
    use super::{engine_version, error_codes, keep_freed_memory};
}
