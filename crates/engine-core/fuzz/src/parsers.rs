//! Feeds one parser of stored bytes with what libFuzzer makes up, guided by coverage: see `run`.
//!
//! `FUZZ_TARGET` names the parser; without it the names of all are printed. The parser's sound
//! examples are written to the directory `FUZZ_SEEDS`, if that is given, before anything is read.
//! One program for all, because linking one takes longer than a short run of it.
#![no_main]
#![allow(clippy::panic, clippy::expect_used)]

use std::sync::OnceLock;
use std::{env, fs, path::Path, process};

use holdfast_engine_core::testing::parsers::{self, Parser};

static PARSER: OnceLock<&Parser> = OnceLock::new();

libfuzzer_sys::fuzz_target!(
    init: PARSER.get_or_init(chosen),
    |bytes: &[u8]| (PARSER.get_or_init(chosen).feed)(bytes)
);

fn chosen() -> &'static Parser {
    let Ok(name) = env::var("FUZZ_TARGET") else {
        for parser in &parsers::ALL {
            println!("{}", parser.name);
        }
        process::exit(0);
    };
    let Some(parser) = parsers::ALL.iter().find(|parser| parser.name == name) else {
        eprintln!("there is no parser '{name}'");
        process::exit(64);
    };
    if let Some(directory) = env::var_os("FUZZ_SEEDS") {
        for (number, seed) in (parser.seeds)().iter().enumerate() {
            let path = Path::new(&directory).join(format!("seed-{number}"));
            fs::write(path, seed).expect("the directory of the seeds can be written to");
        }
    }
    parser
}
