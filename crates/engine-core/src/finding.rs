//! Problems with single files: collected on the job, never the end of it.

use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

/// Whether the image lacks something that it should hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// Nothing is lost, but a person may want to know.
    Warning,
    /// Something asked for is not in the image, or was not restored.
    Error,
}

impl Severity {
    pub fn as_str(self) -> &'static str {
        match self {
            Severity::Warning => "warning",
            Severity::Error => "error",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "warning" => Some(Severity::Warning),
            "error" => Some(Severity::Error),
            _ => None,
        }
    }
}

/// One problem with one file, in plain words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub path: Vec<u8>,
    /// Stable, e.g. "no-permission", "vanished", "changed-while-read".
    pub code: String,
    pub message: String,
    pub severity: Severity,
}

/// What is kept in place of a path.
struct Shown(Box<Show>);

type Show = dyn Fn(&[u8]) -> Vec<u8> + Send + Sync;

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shown")
    }
}

/// Findings of a running verb: the first [`Findings::KEPT`] in full, the rest as a number.
#[derive(Debug, Default)]
pub struct Findings {
    shown: OnceLock<Shown>,
    kept: Mutex<Vec<Finding>>,
    total: AtomicU64,
    errors: AtomicU64,
}

impl Findings {
    pub const KEPT: usize = 1000;

    /// From now on has something else in place of paths, which whoever reads the findings may not
    /// see. Said once, before there are any.
    pub fn show_paths_as(&self, shown: impl Fn(&[u8]) -> Vec<u8> + Send + Sync + 'static) {
        let _ = self.shown.set(Shown(Box::new(shown)));
    }

    pub fn add(&self, path: &[u8], code: &str, message: impl Into<String>, severity: Severity) {
        self.total.fetch_add(1, Ordering::Relaxed);
        if severity == Severity::Error {
            self.errors.fetch_add(1, Ordering::Relaxed);
        }
        let mut kept = self.kept.lock();
        if kept.len() < Self::KEPT {
            kept.push(Finding {
                path: self.shown.get().map_or_else(|| path.to_vec(), |shown| shown.0(path)),
                code: code.to_owned(),
                message: message.into(),
                severity,
            });
        }
    }

    pub fn error(&self, path: &[u8], code: &str, message: impl Into<String>) {
        self.add(path, code, message, Severity::Error);
    }

    pub fn warning(&self, path: &[u8], code: &str, message: impl Into<String>) {
        self.add(path, code, message, Severity::Warning);
    }

    pub fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    pub fn errors(&self) -> u64 {
        self.errors.load(Ordering::Relaxed)
    }

    pub fn kept(&self) -> Vec<Finding> {
        self.kept.lock().clone()
    }
}
