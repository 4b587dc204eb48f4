//! Answers one client that has a disk of an image, over a socket that is past negotiation.
//!
//! Read-only. Invariants: a client has a bounded number of requests under way, each of a bounded
//! length; a range that is not within the disk is refused before anything is read; what cannot be
//! read is an error to the client, never zeroes; an answer is sent whole, or the client is left.
//!
//! Some threads take turns at the socket: one waits for the next request while others read and
//! answer theirs, so that no request is handed from one thread to another.

use std::io::{self, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use parking_lot::Mutex;

use crate::error::{Error, Result};
use crate::reader::FileReader;
use crate::tree::entry::Extent;

use super::wire;

/// The longest read; clients are told so when they agree on an export.
const LONGEST: u32 = 32 << 20;
/// Requests of one client that are under way.
const WORKERS: usize = 4;
/// How long a client may take to accept some of an answer.
const STALL: Duration = Duration::from_secs(120);
/// Holes shorter than this are sent as the zeroes that they are.
const JOINED: u64 = 4096;
/// An answer is in one piece rather than in more than these.
const PIECES: usize = 64;
/// Extents that one answer tells.
const EXTENTS: usize = 8192;
/// Memory that a thread keeps between requests.
const KEPT_BYTES: usize = 1 << 20;
const ZEROES: [u8; 4096] = [0; 4096];

/// What the client and whoever speaks for this server agreed on.
#[derive(Clone, Copy, Debug)]
pub struct Agreed {
    pub is_structured: bool,
    /// It may ask what is allocated.
    pub tells_allocation: bool,
}

/// Answers until the client leaves, or is left because it says what it must not or takes no
/// answers. `begun` is what it has said already; `troubled` is told of what could not be read.
/// Whoever shuts the socket down ends this.
pub fn serve(
    socket: OwnedFd,
    begun: Vec<u8>,
    disk: &FileReader,
    agreed: Agreed,
    troubled: &(dyn Fn(&Error) + Sync),
) -> Result<()> {
    let failed = |error| Error::io("serving a disk", error);
    let asked = UnixStream::from(socket);
    asked.set_nonblocking(false).map_err(failed)?;
    asked.set_write_timeout(Some(STALL)).map_err(failed)?;
    asked.set_read_timeout(None).map_err(failed)?;
    let answered = asked.try_clone().map_err(failed)?;
    let left = asked.try_clone().map_err(failed)?;
    let asked = BufReader::with_capacity(16 << 10, io::Cursor::new(begun).chain(asked));
    let client = Client {
        asked: Mutex::new(Some(asked)),
        answered: Mutex::new(answered),
        disk,
        agreed,
        troubled,
    };
    std::thread::scope(|scope| {
        for _ in 1..WORKERS {
            scope.spawn(|| client.work(&left));
        }
        client.work(&left);
    });
    Ok(())
}

type Asked = BufReader<io::Chain<io::Cursor<Vec<u8>>, UnixStream>>;

struct Client<'a> {
    /// None when the client has left.
    asked: Mutex<Option<Asked>>,
    answered: Mutex<UnixStream>,
    disk: &'a FileReader,
    agreed: Agreed,
    troubled: &'a (dyn Fn(&Error) + Sync),
}

