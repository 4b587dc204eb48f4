"""Has machines keep to the bandwidth rules of the site.

Must not judge: see `control.bandwidth`. Invariants: a machine that was told a limit is told when
there is another, or none; one that opens a session anew is told anew; one that is given a job is
told before, so that not a byte of it goes by another limit.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from holdfast.base.errors import HoldfastError
from holdfast.control.bandwidth import rates
from holdfast.wire.identity import MachineRole

if TYPE_CHECKING:
    from collections.abc import Collection

    from holdfast.base.ids import ClientName
    from holdfast.site.machines.machines import Machines
    from holdfast.site.machines.sessions import Session

TELL_S: Final = 5.0
JOBS: Final = "jobs"
"""What a machine's load calls the number of its jobs."""

_LOG = logging.getLogger("holdfast.machines")


class Bandwidth:
    """Tells machines how much they may move. Thread-safe."""

    def __init__(self, machines: Machines) -> None:
        """Nobody was told anything.

        Args:
            machines: Those of a served site; `look_after` becomes one of their chores, and
                `before_job` is called before each job of theirs.
        """
        self._machines = machines
        machines.chores.append(self.look_after)
        machines.before_job = self.before_job

    def look_after(self) -> None:
        """Tell those whose limit is another one now. What goes wrong is told, and tried again."""
        there = self._there()
        left = self._left(there)
        if left is not None:
            for one in there:
                self._tell(one, left.get(one.peer.name))

    def before_job(self, name: ClientName) -> None:
        """Tell the machine that is given a job now its limit, if it was not told. Never raises."""
        session = self._machines.sessions.get(name)
        if session is None:
            return
        # It has something to move from now on, whatever it said last.
        session.load = {**session.load, JOBS: max(session.load.get(JOBS, 0), 1)}
        left = self._left(self._there())
        if left is not None:
            self._tell(session, left.get(name))

    def _there(self) -> list[Session]:
        return [one for one in self._machines.sessions.all() if one.peer.role is MachineRole.AGENT]

    def _left(self, there: Collection[Session]) -> dict[ClientName, int] | None:
        """What is left to each of these that a rule is for; None if that can't be known."""
        master = self._machines.master
        try:
            rules = master.bandwidth.rules()
        except HoldfastError as error:
            _LOG.error("the bandwidth rules can't be read: %s", error.message)
            return None
        at = {one.peer.name: one.hello.addresses for one in there}
        busy = {one.peer.name for one in there if one.load.get(JOBS, 0) > 0}
        return rates(rules, at, busy, master.clock.now().astimezone(master.zone))

    def _tell(self, session: Session, limit: int | None) -> None:
        with session.limiting:
            if session.limit == limit:
                return
            try:
                session.ask({"ask": "rate", "bytes_per_s": limit}, TELL_S)
            except HoldfastError as error:
                name = session.peer.name
                _LOG.warning("machine '%s' was not told its limit: %s", name, error.message)
            else:
                session.limit = limit
