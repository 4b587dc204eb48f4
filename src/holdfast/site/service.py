"""The master server at work: leads, steps, hands out work, keeps house, until it is told to stop.

Must not answer requests: see the API. Invariants: only the one that leads gives out work; when it
stops, what was at work is queued again, and the catalog has heard of every image; an error of the
database or of a store, or a defect, ends no loop: it is told and tried again.
"""

from __future__ import annotations

import logging
import threading
import time
from functools import partial
from typing import TYPE_CHECKING

from holdfast.base import labels
from holdfast.base.errors import HoldfastError, NotFound, Unreachable, WrongState
from holdfast.base.ids import JobId
from holdfast.control.database import Leadership, facts
from holdfast.control.dispatch import Agenda, Dispatcher, HistoryBook, Queue
from holdfast.control.jobs import LEASE
from holdfast.movers.agent import Agent
from holdfast.movers.ways import Ways
from holdfast.site import instant, storage_units
from holdfast.site.boot_checks import check_boot, queue_boot_check
from holdfast.site.chores import Chores
from holdfast.site.discovering import Discoverer
from holdfast.site.dividing import Divider
from holdfast.site.machine_work import complete
from holdfast.site.near_machines import commit_machine, make_machine, run_instant
from holdfast.site.remote_work import RemoteWork
from holdfast.site.steward import Steward
from holdfast.site.whose_drives import drives_of

if TYPE_CHECKING:
    from holdfast.base.ids import ImageId, PoolId
    from holdfast.engine import Image
    from holdfast.movers.backup_run import BackupOrder
    from holdfast.movers.drive import Reporter
    from holdfast.site.machines import Machines
    from holdfast.site.master import Master
    from holdfast.wire.messages import WorkOffer

STEP_S = 1.0
"""How often it looks around, if nothing wakes it before."""

_LOG = logging.getLogger("holdfast.service")


