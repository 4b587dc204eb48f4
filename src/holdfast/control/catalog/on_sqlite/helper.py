"""The process that writes to files of sources for another one: SQLite on a processor of its own.

Run by `apart`, with which it shares the language below. Must not decide anything, and must not
outlive the one it works for: its locks and its transactions end with it, and it ends when nobody
can tell it anything any more.

What it is told:

* ``enter`` what, argument: open one of ``exclusive``, ``writing``, ``building``, ``transaction``,
  ``attempt`` inside of the one that was opened last;
* ``leave`` failed: close the one that was opened last;
* ``call`` method, arguments: of what was opened last that has it;
* ``feed`` sequence, mode: begin to feed an image;
* rows, which are not answered: what goes wrong with them is the answer to what is told next.
"""

from __future__ import annotations

import gc
import marshal
import pickle
import signal
import sys
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdfast.base.errors import InternalError
from holdfast.control.catalog.on_sqlite.apart import ROWS
from holdfast.control.catalog.on_sqlite.source_files import SourceFiles

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from holdfast.control.catalog.file_rows import ImageFeed
    from holdfast.control.catalog.rows import ChangeRow


class Undone(Exception):  # noqa: N818 - it is no error, and nobody sees it
    """Why something is left that is to have no effect."""


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch of differences, as it came."""

    dirs: list[bytes]
    rows: list[ChangeRow]


class Helper:
    """Does what it is told."""

    def __init__(self, files: SourceFiles) -> None:
        self._opened: list[tuple[AbstractContextManager[Any], Any]] = []
        self._files = files
        self._feed: ImageFeed | None = None
        self._failed_of: Exception | None = None

    def rows(self, batch: Batch) -> None:
        """Take rows, unless some before them could not be taken."""
        if self._failed_of is None and self._feed is not None:
            try:
                self._feed.add(batch)
            except Exception as error:  # noqa: BLE001 - it is told when something is asked
                self._failed_of = error

    def told(self, verb: str, arguments: tuple[Any, ...]) -> object:
        """Do what a message asks for; the answer to it."""
        failed_of, self._failed_of = self._failed_of, None
        if failed_of is not None and verb != "leave":
            raise failed_of
        return getattr(self, verb)(*arguments)

    def enter(self, what: str, *arguments: Any) -> None:
        """Open something."""
        inside = self._opened[-1][1] if self._opened else self._files
        context = getattr(inside, what)(*arguments)
        self._opened.append((context, context.__enter__() or inside))

    def leave(self, failed: bool) -> None:
        """Close what was opened last; if it failed, without effect."""
        context, _ = self._opened.pop()
        if not failed:
            context.__exit__(None, None, None)
            return
        try:
            reason = Undone()
            context.__exit__(Undone, reason, None)
        except Undone:
            pass

    def call(self, method: str, *arguments: Any) -> object:
        """Have something done by what was opened last."""
        return getattr(self._opened[-1][1], method)(*arguments)

    def feed(self, verb: str, *arguments: Any) -> None:
        """Begin to feed an image, finish that, or close it."""
        if verb == "begin":
            self._feed = self._opened[-1][1].feed(*arguments)
        elif self._feed is not None:
            getattr(self._feed, verb)(*arguments)


def serve(connection: Connection, helper: Helper) -> None:
    """Do what comes, until nothing more can come."""
    while True:
        try:
            message = connection.recv_bytes()
        except (EOFError, ConnectionError):
            return
        if message[:1] == ROWS:
            helper.rows(Batch(*marshal.loads(memoryview(message)[1:])))  # noqa: S302 - our own
            continue
        verb, *arguments = pickle.loads(memoryview(message)[1:])  # noqa: S301 - our own
        answer: tuple[bool, object]
        try:
            answer = (True, helper.told(verb, tuple(arguments)))
        except Exception as error:  # noqa: BLE001 - the one who asked decides what it means
            answer = (False, error)
        try:
            connection.send_bytes(_pickled(answer))
        except ConnectionError:
            return


def _pickled(answer: tuple[bool, object]) -> bytes:
    try:
        return pickle.dumps(answer)
    except Exception:  # noqa: BLE001 - an error that can't be sent is told in words
        return pickle.dumps((False, InternalError(repr(answer[1]))))


def main() -> None:
    """Work for the process at the other end of the socket whose number is the first argument."""
    # Rows come as tuples, thousands at a time, and nothing here makes cycles: to look for them
    # would take a tenth of the time.
    gc.disable()
    # whoever is at the keyboard means the one we work for
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    descriptor, directory = int(sys.argv[1]), Path(sys.argv[2])
    with Connection(descriptor) as connection:
        serve(connection, Helper(SourceFiles(directory, _nobody_asks)))


def _nobody_asks(source: int) -> int:
    raise NotImplementedError(f"source {source} is not read here")


if __name__ == "__main__":
    main()
