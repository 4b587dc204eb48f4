//! What `qemu-img map --output=json` says: an array with one range a line.
//!
//! Memory is for one line. More words than are known are passed over: newer versions say more.

use std::io::{BufRead, BufReader, Read};

use serde::Deserialize;

use crate::error::{Error, Result};

use super::not_understood;

const LONGEST_LINE: u64 = 64 << 10;
const BUFFER_BYTES: usize = 256 << 10;

/// A range of a disk.
#[derive(Debug, Deserialize)]
pub struct Line {
    pub start: u64,
    pub length: u64,
    /// How many disks beneath the outermost one it is found in.
    pub depth: u64,
    /// It reads as zeroes.
    pub zero: bool,
    /// It is in a file, in whatever form.
    pub data: bool,
    /// Where it is in that file, as it is.
    pub offset: Option<u64>,
    #[serde(default)]
    pub compressed: bool,
}

/// Hands over one range after the other.
pub fn read(said: impl Read, mut each: impl FnMut(Line) -> Result<()>) -> Result<()> {
    let mut said = BufReader::with_capacity(BUFFER_BYTES, said);
    let mut line = Vec::new();
    loop {
        line.clear();
        let count = (&mut said).take(LONGEST_LINE).read_until(b'\n', &mut line);
        let count = count.map_err(|error| Error::io("reading what qemu-img says", error))?;
        if count == 0 {
            return Ok(());
        }
        let is_frame = |byte: &u8| matches!(byte, b'[' | b']' | b',') || byte.is_ascii_whitespace();
        let begin = line.iter().position(|byte| !is_frame(byte)).unwrap_or(line.len());
        let end = line.iter().rposition(|byte| !is_frame(byte)).map_or(begin, |last| last + 1);
        let object = line.get(begin..end).unwrap_or_default();
        if !object.is_empty() {
            let parsed = serde_json::from_slice(object);
            each(parsed.map_err(|error| not_understood(&error.to_string()))?)?;
        }
    }
}
