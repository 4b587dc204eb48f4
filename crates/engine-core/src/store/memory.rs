//! A store in memory, for tests and for trying things. Nothing outlives it.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use parking_lot::RwLock;

use super::{BufferedUpload, Store, Upload, key, range_of};
use crate::error::{Error, Result};

/// How many keys a list takes out under one lock.
const PAGE: usize = 1000;

/// See the module.
#[derive(Default)]
pub struct MemoryStore {
    objects: RwLock<BTreeMap<String, Arc<[u8]>>>,
}

impl MemoryStore {
    pub fn new() -> Self {
        Self::default()
    }

    fn object(&self, key: &str) -> Result<Arc<[u8]>> {
        key::check(key)?;
        let objects = self.objects.read();
        objects.get(key).cloned().ok_or_else(|| Error::ObjectMissing { key: key.to_owned() })
    }

    /// Up to a page of keys under `prefix` that follow `after`.
    fn page(&self, prefix: &str, after: Option<&str>) -> Vec<(String, u64)> {
        let start = after.map_or(Bound::Included(prefix), Bound::Excluded);
        self.objects
            .read()
            .range::<str, _>((start, Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(prefix))
            .take(PAGE)
            .map(|(key, data)| (key.clone(), data.len() as u64))
            .collect()
    }
}

impl Store for MemoryStore {
    fn place(&self) -> String {
        "memory".into()
    }

    fn get(&self, key: &str) -> Result<Vec<u8>> {
        self.object(key).map(|data| data.to_vec())
    }

    fn get_range(&self, key: &str, offset: u64, length: usize) -> Result<Vec<u8>> {
        range_of(key, &self.object(key)?, offset, length)
    }

    fn put(&self, key: &str, data: &[u8]) -> Result<()> {
        key::check(key)?;
        self.objects.write().insert(key.to_owned(), data.into());
        Ok(())
    }

    fn put_if_absent(&self, key: &str, data: &[u8]) -> Result<bool> {
        key::check(key)?;
        let mut objects = self.objects.write();
        if objects.contains_key(key) {
            return Ok(false);
        }
        objects.insert(key.to_owned(), data.into());
        Ok(true)
    }

    fn size(&self, key: &str) -> Result<Option<u64>> {
        key::check(key)?;
        Ok(self.objects.read().get(key).map(|data| data.len() as u64))
    }

    fn list(&self, prefix: &str, visit: &mut dyn FnMut(&str, u64) -> Result<()>) -> Result<()> {
        key::check_prefix(prefix)?;
        let mut page = self.page(prefix, None);
        while let Some((last, _)) = page.last() {
            let last = last.clone();
            for (key, size) in &page {
                visit(key, *size)?;
            }
            page = self.page(prefix, Some(&last));
        }
        Ok(())
    }

    fn delete(&self, key: &str) -> Result<()> {
        key::check(key)?;
        self.objects.write().remove(key);
        Ok(())
    }

    fn upload(&self) -> Result<Box<dyn Upload + '_>> {
        Ok(Box::new(BufferedUpload::new(self)))
    }
}
