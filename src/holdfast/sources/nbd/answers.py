"""What our server answers a client that has an export.

Must not write to a disk. Invariants: a client has a bounded number of requests and of bytes under
way; a range that is not within the disk, or longer than was agreed, is refused before anything is
read; what can't be read is an error to the client, never zeroes.
"""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from typing import TYPE_CHECKING, TypeVar

from holdfast.base.errors import InputOutput
from holdfast.sources.nbd import protocol
from holdfast.sources.nbd.offers import LONGEST_REQUEST
from holdfast.sources.nbd.peer import Gone
from holdfast.sources.nbd.protocol import Command, Failure, Piece

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor

    from holdfast.sources.nbd.offers import Agreed, Readable
    from holdfast.sources.nbd.peer import Peer

REQUESTS = 32
"""Of one client at once."""
BYTES = 64 * 1024 * 1024
"""Of one client at once, in answers."""

_MOST_PIECES = 64
_MOST_EXTENTS = 8192
_ONE_EXTENT = 8
_CONTEXT = 1

_JOINED = 4096
"""Holes shorter than this are sent as the zeroes that they are."""

T = TypeVar("T")


class Budget:
    """Bytes that may be under way together. Who comes first is served first."""

    def __init__(self, total: int) -> None:
        """None is taken."""
        self._total = self._free = total
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    async def take(self, count: int) -> int:
        """Have so many bytes, as soon as they are free.

        Returns:
            How many are to be given back.
        """
        count = min(count, self._total)
        if not self._waiting and self._free >= count:
            self._free -= count
            return count
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((count, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give(count)
            else:
                self._waiting.remove((count, turn))
                self.give(0)
            raise
        return count

    def give(self, count: int) -> None:
        """Give back what was taken."""
        self._free += count
        while self._waiting and self._free >= self._waiting[0][0]:
            wanted, turn = self._waiting.popleft()
            if not turn.done():
                self._free -= wanted
                turn.set_result(None)


class Answers:
    """Answers to one client."""

    def __init__(
        self,
        peer: Peer,
        agreed: Agreed,
        threads: Executor,
        all_bytes: Budget,
        troubled: Callable[[str, Exception], None],
    ) -> None:
        """Nothing is read before `run`."""
        self._peer = peer
        self._agreed = agreed
        self._threads = threads
        self._troubled = troubled
        self._requests = asyncio.Semaphore(REQUESTS)
        self._bytes = Budget(BYTES)
        self._all_bytes = all_bytes

    async def run(self) -> None:
        """Answer until the client leaves.

        Raises:
            Gone: It left without a word, or says what it must not.
        """
        async with asyncio.TaskGroup() as group:
            while True:
                magic, flags, command, cookie, offset, length = await self._peer.unpack(
                    protocol.REQUEST_HEADER
                )
                if magic != protocol.REQUEST:
                    raise Gone
                if command == Command.DISCONNECT:
                    return
                if command == Command.WRITE:
                    if length > LONGEST_REQUEST:
                        raise Gone
                    await self._peer.skip(length)
                await self._requests.acquire()
                group.create_task(self._one(command, flags, cookie, offset, length))

    async def _one(self, command: int, flags: int, cookie: int, offset: int, length: int) -> None:
        try:
            if (failure := self._wrong(command, offset, length)) is not None:
                await self._fail(cookie, failure, "")
            elif command == Command.READ:
                mine = await self._bytes.take(length)
                try:
                    of_all = await self._all_bytes.take(length)
                    try:
                        await self._read(flags, cookie, offset, length)
                    finally:
                        self._all_bytes.give(of_all)
                finally:
                    self._bytes.give(mine)
            elif command == Command.BLOCK_STATUS:
                await self._status(flags, cookie, offset, length)
            else:
                await self._peer.send(self._end(cookie))
        finally:
            self._requests.release()

    def _wrong(self, command: int, offset: int, length: int) -> Failure | None:
        """Why a request is refused."""
        if command in (Command.WRITE, Command.TRIM, Command.WRITE_ZEROES):
            return Failure.EPERM
        if command in (Command.FLUSH, Command.CACHE):
            return None
        if command not in (Command.READ, Command.BLOCK_STATUS) or not length:
            return Failure.EINVAL
        if command == Command.BLOCK_STATUS and not self._agreed.allocation:
            return Failure.EINVAL
        if command == Command.READ and length > LONGEST_REQUEST:
            return Failure.EINVAL
        return Failure.EINVAL if offset + length > self._agreed.disk.size else None

    async def _read(self, flags: int, cookie: int, offset: int, length: int) -> None:
        whole = not self._agreed.structured or bool(flags & protocol.DONT_FRAGMENT)
        try:
            pieces = await self._in_thread(_pieces, offset, length, whole)
        except Exception as error:  # noqa: BLE001 - the client is told, whatever it was
            await self._trouble(cookie, error)
            return
        if not self._agreed.structured:
            header = protocol.SIMPLE_HEADER.pack(protocol.SIMPLE_REPLY, 0, cookie)
            await self._peer.send(header, b"".join(data or b"" for _, _, data in pieces))
            return
        parts: list[bytes] = []
        for number, (at, size, data) in enumerate(pieces, 1):
            done = protocol.DONE if number == len(pieces) else 0
            if data is None:
                told = struct.pack(">QI", at, size)
                parts += [_header(done, Piece.HOLE, cookie, len(told)), told]
            else:
                head = _header(done, Piece.DATA, cookie, 8 + len(data))
                parts += [head + struct.pack(">Q", at), data]
        await self._peer.send(*parts)

    async def _status(self, flags: int, cookie: int, offset: int, length: int) -> None:
        try:
            extents = await self._in_thread(_extents, offset, length, bool(flags & _ONE_EXTENT))
        except Exception as error:  # noqa: BLE001 - the client is told, whatever it was
            await self._trouble(cookie, error)
            return
        told = struct.pack(">I", _CONTEXT) + b"".join(protocol.EXTENT.pack(*one) for one in extents)
        header = _header(protocol.DONE, Piece.BLOCK_STATUS, cookie, len(told))
        await self._peer.send(header, told)

    async def _in_thread(self, work: Callable[..., T], *about: int) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, work, self._agreed.disk, *about)

    async def _trouble(self, cookie: int, error: Exception) -> None:
        self._troubled(self._agreed.name, error)
        await self._fail(cookie, Failure.EIO, str(error))

    async def _fail(self, cookie: int, failure: Failure, why: str) -> None:
        if not self._agreed.structured:
            await self._peer.send(
                protocol.SIMPLE_HEADER.pack(protocol.SIMPLE_REPLY, failure, cookie)
            )
            return
        said = why.encode(errors="replace")[:1000]
        told = struct.pack(">IH", failure, len(said)) + said
        await self._peer.send(_header(protocol.DONE, Piece.ERROR, cookie, len(told)), told)

    def _end(self, cookie: int) -> bytes:
        if self._agreed.structured:
            return _header(protocol.DONE, Piece.NONE, cookie, 0)
        return protocol.SIMPLE_HEADER.pack(protocol.SIMPLE_REPLY, 0, cookie)


def _header(flags: int, kind: Piece, cookie: int, length: int) -> bytes:
    return protocol.STRUCTURED_HEADER.pack(protocol.STRUCTURED_REPLY, flags, kind, cookie, length)


def _data(disk: Readable, offset: int, length: int) -> list[tuple[int, int]]:
    """Ranges of a disk that are not known to be zero: ascending, apart, within what was asked."""
    found: list[tuple[int, int]] = []
    end = offset + length
    for begin, count in disk.data_extents(offset, length):
        first, last = max(begin, offset), min(begin + count, end)
        if first >= last:
            continue
        if found and first - sum(found[-1]) < _JOINED:
            found[-1] = (found[-1][0], max(last, sum(found[-1])) - found[-1][0])
        else:
            found.append((first, last - first))
    return found


def _read(disk: Readable, offset: int, length: int) -> bytes:
    data = disk.read_at(offset, length)
    if len(data) != length:
        raise InputOutput(f"only {len(data)} of {length} bytes at {offset} could be read")
    return data


def _pieces(
    disk: Readable, offset: int, length: int, whole: bool
) -> list[tuple[int, int, bytes | None]]:
    """What an answer to a read consists of: offset, length, and bytes or nothing for zeroes."""
    data = _data(disk, offset, length)
    if not data and not whole:
        return [(offset, length, None)]
    if not data:
        return [(offset, length, bytes(length))]
    if whole or len(data) > _MOST_PIECES or data == [(offset, length)]:
        return [(offset, length, _read(disk, offset, length))]
    found: list[tuple[int, int, bytes | None]] = []
    at = offset
    for begin, count in data:
        if begin > at:
            found.append((at, begin - at, None))
        found.append((begin, count, _read(disk, begin, count)))
        at = begin + count
    if at < offset + length:
        found.append((at, offset + length - at, None))
    return found


def _extents(disk: Readable, offset: int, length: int, one: bool) -> list[tuple[int, int]]:
    """What is allocated, as lengths and flags from an offset on; not more than fit an answer."""
    found: list[tuple[int, int]] = []
    at, zero = offset, protocol.HOLE | protocol.ZERO
    for begin, count in _data(disk, offset, length):
        if begin > at:
            found.append((begin - at, zero))
        found.append((count, 0))
        at = begin + count
        if one or len(found) >= _MOST_EXTENTS:
            return found[:1] if one else found
    if at < offset + length:
        found.append((offset + length - at, zero))
    return found[:1] if one else found
