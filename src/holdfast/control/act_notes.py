"""Acts of commands that the audit log has yet to hear of: a note of each, in a file of its own.

A restore needs no database that way. Must not import one. Invariants: a note is whole or not there;
what a process notes as begun stays while the process lives, and is known to have been left when it
is dead; a note goes only when the log has its rows.

Named tuples: a short command makes these classes anew, and data classes cost it more.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

DIRECTORY = "acts"
"""Where notes are in a home."""

_SUFFIX = ".json"


class NotedRow(NamedTuple):
    """What one row of the audit log will tell; see `control.access.Entry`."""

    what: str
    about: str
    outcome: str
    details: dict[str, Any]


class NotedJob(NamedTuple):
    """What the activity log will have of an act that was work.

    Attributes:
        kind: One of `control.jobs.JobKind`.
        host: The machine that did it.
        images: What it was about.
        paths: Of a backup, as base64.
        counters: By the names that jobs have for them.
        exit_status: Of the command.
        error: Code, message and hint of what it failed of.
    """

    kind: str
    host: str
    images: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    counters: Mapping[str, int] = MappingProxyType({})
    exit_status: int = 0
    error: tuple[str, str, str | None] | None = None


class ActNote(NamedTuple):
    """What one command did.

    Attributes:
        id: No other note has it.
        who: The name of a principal.
        begun_ns: When it began, by the clock of its machine, in ns since 1970.
        ended_ns: When it ended; None while it is under way, and for ever if its process died.
        rows: What it was.
        job: The same for the activity log; None if it is none of work, or was not begun.
    """

    id: str
    who: str
    begun_ns: int
    ended_ns: int | None = None
    rows: tuple[NotedRow, ...] = ()
    job: NotedJob | None = None

    def to_plain(self) -> dict[str, Any]:
        """As JSON has it."""
        job = self.job
        return {
            **self._asdict(),
            "rows": [one._asdict() for one in self.rows],
            "job": None if job is None else job._asdict() | {"counters": dict(job.counters)},
        }

    @classmethod
    def of_plain(cls, plain: dict[str, Any]) -> ActNote:
        """What `to_plain` made.

        Raises:
            ValueError, TypeError, KeyError: It is something else.
        """
        rows = tuple(NotedRow(**one) for one in plain["rows"])
        texts = [plain["id"], plain["who"]]
        texts += [text for one in rows for text in (one.what, one.about, one.outcome)]
        numbers = [plain["begun_ns"], plain["ended_ns"] or 0]
        if (
            not all(isinstance(one, str) for one in texts)
            or not all(isinstance(one, int) for one in numbers)
            or not all(isinstance(one.details, dict) for one in rows)
        ):
            raise TypeError("not what a note is made of")
        job = plain.get("job")
        return cls(**{**plain, "rows": rows, "job": None if job is None else NotedJob(**job)})


class Draft:
    """A note that its process may still write anew. Not thread-safe."""

    def __init__(self, note: ActNote, path: Path) -> None:
        self.note = note
        self.path = path
        self._lock: int | None = None

    def write(self, note: ActNote, *, durable: bool) -> None:
        """Say what the act is now.

        Args:
            note: One without an end belongs to this process until that dies.
            durable: Whether it is to outlast a loss of power.

        Raises:
            OSError: It can't be written; what was noted before is as it was.
        """
        self.path.parent.mkdir(mode=0o700, exist_ok=True)
        temporary = self.path.with_name(f".{self.path.name}")
        made = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(made, fcntl.LOCK_EX)
            with open(made, "wb", closefd=False) as file:
                file.write(json.dumps(note.to_plain()).encode())
            if durable:
                os.fsync(made)
            temporary.replace(self.path)
        except BaseException:
            os.close(made)
            temporary.unlink(missing_ok=True)
            raise
        self._let_go()
        self.note, self._lock = note, made
        if durable:
            directory = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
        if note.ended_ns is not None:
            self._let_go()

    def discard(self) -> None:
        """It has been told, or there was nothing to tell."""
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)
        self._let_go()

    def _let_go(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


class ActNotes:
    """The notes of one home. Several processes may leave and hear them at once."""

    def __init__(self, home: Path) -> None:
        self._directory = home / DIRECTORY

    def begin(self, who: str, begun_ns: int) -> Draft:
        """A new note, of which nothing is written yet."""
        name = f"{begun_ns:020d}-{os.urandom(8).hex()}"
        return Draft(ActNote(name, who, begun_ns), self._directory / (name + _SUFFIX))

    def told(self) -> Iterator[tuple[str, ActNote | None]]:
        """The notes of acts that nobody works on any more, by when they began; each goes after it.

        A note that can't be read now, or by this user, stays for whoever can.

        Yields:
            Its id, and what it says; None if that can't be understood.
        """
        for path in sorted(self._directory.glob(f"[0-9]*{_SUFFIX}")):
            try:
                with path.open("rb") as file:
                    if not _is_left(file.fileno()):
                        continue
                    content = file.read()
            except OSError:
                continue
            yield path.stem, _read(content)
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)


def _is_left(descriptor: int) -> bool:
    """Whether no process works on a note, nor has put another in its place."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return os.fstat(descriptor).st_nlink > 0


def _read(content: bytes) -> ActNote | None:
    try:
        return ActNote.of_plain(json.loads(content))
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
