//! A disk that is a raw file or a block device of this machine.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{Advice, SeekFrom};

use crate::error::{Error, Result};

use super::{DiskSource, Patience, Piece, at};

/// Reads a raw file or a block device. Its size is what it is when it is opened.
pub struct FileSource {
    file: File,
    size: u64,
}

impl FileSource {
    pub fn open(path: &Path) -> Result<Self> {
        let unopened = |error| Error::io(format!("opening the disk '{}'", path.display()), error);
        let file = File::open(path).map_err(unopened)?;
        let size = size_of(&file).map_err(unopened)?;
        // Several threads read stretches of it: the system would not see that all is read.
        let _ = rustix::fs::fadvise(&file, 0, None, Advice::Sequential);
        Ok(FileSource { file, size })
    }
}

/// Bytes of a file or a block device; directories and streams have none.
pub(super) fn size_of(file: &File) -> io::Result<u64> {
    let kind = file.metadata()?.file_type();
    if kind.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    Ok(rustix::fs::seek(file, SeekFrom::End(0))?)
}

impl DiskSource for FileSource {
    fn size(&self) -> u64 {
        self.size
    }

    fn read(&self, pieces: &mut [Piece<'_>], patience: Patience<'_>) -> Result<()> {
        for piece in pieces {
            patience()?;
            let reading = |error| at("reading", piece.offset, error);
            self.file.read_exact_at(piece.bytes, piece.offset).map_err(reading)?;
        }
        Ok(())
    }
}
