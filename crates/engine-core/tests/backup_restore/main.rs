//! Real trees into a pool and back: every kind of file, every change, and trees that do not hold
//! still.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../kit/mod.rs"]
mod kit;

mod changes;
mod lost_share;
mod moving;
mod random;
mod roots;
mod site;
mod whole;
