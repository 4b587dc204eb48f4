"""Images that wait are fed by several workers; none is lost, none twice, none stops the others."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from holdfast.base.errors import InputOutput, NoSpace, NotAPool
from holdfast.base.ids import ImageId, PoolId
from holdfast.control.catalog import Catalog, CatalogState, Feeder
from holdfast.control.catalog.on_sqlite import SourceFiles
from holdfast.control.catalog.on_sqlite.apart import FilesApart
from holdfast.control.database import Database
from tests.kit.catalog_model import assert_answers
from tests.kit.clock import FakeClock
from tests.kit.fake_pool import FakeImage, FakePool, Tree, tree_of
from tests.kit.stored_rows import stored_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.kit.fake_pool import Batch

SOON_S = 60.0


@pytest.fixture
def catalog(tmp_path: Path, database: Database) -> Iterator[Catalog]:
    with Catalog.open(tmp_path, FakeClock(), database) as opened:
        yield opened


class WatchedPool(FakePool):
    """A pool that tells when it is asked, and does as it is told then."""

    def __init__(self, name: str = "pool", batch_rows: int = 7) -> None:
        super().__init__(name, batch_rows)
        self.when_asked: Callable[[FakeImage, int], None] = lambda *_: None

    def changes(self, old: str | None, new: str | None, /) -> Iterator[Batch]:
        assert new is not None
        image = self.image(new)
        self.when_asked(image, 0)
        for number, batch in enumerate(super().changes(old, new), start=1):
            yield batch
            self.when_asked(image, number)


def recorded(catalog: Catalog, pool: FakePool, tree: Tree, source: str) -> FakeImage:
    image = pool.backup(tree, source)
    catalog.record_image(image, pool.pool_id)
    return image


def some_images(catalog: Catalog, pool: FakePool, sources: int) -> dict[str, list[FakeImage]]:
    return {
        f"host{n}:/": [
            recorded(catalog, pool, tree, f"host{n}:/")
            for tree in (
                tree_of(*(b"/d/f%d" % number for number in range(20 + n))),
                tree_of(*(b"/d/f%d" % number for number in range(10, 30)), b"/x"),
                tree_of(b"/x"),
            )
        ]
        for n in range(sources)
    }


def feeder_of(
    catalog: Catalog, *pools: FakePool, workers: int = 2, much: int = 0, retry_s: float = 900
) -> Feeder:
    known = {PoolId(one.pool_id): one for one in pools}
    return Feeder(catalog, known.__getitem__, workers=workers, much=much, retry_s=retry_s)


@pytest.fixture
def started() -> Iterator[Callable[[Feeder], Feeder]]:
    """Start a feeder that is stopped in any case."""
    feeders: list[Feeder] = []

    def start(feeder: Feeder) -> Feeder:
        feeders.append(feeder)
        feeder.start()
        return feeder

    yield start
    for feeder in feeders:
        feeder.stop()


@pytest.mark.parametrize(
    ("sources", "much"), [(5, 0), (5, 1000), (12, 1000)], ids=["much", "little", "backlog"]
)
def test_everything_that_waits_is_fed_once_and_in_order(
    catalog: Catalog, started: Callable[[Feeder], Feeder], sources: int, much: int
) -> None:
    pool = WatchedPool()
    images = some_images(catalog, pool, sources)
    feeder = started(feeder_of(catalog, pool, much=much))
    assert feeder.wait_idle(SOON_S)
    assert catalog.pending() == []
    for source, of_it in images.items():
        assert_answers(catalog, of_it, source)
        asked = [one for one in pool.asked if one[1] in {image.id for image in of_it}]
        ids = [image.id for image in of_it]
        assert asked == list(zip([None, *ids], ids, strict=False))
    state = feeder.state()
    assert (state.fed, state.failed, state.feeding, state.put_off) == (sources * 3, 0, (), 0)
    assert catalog.states()[CatalogState.INDEXED] == sources * 3


def test_sources_are_fed_side_by_side_and_each_by_one_worker(
    catalog: Catalog, started: Callable[[Feeder], Feeder]
) -> None:
    pool = WatchedPool()
    some_images(catalog, pool, 2)
    together = threading.Barrier(2)
    at_work: list[str] = []
    lock = threading.Lock()

    def look(image: FakeImage, batch: int) -> None:
        if batch == 0:
            with lock:
                assert image.source not in at_work
                at_work.append(image.source)
            # passes when the other source is at work as well
            together.wait(SOON_S)
            with lock:
                at_work.remove(image.source)

    pool.when_asked = look
    feeder = started(feeder_of(catalog, pool, workers=4))
    assert feeder.wait_idle(SOON_S)
    assert feeder.state().fed == 6


def test_image_that_can_not_be_read_is_failed_and_stops_no_other(
    catalog: Catalog, started: Callable[[Feeder], Feeder]
) -> None:
    pool = WatchedPool()
    images = some_images(catalog, pool, 2)
    bad = images["host0:/"][1]
    pool.damaged.add(bad.id)
    feeder = started(feeder_of(catalog, pool))
    assert feeder.wait_idle(SOON_S)
    row = catalog.image(ImageId(bad.id))
    assert row.catalog_state is CatalogState.FAILED
    assert "damaged" in (row.catalog_detail or "")
    assert (feeder.state().fed, feeder.state().failed) == (5, 1)
    catalog.expire(ImageId(bad.id))
    assert_answers(catalog, [images["host0:/"][0], images["host0:/"][2]], "host0:/")
    assert_answers(catalog, images["host1:/"], "host1:/")


def test_defect_fails_its_image_only(catalog: Catalog, started: Callable[[Feeder], Feeder]) -> None:
    pool = WatchedPool()
    images = some_images(catalog, pool, 2)
    bad = images["host1:/"][2]

    def stumble(image: FakeImage, batch: int) -> None:
        if image is bad:
            raise ZeroDivisionError

    pool.when_asked = stumble
    feeder = started(feeder_of(catalog, pool))
    assert feeder.wait_idle(SOON_S)
    assert catalog.image(ImageId(bad.id)).catalog_detail == "ZeroDivisionError()"
    assert (feeder.state().fed, feeder.state().failed) == (5, 1)


def test_error_that_passes_puts_its_source_off_and_no_other(
    catalog: Catalog, started: Callable[[Feeder], Feeder]
) -> None:
    pool = WatchedPool()
    images = some_images(catalog, pool, 2)
    full = [True]

    def fill(image: FakeImage, batch: int) -> None:
        if image is images["host0:/"][1] and full[0]:
            raise NoSpace("no space left")

    pool.when_asked = fill
    feeder = started(feeder_of(catalog, pool))
    assert feeder.wait_idle(SOON_S)
    assert catalog.pending() == [images["host0:/"][1].id, images["host0:/"][2].id]
    assert catalog.image(ImageId(images["host0:/"][1].id)).catalog_detail == "no space left"
    assert_answers(catalog, images["host1:/"], "host1:/")
    assert (feeder.state().fed, feeder.state().put_off) == (4, 1)
    feeder.wake()
    assert feeder.wait_idle(SOON_S)
    assert feeder.state().fed == 4
    full[0] = False
    feeder.wake(at_once=True)
    assert feeder.wait_idle(SOON_S)
    assert (feeder.state().fed, feeder.state().put_off) == (6, 0)
    assert_answers(catalog, images["host0:/"], "host0:/")


def test_source_that_was_put_off_is_tried_again_by_itself(
    catalog: Catalog, started: Callable[[Feeder], Feeder]
) -> None:
    pool = WatchedPool()
    images = some_images(catalog, pool, 1)
    tries: list[str] = []

    def lose(image: FakeImage, batch: int) -> None:
        if batch == 0:
            tries.append(image.id)
            if len(tries) < 4:
                raise InputOutput("the store does not answer")

    pool.when_asked = lose
    feeder = started(feeder_of(catalog, pool, retry_s=0.001))
    while catalog.pending():
        threading.Event().wait(0.01)
    assert feeder.wait_idle(SOON_S)
    assert_answers(catalog, images["host0:/"], "host0:/")


def test_pool_that_can_not_be_opened_leaves_its_images_pending_with_the_reason(
    catalog: Catalog, started: Callable[[Feeder], Feeder]
) -> None:
    here, away = FakePool("here"), FakePool("away")
    there = recorded(catalog, away, tree_of(b"/a"), "there:/")
    image = recorded(catalog, here, tree_of(b"/a"), "here:/")

    def pool_of(wanted: PoolId) -> FakePool:
        if wanted == away.pool_id:
            raise NotAPool("there is no pool at /mnt/away")
        return here

    feeder = started(Feeder(catalog, pool_of, workers=2, retry_s=900))
    assert feeder.wait_idle(SOON_S)
    assert catalog.pending() == [there.id]
    assert catalog.image(ImageId(there.id)).catalog_detail == "there is no pool at /mnt/away"
    assert_answers(catalog, [image], "here:/")


def test_image_that_comes_while_others_are_fed_is_fed_too(
    catalog: Catalog, started: Callable[[Feeder], Feeder]
) -> None:
    pool = WatchedPool()
    images = some_images(catalog, pool, 1)["host0:/"]

    def add(image: FakeImage, batch: int) -> None:
        if image is images[2] and batch == 0:
            images.append(recorded(catalog, pool, tree_of(b"/late"), "host0:/"))
            recorded(catalog, pool, tree_of(b"/other"), "other:/")
            feeder.wake()

    pool.when_asked = add
    feeder = started(feeder_of(catalog, pool, workers=1))
    assert feeder.wait_idle(SOON_S)
    assert feeder.state().fed == 5
    assert_answers(catalog, images, "host0:/")


def test_image_that_expires_before_its_turn_is_no_failure(
    catalog: Catalog, started: Callable[[Feeder], Feeder]
) -> None:
    pool = WatchedPool()
    images = some_images(catalog, pool, 1)["host0:/"]

    def expire(image: FakeImage, batch: int) -> None:
        if image is images[1] and batch == 1:
            pool.expire(images[2].id)
            thread = threading.Thread(target=catalog.expire, args=(ImageId(images[2].id),))
            thread.start()
            # it waits for the source now; that it is going can be seen already
            while len(catalog.images()) == 3:
                threading.Event().wait(0.01)

    pool.when_asked = expire
    feeder = started(feeder_of(catalog, pool))
    assert feeder.wait_idle(SOON_S)
    while catalog.waiting_sources():
        threading.Event().wait(0.01)
    assert (feeder.state().fed, feeder.state().failed) == (2, 0)
    assert_answers(catalog, images[:2], "host0:/")


def test_feeding_that_is_stopped_anywhere_is_completed_by_the_next_start(
    catalog: Catalog, started: Callable[[Feeder], Feeder]
) -> None:
    pool = WatchedPool(batch_rows=5)
    images = some_images(catalog, pool, 3)
    feeder = feeder_of(catalog, pool)
    left = [0]
    reached = threading.Event()

    def count_down(image: FakeImage, batch: int) -> None:
        left[0] -= 1
        if left[0] == 0:
            reached.set()

    pool.when_asked = count_down
    for steps in range(1, 14):
        left[0] = steps
        reached.clear()
        started(feeder)
        while not reached.wait(0.01) and not feeder.wait_idle(0):
            pass
        feeder.stop()
        assert feeder.state().feeding == ()
    started(feeder)
    assert feeder.wait_idle(SOON_S)
    for source, of_it in images.items():
        assert_answers(catalog, of_it, source)
    stored_rows(catalog)


def test_feeder_with_nothing_to_do_is_idle_and_stops(
    catalog: Catalog, started: Callable[[Feeder], Feeder]
) -> None:
    feeder = feeder_of(catalog)
    assert not feeder.wait_idle(0.01)
    started(feeder)
    feeder.start()
    assert feeder.wait_idle(SOON_S)
    feeder.stop()
    feeder.stop()


# -- the process that writes to files -----------------------------------------------------


@pytest.fixture
def in_files(tmp_path: Path) -> Iterator[Catalog]:
    with Catalog.open(tmp_path, FakeClock()) as opened:
        yield opened


def test_process_that_is_killed_leaves_its_image_pending(
    in_files: Catalog, started: Callable[[Feeder], Feeder], monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = WatchedPool()
    images = some_images(in_files, pool, 1)["host0:/"]
    processes: list[subprocess.Popen[bytes]] = []
    start = FilesApart._start

    def noting_start(files: FilesApart) -> None:
        start(files)
        assert files._process is not None
        processes.append(files._process)

    def kill(image: FakeImage, batch: int) -> None:
        if image is images[0] and len(processes) == 1 and batch:
            processes[0].kill()
            processes[0].wait()

    monkeypatch.setattr(FilesApart, "_start", noting_start)
    pool.when_asked = kill
    feeder = started(feeder_of(in_files, pool, workers=1))
    assert feeder.wait_idle(SOON_S)
    assert in_files.pending() == [image.id for image in images]
    detail = in_files.image(ImageId(images[0].id)).catalog_detail or ""
    assert "has ended, with status -9" in detail
    feeder.wake(at_once=True)
    assert feeder.wait_idle(SOON_S)
    assert_answers(in_files, images, "host0:/")
    feeder.stop()
    assert [process.poll() for process in processes] == [-9, 0]


def test_processes_are_asked_for_by_files_only(catalog: Catalog) -> None:
    with catalog._files.apart() as files:
        assert isinstance(files, FilesApart) == isinstance(catalog._files, SourceFiles)


DYING = """
import os, sys, threading
from pathlib import Path
from holdfast.control.catalog import Catalog, Feeder
from tests.contract.test_catalog_feeder import WatchedPool, recorded
from tests.kit.clock import FakeClock
from tests.kit.fake_pool import tree_of

