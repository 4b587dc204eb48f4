//! Bytes of the NBD protocol's transmission phase: what is asked, and the heads of answers.
//!
//! <https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md>. Knows no socket.

pub const READ: u16 = 0;
pub const WRITE: u16 = 1;
pub const DISCONNECT: u16 = 2;
pub const FLUSH: u16 = 3;
pub const TRIM: u16 = 4;
pub const CACHE: u16 = 5;
pub const WRITE_ZEROES: u16 = 6;
pub const BLOCK_STATUS: u16 = 7;

/// Flags of a request: the answer in one piece; one extent is enough.
pub const DONT_FRAGMENT: u16 = 4;
pub const ONE_EXTENT: u16 = 8;
/// Flag of a piece of an answer: the last one.
pub const DONE: u16 = 1;

/// Numbers of errors on the wire, whatever the system's own are.
pub const EPERM: u32 = 1;
pub const EIO: u32 = 5;
pub const EINVAL: u32 = 22;

/// Kinds of pieces.
pub const NO_PIECE: u16 = 0;
pub const DATA_PIECE: u16 = 1;
pub const HOLE_PIECE: u16 = 2;
pub const STATUS_PIECE: u16 = 5;
pub const ERROR_PIECE: u16 = 0x8001;

/// What `base:allocation` is called once it was agreed on, and what it says of a hole.
pub const ALLOCATION_CONTEXT: u32 = 1;
pub const HOLE_AND_ZERO: u32 = 3;

const REQUEST_MAGIC: u32 = 0x2560_9513;
const SIMPLE_MAGIC: u32 = 0x6744_6698;
const STRUCTURED_MAGIC: u32 = 0x668e_33ef;

/// Bytes of any answer's head that tell which it is.
pub const MAGIC_BYTES: usize = 4;
/// Bytes of the rest of the head.
pub const SIMPLE_REST: usize = 12;
pub const STRUCTURED_REST: usize = 16;

/// A question; what is to be written follows it.
pub fn request(command: u16, cookie: u64, offset: u64, length: u32) -> [u8; 28] {
    let mut bytes = [0; 28];
    bytes[..4].copy_from_slice(&REQUEST_MAGIC.to_be_bytes());
    bytes[6..8].copy_from_slice(&command.to_be_bytes());
    bytes[8..16].copy_from_slice(&cookie.to_be_bytes());
    bytes[16..24].copy_from_slice(&offset.to_be_bytes());
    bytes[24..].copy_from_slice(&length.to_be_bytes());
    bytes
}

pub const REQUEST_BYTES: usize = 28;

/// A question as a server hears it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    pub flags: u16,
    pub command: u16,
    pub cookie: u64,
    pub offset: u64,
    pub length: u32,
}

/// `None` where the bytes are no request.
pub fn parse_request(bytes: [u8; REQUEST_BYTES]) -> Option<Request> {
    let field = |from: usize, upto: usize| number(bytes.get(from..upto).unwrap_or_default());
    (field(0, 4) == u64::from(REQUEST_MAGIC)).then(|| Request {
        flags: field(4, 6) as u16,
        command: field(6, 8) as u16,
        cookie: field(8, 16),
        offset: field(16, 24),
        length: field(24, 28) as u32,
    })
}

/// An answer in one piece; the data of a read that went well follows it.
pub fn simple_reply(error: u32, cookie: u64) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&SIMPLE_MAGIC.to_be_bytes());
    bytes[4..8].copy_from_slice(&error.to_be_bytes());
    bytes[8..].copy_from_slice(&cookie.to_be_bytes());
    bytes
}

/// The head of a piece of an answer; `length` bytes follow it.
pub fn structured_reply(flags: u16, kind: u16, cookie: u64, length: u32) -> [u8; 20] {
    let mut bytes = [0; 20];
    bytes[..4].copy_from_slice(&STRUCTURED_MAGIC.to_be_bytes());
    bytes[4..6].copy_from_slice(&flags.to_be_bytes());
    bytes[6..8].copy_from_slice(&kind.to_be_bytes());
    bytes[8..16].copy_from_slice(&cookie.to_be_bytes());
    bytes[16..].copy_from_slice(&length.to_be_bytes());
    bytes
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Simple,
    Structured,
}

pub fn form(magic: [u8; MAGIC_BYTES]) -> Option<Form> {
    match u32::from_be_bytes(magic) {
        SIMPLE_MAGIC => Some(Form::Simple),
        STRUCTURED_MAGIC => Some(Form::Structured),
        _ => None,
    }
}

/// An answer in one piece; the data of a read that went well follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Simple {
    pub error: u32,
    pub cookie: u64,
}

pub fn simple(bytes: [u8; SIMPLE_REST]) -> Simple {
    let (error, cookie) = bytes.split_at(4);
    Simple { error: number(error) as u32, cookie: number(cookie) }
}

/// What a piece of a structured answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    None,
    Data,
    Hole,
    Error,
    ErrorAt,
    /// An error of a type that is yet to be invented.
    OtherError,
    Other,
}

/// The head of one piece of an answer; `length` bytes follow it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Structured {
    pub is_last: bool,
    pub kind: Type,
    pub cookie: u64,
    pub length: u32,
}

pub fn structured(bytes: [u8; STRUCTURED_REST]) -> Structured {
    let (flags, rest) = bytes.split_at(2);
    let (kind, rest) = rest.split_at(2);
    let (cookie, length) = rest.split_at(8);
    let kind = match number(kind) {
        0 => Type::None,
        1 => Type::Data,
        2 => Type::Hole,
        0x8001 => Type::Error,
        0x8002 => Type::ErrorAt,
        0x8000.. => Type::OtherError,
        _ => Type::Other,
    };
    let is_last = number(flags) & 1 == 1;
    Structured { is_last, kind, cookie: number(cookie), length: number(length) as u32 }
}

/// Up to eight bytes, the highest first.
pub fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}
