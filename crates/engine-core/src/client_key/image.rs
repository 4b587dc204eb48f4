//! What a client says of an image under its key, so that nobody can put another tree in the place
//! of the one that it backed up.

use super::{ClientKey, needed};
use crate::cbor;
use crate::error::{Error, Result};
use crate::ids::hex;
use crate::keys::NameKeys;
use crate::manifest::Manifest;
use crate::tree::codec;

/// Options of a manifest: the key's id, how names are kept, and what proves the image.
const KEY: &str = "client_key";
const NAMES: &str = "client_key.names";
const PROOF: &str = "client_key.proof";
const CONTEXT: &str = "holdfast image under a client key";
const VERSION: u64 = 1;

/// How the names and attributes of files are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Names {
    /// Whoever has the pool can read them.
    Open,
    /// Only whoever has the client key.
    Sealed,
}

impl Names {
    pub fn as_str(self) -> &'static str {
        match self {
            Names::Open => "open",
            Names::Sealed => "sealed",
        }
    }
}

impl Manifest {
    /// The id of the client key that the image's files are sealed with; none for an image that
    /// the pool can read.
    pub fn client_key(&self) -> Option<&str> {
        self.options.get(KEY).map(String::as_str)
    }

    /// Whether only whoever has the client key knows what its files are called.
    pub fn has_sealed_names(&self) -> bool {
        self.client_key().is_some()
            && self.options.get(NAMES).is_some_and(|names| names == Names::Sealed.as_str())
    }

    /// Refuses an image whose files can't be read without a client key.
    pub fn require_readable(&self) -> Result<()> {
        match self.client_key() {
            Some(key) => Err(needed(format!("image {}", self.id), key)),
            None => Ok(()),
        }
    }
}

impl ClientKey {
    /// Says of a draft that it was sealed with this key, in a pool that names chunks so.
    pub fn sign(&self, draft: &mut Manifest, naming: &NameKeys, names: Names) -> Result<()> {
        let proof = self.proof(draft, naming, names)?;
        draft.options.insert(KEY.to_owned(), self.id().to_string());
        draft.options.insert(NAMES.to_owned(), names.as_str().to_owned());
        draft.options.insert(PROOF.to_owned(), hex(proof.as_bytes()));
        Ok(())
    }

    /// Makes sure that the image is one which this key signed; how names are kept in it.
    /// `ClientKeyNeeded` for one of another key, `Integrity` for one that is not what was signed.
    pub fn prove(&self, image: &Manifest, naming: &NameKeys) -> Result<Names> {
        let changed = |reason: &str| {
            Error::integrity(
                format!("image {}", image.id),
                format!("{reason} client key {}", self.id()),
            )
        };
        let key = image.client_key().ok_or_else(|| changed("it is not sealed with"))?;
        if key != self.id().to_string() {
            return Err(needed(format!("image {}", image.id), key));
        }
        let option = |name: &str| image.options.get(name).map(String::as_str);
        let names = [Names::Open, Names::Sealed];
        let names = names.into_iter().find(|names| option(NAMES) == Some(names.as_str()));
        let names = names.ok_or_else(|| changed("it does not say how names are sealed with"))?;
        let proof = self.proof(image, naming, names)?;
        let found = option(PROOF).and_then(|text| blake3::Hash::from_hex(text).ok());
        // Compared in constant time.
        if found == Some(proof) {
            Ok(names)
        } else {
            Err(changed("it is not what was sealed with"))
        }
    }

    /// Over all that a restore and the next backup rely on.
    fn proof(&self, image: &Manifest, naming: &NameKeys, names: Names) -> Result<blake3::Hash> {
        let mut said = Vec::new();
        let out = &mut said;
        cbor::write_array(out, 8);
        cbor::write_text(out, CONTEXT);
        cbor::write_uint(out, VERSION);
        cbor::write_bytes(out, blake3::hash(&naming.to_bytes()).as_bytes());
        cbor::write_text(out, names.as_str());
        cbor::write_text(out, &image.source.name);
        cbor::write_array(out, image.source.paths.len());
        for path in &image.source.paths {
            cbor::write_bytes(out, path);
        }
        cbor::write_int(out, image.began_reading_ns());
        codec::encode_root(&image.root, out)?;
        Ok(blake3::keyed_hash(&self.image, &said))
    }
}
