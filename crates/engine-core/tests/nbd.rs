//! Disks that an NBD server has: what is read is what the server says, in whatever order and
//! pieces, and nothing that a bad server says does harm.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use holdfast_engine_core::disk::nbd::{Abilities, NbdSink, NbdSource};
use holdfast_engine_core::disk::{DiskSink, DiskSource, Part, Piece};
use holdfast_engine_core::error::{Error, Result};
use proptest::prelude::*;

const READ: u16 = 0;
const WRITE: u16 = 1;
const DISCONNECT: u16 = 2;
const FLUSH: u16 = 3;
const WRITE_ZEROES: u16 = 6;

/// A question as a server reads it.
#[derive(Clone, Copy, Debug)]
struct Asked {
    command: u16,
    cookie: u64,
    offset: u64,
    length: u32,
}

fn asked(stream: &mut UnixStream) -> Option<Asked> {
    let mut head = [0; 28];
    stream.read_exact(&mut head).ok()?;
    assert_eq!(head[..6], [0x25, 0x60, 0x95, 0x13, 0, 0]);
    let number = |bytes: &[u8]| bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
    Some(Asked {
        command: number(&head[6..8]) as u16,
        cookie: number(&head[8..16]),
        offset: number(&head[16..24]),
        length: number(&head[24..]) as u32,
    })
}

fn simple(error: u32, cookie: u64, data: &[u8]) -> Vec<u8> {
    [&0x6744_6698_u32.to_be_bytes()[..], &error.to_be_bytes(), &cookie.to_be_bytes(), data].concat()
}

fn piece(is_last: bool, kind: u16, cookie: u64, body: &[u8]) -> Vec<u8> {
    let length = (body.len() as u32).to_be_bytes();
    let flags = u16::from(is_last).to_be_bytes();
    let kind = kind.to_be_bytes();
    [&0x668e_33ef_u32.to_be_bytes()[..], &flags, &kind, &cookie.to_be_bytes(), &length, body]
        .concat()
}

/// Runs a server at one end of a pair; the other end.
fn serve<T: Send + 'static>(
    work: impl FnOnce(UnixStream) -> T + Send + 'static,
) -> (OwnedFd, JoinHandle<T>) {
    let (here, there) = UnixStream::pair().unwrap();
    (here.into(), std::thread::spawn(move || work(there)))
}

fn patient() -> Result<()> {
    Ok(())
}

fn noise(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes
}

/// A server that takes up to so many questions, and answers the last first, in pieces.
fn sound_server(
    mut stream: UnixStream,
    mut disk: Vec<u8>,
    is_structured: bool,
    at_a_time: usize,
) -> (Vec<u8>, u32) {
    let mut flushed = 0;
    let mut open: Vec<Asked> = Vec::new();
    stream.set_read_timeout(Some(std::time::Duration::from_millis(20))).unwrap();
    loop {
        let mut first = [0; 1];
        let mut waits = rustix_peek(&stream, &mut first);
        if waits == Some(0) {
            return (disk, flushed);
        }
        if waits.is_some() {
            stream.set_read_timeout(None).unwrap();
            let Some(question) = asked(&mut stream) else { return (disk, flushed) };
            let (from, upto) =
                (question.offset as usize, question.offset as usize + question.length as usize);
            match question.command {
                READ => open.push(question),
                WRITE => {
                    stream.read_exact(&mut disk[from..upto]).unwrap();
                    stream.write_all(&simple(0, question.cookie, &[])).unwrap();
                }
                WRITE_ZEROES => {
                    disk[from..upto].fill(0);
                    stream.write_all(&simple(0, question.cookie, &[])).unwrap();
                }
                FLUSH => {
                    flushed += 1;
                    stream.write_all(&simple(0, question.cookie, &[])).unwrap();
                }
                DISCONNECT => return (disk, flushed),
                other => panic!("command {other}"),
            }
            stream.set_read_timeout(Some(std::time::Duration::from_millis(20))).unwrap();
            if open.len() < at_a_time {
                continue;
            }
            waits = None;
        }
        if waits.is_none() {
            while let Some(question) = open.pop() {
                let from = question.offset as usize;
                let bytes = &disk[from..from + question.length as usize];
                if !is_structured {
                    stream.write_all(&simple(0, question.cookie, bytes)).unwrap();
                    continue;
                }
                // The later half first, as a hole where it is one.
                let (front, back) = bytes.split_at(bytes.len() / 2);
                for (at, part) in [(from + front.len(), back), (from, front)] {
                    if part.is_empty() {
                        continue;
                    }
                    let place = (at as u64).to_be_bytes();
                    let answer = match part.iter().all(|byte| *byte == 0) {
                        true => {
                            let length = (part.len() as u32).to_be_bytes();
                            piece(false, 2, question.cookie, &[&place[..], &length].concat())
                        }
                        false => piece(false, 1, question.cookie, &[&place[..], part].concat()),
                    };
                    stream.write_all(&answer).unwrap();
                }
                stream.write_all(&piece(true, 0, question.cookie, &[])).unwrap();
            }
        }
    }
}

