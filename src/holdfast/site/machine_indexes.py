"""Index the files inside of machines' images, beside everything else that a master does.

Must not keep a backup waiting. Which images wait, the catalog alone knows. Invariants: one image is
indexed at a time; an index that is half made leaves nothing behind; where the cause may pass (a
lost store, a server that is away) the image stays *pending* with its reason and is put off, longer
each time, else it is *failed* with its reason.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

from holdfast.base.errors import (
    Busy,
    Cancelled,
    DatabaseLost,
    HoldfastError,
    ImageMissing,
    StorageError,
)
from holdfast.base.ids import ImageId, pool_id
from holdfast.control.catalog import IndexingState
from holdfast.movers.drive import drive
from holdfast.movers.machines.indexing import index_image

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast.base.clock import Clock
    from holdfast.control.catalog import Catalog
    from holdfast.engine import Pool
    from holdfast.site.pools import Pools

_LOG = logging.getLogger("holdfast.catalog")

LOOK_S = 30.0
RETRY_S = 60.0
RETRY_AT_MOST_S = 3600.0
_DETAIL_AT_MOST = 2000


def index_machine(
    catalog: Catalog,
    pool: Pool,
    image: ImageId,
    alive: Callable[[int], None] = lambda _: None,
) -> int:
    """Index the files inside of one image, and have the catalog know; a second time does nothing.

    Returns:
        How many names were indexed.

    Raises:
        Cancelled: `alive` raised it.
        HoldfastError: It could not be indexed; the catalog knows why.
    """
    if catalog.indexes_of(image):
        return 0
    try:
        done = index_image(pool, image, alive)
    except Cancelled:
        raise
    except HoldfastError as error:
        passes = isinstance(error, StorageError | Busy | DatabaseLost)
        state = IndexingState.PENDING if passes else IndexingState.FAILED
        catalog.set_indexing(image, state, _in_words(error))
        raise
    try:
        catalog.image(image)
    except ImageMissing:
        # it expired meanwhile, and takes its index with it
        pool.expire(done.image.id)
        return 0
    catalog.record_image(done.image, pool_id(pool.id))
    said = "; ".join(one.message for one in done.remarks)
    catalog.set_indexing(image, IndexingState.INDEXED, said[:_DETAIL_AT_MOST] or None)
    return done.names


def index_at_hand(catalog: Catalog, pools: Pools, clock: Clock, image: ImageId) -> ImageId:
    """The index of an image, which is made where there is none.

    Raises:
        HoldfastError: It could not be made.
    """
    if not catalog.indexes_of(image):
        index_machine(catalog, pools.holding(image), image)
        bring_beside(catalog, pools, clock, image)
    found = catalog.indexes_of(image)
    if not found:
        raise ImageMissing(f"there is no image {image} any more")
    return found[0]


def bring_beside(catalog: Catalog, pools: Pools, clock: Clock, image: ImageId) -> None:
    """Bring the index of an image to wherever this process reaches the image itself.

    What can't be brought is told of in the log: the index is made again where it is missed.
    """
    for index in catalog.indexes_of(image):
        has = pools.with_copy(index)
        for pool in set(pools.with_copy(image)) - set(has):
            if not (pools.is_near(pool) and any(map(pools.is_near, has))):
                continue
            try:
                source = pools.holding(index)
                run = source.replicate(index, pools.of(pool), started_ns=clock.now_ns())
                catalog.record_image(drive(run), pool)
            except HoldfastError as error:
                name = pools.unit_of(pool)
                _LOG.warning("the index of %s is not in '%s': %s", image, name, error.message)


def _in_words(error: HoldfastError) -> str:
    return f"{error.message}; {error.hint}" if error.hint else error.message


class MachineIndexer:
    """The thread of one master that indexes. Thread-safe; may be started again."""

    def __init__(
        self,
        catalog: Catalog,
        holding: Callable[[ImageId], Pool],
        indexed: Callable[[ImageId], None] = lambda _: None,
        *,
        look_s: float = LOOK_S,
        retry_s: float = RETRY_S,
    ) -> None:
        """Prepare; nothing is indexed yet.

        Args:
            catalog: Knows what waits, and is told of indexes.
            holding: A pool that has an image.
            indexed: Called after each index that was made, with the image that it is of.
            look_s: How often it is looked for images that nobody told of, in seconds.
            retry_s: How long an image is put off at first, in seconds.
        """
        self._catalog = catalog
        self._holding = holding
        self._indexed = indexed
        self._look_s = look_s
        self._retry_s = retry_s
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._woken = True
        self._put_off: dict[ImageId, tuple[int, float]] = {}

    def start(self) -> None:
        """Begin to index what waits. Once started, nothing happens."""
        with self._changed:
            if self._thread is not None:
                return
            self._stopping.clear()
            self._woken = True
            self._thread = threading.Thread(target=self._work, name="machine indexer", daemon=True)
            self._thread.start()

    def wake(self) -> None:
        """Look for images that wait, now."""
        with self._changed:
            self._woken = True
            self._changed.notify_all()

    def stop(self) -> None:
        """Stop; an index that is half made is made anew next time."""
        with self._changed:
            self._stopping.set()
            self._changed.notify_all()
            thread, self._thread = self._thread, None
        if thread is not None:
            thread.join()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopping.is_set() or self._woken, self._look_s)
                if self._stopping.is_set():
                    return
                self._woken = False
            try:
                waiting = self._catalog.unindexed()
            except HoldfastError as error:
                _LOG.warning("which machines are to be indexed is not known: %s", error.message)
                continue
            for image in self._put_off.keys() - set(waiting):
                del self._put_off[image]
            for image in waiting:
                if self._stopping.is_set():
                    return
                if self._put_off.get(image, (0, 0.0))[1] <= time.monotonic():
                    self._index(image)

    def _index(self, image: ImageId) -> None:
        try:
            index_machine(self._catalog, self._holding(image), image, self._go_on)
        except Cancelled:
            return
        except Exception as error:  # noqa: BLE001 - an image never stops the others
            said = error.message if isinstance(error, HoldfastError) else repr(error)
            _LOG.warning("the files in image %s are not indexed: %s", image, said)
            times = self._put_off.get(image, (0, 0.0))[0] + 1
            wait_s = min(self._retry_s * 2 ** (times - 1), RETRY_AT_MOST_S)
            self._put_off[image] = (times, time.monotonic() + wait_s)
            return
        self._indexed(image)

    def _go_on(self, _: int) -> None:
        if self._stopping.is_set():
            raise Cancelled("the indexing of machines was stopped")
