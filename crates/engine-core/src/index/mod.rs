//! Where chunks lie: immutable sorted segments, each with a filter in front, memory-mapped.
//! See `docs/formats/index.md`.
//!
//! The index is derived: [`crate::rebuild`] makes it again from the packs' footers. It holds the
//! first 16 bytes of each name; who reads a chunk compares the whole name with the footer.

pub mod filter;
pub mod merge;
pub mod open;
pub mod search;
pub mod segment;
pub mod set;
pub mod write;

pub use segment::{PackEntry, Place, Record, Segment};
pub use set::{Found, Index, Snapshot};
pub use write::{records_of, write_segment, write_segment_as};

#[cfg(test)]
mod tests;
