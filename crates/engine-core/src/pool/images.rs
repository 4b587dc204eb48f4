//! Images of a pool: their manifests, read and committed.

use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::error::{Error, Result};
use crate::ids::Id;
use crate::manifest::Manifest;
use crate::sealed::{ObjectType, open_object, seal_object};
use crate::tasks::in_threads;

use super::Pool;
use super::jobs::Job;

const PREFIX: &str = "images/";

/// So many manifests are read at once at most: a store far away takes as long for sixteen as for one.
const READERS: usize = 16;

/// Fewer are not worth another thread.
const MANIFESTS_A_READER: usize = 4;

impl Pool {
    /// Ids of all images, in no particular order.
    pub fn image_ids(&self) -> Result<Vec<Id>> {
        let mut ids = Vec::new();
        self.store().list(PREFIX, &mut |key, _| {
            ids.extend(key.strip_prefix(PREFIX).and_then(Id::parse));
            Ok(())
        })?;
        Ok(ids)
    }

    /// One image's manifest. `ImageMissing` when the pool has none of that id.
    pub fn image(&self, id: &Id) -> Result<Manifest> {
        let key = Manifest::key(id);
        let bytes = match self.store().get(&key) {
            Err(Error::ObjectMissing { .. }) => {
                return Err(Error::ImageMissing { image: id.to_string() });
            }
            other => other?,
        };
        let manifest =
            Manifest::decode(&open_object(self.keys(), ObjectType::Image, &key, &bytes)?)?;
        if manifest.id == *id {
            Ok(manifest)
        } else {
            Err(Error::integrity(format!("object '{key}'"), "it is the manifest of another image"))
        }
    }

    /// All images by number. Fails on the first that cannot be read.
    pub fn images(&self) -> Result<Vec<Manifest>> {
        self.images_with(&mut |_, error| Err(error))
    }

    /// All images that can be read, by number: one damaged manifest must not keep a backup from
    /// running. Checks use [`Pool::images`].
    pub fn readable_images(&self) -> Result<Vec<Manifest>> {
        self.images_with(&mut |_, error| match error {
            Error::Integrity { .. } | Error::NewerFormat { .. } => Ok(()),
            other => Err(other),
        })
    }

    /// All images by number; `trouble` is told of each that cannot be read and says whether to go
    /// on. One that is expired meanwhile is left out.
    pub fn images_with(
        &self,
        trouble: &mut dyn FnMut(&Id, Error) -> Result<()>,
    ) -> Result<Vec<Manifest>> {
        let mut images = Vec::new();
        let ids = self.image_ids()?;
        for (id, read) in ids.iter().zip(self.read_manifests(&ids)?) {
            match read {
                Ok(manifest) => images.push(manifest),
                Err(Error::ImageMissing { .. }) => {}
                Err(error) => trouble(id, error)?,
            }
        }
        images.sort_by_key(|image| (image.number, image.started_ns, image.id));
        Ok(images)
    }

    /// Manifests in the order of their ids; from afar many are on their way at once.
    fn read_manifests(&self, ids: &[Id]) -> Result<Vec<Result<Manifest>>> {
        let (next, found) = (AtomicUsize::new(0), Mutex::new(Vec::with_capacity(ids.len())));
        let read = || {
            while let Some((place, id)) = {
                let place = next.fetch_add(1, Ordering::Relaxed);
                ids.get(place).map(|id| (place, id))
            } {
                let manifest = self.image(id);
                found.lock().push((place, manifest));
            }
            Ok(())
        };
        let readers = (ids.len() / MANIFESTS_A_READER).clamp(1, READERS);
        in_threads(readers, read, || ())?;
        let mut found = found.into_inner();
        found.sort_unstable_by_key(|(place, _)| *place);
        Ok(found.into_iter().map(|(_, manifest)| manifest).collect())
    }

    /// Makes an image visible, unless its job was declared dead meanwhile: then what it relies on
    /// may be gone, and `Fenced` is the answer. Everything that it names is durable by now.
    pub fn commit_image(&self, manifest: &Manifest, job: &Job) -> Result<()> {
        let key = Manifest::key(&manifest.id);
        let sealed = seal_object(self.keys(), ObjectType::Image, &key, &manifest.encode()?)?;
        job.check()?;
        if !self.store().put_if_absent(&key, &sealed)? {
            return Err(Error::ObjectExists { key });
        }
        // A collector removes a dead job's record first and reads the manifests after that: it
        // has seen this manifest, or this sees that the record is gone.
        if let Err(error) = job.check() {
            self.store().delete(&key)?;
            return Err(error);
        }
        Ok(())
    }

    /// Takes an image out of the pool; its space returns with the next garbage collection.
    pub fn expire(&self, id: &Id) -> Result<()> {
        let key = Manifest::key(id);
        if self.store().size(&key)?.is_none() {
            return Err(Error::ImageMissing { image: id.to_string() });
        }
        self.store().delete(&key)
    }
}