/// Whether something waits to be read: `Some(0)` at the end, none for nothing yet.
fn rustix_peek(stream: &UnixStream, first: &mut [u8; 1]) -> Option<usize> {
    use std::os::fd::AsRawFd;
    // SAFETY: the buffer is one byte long, and the socket is open.
    let got =
        unsafe { libc::recv(stream.as_raw_fd(), first.as_mut_ptr().cast(), 1, libc::MSG_PEEK) };
    usize::try_from(got).ok()
}

fn read(source: &NbdSource, offset: u64, length: usize) -> Result<Vec<u8>> {
    source.read_at(offset, length, &patient)
}

#[test]
fn what_is_read_is_what_the_server_has_in_whatever_order_it_answers() {
    let mut disk = noise(6 << 20);
    disk[1 << 20..2 << 20].fill(0);
    for is_structured in [false, true] {
        let (sockets, servers): (Vec<_>, Vec<_>) = (0..2)
            .map(|_| {
                let disk = disk.clone();
                serve(move |stream| sound_server(stream, disk, is_structured, 8))
            })
            .unzip();
        let source = NbdSource::new(sockets, disk.len() as u64, is_structured).unwrap();
        std::thread::scope(|scope| {
            for thread in 0..3 {
                let (source, disk) = (&source, &disk);
                scope.spawn(move || {
                    for (offset, length) in
                        [(0, disk.len()), (thread * 700_001, 1_234_567), (disk.len() - 5, 100)]
                    {
                        let upto = disk.len().min(offset + length);
                        let got = read(source, offset as u64, length).unwrap();
                        assert!(got == disk[offset..upto], "{length} bytes at {offset}");
                    }
                });
            }
        });
        let mut buffers = [vec![0; 3], vec![0; 70_000]];
        let [a, b] = &mut buffers;
        let mut pieces = [Piece { offset: 9, bytes: a }, Piece { offset: 2_000_000, bytes: b }];
        source.read(&mut pieces, &patient).unwrap();
        assert!(buffers[0] == disk[9..12] && buffers[1] == disk[2_000_000..2_070_000]);
        drop(source);
        servers.into_iter().for_each(|server| drop(server.join().unwrap()));
    }
}

#[test]
fn no_request_crosses_a_multiple_of_the_grain() {
    let disk = noise(1 << 20);
    for (grain, most) in [(65_536, 65_536), (1 << 20, 512 << 10), (u64::MAX, 512 << 10)] {
        let there = disk.clone();
        let (socket, server) = serve(move |mut stream| {
            let mut lengths = Vec::new();
            while let Some(question) = asked(&mut stream).filter(|one| one.command == READ) {
                let (from, length) = (question.offset, u64::from(question.length));
                assert_eq!(from / grain, (from + length - 1) / grain, "{length} bytes at {from}");
                lengths.push(length);
                let bytes = &there[from as usize..(from + length) as usize];
                stream.write_all(&simple(0, question.cookie, bytes)).unwrap();
            }
            lengths
        });
        let source = NbdSource::new(vec![socket], disk.len() as u64, false).unwrap();
        let source = source.in_grains(grain).unwrap();
        for (offset, length) in [(0, 1 << 20), (1000, 700_000), (65_535, 2), (65_536, 65_536)] {
            assert!(read(&source, offset as u64, length).unwrap() == disk[offset..offset + length]);
        }
        drop(source);
        let lengths = server.join().unwrap();
        assert_eq!(lengths.iter().copied().max(), Some(most));
        assert_eq!(lengths.iter().sum::<u64>(), (1 << 20) + 700_000 + 2 + 65_536);
    }
    let (socket, _) = serve(|_| ());
    let source = NbdSource::new(vec![socket], 1 << 20, false).unwrap();
    assert!(matches!(source.in_grains(0), Err(Error::Invalid(_))));
}

