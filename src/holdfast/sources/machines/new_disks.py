"""Make a disk of a new machine, and have it written; give its network cards addresses.

Must not know where the bytes come from. Invariant: a disk that could not be written whole is gone.
"""

from __future__ import annotations

import contextlib
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from holdfast.base.errors import AlreadyExists, Invalid
from holdfast.sources.nbd.qemu_nbd import image_node, run_img, serving

if TYPE_CHECKING:
    from pathlib import Path

    from holdfast.sources.machines.machine import Disk
    from holdfast.sources.machines.provider import DiskWriter

FORMATS = ("qcow2", "raw")


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
    """Make the file and have all of it written.

    Raises:
        AlreadyExists: There is such a file.
        HoldfastError: It can't be made or written.
    """
    if new.format not in FORMATS:
        raise Invalid(f"'{new.format}' is no format for disks here", f"use {', '.join(FORMATS)}")
    if new.path.exists():
        raise AlreadyExists(f"there is a file '{new.path}'", "give the machine another name")
    what = f"disk '{new.disk.name}' at '{new.path}'"
    arguments = ["create", "-q", "-f", new.format]
    arguments += ["-o", "lazy_refcounts=off"] if new.format == "qcow2" else []
    try:
        run_img([*arguments, str(new.path), str(new.disk.size)], what)
        with serving(image_node(new.path, new.format), what, writable=True) as served:
            write(new.disk, str(served.address.path))
    except BaseException:
        with contextlib.suppress(OSError):
            new.path.unlink()
        raise


def new_mac() -> str:
    """A network address that QEMU's machines use, drawn at random."""
    return "52:54:00:" + ":".join(f"{one:02x}" for one in secrets.token_bytes(3))
