"""What was refused on the data path, of the master and of each media server, in the audit log.

Must not refuse anything itself. Invariants: the log grows by a bounded number of rows a minute for
each place that refuses, whatever is tried there, and tells how many more there were; one place that
is flooded keeps nothing of another out.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any

from holdfast.base.errors import HoldfastError
from holdfast.control.access import Entry, Outcome, Strangers
from holdfast.movers.transfer.refusals import refusals_from
from holdfast.site.machines.media import require_media

if TYPE_CHECKING:
    from holdfast.movers.transfer.refusals import Refusal
    from holdfast.site.machines.machines import Machines
    from holdfast.site.machines.sessions import Session

_LOG = logging.getLogger("holdfast.machines")


class RefusedTransfers:
    """Those of a served site. Thread-safe."""

    def __init__(self, machines: Machines) -> None:
        """Hear what media servers tell."""
        self._master = machines.master
        self._turn = threading.Lock()
        self._places: dict[str, Strangers] = {}
        machines.answers["refused"] = self._heard

    def note(self, refusal: Refusal) -> None:
        """One of the master's own data path."""
        _LOG.warning("data of machine '%s' was refused: %s", refusal.peer or "?", refusal.message)
        self._write("", refusal, 1)

    def _heard(self, session: Session, order: dict[str, Any]) -> dict[str, Any]:
        require_media(session)
        told, more = refusals_from(order)
        name = str(session.peer.name)
        for one in told:
            self._write(name, one.refusal, one.count)
        if more:
            _LOG.warning("media server '%s' refused %d requests more", name, more)
            self._append("(unknown)", "", name, {"more_not_told": more})
        return {"answer": "refused"}

    def _write(self, server: str, refusal: Refusal, count: int) -> None:
        who = f"machine:{refusal.peer}" if refusal.peer else "(unknown)"
        details: dict[str, object] = {"code": refusal.code, "message": refusal.message}
        if refusal.address:
            details["from"] = refusal.address
        if refusal.job is not None:
            details["job"] = refusal.job
        if count > 1:
            details["count"] = count
        self._append(who, refusal.peer, server, details)

    def _append(self, who: str, peer: str, server: str, details: dict[str, object]) -> None:
        with self._turn:
            place = self._places.setdefault(server, Strangers())
        more = place.row(self._master.clock.now_ns())
        if more is None:
            return
        at = {"media_server": server} if server else {}
        try:
            entry = Entry.of(
                who, "transfer", f"machines/{peer}", Outcome.REFUSED, {**more, **at, **details}
            )
            self._master.audit.append(entry)
        except HoldfastError as error:
            _LOG.error("a refusal could not be noted: %s", error.message)
