//! What a store key may look like. Keys become file names and URLs, so one rule holds for every
//! store: a key that any of them would refuse is refused by all.

use crate::error::{Error, Result};

/// The longest key, in bytes.
pub const MAX_KEY_BYTES: usize = 1024;
/// The longest part of a key: what a file system takes as one name.
pub const MAX_PART_BYTES: usize = 255;
/// First part of no key: the POSIX store keeps unfinished files there.
pub const RESERVED: &str = "tmp";

/// Whether `key` is parts of letters, digits, '.', '_' and '-', joined by '/', none empty, none
/// beginning with '.', the first not [`RESERVED`].
pub fn is_valid(key: &str) -> bool {
    key.len() <= MAX_KEY_BYTES
        && key.split('/').all(is_valid_part)
        && key.split('/').next() != Some(RESERVED)
}

fn is_valid_part(part: &str) -> bool {
    (1..=MAX_PART_BYTES).contains(&part.len())
        && !part.starts_with('.')
        && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

/// `Invalid` unless [`is_valid`].
pub fn check(key: &str) -> Result<()> {
    if is_valid(key) {
        return Ok(());
    }
    let shown: String = key.chars().take(80).collect();
    Err(Error::Invalid(format!("{shown:?} can't be the key of an object")))
}

/// The folder that a list prefix names, without its final '/'; `""` is everything.
pub fn check_prefix(prefix: &str) -> Result<&str> {
    match prefix.strip_suffix('/') {
        Some(folder) => check(folder).map(|()| folder),
        None if prefix.is_empty() => Ok(prefix),
        None => Err(Error::Invalid(format!("{prefix:?} is not a prefix: it must end with '/'"))),
    }
}

/// The folder that holds `key`; `""` for the top.
pub fn parent(key: &str) -> &str {
    key.rsplit_once('/').map_or("", |(folder, _)| folder)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn keys_that_leave_the_pool_or_hide_in_it_are_refused() {
        for key in [
            "", "/", "/a", "a/", "a//b", ".", "..", "a/../b", "a/.", ".a", "a/.b", "a b", "a\0",
            "ä", "a\\b", "tmp", "tmp/x",
        ] {
            assert!(check(key).is_err(), "{key:?} passed");
        }
        assert!(check(&"a".repeat(MAX_PART_BYTES + 1)).is_err());
        assert!(check(&"a/".repeat(MAX_KEY_BYTES)).is_err());
        for key in ["pool", "packs/ab/abcd", "keys/a-b_c.json", "x/tmp", "tmpx", "a..b"] {
            assert!(check(key).is_ok(), "{key:?} refused");
        }
    }

    #[test]
    fn a_prefix_ends_with_a_slash() {
        assert_eq!(check_prefix("packs/").unwrap(), "packs");
        assert_eq!(check_prefix("").unwrap(), "");
        for prefix in ["packs", "/", "../", "a//", "tmp/"] {
            assert!(check_prefix(prefix).is_err(), "{prefix:?} passed");
        }
    }
}
