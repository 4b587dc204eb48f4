//! Names of temporary files: they tell who writes them, so that what a dead writer left can be
//! swept and what a living one works on is left alone.

use std::fs;

use rustix::process::{Pid, test_kill_process};

use crate::error::Result;
use crate::ids::{hex, random_bytes};
use crate::store::key::RESERVED;

/// A process of one run of one system. `run` is the boot and the process namespace: within the
/// same run a process number means the same process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Writer {
    pub run: String,
    pub pid: u32,
}

impl Writer {
    pub fn this_process() -> Self {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let namespace = fs::read_link("/proc/self/ns/pid").unwrap_or_default();
        let letters = |text: &str| text.chars().filter(char::is_ascii_alphanumeric).collect();
        let (boot, namespace): (String, String) =
            (letters(boot.trim()), letters(&namespace.to_string_lossy()));
        // Unknown is equal to nothing, so that nobody is taken for dead by mistake.
        let run = if boot.is_empty() || namespace.is_empty() {
            String::from("unknown")
        } else {
            format!("{boot}.{namespace}")
        };
        Writer { run, pid: std::process::id() }
    }

    /// Whether the process has ended; `None` when that cannot be seen from here.
    pub fn is_gone(&self) -> Option<bool> {
        let here = Writer::this_process();
        if self.run != here.run || self.run == "unknown" {
            return None;
        }
        let pid = Pid::from_raw(i32::try_from(self.pid).ok()?)?;
        Some(test_kill_process(pid) == Err(rustix::io::Errno::SRCH))
    }

    /// A path for a new temporary file; no two calls give the same.
    pub fn new_path(&self) -> Result<String> {
        let mut tail = [0; 8];
        random_bytes(&mut tail)?;
        Ok(format!("{RESERVED}/{}-{}-{}", self.run, self.pid, hex(&tail)))
    }

    /// Who made the temporary file of this name; `None` for a file that is no writer's.
    pub fn of_name(name: &str) -> Option<Self> {
        let mut parts = name.split('-');
        let (run, pid, tail) = (parts.next()?, parts.next()?, parts.next()?);
        (parts.next().is_none() && !run.is_empty() && tail.len() == 16)
            .then_some(Writer { run: run.to_owned(), pid: pid.parse().ok()? })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_temporary_name_tells_its_writer() {
        let writer = Writer::this_process();
        let path = writer.new_path().unwrap();
        assert_eq!(Writer::of_name(path.strip_prefix("tmp/").unwrap()), Some(writer.clone()));
        assert_ne!(path, writer.new_path().unwrap());
        for name in ["", "a", "a-b-c", "a-1-", "-1-0123456789abcdef", "a-1-0123456789abcdef-x"] {
            assert_eq!(Writer::of_name(name), None, "{name:?}");
        }
    }

    #[test]
    fn this_process_lives_and_one_that_was_waited_for_is_gone() {
        let here = Writer::this_process();
        assert_eq!(here.is_gone(), Some(false));
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        child.wait().unwrap();
        assert_eq!(Writer { pid, ..here.clone() }.is_gone(), Some(true));
        assert_eq!(Writer { run: "elsewhere".into(), ..here }.is_gone(), None);
    }
}
