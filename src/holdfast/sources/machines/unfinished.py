"""What there is of a machine whose restore has not come to its end, and how much of it is believed.

Must not write disks. Invariants: a journal says of a disk only what was flushed to it before; who
has a journal open has it alone; only a file that is the one that was written is gone on with, or
taken away; of a restore that can't be known again nothing stays.
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from holdfast.base.errors import (
    AlreadyExists,
    Busy,
    HoldfastError,
    InputOutput,
    IntegrityError,
    TooSlow,
    Unreachable,
    storage_error,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast.sources.machines.machine import Disk
    from holdfast.sources.machines.provider import DiskTarget, DiskWriter, NewMachine

VERSION = 1
"""Of journals; one of another version is of a restore that is not gone on with."""

PREFIX = ".holdfast-restore-"
"""How the name of a journal begins, beside the disks that it is about."""

LOOK = ("stat", "-c", "%i %w %s")
"""What tells a file from another one at its place: inode, when it was made; and its size."""

_PAUSES_S = (0.5, 2.0, 5.0)
"""Before each further try to reach a disk whose server is lost."""
_LOOK_S = 60


class Shelf(Protocol):
    """Where a journal lies, and the disks that it is about."""

    def read(self) -> bytes:
        """The journal; empty where there is none.

        Raises:
            Busy: Somebody else has it open.
        """
        ...

    def append(self, data: bytes) -> None:
        """Have it longer, durably; it is made where it is missing."""
        ...

    def clear(self) -> None:
        """Take it away, if it is there."""
        ...

    def look(self, path: str) -> str | None:
        """What `LOOK` tells of a file; None where there is none."""
        ...

    def remove(self, path: str) -> None:
        """Take a file away."""
        ...

    def life(self) -> str:
        """For how long what is written there lasts: another word when it may be gone.

        Empty where all that a journal says was flushed.
        """
        ...


@dataclass(slots=True)
class Known:
    """A disk that a journal is about.

    Attributes:
        path: Of its file.
        size: Of the disk.
        identity: Of its file: the first words of what `LOOK` tells.
        until: All before this was flushed.
        bytes: Size of the file when that was said.
        source: The file that it is a copy of; empty where it is none. Its size is that file's then.
        whole: What it may be known by besides, once all of it is there; empty for nothing.
        life: What `Shelf.life` said when it was made.
    """

    path: str
    size: int
    identity: str
    until: int = 0
    bytes: int = 0
    source: str = ""
    whole: str = ""
    life: str = ""

    def is_it(self, told: str | None) -> bool:
        """Whether a file, of which `LOOK` tells this, is the one that was made."""
        if told is None:
            return False
        seen, _, size = told.rpartition(" ")
        if self.until == 0 and size == "0":  # noted, and no more than made, as far as one can see
            return True
        return seen == self.identity or (self.until == self.size and seen == self.whole != "")

    def is_whole(self, told: str | None) -> bool:
        """Whether it has not become shorter since."""
        return told is not None and int(told.rpartition(" ")[2]) >= self.bytes


@dataclass(slots=True)
class Part:
    """How much of a disk is written: see `provider.Part`."""

    journal: Journal
    disk: Disk
    path: str
    begin: int = 0
    is_new: bool = True
    source: str = ""
    whole: str = ""

    def keep(self, until: int) -> None:
        """See `provider.Part.keep`."""
        if until > self.begin:
            self.begin = until
            self.journal.note(self.disk.name, until)

    def made(self, there: str | None = None, identity: str = "") -> None:
        """The file is there, and all zero; or it will be, when what is there is renamed.

        With an identity that is known beforehand this is said before there is a file.
        """
        self.begin, self.is_new = 0, True
        told = identity or (self.journal.shelf.look(there or self.path) or "").rpartition(" ")[0]
        self.journal.begin(self, told)

    def forget(self) -> None:
        """What was written is not believed any more."""
        self.begin = 0
        self.journal.note(self.disk.name, 0)


@dataclass(slots=True)
class Journal:
    """What is known of one machine that is being made.

    Attributes:
        shelf: Where it lies.
        order: What is made.
        known: Its disks, by name.
        wanted: Those that were asked for.
        is_handed_over: Whether the machine has them.
    """

    shelf: Shelf
    order: NewMachine
    known: dict[str, Known] = field(default_factory=dict)
    wanted: set[str] = field(default_factory=set)
    is_handed_over: bool = False

    @classmethod
    def opened(cls, shelf: Shelf, order: NewMachine) -> Journal:
        """Go on with what an earlier restore left, or begin.

        Raises:
            AlreadyExists: Another restore of a machine of that name is unfinished there.
            Busy: One is at work.
        """
        head, known = _parsed(shelf.read())
        made = cls(shelf, order, known)
        if head == made._head() and not order.restart:
            return made
        if known and not order.restart:
            what = f"image {head.get('image')}, with disks of the format {head.get('format')}"
            raise AlreadyExists(
                f"a restore of '{order.name}' from {what}, is unfinished there",
                "finish that one, or throw it away: the same command as that one with --discard; "
                "--restart begins anew, and throws it away, too",
            )
        made.throw_away()
        return made

    def has(self, name: str, path: str) -> bool:
        """Whether all of a disk is there: then it is wanted, and nothing is to be done."""
        known = self.known.get(name)
        if known is None or known.path != path or not 0 < known.size == known.until:
            return False
        told = self.shelf.look(path)
        if not known.is_it(told) or not known.is_whole(told) or known.life != self.shelf.life():
            return False
        self.wanted.add(name)
        return True

    def part(
        self, disk: Disk, path: str, *, is_ours: bool = False, source: str = "", whole: str = ""
    ) -> Part:
        """How much of a disk is there; where nothing is believed, no file is.

        Args:
            disk: Which.
            path: Of its file.
            is_ours: Whatever is there was made by a restore.
            source: The file that it becomes a copy of: of another one nothing is believed.
            whole: See `Known.whole`.

        Raises:
            AlreadyExists: There is a file that no restore made.
        """
        self.wanted.add(disk.name)
        known, told = self.known.get(disk.name), self.shelf.look(path)
        if known is not None and known.path == path and known.is_it(told):
            same = known.size == disk.size and known.source == source
            same = same and known.life == self.shelf.life()
            if known.until and same and known.is_whole(told):
                begin = known.until
                return Part(self, disk, path, begin, is_new=False, source=source, whole=whole)
            self.shelf.remove(path)
        elif told is not None and is_ours:
            self.shelf.remove(path)
        elif told is not None:
            raise AlreadyExists(f"there is a file '{path}'", "give the machine another name")
        self.known.pop(disk.name, None)
        return Part(self, disk, path, source=source, whole=whole)

    def disbelieve(self, part: Part) -> None:
        """What is there is damaged: take it away."""
        part.begin, part.is_new = 0, True
        self.shelf.remove(part.path)
        self.known.pop(part.disk.name, None)

    def begin(self, part: Part, identity: str) -> None:
        """Note that an empty disk was made."""
        is_first, name = not self.known, part.disk.name
        made = Known(part.path, part.disk.size, identity, source=part.source, whole=part.whole)
        made.life = self.shelf.life()
        self.known[name] = made
        if is_first:
            self.renew()
        elif self.order.image is not None:
            self.shelf.append(_line(self._disk(name)))

    def note(self, name: str, until: int) -> None:
        """Note how far a disk is."""
        one = self.known[name]
        one.until = until
        if self.order.image is not None:
            told = self.shelf.look(one.path) or ""
            one.bytes = int(told.rpartition(" ")[2] or 0)
            self.shelf.append(_line({"disk": name, "until": until, "bytes": one.bytes}))

    @property
    def kept_bytes(self) -> int:
        """How much there is that the next restore goes on with."""
        kept = sum(one.until for one in self.known.values())
        return kept if self.order.image is not None else 0

    def throw_away(self) -> list[str]:
        """Take away all that was made, and the journal; which files those were."""
        gone = []
        for one in self.known.values():
            if one.is_it(self.shelf.look(one.path)):
                self.shelf.remove(one.path)
                gone.append(one.path)
        self.known.clear()
        self.shelf.clear()
        return gone

    def hand_over(self) -> None:
        """The machine is about to be there: from now on its disks are nobody's to take away."""
        self.drop_unwanted()
        self.is_handed_over = True
        self.shelf.clear()

    def drop_unwanted(self) -> None:
        """Take away disks of an earlier try that this one does not want."""
        for name in set(self.known) - self.wanted:
            one = self.known.pop(name)
            if one.is_it(self.shelf.look(one.path)):
                self.shelf.remove(one.path)

    def renew(self) -> None:
        """Write all of it anew, as after a machine that could not be made of its disks."""
        if self.order.image is not None:
            self.shelf.clear()
            lines = [self._head(), *(self._disk(name) for name in self.known)]
            for name, one in self.known.items():
                lines.append({"disk": name, "until": one.until, "bytes": one.bytes})
            self.shelf.append(b"".join(map(_line, lines)))

    def failed(self) -> bool:
        """The restore failed: take away what nobody can go on with; whether anything stays."""
        if self.kept_bytes:
            if self.is_handed_over:
                self.renew()
            return True
        self.throw_away()
        return False

    def _head(self) -> dict[str, Any]:
        order = self.order
        head = {"version": VERSION, "image": order.image, "name": order.name}
        return head | {"format": order.format}

    def _disk(self, name: str) -> dict[str, Any]:
        one = self.known[name]
        plain = {"disk": name, "path": one.path, "size": one.size}
        plain |= {"identity": one.identity, "source": one.source}
        plain |= {"whole": one.whole, "life": one.life}
        return {key: value for key, value in plain.items() if value != ""}


