//! The identifiers that a file has within it, which no other file is to have.
//!
//! They come from what the file itself is known by, and not by chance: a restore that goes on with
//! it finds the same ones.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// What identifiers of one file are made of.
#[derive(Clone, Debug)]
pub struct Identity([u8; 32]);

impl Identity {
    /// Of the file at a path, by its inode and by when it was made (0 where nobody knows).
    pub fn of(path: &Path, inode: u64, made_ns: u128) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("holdfast disk file v1: identity");
        hasher.update(&inode.to_le_bytes());
        hasher.update(&made_ns.to_le_bytes());
        hasher.update(path.as_os_str().as_bytes());
        Identity(*hasher.finalize().as_bytes())
    }

    /// A GUID for some purpose, as little-endian formats write it: one of those made at random.
    pub fn guid(&self, purpose: &str) -> [u8; 16] {
        let mut bytes = [0; 16];
        blake3::Hasher::new_keyed(&self.0)
            .update(purpose.as_bytes())
            .finalize_xof()
            .fill(&mut bytes);
        bytes[7] = (bytes[7] & 0x0f) | 0x40;
        bytes[8] = (bytes[8] & 0x3f) | 0x80;
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_the_same_for_the_same_file_alone() {
        let known =
            |path: &str, inode, made| Identity::of(Path::new(path), inode, made).guid("disk");
        let one = known("/a", 5, 7);
        assert_eq!(one, known("/a", 5, 7));
        for other in [known("/b", 5, 7), known("/a", 6, 7), known("/a", 5, 8)] {
            assert_ne!(one, other);
        }
        let same = Identity::of(Path::new("/a"), 5, 7);
        assert_ne!(one, same.guid("another"));
        assert_eq!((one[7] >> 4, one[8] >> 6), (4, 2));
    }
}
