//! Bringing files back.

pub mod target;
