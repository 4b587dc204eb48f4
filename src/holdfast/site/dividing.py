"""Have paths divided into streams where policies want that, and anew where one has outgrown all.

Must not decide what a stream is called or takes: see `control.policies.streams`. Invariants: who
asks never waits, but for `settled`; a path that can't be looked at in time is backed up undivided;
a split is given up only for one that is better by far.
"""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from holdfast.base.errors import HoldfastError, Unreachable
from holdfast.control.dispatch import SplitBook
from holdfast.control.policies import UNDIVIDED, may_be_by_prefix, require_fitting, sources_of
from holdfast.movers.streams import divide_path
from holdfast.site.probing import this_client
from holdfast.wire.dividing import DivideOrder

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast.base.ids import ImageId
    from holdfast.control.policies import Split, SplitKey
    from holdfast.site.machines import Machines
    from holdfast.site.master import Master
    from holdfast.wire.dividing import DivideReport

LOPSIDED: Final = 2.0
"""Where the largest stream is so many times its share, another split is looked for."""

BETTER: Final = 0.75
"""Another split is taken if its largest stream is at most this part of what it was."""

LEAST_BYTES: Final = 1 << 30
"""What is smaller than this is not worth a split of its own anew."""

PATIENCE_S: Final = 600.0
"""For so long a path that is yet to be divided is not due."""

AGAIN_S: Final = 6 * 3600.0
"""When a path that could not be divided is looked at again."""

JUDGE_S: Final = 300.0
"""How often it is looked whether a split has new images to be judged by."""

BY_HAND_S: Final = 20.0
LOOK_S: Final = 5.0
AT_ONCE: Final = 4

_LOG = logging.getLogger("holdfast.streams")


@dataclass(slots=True, eq=False)
class _Known:
    """What is known of a key.

    Attributes:
        split: How it is divided; None as long as that is not known.
        since_s: Since when it is asked for.
        next_s: When it is looked at.
        judged: The images by which its balance was judged last.
    """

    split: Split | None
    since_s: float
    next_s: float
    judged: frozenset[ImageId] = field(default_factory=frozenset)


class Divider:
    """The splits of a site while it is served. Thread-safe."""

    def __init__(
        self,
        master: Master,
        machines: Machines | None = None,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Know nothing yet.

        Args:
            master: Whose site.
            machines: Those that are spoken to, if any are.
            now_s: A clock that only goes forward.
        """
        self._master = master
        self._machines = machines
        self._now_s = now_s
        self._book = SplitBook(master.database)
        self._lock = threading.Lock()
        self._known: dict[SplitKey, _Known] = {}
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.version = 0

    def of(self, key: SplitKey) -> Split | None:
        """How a path is divided; None for a path of which that will be known in a moment.

        Raises:
            HoldfastError: The database can't be read.
        """
        with self._lock:
            known = self._known.get(key)
        if known is None:
            split = self._book.get(key)
            now_s = self._now_s()
            with self._lock:
                known = self._known.setdefault(key, _Known(split, now_s, now_s))
            self._wake.set()
        return known.split

    def settled(self, key: SplitKey) -> Split | None:
        """The same for a person who waits: it is waited for, for a while."""
        ends_s = self._now_s() + BY_HAND_S
        while (split := self.of(key)) is None and self._now_s() < ends_s:
            if self._stop.wait(0.05) or self._thread is None:
                break
        return split

    def start(self) -> None:
        """Look at paths from now on, in a thread."""
        self._stop.clear()
        self._thread = threading.Thread(target=self._run, name="dividing")
        self._thread.start()

    def close(self) -> None:
        """Look at no more."""
        self._stop.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        with ThreadPoolExecutor(AT_ONCE, "dividing") as pool:
            while not self._stop.is_set():
                self.look_around(pool)
                self._wake.wait(LOOK_S)
                self._wake.clear()

    def look_around(self, pool: ThreadPoolExecutor) -> None:
        """Look at what it is time for."""
        now_s = self._now_s()
        with self._lock:
            due = [(key, one) for key, one in self._known.items() if one.next_s <= now_s]
        for _ in pool.map(self._look, due):
            pass

    def _look(self, one: tuple[SplitKey, _Known]) -> None:
        key, known = one
        if self._stop.is_set():
            return
        try:
            if known.split is not None and known.split.taken:
                self._judge(key, known, known.split)
            else:
                self._first(key, known)
        except HoldfastError as error:
            _LOG.warning("%s of '%s': %s", key.path, key.client, error.message)
            self._put_off(known)
        except Exception:  # noqa: BLE001 - it is backed up all the same
            _LOG.exception("a defect; %s of '%s' is not divided", key.path, key.client)
            self._put_off(known)

    def _first(self, key: SplitKey, known: _Known) -> None:
        try:
            report = self._divided(key)
        except Unreachable:
            if known.split is None and self._now_s() - known.since_s < PATIENCE_S:
                known.next_s = self._now_s() + LOOK_S
                return
            raise
        if report.taken:
            self._take(known, self._book.put(key, report), key)
        else:
            self._put_off(known)

    def _judge(self, key: SplitKey, known: _Known, split: Split) -> None:
        """Look for another split where the newest images tell that this one is out of balance."""
        known.next_s = self._now_s() + JUDGE_S
        names = sources_of(key, split)
        newest = self._master.catalog.newest_of(names)
        if len(newest) < len(names) or known.judged == frozenset(newest.values()):
            return
        known.judged = frozenset(newest.values())
        sizes = [one.size_bytes for one in self._master.catalog.each_image([*newest.values()])]
        total = sum(sizes)
        if total < LEAST_BYTES or max(sizes) * len(sizes) < LOPSIDED * total:
            return
        report = self._divided(key)
        found = sum(report.sizes)
        if report.taken and max(report.sizes) * total <= BETTER * max(sizes) * found:
            self._take(known, self._book.put(key, report), key)

    def _divided(self, key: SplitKey) -> DivideReport:
        order = DivideOrder(
            key.path,
            key.exclude,
            key.one_file_system,
            key.streams,
            by_prefix=may_be_by_prefix(key),
            sealed_by=key.sealed_by,
        )
        machines = self._machines
        if key.client in self._master.machines.standing().agents:
            if machines is None:
                raise Unreachable("no machine is spoken to here")
            report = machines.divide(key.client, order)
        elif key.client == this_client():
            report = divide_path(order, stopped=self._stop.is_set)
            if self._stop.is_set():
                raise Unreachable("this master stops")
        else:
            raise Unreachable(f"'{key.client}' is not this machine, and has no agent")
        require_fitting(key, report.taken)
        return report

    def _take(self, known: _Known, split: Split, key: SplitKey) -> None:
        _LOG.info(
            "%s of '%s' is taken in %d streams, as split %d",
            *(key.path, key.client, len(split.taken) + 1, split.number),
        )
        known.split, known.judged = split, frozenset()
        known.next_s = self._now_s() + JUDGE_S
        self._changed()

    def _put_off(self, known: _Known) -> None:
        known.next_s = self._now_s() + AGAIN_S
        if known.split is None:
            known.split = UNDIVIDED
            self._changed()

    def _changed(self) -> None:
        with self._lock:
            self.version += 1
        self._master.news()
