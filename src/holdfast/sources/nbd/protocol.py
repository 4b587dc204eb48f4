"""Numbers and layouts of the network block device protocol, as both ends need them.

Must not read or write anything. Source: the protocol's document, `doc/proto.md` of
https://github.com/NetworkBlockDevice/nbd; all numbers are big-endian.
"""

from __future__ import annotations

import enum
import errno
import struct

NBDMAGIC = 0x4E42444D41474943
IHAVEOPT = 0x49484156454F5054
OLD_STYLE = 0x00420281861253
OPTION_REPLY = 0x0003E889045565A9
REQUEST = 0x25609513
SIMPLE_REPLY = 0x67446698
STRUCTURED_REPLY = 0x668E33EF

FIXED_NEWSTYLE = 1
NO_ZEROES = 2

ALLOCATION = "base:allocation"
DIRTY_BITMAP = "qemu:dirty-bitmap:"

LONGEST_NAME = 4096
"""Of an export or a context, in bytes, by the protocol."""

GREETING = struct.Struct(">QQH")
OPTION = struct.Struct(">QII")
OPTION_ANSWER = struct.Struct(">QIII")
REQUEST_HEADER = struct.Struct(">IHHQQI")
SIMPLE_HEADER = struct.Struct(">IIQ")
STRUCTURED_HEADER = struct.Struct(">IHHQI")
EXTENT = struct.Struct(">II")


class Option(enum.IntEnum):
    """What a client asks for before it reads."""

    EXPORT_NAME = 1
    ABORT = 2
    LIST = 3
    STARTTLS = 5
    INFO = 6
    GO = 7
    STRUCTURED_REPLY = 8
    LIST_META_CONTEXT = 9
    SET_META_CONTEXT = 10


class Answer(enum.IntEnum):
    """What a server says to that."""

    ACK = 1
    SERVER = 2
    INFO = 3
    META_CONTEXT = 4
    UNSUPPORTED = 0x80000001
    POLICY = 0x80000002
    INVALID = 0x80000003
    PLATFORM = 0x80000004
    TLS_REQUIRED = 0x80000005
    UNKNOWN = 0x80000006
    SHUTDOWN = 0x80000007
    BLOCK_SIZE_REQUIRED = 0x80000008
    TOO_BIG = 0x80000009


ERROR_ANSWER = 0x80000000


class Info(enum.IntEnum):
    """What a server tells of an export."""

    EXPORT = 0
    NAME = 1
    DESCRIPTION = 2
    BLOCK_SIZE = 3


class Flags(enum.IntFlag):
    """What an export can do."""

    HAS_FLAGS = 1
    READ_ONLY = 2
    SEND_FLUSH = 4
    SEND_FUA = 8
    ROTATIONAL = 16
    SEND_TRIM = 32
    SEND_WRITE_ZEROES = 64
    SEND_DF = 128
    CAN_MULTI_CONN = 256
    SEND_RESIZE = 512
    SEND_CACHE = 1024
    SEND_FAST_ZERO = 2048


class Command(enum.IntEnum):
    """What a client asks for once it has an export."""

    READ = 0
    WRITE = 1
    DISCONNECT = 2
    FLUSH = 3
    TRIM = 4
    CACHE = 5
    WRITE_ZEROES = 6
    BLOCK_STATUS = 7


DONT_FRAGMENT = 4
"""Flag of a read: the answer is to be one piece."""
DONE = 1
"""Flag of a structured reply: nothing more comes for this request."""


class Piece(enum.IntEnum):
    """Kinds of structured replies."""

    NONE = 0
    DATA = 1
    HOLE = 2
    BLOCK_STATUS = 5
    ERROR = 0x8001
    ERROR_OFFSET = 0x8002


ERROR_PIECE = 0x8000

HOLE = 1
"""Of `base:allocation`: nothing is allocated."""
ZERO = 2
"""Of `base:allocation`: it reads as zeroes."""
DIRTY = 1
"""Of a dirty bitmap: it was written since the bitmap was made."""


class Failure(enum.IntEnum):
    """Error numbers on the wire, whatever the system's own are."""

    EPERM = 1
    EIO = 5
    ENOMEM = 12
    EINVAL = 22
    ENOSPC = 28
    EOVERFLOW = 75
    ENOTSUP = 95
    ESHUTDOWN = 108


LOCAL_NUMBER = {
    Failure.EPERM: errno.EPERM,
    Failure.EIO: errno.EIO,
    Failure.ENOMEM: errno.ENOMEM,
    Failure.EINVAL: errno.EINVAL,
    Failure.ENOSPC: errno.ENOSPC,
    Failure.EOVERFLOW: errno.EOVERFLOW,
    Failure.ENOTSUP: errno.ENOTSUP,
    Failure.ESHUTDOWN: errno.ESHUTDOWN,
}
"""What the system calls each."""
