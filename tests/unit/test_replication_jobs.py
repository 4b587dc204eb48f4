"""Images of several sources go to another storage unit side by side, as parts of one job."""

from __future__ import annotations

import json
import os
import random
import threading
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any, cast

import pytest

from holdfast.base import settings
from holdfast.base.errors import NotFound, StorageError
from holdfast.base.ids import ClientName, ImageId, JobId, PoolId, SourceName, files_source
from holdfast.control.jobs import JobKind, JobState, NewJob, Outcome, Sort, Wanted
from holdfast.control.storage import StorageUnit
from holdfast.site import storage_units
from holdfast.site.replication import REPLICATE, Replication
from holdfast.site.replication_jobs import replication_job
from holdfast.site.running import site_job
from holdfast.site.steward import Steward
from holdfast.wire.messages import SiteWork, WorkError, work_from_json
from tests.kit.clock import FakeClock
from tests.kit.dispatching import Stage
from tests.kit.fake_pool import FakeImage, FakePool
from tests.kit.real_pool import put_image, put_pool

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from holdfast.control.jobs import Job
    from holdfast.engine import Pool
    from holdfast.wire.messages import WorkEvent, WorkOffer
    from tests.kit.api import Api

BRANCH = PoolId("f" * 32)
GIB = 1 << 30
PATIENCE_S = 60


def work_of(one: NewJob) -> SiteWork:
    work = work_from_json(dict(one.work))
    assert isinstance(work, SiteWork)
    assert work.verb == REPLICATE
    return work


# -- what goes where -------------------------------------------------------------------------


class Images:
    """Images in the catalog, of any size; a unit ``branch`` has an older one of each source."""

    def __init__(self, api: Api, slots: int = 4) -> None:
        self.api = api
        self.pool = FakePool()
        self.known: dict[ImageId, FakeImage] = {}
        self.sources: set[str] = set()
        self.where = BRANCH
        unit = StorageUnit("branch", BRANCH, "/srv/branch", None, slots, FakeClock().now())
        api.master.units.add(unit, b"k" * 32, api.master.site.pool_key())

    def put(
        self, source: str, size: int, new: int | None = None, *, is_first: bool = False
    ) -> ImageId:
        """A later image, whose id comes before those of all that are there.

        With `is_first` the unit has none of its source.
        """
        if not is_first and source not in self.sources:
            self.brought(self.put(source, size, is_first=True))
        self.sources.add(source)
        named = ImageId(f"{0xFFFF - len(self.known):032x}")
        stats = {"bytes_found": size, "bytes_new": size if new is None else new}
        self.known[named] = replace(self.pool.backup({}, source), id=named, stats=stats)
        self.api.master.catalog.record_image(self.known[named], self.pool.pool_id)
        return named

    def brought(self, image: ImageId) -> None:
        self.api.master.catalog.record_image(self.known[image], self.where)

    def job(self, images: Iterable[ImageId]) -> NewJob:
        return replication_job(self.api.master, list(images), "branch")


def parts(job: NewJob) -> list[list[str]]:
    return [list(work_of(one).images) for one in job.parts]


def test_images_of_a_source_stay_together_the_oldest_first(api: Api) -> None:
    images = Images(api)
    small = [images.put("web1:/a", 1) for _ in range(3)]
    large = [images.put("web2:/b", 5 * GIB) for _ in range(2)]
    job = images.job([small[2], large[1], small[0], large[0], small[1]])
    assert parts(job) == [large, small]
    assert (job.kind, job.storage_unit, dict(job.work)) == (JobKind.REPLICATE, "branch", {})
    for part, source in zip(job.parts, ("web2:/b", "web1:/a"), strict=True):
        assert (part.kind, part.storage_unit) == (JobKind.REPLICATE, "branch")
        assert (part.source, part.client) == (source, source[:4])
        assert work_of(part).unit == "branch"


def test_there_are_as_many_parts_as_slots_and_they_are_alike_in_size(api: Api) -> None:
    images = Images(api, slots=2)
    sizes = {9: "a", 7: "b", 6: "c", 5: "d", 1: "e"}
    of = {size: images.put(f"web1:/{name}", size * GIB) for size, name in sizes.items()}
    job = images.job(of.values())
    assert parts(job) == [[of[9], of[5]], [of[7], of[6], of[1]]]
    # What a part of several sources is of nobody can say; whose it is, somebody can.
    assert {(one.source, one.client) for one in (job, *job.parts)} == {(None, "web1")}


