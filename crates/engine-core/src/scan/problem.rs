//! Operating system errors about single files, in words that a person can act on.
//! The codes are stable: image manifests hold them.

use std::fmt;
use std::io;

use rustix::io::Errno;

use crate::finding::{Findings, Severity};

/// What went wrong with one file. Becomes a finding once the path is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub code: &'static str,
    pub message: String,
    pub severity: Severity,
}

impl Problem {
    pub fn error(code: &'static str, message: impl Into<String>) -> Self {
        Problem { code, message: message.into(), severity: Severity::Error }
    }

    pub fn warning(code: &'static str, message: impl Into<String>) -> Self {
        Problem { code, message: message.into(), severity: Severity::Warning }
    }

    /// Puts the problem on a job's list.
    pub fn report(self, findings: &Findings, path: &[u8]) {
        findings.add(path, self.code, self.message, self.severity);
    }
}

/// The file behind a name is another one than a moment ago.
#[derive(Debug)]
struct Replaced;

impl fmt::Display for Replaced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("it was replaced by something else meanwhile")
    }
}

impl std::error::Error for Replaced {}

/// The error for a name that suddenly stands for another file.
pub(crate) fn replaced() -> io::Error {
    io::Error::other(Replaced)
}

/// Whether a name stood for another file than a moment before.
pub fn is_replaced(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<Replaced>())
}

/// Words for an error met on the way to `doing` ("read it", "open the directory").
pub fn explain(error: &io::Error, doing: &str) -> Problem {
    if is_replaced(error) {
        return Problem::error("changed-while-read", format!("could not {doing}: {error}"));
    }
    let (code, reason) = match Errno::from_io_error(error) {
        Some(Errno::ACCESS | Errno::PERM) => {
            ("no-permission", "the user that runs this job has no permission".to_owned())
        }
        Some(Errno::NOENT) => ("vanished", "it was deleted or renamed meanwhile".to_owned()),
        // It went from the server, or all that the server shared did: nobody here can tell.
        Some(Errno::STALE) => {
            ("stale", "the file server does not know it any more (stale file handle)".to_owned())
        }
        Some(
            // SMB: the server is silent, or says that what it shared under this name is no more.
            errno @ (Errno::HOSTDOWN
            | Errno::REMCHG
            | Errno::HOSTUNREACH
            | Errno::NETDOWN
            | Errno::NETUNREACH
            | Errno::NONET
            | Errno::NOTCONN
            | Errno::CONNREFUSED
            | Errno::CONNRESET
            | Errno::CONNABORTED
            | Errno::SHUTDOWN),
        ) => (
            "network-name-not-found",
            format!("its file server can't be reached ({})", words(errno)),
        ),
        Some(Errno::NOTDIR | Errno::LOOP | Errno::ISDIR) => {
            ("changed-while-read", "it was replaced by something else meanwhile".to_owned())
        }
        Some(Errno::BUSY | Errno::TXTBSY | Errno::AGAIN) => {
            ("in-use", "another program holds it".to_owned())
        }
        Some(
            errno @ (Errno::IO | Errno::NXIO | Errno::NODEV | Errno::REMOTEIO | Errno::TIMEDOUT),
        ) => ("input-output", format!("the device or server failed ({})", words(errno))),
        Some(errno @ (Errno::UCLEAN | Errno::BADMSG)) => {
            ("damaged-file-system", format!("the file system is damaged there ({})", words(errno)))
        }
        Some(Errno::NOKEY) => {
            ("encrypted", "the file system's encryption key for it is not loaded".to_owned())
        }
        Some(Errno::MFILE | Errno::NFILE) => {
            ("too-many-open-files", "too many files are open".to_owned())
        }
        Some(errno) => ("input-output", words(errno)),
        None => ("input-output", error.to_string()),
    };
    Problem::error(code, format!("could not {doing}: {reason}"))
}

fn words(errno: Errno) -> String {
    let text = io::Error::from(errno).to_string();
    match text.split_once(" (os error") {
        Some((words, _)) => words.to_owned(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_trouble_has_its_code_and_plain_words() {
        for (errno, code) in [
            (Errno::ACCESS, "no-permission"),
            (Errno::NOENT, "vanished"),
            (Errno::NOTDIR, "changed-while-read"),
            (Errno::TXTBSY, "in-use"),
            (Errno::IO, "input-output"),
            (Errno::UCLEAN, "damaged-file-system"),
            (Errno::MFILE, "too-many-open-files"),
            (Errno::NOMEM, "input-output"),
            (Errno::TIMEDOUT, "input-output"),
            (Errno::REMOTEIO, "input-output"),
            (Errno::STALE, "stale"),
            (Errno::HOSTDOWN, "network-name-not-found"),
            (Errno::REMCHG, "network-name-not-found"),
            (Errno::HOSTUNREACH, "network-name-not-found"),
            (Errno::NETDOWN, "network-name-not-found"),
            (Errno::NETUNREACH, "network-name-not-found"),
            (Errno::NONET, "network-name-not-found"),
            (Errno::NOTCONN, "network-name-not-found"),
            (Errno::CONNREFUSED, "network-name-not-found"),
            (Errno::CONNRESET, "network-name-not-found"),
            (Errno::CONNABORTED, "network-name-not-found"),
            (Errno::SHUTDOWN, "network-name-not-found"),
        ] {
            let problem = explain(&errno.into(), "open it");
            assert_eq!(problem.code, code);
            assert!(problem.message.starts_with("could not open it: "), "{}", problem.message);
            assert!(!problem.message.contains("os error"), "{}", problem.message);
        }
        assert_eq!(explain(&replaced(), "read it").code, "changed-while-read");
    }
}
