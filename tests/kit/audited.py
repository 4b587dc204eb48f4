"""The way of a media server's refusals into the master's audit log, with nobody in between.

What a media server gathers is told as it is over the session, and written by the master's own code
into a real control database.
"""

from __future__ import annotations

import functools
import json
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from holdfast.base.clock import SystemClock
from holdfast.control.access import AuditLog
from holdfast.control.database import Database
from holdfast.movers.transfer.refusals import Refusals
from holdfast.site.machines.refusals import RefusedTransfers
from holdfast.wire.identity import MachineRole

if TYPE_CHECKING:
    from collections.abc import Iterable

    from holdfast.movers.transfer.refusals import Refusal
    from holdfast.site.machines.machines import Machines

_SERVER = "media1"


def audited(refusals: Iterable[Refusal], directory: Path) -> list[dict[str, Any]]:
    """The rows of the audit log, oldest first, that come of refusals: who, and the details."""
    gathered = Refusals(time.monotonic)
    for one in refusals:
        gathered.note(one)
    found, more = gathered.take()
    order = json.loads(json.dumps({"refused": [one.to_json() for one in found], "more": more}))
    place = directory / "audited.db"
    place.write_bytes(_migrated())
    database = Database(place)
    try:
        clock = SystemClock()
        audit = AuditLog(database, clock)
        answers: dict[str, Any] = {}
        master = SimpleNamespace(clock=clock, audit=audit)
        machines = SimpleNamespace(master=master, answers=answers)
        RefusedTransfers(cast("Machines", machines))
        session = SimpleNamespace(peer=SimpleNamespace(name=_SERVER, role=MachineRole.MEDIA))
        answers["refused"](session, order)
        rows = audit.rows(limit=1000, newest_first=False)
        assert audit.verify().broken is None
    finally:
        database.close()
    assert {(one.entry.what, one.entry.outcome) for one in rows} <= {("transfer", "refused")}
    return [{"who": one.entry.who, **json.loads(one.entry.details)} for one in rows]


@functools.cache
def _migrated() -> bytes:
    """A control database with the newest schema and nothing in it: made once."""
    with tempfile.TemporaryDirectory() as made:
        place = Path(made, "control.db")
        database = Database(place)
        database.migrate()
        database.close()
        return place.read_bytes()
