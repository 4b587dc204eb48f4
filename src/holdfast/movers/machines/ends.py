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
    from holdfast.engine import Image, Pool
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
        return self.pool.backup_machine(parent=self.parent if follow else None, **_given(contents))


def _given(contents: Contents) -> dict[str, Any]:
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
