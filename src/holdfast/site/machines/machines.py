"""What the master knows of its machines while it is served, and what they do for it.

Must not speak HTTP: see `door`. Invariants: a machine is heard only of jobs of its own client,
under the fence that they have; of an image, what the storage's side says counts, never what the
machine says; who is revoked is out within the second, whichever process revoked it.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from holdfast.base import labels
from holdfast.base.errors import (
    Fenced,
    HoldfastError,
    Invalid,
    JobMissing,
    Unreachable,
    Unsupported,
    WorkerLost,
)
from holdfast.base.ids import JobId
from holdfast.control.jobs import LEASE, OF_CLIENTS, JobKind, JobState
from holdfast.control.machines import Said, Standing
from holdfast.site.hypervisors import why_untrimmed
from holdfast.site.machine_work import complete
from holdfast.site.machines.sessions import Sessions
from holdfast.sources.machines.provider import NOT_TRIMMED
from holdfast.wire.dividing import DivideReport
from holdfast.wire.fields import Reader
from holdfast.wire.identity import Identity, MachineKey, MachineRole, machine_name
from holdfast.wire.looking import LookReport
from holdfast.wire.machine_work import MachineWork
from holdfast.wire.messages import (
    Answer,
    BackupWork,
    ImageNote,
    WorkEnded,
    WorkError,
    WorkEvent,
    WorkOffer,
    work_from_json,
)
from holdfast.wire.sessions import Closed, Offer

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from holdfast.base.ids import ClientName
    from holdfast.site.machines.sessions import Session
    from holdfast.site.master import Master
    from holdfast.wire.dividing import DivideOrder
    from holdfast.wire.identity import Authority, Peer
    from holdfast.wire.looking import LookOrder
    from holdfast.wire.messages import WorkMessage

    Hear: TypeAlias = Callable[[WorkMessage], Answer]
    TransferFor: TypeAlias = Callable[["ClientName", WorkOffer], "dict[str, Any] | None"]
    ReplicationFor: TypeAlias = Callable[
        ["ClientName", int, int, str, str, "str | None"], "dict[str, Any]"
    ]
    Committed: TypeAlias = Callable[[int, int], "ImageNote | None"]

ASK_S: Final = 10.0
"""What a machine is asked is answered within this, and the time that it was given to look."""

SEEN_EVERY_S: Final = 30.0
"""How often it is written down who was heard of."""

MASTER_NAME: Final = "master"
_REMEMBERED: Final = 10_000

_LOG = logging.getLogger("holdfast.machines")


class Machines:
    """The machines of one served master. Thread-safe.

    Attributes:
        master: Whose they are.
        life: How long their certificates are good.
        sessions: Those that are there.
        hear: Takes what they say of jobs; None while this master does not give out work.
        transfer_for: Makes the transfer part of an offer: where the data of a job goes, and the
            token for it. None while there is nobody who takes data.
        served_pools: Ids of pools that media servers serve now.
        pool_problems: Why others of theirs can't be used, by id.
        replication_for: Makes the transfer part of a job that brings an image into another pool:
            who sends it, job, fence, image, pool, and an image that both pools have.
        pool_made: Is told of a pool that a media server has made.
        drives_version: Rises whenever other machines, or other drives of them, are known.
        committed: What was committed under a job's fence, by who keeps the storage.
        answers: What machines may ask, by its kind.
        before_job: Is called with the name of a machine before a job is given to it.
        chores: To be done about once in a second; none of them raises.
    """

    def __init__(self, master: Master, heartbeat_s: float | None = None) -> None:
        """Prepare; the pool's key is needed once.

        Args:
            master: Open, with its pool.
            heartbeat_s: How often machines and master give a sign of life; None for what the
                site's settings say.

        Raises:
            WrongKey: The pool's key does not open the site's authority.
        """
        self.master = master
        usual_s = master.settings.seconds("machines.heartbeat")
        self.heartbeat_s = usual_s if heartbeat_s is None else heartbeat_s
        self.life = timedelta(seconds=master.settings.seconds("machines.certificate-life"))
        self.authority: Authority = master.machines.authority(master.site.pool_key())
        self.sessions = Sessions(self._came_or_went)
        self.hear: Hear | None = None
        self.transfer_for: TransferFor | None = None
        self.committed: Committed = _nothing_committed
        self.served_pools: Callable[[], Collection[str]] = frozenset
        self.pool_problems: Callable[[], Mapping[str, str]] = dict
        self.pool_made: Callable[[ClientName, str], None] = _nothing_made
        self.replication_for: ReplicationFor = _no_replication
        self.drives_version = 0
        self.answers: dict[str, Callable[[Session, dict[str, Any]], dict[str, Any]]] = {
            "transfer": self._fresh_transfer
        }
        self.before_job: Callable[[ClientName], None] = _nothing_before
        self.chores: list[Callable[[], None]] = []
        self._lock = threading.Lock()
        self._looking = threading.Lock()
        self._standing: Standing = master.machines.standing()
        self._offered: OrderedDict[tuple[int, int], tuple[ClientName, WorkOffer | None]]
        self._offered = OrderedDict()
        master.machines.news = self.refresh
        master.machines.connected = lambda: self.sessions.names
        master.spoken_to = self

    # -- who is let in --------------------------------------------------------------------

    @property
    def standing(self) -> Standing:
        """Who is let in, as of a moment ago."""
        return self._standing

    def is_revoked(self, serial: str) -> bool:
        """Whether a certificate is to be refused."""
        return serial not in self._standing.serials

    def refresh(self) -> None:
        """Look who is let in now, and end the sessions of those who are not."""
        standing = self._look()
        for one in self.sessions.all():
            if one.peer.serial in standing.serials:
                continue
            if one.peer.expires_ns <= self.master.clock.now_ns():
                one.close(Closed.CERTIFICATE_ENDED, "the certificate of this machine has ended")
            else:
                _LOG.warning("machine '%s' was revoked: its session ends", one.peer.name)
                one.close(Closed.REVOKED, f"machine '{one.peer.name}' was revoked")

    def _look(self) -> Standing:
        with self._looking:
            standing = self.master.machines.standing()
            if standing.drives != self._standing.drives or standing.agents != self._standing.agents:
                self.drives_version += 1
                self.master.news()
            self._standing = standing
        return standing

    def refused_serials(self) -> frozenset[str]:
        """Certificates that were revoked before their end."""
        return self._standing.refused

    def own_identity(self) -> Identity:
        """A certificate of the master's own, for a key that is nowhere but in this process."""
        key, now = MachineKey.generate(), self.master.clock.now()
        role = MachineRole.MASTER
        issued = self.authority.issue(key.csr_pem(), role, MASTER_NAME, now, self.life)
        pem = self.authority.certificate_pem
        name = machine_name(MASTER_NAME)
        return Identity(role, name, self.authority.site_id, issued.pem, key, pem)

    def end_leading(self) -> None:
        """Be heard by nobody, and give out no work, until there is somebody to hear again."""
        self.hear = None
        self.sessions.close_all(Closed.STOPPING, "this master does not give out work any more")

    # -- who is there ---------------------------------------------------------------------

    def ask_drives(self) -> None:
        """Have agents say which drives they have now."""
        for one in self.sessions.all():
            if one.peer.role is not MachineRole.AGENT:
                continue
            try:
                said = one.ask({"ask": "drives"}, ASK_S)
                drives = Reader(said, f"what '{one.peer.name}' says").texts("drives")
            except HoldfastError as error:
                _LOG.info("drives of machine '%s': %s", one.peer.name, error.message)
                continue
            one.hello = replace(one.hello, drives=drives)
        self.note_seen()

    def look(self, client: ClientName, order: LookOrder) -> LookReport:
        """Have an agent look at its files.

        Raises:
            Unreachable: It is not there, or does not answer.
            Invalid: What it says is no report.
        """
        found = self.sessions.ask(client, order.to_json(), order.within_s + ASK_S)
        return LookReport.from_json(found)

    def divide(self, client: ClientName, order: DivideOrder) -> DivideReport:
        """Have an agent say how a path of it divides.

        Raises:
            Unreachable: It is not there, or does not answer.
            Invalid: What it says is no division.
        """
        found = self.sessions.ask(client, order.to_json(), order.within_s + ASK_S)
        return DivideReport.from_json(found)

    def note_seen(self) -> None:
        """Write down who is there, and what they say of themselves."""
        said = {
            one.peer.name: Said(one.hello.software, one.hello.addresses, one.hello.drives)
            for one in self.sessions.all()
        }
        if said:
            self.master.machines.hear(said)

    def greeted(self, session: Session) -> None:
        """Take in a machine that has said who it is."""
        hello = session.hello
        said = Said(hello.software, hello.addresses, hello.drives)
        self.master.machines.hear({session.peer.name: said})
        self._look()
        self.sessions.opened(session)
        if session.peer.role is MachineRole.AGENT:
            self._give_up_lost(session)

    def _give_up_lost(self, session: Session) -> None:
        """Take jobs back that a machine was given and does not know of: it was started anew."""
        hear, name, working = self.hear, session.peer.name, set(session.hello.working)
        for job in self.master.jobs.at_work() if hear is not None else ():
            if job.done_by != name or job.kind not in OF_CLIENTS:
                continue
            if hear is None or (job.id, job.fence) in working:
                continue
            why = f"machine '{name}' was started anew while job {job.id} was at work"
            _LOG.warning("%s", why)
            error = WorkError(WorkerLost.code, why, WorkerLost.advice)
            ended = WorkEnded(job.id, job.fence, None, (), 0, {}, error)
            hear(self._as_it_is(session.peer, ended))

    def _came_or_went(self) -> None:
        self.master.news()

    # -- jobs -----------------------------------------------------------------------------

    def offer(self, client: ClientName, offer: WorkOffer) -> None:
        """Give an agent a job of its own client.

        Raises:
            Unreachable: It is not there.
            HoldfastError: There is no place for its data.
        """
        transfer = None if self.transfer_for is None else self.transfer_for(client, offer)
        self._remember((offer.job_id, offer.fence), client, offer)
        self.before_job(client)
        self.sessions.offer(client, Offer(offer, transfer))

    def answer(self, session: Session, order: dict[str, Any]) -> dict[str, Any]:
        """Answer what a machine asks.

        Raises:
            Invalid: Nobody knows.
            HoldfastError: There is no answer.
        """
        find = self.answers.get(str(order.get("ask")))
        if find is None:
            raise Invalid("the master knows no answer to that")
        return find(session, order)

    def _fresh_transfer(self, session: Session, order: dict[str, Any]) -> dict[str, Any]:
        """The transfer part of a job at work, with another token."""
        given, peer = Reader(order, "what a machine asks"), session.peer
        job_id, fence = given.count("job"), given.count("fence")
        if not self._owns(peer.name, job_id, fence):
            raise Fenced(f"job {job_id} is not at work on '{peer.name}'")
        made = None
        if self.transfer_for is not None:
            made = self.transfer_for(peer.name, self._offer_of(job_id, fence))
        if made is None:
            raise Unsupported(f"there is no place for the data of job {job_id}")
        return made

    def _offer_of(self, job_id: int, fence: int) -> WorkOffer:
        """What a job was offered as; also by a master before this one."""
        with self._lock:
            _, offer = self._offered.get((job_id, fence), (None, None))
        if offer is not None:
            return offer
        job = self.master.jobs.job(JobId(job_id))
        if job.fence != fence or job.state not in {JobState.ACTIVE, JobState.ENDING}:
            raise Fenced(f"job {job_id} is not at work any more under fence {fence}")
        work = complete(self.master, job, work_from_json(self.master.jobs.work(JobId(job_id))))
        if isinstance(work, BackupWork | MachineWork):
            label = labels.of_job(self.authority.site_id, job_id, fence)
            work = replace(work, labels={**work.labels, labels.JOB: label})
        return WorkOffer(job_id, fence, LEASE.total_seconds(), work)

    def told(self, peer: Peer, message: WorkMessage) -> Answer:
        """Take what a machine says of a job; blocks for as long as a database does.

        Raises:
            Unreachable: This master gives out no work now.
            HoldfastError: It could not be taken.
        """
        hear = self.hear
        if hear is None:
            raise Unreachable("this master does not give out work now", "it may do so in a moment")
        key = message.job_id, message.fence
        if not self._owns(peer.name, *key):
            return Answer.FENCED
        try:
            if isinstance(message, WorkEnded):
                message = self._as_it_is(peer, message)
            answer = hear(message)
        except JobMissing:
            answer = Answer.FENCED
        if isinstance(message, WorkEnded) or answer is Answer.FENCED:
            with self._lock:
                self._offered.pop(key, None)
        return answer

    def _as_it_is(self, peer: Peer, message: WorkEnded) -> WorkEnded:
        """The end of a job with the image that the storage's side knows, if it was a backup."""
        image = self.committed(message.job_id, message.fence)
        ended = replace(message, image=image)
        if image is None and message.error is None and self._is_backup(message.job_id):
            why = f"'{peer.name}' says that job {message.job_id} is done, but no image is there"
            return replace(ended, error=WorkError("worker-lost", why, None))
        return self._with_what_was_not_known(peer, ended)

    def _with_what_was_not_known(self, peer: Peer, ended: WorkEnded) -> WorkEnded:
        """With what its machine, of an older Holdfast, passed over of the work."""
        with self._lock:
            _, offer = self._offered.get((ended.job_id, ended.fence), (None, None))
        work = None if offer is None else offer.work
        if not isinstance(work, MachineWork) or not work.trim_s or ended.error is not None:
            return ended
        if (why := why_untrimmed(self.master, peer.name)) is None:
            return ended
        told = (*ended.events, WorkEvent("warning", NOT_TRIMMED, why))
        return replace(ended, events=told, events_total=ended.events_total + 1)

    def _is_backup(self, job_id: int) -> bool:
        return self.master.jobs.job(JobId(job_id)).kind is JobKind.BACKUP

    def _owns(self, name: ClientName, job_id: int, fence: int) -> bool:
        key = job_id, fence
        with self._lock:
            known = self._offered.get(key)
        if known is not None:
            return known[0] == name
        # Offered by a master before this one.
        try:
            job = self.master.jobs.job(JobId(job_id))
        except (JobMissing, OverflowError):
            return False
        if job.done_by != name or job.fence != fence or job.kind not in OF_CLIENTS:
            return False
        self._remember(key, name, None)
        return True

    def _remember(self, key: tuple[int, int], name: ClientName, offer: WorkOffer | None) -> None:
        with self._lock:
            self._offered[key] = name, offer
            while len(self._offered) > _REMEMBERED:
                self._offered.popitem(last=False)

    def look_after(self) -> None:
        """What is to be done again and again; an error is told, and ends nothing."""
        try:
            self.refresh()
        except HoldfastError as error:
            _LOG.error("who is let in can't be looked up: %s", error.message)
        for chore in self.chores:
            chore()


def _no_replication(*_: object) -> dict[str, Any]:
    raise Unsupported("nobody takes data here")


def _nothing_before(_name: ClientName) -> None:
    return None


def _nothing_made(_server: ClientName, _pool: str) -> None:
    return None


def _nothing_committed(_job_id: int, _fence: int) -> ImageNote | None:
    return None
