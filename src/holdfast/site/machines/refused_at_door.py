"""What was refused at the machines' door itself, in the audit log: joining, sessions, questions.

Must not refuse anything itself. Invariant: the log grows by a bounded number of rows a minute for
each machine and for all strangers together, whatever they try, and tells how many more there were.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from holdfast.base.errors import HoldfastError
from holdfast.control.access import Entry, Outcome, Strangers
from holdfast.movers.transfer.answers import status_of

if TYPE_CHECKING:
    from holdfast.site.master import Master

_STRANGERS = ""
_MESSAGE = 300
_LOG = logging.getLogger("holdfast.machines")


class RefusedAtDoor:
    """Those of a served site. Thread-safe."""

    def __init__(self, master: Master) -> None:
        self._master = master
        self._turn = threading.Lock()
        self._counted: dict[str, Strangers] = {}

    def note(
        self,
        what: str,
        error: HoldfastError,
        address: str,
        *,
        machine: str = "",
        said: str = "",
        details: dict[str, object] | None = None,
    ) -> None:
        """Write a refusal down. What is only in the way now, such as an outage, is none.

        Args:
            what: What was tried.
            error: Why it was refused.
            address: Where it came from.
            machine: Whose certificate was shown; empty for nobody's.
            said: Who it says to be, where there is no certificate.
            details: More about it.
        """
        if status_of(error) >= 500:
            return
        _LOG.warning("%s of machine '%s' was refused: %s", what, machine or said, error.message)
        with self._turn:
            counted = self._counted.setdefault(machine or _STRANGERS, Strangers())
        more = counted.row(self._master.clock.now_ns())
        if more is None:
            return
        why = {"code": error.code, "message": error.message[:_MESSAGE]}
        told: dict[str, object] = {**(details or {}), **more, "from": address, **why}
        who = f"machine:{machine}" if machine else "(unknown)"
        try:
            about = f"machines/{machine or said}"
            self._master.audit.append(Entry.of(who, what, about, Outcome.REFUSED, told))
        except HoldfastError as failed:
            _LOG.error("a refusal could not be noted: %s", failed.message)
