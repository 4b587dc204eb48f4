"""Jobs that are done by machines of their clients, for the master that gives out work.

Must not decide who begins: see `control.dispatch`. Invariants: what is a machine's is never done
here in its place; an offer that a machine did not take goes back to the queue, and counts as no
attempt; what a machine is at work on stays its own when this master stops.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from holdfast.base.errors import Cancelled, HoldfastError, InternalError, Unreachable, WrongState
from holdfast.base.ids import ClientName, JobId
from holdfast.control.dispatch import Presence
from holdfast.wire.machine_work import InstantWork, MachineRestoreWork, MachineWork
from holdfast.wire.messages import BackupWork, CommandWork, RestoreWork, WorkEnded, WorkError

if TYPE_CHECKING:
    from holdfast.control.dispatch import Dispatcher
    from holdfast.control.machines import Standing
    from holdfast.site.machines import Machines
    from holdfast.site.master import Master
    from holdfast.wire.messages import WorkOffer

_LOG = logging.getLogger("holdfast.machines")


class RemoteWork:
    """The part of a master's work that machines do. Thread-safe."""

    def __init__(self, master: Master, machines: Machines | None) -> None:
        """Prepare.

        Args:
            master: Whose jobs.
            machines: Those that are spoken to; None if none are, and their jobs wait.
        """
        self._master = master
        self._machines = machines
        self._of_the_book: Standing | None = None

    @property
    def standing(self) -> Standing:
        """What is known of machines."""
        if self._machines is not None:
            return self._machines.standing
        # Nobody joins where no machine is spoken to.
        if self._of_the_book is None:
            self._of_the_book = self._master.machines.standing()
        return self._of_the_book

    @property
    def drives_version(self) -> int:
        """Another number whenever drives of machines may have changed."""
        return 0 if self._machines is None else self._machines.drives_version

    def presence(self) -> Presence:
        """Which machines there are, which are connected, and which are let in no more."""
        standing, units = self.standing, self._master.units.units()
        owned = [(one.name, one.server, one.pool) for one in units if one.server is not None]
        owners = frozenset((unit, server) for unit, server, _ in owned)
        connected: frozenset[ClientName] = frozenset()
        if self._machines is not None:
            # A media server whose disk is gone is as good as not there.
            served = self._machines.served_pools()
            useless = {server for _, server, pool in owned if pool not in served}
            connected = self._machines.sessions.names - useless
        return Presence(standing.agents, connected, standing.revoked, owners)

    def begin(self, dispatcher: Dispatcher) -> None:
        """Have machines be heard."""
        if self._machines is not None:
            self._machines.hear = dispatcher.hear

    def end(self) -> None:
        """Hear machines no more."""
        if self._machines is not None:
            self._machines.end_leading()

    def takes(self, offer: WorkOffer) -> bool:
        """Whether a job is a machine's."""
        return _client_of(offer) in self.standing.agents

    def hand_over(self, dispatcher: Dispatcher, offer: WorkOffer) -> None:
        """Give a machine its job. Does not wait for it to take it."""
        args = dispatcher, offer
        threading.Thread(target=self._hand_over, args=args, name=f"offer-{offer.job_id}").start()

    def _hand_over(self, dispatcher: Dispatcher, offer: WorkOffer) -> None:
        try:
            self._offer(offer)
        except Unreachable as error:
            _LOG.info("job %s goes back to the queue: %s", offer.job_id, error.message)
            self._take_back(dispatcher, offer)
        except HoldfastError as error:
            _LOG.warning("job %s can't be given out: %s", offer.job_id, error.message)
            self._end(dispatcher, offer, WorkError(error.code, error.message, error.hint))
        except Exception as defect:  # noqa: BLE001 - told as the job's end
            _LOG.exception("a defect; job %s ends", offer.job_id)
            said = f"{type(defect).__name__}: {defect}"
            self._end(dispatcher, offer, WorkError(InternalError.code, said, InternalError.advice))

    def _offer(self, offer: WorkOffer) -> None:
        client = _client_of(offer)
        if self._machines is None or client is None:
            raise Unreachable("no machine is spoken to here")
        self._machines.offer(client, offer)

    def _take_back(self, dispatcher: Dispatcher, offer: WorkOffer) -> None:
        try:
            self._master.jobs.requeue(JobId(offer.job_id))
        except WrongState:
            return
        except HoldfastError as error:
            # Its lease ends some time.
            _LOG.error("%s", error.message)
            return
        self._end(dispatcher, offer, WorkError(Cancelled.code, "its machine is not there", None))

    @staticmethod
    def _end(dispatcher: Dispatcher, offer: WorkOffer, error: WorkError) -> None:
        try:
            dispatcher.hear(WorkEnded(offer.job_id, offer.fence, None, (), 0, {}, error))
        except HoldfastError as failure:
            _LOG.error("%s", failure.message)


def _client_of(offer: WorkOffer) -> ClientName | None:
    """Whose machine does a job; None for this one."""
    work = offer.work
    if isinstance(work, MachineWork | MachineRestoreWork | InstantWork):
        return None if work.proxy is None else ClientName(work.proxy)
    if not isinstance(work, BackupWork | RestoreWork | CommandWork) or work.client is None:
        return None
    return ClientName(work.client)
