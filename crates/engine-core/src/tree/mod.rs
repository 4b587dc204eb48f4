//! Trees: what an image says about each file and directory. See `docs/formats/tree.md`.

pub mod entry;
