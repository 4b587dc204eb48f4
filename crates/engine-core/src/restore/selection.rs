//! Which part of an image is wanted.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::client_key::ClientKey;
use crate::error::{Error, Result};
use crate::tree::ChunkSource;
use crate::tree::entry::Entry;
use crate::tree::walk;

/// What is wanted below a directory.
#[derive(Clone, Debug)]
pub enum Selection {
    All,
    /// These names only.
    Only(Arc<BTreeMap<Vec<u8>, Selection>>),
}

impl Selection {
    /// From absolute paths of an image; none means everything. `PathMissing` for a path that the
    /// image has not: nothing is restored then.
    ///
    /// Where names are sealed, `key` opens them; a path may have them plain or sealed.
    pub fn new(
        source: &dyn ChunkSource,
        root: &Entry,
        paths: &[Vec<u8>],
        key: Option<&ClientKey>,
    ) -> Result<Self> {
        if paths.is_empty() {
            return Ok(Selection::All);
        }
        let mut tree = Wanted::default();
        for path in paths {
            let (sealed, plain) = match key {
                Some(key) => (key.seal_path(path), key.open_path(path)),
                None => (path.clone(), path.clone()),
            };
            walk::find(source, root, &sealed).map_err(|error| match error {
                Error::PathMissing { within, .. } => {
                    Error::PathMissing { path: String::from_utf8_lossy(path).into_owned(), within }
                }
                other => other,
            })?;
            let mut at = &mut tree;
            for part in plain.split(|byte| *byte == b'/').filter(|part| !part.is_empty()) {
                at = at.below.entry(part.to_vec()).or_default();
            }
            at.whole = true;
        }
        Ok(tree.into_selection())
    }

    /// What is wanted of this name: `None` for nothing.
    pub fn of(&self, name: &[u8]) -> Option<Selection> {
        match self {
            Selection::All => Some(Selection::All),
            Selection::Only(names) => names.get(name).cloned(),
        }
    }
}

#[derive(Default)]
struct Wanted {
    whole: bool,
    below: BTreeMap<Vec<u8>, Wanted>,
}

impl Wanted {
    /// Recursion is as deep as a path that a person gave.
    fn into_selection(self) -> Selection {
        if self.whole {
            return Selection::All;
        }
        let below = self.below.into_iter().map(|(name, below)| (name, below.into_selection()));
        Selection::Only(Arc::new(below.collect()))
    }
}
