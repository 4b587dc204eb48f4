//! What `qemu-img map` says of a disk of 1 MiB: lines of JSON.

use crate::disk::map::{DiskMap, Layer, Part, Run};

const SIZE: u64 = 1 << 20;

pub fn feed(bytes: &[u8]) {
    let part = Part { file: Some(0), covers: SIZE / 2 };
    let layer = Layer { parts: vec![part, Part { file: None, covers: SIZE }], slack: Some(5) };
    let Ok(map) = DiskMap::read(bytes, SIZE, &[], &[layer]) else { return };
    let mut at = 0;
    for Run { start, length, .. } in map.runs_from(0) {
        assert!(start == at && length > 0);
        at += length;
    }
    assert_eq!(at, SIZE);
    assert_eq!(map.direct_bytes(), 0, "there is no file that it could be in");
    let stretches = map.stretches(7);
    assert!(stretches.len() <= 7);
    assert_eq!(stretches.iter().map(|one| one.length).sum::<u64>(), SIZE);
}

/// Both are understood.
pub fn seeds() -> Vec<Vec<u8>> {
    let zero = r#""present": false, "zero": true, "data": false"#;
    let data = r#""present": true, "zero": false, "data": true"#;
    let one = format!(r#"[{{ "start": 0, "length": 1048576, "depth": 0, {zero}}}]"#);
    let two = format!(
        "[{{ \"start\": 0, \"length\": 65536, \"depth\": 0, {data}, \"offset\": 327680}},\n\
         {{ \"start\": 65536, \"length\": 917504, \"depth\": 1, {zero}, \"compressed\": false}},\n\
         {{ \"start\": 983040, \"length\": 65536, \"depth\": 0, {data}, \"compressed\": true}}]\n"
    );
    vec![one.into(), two.into()]
}
