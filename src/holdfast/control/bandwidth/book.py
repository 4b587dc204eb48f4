"""Bandwidth rules in the control database.

Must not carry them out: see `site.machines`.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from holdfast.base.errors import NotFound
from holdfast.control.bandwidth.rules import BandwidthRule, read_network
from holdfast.control.bandwidth.schema import bandwidth_rules
from holdfast.control.database.upsert import insert
from holdfast.control.policies.texts import read_window, write_window

if TYPE_CHECKING:
    from holdfast.control.database import Database


class BandwidthBook:
    """The bandwidth rules of one site. Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def rules(self) -> list[BandwidthRule]:
        """All, by name."""
        query = sa.select(bandwidth_rules).order_by(bandwidth_rules.c.name)
        with self._database.read() as connection:
            return [_rule(row) for row in connection.execute(query)]

    def put(self, rule: BandwidthRule) -> None:
        """Make a rule, or another one of its name."""
        facts: dict[str, Any] = {
            "bytes_per_s": rule.bytes_per_s,
            "networks": json.dumps([str(one) for one in rule.networks]),
            "windows": json.dumps([write_window(one) for one in rule.windows]),
        }
        with self._database.write() as connection:
            connection.execute(
                insert(connection, bandwidth_rules)
                .values(name=rule.name, **facts)
                .on_conflict_do_update(index_elements=[bandwidth_rules.c.name], set_=facts)
            )

    def remove(self, name: str) -> None:
        """Forget a rule.

        Raises:
            NotFound: There is none of this name.
        """
        with self._database.write() as connection:
            gone = sa.delete(bandwidth_rules).where(bandwidth_rules.c.name == name)
            if not connection.execute(gone).rowcount:
                raise NotFound(
                    f"there is no bandwidth rule '{name[:80]}'",
                    "'holdfast bandwidth list' shows them",
                )


def _rule(row: sa.Row[Any]) -> BandwidthRule:
    return BandwidthRule(
        row.name,
        row.bytes_per_s,
        tuple(read_network(one) for one in json.loads(row.networks)),
        tuple(read_window(one) for one in json.loads(row.windows)),
    )
