"""Work on a whole pool of a media server, done where its disk is, for the master that asks for it.

Must not decide when. A work has a name that the master makes up: who asks for it again, as the
answer was lost or is not there yet, waits for that work or hears what came of it, and has nothing
done twice. Invariants: one pool is cared for by one work at a time; when the media server ends,
what is at work is given up.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from typing import TYPE_CHECKING, Any, Final

from holdfast.base.errors import Busy, Cancelled, HoldfastError, InternalError, Invalid
from holdfast.base.ids import ImageId
from holdfast.site import pool_care
from holdfast.wire.fields import Reader
from holdfast.wire.sessions import MAX_EVENTS, event_to_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from holdfast.base.clock import Clock
    from holdfast.engine import Counters, Pool
    from holdfast.movers.drive import Reporter
    from holdfast.wire.messages import WorkEvent

    Act = Callable[[Pool, Reader, Reporter], list[WorkEvent]]

KEPT_S: Final = 600.0
"""For so long a result can be asked for once more."""

_VERBS: Final = ("collect-garbage", "check", "verify", "rebuild-index")


_LOG = logging.getLogger("holdfast.media")


class _Work:
    """One work, at it or done."""

    def __init__(self, pool: str, verb: str) -> None:
        self.pool = pool
        self.verb = verb
        self.unwanted = False
        self.result: Future[list[WorkEvent]] = Future()
        self.ended_s: float | None = None


class PoolWork:
    """The works of one media server. Thread-safe."""

    def __init__(
        self,
        pool: Callable[[str], Pool],
        clock: Clock,
        now_s: Callable[[], float] = time.monotonic,
        more: Mapping[str, Act] | None = None,
    ) -> None:
        """Nothing is at work.

        Args:
            pool: The pool of an id; raises if there is none, or not now.
            clock: Dates what is changed.
            now_s: A clock that only goes forward.
            more: What else can be done with a pool, by its word, and beside all other work.
        """
        self._more = dict(more or {})
        self._pool = pool
        self._clock = clock
        self._now_s = now_s
        self._lock = threading.Lock()
        self._works: dict[str, _Work] = {}
        self._over = False

    @property
    def answers(self) -> Mapping[str, Callable[[dict[str, Any]], dict[str, Any]]]:
        """What a master can ask for, by its word."""
        return {**dict.fromkeys((*_VERBS, *self._more), self.do), "stop-work": self.stop_one}

    def do(self, order: dict[str, Any]) -> dict[str, Any]:
        """Do it, or wait for what does it already; say that it goes on where that takes long.

        Args:
            order: ``ask``, ``pool``, options; ``work``, its name; ``wait_s``, for how long to wait
                at most.

        Raises:
            NotAPool: There is none of this id.
            Busy: Something else is done with it.
            Cancelled: The media server ends.
            HoldfastError: What it failed of.
        """
        given = Reader(order, "an order for a pool")
        wait_s = given.number("wait_s") if given.has("wait_s") else None
        verb = given.text("ask")
        work = self._of(given, verb)
        try:
            events = work.result.result(wait_s)
        except NotYet:
            return {"answer": verb, "running": True}
        return {"answer": verb, "events": [event_to_json(one) for one in events[:MAX_EVENTS]]}

    def stop_one(self, order: dict[str, Any]) -> dict[str, Any]:
        """Give up the work of a name, if there is one."""
        name = Reader(order, "an order for a pool").text("work")
        with self._lock:
            known = self._works.get(name)
        if known is not None:
            known.unwanted = True
        return {"answer": "stop-work"}

    def stop(self) -> None:
        """Give up what is at work, and take on nothing more."""
        self._over = True

    def _of(self, given: Reader, verb: str) -> _Work:
        """The work of this name, begun if it was not."""
        pool = given.text("pool")
        name = given.maybe_text("work") or secrets.token_hex(16)
        with self._lock:
            self._forget()
            known = self._works.get(name)
            if known is not None:
                if (known.pool, known.verb) != (pool, verb):
                    raise Invalid("a work that was begun with this name is another one")
                return known
            others = [one for one in self._works.values() if one.ended_s is None]
            for one in others if verb in _VERBS else ():
                if one.pool == pool and one.verb in _VERBS:
                    raise Busy(f"pool {pool} is being worked on: {one.verb}")
            work = self._works[name] = _Work(pool, verb)
        threading.Thread(
            target=self._act, args=(work, given), name=f"work-{pool[:8]}", daemon=True
        ).start()
        return work

    def _forget(self) -> None:
        now_s = self._now_s()
        for name, one in list(self._works.items()):
            if one.ended_s is not None and now_s - one.ended_s > KEPT_S:
                del self._works[name]

    def _act(self, work: _Work, given: Reader) -> None:
        _LOG.info("%s of pool %s begins", work.verb, work.pool)
        try:
            events = self._events(work, given)
        except HoldfastError as error:
            _LOG.warning("%s of pool %s failed: %s", work.verb, work.pool, error.message)
            self._ended(work)
            work.result.set_exception(error)
        except Exception as defect:  # noqa: BLE001 - told to who asked
            self._ended(work)
            work.result.set_exception(InternalError(f"{type(defect).__name__}: {defect}"))
        else:
            _LOG.info("%s of pool %s has ended", work.verb, work.pool)
            self._ended(work)
            work.result.set_result(events)

    def _ended(self, work: _Work) -> None:
        with self._lock:
            work.ended_s = self._now_s()

    def _go_on(self, work: _Work) -> None:
        if self._over:
            raise Cancelled("the media server ends")
        if work.unwanted:
            raise Cancelled("nobody wants it any more")

    def _events(self, work: _Work, given: Reader) -> list[WorkEvent]:
        pool = self._pool(work.pool)

        def report(_: Counters | None) -> None:
            self._go_on(work)

        if work.verb in self._more:
            return self._more[work.verb](pool, given, report)
        match work.verb:
            case "collect-garbage":
                dry_run = given.flag("dry_run")
                return pool_care.collect(pool, self._clock, report, dry_run=dry_run)
            case "check":
                return pool_care.check(pool, report, read_data=given.flag("read_data"))
            case "verify":
                images = [ImageId(one) for one in given.texts("images")] or None
                return pool_care.verify(pool, images, report, read_data=given.flag("read_data"))
            case _:
                return pool_care.rebuild_index(pool, self._clock, report)