def thrown_away(shelf: Shelf, order: NewMachine) -> list[str]:
    """Take away what restores of a machine of that name left; which files those were.

    Raises:
        Busy: One is at work.
    """
    _, known = _parsed(shelf.read())
    return Journal(shelf, order, known).throw_away()


def write_part(part: Part, target: DiskTarget, write: DiskWriter) -> None:
    """Have the rest of a disk written; a server that is lost is begun again a few times.

    Args:
        part: How much there is.
        target: Where.
        write: Writes it.

    Raises:
        HoldfastError: It can't be written.
    """
    tries = 0
    while True:
        before = part.begin
        try:
            write(part.disk, target, part)
            break
        except (InputOutput, Unreachable, TooSlow, Busy):
            # What was done since it was flushed last may be there or not. The server of a process
            # that was killed just now may have the disk for a moment yet.
            tries = 0 if part.begin > before else tries
            if tries == len(_PAUSES_S):
                raise
            time.sleep(_PAUSES_S[tries])
            tries += 1
            part.is_new = False
        except IntegrityError:
            part.forget()
            raise
    part.keep(part.disk.size)


def is_sound(check: Callable[[], object]) -> bool:
    """Whether a check finds nothing that it can't mend.

    Raises:
        Busy: Somebody has the disk, and keeps it.
    """
    for pause_s in (*_PAUSES_S, None):
        try:
            check()
            break
        except (Busy, Unreachable):
            if pause_s is None:
                raise
            time.sleep(pause_s)
        except HoldfastError:
            return False
    return True


