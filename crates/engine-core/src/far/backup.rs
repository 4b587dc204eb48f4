//! A backup into a pool far away. The same walk as into one that is here.

use crate::backup::{Prepared, Request, draft, walk_into};
use crate::cancel::Cancel;
use crate::counters::Counters;
use crate::error::Result;
use crate::finding::Findings;
use crate::manifest::Manifest;

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
    let parent = parent.filter(|_| !request.read_all);
    let root = sending::run(far, request.level, counters, cancel, |sink| {
        walk_into(sink, request, prepared, parent, counters, findings)
    })?;
    cancel.check()?;
    let draft = draft(request, root, parent.map(|image| image.id), counters, findings);
    let committed = Manifest::decode(&far.link.commit(&draft.encode()?)?)?;
    if let Some(trees) = &far.trees
        && let Err(error) = trees.tidy()
    {
        findings.warning(b"", "cache-not-tidied", format!("the cache of trees has grown: {error}"));
    }
    Ok(committed)
}
