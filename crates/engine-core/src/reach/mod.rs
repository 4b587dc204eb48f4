//! What images reach: which chunks they need, found by walking their trees.
//!
//! Garbage collection keeps what is reached; checks report what should be reached and is not.

pub mod beside;
pub mod live;
pub mod path;
pub mod walk;

pub use beside::vouch;
pub use live::{LiveSet, Tally};
pub use walk::{Root, Stop, Trouble, walk};

#[cfg(test)]
mod tests;