class Service:
    """One master server, to be run by one thread. `stop` may be called by any."""

    def __init__(self, master: Master, machines: Machines | None = None) -> None:
        """Prepare; nothing happens before `run`.

        Args:
            master: Open, with its pool; it has to stay open.
            machines: Those of the site that are spoken to, if any are.
        """
        self._master = master
        self._remote = RemoteWork(master, machines)
        self._leadership = Leadership(master.database)
        self._stop = threading.Event()
        self._idle = threading.Event()
        self._workers: dict[int, threading.Thread] = {}
        self._chores = Chores(master)
        self._divider = Divider(master, machines)
        self._discoverer = Discoverer(master)
        self._dispatcher: Dispatcher | None = None
        self._settled_s = 0.0
        master.news = self.wake

    @property
    def leads(self) -> bool:
        """Whether this master gave out work when it last looked."""
        return self._dispatcher is not None

    def wake(self) -> None:
        """Look around at once: somebody asked for something."""
        dispatcher = self._dispatcher
        if dispatcher is None:
            self._idle.set()
        else:
            dispatcher.ask()

    def image_came(self) -> None:
        """An image was committed for a machine: the catalog is fed its files."""
        self._chores.image_came()

    def stop(self) -> None:
        """Have `run` return, when what is at work has stopped."""
        self._stop.set()
        self.wake()

    def run(self) -> None:
        """Be the master, or wait to become it, until `stop`."""
        told = False
        while not self._stop.is_set():
            try:
                if self._leadership.acquire():
                    self._lead()
                    told = False
                elif not told:
                    _LOG.info("another master is the active one; waiting to take over")
                    told = True
            except HoldfastError as error:
                _LOG.error("%s", error.message)
            except Exception:  # noqa: BLE001
                # A defect must not end backups for good while the process looks alive.
                _LOG.exception("a defect; going on")
            self._idle.wait(STEP_S)
            self._idle.clear()
        self._leadership.release()

    def _lead(self) -> None:
        storage_units.note_directories(self._master)
        self._master.site.inbox.tidy_up()
        dispatcher = self._new_dispatcher()
        for job in dispatcher.start(self._committed):
            _LOG.warning("job %s was at work when a master ended: it is %s", job.id, job.status)
        self._dispatcher = dispatcher
        self._remote.begin(dispatcher)
        self._divider.start()
        self._discoverer.start()
        self._master.how_divided = self._divider.settled
        _LOG.info("this master is the active one")
        try:
            while not self._stop.is_set() and self._leadership.held():
                self._look_around(dispatcher)
                dispatcher.wake.wait(self._pause_s(dispatcher))
        finally:
            self._dispatcher = None
            self._remote.end()
            self._divider.close()
            self._discoverer.close()
            self._wind_up()
            self._leadership.release()

    def _look_around(self, dispatcher: Dispatcher) -> None:
        try:
            self._chores.queue_what_is_due()
            self._settle_instants()
            for offer in dispatcher.turn():
                self._put_to_work(dispatcher, offer)
        except HoldfastError as error:
            # A database that is lost or full comes back; until then nothing is given out.
            _LOG.error("%s", error.message)

    def _settle_instants(self) -> None:
        if time.monotonic() - self._settled_s >= STEP_S:
            self._settled_s = time.monotonic()
            instant.settle(self._master)

    def _pause_s(self, dispatcher: Dispatcher) -> float:
        moment = dispatcher.next_moment()
        if moment is None:
            return STEP_S
        left_s = (moment - self._master.clock.now()).total_seconds()
        return min(max(left_s, 0.01), STEP_S)

    def _new_dispatcher(self) -> Dispatcher:
        master = self._master
        zone = master.zone
        agenda = Agenda(
            master.policies,
            master.jobs,
            HistoryBook(master.database),
            master.catalog,
            zone,
            drives_of(lambda: self._remote.standing),
            lambda: (self._remote.drives_version, self._divider.version),
            self._divider.of,
            master.hypervisors.estate,
        )
        return Dispatcher(
            site_id=facts.site_id(master.database),
            pool_of=lambda job: master.site.pools.of_unit(job.storage_unit),
            clock=master.clock,
            jobs=master.jobs,
            catalog=master.catalog,
            agenda=agenda,
            queue=Queue(
                master.jobs,
                zone,
                master.unit_slots,
                self._remote.presence,
                master.hypervisors.estate,
                master.settings.count("jobs.boot-checks"),
            ),
            lease_s=LEASE.total_seconds(),
            complete=partial(complete, master),
            committed=partial(queue_boot_check, master),
        )

    # -- workers --------------------------------------------------------------------------

    def _put_to_work(self, dispatcher: Dispatcher, offer: WorkOffer) -> None:
        if self._remote.takes(offer):
            self._remote.hand_over(dispatcher, offer)
            return
        site = self._master.site
        agent = Agent(
            Ways(
                back_up=partial(self._commit, offer.job_id),
                restore=site.restore,
                back_up_machine=partial(commit_machine, self._master, offer.job_id),
                restore_machine=partial(make_machine, self._master),
                check_boot=partial(check_boot, self._master),
                instant=partial(run_instant, self._master),
            ),
            Steward(self._master, (offer.job_id, offer.fence)),
            dispatcher,
        )

        def work() -> None:
            try:
                agent.work(offer)
            finally:
                self._workers.pop(offer.job_id, None)
                dispatcher.ask()
                self._chores.image_came()

        thread = threading.Thread(target=work, name=f"job-{offer.job_id}")
        self._workers[offer.job_id] = thread
        thread.start()

    def _commit(self, job: int, order: BackupOrder, report: Reporter | None, /) -> Image:
        """Back files of this machine up, into the storage unit that their job is for."""
        site = self._master.site
        unit = self._master.jobs.job(JobId(job)).storage_unit
        pool = site.pools.of_unit(unit)
        if self._master.units.units():
            site.pools.prepare(pool, order.source)
        return site.commit(order, report, pool)

    def _wind_up(self) -> None:
        """Have what is at work stop and go back to the queue, and wait for that."""
        for job in list(self._workers):
            try:
                self._master.jobs.requeue(JobId(job))
            except WrongState:
                continue
            except HoldfastError as error:
                _LOG.error("%s", error.message)
        for thread in list(self._workers.values()):
            thread.join()
        self._chores.close()

    # -- after a crash --------------------------------------------------------------------

    def _committed(self, wanted: set[str]) -> dict[str, ImageId]:
        """The images that some jobs made: in the inbox, in the catalog, or in the pool alone."""
        master = self._master
        master.site.hear_notes()
        found = master.catalog.of_jobs(wanted)
        if wanted - found.keys():
            for pool in self._pools_of(wanted - found.keys()):
                for image in master.site.pools.of(pool).images():
                    if image.labels.get(labels.JOB) in wanted:
                        master.catalog.record_image(image, pool)
            found = master.catalog.of_jobs(wanted)
        return found

    def _pools_of(self, labels_: set[str]) -> set[PoolId]:
        """Pools into which some jobs back up, but for those that nobody can look into now."""
        master, found = self._master, set()
        for one in master.jobs.at_work():
            if labels.of_job(facts.site_id(master.database), one.id, one.fence) not in labels_:
                continue
            try:
                pool = master.site.pools.of_unit(one.storage_unit)
                master.site.pools.of(pool)
            except (Unreachable, NotFound) as error:
                _LOG.warning("whether job %s left an image: %s", one.id, error.message)
            else:
                found.add(pool)
        return found
