//! Which files a backup leaves out: rules in gitignore syntax, and directories that carry a
//! mark of their own.
//!
//! A rule that matches a directory leaves out all below it, so the caller prunes there and never
//! asks about what lies beneath.

use std::ffi::OsStr;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use ignore::gitignore::{Gitignore, GitignoreBuilder};

use super::list::NameList;
use super::open::open_file;
use crate::error::{Error, Result};

/// The rules for one root of a backup. Shared between threads.
#[derive(Debug)]
pub struct Rules {
    matcher: Gitignore,
}

impl Rules {
    /// Rules that leave nothing out.
    pub fn none() -> Self {
        Rules { matcher: Gitignore::empty() }
    }

    /// Takes lines in gitignore syntax, `!` for exceptions; the last line that matches decides.
    ///
    /// `?` stands for one byte, as it does in git.
    ///
    /// Rules are relative to `root`, the absolute path of what is backed up, as they would be in
    /// a `.gitignore` there. A rule that spells out an absolute path below the root means that
    /// path: for the root `/home`, `/home/me/tmp` is the same as `/me/tmp`.
    pub fn new<S: AsRef<str>>(root: &[u8], lines: &[S]) -> Result<Self> {
        let invalid = |line: &str, error: ignore::Error| {
            Error::Invalid(format!("the rule '{line}' is not gitignore syntax: {error}"))
        };
        let mut builder = GitignoreBuilder::new("");
        for line in lines {
            let line = line.as_ref();
            let rule = below_root(root, line);
            builder.add_line(None, &rule).map_err(|error| invalid(line, error))?;
        }
        let matcher = builder
            .build()
            .map_err(|error| Error::Invalid(format!("the rules cannot be used: {error}")))?;
        Ok(Rules { matcher })
    }

    /// Whether there is nothing to ask, so that no path need be put together.
    pub fn is_empty(&self) -> bool {
        self.matcher.is_empty()
    }

    /// Whether a rule leaves out `path`, which is relative to the root and has any bytes.
    pub fn excluded(&self, path: &[u8], is_dir: bool) -> bool {
        !self.matcher.is_empty()
            && self.matcher.matched(Path::new(OsStr::from_bytes(path)), is_dir).is_ignore()
    }
}

/// The rule with the root's own path taken off, where it begins with it.
fn below_root(root: &[u8], line: &str) -> String {
    let (sign, rule) = match line.strip_prefix('!') {
        Some(rule) => ("!", rule),
        None => ("", line),
    };
    let root = std::str::from_utf8(root).unwrap_or_default().trim_end_matches('/');
    match rule.strip_prefix(root) {
        Some(rest) if !root.is_empty() && rest.len() > 1 && rest.starts_with('/') => {
            format!("{sign}{rest}")
        }
        _ => line.to_owned(),
    }
}

/// Why a directory asks that its contents be left out. The directory itself and the file that
/// marks it are kept, so that a restore brings the mark back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// A `CACHEDIR.TAG` with the signature of the Cache Directory Tagging Specification.
    CacheTag,
    /// A `.nobackup` of any kind.
    NoBackup,
}

impl Mark {
    /// The name of the file that is the mark.
    pub fn file_name(self) -> &'static [u8] {
        match self {
            Mark::CacheTag => CACHE_TAG,
            Mark::NoBackup => NO_BACKUP,
        }
    }
}

const CACHE_TAG: &[u8] = b"CACHEDIR.TAG";
const NO_BACKUP: &[u8] = b".nobackup";
/// How the tag begins; whatever follows is free text.
const CACHE_SIGNATURE: &[u8] = b"Signature: 8a477f597d28d172789f06886806bc55";

/// The mark that a directory with these names carries. Costs nothing where no name is a mark's.
pub fn mark(dir: impl AsFd, names: &NameList) -> Option<Mark> {
    if nobackup(names) {
        Some(Mark::NoBackup)
    } else if names.contains(CACHE_TAG) && cache_tag(dir) {
        Some(Mark::CacheTag)
    } else {
        None
    }
}

/// Whether the directory's `CACHEDIR.TAG` is a regular file that begins with the signature.
pub fn cache_tag(dir: impl AsFd) -> bool {
    let mut start = Vec::with_capacity(CACHE_SIGNATURE.len());
    open_file(dir, CACHE_TAG).is_ok_and(|(file, _)| {
        let limit = CACHE_SIGNATURE.len() as u64;
        file.take(limit).read_to_end(&mut start).is_ok() && start == CACHE_SIGNATURE
    })
}

/// Whether a `.nobackup` is among the names.
pub fn nobackup(names: &NameList) -> bool {
    names.contains(NO_BACKUP)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn rules(lines: &[&str]) -> Rules {
        Rules::new(b"/home/me", lines).unwrap()
    }

    #[test]
    fn the_last_matching_line_decides() {
        let rules = rules(&["*.tmp", "!keep.tmp", "/build/", "a/**/z", "# note", ""]);
        assert!(rules.excluded(b"x.tmp", false));
        assert!(rules.excluded(b"deep/down/x.tmp", false));
        assert!(!rules.excluded(b"deep/keep.tmp", false));
        assert!(rules.excluded(b"build", true));
        assert!(!rules.excluded(b"build", false));
        assert!(!rules.excluded(b"sub/build", true));
        assert!(rules.excluded(b"a/b/c/z", false));
    }

    #[test]
    fn names_that_are_no_utf8_are_matched_as_bytes() {
        let rules = rules(&["*.o", "cach?", "caf??"]);
        assert!(rules.excluded(b"dir\xff/\xfe\xfd.o", false));
        assert!(rules.excluded(b"cach\xff", false));
        assert!(rules.excluded("café".as_bytes(), false));
        assert!(!rules.excluded(b"\xff.c", false));
    }

    #[test]
    fn a_rule_that_spells_out_the_root_means_the_absolute_path() {
        let rules = rules(&["/home/me/tmp", "!/home/me/tmp", "/home/me/cache/", "/home/meet"]);
        assert!(!rules.excluded(b"tmp", true));
        assert!(rules.excluded(b"cache", true));
        assert!(!rules.excluded(b"et", true));
        assert!(rules.excluded(b"home/meet", true));
    }

    #[test]
    fn no_rules_leave_nothing_out_and_a_bad_one_is_named() {
        assert!(Rules::none().is_empty());
        assert!(!Rules::none().excluded(b"x", false));
        let error = Rules::new(b"/", &["a{b"]).unwrap_err().to_string();
        assert!(error.contains("'a{b'"), "{error}");
    }
}