def test_sources_of_which_nothing_is_known_are_spread_evenly(api: Api) -> None:
    images = Images(api, slots=3)
    of = [images.put(f"web{number}:/a", 0) for number in range(9)]
    assert sorted(len(one) for one in parts(images.job(of))) == [3, 3, 3]


def test_sources_of_which_nothing_is_there_go_one_after_the_other(api: Api) -> None:
    """What they have in common travels once."""
    images = Images(api)
    first = [images.put(f"web{number}:/a", GIB, new=1, is_first=True) for number in range(3)]
    assert images.job(first).parts == ()
    later = [images.put(f"db{number}:/a", GIB) for number in range(2)]
    assert parts(images.job([later[0], *first, later[1]])) == [first, [later[0]], [later[1]]]


def test_what_counts_is_what_is_not_there_yet(api: Api) -> None:
    images = Images(api, slots=2)
    # Nearly all of the largest source is there; and much of another was never new to its pool.
    there = [images.put("web1:/a", 100 * GIB) for _ in range(2)]
    later = images.put("web1:/a", 100 * GIB, new=1)
    images.brought(there[1])
    alike = images.put("web2:/b", 20 * GIB, new=1, is_first=True)
    third = images.put("web3:/c", 10 * GIB)
    assert parts(images.job([*there, later, alike, third])) == [[alike], [third, *there, later]]


def test_of_one_source_or_for_one_slot_it_is_one_job_as_it_was_named(api: Api) -> None:
    images = Images(api)
    mine = [images.put("web1:/a", 1) for _ in range(2)]
    other = images.put("web2:/b", 1)
    as_named = [mine[1], mine[0]]
    assert images.job(as_named) == site_job(
        JobKind.REPLICATE, SiteWork(REPLICATE, tuple(as_named), unit="branch")
    )
    api.master.units.set_slots("branch", 1)
    assert images.job([other, *mine]).parts == ()


def test_an_index_goes_behind_what_it_is_of(api: Api) -> None:
    images = Images(api)
    image = images.put("web1:/a", 1)
    index = images.put(files_source(SourceName("web1:/a")), 1)
    other = images.put("web2:/b", GIB)
    job = images.job([index, image, other])
    assert parts(job) == [[other], [image, index]]
    assert job.parts[1].source == "web1:/a"


def test_an_image_that_is_gone_is_not_left_out(api: Api) -> None:
    images = Images(api)
    some = [images.put("web1:/a", 1), ImageId("0" * 31 + "1"), images.put("web2:/b", 1)]
    assert work_of(images.job(some)).images == tuple(some)
    with pytest.raises(NotFound):
        replication_job(api.master, some, "nowhere")


def test_the_api_answers_with_the_job_that_has_the_parts(api: Api) -> None:
    images = Images(api)
    some = [images.put(f"web{number}:/a", number) for number in range(3)]
    client = api.client()
    answer = client.post("/replications", {"images": some, "unit": "branch"})
    assert answer.keys() == {"job"}
    whole = client.get(f"/jobs/{answer['job']}")
    assert (whole["children"], whole["kind"], whole["storage_unit"]) == (3, "replicate", "branch")
    rows = client.get("/jobs", parent=answer["job"])["items"]
    assert {one["source"] for one in rows} == {f"web{number}:/a" for number in range(3)}
    assert json.loads(api.audited()[-1].entry.details)["job"] == answer["job"]


# -- who runs when ---------------------------------------------------------------------------


@pytest.fixture
def stage(api: Api, tmp_path: Path) -> Iterator[Stage]:
    """A dispatcher, of whose slots replications to the site's own unit take some."""
    made = Stage(api.master.database, tmp_path / "stage", api.clock)
    yield made
    made.close()


def queued(api: Api, stage: Stage, sources: int) -> JobId:
    images = Images(api)
    master = api.master
    images.where = master.site.pools.of_unit("default")
    master.settings = settings.load(master.site.home, {"HOLDFAST_JOBS_SLOTS": str(sources)})
    some = [images.put(f"web{number}:/a", 1) for number in range(sources)]
    job = replication_job(master, some, "default")
    assert len(job.parts) == sources
    return stage.jobs.enqueue([job])[0].id


def family(stage: Stage, parent: JobId) -> list[Job]:
    return list(stage.jobs.page(Wanted(parent=parent), Sort("id")))


