"""Disks of a new machine that are written here first, and copied to their place from here.

Must not know where that place is. Invariants: a directory of one restore is this user's alone, and
locked while that is at work; it stays only with disks by which the same restore goes on, so that
none of them is read from the image twice.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast.base.errors import Forbidden, storage_error
from holdfast.base.units import format_size
from holdfast.sources import places
from holdfast.sources.machines.new_disks import NewDisk, write_rest
from holdfast.sources.machines.provider import Remark
from holdfast.sources.machines.unfinished import Journal, NearShelf

if TYPE_CHECKING:
    from collections.abc import Iterator

    from holdfast.sources.machines.machine import Disk
    from holdfast.sources.machines.provider import DiskWriter, NewMachine

PREFIX = "holdfast-restore-"
JOURNAL = ".journal"


class Staged:
    """The disks of one restore, here."""

    def __init__(self, directory: Path, journal: Journal) -> None:
        """Go on with what there is."""
        self._directory = directory
        self._journal = journal

    def disk(self, disk: Disk, image_format: str, write: DiskWriter) -> Path:
        """Have what is missing of a disk written; where it is.

        Args:
            disk: What is made.
            image_format: Of its file.
            write: Writes it.
        """
        path = self._directory / f"{disk.name}.{image_format}"
        write_rest(NewDisk(disk, path, image_format), write, self._journal, is_ours=True)
        return path

    def drop(self, name: str, path: Path) -> None:
        """All of a disk is in its place."""
        self._journal.known.pop(name, None)
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def staged(order: NewMachine, place: str) -> Iterator[Staged]:
    """Have the disks of a restore for the time of the block, with what an earlier try left.

    Args:
        order: What is made.
        place: Where it is made, as no other place is called.

    Raises:
        AlreadyExists: Another restore of a machine of that name is unfinished here.
        Busy: One is at work.
        HoldfastError: They can't be kept here.
    """
    directory = directory_of(order.name, place)
    _make(directory)
    with places.alone(directory):
        with contextlib.closing(NearShelf(directory / JOURNAL)) as shelf:
            journal = Journal.opened(shelf, order)
            try:
                yield Staged(directory, journal)
            except BaseException:
                if journal.failed():
                    raise
                shutil.rmtree(directory, ignore_errors=True)
                raise
        shutil.rmtree(directory, ignore_errors=True)


def throw_away(name: str, place: str) -> list[str]:
    """Take away what restores of a machine of that name left here; which directory that was.

    Raises:
        Busy: One is at work.
    """
    directory = directory_of(name, place)
    if not _is_ours(directory):
        return []
    with places.alone(directory):
        shutil.rmtree(directory)
    return [str(directory)]


def directory_of(name: str, place: str) -> Path:
    """Where the disks of a restore are: the same for the same machine at the same place."""
    digest = hashlib.sha256(f"{place}\0{name}".encode(errors="surrogateescape")).hexdigest()
    return _parent() / f"{PREFIX}{os.geteuid()}-{digest[:20]}"


def fingerprint(path: Path) -> str:
    """What tells a file that is written from every other one, and from itself when it is changed.

    Its node may be the same again, but not with the same time of its last change.
    """
    found = path.stat()
    return f"{found.st_ino} {found.st_mtime_ns} {found.st_ctime_ns} {found.st_size}"


def tell(order: NewMachine, name: str, begin: int, size: int) -> None:
    """Tell of a disk of which so much is in its place."""
    if begin:
        share = f"{format_size(begin)} of {format_size(size)} were already there"
        message = f"the copy of disk '{name}' is continued: {share}"
        order.tell(Remark("info", "copy-continued", message, name))


def _parent() -> Path:
    """On a disk, if nobody says otherwise."""
    usual = Path("/var/tmp")  # noqa: S108 - a directory of one's own is made in it
    return Path(tempfile.gettempdir()) if os.environ.get("TMPDIR") or not usual.is_dir() else usual


def _make(directory: Path) -> None:
    try:
        directory.mkdir(mode=0o700)
    except FileExistsError:
        if not _is_ours(directory):
            raise Forbidden(
                f"'{directory}' is somebody else's, and disks would be written there",
                "remove it, or have TMPDIR in the environment name another directory",
            ) from None
    except OSError as error:
        raise storage_error(error)(f"'{directory}' can't be made: {error.strerror}") from error


def _is_ours(directory: Path) -> bool:
    """Whether it is there, and nobody else can have put anything into it."""
    try:
        found = directory.lstat()
    except OSError:
        return False
    mine = found.st_uid == os.geteuid() and not found.st_mode & 0o077
    return stat.S_ISDIR(found.st_mode) and mine
