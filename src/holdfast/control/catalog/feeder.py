"""Feed the catalog the files of images that wait, beside everything else that a master does.

As many workers as processors; a source is with one of them at a time, and its images go in one
after the other, the oldest first. Which images wait, the catalog alone knows: nothing is kept here
that a new process would miss, and feeding an image twice changes nothing.

Must not keep a backup waiting, nor decide which images there are. Invariants: an image that can't
be fed is *failed* with its reason, and the next one is fed; where the cause may pass (a full disk,
a lost store, a server that is away) the image stays *pending* with its reason, and its source is
put off, longer each time.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from holdfast.base.errors import Cancelled, HoldfastError, ImageMissing
from holdfast.control.catalog.indexer import passes

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast.base.ids import ImageId, PoolId
    from holdfast.control.catalog.catalog import Catalog
    from holdfast.control.catalog.lane import Lane
    from holdfast.control.catalog.rows import PoolReader, WaitingImage

_LOG = logging.getLogger("holdfast.catalog")

LOOK_S = 30.0
"""How often it is looked for images that nobody told of."""

MUCH = 20_000
"""From how many files on a first feed is given a processor of its own."""

BACKLOG = 8
"""From how many sources on that wait, every feed is."""

RETRY_S = 30.0
RETRY_AT_MOST_S = 1800.0

_STOPS_WITHIN_S = 5.0
_PATIENCE_S = 60.0
"""How long a worker keeps what it needs for its work when there is none."""


@dataclass(frozen=True, slots=True)
class FeederState:
    """What a feeder is at.

    Attributes:
        feeding: Images that are being fed.
        queued: Sources known to have images that wait for a worker.
        put_off: Sources that are tried again later, as their images could not be fed.
        fed: Images fed since the start.
        failed: Images that could not be fed since the start, and are not tried again.
    """

    feeding: tuple[ImageId, ...]
    queued: int
    put_off: int
    fed: int
    failed: int


class _PoolAway(Exception):  # noqa: N818 - told in words already
    """An image's pool can't be opened."""


@dataclass(frozen=True, slots=True)
class _PutOff:
    times: int
    until_s: float


class Feeder:
    """The workers of one master. Thread-safe; may be started again when it was stopped."""

    def __init__(
        self,
        catalog: Catalog,
        pool_of: Callable[[PoolId], PoolReader],
        *,
        workers: int | None = None,
        much: int = MUCH,
        retry_s: float = RETRY_S,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare; nothing is fed yet.

        Args:
            catalog: What is fed.
            pool_of: Opens a pool, or gives one that is open; its errors put a source off.
            workers: How many images are fed at a time; None for as many as processors.
            much: From how many files on a first feed is given a processor of its own.
            retry_s: How long a source is put off at first, in seconds.
            seconds: A clock that never goes back.
        """
        self._catalog = catalog
        self._pool_of = pool_of
        self._workers = workers or len(os.sched_getaffinity(0))
        self._much = much
        self._retry_s = retry_s
        self._seconds = seconds
        self._changed = threading.Condition()
        self._threads: list[threading.Thread] = []
        self._lanes: set[Lane] = set()
        self._stopping = False
        self._look = True
        self._looking = False
        self._next_look_s = 0.0
        self._queue: deque[int] = deque()
        self._busy: set[int] = set()
        self._feeding: set[ImageId] = set()
        self._put_off: dict[int, _PutOff] = {}
        self._fed = 0
        self._failed = 0

    def start(self) -> None:
        """Begin to feed what waits. Once started, nothing happens."""
        with self._changed:
            if self._threads:
                return
            self._stopping, self._look = False, True
            self._threads = [
                threading.Thread(target=self._work, name=f"feeder {number}", daemon=True)
                for number in range(self._workers)
            ]
            for thread in self._threads:
                thread.start()

    def stop(self) -> None:
        """Stop feeding, within seconds; an image that is half fed is as it was before.

        Not from a worker. More than once is fine.
        """
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
            threads, self._threads = self._threads, []
        deadline_s = self._seconds() + _STOPS_WITHIN_S
        for thread in threads:
            thread.join(max(0.0, deadline_s - self._seconds()))
        with self._changed:
            lanes = list(self._lanes)
        for lane in lanes:
            lane.abandon()
        for thread in threads:
            thread.join()

    def wake(self, *, at_once: bool = False) -> None:
        """Look for images that wait, now.

        Args:
            at_once: Also for those of sources that were put off.
        """
        with self._changed:
            self._look = True
            if at_once:
                self._put_off.clear()
            self._changed.notify_all()

    def wait_idle(self, timeout_s: float | None = None) -> bool:
        """Wait until nothing is left to do, but for what was put off.

        Returns:
            Whether that is so; False when the time is over.
        """
        with self._changed:
            return self._changed.wait_for(
                lambda: not (self._look or self._looking or self._queue or self._busy), timeout_s
            )

    def state(self) -> FeederState:
        """What it is at."""
        with self._changed:
            return FeederState(
                feeding=tuple(sorted(self._feeding)),
                queued=len(self._queue),
                put_off=len(self._put_off),
                fed=self._fed,
                failed=self._failed,
            )

    # -- a worker ---------------------------------------------------------------------------

    def _work(self) -> None:
        while not self._stopping:
            source = self._next_source(None)
            if source is not None:
                with self._catalog.lane() as lane:
                    self._work_in(lane, source)

    def _work_in(self, lane: Lane, first: int) -> None:
        """Feed sources until there is none for a while."""
        with self._changed:
            self._lanes.add(lane)
        source: int | None = first
        try:
            while source is not None:
                try:
                    self._feed_source(lane, source)
                except Exception as error:  # noqa: BLE001 - whatever it was, the others are fed
                    _LOG.warning("source %d is not in the catalog: %s", source, _words(error))
                    self._put_source_off(source)
                finally:
                    self._release(source)
                source = self._next_source(_PATIENCE_S)
        finally:
            with self._changed:
                self._lanes.discard(lane)

    def _next_source(self, patience_s: float | None) -> int | None:
        """A source to feed, when there is one; None to end, or when patience is."""
        began_s = self._seconds()
        with self._changed:
            while not self._stopping:
                if self._queue:
                    source = self._queue.popleft()
                    self._busy.add(source)
                    return source
                now_s = self._seconds()
                if not self._looking and (self._look or now_s >= self._next_look_s):
                    self._look_for_sources()
                    self._changed.notify_all()
                    continue
                if patience_s is not None and now_s - began_s >= patience_s:
                    return None
                pause_s = self._next_look_s - now_s
                if patience_s is not None:
                    pause_s = min(pause_s, patience_s)
                self._changed.wait(max(0.01, pause_s))
        return None

    def _look_for_sources(self) -> None:
        """Ask the catalog, with the lock given back meanwhile."""
        self._look, self._looking = False, True
        self._changed.release()
        waiting: list[int] | None = None
        try:
            waiting = self._catalog.waiting_sources()
        except HoldfastError as error:
            _LOG.warning("what the catalog waits for is not known: %s", error.message)
        finally:
            self._changed.acquire()
            self._looking = False
        now_s = self._seconds()
        self._next_look_s = now_s + (self._retry_s if waiting is None else LOOK_S)
        if waiting is not None:
            self._take_up(waiting, now_s)

    def _take_up(self, waiting: list[int], now_s: float) -> None:
        for source in self._put_off.keys() - set(waiting):
            del self._put_off[source]
        for source in waiting:
            put_off = self._put_off.get(source)
            if put_off is not None and put_off.until_s > now_s:
                self._next_look_s = min(self._next_look_s, put_off.until_s)
            elif source not in self._busy and source not in self._queue:
                self._queue.append(source)

    def _release(self, source: int) -> None:
        with self._changed:
            self._busy.discard(source)
            # what came for this source after its worker had looked
            self._look = True
            self._changed.notify_all()

    def _put_source_off(self, source: int) -> None:
        with self._changed:
            before = self._put_off.get(source)
            times = before.times + 1 if before else 1
            wait_s = min(self._retry_s * 2 ** (times - 1), RETRY_AT_MOST_S)
            self._put_off[source] = _PutOff(times, self._seconds() + wait_s)

    # -- one source -------------------------------------------------------------------------

    def _feed_source(self, lane: Lane, source: int) -> None:
        tried: set[ImageId] = set()
        with self._changed:
            backlog = len(self._queue) >= BACKLOG
        while True:
            waiting = self._catalog.waiting(source)
            untried = [one for one in waiting if one.image not in tried]
            if not untried:
                break
            for one in untried:
                tried.add(one.image)
                apart = backlog or one.files_at_first >= self._much
                if self._stopping or not self._feed(lane, source, one, apart=apart):
                    return
        if waiting:
            # tried, and that it failed could not be noted
            self._put_source_off(source)
            return
        with self._changed:
            self._put_off.pop(source, None)

    def _feed(self, lane: Lane, source: int, one: WaitingImage, *, apart: bool) -> bool:
        """Feed one image; whether the next one of the source may follow."""
        image = one.image
        with self._changed:
            self._feeding.add(image)
        try:
            pool = self._open(lane, image, one.pool)
            lane.ingest(pool, image, self._go_on, apart=apart)
        except Cancelled:
            return False
        except _PoolAway:
            self._put_source_off(source)
            return False
        except Exception as error:  # noqa: BLE001 - an image never stops the others
            return self._go_on_after(error, source, image)
        finally:
            with self._changed:
                self._feeding.discard(image)
        with self._changed:
            self._fed += 1
        return True

    def _open(self, lane: Lane, image: ImageId, pool: PoolId) -> PoolReader:
        try:
            return self._pool_of(pool)
        except HoldfastError as error:
            # whatever it is, it is not the image's fault
            _LOG.warning("image %s waits for its pool: %s", image, error.message)
            lane.put_off(image, error.message)
            raise _PoolAway from error

    def _go_on_after(self, error: Exception, source: int, image: ImageId) -> bool:
        if isinstance(error, ImageMissing) and not self._is_known(image):
            # it expired meanwhile
            return True
        _LOG.warning("image %s is not in the catalog: %s", image, _words(error))
        if passes(error):
            self._put_source_off(source)
            return False
        with self._changed:
            self._failed += 1
        return True

    def _is_known(self, image: ImageId) -> bool:
        try:
            self._catalog.image(image)
        except ImageMissing:
            return False
        return True

    def _go_on(self, rows: int) -> None:  # noqa: ARG002 - every batch is a place to stop
        if self._stopping:
            raise Cancelled("the catalog's feeding was stopped")


def _words(error: Exception) -> str:
    return error.message if isinstance(error, HoldfastError) else repr(error)
