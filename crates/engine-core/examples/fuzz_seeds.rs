//! Writes the seeds of every fuzz target to DIRECTORY/TARGET/.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::path::PathBuf;

use holdfast_engine_core::testing::parsers;

fn main() {
    let directory = PathBuf::from(std::env::args_os().nth(1).expect("usage: fuzz_seeds DIRECTORY"));
    for parser in &parsers::ALL {
        let target = directory.join(parser.name);
        fs::create_dir_all(&target).unwrap();
        for (number, seed) in (parser.seeds)().iter().enumerate() {
            fs::write(target.join(format!("seed-{number}")), seed).unwrap();
        }
    }
}
