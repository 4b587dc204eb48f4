//! What tests of this crate and of others share. Never part of the product.

pub mod compare;
