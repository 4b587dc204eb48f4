"""Media servers of a site: which are there, which pools each has, whose data each takes.

Must not move data. Invariants: data of a job goes to one media server under one fence; what a media
server says was committed is looked up in the pool before it counts; jobs whose media server is gone
for longer than three heartbeats go back to the queue, and whoever returns then commits nothing.
"""

from __future__ import annotations

import logging
import threading
from base64 import b64encode
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from holdfast.base.errors import Cancelled, Forbidden, HoldfastError, Invalid, WrongState
from holdfast.base.ids import JobId
from holdfast.wire.fields import Reader
from holdfast.wire.identity import MachineRole
from holdfast.wire.messages import WorkEnded, WorkError
from holdfast.wire.sessions import HEARTBEATS_LOST

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from holdfast.base.ids import ClientName
    from holdfast.site.machines.machines import Machines
    from holdfast.site.machines.sessions import Session

    Job = tuple[int, int]
    """Its id and fence."""

PRUNE_EVERY_S: Final = 60.0
MOST_URLS: Final = 64
TELL_S: Final = 10.0

_PARTS: Final = ("cpu", "memory", "disk", "network")
_USUAL_JOBS: Final = 8
"""One that does not say how many jobs it takes at once counts as one that takes these."""

_LOG = logging.getLogger("holdfast.machines")


@dataclass(eq=False)
class MediaServer:
    """One media server.

    Attributes:
        name: Of the machine.
        session: The one that it holds, or held last.
        urls: Where it takes data.
        pools: Ids of the pools that it has.
        problems: Why others of its own can't be used, in words, by id.
        most: Of how many jobs it takes data at once; None for as many as come.
        jobs: Whose data it takes now.
        shared: Ids of the pools that all reach, of which it was told; None for one that is not.
        gone_since_s: Since when it holds no session; None while it does.
    """

    name: ClientName
    session: Session
    urls: tuple[str, ...]
    pools: frozenset[str]
    problems: Mapping[str, str] = field(default_factory=dict)
    most: int | None = None
    jobs: set[Job] = field(default_factory=set)
    shared: frozenset[str] | None = None
    gone_since_s: float | None = None

    @property
    def load(self) -> float:
        """How busy it is: the larger, the busier. What it said last, and what was given since.

        A server that takes few jobs at once is busy with fewer.
        """
        said = self.session.load
        busiest = max((said.get(one, 0.0) for one in _PARTS), default=0.0)
        return len(self.jobs) * _USUAL_JOBS / (self.most or _USUAL_JOBS) + busiest

    @property
    def is_full(self) -> bool:
        """Whether it has as many jobs as it takes."""
        return self.most is not None and len(self.jobs) >= self.most


