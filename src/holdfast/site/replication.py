"""Bring images of one storage unit into another: only what is missing there travels.

An image of a machine takes the index of the files inside of it along.

Must not decide which images, nor when. Invariants: an image that is brought is the same there,
under its id; it is in the other pool before the catalog hears of it; the data goes from where the
image lies to where it is to be, by way of the master only where that has either pool itself; no
image is brought into a pool by two jobs at once.
"""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING, Any, Final

from holdfast.base.errors import InternalError, Unreachable
from holdfast.movers.drive import drive
from holdfast.movers.remote_agent import Transfer
from holdfast.movers.transfer.machine import FarMovers
from holdfast.site.far_care import far_care
from holdfast.wire.messages import SiteWork, WorkEvent, WorkOffer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from holdfast.base.ids import ImageId, PoolId
    from holdfast.movers.drive import Reporter
    from holdfast.site.machines import Machines
    from holdfast.site.master import Master

REPLICATE: Final = "replicate"
"""The verb, of a job and of what a media server is asked."""

_PAUSE_S: Final = 0.2


class Replication:
    """What one job brings. Belongs to that job's thread."""

    def __init__(self, master: Master, job: int, fence: int) -> None:
        """Prepare.

        Args:
            master: Whose images.
            job: Which job it is.
            fence: Under which fence.
        """
        self._master = master
        self._job = job
        self._fence = fence

    def bring(
        self, image: ImageId, unit: str | None, report: Reporter, alive: Callable[[], None]
    ) -> WorkEvent:
        """Bring an image, and the index of the files inside of it.

        Args:
            image: Which.
            unit: Where to; None for the site's own pool.
            report: Is given counters, where this process moves the data.
            alive: Called again and again where another does; raises if it is to stop.

        Returns:
            What there is to say.

        Raises:
            ImageMissing: No pool has it.
            Unreachable: No pool that has it can be reached, or the one that it is for.
            HoldfastError: It failed; the other pool is as sound as before.
        """
        target = self._master.site.pools.of_unit(unit)
        with _alone(image, target, alive):
            done = self._bring(image, target, report, alive)
        # behind it: a unit never has an index of what it does not have
        for index in self._master.catalog.indexes_of(image):
            with _alone(index, target, alive):
                self._bring(index, target, report, alive)
        return done

    def _bring(
        self, image: ImageId, target: PoolId, report: Reporter, alive: Callable[[], None]
    ) -> WorkEvent:
        pools = self._master.site.pools
        name = pools.unit_of(target)
        if target in pools.with_copy(image):
            return WorkEvent("info", "there", f"image {image} is in storage unit '{name}' already")
        source = self._master.pool_with(image)
        base = self._base(image, source, target)
        near = pools.is_near(source), pools.is_near(target)
        if all(near):
            now_ns = self._master.clock.now_ns()
            run = pools.of(source).replicate(image, pools.of(target), started_ns=now_ns, base=base)
            self._master.catalog.record_image(drive(run, report), target)
        elif near[0]:
            self._send(image, source, target, base, report)
        else:
            self._have_sent(image, source, target, base, alive)
        return WorkEvent("info", "replicated", f"image {image} is in storage unit '{name}'")

    def _base(self, image: ImageId, source: PoolId, target: PoolId) -> ImageId | None:
        """An image of the same source that both pools have, if there is one."""
        catalog = self._master.catalog
        of = catalog.image(image).source
        newest = catalog.newest_of([of], target).get(of)
        if newest is None:
            return None
        return newest if source in self._master.site.pools.with_copy(newest) else None

    @property
    def _machines(self) -> Machines | None:
        return self._master.spoken_to

    def _send(
        self,
        image: ImageId,
        source: PoolId,
        target: PoolId,
        base: ImageId | None,
        report: Reporter,
    ) -> None:
        """From here to a media server."""
        machines = self._spoken_to()
        identity = self._master.site.owned_pools.identity()

        def fresh() -> dict[str, Any]:
            return machines.replication_for(
                identity.name, self._job, self._fence, image, target, base
            )

        first = fresh()
        offer = WorkOffer(self._job, self._fence, 0.0, SiteWork(REPLICATE, (image,)))
        transfer = Transfer(
            offer, tuple(first["urls"]), target, lambda: str(fresh()["token"]), identity
        )
        pool = self._master.site.pools.of(source)
        FarMovers().replicate(transfer, pool, image, report)

    def _have_sent(
        self,
        image: ImageId,
        source: PoolId,
        target: PoolId,
        base: ImageId | None,
        alive: Callable[[], None],
    ) -> None:
        """From a media server, to another or to here."""
        machines = self._spoken_to()
        server = self._master.units.of_pool(source).server
        if server is None:
            raise InternalError(f"pool {source} is no media server's")
        options: dict[str, Any] = {
            "image": image,
            "job": self._job,
            "fence": self._fence,
            "base": base,
            "transfer": machines.replication_for(
                server, self._job, self._fence, image, target, base
            ),
        }
        far_care(
            lambda order, within_s: machines.sessions.ask(server, order, within_s),
            REPLICATE,
            source,
            lambda _: alive(),
            options,
            there=lambda: machines.sessions.get(server) is not None,
        )

    def _spoken_to(self) -> Machines:
        if self._machines is None:
            raise Unreachable("this site speaks to no machines now", "serve it: holdfast serve")
        return self._machines


_lock = threading.Lock()
_on_their_way: set[tuple[str, str]] = set()


@contextlib.contextmanager
def _alone(image: ImageId, target: PoolId, alive: Callable[[], None]) -> Iterator[None]:
    """Wait until no other job brings an image into a pool, and keep others waiting meanwhile."""
    key = image, target
    while True:
        with _lock:
            if key not in _on_their_way:
                _on_their_way.add(key)
                break
        alive()
        time.sleep(_PAUSE_S)
    try:
        yield
    finally:
        with _lock:
            _on_their_way.discard(key)


def is_brought(work: SiteWork, image: str, index_of: str | None = None) -> bool:
    """Whether a job is to bring an image.

    Args:
        work: What the job is.
        image: The image.
        index_of: The image that it is an index of, if it is one: that takes it along.
    """
    return work.verb == REPLICATE and (image in work.images or index_of in work.images)
