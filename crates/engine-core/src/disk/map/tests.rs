#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;

use super::*;
use crate::disk::{DiskSource, Patience, Piece};

const KIB: u64 = 1 << 10;

/// Gives a byte that nothing else has, and notes what it was asked for.
#[derive(Default)]
struct Others {
    size: u64,
    asked: Mutex<Vec<(u64, usize)>>,
}

impl DiskSource for Others {
    fn size(&self) -> u64 {
        self.size
    }

    fn read(&self, pieces: &mut [Piece<'_>], _: Patience<'_>) -> Result<()> {
        for piece in pieces {
            piece.bytes.fill(0xee);
            self.asked.lock().push((piece.offset, piece.bytes.len()));
        }
        Ok(())
    }
}

struct Bench {
    _directory: tempfile::TempDir,
    files: Vec<PathBuf>,
}

impl Bench {
    /// Files of these lengths, each full of its number and of where in it a KiB is.
    fn new(lengths: &[u64]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let make = |(number, length): (usize, &u64)| {
            let path = directory.path().join(format!("file{number}"));
            let bytes: Vec<u8> = (0..*length).map(|at| byte(number, at)).collect();
            std::fs::write(&path, bytes).unwrap();
            path
        };
        let files = lengths.iter().enumerate().map(make).collect();
        Bench { _directory: directory, files }
    }

