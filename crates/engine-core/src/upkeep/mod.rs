//! Keeping the index in order: few segments, none missing. Deletes no pack and no image.

mod footers;
pub mod merge;
pub mod orphans;
pub mod rebuild;

#[cfg(test)]
mod tests;
