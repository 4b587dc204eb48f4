//! A disk that an NBD server has: read and written over sockets that others have connected and
//! negotiated on.

mod connection;
pub mod serve;
mod wire;

use std::os::fd::OwnedFd;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::error::{Error, Result};
use crate::tree::entry::Extent;

use super::{DiskSink, DiskSource, Part, Patience, Piece, zeroes};
use connection::{Ask, Body, Connection};

/// What is asked for at a time; servers refuse more than 32 MiB, and answer short ones sooner.
const REQUEST_BYTES: usize = 512 << 10;
/// Zeroes that are asked for at a time.
const ZERO_BYTES: u64 = 32 << 20;
const ASK_EVERY: Duration = Duration::from_millis(250);

struct Idle {
    connections: Vec<Connection>,
    /// Connections that are not lost, idle or at work.
    alive: usize,
    is_closed: bool,
}

/// The connections to one server. A thread has one to itself for a while; with more threads than
/// connections they take turns, each with several questions at once.
struct Links {
    idle: Mutex<Idle>,
    returned: Condvar,
}

impl Links {
    fn new(sockets: Vec<OwnedFd>, is_structured: bool) -> Result<Self> {
        if sockets.is_empty() {
            return Err(Error::Invalid("no socket to an NBD server was given".into()));
        }
        let open = |socket| {
            Connection::new(socket, is_structured)
                .map_err(|error| Error::io("using a socket to an NBD server", error))
        };
        let connections = sockets.into_iter().map(open).collect::<Result<Vec<_>>>()?;
        let alive = connections.len();
        let idle = Mutex::new(Idle { connections, alive, is_closed: false });
        Ok(Links { idle, returned: Condvar::new() })
    }

    fn take(&self, patience: Patience<'_>) -> Result<Connection> {
        let mut idle = self.idle.lock();
        loop {
            if let Some(connection) = idle.connections.pop() {
                return Ok(connection);
            }
            if idle.is_closed || idle.alive == 0 {
                let gone = std::io::Error::from(std::io::ErrorKind::NotConnected);
                return Err(Error::io("the NBD server is no longer there", gone));
            }
            self.returned.wait_for(&mut idle, ASK_EVERY);
            patience()?;
        }
    }

