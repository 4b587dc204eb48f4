//! What tests of this crate and of others share. Never part of the product.

// A test has nobody to report to: it stops where the ground is not as it needs it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::missing_panics_doc)]

pub mod compare;
pub mod deep;
pub mod images;
pub mod parsers;
pub mod user;
pub mod zoo;
