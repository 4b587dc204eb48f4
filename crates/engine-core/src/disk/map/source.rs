//! Reads a disk by its map: in its files what lies there as it is, by somebody else the rest.

use std::os::unix::fs::FileExt;
use std::sync::Arc;

use crate::disk::{DiskSource, Patience, Piece};
use crate::error::{Error, Result};

use super::{DiskMap, Lies};

/// Reads a disk.
pub struct MappedSource {
    map: Arc<DiskMap>,
    rest: Arc<dyn DiskSource>,
}

impl MappedSource {
    /// `rest` reads what lies elsewhere. `Invalid` where that is a smaller disk.
    pub fn new(map: Arc<DiskMap>, rest: Arc<dyn DiskSource>) -> Result<Self> {
        if rest.size() < map.size() {
            return Err(Error::Invalid(format!(
                "the map is of a disk of {} bytes, and there are {}",
                map.size(),
                rest.size()
            )));
        }
        Ok(MappedSource { map, rest })
    }

    fn read_direct(&self, file: usize, offset: u64, bytes: &mut [u8]) -> Result<()> {
        let opened = self.map.files.get(file);
        let Some((opened, file)) = opened.and_then(|one| Some((one, one.file.as_ref()?))) else {
            return Err(Error::Invalid(format!("a disk's map has no open file {file}")));
        };
        file.read_exact_at(bytes, offset).map_err(|error| {
            Error::io(format!("reading '{}' at byte {offset}", opened.path.display()), error)
        })
    }
}

impl DiskSource for MappedSource {
    fn size(&self) -> u64 {
        self.map.size()
    }

    fn read(&self, pieces: &mut [Piece<'_>], patience: Patience<'_>) -> Result<()> {
        let mut rest = Vec::new();
        for piece in pieces {
            let mut at = piece.offset;
            let mut bytes = &mut *piece.bytes;
            for run in self.map.runs_from(at) {
                if bytes.is_empty() {
                    break;
                }
                let left = (run.start + run.length).saturating_sub(at);
                let count = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                let (now, later) = std::mem::take(&mut bytes).split_at_mut(count);
                match run.lies {
                    Lies::Zero => now.fill(0),
                    Lies::Elsewhere => rest.push(Piece { offset: at, bytes: now }),
                    Lies::In { file, offset } => {
                        patience()?;
                        self.read_direct(file, offset + (at - run.start), now)?;
                    }
                }
                (at, bytes) = (at + count as u64, later);
            }
            if !bytes.is_empty() {
                rest.push(Piece { offset: at, bytes });
            }
        }
        if rest.is_empty() { Ok(()) } else { self.rest.read(&mut rest, patience) }
    }

    fn close(&self) {
        self.rest.close();
    }
}
