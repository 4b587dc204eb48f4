"""Boot checks in the control database.

Must not judge. Invariant: of one image the newest few are kept, and none without its image.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from holdfast.base.clock import from_ns, to_ns
from holdfast.base.errors import ImageMissing, NotFound
from holdfast.control.boot_checks.schema import boot_checks
from holdfast.control.catalog.schema import images

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from holdfast.base.ids import ImageId
    from holdfast.control.database import Database

KEPT = 10
"""Of one image; older ones go."""

MOST_SCREENSHOT_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class NewBootCheck:
    """What came of booting an image.

    Attributes:
        image: Which.
        at: When that ended.
        passed: Whether all that was waited for came to pass.
        took_s: From power on to the end.
        met: What came to pass, each with the seconds since power on.
        missed: What did not, in words.
        said: The end of what came over the serial console.
        screenshot: What the screen showed at the end, as PNG.
    """

    image: ImageId
    at: datetime
    passed: bool
    took_s: float
    met: Mapping[str, float] = field(default_factory=dict)
    missed: tuple[str, ...] = ()
    said: str = ""
    screenshot: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class BootCheck:
    """One that is kept.

    Attributes:
        id: Its number.
        check: What came of it; without the screenshot, which is asked for by itself.
        has_screenshot: Whether there is one.
    """

    id: int
    check: NewBootCheck
    has_screenshot: bool


class BootCheckBook:
    """The boot checks of one site. Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, check: NewBootCheck) -> BootCheck:
        """Keep one.

        Raises:
            ImageMissing: The image went meanwhile.
        """
        picture = check.screenshot
        if picture is not None and len(picture) > MOST_SCREENSHOT_BYTES:
            picture = None
        row = {
            "image": check.image,
            "at_ns": to_ns(check.at),
            "passed": check.passed,
            "took_ms": round(check.took_s * 1000),
            "met": json.dumps(dict(check.met)),
            "missed": json.dumps(list(check.missed)),
            # PostgreSQL has no zero characters, which serial consoles are full of.
            "said": check.said.replace("\0", ""),
            "screenshot": picture,
        }
        columns = boot_checks.c
        with self._database.write() as connection:
            there = sa.select(images.c.id).where(images.c.id == check.image)
            if connection.scalar(there) is None:
                raise ImageMissing(
                    f"image {check.image} has gone: nothing is kept of how it booted"
                )
            made = connection.execute(sa.insert(boot_checks).values(row))
            (number,) = made.inserted_primary_key or (0,)
            newest = (
                sa.select(columns.id)
                .where(columns.image == check.image)
                .order_by(columns.id.desc())
                .limit(KEPT)
            )
            kept = list(connection.scalars(newest))
            connection.execute(
                sa.delete(boot_checks).where(columns.image == check.image, columns.id.not_in(kept))
            )
        return BootCheck(int(number), check, picture is not None)

    def of(self, image: ImageId) -> list[BootCheck]:
        """Those of an image, newest first."""
        query = _without_picture().where(boot_checks.c.image == image)
        with self._database.read() as connection:
            rows = connection.execute(query.order_by(boot_checks.c.id.desc())).mappings()
            return [_check(row) for row in rows]

    def newest_of(self, wanted: Iterable[ImageId]) -> dict[ImageId, BootCheck]:
        """The newest of each of some images; none for those that were never booted."""
        query = _without_picture().where(boot_checks.c.image.in_(list(wanted)))
        with self._database.read() as connection:
            rows = connection.execute(query.order_by(boot_checks.c.id)).mappings()
            return {(one := _check(row)).check.image: one for row in rows}

    def screenshot(self, number: int) -> tuple[ImageId, bytes]:
        """What the screen showed, as PNG, and of which image.

        Raises:
            NotFound: There is no such check, or it has none.
        """
        query = sa.select(boot_checks.c.image, boot_checks.c.screenshot)
        with self._database.read() as connection:
            row = connection.execute(query.where(boot_checks.c.id == number)).one_or_none()
        if row is None or row.screenshot is None:
            raise NotFound(f"there is no screenshot of boot check {number}")
        return row.image, bytes(row.screenshot)


def _without_picture() -> sa.Select[Any]:
    kept = [one for one in boot_checks.c if one.name != "screenshot"]
    return sa.select(*kept, boot_checks.c.screenshot.is_not(None).label("has_screenshot"))


def _check(row: Any) -> BootCheck:
    check = NewBootCheck(
        image=row["image"],
        at=from_ns(row["at_ns"]),
        passed=row["passed"],
        took_s=row["took_ms"] / 1000,
        met=json.loads(row["met"]),
        missed=tuple(json.loads(row["missed"])),
        said=row["said"],
    )
    return BootCheck(row["id"], check, row["has_screenshot"])
