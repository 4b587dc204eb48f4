//! The Holdfast data engine: everything that touches each byte or each file.
//!
//! It holds no policy and knows no network: a [`store::Store`] is the seam to disks and object
//! stores. Every verb runs in its own threads, reports through [`counters::Counters`], stops
//! promptly through [`cancel::Cancel`], and leaves a pool sound wherever it is stopped.

pub mod backup;
pub mod cancel;
pub mod cbor;
pub mod check;
pub mod chunker;
pub mod client_key;
pub mod codec;
pub mod counters;
pub mod disk;
pub mod error;
pub mod far;
pub mod finding;
pub mod gc;
pub mod ids;
pub mod index;
pub mod ingest;
pub mod key_slot;
pub mod keys;
pub mod manifest;
pub mod memory;
#[cfg(feature = "mount")]
pub mod mount;
pub mod pack;
pub mod pool;
pub mod reach;
pub mod reader;
pub mod repository;
pub mod restore;
pub mod scan;
pub mod sealed;
pub mod store;
pub mod tasks;
#[cfg(feature = "testing")]
pub mod testing;
pub mod tree;
pub mod trigrams;
pub mod upkeep;
pub mod whole;
mod writing;
