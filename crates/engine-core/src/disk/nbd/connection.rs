//! One connected socket on which an NBD server answers: several questions under way at once, the
//! answers taken in whatever order they come.
//!
//! Believes nothing that the server says: whatever does not answer a question that was asked ends
//! the connection. Memory is what the caller gives, and some kilobytes.

use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::disk::Patience;
use crate::error::{Error, Result};

use super::wire::{self, Form, Structured, Type};

/// Questions under way at a time.
const DEPTH: usize = 16;
/// How often whoever waits is asked for patience.
const ASK_EVERY: Duration = Duration::from_millis(250);
/// A server that says nothing for so long is dead.
const SILENCE: Duration = Duration::from_secs(300);
/// The longest message of an error.
const MESSAGE_BYTES: u32 = 4096 + 16;
/// More pieces of an answer than that are not for the sake of anybody.
const PIECES: usize = 1 << 16;

/// What is asked, and where the answer goes.
pub enum Body<'b> {
    Read(&'b mut [u8]),
    Write(&'b [u8]),
    Zero(u32),
    Flush,
}

/// A question and what became of it.
pub struct Ask<'b> {
    pub offset: u64,
    pub body: Body<'b>,
    /// Parts of a read that came.
    came: Vec<(u32, u32)>,
    error: Option<(u64, u32)>,
    is_done: bool,
}

impl<'b> Ask<'b> {
    pub fn new(offset: u64, body: Body<'b>) -> Self {
        Ask { offset, body, came: Vec::new(), error: None, is_done: false }
    }

    fn length(&self) -> u32 {
        match &self.body {
            Body::Read(bytes) => bytes.len() as u32,
            Body::Write(bytes) => bytes.len() as u32,
            Body::Zero(length) => *length,
            Body::Flush => 0,
        }
    }

    fn command(&self) -> u16 {
        match self.body {
            Body::Read(_) => wire::READ,
            Body::Write(_) => wire::WRITE,
            Body::Zero(_) => wire::WRITE_ZEROES,
            Body::Flush => wire::FLUSH,
        }
    }

    fn doing(&self) -> &'static str {
        match self.body {
            Body::Read(_) => "reading",
            Body::Write(_) | Body::Zero(_) => "writing",
            Body::Flush => "flushing",
        }
    }

    /// The part of a read that lies at this place of the disk.
    fn part(&mut self, offset: u64, length: u32) -> Result<&mut [u8], &'static str> {
        let from = offset.checked_sub(self.offset).ok_or(OUTSIDE)?;
        let from = usize::try_from(from).map_err(|_| OUTSIDE)?;
        let Body::Read(bytes) = &mut self.body else { return Err("data where none was asked for") };
        if length == 0 || self.came.len() == PIECES {
            return Err("an answer in pieces of nothing");
        }
        self.came.push((from as u32, length));
        let upto = from.checked_add(length as usize).ok_or(OUTSIDE)?;
        bytes.get_mut(from..upto).ok_or(OUTSIDE)
    }

    /// Whether each byte of a read came once.
    fn is_whole(&mut self) -> bool {
        let Body::Read(bytes) = &self.body else { return true };
        self.came.sort_unstable();
        let mut at = 0_u64;
        for (from, length) in &self.came {
            if u64::from(*from) != at {
                return false;
            }
            at += u64::from(*length);
        }
        at == bytes.len() as u64
    }
}

const OUTSIDE: &str = "data outside of what was asked for";

/// See the module.
pub struct Connection {
    stream: UnixStream,
    is_structured: bool,
    /// The cookie of the next question.
    cookie: u64,
}

