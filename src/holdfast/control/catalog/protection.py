"""Holds and locks of images: what must not go, whoever asks.

Must not open transactions. Every function runs on the caller's connection. Invariant: a lock is
never shortened, and leaves only with its image, after its end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from holdfast.base.clock import from_ns
from holdfast.base.errors import ImageProtected
from holdfast.base.ids import ImageId
from holdfast.control.catalog.schema import holds, locks
from holdfast.control.database.upsert import insert

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime


@dataclass(frozen=True, slots=True)
class Protection:
    """Why an image must not go.

    Attributes:
        holds: Reasons of the holds on it.
        locked_until: The end of its lock, if it ever had one; it may be past.
    """

    holds: tuple[str, ...] = ()
    locked_until: datetime | None = None


NONE = Protection()

_AT_ONCE = 500
"""Images looked for by one statement: a statement has a limited number of parameters."""


def of_all(connection: sa.Connection) -> dict[ImageId, Protection]:
    """Every image that has a hold or a lock."""
    return _of(connection, sa.select(holds), sa.select(locks))


def of_images(connection: sa.Connection, some: Sequence[str]) -> dict[ImageId, Protection]:
    """Those of some images that have a hold or a lock."""
    found: dict[ImageId, Protection] = {}
    for begin in range(0, len(some), _AT_ONCE):
        part = some[begin : begin + _AT_ONCE]
        held = sa.select(holds).where(holds.c.image_id.in_(part))
        locked = sa.select(locks).where(locks.c.image_id.in_(part))
        found |= _of(connection, held, locked)
    return found


def _of(
    connection: sa.Connection, held: sa.Select[Any], locked: sa.Select[Any]
) -> dict[ImageId, Protection]:
    reasons: dict[ImageId, list[str]] = {}
    for row in connection.execute(held.order_by(holds.c.placed_ns, holds.c.reason)):
        reasons.setdefault(ImageId(row.image_id), []).append(row.reason)
    ends = {ImageId(row.image_id): row.until_ns for row in connection.execute(locked)}
    return {
        image: Protection(
            tuple(reasons.get(image, ())), from_ns(ends[image]) if image in ends else None
        )
        for image in reasons.keys() | ends.keys()
    }


def state(connection: sa.Connection) -> list[int]:
    """Numbers that change when a hold or a lock is placed, lifted or made longer."""
    held = connection.execute(sa.select(sa.func.count(), sa.func.max(holds.c.placed_ns))).one()
    locked = connection.execute(sa.select(sa.func.count(), sa.func.max(locks.c.until_ns))).one()
    return [int(number or 0) for number in (*held, *locked)]


def require_none(connection: sa.Connection, image: ImageId, now_ns: int) -> None:
    """Raise `ImageProtected` if a hold or a lock keeps an image."""
    reason = connection.scalar(sa.select(holds.c.reason).where(holds.c.image_id == image).limit(1))
    if reason is not None:
        raise ImageProtected(
            f"image {image} is held: {reason}", f"lift it with: holdfast unhold {image[:8]}"
        )
    until_ns = _lock_end(connection, image)
    if until_ns is not None and until_ns > now_ns:
        raise ImageProtected(
            f"image {image} is locked until {from_ns(until_ns):%Y-%m-%d %H:%M} UTC",
            "nobody can shorten a lock: wait for its end",
        )


def hold(connection: sa.Connection, image: ImageId, reason: str, now_ns: int) -> None:
    """Hold an image for a reason; a second time changes nothing."""
    connection.execute(
        insert(connection, holds)
        .values(image_id=image, reason=reason, placed_ns=now_ns)
        .on_conflict_do_nothing()
    )


def unhold(connection: sa.Connection, image: ImageId, reason: str | None) -> int:
    """Lift one hold of an image, or all; count those that there were."""
    condition = holds.c.image_id == image
    if reason is not None:
        condition = sa.and_(condition, holds.c.reason == reason)
    return connection.execute(sa.delete(holds).where(condition)).rowcount


def lock(connection: sa.Connection, image: ImageId, until_ns: int) -> None:
    """Lock an image until a moment, or longer than it was.

    Raises:
        ImageProtected: It is locked for longer already.
    """
    known_ns = _lock_end(connection, image)
    if known_ns is not None and known_ns > until_ns:
        raise ImageProtected(
            f"image {image} is locked until {from_ns(known_ns):%Y-%m-%d %H:%M} UTC already",
            "nobody can shorten a lock; name a later date",
        )
    connection.execute(
        insert(connection, locks)
        .values(image_id=image, until_ns=until_ns)
        .on_conflict_do_update(index_elements=[locks.c.image_id], set_={"until_ns": until_ns})
    )


def forget(connection: sa.Connection, image: ImageId) -> None:
    """Forget the protection of an image that is going."""
    for table in (holds, locks):
        connection.execute(sa.delete(table).where(table.c.image_id == image))


def _lock_end(connection: sa.Connection, image: ImageId) -> int | None:
    found: int | None = connection.scalar(
        sa.select(locks.c.until_ns).where(locks.c.image_id == image)
    )
    return found
