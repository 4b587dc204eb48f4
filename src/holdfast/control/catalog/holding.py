"""What keeps images whatever rules say, and what lets them go where nothing does.

Must not decide what goes. Invariant: who was told that a hold or a lock is placed has it: no image
goes between the moment at which it was found free of them and that at which it is gone.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from holdfast.base import clock as clocks
from holdfast.control.catalog import protection, registry
from holdfast.control.database.exclusion import PROTECTION, exclusively

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from holdfast.base.clock import Clock
    from holdfast.base.ids import ImageId
    from holdfast.control.catalog.protection import Protection
    from holdfast.control.database import Database


class Holding:
    """Holds and locks of a site's images. Thread-safe; several processes may have it open."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def protections(self) -> dict[ImageId, Protection]:
        """Every image that has a hold or a lock, even one that is past."""
        with self._database.read() as connection:
            return protection.of_all(connection)

    def protection(self, image: ImageId) -> Protection:
        """The holds and the lock of one image, even one that is past."""
        with self._database.read() as connection:
            return protection.of_images(connection, [image]).get(image, protection.NONE)

    def protection_state(self) -> list[int]:
        """Numbers that change when a hold or a lock is placed, lifted or made longer."""
        with self._database.read() as connection:
            return protection.state(connection)

    def require_unprotected(self, image: ImageId) -> None:
        """Make sure that an image may go.

        Raises:
            ImageProtected: A hold or a lock keeps it.
        """
        with self._database.read() as connection:
            protection.require_none(connection, image, self._clock.now_ns())

    def hold(self, image: ImageId, reason: str) -> None:
        """Keep an image until `unhold`, whatever rules say; for another reason once more.

        Raises:
            ImageMissing: The catalog does not have it.
        """
        with exclusively(self._database, PROTECTION), self._database.write() as connection:
            registry.source_of(connection, image)
            protection.hold(connection, image, reason, self._clock.now_ns())

    @contextlib.contextmanager
    def letting_go(self, image: ImageId) -> Iterator[None]:
        """Let go of an image in the block: nobody can place a hold or a lock meanwhile.

        Raises:
            ImageProtected: A hold or a lock keeps it.
            Busy: Others let go of images for longer than a person would wait.
        """
        with exclusively(self._database, PROTECTION):
            self.require_unprotected(image)
            yield

    def unhold(self, image: ImageId, reason: str | None = None) -> int:
        """Lift the hold of this reason, or all of an image; count those that there were.

        Raises:
            ImageMissing: The catalog does not have it.
        """
        with self._database.write() as connection:
            registry.source_of(connection, image)
            return protection.unhold(connection, image, reason)

    def lock(self, image: ImageId, until: datetime) -> None:
        """Keep an image until a moment, whoever asks; a lock can be made longer only.

        Raises:
            ImageMissing: The catalog does not have it.
            ImageProtected: It is locked for longer already.
        """
        with exclusively(self._database, PROTECTION), self._database.write() as connection:
            registry.source_of(connection, image)
            protection.lock(connection, image, clocks.to_ns(until))
