"""Write to files of sources in another process, so that several are fed on several processors.

Python runs on one processor at a time, and SQLite hands it back for every row. Reading stays here.
Must not decide anything. Invariants: who holds the lock of a source is the process that writes to
it; if that ends, or this one, what was not committed has not happened.
"""

from __future__ import annotations

import contextlib
import marshal
import pickle
import socket
import subprocess
import sys
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from holdfast.base.errors import Cancelled, HoldfastError, InputOutput
from holdfast.control.database.failures import translated

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

    from holdfast.base.ids import ImageId
    from holdfast.control.catalog.file_rows import (
        ImageFeed,
        Mode,
        RestorePoint,
        RowsWriter,
        SourceRows,
    )
    from holdfast.control.catalog.rows import ChangeRows

ROWS = b"r"
WORDS = b"w"
"""What a message begins with."""

_ENDS_WITHIN_S = 10


class FilesApart:
    """The files of all sources, for one thread that writes to them through one process.

    Not thread-safe. The process is started when it is needed, and started again if it ended.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None
        self._abandoned = False
        self._status: int | None = None

    @contextlib.contextmanager
    def exclusive(self, source: int) -> Iterator[SourceRows]:
        """Be the only writer of a source; waits for another one, in any process."""
        if self._connection is None:
            self._start()
        with self.inside("exclusive", source):
            yield _OneSource(self, source, self._directory)

    def abandon(self) -> None:
        """Have what is under way fail; from any thread."""
        self._abandoned = True
        process = self._process
        if process is not None:
            process.kill()

    def close(self) -> None:
        """End the process; more than once is fine."""
        connection, self._connection = self._connection, None
        process, self._process = self._process, None
        if connection is not None:
            connection.close()
        if process is not None:
            try:
                process.wait(_ENDS_WITHIN_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    @contextlib.contextmanager
    def inside(self, what: str, *arguments: object) -> Iterator[None]:
        """Open something over there for the length of a block."""
        self.ask("enter", what, *arguments)
        try:
            yield
        except BaseException:
            # what failed is to be heard of, and not that it could not be undone: the process
            # that could not is ended, and so it is
            try:
                self.ask("leave", True)
            except Exception:  # noqa: BLE001
                self.close()
            raise
        self.ask("leave", False)

    def ask(self, verb: str, *arguments: object) -> Any:
        """Tell something, and wait for the answer.

        Raises:
            InputOutput: The process has ended.
            Cancelled: It was abandoned.
            Exception: What it failed of over there.
        """
        try:
            connection = self._send(WORDS + pickle.dumps((verb, *arguments)))
            well, answer = connection.recv()
        except (EOFError, OSError) as error:
            raise self._ended() from error
        if not well:
            raise answer
        return answer

    def rows(self, batch: ChangeRows) -> None:
        """Hand over rows, without waiting for what becomes of them."""
        try:
            self._send(ROWS + marshal.dumps((list(batch.dirs), list(batch.rows))))
        except (EOFError, OSError) as error:
            raise self._ended() from error

    def _send(self, message: bytes) -> Connection:
        if self._connection is None:
            raise EOFError
        self._connection.send_bytes(message)
        return self._connection

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            command = [
                sys.executable, "-P", "-m", "holdfast.control.catalog.on_sqlite.helper",
                str(theirs.fileno()), str(self._directory),
            ]  # fmt: skip
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()]
            )
            self._connection = Connection(ours.detach())

    def _ended(self) -> HoldfastError:
        process = self._process
        self.close()
        if process is not None:
            self._status = process.returncode
        if self._abandoned:
            return Cancelled("the feeding of the catalog was stopped")
        return InputOutput(
            f"the process that writes to the catalog's files has ended, with status {self._status}",
            "see whether the machine ran out of memory; the image is fed again later",
        )


class _OneSource:
    """The files of one source, for the holder of its lock; see `file_rows.SourceRows`."""

    def __init__(self, files: FilesApart, source: int, directory: Path) -> None:
        self._files = files
        self._source = source
        self._directory = directory

    @contextlib.contextmanager
    def writing(self, generation: int) -> Iterator[RowsWriter]:
        with self._open("writing", generation):
            yield _Writer(self._files)

    @contextlib.contextmanager
    def building(self, generation: int) -> Iterator[RowsWriter]:
        with self._open("building", generation):
            yield _Writer(self._files)

    def has(self, generation: int) -> bool:
        return bool(self._files.ask("call", "has", generation))

    def remove_others(self, generation: int) -> int:
        return int(self._files.ask("call", "remove_others", generation))

    @contextlib.contextmanager
    def _open(self, what: str, generation: int) -> Iterator[None]:
        file = self._directory / f"{self._source}.{generation}.db"
        with translated(file), self._files.inside(what, generation):
            yield


class _Writer:
    """One generation of a source's rows; see `file_rows.RowsWriter`."""

    def __init__(self, files: FilesApart) -> None:
        self._files = files

    def transaction(self) -> contextlib.AbstractContextManager[None]:
        return self._files.inside("transaction")

    def attempt(self) -> contextlib.AbstractContextManager[None]:
        return self._files.inside("attempt")

    def points(self) -> dict[int, RestorePoint]:
        found: dict[int, RestorePoint] = self._files.ask("call", "points")
        return found

    def add_point(self, sequence: int, point: RestorePoint) -> None:
        self._files.ask("call", "add_point", sequence, point)

    def take_back(self, oldest: int) -> None:
        self._files.ask("call", "take_back", oldest)

    def feed(self, sequence: int, mode: Mode) -> ImageFeed:
        self._files.ask("feed", "begin", sequence, mode)
        return _Feed(self._files)

    def expire(self, images: Collection[ImageId]) -> int:
        return int(self._files.ask("call", "expire", list(images)))


class _Feed:
    """The feeding of one image; see `file_rows.ImageFeed`."""

    def __init__(self, files: FilesApart) -> None:
        self.rows = 0
        self._files = files

    def add(self, batch: ChangeRows) -> None:
        if batch.rows:
            self._files.rows(batch)
            self.rows += len(batch.rows)

    def finish(self, base: int | None) -> None:
        self._files.ask("feed", "finish", base)

    def close(self) -> None:
        self._files.ask("feed", "close")