def test_no_more_parts_run_than_there_are_slots(api: Api, stage: Stage) -> None:
    parent = queued(api, stage, sources=4)
    # There are fewer by the time they begin.
    stage.slots = 3
    at_work = stage.step()
    assert len(at_work) == 3
    (waiting,) = [one for one in family(stage, parent) if one.state is JobState.QUEUED]
    assert "has 3 of 3 slots in use" in (waiting.waits_for or "")
    stage.finish(at_work.pop())
    at_work += stage.step()
    assert [one.job_id for one in at_work[2:]] == [waiting.id]
    assert stage.jobs.job(parent).state is JobState.ACTIVE
    for offer in at_work:
        stage.finish(offer)
    assert stage.jobs.job(parent).outcome is Outcome.COMPLETED
    assert stage.step() == []


def test_after_a_kill_only_parts_that_were_at_work_begin_again(api: Api, stage: Stage) -> None:
    parent = queued(api, stage, sources=2)
    done, killed = stage.step()
    stage.finish(done)
    (lost,) = stage.restart()
    assert lost.id == killed.job_id
    again = began_again(stage)
    assert (again.job_id, again.work) == (killed.job_id, killed.work)
    assert again.fence > killed.fence
    stage.finish(again)
    assert stage.jobs.job(parent).outcome is Outcome.COMPLETED
    assert {one.id: one.fence for one in family(stage, parent)}[JobId(done.job_id)] == done.fence


def began_again(stage: Stage) -> WorkOffer:
    """What is begun anew, whenever that is."""
    offers = stage.step() or stage.pass_time(timedelta(hours=1))
    (offer,) = offers
    return offer


def test_a_part_that_failed_is_tried_again_and_then_restarted_alone(api: Api, stage: Stage) -> None:
    parent = queued(api, stage, sources=2)
    done, failing = stage.step()
    stage.finish(done)
    stage.finish(failing, WorkError("io", "the disk said no", None))
    again = began_again(stage)
    assert again.job_id == failing.job_id
    stage.finish(again, WorkError("invalid", "it is the same pool", None))
    assert stage.jobs.job(parent).outcome is Outcome.FAILED
    restarted = stage.jobs.restart(parent)
    (part,) = family(stage, restarted)
    (offer,) = stage.step()
    assert (offer.job_id, offer.work) == (part.id, failing.work)
    stage.finish(offer)
    assert stage.jobs.job(restarted).outcome is Outcome.COMPLETED


# -- what comes of it ------------------------------------------------------------------------


class Pools:
    """A site with real pools, and images of several sources in the first of them."""

    def __init__(self, api: Api, place: Path) -> None:
        self.api, self.place = api, place
        self.pool = put_pool(api, place / "pool")
        self.images: dict[str, list[ImageId]] = {}
        rng = random.Random(7)
        for client in ("web1", "web2", "web3"):
            tree = place / client
            tree.mkdir()
            for number in range(3):
                (tree / f"file {number}").write_bytes(rng.randbytes(150_000))
                self.images.setdefault(client, []).append(put_image(api, client, os.fsencode(tree)))

    @property
    def all(self) -> list[ImageId]:
        return [one for some in self.images.values() for one in some]

    @property
    def first(self) -> list[ImageId]:
        return [some[0] for some in self.images.values()]

    def unit(self, name: str, slots: int = 4) -> Pool:
        """Make one."""
        made = storage_units.create_shared(self.api.master, name, str(self.place / name), slots)
        return self.api.master.site.pools.of(made.pool)


@pytest.fixture
def pools(api: Api, tmp_path: Path) -> Pools:
    return Pools(api, tmp_path)


@pytest.fixture
def bases(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[str, str], str | None]:
    """What each image that was brought into a pool was compared with."""
    found: dict[tuple[str, str], str | None] = {}
    ask = Replication._base

    def note(self: Replication, image: ImageId, source: PoolId, target: PoolId) -> ImageId | None:
        found[target, image] = base = ask(self, image, source, target)
        return base

    monkeypatch.setattr(Replication, "_base", note)
    return found


def nothing(*_: object) -> None:
    return None


def carry_out(api: Api, *jobs: JobId) -> list[list[WorkEvent]]:
    """Do some queued jobs, or all parts of them, all at once."""
    book = api.master.jobs
    leaves = [part.id for one in jobs for part in book.page(Wanted(parent=one), Sort("id"))]
    granted = book.grant(leaves or jobs)
    said: dict[int, list[WorkEvent] | Exception] = {}
    ready = threading.Barrier(len(granted))

    def work(number: int) -> None:
        one = granted[number]
        told = work_from_json(one.work)
        assert isinstance(told, SiteWork)
        ready.wait(PATIENCE_S)
        try:
            steward = Steward(api.master, (one.job.id, one.job.fence))
            said[number] = steward(told, nothing, nothing)
        except Exception as error:  # noqa: BLE001 - raised below
            said[number] = error

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(granted))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    for one in said.values():
        if isinstance(one, Exception):
            raise one
    return [cast("list[WorkEvent]", said[number]) for number in range(len(granted))]