catalog = Catalog.open(Path(sys.argv[1]), FakeClock())
pool = WatchedPool(batch_rows=2)
recorded(catalog, pool, tree_of(b"/a", b"/b", b"/c", b"/d", b"/e"), "host:/")

def report(image, batch):
    if batch == 2:
        (lane,) = feeder._lanes
        print(lane._files._process.pid, flush=True)
        threading.Event().wait()

pool.when_asked = report
feeder = Feeder(catalog, lambda _: pool, workers=1, much=0)
feeder.start()
threading.Event().wait()
"""


def test_process_ends_with_the_one_it_works_for_and_leaves_nothing(tmp_path: Path) -> None:
    master = subprocess.Popen(
        [sys.executable, "-c", DYING, str(tmp_path)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
    )
    assert master.stdout is not None
    helper = int(master.stdout.readline())
    os.kill(helper, signal.SIGINT)
    os.kill(helper, 0)
    master.kill()
    master.wait()
    master.stdout.close()
    while is_running(helper):
        threading.Event().wait(0.01)
    with Catalog.open(tmp_path, FakeClock()) as catalog:
        (image,) = catalog.pending()
        pool = WatchedPool(batch_rows=2)
        again = pool.backup(tree_of(b"/a", b"/b", b"/c", b"/d", b"/e"), "host:/")
        assert again.id == image
        assert stored_rows(catalog) == []
        catalog.ingest(pool, image)
        assert_answers(catalog, [again], "host:/")


def is_running(process: int) -> bool:
    try:
        with open(f"/proc/{process}/stat", encoding="ascii") as file:
            # one that has ended and that nobody has waited for is Z
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
