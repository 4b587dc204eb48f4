//! A backup into a pool far away. The same walk as into one that is here.

use std::sync::Arc;

use crate::backup::{Prepared, Request, draft, walk_into};
use crate::cancel::Cancel;
use crate::client_key::{Names, Sealing};
use crate::counters::Counters;
use crate::error::Result;
use crate::finding::Findings;
use crate::manifest::Manifest;
use crate::repository::Repository;

use super::{Far, sending};

/// Runs a backup; the manifest as the media server committed it. `parent` is the image to compare
/// with, whatever the request says of one.
pub fn run(
    far: &Far,
    request: &Request,
    parent: Option<&Manifest>,
    counters: &Counters,
    findings: &Findings,
    cancel: &Cancel,
) -> Result<Manifest> {
    let prepared = Prepared::new(request)?;
    if let Some(sealing) = far.sealing.as_ref().filter(|sealing| sealing.names == Names::Sealed) {
        let key = Arc::clone(&sealing.key);
        findings.show_paths_as(move |path| key.seal_path(path));
    }
    let parent = parent.filter(|_| !request.read_all);
    let parent = parent.filter(|image| is_comparable(far, request, image));
    let root = sending::run(far, request.level, counters, cancel, |sink| {
        walk_into(sink, request, prepared, parent, counters, findings)
    })?;
    cancel.check()?;
    let mut draft = draft(request, root, parent.map(|image| image.id), counters, findings);
    if let Some(Sealing { key, names }) = &far.sealing {
        key.sign(&mut draft, far.naming(), *names)?;
    }
    let committed = Manifest::decode(&far.link.commit(&draft.encode()?)?)?;
    if let Some(Sealing { key, .. }) = &far.sealing {
        key.prove(&committed, far.naming())?;
    }
    if let Some(trees) = &far.trees
        && let Err(error) = trees.tidy()
    {
        findings.warning(b"", "cache-not-tidied", format!("the cache of trees has grown: {error}"));
    }
    Ok(committed)
}

/// Whether files that are as an image has them may be taken over from it: it is of this source,
/// and sealed as this backup is, or as little. Else every file is read.
fn is_comparable(far: &Far, request: &Request, image: &Manifest) -> bool {
    match &far.sealing {
        None => image.client_key().is_none(),
        Some(Sealing { key, names }) => {
            image.source.name == request.source
                && key.prove(image, far.naming()).is_ok_and(|found| found == *names)
        }
    }
}
