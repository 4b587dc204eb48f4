"""How our server and a client agree on an export: fixed newstyle, without TLS.

Must not read a disk. Invariant: what a client may say before it has an export is bounded in size,
in number and, by whoever calls this, in time.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from holdfast.sources.nbd import protocol
from holdfast.sources.nbd.peer import Gone
from holdfast.sources.nbd.protocol import Answer, Flags, Info, Option

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from holdfast.sources.nbd.peer import Peer

LONGEST_REQUEST = 32 * 1024 * 1024
PREFERRED = 64 * 1024

_FLAGS = Flags.HAS_FLAGS | Flags.READ_ONLY | Flags.CAN_MULTI_CONN
_MOST_OPTIONS = 256
_LONGEST_OPTION = 64 * 1024
_CONTEXT = 1


class Readable(Protocol):
    """What a server shows. Thread-safe."""

    @property
    def size(self) -> int:
        """In bytes."""
        ...

    def read_at(self, offset: int, length: int) -> bytes:
        """Bytes from an offset on; never beyond the end."""
        ...

    def data_extents(self, offset: int, length: int) -> Sequence[tuple[int, int]]:
        """Offset and length of what is not known to be zero in a range, ascending."""
        ...


@runtime_checkable
class Answering(Protocol):
    """What answers its clients itself: a disk of an image, by the engine."""

    def serve_nbd(
        self,
        fd: int,
        begun: bytes,
        *,
        structured: bool,
        allocation: bool,
        troubled: Callable[[Exception], object],
    ) -> None:
        """Answer one client over its socket, until it leaves or the socket is shut down."""
        ...


@dataclass(frozen=True, slots=True)
class Agreed:
    """What a client has.

    Attributes:
        name: Of the export.
        disk: What it is.
        structured: Whether it is answered with structured replies.
        allocation: Whether it may ask what is allocated.
    """

    name: str
    disk: Readable
    structured: bool
    allocation: bool


async def offer(peer: Peer, exports: Mapping[str, Readable]) -> Agreed | None:
    """Greet a client, and answer what it asks until it has an export.

    Returns:
        What it has; None where it wanted none.

    Raises:
        Gone: It left, or says what it must not.
    """
    flags = protocol.FIXED_NEWSTYLE | protocol.NO_ZEROES
    await peer.send(protocol.GREETING.pack(protocol.NBDMAGIC, protocol.IHAVEOPT, flags))
    (theirs,) = struct.unpack(">I", await peer.exactly(4))
    if theirs & ~flags or not theirs & protocol.FIXED_NEWSTYLE:
        raise Gone
    talk = _Talk(peer, exports, no_zeroes=bool(theirs & protocol.NO_ZEROES))
    for _ in range(_MOST_OPTIONS):
        magic, option, length = await peer.unpack(protocol.OPTION)
        if magic != protocol.IHAVEOPT:
            raise Gone
        if length > _LONGEST_OPTION:
            await talk.answer(option, Answer.TOO_BIG)
            raise Gone
        if await talk.hear(option, await peer.exactly(length)):
            return talk.agreed
    raise Gone


class _Talk:
    def __init__(self, peer: Peer, exports: Mapping[str, Readable], *, no_zeroes: bool) -> None:
        self._peer = peer
        self._exports = exports
        self._no_zeroes = no_zeroes
        self._structured = False
        self._context_of: str | None = None
        self.agreed: Agreed | None = None

    async def answer(self, option: int, kind: int, data: bytes = b"") -> None:
        header = protocol.OPTION_ANSWER.pack(protocol.OPTION_REPLY, option, kind, len(data))
        await self._peer.send(header, data)

    async def hear(self, option: int, data: bytes) -> bool:
        """Answer one option; whether it was the last."""
        match option:
            case Option.ABORT:
                await self.answer(option, Answer.ACK)
                return True
            case Option.EXPORT_NAME:
                return await self._export_name(data)
            case Option.LIST:
                await self._list(data)
            case Option.STRUCTURED_REPLY:
                self._structured = self._structured or not data
                await self.answer(option, Answer.INVALID if data else Answer.ACK)
            case Option.LIST_META_CONTEXT | Option.SET_META_CONTEXT:
                await self._contexts(option, data)
            case Option.INFO | Option.GO:
                return await self._info(option, data) and option == Option.GO
            case _:
                await self.answer(option, Answer.UNSUPPORTED)
        return False

    def _find(self, name: str) -> tuple[str, Readable] | None:
        """An export by its name; the only one there is by none."""
        if not name and len(self._exports) == 1:
            return next(iter(self._exports.items()))
        disk = self._exports.get(name)
        return None if disk is None else (name, disk)

    def _agree(self, name: str, disk: Readable) -> Flags:
        allocation = self._context_of == name and self._structured
        self.agreed = Agreed(name, disk, self._structured, allocation)
        return _FLAGS | Flags.SEND_DF if self._structured else _FLAGS

    async def _export_name(self, data: bytes) -> bool:
        """The old way to have an export, which knows no answer but to hang up."""
        found = self._find(data.decode(errors="surrogateescape"))
        if found is None:
            raise Gone
        flags = self._agree(*found)
        await self._peer.send(
            struct.pack(">QH", found[1].size, flags), b"" if self._no_zeroes else bytes(124)
        )
        return True

    async def _list(self, data: bytes) -> None:
        if data:
            await self.answer(Option.LIST, Answer.INVALID)
            return
        for name in self._exports:
            await self.answer(Option.LIST, Answer.SERVER, _string(name))
        await self.answer(Option.LIST, Answer.ACK)

    async def _contexts(self, option: int, data: bytes) -> None:
        strings = _strings(data)
        if strings is None or not self._structured:
            await self.answer(option, Answer.INVALID)
            return
        name, wanted = strings
        found = self._find(name)
        if found is None:
            await self.answer(option, Answer.UNKNOWN)
            return
        all_of_them = option == Option.LIST_META_CONTEXT and (not wanted or "base:" in wanted)
        known = protocol.ALLOCATION in wanted or all_of_them
        if option == Option.SET_META_CONTEXT:
            self._context_of = found[0] if known else None
        if known:
            told = struct.pack(">I", _CONTEXT) + protocol.ALLOCATION.encode()
            await self.answer(option, Answer.META_CONTEXT, told)
        await self.answer(option, Answer.ACK)

    async def _info(self, option: int, data: bytes) -> bool:
        name = _name_and_wishes(data)
        if name is None:
            await self.answer(option, Answer.INVALID)
            return False
        found = self._find(name)
        if found is None:
            await self.answer(option, Answer.UNKNOWN)
            return False
        flags = self._agree(*found)
        told = struct.pack(">HQH", Info.EXPORT, found[1].size, flags)
        await self.answer(option, Answer.INFO, told)
        sizes = struct.pack(">HIII", Info.BLOCK_SIZE, 1, PREFERRED, LONGEST_REQUEST)
        await self.answer(option, Answer.INFO, sizes)
        await self.answer(option, Answer.ACK)
        return True


def _string(text: str) -> bytes:
    data = text.encode(errors="surrogateescape")
    return struct.pack(">I", len(data)) + data


def _name_and_wishes(data: bytes) -> str | None:
    """The name of an export, before what is wished to be told; None where that is not whole."""
    if len(data) < 6:
        return None
    (length,) = struct.unpack_from(">I", data)
    if length > min(len(data) - 6, protocol.LONGEST_NAME):
        return None
    (wishes,) = struct.unpack_from(">H", data, 4 + length)
    whole = len(data) == 6 + length + 2 * wishes
    return data[4 : 4 + length].decode(errors="surrogateescape") if whole else None


def _strings(data: bytes) -> tuple[str, list[str]] | None:
    """The name of an export and the contexts that are asked for; None where that is not whole."""
    found: list[str] = []
    at, count = 0, 1
    while len(found) < count:
        if at + 4 > len(data):
            return None
        (length,) = struct.unpack_from(">I", data, at)
        if length > protocol.LONGEST_NAME or at + 4 + length > len(data):
            return None
        found.append(data[at + 4 : at + 4 + length].decode(errors="surrogateescape"))
        at += 4 + length
        if len(found) == 1:
            if at + 4 > len(data):
                return None
            (queries,) = struct.unpack_from(">I", data, at)
            count, at = 1 + queries, at + 4
            if queries > _LONGEST_OPTION // 4:
                return None
    return (found[0], found[1:]) if at == len(data) else None