    fn map(&self, said: &str, size: u64, layers: &[Layer]) -> Result<DiskMap> {
        DiskMap::read(said.as_bytes(), size, &self.files, layers)
    }
}

fn byte(file: usize, at: u64) -> u8 {
    (file as u64 * 100 + at / KIB) as u8
}

fn whole(file: usize) -> Layer {
    Layer { parts: vec![Part { file: Some(file), covers: 1 << 62 }], slack: Some(64 * KIB - 1) }
}

fn line(start: u64, length: u64, depth: u64, more: &str) -> String {
    format!(
        r#"{{ "start": {start}, "length": {length}, "depth": {depth}, "present": true, {more}}}"#
    )
}

fn at(offset: u64) -> String {
    format!(r#""zero": false, "data": true, "offset": {offset}"#)
}

const NONE: &str = r#""zero": true, "data": false"#;
const HIDDEN: &str = r#""zero": false, "data": true"#;

fn array(lines: &[String]) -> String {
    format!("[{}]\n", lines.join(",\n"))
}

#[test]
fn each_range_is_read_where_it_lies() {
    let bench = Bench::new(&[64 * KIB, 32 * KIB]);
    let said = array(&[
        line(0, 8 * KIB, 0, &at(4 * KIB)),
        line(8 * KIB, 8 * KIB, 1, &at(16 * KIB)),
        line(16 * KIB, 8 * KIB, 0, NONE),
        line(24 * KIB, 8 * KIB, 0, HIDDEN),
        line(32 * KIB, 8 * KIB, 0, &format!(r#"{}, "compressed": true"#, at(0))),
        line(40 * KIB, 4 * KIB, 0, &format!(r#"{}, "compressed": false, "new": [{{}}]"#, at(0))),
        line(44 * KIB, 4 * KIB, 7, &at(0)),
    ]);
    let size = 48 * KIB;
    let map = Arc::new(bench.map(&said, size, &[whole(0), whole(1)]).unwrap());
    assert_eq!(map.truncated(), None);
    assert_eq!(map.direct_bytes(), 20 * KIB);
    let others = Arc::new(Others { size, ..Others::default() });
    let source = MappedSource::new(Arc::clone(&map), others.clone()).unwrap();

    let truth = |offset: u64| match offset / KIB {
        0..8 => byte(0, offset + 4 * KIB),
        8..16 => byte(1, offset + 8 * KIB),
        16..24 => 0,
        40..44 => byte(0, offset - 40 * KIB),
        _ => 0xee,
    };
    for (offset, length) in [(0, size), (1, size - 2), (7 * KIB, 10 * KIB), (20 * KIB, 1)] {
        let found = source.read_at(offset, length as usize, &|| Ok(())).unwrap();
        let expected: Vec<u8> = (offset..offset + length).map(truth).collect();
        assert!(found == expected, "{length} bytes at {offset}");
    }
    let asked = others.asked.lock();
    assert_eq!(asked[..2], [(24 * KIB, 16 * KIB as usize), (44 * KIB, 4 * KIB as usize)]);
}

#[test]
fn several_pieces_at_once_are_each_filled() {
    let bench = Bench::new(&[64 * KIB]);
    let said = array(&[line(0, 32 * KIB, 0, &at(0)), line(32 * KIB, 32 * KIB, 0, HIDDEN)]);
    let map = Arc::new(bench.map(&said, 64 * KIB, &[whole(0)]).unwrap());
    let others = Arc::new(Others { size: 64 * KIB, ..Others::default() });
    let source = MappedSource::new(map, others).unwrap();
    let (mut one, mut two, mut none) = (vec![7; 2048], vec![7; 2048], Vec::new());
    let mut pieces = [
        Piece { offset: 31 * KIB, bytes: &mut one },
        Piece { offset: 5 * KIB, bytes: &mut two },
        Piece { offset: 0, bytes: &mut none },
    ];
    source.read(&mut pieces, &|| Ok(())).unwrap();
    assert_eq!((one[0], one[1024]), (31, 0xee));
    assert_eq!((two[0], two[1024]), (5, 6));
}

#[test]
fn patience_that_ends_ends_the_reading() {
    let bench = Bench::new(&[64 * KIB]);
    let said = array(&[line(0, 64 * KIB, 0, &at(0))]);
    let map = Arc::new(bench.map(&said, 64 * KIB, &[whole(0)]).unwrap());
    let others = Arc::new(Others { size: 64 * KIB, ..Others::default() });
    let source = MappedSource::new(map, others).unwrap();
    let ended = source.read_at(0, 1024, &|| Err(Error::Cancelled));
    assert!(matches!(ended, Err(Error::Cancelled)));
}

#[test]
fn parts_of_a_layer_are_told_apart() {
    let bench = Bench::new(&[64 * KIB, 64 * KIB]);
    let parts = vec![
        Part { file: Some(0), covers: 16 * KIB },
        Part { file: None, covers: 16 * KIB },
        Part { file: Some(1), covers: 16 * KIB },
    ];
    let layer = Layer { parts, slack: Some(0) };
    let said = array(&[
        line(0, 16 * KIB, 0, &at(1024)),
        line(16 * KIB, 16 * KIB, 0, &at(0)),
        line(32 * KIB, 16 * KIB, 0, &at(2048)),
    ]);
    let map = bench.map(&said, 48 * KIB, std::slice::from_ref(&layer)).unwrap();
    let lies: Vec<Lies> = map.runs_from(0).map(|run| run.lies).collect();
    let expected =
        [Lies::In { file: 0, offset: 1024 }, Lies::Elsewhere, Lies::In { file: 1, offset: 2048 }];
    assert_eq!(lies, expected);
    // Across a border nobody can say which file it is.
    let said = array(&[line(0, 40 * KIB, 0, &at(0)), line(40 * KIB, 8 * KIB, 0, &at(0))]);
    let map = bench.map(&said, 48 * KIB, &[layer]).unwrap();
    assert_eq!(map.direct_bytes(), 8 * KIB);
}

#[test]
fn of_a_disk_in_very_many_files_some_are_not_kept_open() {
    let bench = Bench::new(&[8 * KIB; MOST_OPEN + 2]);
    let count = bench.files.len();
    let parts = (0..count).map(|file| Part { file: Some(file), covers: 8 * KIB }).collect();
    let layer = Layer { parts, slack: Some(0) };
    let lines: Vec<_> =
        (0..count as u64).map(|number| line(number * 8 * KIB, 8 * KIB, 0, &at(0))).collect();
    let size = count as u64 * 8 * KIB;
    let map = bench.map(&array(&lines), size, std::slice::from_ref(&layer)).unwrap();
    assert_eq!(map.direct_bytes(), MOST_OPEN as u64 * 8 * KIB);
    assert_eq!(map.truncated(), None);
    std::fs::write(&bench.files[count - 1], b"short").unwrap();
    let map = bench.map(&array(&lines), size, &[layer]).unwrap();
    assert_eq!(map.truncated().unwrap().path, bench.files[count - 1]);
}

#[test]
fn what_lies_beyond_the_end_of_a_file_is_not_read_there() {
    let bench = Bench::new(&[20 * KIB + 100]);
    let said = array(&[line(0, 64 * KIB, 0, &at(0))]);
    let tight = Layer { slack: Some(40 * KIB), ..whole(0) };
    let map = bench.map(&said, 64 * KIB, std::slice::from_ref(&tight)).unwrap();
    let truncated = map.truncated().unwrap();
    assert_eq!((truncated.size, truncated.needed), (20 * KIB + 100, 64 * KIB));
    assert_eq!(truncated.path, bench.files[0]);
    for slack in [Some(44 * KIB), None] {
        let map = bench.map(&said, 64 * KIB, &[Layer { slack, ..whole(0) }]).unwrap();
        assert_eq!((map.truncated(), map.direct_bytes()), (None, 20 * KIB));
    }
    let said = array(&[line(0, 64 * KIB, 0, &at(u64::MAX - 5))]);
    let map = bench.map(&said, 64 * KIB, &[whole(0)]).unwrap();
    assert_eq!(map.direct_bytes(), 0);
}

#[test]
fn a_file_that_is_cut_off_meanwhile_is_named() {
    let bench = Bench::new(&[64 * KIB]);
    let said = array(&[line(0, 64 * KIB, 0, &at(0))]);
    let map = Arc::new(bench.map(&said, 64 * KIB, &[whole(0)]).unwrap());
    std::fs::File::options().write(true).open(&bench.files[0]).unwrap().set_len(1024).unwrap();
    let others = Arc::new(Others { size: 64 * KIB, ..Others::default() });
    let source = MappedSource::new(map, others).unwrap();
    let error = source.read_at(0, 4096, &|| Ok(())).unwrap_err();
    assert!(error.to_string().contains("file0' at byte 0"), "{error}");
}

#[test]
fn what_does_not_cover_the_disk_is_refused() {
    let bench = Bench::new(&[64 * KIB]);
    let first = line(0, 8 * KIB, 0, &at(0));
    for said in [
        String::new(),
        "[".into(),
        "[]".into(),
        array(std::slice::from_ref(&first)),
        array(&[first.clone(), line(12 * KIB, 4 * KIB, 0, &at(0))]),
        array(&[first.clone(), line(4 * KIB, 12 * KIB, 0, &at(0))]),
        array(&[first.clone(), line(8 * KIB, 9 * KIB, 0, &at(0))]),
        array(&[first.clone(), line(8 * KIB, u64::MAX, 0, &at(0))]),
        array(&[first.clone(), "oh no".into()]),
        array(&[first.clone(), r#"{ "start": -1 }"#.into()]),
        array(&[first.clone(), format!("{{{}", " ".repeat(70 << 10))]),
    ] {
        let error = bench.map(&said, 16 * KIB, &[whole(0)]).err().unwrap();
        assert!(matches!(error, Error::Unsupported(_)), "{error}");
    }
    let nothing = bench.map(&array(&[line(0, 0, 0, NONE)]), 0, &[whole(0)]).unwrap();
    assert_eq!((nothing.size(), nothing.stretches(5)), (0, vec![]));
}

#[test]
fn files_that_are_none_are_refused() {
    let said = array(&[line(0, 8 * KIB, 0, NONE)]);
    let directory = tempfile::tempdir().unwrap();
    let pipe = directory.path().join("pipe");
    let mode = rustix::fs::Mode::from_bits_truncate(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    for path in [pipe, directory.path().to_owned(), directory.path().join("none")] {
        assert!(DiskMap::read(said.as_bytes(), 8 * KIB, &[path], &[whole(0)]).is_err());
    }
}

#[test]
fn of_many_ranges_few_are_kept_and_few_are_told() {
    let bench = Bench::new(&[64 * KIB]);
    let size = 4000 * 64 * KIB;
    let mut said = String::from("[");
    for number in 0..4000 {
        let what = if number % 2 == 0 { at(0) } else { NONE.into() };
        writeln!(said, "{},", line(number * 64 * KIB, 64 * KIB, 0, &what)).unwrap();
    }
    let map = DiskMap::read_most(said.as_bytes(), size, &bench.files, &[whole(0)], 10_000).unwrap();
    assert_eq!(map.stretches(10_000).len(), 4000);
    let few = map.stretches(100);
    assert_eq!(few, [Stretch { offset: 0, length: size, is_zero: false }]);
    let map = DiskMap::read_most(said.as_bytes(), size, &bench.files, &[whole(0)], 1000).unwrap();
    assert!(map.runs_from(0).count() <= 1000);
    assert_eq!(map.size(), size);
}
