#![no_main]
use holdfast_engine_core::testing::parsers::named;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| (named("pack").feed)(bytes));
