"""A client of NBD servers: agrees on an export, asks what is allocated, hands its sockets over.

Must not move the data of a backup: that is the engine's, on the sockets that it is handed. What is
read and written here is for small needs, one request after another. Invariants: a server that is
hostile, dead or slow ends in an error that names it; a socket that is handed over has nothing of an
earlier request left in it.
"""

from __future__ import annotations

import contextlib
import itertools
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from holdfast.base.errors import (
    HoldfastError,
    InputOutput,
    Invalid,
    NoPermission,
    NoSpace,
    Unsupported,
)
from holdfast.sources.nbd import negotiation, protocol
from holdfast.sources.nbd.extents import Extents
from holdfast.sources.nbd.protocol import Command, Failure, Flags, Piece
from holdfast.sources.nbd.wire import Wire, babble

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from holdfast.sources.nbd.extents import Extent
    from holdfast.sources.nbd.negotiation import Export
    from holdfast.sources.nbd.wire import Address

CONNECT_S = 30.0
"""How long agreeing on an export may take."""
REQUEST_S = 300.0
"""How long each request may take. A busy disk array answers late; a hung one never."""

_LONGEST_QUESTION = 0xFFFF_FFFF
_MOST_PIECES = 1 << 16
_MOST_QUESTIONS = 1 << 22


