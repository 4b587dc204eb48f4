//! Whether an image that came from another pool is whole here. Its sender is not believed: every
//! chunk that it needs is looked for, but for what an image of this pool has in common with it.

use std::collections::HashSet;

use crate::cancel::Cancel;
use crate::counters::Counters;
use crate::error::{Error, Result};
use crate::ids::{Id, Name, PackId};
use crate::manifest::Manifest;
use crate::pool::Pool;
use crate::reach::{LiveSet, Root, Trouble, vouch, walk};

/// No pool has given so high a number to an image; whoever says so would use up the numbers.
const HIGHEST_NUMBER: u64 = 1 << 53;

/// The manifest that came, if it is that of the image which was announced.
pub fn announced(bytes: &[u8], image: &Id, source: Option<&str>) -> Result<Manifest> {
    let refused = |reason: String| Error::Invalid(format!("this is not image {image}: {reason}"));
    let manifest = Manifest::decode(bytes).map_err(|error| match error {
        Error::Integrity { reason, .. } => refused(format!("it is no manifest: {reason}")),
        other => other,
    })?;
    if manifest.id != *image {
        return Err(refused(format!("it is image {}", manifest.id)));
    }
    if source.is_some_and(|source| manifest.source.name != source) {
        return Err(refused(format!("it is one of '{}'", manifest.source.name)));
    }
    if !(1..=HIGHEST_NUMBER).contains(&manifest.number) {
        return Err(refused(format!("no image has the number {}", manifest.number)));
    }
    if manifest.encode()? != bytes {
        return Err(refused("it is spelled in another way".to_owned()));
    }
    Ok(manifest)
}

/// Says of the first chunk that is not there which file needs it.
struct Whole<'a> {
    image: &'a Id,
}

impl Trouble for Whole<'_> {
    fn trouble(&self, path: &[u8], error: Error) -> Result<()> {
        let path = String::from_utf8_lossy(path).into_owned();
        Err(match error {
            Error::ChunkMissing { name } => Error::Invalid(format!(
                "image {} is not whole in this pool: chunk {name} of '{path}' is missing",
                self.image
            )),
            Error::Integrity { object, reason } => {
                Error::integrity(path, format!("{object} is damaged: {reason}"))
            }
            other => other,
        })
    }

    fn known(&self, name: &Name, excluded: bool) -> Option<Error> {
        // A collection may take it away.
        excluded.then(|| Error::ChunkMissing { name: name.to_string() })
    }
}

/// Fails unless everything that the image reaches is in packs that no mark names. What `base`, of
/// which everything is here, has in common with it is not looked at.
pub fn require_whole(
    pool: &Pool,
    manifest: &Manifest,
    base: Option<&Manifest>,
    marked: &HashSet<PackId>,
    counters: &Counters,
    cancel: &Cancel,
) -> Result<()> {
    let Some(tree) = manifest.root.subtree else { return Ok(()) };
    let live = LiveSet::new(pool.index().refresh()?, marked);
    if let Some(base) = base.and_then(|base| base.root.subtree) {
        vouch(pool, &live, base, tree, cancel)?;
    }
    let root = Root { image: format!("image {}", manifest.id), tree };
    walk(pool, &live, [root], &Whole { image: &manifest.id }, counters, cancel)
}