#[test]
fn what_is_written_is_on_the_servers_disk_and_each_connection_is_flushed() {
    let bytes = noise(3 << 20);
    for can_zero in [false, true] {
        let old = vec![7; 4 << 20];
        let (socket, server) = serve(move |stream| sound_server(stream, old, false, 1));
        let abilities = Abilities {
            is_structured: false,
            can_zero,
            can_flush: true,
            one_flush: false,
            stale: Vec::new(),
        };
        let sink = NbdSink::new(vec![socket], 4 << 20, abilities).unwrap();
        let parts = [Part { offset: 100, bytes: &bytes }, Part { offset: 0, bytes: &bytes[..10] }];
        sink.write(&parts, &patient).unwrap();
        sink.zero(3_500_000, 600_000, &patient).unwrap();
        sink.flush(&patient).unwrap();
        let mut again = vec![0; 50];
        sink.read(&mut [Piece { offset: 100, bytes: &mut again }], &patient).unwrap();
        assert_eq!(again, bytes[..50]);
        sink.close();
        assert!(sink.flush(&patient).is_err());
        let (disk, flushed) = server.join().unwrap();
        let mut expected = vec![7; 4 << 20];
        expected[100..100 + bytes.len()].copy_from_slice(&bytes);
        expected[..10].copy_from_slice(&bytes[..10]);
        expected[3_500_000..4_100_000].fill(0);
        assert!(disk == expected);
        assert_eq!(flushed, 1);
    }
}

/// What a read of 1000 bytes at 5000 becomes when the server answers so.
fn answered(is_structured: bool, answer: impl Fn(Asked) -> Vec<u8> + Send + 'static) -> Error {
    let (socket, server) = serve(move |mut stream| {
        while let Some(question) = asked(&mut stream) {
            if question.command == DISCONNECT || stream.write_all(&answer(question)).is_err() {
                break;
            }
        }
    });
    let source = NbdSource::new(vec![socket], 1 << 20, is_structured).unwrap();
    let error = read(&source, 5000, 1000).unwrap_err();
    drop(source);
    server.join().unwrap();
    error
}

#[test]
fn answers_that_a_server_may_not_give_are_named_with_the_place() {
    let data = |offset: u64, length: usize| [&offset.to_be_bytes()[..], &vec![1; length]].concat();
    type Answer = Box<dyn Fn(Asked) -> Vec<u8> + Send>;
    let cases: Vec<(bool, &str, Answer)> = vec![
        (false, "that is none", Box::new(|_| vec![0; 100])),
        (false, "was not asked", Box::new(|asked| simple(0, asked.cookie + 1, &[0; 1000]))),
        (false, "not agreed on", Box::new(|asked| piece(true, 0, asked.cookie, &[]))),
        (true, "not agreed on", Box::new(|asked| simple(0, asked.cookie, &[0; 1000]))),
        (true, "lacks", Box::new(|asked| piece(true, 0, asked.cookie, &[]))),
        (true, "lacks", Box::new(move |asked| piece(true, 1, asked.cookie, &data(5000, 999)))),
        (true, "outside", Box::new(move |asked| piece(true, 1, asked.cookie, &data(4999, 1000)))),
        (true, "outside", Box::new(move |asked| piece(true, 1, asked.cookie, &data(5000, 1001)))),
        (true, "nothing", Box::new(move |asked| piece(true, 1, asked.cookie, &data(5000, 0)))),
        (true, "nowhere", Box::new(|asked| piece(true, 1, asked.cookie, &[0; 7]))),
        (true, "no meaning", Box::new(|asked| piece(false, 0, asked.cookie, &[]))),
        (true, "no meaning", Box::new(|asked| piece(true, 5, asked.cookie, &[0; 12]))),
        (true, "no meaning", Box::new(|asked| piece(true, 0x8001, asked.cookie, &[0; 5000]))),
        (
            true,
            "repeats",
            Box::new(move |asked| {
                let half = piece(false, 1, asked.cookie, &data(5000, 500));
                [&half[..], &half, &piece(true, 0, asked.cookie, &[])].concat()
            }),
        ),
        (
            true,
            "outside",
            Box::new(|asked| {
                let hole = [&5000_u64.to_be_bytes()[..], &u32::MAX.to_be_bytes()].concat();
                piece(true, 2, asked.cookie, &hole)
            }),
        ),
    ];
    for (is_structured, expected, answer) in cases {
        let error = answered(is_structured, answer);
        let text = error.to_string();
        assert!(text.contains(expected) && text.contains("at byte 5000"), "{expected}: {text}");
        assert_eq!(error.code(), "io");
    }
}

