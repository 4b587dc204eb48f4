//! Where a file holds data and where it has holes, at the end too.

use std::io;
use std::os::fd::AsFd;

use rustix::fs::SeekFrom;
use rustix::io::Errno;

use crate::tree::entry::Extent;
use crate::tree::extents::{MAX_EXTENTS, simplify};

/// More stretches than this are not looked for: the rest counts as data, which costs space but
/// loses nothing.
const FOUND_MAX: usize = 1 << 20;

/// The stretches of data below `size`, in order; `None` for a file without holes. An empty list
/// is a file of nothing but holes. What comes out can be stored as it is: the smallest holes of a
/// file with very many count as data.
///
/// Asks with one call where the first hole is, since the block count cannot tell: attributes
/// and preallocation beyond the end count there, inline data does not.
pub fn data_extents(file: impl AsFd, size: u64) -> io::Result<Option<Vec<Extent>>> {
    let file = file.as_fd();
    if size == 0 {
        return Ok(None);
    }
    let first_hole = match rustix::fs::seek(file, SeekFrom::Hole(0)) {
        Ok(at) if at >= size => return Ok(None),
        Ok(at) => at,
        // It shrank to nothing, or the file system knows no holes.
        Err(Errno::NXIO | Errno::INVAL | Errno::OPNOTSUPP | Errno::SPIPE) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let mut extents = Vec::new();
    if first_hole > 0 {
        extents.push(Extent { offset: 0, length: first_hole });
    }
    let mut hole = first_hole;
    while hole < size {
        let data = match rustix::fs::seek(file, SeekFrom::Data(hole)) {
            Ok(at) if at < size => at,
            // Nothing but hole up to the end.
            Ok(_) | Err(Errno::NXIO) => break,
            Err(error) => return Err(error.into()),
        };
        let end = if extents.len() + 1 == FOUND_MAX {
            size
        } else {
            match rustix::fs::seek(file, SeekFrom::Hole(data)) {
                Ok(at) => at.min(size),
                // It was cut off meanwhile: reading will tell.
                Err(Errno::NXIO) => size,
                Err(error) => return Err(error.into()),
            }
        };
        if end <= data {
            // A file that changes under us must not keep us here.
            extents.push(Extent { offset: data, length: size - data });
            break;
        }
        extents.push(Extent { offset: data, length: end - data });
        hole = end;
    }
    simplify(&mut extents, MAX_EXTENTS);
    Ok(Some(extents))
}