class NearShelf:
    """See `Shelf`: a file of this machine, locked while it is open."""

    def __init__(self, path: Path) -> None:
        """Name it; nothing is made."""
        self._path = path
        self._fd: int | None = None

    def read(self) -> bytes:
        """See `Shelf.read`."""
        try:
            self._fd = os.open(self._path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise self._error(error) from error
        self._lock(self._fd)
        with open(self._fd, "rb", closefd=False) as file:
            return file.read()

    def append(self, data: bytes) -> None:
        """See `Shelf.append`."""
        try:
            if self._fd is None:
                flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
                self._fd = os.open(self._path, flags, 0o600)
                self._lock(self._fd)
                _sync(self._path.parent)
            os.lseek(self._fd, 0, os.SEEK_END)
            os.write(self._fd, data)
            os.fsync(self._fd)
        except FileExistsError as error:
            raise self._busy() from error
        except OSError as error:
            raise self._error(error) from error

    def clear(self) -> None:
        """See `Shelf.clear`."""
        if self._fd is not None:
            self._path.unlink(missing_ok=True)
            self.close()

    def look(self, path: str) -> str | None:
        """See `Shelf.look`."""
        if not os.path.lexists(path):
            return None
        done = subprocess.run(
            [*LOOK, path], capture_output=True, text=True, timeout=_LOOK_S, check=False
        )
        if done.returncode:
            raise InputOutput(f"'{path}' can't be looked at: {done.stderr.strip()}")
        return done.stdout.strip()

    def remove(self, path: str) -> None:
        """See `Shelf.remove`."""
        Path(path).unlink(missing_ok=True)

    def life(self) -> str:
        """See `Shelf.life`: all is flushed."""
        return ""

    def close(self) -> None:
        """Let others have it."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _lock(self, fd: int) -> None:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self.close()
            raise self._busy() from error

    def _busy(self) -> Busy:
        return Busy(f"another restore writes what '{self._path}' is about", "wait for its end")

    def _error(self, error: OSError) -> Exception:
        return storage_error(error)(f"'{self._path}' can't be used: {error.strerror}")


def _parsed(data: bytes) -> tuple[dict[str, Any], dict[str, Known]]:
    """What a journal says; nothing where it is none of ours. A line that is cut off ends it."""
    head: dict[str, Any] = {}
    known: dict[str, Known] = {}
    for line in data.split(b"\n")[:-1]:
        try:
            one = json.loads(line)
            if not head:
                if one["version"] != VERSION:
                    return one, {}
                head = one
            elif "until" in one:
                disk = known[one["disk"]]
                disk.until, disk.bytes = int(one["until"]), int(one["bytes"])
            else:
                made = Known(str(one["path"]), int(one["size"]), str(one["identity"]))
                for name in ("source", "whole", "life"):
                    setattr(made, name, str(one.get(name, "")))
                known[str(one["disk"])] = made
        except (ValueError, KeyError, TypeError):
            break
    return head, known


def _sync(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _line(plain: dict[str, Any]) -> bytes:
    return json.dumps(plain).encode() + b"\n"
