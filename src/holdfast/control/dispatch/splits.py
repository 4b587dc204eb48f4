"""How paths were divided into streams, kept: so that a stream stays the same source.

Must not divide: see `site.dividing`. Invariants: of one path of a client no two splits have the
same number; a split is never changed, and the newest of its rules is the one that counts.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from holdfast.control.database import facts
from holdfast.control.policies import Split
from holdfast.wire.dividing import require_taken

if TYPE_CHECKING:
    import sqlalchemy as sa

    from holdfast.control.database import Database
    from holdfast.control.policies import SplitKey
    from holdfast.wire.dividing import DivideReport

KEPT = 20
"""Splits of one path that are remembered; numbers go on all the same."""


class SplitBook:
    """The splits of a site. Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, key: SplitKey) -> Split | None:
        """How a path is divided under these rules; None if it never was.

        Raises:
            Invalid: What is kept is no split.
        """
        with self._database.read() as connection:
            known = _load(connection, key)
        found = [one for one in known if one[0] == key.fingerprint]
        return found[-1][1] if found else None

    def put(self, key: SplitKey, report: DivideReport) -> Split:
        """Keep a new split, which counts from now on."""
        with self._database.write() as connection:
            known = _load(connection, key)
            number = max((one.number for _, one in known), default=0) + 1
            made = Split(number, report.taken, report.sizes)
            rows = [
                [fingerprint, one.number, one.taken, one.sizes]
                for fingerprint, one in [*known, (key.fingerprint, made)][-KEPT:]
            ]
            facts.put(connection, _name(key), json.dumps(rows))
        return made


def _name(key: SplitKey) -> str:
    return f"streams of {key.client}:{key.path}"


def _load(connection: sa.Connection, key: SplitKey) -> list[tuple[str, Split]]:
    noted = facts.get(connection, _name(key))
    return [
        (str(fingerprint), Split(int(number), require_taken(taken), tuple(sizes)))
        for fingerprint, number, taken, sizes in (json.loads(noted) if noted else ())
    ]
