//! A file of an image in a pool far away, for reading at any place.

use std::sync::Arc;

use crate::client_key::chunk::ChunkOpener;
use crate::error::Result;
use crate::ids::{Kind, Ref};
use crate::manifest::Manifest;
use crate::pool::ChunkBytes;
use crate::reader::FileReader;
use crate::restore::disk;
use crate::tree::ChunkSource;

use super::Far;

/// Opens a file. As [`super::restore::run`] does, with the client key that this pool is used with.
pub fn file(far: &Arc<Far>, image: &Manifest, path: &[u8]) -> Result<FileReader> {
    let key = far.sealing.as_ref().map(|sealing| &*sealing.key);
    let entry = disk::find(&**far, image, path, key)?;
    let source = Opened { far: Arc::clone(far), opener: ChunkOpener::default() };
    FileReader::open(Arc::new(source), &entry)
}

/// The chunks of a pool far away, in plain bytes.
struct Opened {
    far: Arc<Far>,
    opener: ChunkOpener,
}

impl ChunkSource for Opened {
    fn fetch(&self, kind: Kind, reference: &Ref) -> Result<Vec<u8>> {
        self.shared(kind, reference).map(|bytes| bytes.to_vec())
    }

    fn shared(&self, kind: Kind, reference: &Ref) -> Result<ChunkBytes> {
        let stored = self.far.shared(kind, reference)?;
        match &self.far.sealing {
            Some(sealing) if kind == Kind::Data && reference.is_client_sealed() => {
                let plain = self.opener.open(&sealing.key, reference, &stored)?;
                let length = plain.len();
                Ok(ChunkBytes::new(Arc::new(plain), 0..length))
            }
            _ => Ok(stored),
        }
    }

    fn ahead(&self, kind: Kind, references: &[Ref]) {
        self.far.ahead(kind, references);
    }
}
