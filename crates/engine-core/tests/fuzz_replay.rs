//! A short run of what `crates/engine-core/fuzz/run` does at length: every parser of stored bytes
//! is fed with its seeds, with what once broke one, and with rubbish made from the seeds.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};

use holdfast_engine_core::testing::parsers::{self, Mutations};

const MUTATIONS: usize = 20_000;

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

/// Inputs that once broke the parser; none is an empty folder.
fn regressions(name: &str) -> Vec<Vec<u8>> {
    let Ok(folder) = fs::read_dir(fuzz().join("regressions").join(name)) else {
        return Vec::new();
    };
    folder.map(|entry| fs::read(entry.unwrap().path()).unwrap()).collect()
}

#[test]
fn every_parser_withstands_its_seeds_changed_in_every_way() {
    for parser in &parsers::ALL {
        let mut inputs = (parser.seeds)();
        assert!(!inputs.is_empty(), "{} has no seeds", parser.name);
        inputs.extend(regressions(parser.name));
        for input in &inputs {
            (parser.feed)(input);
            for length in 0..input.len().min(400) {
                (parser.feed)(&input[..length]);
            }
        }
        for input in Mutations::new(parser.name, inputs).take(MUTATIONS) {
            if std::panic::catch_unwind(|| (parser.feed)(&input)).is_err() {
                panic!("the parser '{}' panics on {}", parser.name, hex(&input));
            }
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