def queue(api: Api, images: list[ImageId], unit: str) -> JobId:
    answer = api.client().post("/replications", {"images": images, "unit": unit})
    return JobId(answer["job"])


def assert_whole(pools: Pools, pool: Pool) -> None:
    assert set(pool.image_ids()) == set(pools.all)
    for image in pools.all:
        assert pool.manifest(image) == pools.pool.manifest(image)
    assert pool.check(read_data=True).result().problems_total == 0
    assert pool.verify(None, read_data=True).result().problems_total == 0


def test_parts_bring_what_one_job_brings_from_the_same_bases(
    api: Api, pools: Pools, bases: dict[tuple[str, str], str | None]
) -> None:
    one_by_one, side_by_side = pools.unit("one", slots=1), pools.unit("four")
    carry_out(api, queue(api, pools.all, "one"))
    carry_out(api, queue(api, pools.first, "four"))
    events = carry_out(api, queue(api, pools.all, "four"))
    assert [[one.cause for one in some] for some in events] == [
        ["there", "replicated", "replicated"]
    ] * 3
    for pool in (one_by_one, side_by_side):
        assert_whole(pools, pool)
    of = [
        {image: base for (pool, image), base in bases.items() if pool == one.id.hex()}
        for one in (one_by_one, side_by_side)
    ]
    first = {some[0]: None for some in pools.images.values()}
    later = {one: base for some in pools.images.values() for base, one in pairwise(some)}
    assert of[0] == of[1] == first | later
    assert one_by_one.stats().chunk_bytes == side_by_side.stats().chunk_bytes


def test_two_replications_of_the_same_images_at_once_bring_each_once(
    api: Api, pools: Pools, bases: dict[tuple[str, str], str | None]
) -> None:
    pool = pools.unit("branch")
    carry_out(api, queue(api, pools.first, "branch"))
    jobs = [queue(api, pools.all, "branch") for _ in range(2)]
    events = carry_out(api, *jobs)
    assert len(events) == 6
    told = sorted(one.cause for some in events for one in some)
    assert told == ["replicated"] * 6 + ["there"] * 12
    assert len(bases) == 9
    assert_whole(pools, pool)
    assert pool.stats().chunk_bytes == pools.pool.stats().chunk_bytes


def test_a_part_that_failed_is_done_again_where_it_was(
    api: Api, pools: Pools, bases: dict[tuple[str, str], str | None], monkeypatch: Any
) -> None:
    pool = pools.unit("branch")
    carry_out(api, queue(api, pools.first, "branch"))
    parent = queue(api, pools.all, "branch")
    bring, broken = Replication._bring, pools.images["web2"][1]

    def fail(self: Replication, image: ImageId, *others: Any) -> WorkEvent:
        if image == broken:
            raise StorageError("the disk said no")
        return bring(self, image, *others)

    monkeypatch.setattr(Replication, "_bring", fail)
    with pytest.raises(StorageError):
        carry_out(api, parent)
    assert set(pools.all) - set(pool.image_ids()) == set(pools.images["web2"][1:])
    monkeypatch.setattr(Replication, "_bring", bring)
    bases.clear()
    (part,) = [
        one
        for one in api.master.jobs.page(Wanted(parent=parent), Sort("id"))
        if one.client == ClientName("web2")
    ]
    work = work_from_json(api.master.jobs.work(part.id))
    assert isinstance(work, SiteWork)
    events = Steward(api.master, (part.id, part.fence + 1))(work, nothing, nothing)
    assert [one.cause for one in events] == ["there", "replicated", "replicated"]
    assert [image for _, image in bases] == pools.images["web2"][1:]
    assert_whole(pools, pool)


def test_a_job_of_several_sources_without_parts_is_done_and_restarted_as_it_was(
    api: Api, pools: Pools
) -> None:
    """As masters queued it that divided nothing."""
    pool = pools.unit("branch")
    work = SiteWork(REPLICATE, tuple(pools.all), unit="branch")
    (old,) = api.master.jobs.enqueue([site_job(JobKind.REPLICATE, work)])
    api.master.jobs.cancel(old.id)
    again = api.master.jobs.restart(old.id)
    assert api.master.jobs.job(again).children == 0
    assert work_from_json(api.master.jobs.work(again)) == work
    (events,) = carry_out(api, again)
    assert [one.cause for one in events] == ["replicated"] * 9
    assert_whole(pools, pool)
