"""Ask hypervisors again and again which virtual machines they have.

Must not decide what is protected. Invariants: before a policy for virtual machines is due by its
calendar, they are looked for; a hypervisor that does not answer keeps nobody waiting for another.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from holdfast.base.errors import HoldfastError
from holdfast.control.policies import MACHINES
from holdfast.control.schedule import occurrences
from holdfast.site.hypervisors import discover

if TYPE_CHECKING:
    from datetime import datetime

    from holdfast.control.hypervisors import Hypervisor
    from holdfast.control.policies import Policy
    from holdfast.site.master import Master

DAILY: Final = timedelta(days=1)
"""How often any hypervisor is asked."""

HOURLY: Final = timedelta(hours=1)
"""How often one is that a policy concerns."""

AHEAD: Final = timedelta(minutes=15)
"""So long before a policy is due, and again only if it was not asked in that time."""

AGAIN: Final = timedelta(minutes=5)
"""When one that did not answer is asked again, if it is time to."""

LOOK_S: Final = 10.0
AT_ONCE: Final = 4

_LOG = logging.getLogger("holdfast.hypervisors")


class Discoverer:
    """Keeps the virtual machines of a site known, while it is served. Thread-safe."""

    def __init__(self, master: Master) -> None:
        self._master = master
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._told: dict[str, str] = {}

    def start(self) -> None:
        """Look from now on, in a thread."""
        self._stop.clear()
        self._thread = threading.Thread(target=self._run, name="discovering")
        self._thread.start()

    def close(self) -> None:
        """Look no more."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        with ThreadPoolExecutor(AT_ONCE, "discovering") as pool:
            while not self._stop.is_set():
                try:
                    for _ in pool.map(self._look, self.due()):
                        pass
                except HoldfastError as error:
                    _LOG.error("%s", error.message)
                self._stop.wait(LOOK_S)

    def due(self) -> list[str]:
        """Hypervisors that it is time to ask."""
        known = self._master.hypervisors.estate().hypervisors
        if not known:
            return []
        now = self._master.clock.now()
        stored = self._master.policies.snapshot().policies.values()
        policies = [one.policy for one in stored if one.policy.active]
        concerned = [one for one in policies if one.type == MACHINES]
        return [one.name for one in known.values() if self._is_due(one, concerned, now)]

    def _is_due(self, one: Hypervisor, policies: list[Policy], now: datetime) -> bool:
        if one.tried_at is None:
            return True
        since = now - one.tried_at
        if since < timedelta():
            # The clock was put back.
            return True
        if one.problem is not None and since < AGAIN:
            return False
        theirs = [policy for policy in policies if _concerns(policy, one.name)]
        if since >= (HOURLY if theirs else DAILY) or (one.problem is not None and theirs):
            return True
        return since >= AHEAD and any(self._is_soon(policy, now) for policy in theirs)

    def _is_soon(self, policy: Policy, now: datetime) -> bool:
        zone = self._master.zone
        return any(
            next(occurrences(schedule, zone, now, now + AHEAD), None) is not None
            for schedule in policy.schedules
            if schedule.calendar is not None
        )

    def _look(self, name: str) -> None:
        if self._stop.is_set():
            return
        try:
            discover(self._master, name)
        except HoldfastError as error:
            if self._told.get(name) != error.message:
                _LOG.warning("hypervisor '%s' tells no machines: %s", name, error.message)
            self._told[name] = error.message
        except Exception as defect:  # noqa: BLE001 - the others are asked all the same
            _LOG.exception("a defect; hypervisor '%s' is not asked", name)
            with contextlib.suppress(HoldfastError):
                why = f"a defect of Holdfast: {type(defect).__name__}: {defect}"
                self._master.hypervisors.not_found(name, why)
        else:
            self._told.pop(name, None)


def _concerns(policy: Policy, hypervisor: str) -> bool:
    wanted = () if policy.machines is None else policy.machines.hypervisors
    return not wanted or hypervisor in wanted