class Connection:
    """One connection to one export. Not thread-safe."""

    def __init__(self, wire: Wire, export: Export, request_s: float) -> None:
        """Take over a wire on which an export was agreed on."""
        self._wire = wire
        self._request_s = request_s
        self._cookies = itertools.count(1)
        self.export = export

    def fileno(self) -> int:
        """The socket, in the transmission phase, for an engine that makes a copy of it."""
        return self._wire.socket.fileno()

    def hand_over(self) -> int:
        """Make the socket ready for somebody else to speak on; nothing may be asked here any more.

        Returns:
            Its descriptor, which stays this object's: the other makes a copy of its own, and this
            is closed with `drop`.
        """
        self._wire.socket.settimeout(None)
        return self.fileno()

    def drop(self) -> None:
        """Close this end's descriptor, and say nothing to the server: others may speak on it."""
        self._wire.close()

    def close(self) -> None:
        """Take leave of the server."""
        with contextlib.suppress(HoldfastError):
            self._request_s = 1.0
            self._send(Command.DISCONNECT, 0, 0)
        self._wire.close()

    def read(self, offset: int, length: int) -> bytearray:
        """Bytes of the disk.

        Raises:
            InputOutput: The server can't read them.
        """
        self._bounds(offset, length)
        found = bytearray(length)
        view = memoryview(found)
        for at in range(0, length, self.export.maximum):
            self._read(offset + at, view[at : at + self.export.maximum])
        return found

    def write(self, offset: int, data: bytes) -> None:
        """Write bytes to the disk; durable after `flush`.

        Raises:
            InputOutput, NoSpace, NoPermission: The server can't write them.
        """
        self._bounds(offset, len(data))
        if self.export.flags & Flags.READ_ONLY:
            raise NoPermission(
                f"{self._wire.address} lets nobody write its disk of {self.export.size} bytes",
                hint="have it served for writing",
            )
        view = memoryview(data)
        for at in range(0, len(data), self.export.maximum):
            part = view[at : at + self.export.maximum]
            cookie = self._send(Command.WRITE, offset + at, len(part), part)
            self._done(cookie, f"write {len(part)} bytes at {offset + at}")

    def flush(self) -> None:
        """Make durable what was written.

        Raises:
            InputOutput, NoSpace: The server can't.
        """
        if self.export.flags & Flags.SEND_FLUSH:
            self._done(self._send(Command.FLUSH, 0, 0), "flush")

    def block_status(
        self, offset: int = 0, length: int | None = None, alive: Callable[[], None] | None = None
    ) -> dict[str, list[Extent]]:
        """What the server says of a range, for each context that was agreed on.

        Args:
            offset: Where the range begins.
            length: How long it is; None for all that follows.
            alive: Called between questions; what it raises ends it.

        Returns:
            Extents by context: ascending, without gaps, covering the range.

        Raises:
            Unsupported: No context was agreed on.
            InputOutput: The server can't tell.
        """
        if not self.export.contexts:
            raise Unsupported(
                f"{self._wire.address} does not tell what of its disk is allocated",
                hint="use a server with structured replies and block status, such as qemu-nbd",
            )
        length = self.export.size - offset if length is None else length
        self._bounds(offset, length)
        found = {context: Extents(context) for context in self.export.contexts}
        for _ in range(_MOST_QUESTIONS):
            at = min(one.end for one in found.values())
            if at >= length:
                break
            if alive is not None:
                alive()
            self._ask_status(offset, at, length, found)
        else:
            raise babble(self._wire.address, f"its block status has no end at {offset + at}")
        return {
            context: [one._replace(offset=one.offset + offset) for one in extents.extents()]
            for context, extents in found.items()
        }

    def _ask_status(self, offset: int, at: int, length: int, found: dict[str, Extents]) -> None:
        longest = _LONGEST_QUESTION // self.export.minimum * self.export.minimum
        asked = min(length - at, longest)
        cookie = self._send(Command.BLOCK_STATUS, offset + at, asked)
        doing = f"tell what is allocated at {offset + at}"
        names = {number: context for context, number in self.export.contexts.items()}
        answered: set[str] = set()
        for kind, size in self._pieces(cookie, doing):
            if kind != Piece.BLOCK_STATUS:
                raise babble(self._wire.address, f"piece {kind} when asked for block status")
            if size < 4 or (size - 4) % 8 or size > 64 * 1024 * 1024:
                raise babble(self._wire.address, f"a block status of {size} bytes")
            (number,) = struct.unpack(">I", self._wire.receive(4))
            if (context := names.get(number)) is None or context in answered:
                raise babble(self._wire.address, f"block status of context {number}")
            answered.add(context)
            into, end = found[context], at
            for extent, flags in protocol.EXTENT.iter_unpack(self._wire.receive(size - 4)):
                # The last one may go on beyond what was asked for, by the protocol; and what is
                # known of this context already is not taken again.
                end += extent
                fresh = min(end, length) - into.end
                if fresh > 0:
                    into.add(fresh, flags)
        if any(one.end <= at for one in found.values()):
            raise babble(self._wire.address, f"no block status at {offset + at}")

    def _read(self, offset: int, into: memoryview) -> None:
        doing = f"read {len(into)} bytes at {offset}"
        cookie = self._send(Command.READ, offset, len(into))
        if not self.export.structured:
            self._simple(cookie, doing)
            self._wire.receive_into(into)
            return
        covered: list[tuple[int, int]] = []
        for kind, size in self._pieces(cookie, doing):
            if kind == Piece.DATA and size > 8:
                (at,), length = struct.unpack(">Q", self._wire.receive(8)), size - 8
            elif kind == Piece.HOLE and size == 12:
                at, length = struct.unpack(">QI", self._wire.receive(12))
            else:
                raise babble(self._wire.address, f"piece {kind} of {size} bytes when asked to read")
            begin = at - offset
            if not 0 <= begin < begin + length <= len(into):
                raise babble(self._wire.address, f"bytes at {at} when asked to {doing}")
            covered.append((begin, begin + length))
            if kind == Piece.DATA:
                self._wire.receive_into(into[begin : begin + length])
            else:
                into[begin : begin + length] = bytes(length)
        at = 0
        for begin, end in sorted(covered):
            if begin != at:
                break
            at = end
        if at != len(into):
            raise babble(self._wire.address, f"gaps in its answer when asked to {doing}")

    def _send(
        self, command: Command, offset: int, length: int, data: bytes | memoryview = b""
    ) -> int:
        cookie = next(self._cookies)
        header = protocol.REQUEST_HEADER.pack(protocol.REQUEST, 0, command, cookie, offset, length)
        self._wire.allow(self._request_s)
        self._wire.send(header, data)
        return cookie

    def _done(self, cookie: int, doing: str) -> None:
        """Wait for the end of a request that is answered by nothing but success."""
        if not self.export.structured:
            self._simple(cookie, doing)
            return
        for kind, size in self._pieces(cookie, doing):
            raise babble(self._wire.address, f"piece {kind} of {size} bytes when asked to {doing}")

    def _simple(self, cookie: int, doing: str) -> None:
        magic, number, about = self._wire.unpack(protocol.SIMPLE_HEADER)
        if magic != protocol.SIMPLE_REPLY or about != cookie:
            raise babble(self._wire.address, f"no reply to what was asked: {doing}")
        if number:
            raise self._failure(number, "", doing)

    def _pieces(self, cookie: int, doing: str) -> Iterator[tuple[int, int]]:
        """Kind and size of each piece of an answer; the caller receives exactly that size."""
        failed: HoldfastError | None = None
        for _ in range(_MOST_PIECES):
            (magic,) = struct.unpack(">I", self._wire.receive(4))
            if magic == protocol.SIMPLE_REPLY:
                number, about = struct.unpack(">IQ", self._wire.receive(12))
                flags, kind, size = protocol.DONE, int(Piece.NONE), 0
                failed = failed or (self._failure(number, "", doing) if number else None)
            elif magic == protocol.STRUCTURED_REPLY:
                flags, kind, about, size = struct.unpack(">HHQI", self._wire.receive(16))
            else:
                raise babble(self._wire.address, f"no reply to what was asked: {doing}")
            if about != cookie:
                raise babble(self._wire.address, f"a reply to request {about}, not to {cookie}")
            if kind & protocol.ERROR_PIECE:
                failed = failed or self._error_piece(size, doing)
            elif size:
                yield kind, size
            if flags & protocol.DONE:
                if failed is not None:
                    raise failed
                return
        raise babble(self._wire.address, f"an answer without end when asked to {doing}")

    def _error_piece(self, size: int, doing: str) -> HoldfastError:
        if not 6 <= size <= 6 + protocol.LONGEST_NAME + 8:
            raise babble(self._wire.address, f"an error of {size} bytes")
        data = self._wire.receive(size)
        number, length = struct.unpack_from(">IH", data)
        said = bytes(data[6 : 6 + length]).decode(errors="replace")
        return self._failure(number, said, doing)

    def _failure(self, number: int, said: str, doing: str) -> HoldfastError:
        kinds: dict[int, type[HoldfastError]] = {
            Failure.EPERM: NoPermission,
            Failure.ENOSPC: NoSpace,
            Failure.ENOTSUP: Unsupported,
        }
        name = next((one.name for one in Failure if one == number), f"error {number}")
        said = "".join(one if one.isprintable() else " " for one in said).strip()
        tail = f": {said} ({name})" if said else f": {name}"
        return kinds.get(number, InputOutput)(f"{self._wire.address} can't {doing}{tail}")

    def _bounds(self, offset: int, length: int) -> None:
        if offset < 0 or length < 0 or offset + length > self.export.size:
            raise Invalid(
                f"bytes {offset} to {offset + length} are not within the {self.export.size} of "
                f"the disk at {self._wire.address}"
            )


