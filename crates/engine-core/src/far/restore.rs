//! A restore from a pool far away.

use std::sync::Arc;

use crate::cancel::Cancel;
use crate::counters::Counters;
use crate::disk::DiskSink;
use crate::error::Result;
use crate::finding::Findings;
use crate::manifest::Manifest;
use crate::restore::{Outcome, Request, disk, run_from};

use super::Far;

/// Restores an image. Where a client key is given, the image has to be its.
///
/// Findings go to whoever has the pool: of a client that has a key they name no file.
pub fn run(
    far: &Far,
    image: Manifest,
    request: &Request,
    counters: &Counters,
    findings: &Arc<Findings>,
    cancel: &Cancel,
) -> Result<Outcome> {
    let key = far.sealing.as_ref().map(|sealing| &sealing.key);
    if let Some(key) = key.map(Arc::clone).filter(|_| image.has_sealed_names()) {
        findings.show_paths_as(move |path| key.seal_path(path));
    }
    let key = key.map(AsRef::as_ref);
    far.read_by(request.threads());
    run_from(far, image, request, key, counters, findings, cancel)
}

/// Writes a file of an image as a disk; as [`run`] with a client key.
pub fn run_disk(
    far: &Far,
    image: &Manifest,
    request: &disk::Request,
    to: &dyn DiskSink,
    counters: &Counters,
    cancel: &Cancel,
) -> Result<Outcome> {
    let key = far.sealing.as_ref().map(|sealing| &*sealing.key);
    disk::run(far, image, request, key, to, counters, cancel)
}
