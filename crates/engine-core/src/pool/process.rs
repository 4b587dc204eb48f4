//! Which process holds a job, and whether it still runs.
//!
//! A process is known by the boot of its kernel, the space its number counts in (containers have
//! their own), its number, and the moment it started, since numbers are used again. What cannot
//! be known counts as running: a lease ends that doubt.

use std::os::unix::fs::MetadataExt;

use crate::cbor::{self, Parsed, Reader};

/// A process, as another one on the same or another machine may judge it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// For people; never compared.
    pub host: String,
    /// Empty where the system does not tell.
    pub boot: String,
    /// The inode of the space of process numbers; 0 where the system does not tell.
    pub space: u64,
    pub number: u32,
    /// Clock ticks between boot and start; 0 where the system does not tell.
    pub started: u64,
}

impl Process {
    /// The process that this code runs in.
    pub fn current() -> Self {
        let number = std::process::id();
        Process {
            host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            boot: boot(),
            space: space(),
            number,
            started: started(number).unwrap_or(0),
        }
    }

    /// True only when it is certain that this is the process that asks.
    pub fn is_current(&self) -> bool {
        !self.boot.is_empty() && self.space != 0 && self.started != 0 && *self == Self::current()
    }

    /// True only when it is certain that the process has ended.
    pub fn is_gone(&self) -> bool {
        if self.boot.is_empty() || self.boot != boot() || self.space == 0 || self.space != space() {
            return false;
        }
        let number = i32::try_from(self.number).ok().and_then(rustix::process::Pid::from_raw);
        let Some(number) = number else { return false };
        if rustix::process::test_kill_process(number) == Err(rustix::io::Errno::SRCH) {
            return true;
        }
        started(self.number).is_some_and(|started| self.started != 0 && started != self.started)
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        cbor::write_array(out, 5);
        cbor::write_text(out, &self.host);
        cbor::write_text(out, &self.boot);
        cbor::write_uint(out, self.space);
        cbor::write_uint(out, u64::from(self.number));
        cbor::write_uint(out, self.started);
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Parsed<Self> {
        reader.tuple(5)?;
        Ok(Process {
            host: reader.text()?.to_owned(),
            boot: reader.text()?.to_owned(),
            space: reader.uint()?,
            number: reader.u32()?,
            started: reader.uint()?,
        })
    }
}

fn boot() -> String {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    text.trim().to_owned()
}

fn space() -> u64 {
    std::fs::metadata("/proc/self/ns/pid").map_or(0, |space| space.ino())
}

/// Field 22 of `/proc/N/stat`; the name before it may hold blanks and parentheses.
fn started(number: u32) -> Option<u64> {
    let text = std::fs::read(format!("/proc/{number}/stat")).ok()?;
    let after = text.iter().rposition(|byte| *byte == b')')? + 1;
    let fields = std::str::from_utf8(text.get(after..)?).ok()?;
    fields.split_ascii_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn this_process_runs_and_one_that_was_waited_for_is_gone() {
        let current = Process::current();
        assert!(current.started > 0 && !current.is_gone());
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let started = started(child.id()).unwrap();
        let other = Process { number: child.id(), started, ..current };
        assert!(!other.is_gone());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(other.is_gone());
    }

    #[test]
    fn a_number_used_again_is_another_process_and_another_machine_is_not_judged() {
        let current = Process::current();
        assert!(Process { started: current.started + 1, ..current.clone() }.is_gone());
        assert!(!Process { boot: "other".into(), number: 4_000_000, ..current.clone() }.is_gone());
        assert!(!Process { space: 1, number: 4_000_000, ..current }.is_gone());
    }
}
