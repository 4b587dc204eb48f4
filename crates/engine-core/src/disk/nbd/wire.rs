//! Bytes of the NBD protocol's transmission phase: what is asked, and the heads of answers.
//!
//! <https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md>. Knows no socket.

pub const READ: u16 = 0;
pub const WRITE: u16 = 1;
pub const DISCONNECT: u16 = 2;
pub const FLUSH: u16 = 3;
pub const WRITE_ZEROES: u16 = 6;

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
