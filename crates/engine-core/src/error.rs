//! The one error type of the engine. Every variant has a stable code that is never reused;
//! `holdfast.base.errors` holds the Python class of each, and a test compares the two lists.

use std::io;
use std::sync::Arc;

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong. Messages name the object and the numbers; they carry no secrets.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The place holds something, or nothing, but no pool header.
    #[error("'{place}' is not a Holdfast pool: {reason}")]
    NotAPool { place: String, reason: String },
    /// Written by a newer Holdfast.
    #[error("{object} has format version {found}; this program reads up to {known}")]
    NewerFormat { object: String, found: u64, known: u64 },
    #[error("the key does not open {object}")]
    WrongKey { object: String },
    /// What is stored was sealed by a client, with a key that is not here.
    #[error("{object} is sealed with client key {key}")]
    ClientKeyNeeded { object: String, key: String },
    /// Stored bytes are not what was written. Never downgraded.
    #[error("{object} is damaged: {reason}")]
    Integrity { object: String, reason: String },
    #[error("object '{key}' is missing from the store")]
    ObjectMissing { key: String },
    #[error("object '{key}' exists already")]
    ObjectExists { key: String },
    #[error("no image '{image}' in the pool")]
    ImageMissing { image: String },
    #[error("chunk {name} is in no known pack")]
    ChunkMissing { name: String },
    #[error("no '{path}' in {within}")]
    PathMissing { path: String, within: String },
    #[error("a pool exists already at '{place}'")]
    PoolExists { place: String },
    #[error("{what}: {source}")]
    Io { what: String, source: io::Error },
    #[error("no space left: {what}")]
    NoSpace { what: String },
    #[error("no permission: {what}")]
    NoPermission { what: String },
    #[error("cancelled")]
    Cancelled,
    #[error("{0}")]
    Invalid(String),
    /// This job was declared dead while it worked; it must not commit.
    #[error("job {job} was declared dead by a garbage collection; nothing was committed")]
    Fenced { job: String },
    #[error("{what} is busy: {reason}")]
    Busy { what: String, reason: String },
    #[error("not supported: {0}")]
    Unsupported(String),
    /// What carries questions to a pool far away failed, and says why.
    #[error("{what}: {cause}")]
    Link { what: &'static str, cause: Arc<dyn std::error::Error + Send + Sync> },
}

impl Error {
    /// All codes, for the completeness test of the Python table.
    pub const CODES: [&'static str; 20] = [
        "not-a-pool",
        "newer-format",
        "wrong-key",
        "client-key-needed",
        "integrity",
        "object-missing",
        "object-exists",
        "image-missing",
        "chunk-missing",
        "path-missing",
        "pool-exists",
        "io",
        "no-space",
        "no-permission",
        "cancelled",
        "invalid",
        "fenced",
        "busy",
        "unsupported",
        "unreachable",
    ];

    pub fn code(&self) -> &'static str {
        match self {
            Error::NotAPool { .. } => "not-a-pool",
            Error::NewerFormat { .. } => "newer-format",
            Error::WrongKey { .. } => "wrong-key",
            Error::ClientKeyNeeded { .. } => "client-key-needed",
            Error::Integrity { .. } => "integrity",
            Error::ObjectMissing { .. } => "object-missing",
            Error::ObjectExists { .. } => "object-exists",
            Error::ImageMissing { .. } => "image-missing",
            Error::ChunkMissing { .. } => "chunk-missing",
            Error::PathMissing { .. } => "path-missing",
            Error::PoolExists { .. } => "pool-exists",
            Error::Io { .. } => "io",
            Error::NoSpace { .. } => "no-space",
            Error::NoPermission { .. } => "no-permission",
            Error::Cancelled => "cancelled",
            Error::Invalid(_) => "invalid",
            Error::Fenced { .. } => "fenced",
            Error::Busy { .. } => "busy",
            Error::Unsupported(_) => "unsupported",
            Error::Link { .. } => "unreachable",
        }
    }

    /// An operating system error about `what` (a verb and its object: "reading packs/ab/…").
    pub fn io(what: impl Into<String>, source: io::Error) -> Self {
        let what = what.into();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Error::NoSpace { what: format!("{what}: {source}") }
            }
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                Error::NoPermission { what: format!("{what}: {source}") }
            }
            _ => Error::Io { what, source },
        }
    }

    pub fn integrity(object: impl Into<String>, reason: impl Into<String>) -> Self {
        Error::Integrity { object: object.into(), reason: reason.into() }
    }

    pub fn is_missing(&self) -> bool {
        matches!(self, Error::ObjectMissing { .. })
    }
}

/// A copy for each of several threads that fail for the same reason.
impl Clone for Error {
    fn clone(&self) -> Self {
        match self {
            Error::NotAPool { place, reason } => {
                Error::NotAPool { place: place.clone(), reason: reason.clone() }
            }
            Error::NewerFormat { object, found, known } => {
                Error::NewerFormat { object: object.clone(), found: *found, known: *known }
            }
            Error::WrongKey { object } => Error::WrongKey { object: object.clone() },
            Error::ClientKeyNeeded { object, key } => {
                Error::ClientKeyNeeded { object: object.clone(), key: key.clone() }
            }
            Error::Integrity { object, reason } => {
                Error::Integrity { object: object.clone(), reason: reason.clone() }
            }
            Error::ObjectMissing { key } => Error::ObjectMissing { key: key.clone() },
            Error::ObjectExists { key } => Error::ObjectExists { key: key.clone() },
            Error::ImageMissing { image } => Error::ImageMissing { image: image.clone() },
            Error::ChunkMissing { name } => Error::ChunkMissing { name: name.clone() },
            Error::PathMissing { path, within } => {
                Error::PathMissing { path: path.clone(), within: within.clone() }
            }
            Error::PoolExists { place } => Error::PoolExists { place: place.clone() },
            Error::Io { what, source } => Error::Io {
                what: what.clone(),
                source: match source.raw_os_error() {
                    Some(code) => io::Error::from_raw_os_error(code),
                    None => io::Error::new(source.kind(), source.to_string()),
                },
            },
            Error::NoSpace { what } => Error::NoSpace { what: what.clone() },
            Error::NoPermission { what } => Error::NoPermission { what: what.clone() },
            Error::Cancelled => Error::Cancelled,
            Error::Invalid(text) => Error::Invalid(text.clone()),
            Error::Fenced { job } => Error::Fenced { job: job.clone() },
            Error::Busy { what, reason } => {
                Error::Busy { what: what.clone(), reason: reason.clone() }
            }
            Error::Unsupported(text) => Error::Unsupported(text.clone()),
            Error::Link { what, cause } => Error::Link { what, cause: Arc::clone(cause) },
        }
    }
}
