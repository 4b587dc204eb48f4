"""Has machines keep to the bandwidth rules of the site.

Must not judge: see `control.bandwidth`. Invariant: a machine that was told a limit is told when
there is another, or none; one that opens a session anew is told anew.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from holdfast.base.errors import HoldfastError
from holdfast.control.bandwidth import rates
from holdfast.wire.identity import MachineRole

if TYPE_CHECKING:
    from holdfast.base.ids import ClientName
    from holdfast.site.machines.machines import Machines
    from holdfast.site.machines.sessions import Session

TELL_S: Final = 5.0
JOBS: Final = "jobs"
"""What a machine's load calls the number of its jobs."""

_LOG = logging.getLogger("holdfast.machines")


class Bandwidth:
    """Tells machines how much they may move. Belongs to one thread."""

    def __init__(self, machines: Machines) -> None:
        """Nobody was told anything.

        Args:
            machines: Those of a served site; `look_after` becomes one of their chores.
        """
        self._machines = machines
        self._told: dict[ClientName, tuple[Session, int | None]] = {}
        machines.chores.append(self.look_after)

    def look_after(self) -> None:
        """Tell those whose limit is another one now. What goes wrong is told, and tried again."""
        master = self._machines.master
        there = [one for one in self._machines.sessions.all() if one.peer.role is MachineRole.AGENT]
        try:
            rules = master.bandwidth.rules()
        except HoldfastError as error:
            _LOG.error("the bandwidth rules can't be read: %s", error.message)
            return
        at = {one.peer.name: one.hello.addresses for one in there}
        busy = {one.peer.name for one in there if one.load.get(JOBS, 0) > 0}
        left = rates(rules, at, busy, master.clock.now().astimezone(master.zone))
        self._told = {
            one.peer.name: self._told[one.peer.name] for one in there if one.peer.name in self._told
        }
        for one in there:
            limit = left.get(one.peer.name)
            session, told = self._told.get(one.peer.name, (None, None))
            if (session is one and told == limit) or (session is not one and limit is None):
                continue
            try:
                one.ask({"ask": "rate", "bytes_per_s": limit}, TELL_S)
            except HoldfastError as error:
                _LOG.warning(
                    "machine '%s' was not told its limit: %s", one.peer.name, error.message
                )
                continue
            self._told[one.peer.name] = one, limit