#[test]
fn an_error_of_the_server_is_told_and_the_connection_goes_on() {
    for is_structured in [false, true] {
        let (socket, server) = serve(move |mut stream| {
            while let Some(question) = asked(&mut stream) {
                let bytes = vec![5; question.length as usize];
                let offset = question.offset.to_be_bytes();
                let answer = match (question.command, question.offset < 600_000, is_structured) {
                    (DISCONNECT, ..) => return,
                    (_, true, true) => {
                        piece(true, 1, question.cookie, &[&offset[..], &bytes].concat())
                    }
                    (_, true, false) => simple(0, question.cookie, &bytes),
                    (_, false, false) => simple(5, question.cookie, &[]),
                    (_, false, true) => {
                        let text = b"a bad sector";
                        let place = 1_100_000_u64.to_be_bytes();
                        let body = [&5_u32.to_be_bytes()[..], &[0, 12], &text[..], &place].concat();
                        piece(true, 0x8002, question.cookie, &body)
                    }
                };
                stream.write_all(&answer).unwrap();
            }
        });
        let source = NbdSource::new(vec![socket], 4 << 20, is_structured).unwrap();
        let error = read(&source, 0, 4 << 20).unwrap_err();
        let expected = if is_structured { "at byte 1100000" } else { "at byte 1048576" };
        assert!(error.to_string().contains(expected), "{error}");
        assert!(error.to_string().contains("os error 5"), "{error}");
        assert_eq!(read(&source, 10, 5).unwrap(), [5; 5]);
        drop(source);
        server.join().unwrap();
    }
}

#[test]
fn the_death_of_a_server_is_named() {
    for dies_after in [0, 28, 30] {
        let (socket, server) = serve(move |mut stream| {
            let mut taken = vec![0; 28];
            stream.read_exact(&mut taken).unwrap();
            let _ = stream.write_all(&simple(0, 1, &[1; 20])[..dies_after]);
        });
        let source = NbdSource::new(vec![socket], 1 << 20, false).unwrap();
        let error = read(&source, 4096, 100).unwrap_err().to_string();
        assert!(error.contains("at byte 4096: the NBD server has closed"), "{error}");
        let error = read(&source, 4096, 100).unwrap_err().to_string();
        assert!(error.contains("no longer there"), "{error}");
        server.join().unwrap();
    }
    let error = NbdSource::new(Vec::new(), 1, false).err().unwrap();
    assert_eq!(error.code(), "invalid");
}

#[test]
fn whoever_waits_for_a_silent_server_may_give_up() {
    let (socket, server) = serve(|mut stream| {
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
    });
    let source = NbdSource::new(vec![socket], 1 << 20, true).unwrap();
    let waited = AtomicBool::new(false);
    let patience = || match waited.swap(true, Ordering::SeqCst) {
        false => Ok(()),
        true => Err(Error::Cancelled),
    };
    let error = source.read_at(0, 100, &patience).unwrap_err();
    assert_eq!(error.code(), "cancelled");
    drop(source);
    server.join().unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn rubbish_ends_in_an_error_or_an_answer_and_never_in_a_panic(
        is_structured in any::<bool>(),
        length in 1..3000_u32,
        pieces in prop::collection::vec(
            (
                prop_oneof![Just(0_u16), Just(1), Just(2), Just(0x8001), Just(0x8002), any::<u16>()],
                any::<bool>(),
                0..4_u64,
                prop::collection::vec(prop_oneof![Just(0_u8), any::<u8>()], 0..40),
                any::<bool>(),
            ),
            0..6,
        ),
    ) {
        let (socket, server) = serve(move |mut stream| {
            let mut head = [0; 28];
            let _ = stream.read_exact(&mut head);
            for (kind, is_last, cookie, body, is_simple) in pieces {
                let bytes = match is_simple {
                    true => simple(u32::from(kind), cookie, &body),
                    false => piece(is_last, kind, cookie, &body),
                };
                let _ = stream.write_all(&bytes);
            }
        });
        let source = NbdSource::new(vec![socket], 1 << 20, is_structured).unwrap();
        if let Ok(bytes) = read(&source, 0, length as usize) {
            prop_assert_eq!(bytes.len(), length as usize);
        }
        drop(source);
        server.join().unwrap();
    }
}
