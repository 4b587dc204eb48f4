"""Do a master's work on this machine, where the storage is another's.

Must not hold a session: see `session`. How data travels is the matter of whoever makes `Movers`.
Invariant: of each job at work there is one, however often it is offered.
"""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from holdfast.base.errors import HoldfastError, InternalError, Invalid, Unsupported
from holdfast.movers.agent import Agent
from holdfast.movers.drives import local_drives
from holdfast.movers.machines.asking import hypervisor_answers
from holdfast.movers.probe import look
from holdfast.movers.streams import divide_path
from holdfast.movers.ways import Ways
from holdfast.wire.dividing import DivideOrder
from holdfast.wire.looking import LookOrder
from holdfast.wire.machine_work import InstantWork

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from typing import TypeAlias

    from holdfast.movers.client_keys import ClientKeys
    from holdfast.movers.drive import Reporter
    from holdfast.wire.identity import Identity
    from holdfast.wire.messages import Master, SiteWork, WorkEvent, WorkOffer
    from holdfast.wire.sessions import Offer

    Finder: TypeAlias = Callable[[dict[str, Any]], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Transfer:
    """Where the data of one job goes, or comes from.

    Attributes:
        offer: The job.
        urls: Of the media server, best first.
        pool: The id of the pool.
        token: Gives what authorises a request now; fresh ones are had from the master. May take as
            long as an answer of the master does, and raises `HoldfastError`.
        identity: Who this machine is, towards the media server.
    """

    offer: WorkOffer
    urls: tuple[str, ...]
    pool: str
    token: Callable[[], str]
    identity: Identity


class Movers(Protocol):
    """Makes what takes and brings back the data of one job."""

    def __call__(self, transfer: Transfer, /) -> Ways:
        """Make it; nothing is sent yet. Raises `HoldfastError`."""
        ...


def no_movers(transfer: Transfer, /) -> Ways:
    """For a Holdfast without a way to move data between machines."""
    raise Unsupported(
        f"job {transfer.offer.job_id} can't be done: this Holdfast moves no data between machines",
        "update Holdfast on this machine",
    )


class Hands:
    """The jobs of a machine that are at work, each in a thread. Thread-safe."""

    def __init__(
        self,
        master: Master,
        movers: Movers,
        fresh: Callable[[int, int], dict[str, Any]],
        identity: Callable[[], Identity],
    ) -> None:
        """Nothing is at work yet.

        Args:
            master: Whom jobs are told to.
            movers: How data travels.
            fresh: Asks the master for the transfer part of a job anew, with another token.
            identity: Who this machine is now.
        """
        self._master = master
        self._movers = movers
        self._fresh = fresh
        self._identity = identity
        self._lock = threading.Lock()
        self._threads: dict[tuple[int, int], threading.Thread] = {}

    @property
    def working(self) -> tuple[tuple[int, int], ...]:
        """Jobs at work, with their fences."""
        with self._lock:
            return tuple(sorted(self._threads))

    def take(self, offered: Offer) -> None:
        """Begin a job, unless it is at work already."""
        offer = offered.offer
        key = offer.job_id, offer.fence
        thread = threading.Thread(target=self._work, args=(offered,), name=f"job-{offer.job_id}")
        with self._lock:
            if key in self._threads:
                return
            self._threads[key] = thread
        thread.start()

    def join(self, timeout_s: float) -> bool:
        """Wait for what is at work; whether all of it has ended."""
        with self._lock:
            threads = list(self._threads.values())
        end_s = time.monotonic() + timeout_s
        for one in threads:
            one.join(max(end_s - time.monotonic(), 0))
        return not any(one.is_alive() for one in threads)

    def _work(self, offered: Offer) -> None:
        offer = offered.offer
        try:
            Agent(self._ways(offered), _for_site, self._master).work(offer)
        finally:
            with self._lock:
                del self._threads[offer.job_id, offer.fence]

    def _ways(self, offered: Offer) -> Ways:
        """How this job's data travels. What is in the way is told when the job begins."""
        work = offered.offer.work
        if isinstance(work, InstantWork) and work.step != "serve":
            # It may be done while the storage is out of reach.
            no_data = Unsupported(f"job {offered.offer.job_id} moves no data")
            return _failing(no_data)._replace(instant=without_data)
        try:
            return self._movers(self._transfer(offered))
        except HoldfastError as error:
            return _failing(error)
        except Exception as defect:  # noqa: BLE001 - it is told as the job's end
            return _failing(InternalError(f"{type(defect).__name__}: {defect}"))

    def _transfer(self, offered: Offer) -> Transfer:
        offer, given = offered.offer, offered.transfer
        if given is None:
            raise Unsupported(
                f"job {offer.job_id} can't be done: the master named no place for its data",
                "update Holdfast on the master server",
            )
        first = [_token(given)]

        def token() -> str:
            return first.pop() if first else _token(self._fresh(offer.job_id, offer.fence))

        urls, pool = given.get("urls"), given.get("pool")
        if not isinstance(urls, list) or not isinstance(pool, str):
            raise Invalid(f"the master named no place for the data of job {offer.job_id}")
        return Transfer(offer, tuple(map(str, urls)), pool, token, self._identity())


def without_data(
    work: InstantWork,
    tell: Callable[[Mapping[str, int]], None],
    alive: Callable[[], None],
    note: Callable[[WorkEvent], None],
    /,
) -> None:
    """Do what is to be done with a machine that runs from its image, but for serving that."""
    from holdfast.movers.machines.work import instant

    instant(work, None, tell, alive, note)


def _failing(error: HoldfastError) -> Ways:
    """What takes the place of ways that there are not."""

    def fail(*_: object) -> NoReturn:
        raise error

    return Ways(fail, fail, fail, fail, instant=fail)


def find_out(order: dict[str, Any], answers: Mapping[str, Finder]) -> dict[str, Any]:
    """Answer what a master asks of this machine.

    Raises:
        Unsupported: It is nothing that is known here.
        HoldfastError: It can't be found out.
    """
    find = answers.get(str(order.get("ask")))
    if find is None:
        raise Unsupported(
            f"this machine knows no answer to '{str(order.get('ask'))[:40]}'",
            "update Holdfast on this machine",
        )
    return find(order)


def agent_answers(keys: ClientKeys, scratch: Path) -> dict[str, Finder]:
    """What an agent can be asked.

    Args:
        keys: Its client keys. Whether one is there is told, and what it seals names to; never
            more of it.
        scratch: Where its backups of machines have what guests overwrite, if not said otherwise.
    """
    return {
        "look": lambda order: look(LookOrder.from_json(order), has_key=keys.find).to_json(),
        "divide": lambda order: _divide(DivideOrder.from_json(order), keys),
        **hypervisor_answers(scratch),
        "drives": lambda _: {
            "answer": "drives",
            "drives": [os.fsdecode(one) for one in local_drives()],
        },
    }


def _divide(order: DivideOrder, keys: ClientKeys) -> dict[str, Any]:
    key = None if order.sealed_by is None else keys.find(order.sealed_by).key
    return divide_path(order, key=key).to_json()


def _for_site(work: SiteWork, _report: Reporter, _alive: Callable[[], None], /) -> list[WorkEvent]:
    raise Unsupported(f"'{work.verb}' is not for an agent: it is done where the storage is")


def _token(given: dict[str, Any]) -> str:
    token = given.get("token")
    if not isinstance(token, str):
        raise Invalid("the master gave no token for the data of a job")
    return token
