"""Make a disk of a new machine, and have it written; give its network cards addresses.

Must not know where the bytes come from. Invariants: a file has its name only when its journal knows
it; a disk without a journal that could not be written whole is gone.
"""

from __future__ import annotations

import contextlib
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from holdfast.base.errors import AlreadyExists
from holdfast.sources.machines.provider import DiskTarget, WholePart
from holdfast.sources.machines.unfinished import is_sound, write_part
from holdfast.sources.nbd.qemu_nbd import image_node, run_img, serving

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

    from holdfast.sources.machines.machine import Disk
    from holdfast.sources.machines.provider import DiskWriter
    from holdfast.sources.machines.unfinished import Journal
    from holdfast.sources.nbd.qemu_nbd import Served

OPTIONS = {
    "qcow2": ("lazy_refcounts=off",),
    "vmdk": ("subformat=monolithicSparse",),
    "vhdx": ("subformat=dynamic",),
    # Without force_size a disk is rounded to cylinders, and is larger than it was.
    "vpc": ("subformat=dynamic", "force_size=on"),
}
"""What `qemu-img` is told of a new file of a format; of others nothing."""
BLANK = ".holdfast-new"
"""How the name of a file ends that no journal knows yet."""

_SECTOR = 512

_CHECK_S = 3600.0


@dataclass(frozen=True, slots=True)
class NewDisk:
    """A disk that is to be made.

    Attributes:
        disk: As it was.
        path: Of its new file.
        format: Of that.
    """

    disk: Disk
    path: Path
    format: str


def write_disk(new: NewDisk, write: DiskWriter) -> None:
    """Make the file and have all of it written, in one go.

    Raises:
        AlreadyExists: There is such a file.
        HoldfastError: It can't be made or written.
    """
    if new.path.exists():
        raise AlreadyExists(f"there is a file '{new.path}'", "give the machine another name")
    what = _what(new)
    try:
        make_empty(new.path, new.format, new.disk.size, what)
        write(new.disk, target_of(new.path, new.format, what), WholePart())
    except BaseException:
        with contextlib.suppress(OSError):
            new.path.unlink()
        raise


def write_rest(new: NewDisk, write: DiskWriter, journal: Journal, *, is_ours: bool = False) -> None:
    """Make the file, unless it is there, and have the rest of it written.

    Args:
        new: What is made.
        write: Writes it.
        journal: Of what is there.
        is_ours: Whatever has its path was made by a restore.

    Raises:
        AlreadyExists: There is a file that no restore made.
        HoldfastError: It can't be made or written.
    """
    what = _what(new)
    part = journal.part(new.disk, str(new.path), is_ours=is_ours)
    if not part.is_new and not mended(new.path, new.format, what):
        journal.disbelieve(part)
    if part.is_new:
        blank = new.path.with_name(f".{new.path.name}{BLANK}")
        blank.unlink(missing_ok=True)
        try:
            make_empty(blank, new.format, new.disk.size, what)
            part.made(str(blank))
            blank.replace(new.path)
        except BaseException:
            blank.unlink(missing_ok=True)
            raise
    write_part(part, target_of(new.path, new.format, what), write)


def target_of(path: Path, image_format: str, what: str) -> DiskTarget:
    """A file of this machine as something that is written; `what` names it in messages."""

    def serve() -> AbstractContextManager[Served]:
        return serving(image_node(path, image_format), what, writable=True)

    return DiskTarget(image_format, path, serve)


def mended(path: Path, image_format: str, what: str) -> bool:
    """Give back what a file of a disk that was cut off has lost track of; whether it is sound."""
    if image_format != "qcow2":
        return True
    words = ["check", "-q", "-r", "leaks", "-f", "qcow2", str(path)]
    return is_sound(lambda: run_img(words, what, timeout_s=_CHECK_S))


def make_empty(path: Path, image_format: str, size: int, what: str) -> None:
    """Make the file of a disk that is all zero.

    Args:
        path: Of the file.
        image_format: Of it.
        size: Of the disk, in bytes; a file of any format but raw has whole sectors.
        what: The disk, in messages.

    Raises:
        HoldfastError: It can't be made.
    """
    given = [word for option in OPTIONS.get(image_format, ()) for word in ("-o", option)]
    size = size if image_format == "raw" else -(-size // _SECTOR) * _SECTOR
    run_img(["create", "-q", "-f", image_format, *given, str(path), str(size)], what)


def _what(new: NewDisk) -> str:
    return f"disk '{new.disk.name}' at '{new.path}'"


def new_mac() -> str:
    """A network address that QEMU's machines use, drawn at random."""
    return "52:54:00:" + ":".join(f"{one:02x}" for one in secrets.token_bytes(3))