impl Client<'_> {
    fn work(&self, left: &UnixStream) {
        let mut answer = Vec::new();
        while let Some(request) = self.next() {
            answer.clear();
            self.answer(&request, &mut answer);
            if self.answered.lock().write_all(&answer).is_err() {
                // Half of it may be out: nothing that follows could be understood.
                let _ = left.shutdown(std::net::Shutdown::Both);
                return;
            }
            answer.truncate(0);
            answer.shrink_to(KEPT_BYTES);
        }
    }

    /// The next request; none when the client has left, or says what it must not.
    fn next(&self) -> Option<wire::Request> {
        let mut asked = self.asked.lock();
        let request = asked.as_mut().and_then(receive);
        if request.is_none() {
            *asked = None;
        }
        request
    }

    fn answer(&self, request: &wire::Request, out: &mut Vec<u8>) {
        let begin = out.len();
        let done = match self.refusal(request) {
            Some(failure) => Err((failure, String::new())),
            None => match request.command {
                wire::READ => self.read(request, out),
                wire::BLOCK_STATUS => {
                    self.status(request, out);
                    Ok(())
                }
                _ => {
                    self.end(request, out);
                    Ok(())
                }
            }
            .map_err(|error| {
                (self.troubled)(&error);
                (wire::EIO, error.to_string())
            }),
        };
        if let Err((failure, why)) = done {
            out.truncate(begin);
            self.fail(request, failure, &why, out);
        }
    }

    /// Why a request is refused.
    fn refusal(&self, request: &wire::Request) -> Option<u32> {
        match request.command {
            wire::WRITE | wire::TRIM | wire::WRITE_ZEROES => return Some(wire::EPERM),
            wire::FLUSH | wire::CACHE => return None,
            wire::READ if request.length > LONGEST => return Some(wire::EINVAL),
            wire::BLOCK_STATUS if !self.agreed.tells_allocation => return Some(wire::EINVAL),
            wire::READ | wire::BLOCK_STATUS => {}
            _ => return Some(wire::EINVAL),
        }
        let end = request.offset.checked_add(u64::from(request.length));
        let is_within = end.is_some_and(|end| end <= self.disk.size());
        (!is_within || request.length == 0).then_some(wire::EINVAL)
    }

    fn read(&self, request: &wire::Request, out: &mut Vec<u8>) -> Result<()> {
        let (offset, length) = (request.offset, u64::from(request.length));
        if !self.agreed.is_structured {
            out.extend_from_slice(&wire::simple_reply(0, request.cookie));
            return self.fill(offset, length, out);
        }
        let data = self.data(offset, length);
        let whole = [Extent { offset, length }];
        let is_one = request.flags & wire::DONT_FRAGMENT != 0 || data.len() > PIECES;
        let data = if is_one { &whole[..] } else { &data[..] };
        let end = offset + length;
        let mut at = offset;
        for piece in data {
            if piece.offset > at {
                self.hole(request, at, piece.offset, end, out);
            }
            at = piece.offset + piece.length;
            let flags = if at == end { wire::DONE } else { 0 };
            let bytes = 8 + piece.length as u32;
            out.extend(wire::structured_reply(flags, wire::DATA_PIECE, request.cookie, bytes));
            out.extend(piece.offset.to_be_bytes());
            self.fill(piece.offset, piece.length, out)?;
        }
        if at < end {
            self.hole(request, at, end, end, out);
        }
        Ok(())
    }

    fn hole(&self, request: &wire::Request, from: u64, upto: u64, end: u64, out: &mut Vec<u8>) {
        let flags = if upto == end { wire::DONE } else { 0 };
        out.extend(wire::structured_reply(flags, wire::HOLE_PIECE, request.cookie, 12));
        out.extend(from.to_be_bytes());
        out.extend(((upto - from) as u32).to_be_bytes());
    }

    /// Appends bytes of the disk.
    fn fill(&self, offset: u64, length: u64, out: &mut Vec<u8>) -> Result<()> {
        let start = out.len();
        out.resize(start + length as usize, 0);
        let read = self.disk.read_at(offset, out.get_mut(start..).unwrap_or_default())?;
        if read as u64 == length {
            return Ok(());
        }
        let reason = format!("only {read} of {length} bytes at {offset} could be read");
        Err(Error::integrity("a disk of an image", reason))
    }

    fn status(&self, request: &wire::Request, out: &mut Vec<u8>) {
        let (offset, end) = (request.offset, request.offset + u64::from(request.length));
        let mut told: Vec<(u64, u32)> = Vec::new();
        let mut at = offset;
        for piece in self.data(offset, end - offset) {
            if piece.offset > at {
                told.push((piece.offset - at, wire::HOLE_AND_ZERO));
            }
            told.push((piece.length, 0));
            at = piece.offset + piece.length;
            if told.len() >= EXTENTS {
                break;
            }
        }
        if at < end && told.len() < EXTENTS {
            told.push((end - at, wire::HOLE_AND_ZERO));
        }
        if request.flags & wire::ONE_EXTENT != 0 {
            told.truncate(1);
        }
        let bytes = 4 + 8 * told.len() as u32;
        out.extend(wire::structured_reply(wire::DONE, wire::STATUS_PIECE, request.cookie, bytes));
        out.extend(wire::ALLOCATION_CONTEXT.to_be_bytes());
        for (length, flags) in told {
            out.extend((length as u32).to_be_bytes());
            out.extend(flags.to_be_bytes());
        }
    }

    /// Where data is: in order, apart, within what was asked.
    fn data(&self, offset: u64, length: u64) -> Vec<Extent> {
        let mut found = self.disk.data_extents(offset, length);
        found.dedup_by(|next, kept| {
            let is_near = next.offset - (kept.offset + kept.length) < JOINED;
            if is_near {
                kept.length = next.offset + next.length - kept.offset;
            }
            is_near
        });
        found
    }

    fn end(&self, request: &wire::Request, out: &mut Vec<u8>) {
        if self.agreed.is_structured {
            out.extend(wire::structured_reply(wire::DONE, wire::NO_PIECE, request.cookie, 0));
        } else {
            out.extend(wire::simple_reply(0, request.cookie));
        }
    }

    fn fail(&self, request: &wire::Request, failure: u32, why: &str, out: &mut Vec<u8>) {
        if !self.agreed.is_structured {
            out.extend(wire::simple_reply(failure, request.cookie));
            return;
        }
        let why = why.as_bytes();
        let why = why.get(..why.len().min(1000)).unwrap_or_default();
        let bytes = 6 + why.len() as u32;
        out.extend(wire::structured_reply(wire::DONE, wire::ERROR_PIECE, request.cookie, bytes));
        out.extend(failure.to_be_bytes());
        out.extend((why.len() as u16).to_be_bytes());
        out.extend(why);
    }
}

/// One request, without what was to be written.
fn receive(asked: &mut Asked) -> Option<wire::Request> {
    let mut bytes = [0; wire::REQUEST_BYTES];
    asked.read_exact(&mut bytes).ok()?;
    let request = wire::parse_request(bytes)?;
    match request.command {
        wire::DISCONNECT => None,
        wire::WRITE if request.length > LONGEST => None,
        wire::WRITE => {
            let mut left = request.length as usize;
            let mut unwanted = ZEROES;
            while left > 0 {
                let count = left.min(unwanted.len());
                asked.read_exact(unwanted.get_mut(..count)?).ok()?;
                left -= count;
            }
            Some(request)
        }
        _ => Some(request),
    }
}
