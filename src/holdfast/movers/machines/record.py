"""What an image of a virtual machine says of it, beside its disks.

Must not ask anybody. Invariants: an image's record is of the same moment as its disks; what names
the moment for the hypervisor (the checkpoint) is in the image itself, so that a backup can only
ever follow the image that it takes unchanged ranges from.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from holdfast.base.errors import IntegrityError, NewerFormat
from holdfast.sources.machines.machine import Machine

if TYPE_CHECKING:
    from collections.abc import Callable


VERSION = 1
"""Of the record; a reader refuses a newer one."""

RECORD = "machine.json"
"""The record's name in an image."""

DEFINITIONS = "definitions"
"""The directory of what a hypervisor makes the machine of."""

DISKS = "disks"
"""The directory of its disks: a file each, as large as the disk."""

MAX_RECORD_BYTES = 16 << 20
"""No record is larger; nothing larger is read as one."""


class StoredFile(Protocol):
    """A file of an image, as `engine.FileReader` is one."""

    @property
    def size(self) -> int:
        """In bytes."""
        ...

    def read_at(self, offset: int, length: int) -> bytes:
        """Bytes from an offset on."""
        ...


class StoredDisk(StoredFile, Protocol):
    """A disk of an image."""

    def data_extents(self, offset: int, length: int) -> list[tuple[int, int]]:
        """Where data is: offsets and lengths, in order."""
        ...


@dataclass(frozen=True, slots=True)
class Record:
    """What is written beside the disks.

    Attributes:
        machine: As it was.
        checkpoint: What the hypervisor knows this moment by; None where it keeps none.
        quiesced: Whether the guest's file systems were at rest.
        definitions: Names of the files in `DEFINITIONS`.
    """

    machine: Machine
    checkpoint: str | None
    quiesced: bool
    definitions: tuple[str, ...] = ()

    def to_bytes(self) -> bytes:
        """As it is stored: JSON that people can read."""
        plain = {
            "version": VERSION,
            "machine": self.machine.to_json(),
            "checkpoint": self.checkpoint,
            "quiesced": self.quiesced,
            "definitions": list(self.definitions),
        }
        return (json.dumps(plain, indent=1, sort_keys=True) + "\n").encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Record:
        """Read what `to_bytes` made.

        Raises:
            NewerFormat: A later version made it.
            IntegrityError: It is no record.
        """
        try:
            plain = json.loads(data)
            version = int(plain["version"])
            if version > VERSION:
                raise NewerFormat(
                    f"the record of this machine is of version {version}, "
                    f"this Holdfast knows up to {VERSION}",
                    "update Holdfast",
                )
            checkpoint = plain["checkpoint"]
            return cls(
                machine=Machine.from_json(plain["machine"]),
                checkpoint=None if checkpoint is None else str(checkpoint),
                quiesced=bool(plain["quiesced"]),
                definitions=tuple(map(_plain_name, plain["definitions"])),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise IntegrityError(f"the record of this machine is damaged: {error!r}") from error


def read_record(open_file: Callable[[bytes], StoredFile]) -> Record:
    """Read the record of an image.

    Args:
        open_file: Opens a file of the image by its path.

    Raises:
        PathMissing: It has none: it is no image of a machine.
        NewerFormat, IntegrityError: It can't be read.
    """
    return Record.from_bytes(_whole(open_file(b"/" + RECORD.encode())))


def read_definitions(open_file: Callable[[bytes], StoredFile], record: Record) -> dict[str, bytes]:
    """Read what the hypervisor made the machine of, by name."""
    return {
        name: _whole(open_file(f"/{DEFINITIONS}/{name}".encode())) for name in record.definitions
    }


def disk_path(name: str) -> bytes:
    """Where a disk is in an image."""
    return f"/{DISKS}/{name}".encode()


def _whole(file: StoredFile) -> bytes:
    if file.size > MAX_RECORD_BYTES:
        raise IntegrityError(f"{file.size} bytes are no record of a machine")
    return file.read_at(0, file.size)


def _plain_name(name: object) -> str:
    if not isinstance(name, str) or not name or "/" in name or name in (".", ".."):
        raise ValueError(f"'{name}' is no name of a file")
    return name
