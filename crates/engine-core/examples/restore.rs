//! Restores the newest image of a pool with a fixed key and prints what each stage took: the
//! engine alone, for profiling. `cargo run --release --example restore POOL DIRECTORY [WORKERS]`

use std::error::Error;
use std::sync::Arc;
use std::time::Instant;

use holdfast_engine_core::cancel::Cancel;
use holdfast_engine_core::counters::{Counters, Stage};
use holdfast_engine_core::finding::Findings;
use holdfast_engine_core::pool::Pool;
use holdfast_engine_core::restore::target::Overwrite;
use holdfast_engine_core::restore::{self, Request};
use holdfast_engine_core::store::posix::PosixStore;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let (place, to, workers) = match arguments.as_slice() {
        [_, place, to] => (place, to, 0),
        [_, place, to, workers] => (place, to, workers.parse()?),
        _ => return Err("want POOL DIRECTORY [WORKERS]".into()),
    };
    let pool = Pool::open(Arc::new(PosixStore::open(place)?), &[7; 32], None)?;
    let image = pool.images()?.pop().ok_or("no image")?.id;
    let request = Request {
        image,
        paths: Vec::new(),
        to: to.clone().into_bytes(),
        overwrite: Overwrite::Never,
        strip_components: 0,
        verify: false,
        workers,
    };
    let (counters, findings) = (Counters::default(), Arc::new(Findings::default()));
    let started = Instant::now();
    let outcome = restore::run(&pool, &request, &counters, &findings, &Cancel::new())?;
    println!("{:.3} s, {outcome:?}", started.elapsed().as_secs_f64());
    for finding in findings.kept().iter().take(10) {
        println!("{}: {}", finding.path.escape_ascii(), finding.message);
    }
    let seen = counters.snapshot();
    for stage in Stage::RESTORE {
        let own = seen.stages[stage as usize];
        println!(
            "{:10} {:9} items {:8.1} MB busy {:7.3} s starved {:7.3} s",
            stage.as_str(),
            own.items,
            own.bytes as f64 / 1e6,
            own.busy_ns as f64 / 1e9,
            own.starved_ns as f64 / 1e9,
        );
    }
    Ok(())
}