impl Connection {
    /// `socket` is past negotiation; any stream socket does.
    pub fn new(socket: OwnedFd, is_structured: bool) -> io::Result<Self> {
        let stream = UnixStream::from(socket);
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(ASK_EVERY))?;
        stream.set_write_timeout(Some(ASK_EVERY))?;
        Ok(Connection { stream, is_structured, cookie: 1 })
    }

    /// Asks all, and takes all answers. After an answer that is an error the connection can be used
    /// again; after any other error it can't, as `Err(_, true)` says.
    pub fn exchange(
        &mut self,
        asks: &mut [Ask<'_>],
        patience: Patience<'_>,
    ) -> Result<(), (Error, bool)> {
        let first = self.cookie;
        self.cookie += asks.len() as u64;
        let (mut sent, mut done, mut failed) = (0, 0, None);
        while done < asks.len() && (failed.is_none() || done < sent) {
            while failed.is_none() && sent < asks.len() && sent - done < DEPTH {
                if let Some(ask) = asks.get(sent) {
                    self.send(first + sent as u64, ask, patience)
                        .map_err(|error| (told(error, ask), true))?;
                }
                sent += 1;
            }
            let open = asks.get_mut(..sent).unwrap_or_default();
            let at = match self.answer(first, open, patience) {
                Ok(at) => at,
                Err(error) => {
                    let waits = open.iter().find(|ask| !ask.is_done);
                    let error = match waits {
                        Some(ask) => told(error, ask),
                        None => lost(&error),
                    };
                    return Err((error, true));
                }
            };
            let Some(ask) = at.and_then(|at| asks.get_mut(at)) else { continue };
            done += 1;
            if let Some((offset, number)) = ask.error {
                failed.get_or_insert(Error::io(
                    format!("{} at byte {offset}", ask.doing()),
                    io::Error::from_raw_os_error(errno(number)),
                ));
            }
        }
        failed.map_or(Ok(()), |error| Err((error, false)))
    }

    /// Says that nothing more will be asked.
    pub fn part(mut self) {
        let _ = self.stream.write_all(&wire::request(wire::DISCONNECT, 0, 0, 0));
    }

    fn send(&mut self, cookie: u64, ask: &Ask<'_>, patience: Patience<'_>) -> Result<(), Fault> {
        let offset = if matches!(ask.body, Body::Flush) { 0 } else { ask.offset };
        self.write(&wire::request(ask.command(), cookie, offset, ask.length()), patience)?;
        match ask.body {
            Body::Write(bytes) => self.write(bytes, patience),
            _ => Ok(()),
        }
    }

    /// Takes one answer, or a piece of one; which question is answered now, if one is.
    fn answer(
        &mut self,
        first: u64,
        open: &mut [Ask<'_>],
        patience: Patience<'_>,
    ) -> Result<Option<usize>, Fault> {
        let mut magic = [0; wire::MAGIC_BYTES];
        self.read(&mut magic, patience)?;
        let find = |cookie: u64| {
            let at = cookie.checked_sub(first).and_then(|at| usize::try_from(at).ok());
            at.ok_or(Fault::Nonsense("an answer to what was not asked"))
        };
        match wire::form(magic) {
            None => Err(Fault::Nonsense("an answer that is none")),
            Some(Form::Simple) => {
                let mut head = [0; wire::SIMPLE_REST];
                self.read(&mut head, patience)?;
                let head = wire::simple(head);
                let at = find(head.cookie)?;
                let ask = waiting(open, at)?;
                if head.error != 0 {
                    ask.error = Some((ask.offset, head.error));
                } else if let Body::Read(bytes) = &mut ask.body {
                    if self.is_structured {
                        return Err(Fault::Nonsense(
                            "an answer of the form that was not agreed on",
                        ));
                    }
                    self.read(bytes, patience)?;
                }
                ask.is_done = true;
                Ok(Some(at))
            }
            Some(Form::Structured) if self.is_structured => {
                let mut head = [0; wire::STRUCTURED_REST];
                self.read(&mut head, patience)?;
                let head = wire::structured(head);
                let at = find(head.cookie)?;
                let ask = waiting(open, at)?;
                self.piece(&head, ask, patience)?;
                if !head.is_last {
                    return Ok(None);
                }
                if ask.error.is_none() && !ask.is_whole() {
                    return Err(Fault::Nonsense("an answer that lacks or repeats data"));
                }
                ask.is_done = true;
                Ok(Some(at))
            }
            Some(Form::Structured) => {
                Err(Fault::Nonsense("an answer of the form that was not agreed on"))
            }
        }
    }

    /// Takes what follows the head of a piece.
    fn piece(
        &mut self,
        head: &Structured,
        ask: &mut Ask<'_>,
        patience: Patience<'_>,
    ) -> Result<(), Fault> {
        let mut offset = [0; 8];
        match head.kind {
            Type::None if head.length == 0 && head.is_last => Ok(()),
            Type::Data => {
                let length =
                    head.length.checked_sub(8).ok_or(Fault::Nonsense("data of nowhere"))?;
                self.read(&mut offset, patience)?;
                let part = ask.part(wire::number(&offset), length).map_err(Fault::Nonsense)?;
                self.read(part, patience)
            }
            Type::Hole if head.length == 12 => {
                let mut length = [0; 4];
                self.read(&mut offset, patience)?;
                self.read(&mut length, patience)?;
                let length = wire::number(&length) as u32;
                let part = ask.part(wire::number(&offset), length).map_err(Fault::Nonsense)?;
                part.fill(0);
                Ok(())
            }
            Type::Error | Type::ErrorAt | Type::OtherError
                if (6..=MESSAGE_BYTES).contains(&head.length) =>
            {
                let mut body = vec![0; head.length as usize];
                self.read(&mut body, patience)?;
                let (number, rest) = body.split_at(4);
                let (message, rest) = rest.split_at(2);
                let place = rest.get(wire::number(message) as usize..);
                let inside = ask.offset..ask.offset + u64::from(ask.length());
                let offset = match (head.kind, place) {
                    (Type::ErrorAt, Some(place)) if place.len() == 8 => wire::number(place),
                    _ => ask.offset,
                };
                let offset = if inside.contains(&offset) { offset } else { ask.offset };
                ask.error.get_or_insert((offset, wire::number(number) as u32));
                Ok(())
            }
            _ => Err(Fault::Nonsense("a piece of an answer that has no meaning")),
        }
    }

    fn read(&mut self, mut buffer: &mut [u8], patience: Patience<'_>) -> Result<(), Fault> {
        let mut since = Instant::now();
        while !buffer.is_empty() {
            match self.stream.read(buffer) {
                Ok(0) => return Err(Fault::Io(io::ErrorKind::UnexpectedEof.into())),
                Ok(count) => {
                    buffer = buffer.get_mut(count..).unwrap_or_default();
                    since = Instant::now();
                }
                Err(error) => wait(error, since, patience)?,
            }
        }
        Ok(())
    }

    fn write(&mut self, mut bytes: &[u8], patience: Patience<'_>) -> Result<(), Fault> {
        let mut since = Instant::now();
        while !bytes.is_empty() {
            match self.stream.write(bytes) {
                Ok(0) => return Err(Fault::Io(io::ErrorKind::WriteZero.into())),
                Ok(count) => {
                    bytes = bytes.get(count..).unwrap_or_default();
                    since = Instant::now();
                }
                Err(error) => wait(error, since, patience)?,
            }
        }
        Ok(())
    }
}

/// Why a connection is of no more use.
enum Fault {
    Io(io::Error),
    Nonsense(&'static str),
    /// Whoever waited does not want to any more.
    Given(Error),
}

fn wait(error: io::Error, since: Instant, patience: Patience<'_>) -> Result<(), Fault> {
    match error.kind() {
        io::ErrorKind::Interrupted => Ok(()),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut if since.elapsed() < SILENCE => {
            patience().map_err(Fault::Given)
        }
        io::ErrorKind::WouldBlock => Err(Fault::Io(io::ErrorKind::TimedOut.into())),
        _ => Err(Fault::Io(error)),
    }
}

fn waiting<'o, 'b>(open: &'o mut [Ask<'b>], at: usize) -> Result<&'o mut Ask<'b>, Fault> {
    let found = open.get_mut(at).filter(|ask| !ask.is_done);
    found.ok_or(Fault::Nonsense("an answer to what was not asked"))
}

/// A fault in words, with the question that waited.
fn told(fault: Fault, ask: &Ask<'_>) -> Error {
    let what = format!("{} at byte {}", ask.doing(), ask.offset);
    match fault {
        Fault::Given(error) => error,
        Fault::Io(error) => Error::Io { what, source: server(&error) },
        Fault::Nonsense(reason) => {
            let reason = format!("the NBD server gave {reason}");
            Error::Io { what, source: io::Error::new(io::ErrorKind::InvalidData, reason) }
        }
    }
}

fn lost(fault: &Fault) -> Error {
    let reason = match fault {
        Fault::Given(error) => return error.clone(),
        Fault::Io(error) => server(error).to_string(),
        Fault::Nonsense(reason) => (*reason).to_owned(),
    };
    Error::Io { what: "the NBD server".into(), source: io::Error::other(reason) }
}

/// An error of the socket as what it means.
fn server(error: &io::Error) -> io::Error {
    let text = match error.kind() {
        io::ErrorKind::UnexpectedEof
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::ConnectionReset => "the NBD server has closed the connection".to_owned(),
        io::ErrorKind::TimedOut => {
            format!("the NBD server has said nothing for {} seconds", SILENCE.as_secs())
        }
        _ => format!("the connection to the NBD server failed: {error}"),
    };
    io::Error::new(error.kind(), text)
}

/// The system's number of an error; they are the same, as far as there are any.
fn errno(number: u32) -> i32 {
    match number {
        1 | 5 | 12 | 22 | 28 | 75 | 95 | 108 => number as i32,
        _ => 5,
    }
}
