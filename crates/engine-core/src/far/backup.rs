//! A backup into a pool far away. The same walk, or the same disks, as into one that is here.

use std::sync::Arc;

use crate::backup::frame::{Order, draft};
use crate::backup::{Prepared, Request, machine, order, walk_into};
use crate::cancel::Cancel;
use crate::client_key::{Names, Sealing};
use crate::counters::Counters;
use crate::error::Result;
use crate::finding::Findings;
use crate::ingest::Sink;
use crate::manifest::Manifest;
use crate::repository::Repository;
use crate::tree::entry::Entry;

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
    let prepared = Prepared::new(request, far.sealing.as_ref())?;
    let parent = parent.filter(|_| !request.read_all);
    let fill = |sink: &dyn Sink, parent: Option<&Manifest>| {
        walk_into(sink, request, prepared, parent, counters, findings)
    };
    make_image(far, &order(request), parent, counters, findings, cancel, fill)
}

/// Backs up a machine; as [`machine::run`], and else as [`run`].
pub fn run_machine(
    far: &Far,
    request: &machine::Request,
    parent: Option<&Manifest>,
    counters: &Counters,
    findings: &Findings,
    cancel: &Cancel,
) -> Result<Manifest> {
    request.check()?;
    let fill = |sink: &dyn Sink, parent: Option<&Manifest>| {
        machine::fill(sink, request, parent, counters, findings)
    };
    make_image(far, &machine::order(request), parent, counters, findings, cancel, fill)
}

/// As [`crate::backup::frame::make_image`]; the record and the number are the media server's.
fn make_image(
    far: &Far,
    order: &Order<'_>,
    parent: Option<&Manifest>,
    counters: &Counters,
    findings: &Findings,
    cancel: &Cancel,
    fill: impl FnOnce(&dyn Sink, Option<&Manifest>) -> Result<Entry>,
) -> Result<Manifest> {
    if let Some(sealing) = far.sealing.as_ref().filter(|sealing| sealing.names == Names::Sealed) {
        let key = Arc::clone(&sealing.key);
        findings.show_paths_as(move |path| key.seal_path(path));
    }
    let parent = parent.filter(|image| is_comparable(far, order.source, image));
    let level = order.level;
    let root = sending::run(far, level, counters, cancel, |sink| fill(sink, parent))?;
    cancel.check()?;
    let mut draft = draft(order, root, parent.map(|image| image.id), counters, findings);
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
fn is_comparable(far: &Far, source: &str, image: &Manifest) -> bool {
    match &far.sealing {
        None => image.client_key().is_none(),
        Some(Sealing { key, names }) => {
            image.source.name == source
                && key.prove(image, far.naming()).is_ok_and(|found| found == *names)
        }
    }
}
