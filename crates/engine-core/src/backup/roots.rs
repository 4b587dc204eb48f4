//! From the paths that were asked for to the way down to them.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path};

use crate::error::{Error, Result};
use crate::scan::rules::Rules;

use super::selection::{Scope, Selection};

/// The selection of "/" that leads to these paths and no others. Paths are absolute; symbolic
/// links above the last component are resolved, one in the last place is backed up as a link. A
/// path that does not exist is an error before anything is done.
pub fn select(paths: &[Vec<u8>], exclude: &[String], one_file_system: bool) -> Result<Selection> {
    let mut root = Selection::default();
    if paths.is_empty() {
        return Err(Error::Invalid("no path to back up was given".into()));
    }
    for path in paths {
        let parts = resolve(path)?;
        let whole = [b"/".as_slice(), &parts.join(&b"/"[..])].concat();
        root.insert(&parts, Scope::new(Rules::new(&whole, exclude)?, one_file_system));
    }
    Ok(root)
}

/// The components of the path without symbolic links above the last of them.
fn resolve(path: &[u8]) -> Result<Vec<Vec<u8>>> {
    let text = || path.escape_ascii().to_string();
    let path = Path::new(OsStr::from_bytes(path));
    if !path.is_absolute() {
        return Err(Error::Invalid(format!("'{}' is not an absolute path", text())));
    }
    let missing = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            Error::PathMissing { path: text(), within: "this machine's file system".into() }
        }
        _ => Error::io(format!("looking at '{}'", text()), error),
    };
    let named = match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => {
            let parent = match parent.canonicalize() {
                // Too long for one call: taken as it stands.
                Err(error) if error.raw_os_error() == Some(NAME_TOO_LONG) => parent.to_owned(),
                other => other.map_err(missing)?,
            };
            let whole = parent.join(name);
            match whole.symlink_metadata() {
                Err(error) if error.raw_os_error() != Some(NAME_TOO_LONG) => {
                    return Err(missing(error));
                }
                _ => whole,
            }
        }
        _ => path.canonicalize().map_err(missing)?,
    };
    Ok(named
        .components()
        .filter_map(|part| match part {
            Component::Normal(name) => Some(name.to_owned().into_vec()),
            _ => None,
        })
        .collect())
}

const NAME_TOO_LONG: i32 = 36;
