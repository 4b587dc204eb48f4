//! Which names belong to a backup: the way down to each path that was asked for, and all below
//! it that its rules leave.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use crate::scan::attrs::Stat;
use crate::scan::rules::Rules;

/// What belongs to the backup in one directory and below. Cheap to clone.
#[derive(Clone, Default)]
pub struct Selection {
    /// Holds for all names here; without one only the names in `below` count.
    scope: Option<Arc<Scope>>,
    /// Names that lead to paths asked for by themselves. No rule leaves them out, whatever
    /// else holds here: somebody named them.
    below: Arc<BTreeMap<Vec<u8>, Selection>>,
}

/// What holds for everything below one path that was asked for.
pub struct Scope {
    rules: Rules,
    one_file_system: bool,
    /// Of the path itself, once it was looked at.
    device: OnceLock<u64>,
}

impl Scope {
    pub fn new(rules: Rules, one_file_system: bool) -> Self {
        Scope { rules, one_file_system, device: OnceLock::new() }
    }

    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    fn reaches(&self, stat: &Stat) -> bool {
        !self.one_file_system || *self.device.get_or_init(|| stat.device) == stat.device
    }
}

impl Selection {
    /// Adds everything below `path`, given as components.
    pub fn insert(&mut self, path: &[Vec<u8>], scope: Scope) {
        let mut at = self;
        for part in path {
            at = Arc::make_mut(&mut at.below).entry(part.clone()).or_default();
        }
        at.scope = Some(Arc::new(scope));
    }

    /// The scope that all names here are in, if one is.
    pub fn scope(&self) -> Option<&Scope> {
        self.scope.as_deref()
    }

    /// The names that lead to paths asked for by themselves.
    pub fn asked_for(&self) -> impl Iterator<Item = &[u8]> {
        self.below.keys().map(Vec::as_slice)
    }

    pub fn is_asked_for(&self, name: &[u8]) -> bool {
        self.below.contains_key(name)
    }

    /// What belongs to the backup in the directory `name` of this one; whether a path that was
    /// asked for begins there.
    pub fn of(&self, name: &[u8], stat: &Stat) -> (Selection, bool) {
        let own = self.below.get(name).cloned().unwrap_or_default();
        if own.begins(stat) {
            return (own, true);
        }
        let scope = self.scope.as_ref().filter(|scope| scope.reaches(stat));
        (Selection { scope: scope.cloned(), below: own.below }, false)
    }

    /// The same without what nobody asked for by itself.
    pub fn asked_for_only(self) -> Self {
        Selection { scope: None, ..self }
    }

    /// Notes which file system a path that was asked for is on, if one begins here.
    pub fn begins(&self, stat: &Stat) -> bool {
        // The first to ask is the path itself.
        self.scope.as_ref().is_some_and(|scope| scope.reaches(stat))
    }
}