def connect(
    address: Address,
    name: str = "",
    *,
    structured: bool = True,
    contexts: Sequence[str] = (),
    connect_s: float = CONNECT_S,
    request_s: float = REQUEST_S,
) -> Connection:
    """Connect to an export.

    Args:
        address: Of the server.
        name: Of the export; empty for the default one.
        structured: Whether structured replies are wanted, which `contexts` need.
        contexts: Whose block status will be asked for: `protocol.ALLOCATION`, or
            `protocol.DIRTY_BITMAP` and a name. `Connection.export` says which the server has.
        connect_s: How long agreeing may take.
        request_s: How long each request may take.

    Raises:
        NotFound: There is no such socket or export.
        Unreachable, TooSlow: Nobody answers.
        Forbidden, NoPermission, Unsupported: The server does not give it out.
    """
    wire = Wire(address, connect_s)
    try:
        negotiation.greet(wire)
        export = negotiation.agree(wire, name, structured=structured, contexts=contexts)
    except BaseException:
        wire.close()
        raise
    return Connection(wire, export, request_s)


def list_exports(address: Address, *, connect_s: float = CONNECT_S) -> list[str]:
    """Names of the exports that a server tells of.

    Raises:
        NotFound, Unreachable, TooSlow: Nobody answers.
        Forbidden, Unsupported: The server does not tell.
    """
    wire = Wire(address, connect_s)
    try:
        negotiation.greet(wire)
        found = negotiation.exports(wire)
        with contextlib.suppress(HoldfastError):
            negotiation.leave(wire)
        return found
    finally:
        wire.close()


@dataclass(frozen=True, slots=True)
class Sockets:
    """Connections to one export that are ready for the engine, all agreed on alike.

    Attributes:
        fds: Their descriptors; whoever speaks on them makes copies of his own.
        export: What the server said of it.
    """

    fds: list[int]
    export: Export


@contextlib.contextmanager
def sockets(
    address: Address,
    name: str = "",
    *,
    count: int = 1,
    writing: bool = False,
    structured: bool = True,
    connect_s: float = CONNECT_S,
) -> Iterator[Sockets]:
    """Have several connections to one export, for the time of the block.

    One is all that is made for writing where the server does not say that several see each other's
    writes.

    Raises:
        HoldfastError: As `connect`.
    """
    made: list[Connection] = []
    try:
        made.append(connect(address, name, structured=structured, connect_s=connect_s))
        several = not writing or made[0].export.flags & Flags.CAN_MULTI_CONN
        for _ in range(count - 1 if several else 0):
            made.append(connect(address, name, structured=structured, connect_s=connect_s))
            if made[-1].export != made[0].export:
                raise babble(address, "its export is not the same for each connection")
        yield Sockets([one.hand_over() for one in made], made[0].export)
    finally:
        for one in made:
            one.drop()