    fn exchange(&self, asks: &mut [Ask<'_>], patience: Patience<'_>) -> Result<()> {
        let mut connection = self.take(patience)?;
        let done = connection.exchange(asks, patience);
        self.give_back(connection, matches!(done, Err((_, true))));
        done.map_err(|(error, _)| error)
    }

    /// Unless it is of no more use, to it or to anybody.
    fn give_back(&self, connection: Connection, is_lost: bool) {
        let mut idle = self.idle.lock();
        if is_lost || idle.is_closed {
            idle.alive = idle.alive.saturating_sub(1);
        } else {
            idle.connections.push(connection);
        }
        drop(idle);
        self.returned.notify_one();
    }

    /// Says goodbye to the server; what is at work still ends first.
    fn close(&self) {
        let mut idle = self.idle.lock();
        idle.is_closed = true;
        let connections = std::mem::take(&mut idle.connections);
        idle.alive -= connections.len();
        drop(idle);
        for connection in connections {
            connection.part();
        }
    }

    /// Reads pieces; no request crosses a multiple of `grain`.
    fn read(
        &self,
        pieces: &mut [Piece<'_>],
        grain: Option<u64>,
        patience: Patience<'_>,
    ) -> Result<()> {
        let mut asks = Vec::new();
        for piece in pieces {
            let mut offset = piece.offset;
            let mut rest = &mut *piece.bytes;
            while !rest.is_empty() {
                let (bytes, more) = rest.split_at_mut(request_bytes(offset, rest.len(), grain));
                let length = bytes.len() as u64;
                asks.push(Ask::new(offset, Body::Read(bytes)));
                offset += length;
                rest = more;
            }
        }
        if asks.is_empty() { Ok(()) } else { self.exchange(&mut asks, patience) }
    }

    /// Has each connection flushed, but for a server that takes one for all.
    fn flush(&self, one_flush: bool, patience: Patience<'_>) -> Result<()> {
        let mut all = Vec::new();
        let alive = self.idle.lock().alive.max(1);
        for _ in 0..if one_flush { 1 } else { alive } {
            all.push(self.take(patience)?);
        }
        let mut outcome = Ok(());
        for mut connection in all {
            let done = connection.exchange(&mut [Ask::new(0, Body::Flush)], patience);
            self.give_back(connection, matches!(done, Err((_, true))));
            outcome = outcome.and(done.map_err(|(error, _)| error));
        }
        outcome
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        self.close();
    }
}

/// How much is asked for at `offset`, of `wanted` bytes, which are some.
fn request_bytes(offset: u64, wanted: usize, grain: Option<u64>) -> usize {
    let most = wanted.min(REQUEST_BYTES);
    let Some(grain) = grain else { return most };
    let first = grain - offset % grain;
    usize::try_from(first).map_or(most, |first| most.min(first))
}

/// Reads a disk.
pub struct NbdSource {
    links: Links,
    size: u64,
    grain: Option<u64>,
}

impl NbdSource {
    /// The sockets are past negotiation: `is_structured` says whether structured replies were
    /// agreed on. What they are connected to is told goodbye when this goes.
    pub fn new(sockets: Vec<OwnedFd>, size: u64, is_structured: bool) -> Result<Self> {
        Ok(NbdSource { links: Links::new(sockets, is_structured)?, size, grain: None })
    }

    /// The same, of which no request crosses a multiple of `grain` bytes, for servers that answer
    /// others wrongly.
    pub fn in_grains(self, grain: u64) -> Result<Self> {
        if grain == 0 {
            return Err(Error::Invalid("requests of 0 bytes read nothing".into()));
        }
        Ok(NbdSource { grain: Some(grain), ..self })
    }
}

impl DiskSource for NbdSource {
    fn size(&self) -> u64 {
        self.size
    }

    fn read(&self, pieces: &mut [Piece<'_>], patience: Patience<'_>) -> Result<()> {
        self.links.read(pieces, self.grain, patience)
    }

    fn close(&self) {
        self.links.close();
    }
}

/// Writes a disk.
pub struct NbdSink {
    links: Links,
    size: u64,
    can_zero: bool,
    can_flush: bool,
    one_flush: bool,
    stale: Vec<Extent>,
}

/// What a server can do with a disk that is written.
#[derive(Clone, Debug)]
pub struct Abilities {
    /// Structured replies were agreed on.
    pub is_structured: bool,
    /// It takes `NBD_CMD_WRITE_ZEROES`.
    pub can_zero: bool,
    /// It takes `NBD_CMD_FLUSH`.
    pub can_flush: bool,
    /// One flush is for what was written over any connection (`NBD_FLAG_CAN_MULTI_CONN`).
    pub one_flush: bool,
    /// What of the disk may read as something else than zero: ascending, apart.
    pub stale: Vec<Extent>,
}

impl NbdSink {
    /// As [`NbdSource::new`].
    pub fn new(sockets: Vec<OwnedFd>, size: u64, abilities: Abilities) -> Result<Self> {
        let Abilities { is_structured, can_zero, can_flush, one_flush, stale } = abilities;
        let links = Links::new(sockets, is_structured)?;
        Ok(NbdSink { links, size, can_zero, can_flush, one_flush, stale })
    }
}

impl DiskSink for NbdSink {
    fn size(&self) -> u64 {
        self.size
    }

    fn stale(&self) -> Vec<Extent> {
        self.stale.clone()
    }

    fn write(&self, parts: &[Part<'_>], patience: Patience<'_>) -> Result<()> {
        let mut asks = Vec::new();
        for part in parts {
            let mut offset = part.offset;
            for bytes in part.bytes.chunks(REQUEST_BYTES) {
                asks.push(Ask::new(offset, Body::Write(bytes)));
                offset += bytes.len() as u64;
            }
        }
        if asks.is_empty() { Ok(()) } else { self.links.exchange(&mut asks, patience) }
    }

    fn zero(&self, offset: u64, length: u64, patience: Patience<'_>) -> Result<()> {
        if !self.can_zero {
            return zeroes(offset, length, |part| self.write(&[part], patience));
        }
        let end = offset + length;
        let mut asks = Vec::new();
        let mut at = offset;
        while at < end {
            let length = (end - at).min(ZERO_BYTES);
            asks.push(Ask::new(at, Body::Zero(length as u32)));
            at += length;
        }
        if asks.is_empty() { Ok(()) } else { self.links.exchange(&mut asks, patience) }
    }

    fn flush(&self, patience: Patience<'_>) -> Result<()> {
        if self.can_flush { self.links.flush(self.one_flush, patience) } else { Ok(()) }
    }

    fn read(&self, pieces: &mut [Piece<'_>], patience: Patience<'_>) -> Result<()> {
        self.links.read(pieces, None, patience)
    }

    fn close(&self) {
        self.links.close();
    }
}
