//! Backs up a directory into a pool with a fixed key and prints what each stage took: the
//! engine alone, for profiling. `cargo run --release --example backup POOL PATH`

use std::error::Error;
use std::sync::Arc;
use std::time::Instant;

use holdfast_engine_core::backup::{self, Request};
use holdfast_engine_core::cancel::Cancel;
use holdfast_engine_core::counters::{Counters, Stage};
use holdfast_engine_core::finding::Findings;
use holdfast_engine_core::pool::{Pool, PoolConfig};
use holdfast_engine_core::store::posix::PosixStore;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let (place, path, level) = match arguments.as_slice() {
        [_, place, path] => (place, path, 2),
        [_, place, path, level] => (place, path, level.parse()?),
        _ => return Err("want POOL PATH [LEVEL]".into()),
    };
    std::fs::create_dir_all(place)?;
    let store = Arc::new(PosixStore::open(place)?);
    let key = [7; 32];
    let pool = match Pool::open(store.clone(), &key, None) {
        Ok(pool) => pool,
        Err(_) => Pool::create(store, &key, PoolConfig::default(), 0, None)?,
    };
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    let request = Request {
        paths: vec![path.clone().into_bytes()],
        source: format!("example:{path}"),
        host: "example".into(),
        started_ns: i64::try_from(now.as_nanos())?,
        exclude: Vec::new(),
        one_file_system: false,
        level,
        workers: 0,
        parent: None,
        read_all: false,
        labels: Default::default(),
        software: "example".into(),
    };
    let (counters, findings) = (Counters::default(), Findings::default());
    let started = Instant::now();
    let image = backup::run(&pool, &request, &counters, &findings, &Cancel::new())?;
    println!(
        "{:.3} s, image {} {}",
        started.elapsed().as_secs_f64(),
        image.id,
        image.status.as_str()
    );
    let seen = counters.snapshot();
    for (name, value) in seen.totals().into_iter().filter(|(_, value)| *value > 0) {
        println!("{name:20} {value}");
    }
    for stage in Stage::BACKUP {
        let own = seen.stages[stage as usize];
        println!(
            "{:10} {:9} items {:8.1} MB busy {:7.3} s starved {:7.3} s blocked {:7.3} s",
            stage.as_str(),
            own.items,
            own.bytes as f64 / 1e6,
            own.busy_ns as f64 / 1e9,
            own.starved_ns as f64 / 1e9,
            own.blocked_ns as f64 / 1e9
        );
    }
    Ok(())
}
