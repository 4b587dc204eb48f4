"""What many machines cost their master: sessions, heartbeats, jobs that are told of each second.

The agents are in a process of their own, and real but for their jobs, which wait and move nothing.
Each has four at a time. What is measured is the master's process: the door, TLS, dispatch and
the book of jobs, on a database whose every commit is synced.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from benchmarks.master.figures import Figure
from holdfast.base import settings
from holdfast.base.clock import SystemClock
from holdfast.base.ids import ClientName, PolicyName
from holdfast.control.access import AuditLog
from holdfast.control.catalog import Catalog
from holdfast.control.database import facts
from holdfast.control.dispatch import Agenda, Dispatcher, HistoryBook, Presence, Queue
from holdfast.control.jobs import LEASE, JobBook, Outcome, Wanted
from holdfast.control.machines import MachineBook
from holdfast.control.policies import Limits, Policy, PolicyBook, Selection
from holdfast.control.retention import Rules
from holdfast.control.schedule import BackupKind, Schedule
from holdfast.movers import machine_home
from holdfast.site.machines import Machines, serving
from holdfast.wire.identity import Identity, MachineKey, MachineRole
from holdfast.wire.messages import BackupWork, ImageNote, WorkOffer

if TYPE_CHECKING:
    from holdfast.control.database import Database

STREAMS = 4
"""Jobs of a machine at once."""
JOB_S = 30.0
PATIENCE_S = 300.0
CORES_GOAL = 1.0


PATHS = ("/etc", "/usr", "/var", "/tmp")
"""Of any machine; nothing of them is read."""


def policy(clients: list[ClientName]) -> Policy:
    return Policy(
        name=PolicyName("many"),
        clients=tuple(clients),
        selections=tuple(Selection(path[1:], (path,)) for path in PATHS),
        schedules=(Schedule("once", BackupKind.DIFFERENTIAL, every=timedelta(days=1)),),
        retention=Rules(last=1),
        limits=Limits(streams_per_client=STREAMS),
    )


class Site:
    """As much of a served site as machines need."""

    def __init__(self, database: Database, catalog: Catalog, place: Path) -> None:
        clock = SystemClock()
        audit = AuditLog(database, clock)
        self.book, self.jobs = MachineBook(database, clock, audit), JobBook(database, clock)
        self.policies = PolicyBook(database, clock)
        master: Any = SimpleNamespace(
            site=SimpleNamespace(pool_key=lambda: b"k" * 32),
            settings=settings.load(place, {}),
            database=database,
            clock=clock,
            audit=audit,
            machines=self.book,
            jobs=self.jobs,
            news=self._news,
        )
        self._offers: dict[tuple[int, int], WorkOffer] = {}
        self.machines: Machines | None = None
        agenda = Agenda(
            self.policies, self.jobs, HistoryBook(database), catalog, UTC, lambda _client: ["/"]
        )
        self.dispatcher = Dispatcher(
            site_id=facts.site_id(database),
            pool_of=lambda _: "0" * 32,
            clock=clock,
            jobs=self.jobs,
            catalog=catalog,
            agenda=agenda,
            queue=Queue(self.jobs, UTC, lambda: {"default": 100_000}, self._presence),
            lease_s=LEASE.total_seconds(),
        )
        self.machines = Machines(master)
        self.machines.hear = self.dispatcher.hear
        self.machines.transfer_for = self._transfer
        self.machines.committed = self._committed

    def _news(self) -> None:
        self.dispatcher.ask()

    def _presence(self) -> Presence:
        if self.machines is None:
            return Presence()
        return Presence(self.machines.standing.agents, self.machines.sessions.names)

    def _transfer(self, _client: ClientName, offer: WorkOffer) -> dict[str, Any]:
        self._offers[offer.job_id, offer.fence] = offer
        return {"urls": ["https://m"], "pool": "0" * 32, "token": "none"}

    def _committed(self, job: int, fence: int) -> ImageNote | None:
        offer = self._offers.pop((job, fence), None)
        if offer is None or not isinstance(offer.work, BackupWork):
            return None
        now_ns = time.time_ns()
        work = offer.work
        return ImageNote(
            f"{job:032x}", job, work.source, work.client, now_ns, now_ns, None, "completed",
            {"files": 1}, 0, "benchmark", work.labels,
        )  # fmt: skip


def join(site: Site, url: str, directory: Path, count: int) -> list[ClientName]:
    """Have machines join, without the way there: it is not what is measured."""
    assert site.machines is not None
    ca, life = site.machines.authority, timedelta(days=7)
    names = [ClientName(f"client{number:03}") for number in range(count)]
    for name in names:
        _, token = site.book.invite(MachineRole.AGENT, timedelta(hours=1), "benchmark")
        key, role = MachineKey.generate(), MachineRole.AGENT
        csr = key.csr_pem()
        pem = site.book.enroll(
            ca, secret=token.secret, csr_pem=csr, role=role, name=name, life=life, details={}
        )
        identity = Identity(role, name, ca.site_id, pem, key, ca.certificate_pem)
        (directory / name).mkdir(parents=True)
        machine_home.save(directory / name, (url,), identity)
    return names


def figures(kind: str, database: Database, place: Path, count: int) -> list[Figure]:
    """Have machines connect, work and report."""
    with (
        Catalog.open(place, SystemClock(), database) as catalog,
        tempfile.TemporaryDirectory() as homes,
    ):
        site = Site(database, catalog, place)
        assert site.machines is not None
        with serving(site.machines, "127.0.0.1:0") as where:
            names = join(site, f"https://{where}", Path(homes), count)
            site.machines.refresh()
            lost = _count_lost(site.machines)
            line = [sys.executable, "-m", "benchmarks.master.machine_agents", homes, str(JOB_S)]
            begun_s = time.perf_counter()
            agents = subprocess.Popen(line, cwd=Path(__file__).parents[2])
            try:
                sessions = site.machines.sessions
                _await(lambda: len(sessions.names) == count)
                connected_s = time.perf_counter() - begun_s
                site.policies.apply(site.policies.plan([policy(names)]), "benchmark")
                used_s, elapsed_s = _work(site, count * STREAMS)
                quiet_s = _quiet()
                missed = len(lost)
            finally:
                agents.terminate()
                agents.wait()
    wanted = Wanted(outcomes=(Outcome.COMPLETED,), leaves=True)
    done = site.jobs.count(wanted)
    jobs = count * STREAMS
    part = f"{kind}: {count:,} machines, {STREAMS} jobs each at once, {JOB_S:.0f} s a job"
    return [
        Figure(part, "all connected after", connected_s, "s"),
        Figure(part, "jobs that ended well", float(done), f"of {jobs}", at_least=float(jobs)),
        Figure(part, "sessions lost", float(missed), "", at_most=0.0),
        Figure(part, "from due to all ended", elapsed_s, "s"),
        Figure(part, "processors of the master", used_s / elapsed_s, "", at_most=CORES_GOAL),
        Figure(part, "processors with nothing to do", quiet_s, ""),
        Figure(
            part,
            "most memory of the master",
            resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            "MiB",
        ),
    ]


def _work(site: Site, jobs: int) -> tuple[float, float]:
    """Give out jobs until all have ended; processor time and time."""
    assert site.machines is not None
    machines, dispatcher = site.machines, site.dispatcher
    begun_s, used_s = time.perf_counter(), time.process_time()
    given = 0
    with ThreadPoolExecutor(8) as threads:
        while time.perf_counter() - begun_s < PATIENCE_S:
            offers = dispatcher.turn()
            given += len(offers)
            for offer in offers:
                assert isinstance(offer.work, BackupWork)
                threads.submit(machines.offer, ClientName(offer.work.client), offer)
            if given >= jobs and not site.jobs.at_work():
                break
            dispatcher.wake.wait(1.0)
    return time.process_time() - used_s, time.perf_counter() - begun_s


def _quiet(for_s: float = 20.0) -> float:
    """Processors that sessions alone take."""
    used_s, begun_s = time.process_time(), time.perf_counter()
    time.sleep(for_s)
    return (time.process_time() - used_s) / (time.perf_counter() - begun_s)


def _count_lost(machines: Machines) -> list[str]:
    """The machines whose session ends, from now on."""
    lost: list[str] = []
    closed, lock = machines.sessions.closed, threading.Lock()

    def counting(session: Any) -> bool:
        with lock:
            lost.append(session.peer.name)
        return closed(session)

    machines.sessions.closed = counting  # type: ignore[method-assign]
    return lost


def _await(look: Any) -> None:
    end_s = time.perf_counter() + PATIENCE_S
    while not look():
        if time.perf_counter() > end_s:
            raise TimeoutError("machines do not connect")
        time.sleep(0.05)
