"""Pools as backups and restores of virtual machines see them.

Must not decide anything. Invariant: what a backup follows is one image, the same for what is read
of it and for the ranges that are taken over from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from holdfast.base.errors import ImageMissing

if TYPE_CHECKING:
    from holdfast.base.ids import ImageId
    from holdfast.engine import DiskSink, Image, Pool, RestoreResult
    from holdfast.movers.drive import Drivable
    from holdfast.movers.machines.backup_run import Contents
    from holdfast.movers.machines.record import StoredFile


@dataclass(frozen=True, slots=True)
class NearDestination:
    """A pool that this process has open.

    Attributes:
        pool: It.
        parent: The image that the new one follows; None for none.
    """

    pool: Pool
    parent: ImageId | None

    def open_parent(self, path: bytes, /) -> StoredFile:
        """See `Destination`."""
        if self.parent is None:
            raise ImageMissing("it follows no image")
        return self.pool.open_file(self.parent, path)

    def begin(self, contents: Contents, /, *, follow: bool) -> Drivable[Image]:
        """See `Destination`."""
        return self.pool.backup_machine(parent=self.parent if follow else None, **given(contents))


@dataclass(frozen=True, slots=True)
class NearImage:
    """An image of a pool that this process has open.

    Attributes:
        pool: It.
        image: The image.
    """

    pool: Pool
    image: ImageId

    def open_file(self, path: bytes, /) -> StoredFile:
        """See `StoredMachine`."""
        return self.pool.open_file(self.image, path)

    def write_disk(self, path: bytes, to: DiskSink, /, *, verify: bool) -> Drivable[RestoreResult]:
        """See `StoredMachine`."""
        return self.pool.restore_disk(self.image, path, to, verify=verify)


def given(contents: Contents) -> dict[str, Any]:
    """What the engine's verb takes, but for the parent."""
    return {
        "files": contents.files,
        "disks": contents.disks,
        "source": contents.source,
        "host": contents.host,
        "started_ns": contents.started_ns,
        "compression": contents.compression,
        "labels": contents.labels,
        "software": contents.software,
    }
