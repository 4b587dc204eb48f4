//! What lies on the disk: directories opened by descriptor, their names, every attribute of
//! each file, its holes, and the rules that leave files out.
//!
//! It never writes, never follows a symbolic link, never decides what a backup keeps, and never
//! ends a job: whatever goes wrong with one file is an `io::Error` that [`explain`] puts in
//! words. Paths may be longer than PATH_MAX, since every call names one component below an open
//! directory.

pub mod attrs;
pub mod filesystem;
pub mod handle;
pub mod list;
pub mod names;
pub mod open;
pub mod problem;
pub mod rules;
pub mod sparse;
pub mod xattr;

pub use problem::{Problem, explain};
