"""The files of ext2/3/4, NTFS, FAT and exFAT, read by a worker that has no rights.

Must not trust what the worker says, nor wait for it for ever. Invariants: whatever is on the disk,
this process only ever sees entries that keep the promises of `entries`; a worker that dies, hangs
or talks nonsense costs what was asked of it, and the next question gets a new one; an error of the
disk itself comes out as it is.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from holdfast.base.errors import Unsupported
from holdfast.sources.filesystems import frames
from holdfast.sources.filesystems.entries import (
    ROOT,
    Batch,
    Details,
    Entry,
    FilesUnreadable,
)
from holdfast.sources.filesystems.frames import OFFSET, PLACE, WHICH, BadFrame, Say
from holdfast.sources.filesystems.recognise import EXT, FAT
from holdfast.sources.machines.provider import Remark

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self

    from holdfast.sources.filesystems.disk import Disk

KINDS = frozenset({*EXT, *FAT, "ntfs", "exfat"})
"""File systems that are read so."""

REMARKS_AT_MOST = 1000

PIECE_AT_MOST = 8 << 20
"""Bytes of a file that may be asked for at once."""

_WANT_AT_MOST = 4 << 20
_BUFFER = 4 << 20


@dataclass(frozen=True, slots=True)
class Limits:
    """What a worker may use.

    Attributes:
        memory_bytes: Of address space.
        cpu_s: Of processor time in its life.
        patience_s: How long it may take to say something new, reading apart.
    """

    memory_bytes: int = 2 << 30
    cpu_s: int = 3600
    patience_s: float = 180.0


class SandboxedFiles:
    """The files of one file system. Not thread-safe."""

    def __init__(self, disk: Disk, kind: str, name: str, limits: Limits | None = None) -> None:
        """Nothing is started yet.

        Args:
            disk: Where it lies.
            kind: One of `KINDS`.
            name: Of the volume, for messages.
            limits: What the worker may use.
        """
        self._disk = disk
        self._kind = kind
        self._name = name
        self._limits = limits or Limits()
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._remarks: list[Remark] = []
        self.remarks_total = 0

    @property
    def remarks(self) -> list[Remark]:
        """What could not be read so far; not more than `REMARKS_AT_MOST`."""
        return self._remarks

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def tree(self, path: bytes = ROOT) -> Iterator[Batch]:
        """As `Files.tree`."""
        for kind, payload in self._ask(Say.TREE, path, path):
            if kind is Say.ROWS:
                yield self._rows(payload)

    def entry(self, path: bytes) -> Entry:
        """As `Files.entry`."""
        for kind, payload in self._ask(Say.ENTRY, path, path):
            if kind is Say.DONE:
                found = self._rows(payload, of_path=True).entries
                if len(found) == 1:
                    return found[0]
        raise FilesUnreadable(f"{self._name}: the worker does not answer")

    def read(self, entry: Entry, path: bytes) -> Iterator[tuple[int, bytes]]:
        """As `Files.read`."""
        at = 0
        which = WHICH.pack(entry.inode, entry.stream) + path
        for kind, payload in self._ask(Say.READ, which, entry.name):
            if kind is Say.DATA and len(payload) > OFFSET.size:
                (offset,) = OFFSET.unpack_from(payload)
                data = payload[OFFSET.size :]
                if offset < at or offset + len(data) > entry.size:
                    self._end()
                    raise FilesUnreadable(f"{self._name}: a file is not as long as it was")
                at = offset + len(data)
                yield offset, data

    def piece(self, entry: Entry, path: bytes, offset: int, length: int) -> bytes:
        """As `Files.piece`."""
        found = bytearray(max(0, min(length, PIECE_AT_MOST, entry.size - offset)))
        if not found:
            return b""
        which = WHICH.pack(entry.inode, entry.stream) + PLACE.pack(offset, len(found)) + path
        for kind, payload in self._ask(Say.PIECE, which, entry.name):
            if kind is Say.DATA and len(payload) > OFFSET.size:
                at = OFFSET.unpack_from(payload)[0] - offset
                end = at + len(payload) - OFFSET.size
                if not 0 <= at < end <= len(found):
                    raise self._nonsense(ValueError("a part of a file that was not asked for"))
                found[at:end] = memoryview(payload)[OFFSET.size :]
        return bytes(found)

    def details(self, entry: Entry, path: bytes) -> Details:
        """As `Files.details`."""
        which = WHICH.pack(entry.inode, entry.stream) + path
        for kind, payload in self._ask(Say.DETAILS, which, entry.name):
            if kind is Say.DONE:
                try:
                    found = frames.unpack_map(payload)
                    notes = found.get(b"notes", b"").decode("utf-8", "replace")
                    xattrs = {
                        name.removeprefix(b"xattr:"): value
                        for name, value in found.items()
                        if name.startswith(b"xattr:")
                    }
                    return Details(xattrs, int(found.get(b"dos", b"0")), tuple(notes.splitlines()))
                except (BadFrame, ValueError) as error:
                    raise self._nonsense(error) from error
        return Details()

    def close(self) -> None:
        """End the worker."""
        self._end()

    # -- talking ----------------------------------------------------------------------------

    def _ask(self, command: Say, payload: bytes, about: bytes) -> Iterator[tuple[Say, bytes]]:
        """Send a command; what comes, until the end, which is the last."""
        if self._process is None:
            self._start()
            for _ in self._talk(Say.OPEN, b"%s\0%d" % (self._kind.encode(), self._disk.size), b""):
                pass
        yield from self._talk(command, payload, about)

    def _talk(self, command: Say, payload: bytes, about: bytes) -> Iterator[tuple[Say, bytes]]:
        ended = False
        try:
            self._say(command, payload)
            deadline_s = self._deadline(self._limits.patience_s)
            while not ended:
                kind, said = self._hear(deadline_s)
                if kind is Say.WANT:
                    self._give(said)
                    continue
                ended = kind in (Say.DONE, Say.MISSING, Say.ERROR)
                if kind is Say.MISSING:
                    raise KeyError(about)
                if kind is Say.ERROR:
                    raise FilesUnreadable(f"{self._name}: {_text(said)}")
                if kind is Say.REMARK:
                    self._note(said)
                yield kind, said
                deadline_s = self._deadline(self._limits.patience_s)
        except BadFrame as error:
            raise self._nonsense(error) from error
        except EOFError as error:
            raise FilesUnreadable(self._last_words()) from error
        except TimeoutError as error:
            raise FilesUnreadable(
                f"{self._name}: reading it took too long, and was ended"
            ) from error
        except (BrokenPipeError, ConnectionResetError) as error:
            raise FilesUnreadable(self._last_words()) from error
        finally:
            # whoever stops in the middle, for whatever reason, leaves a worker that still talks
            if not ended:
                self._end()

    def _say(self, kind: Say, payload: bytes) -> None:
        link = self._socket
        assert link is not None  # noqa: S101 - started above
        link.settimeout(self._limits.patience_s)
        link.sendall(frames.HEADER.pack(kind, len(payload)))
        if payload:
            link.sendall(payload)

    def _hear(self, deadline_s: float) -> tuple[Say, bytes]:
        link = self._socket
        assert link is not None  # noqa: S101 - started above

        def read(length: int) -> bytes:
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                raise TimeoutError
            link.settimeout(left_s)
            return link.recv(length)

        return frames.receive(read)

    def _give(self, said: bytes) -> None:
        if len(said) != PLACE.size:
            raise BadFrame("a question for bytes that is none")
        offset, length = PLACE.unpack(said)
        if length > _WANT_AT_MOST:
            raise BadFrame(f"a question for {length} bytes")
        # an error of the disk ends the worker, and comes out
        self._say(
            Say.BYTES, self._disk.read_at(offset, length) if offset < self._disk.size else b""
        )

    def _rows(self, payload: bytes, *, of_path: bool = False) -> Batch:
        try:
            return frames.unpack_rows(payload, of_path=of_path)
        except BadFrame as error:
            raise self._nonsense(error) from error

    def _note(self, said: bytes) -> None:
        self.remarks_total += 1
        if len(self._remarks) < REMARKS_AT_MOST:
            path, _, words = said.partition(b"\0")
            about = f"{self._name}{_text(path)}"
            self._remarks.append(Remark("warning", "not-read", f"{about}: {_text(words)}", about))

    def _nonsense(self, error: Exception) -> FilesUnreadable:
        self._end()
        return FilesUnreadable(f"{self._name}: the worker said what it may not: {error}")

    # -- the process --------------------------------------------------------------------------

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        for one in (ours, theirs):
            one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
        limits = self._limits
        command = [sys.executable, "-I", "-m", "holdfast.sources.filesystems.worker"]
        numbers = [theirs.fileno(), limits.memory_bytes, limits.cpu_s]
        try:
            with theirs:
                self._process = subprocess.Popen(
                    command + [str(one) for one in numbers],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    cwd="/",
                    env={"TZ": "UTC", "LC_ALL": "C.UTF-8", "PATH": os.defpath},
                )
            self._socket = ours
            kind, said = self._hear(self._deadline(limits.patience_s))
        except (EOFError, BadFrame, OSError) as error:
            ours.close()
            self._end()
            raise FilesUnreadable(f"{self._name}: no worker could be started: {error}") from error
        if kind is Say.MISSING:
            self._end()
            raise Unsupported(
                f"file systems of the kind {self._kind} can't be read here: {_text(said)}",
                "install what they are read with: pip install 'holdfast[vm]'",
            )
        if kind is not Say.DONE:
            self._end()
            raise Unsupported(
                f"there is no sandbox here to read strangers' file systems in: {_text(said)}",
                "use a Linux of x86-64 or arm64 with seccomp",
            )

    def _deadline(self, within_s: float) -> float:
        return time.monotonic() + within_s

    def _last_words(self) -> str:
        """Why a worker is gone."""
        status = None
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                status = self._process.wait(5)
        if status is not None and status < 0:
            return f"{self._name}: reading it failed (its worker was killed by signal {-status})"
        return f"{self._name}: reading it failed (its worker ended)"

    def _end(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def _text(raw: bytes) -> str:
    return raw[:500].decode("utf-8", "backslashreplace")