class MediaServers:
    """Those of a served site. Thread-safe."""

    def __init__(
        self,
        machines: Machines,
        *,
        may_commit: Callable[[int, int], bool],
        committed: Callable[[int, int, str], None],
        now_s: Callable[[], float],
        token_key: bytes,
    ) -> None:
        """Nobody is there.

        Args:
            machines: Of the site.
            may_commit: Whether a job is at work under a fence.
            committed: Takes what was committed: job, fence, image; raises if that is not so.
            now_s: A clock that only goes forward, in seconds.
            token_key: By which media servers know the master's tokens, 32 bytes.
        """
        self._token_key = token_key
        self._machines = machines
        # So long one that lost its session has to come back.
        self._grace_s = machines.heartbeat_s * HEARTBEATS_LOST
        self._may_commit = may_commit
        self._committed = committed
        self._now_s = now_s
        self._lock = threading.Lock()
        self._there: dict[ClientName, MediaServer] = {}
        self._told_of: frozenset[str] = frozenset()
        self._pruned_s = now_s()
        machines.answers["serve-data"] = self._serve_data
        machines.answers["may-commit"] = self._ask_may_commit
        machines.answers["committed"] = self._take_committed

    @property
    def pools(self) -> frozenset[str]:
        """Ids of the pools that those who are there have."""
        with self._lock:
            there = [one for one in self._there.values() if self._is_there(one)]
            return frozenset().union(*(one.pools for one in there))

    @property
    def problems(self) -> dict[str, str]:
        """Why pools can't be used, in words, by id; told by those who are there."""
        units = self._machines.master.units.units()
        shared = {one.pool for one in units if one.server is None}
        with self._lock:
            there = [one for one in self._there.values() if self._is_there(one)]
        found: dict[str, str] = {}
        for one in there:
            for pool, why in one.problems.items():
                # What all reach is told of each who does not.
                words = f"media server '{one.name}': {why}" if pool in shared else why
                found[pool] = f"{found[pool]}; {words}" if pool in found else words
        return found

    def made(self, server: ClientName, pool: str) -> None:
        """A media server has made a pool, and has it open."""
        with self._lock:
            found = self._there.get(server)
            if found is not None:
                found.pools |= {pool}
        if found is not None:
            # What was noted of where it is, was noted of the units that there were then.
            self._machines.master.units.reached(server, found.urls)
        self._machines.master.news()

    def choose(self, job: Job, pool: str) -> MediaServer | None:
        """Of those that have a pool the one that is least busy, for a job; None if none is there.

        One that has as many jobs as it takes is passed over, unless no other place has the pool.
        Asked again, it tells the same for as long as that one is there.
        """
        near = self._machines.master.site.pools.is_near(pool)
        with self._lock:
            # As of now: one that left a moment ago would keep the job waiting for nobody.
            all_ = self._there.values()
            there = [one for one in all_ if pool in one.pools and self._is_there(one)]
            for one in there:
                if job in one.jobs:
                    return one
            free = [one for one in there if not one.is_full]
            if not free and not near:
                free = there
            chosen = min(free, key=lambda one: (one.load, one.name), default=None)
            if chosen is not None:
                for one in self._there.values():
                    one.jobs.discard(job)
                chosen.jobs.add(job)
            return chosen

    def _is_there(self, server: MediaServer) -> bool:
        return self._machines.sessions.get(server.name) is server.session

    def ended(self, job: Job) -> None:
        """A job's data moves no more."""
        with self._lock:
            for one in self._there.values():
                one.jobs.discard(job)

    def look_after(self) -> None:
        """What is to be done again and again; tells what goes wrong, and goes on."""
        connected = {one.peer.name: one for one in self._machines.sessions.all()}
        now_s = self._now_s()
        lost: list[tuple[MediaServer, Job]] = []
        with self._lock:
            for server in list(self._there.values()):
                if connected.get(server.name) is server.session:
                    continue
                if server.gone_since_s is None:
                    server.gone_since_s = now_s
                elif now_s - server.gone_since_s > self._grace_s:
                    lost += [(server, job) for job in server.jobs]
                    del self._there[server.name]
        for server, job in lost:
            self._give_up(server, job)
        self._tell_revoked()
        self._tell_shared()
        if now_s - self._pruned_s > PRUNE_EVERY_S:
            self._pruned_s = now_s
            self._prune()

    def _prune(self) -> None:
        """Forget jobs whose end nobody told of."""
        with self._lock:
            jobs = {job for one in self._there.values() for job in one.jobs}
        try:
            over = {job for job in jobs if not self._may_commit(*job)}
        except HoldfastError as error:
            _LOG.error("%s", error.message)
            return
        for job in over:
            self.ended(job)

    def _give_up(self, server: MediaServer, job: Job) -> None:
        _LOG.warning(
            "media server '%s' is gone: job %s goes back to the queue", server.name, job[0]
        )
        try:
            if self._may_commit(*job):
                self._machines.master.jobs.requeue(JobId(job[0]))
                self._end(server, job)
                self._machines.master.news()
        except WrongState:
            return
        except HoldfastError as error:
            _LOG.error("%s", error.message)

    def _end(self, server: MediaServer, job: Job) -> None:
        """Do not wait for the machine: it may be waiting for the media server."""
        hear = self._machines.hear
        if hear is not None:
            why = f"media server '{server.name}' is gone"
            error = WorkError(Cancelled.code, why, None)
            hear(WorkEnded(*job, None, (), 0, {}, error))

    def _tell_revoked(self) -> None:
        """Tell those who take data whom to refuse."""
        refused = self._machines.refused_serials()
        if refused == self._told_of:
            return
        with self._lock:
            there = [one for one in self._there.values() if one.gone_since_s is None]
        told = True
        for one in there:
            try:
                one.session.ask({"ask": "refuse", "serials": sorted(refused)}, TELL_S)
            except HoldfastError as error:
                told = False
                _LOG.warning("media server '%s' was not told: %s", one.name, error.message)
        if told:
            self._told_of = refused

    def _tell_shared(self) -> None:
        """Tell those who have the site's pool which others there are that all reach."""
        try:
            shared = self._shared()
        except HoldfastError as error:
            _LOG.error("%s", error.message)
            return
        known = frozenset(one["pool"] for one in shared)
        with self._lock:
            there = [one for one in self._there.values() if one.gone_since_s is None]
        for one in there:
            if one.shared is None or one.shared == known:
                continue
            try:
                one.session.ask({"ask": "share", "shared": shared}, TELL_S)
            except HoldfastError as error:
                _LOG.warning("media server '%s' was not told: %s", one.name, error.message)
            else:
                one.shared = known

    def _shared(self) -> list[dict[str, str]]:
        """The storage units that nobody owns, with their keys."""
        master = self._machines.master
        units = [one for one in master.units.units() if one.server is None]
        if not units:
            return []
        key = master.site.pool_key()
        return [
            {
                "pool": one.pool,
                "place": one.place,
                "key": b64encode(master.units.key(one.pool, key)).decode(),
            }
            for one in units
        ]

    # -- what they say ----------------------------------------------------------------------

    def _serve_data(self, session: Session, order: dict[str, Any]) -> dict[str, Any]:
        require_media(session)
        given = Reader(order, "what a media server says of itself")
        urls, pool = given.texts("urls"), given.maybe_text("pool")
        keys = self._keys(session.peer.name, given.texts("own"))
        problems = given.texts_by_name("problems")
        most = max(given.count("jobs"), 1) if given.has("jobs") else None
        if not 0 < len(urls) <= MOST_URLS or not all(one.startswith("https://") for one in urls):
            raise Invalid(f"a media server has 1 to {MOST_URLS} URLs, https://address:port")
        ours = self._machines.master.site.pool_id
        if pool is not None and pool != ours:
            raise Invalid(
                f"media server '{session.peer.name}' has pool {pool}, this site {ours}",
                "there: holdfast init --existing --pool URL --recovery-kit F",
            )
        # An older one says nothing of what all reach, and is not told.
        shares = pool is not None and given.has("shared")
        shared = self._shared() if shares else []
        ids = frozenset(one["pool"] for one in shared)
        refused = self._machines.refused_serials()
        name = session.peer.name
        with self._lock:
            before = self._there.get(name)
            jobs = set() if before is None else before.jobs
            known = {} if before is None else before.problems
            pools = keys.keys() & set(given.texts("open"))
            if pool is not None:
                pools.add(pool)
            if shares:
                pools |= ids.intersection(given.texts("shared"))
            self._there[name] = MediaServer(
                name,
                session,
                tuple(urls),
                frozenset(pools),
                problems,
                most,
                jobs,
                ids if shares else None,
            )
        for one in sorted(problems.items() - known.items()):
            _LOG.warning("media server '%s' can't use pool %s: %s", name, *one)
        self._reached(name, urls)
        _LOG.info("media server '%s' takes data at %s", name, ", ".join(urls))
        return {
            "refused": sorted(refused),
            "token_key": b64encode(self._token_key).decode(),
            "keys": {one: b64encode(key).decode() for one, key in keys.items()},
            **({"shared": shared} if shares else {}),
        }

    def _reached(self, server: ClientName, urls: Sequence[str]) -> None:
        """Have its pools be looked for where it is now."""
        master = self._machines.master
        for unit in master.units.units():
            if unit.server == server and master.units.urls(unit.name) != tuple(urls):
                master.site.pools.forget(unit.pool)
        master.units.reached(server, urls)
        master.news()

    def _keys(self, server: ClientName, said: Collection[str]) -> dict[str, bytes]:
        """The keys of the pools that a media server says it has, as far as they are its own."""
        master = self._machines.master
        theirs = {one.pool for one in master.units.units() if one.server == server}
        for one in set(said) - theirs:
            _LOG.warning("media server '%s' has pool %s, which is not its own", server, one[:32])
        key = master.site.pool_key()
        return {one: master.units.key(one, key) for one in sorted(theirs.intersection(said))}

    def _ask_may_commit(self, session: Session, order: dict[str, Any]) -> dict[str, Any]:
        require_media(session)
        given = Reader(order, "a question of a media server")
        job = given.count("job"), given.count("fence")
        # Which media server it is does not matter: of one fence there is one upload at a time.
        return {"may": self._may_commit(*job)}

    def _take_committed(self, session: Session, order: dict[str, Any]) -> dict[str, Any]:
        require_media(session)
        given = Reader(order, "what a media server says of an image")
        self._committed(given.count("job"), given.count("fence"), given.text("image"))
        return {"taken": True}


def require_media(session: Session) -> None:
    """Raise `Forbidden` for whoever is no media server."""
    if session.peer.role is not MachineRole.MEDIA:
        raise Forbidden(f"'{session.peer.name}' is no media server")
