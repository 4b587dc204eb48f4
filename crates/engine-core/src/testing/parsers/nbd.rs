//! What an NBD server says to somebody who reads: answers in either form, one after the other.
//!
//! The first byte tells which form was agreed on; the rest is all that the server ever says.

use std::io::Write;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use crate::disk::nbd::NbdSource;
use crate::disk::{DiskSource, Piece};

/// Two questions, that is under the cookies 1 and 2: where, and for how many bytes.
const ASKED: [(u64, usize); 2] = [(512, 700), (1 << 20, 300)];
/// More would not fit into a socket that nobody reads from yet.
const MOST: usize = 64 << 10;
const SIMPLE: u32 = 0x6744_6698;
const STRUCTURED: u32 = 0x668e_33ef;

pub fn feed(bytes: &[u8]) {
    let Some((form, said)) = bytes.split_first() else { return };
    if said.len() > MOST {
        return;
    }
    let is_structured = form & 1 == 1;
    let (here, mut there) = UnixStream::pair().unwrap();
    there.write_all(said).unwrap();
    there.shutdown(Shutdown::Write).unwrap();
    let source = NbdSource::new(vec![here.into()], 2 << 20, is_structured).unwrap();
    let mut buffers = ASKED.map(|(_, length)| vec![0xaa; length]);
    let [one, two] = &mut buffers;
    let [(first, _), (second, _)] = ASKED;
    let mut pieces = [Piece { offset: first, bytes: one }, Piece { offset: second, bytes: two }];
    let read = source.read(&mut pieces, &|| Ok(()));
    drop(source);
    if read.is_ok() && !is_structured {
        assert!(buffers == plainly(said), "other bytes than the server sent");
    }
}

/// The answers of a server that was believed, read once more: simple ones, each of them sound.
fn plainly(mut said: &[u8]) -> [Vec<u8>; 2] {
    let mut found = ASKED.map(|_| Vec::new());
    for _ in ASKED {
        let (head, rest) = said.split_at(16);
        assert_eq!(head[..8], [SIMPLE.to_be_bytes(), [0; 4]].concat());
        let at = usize::from(head[15]) - 1;
        let (data, rest) = rest.split_at(ASKED[at].1);
        found[at] = data.to_vec();
        said = rest;
    }
    found
}

fn simple(error: u32, cookie: u64, data: &[u8]) -> Vec<u8> {
    [&SIMPLE.to_be_bytes()[..], &error.to_be_bytes(), &cookie.to_be_bytes(), data].concat()
}

fn piece(flags: u16, kind: u16, cookie: u64, body: &[u8]) -> Vec<u8> {
    let (flags, kind, cookie) = (flags.to_be_bytes(), kind.to_be_bytes(), cookie.to_be_bytes());
    let length = (body.len() as u32).to_be_bytes();
    [&STRUCTURED.to_be_bytes()[..], &flags, &kind, &cookie, &length, body].concat()
}

fn data(offset: u64, bytes: &[u8]) -> Vec<u8> {
    [&offset.to_be_bytes()[..], bytes].concat()
}

fn hole(offset: u64, length: u32) -> Vec<u8> {
    [&offset.to_be_bytes()[..], &length.to_be_bytes()].concat()
}

pub fn seeds() -> Vec<Vec<u8>> {
    let [(first, one), (second, two)] = ASKED;
    let (some, others) = (vec![1; one], vec![2; two]);
    let error_at = [&5_u32.to_be_bytes()[..], &[0, 2], b"no", &(first + 5).to_be_bytes()].concat();
    vec![
        [&[0][..], &simple(0, 1, &some), &simple(0, 2, &others)].concat(),
        [&[0][..], &simple(0, 2, &others), &simple(0, 1, &some)].concat(),
        [&[0][..], &simple(5, 1, &[]), &simple(0, 2, &others)].concat(),
        [
            &[1][..],
            &piece(0, 1, 1, &data(first + 100, &some[100..])),
            &piece(1, 1, 2, &data(second, &others)),
            &piece(0, 2, 1, &hole(first, 100)),
            &piece(1, 0, 1, &[]),
        ]
        .concat(),
        [&[1][..], &piece(1, 0x8002, 1, &error_at), &piece(1, 2, 2, &hole(second, 300))].concat(),
        [&[1][..], &piece(1, 0x8001, 2, &[0, 0, 0, 28, 0, 0]), &piece(1, 2, 1, &hole(first, 700))]
            .concat(),
    ]
}
