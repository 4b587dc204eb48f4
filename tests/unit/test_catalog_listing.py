"""Images, clients and sources in pages: the same as the whole, in order, and only what is seen."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from holdfast.base.clock import from_ns
from holdfast.base.ids import ImageId
from holdfast.control.access import Scope
from holdfast.control.catalog import Catalog, ImageLists, WantedImages
from tests.kit.clock import FakeClock
from tests.kit.fake_pool import FakePool

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from holdfast.control.catalog import ListedImage
    from holdfast.control.database import Database
    from tests.kit.fake_pool import FakeImage


@pytest.fixture
def catalog(tmp_path: Path, database: Database) -> Iterator[Catalog]:
    with Catalog.open(tmp_path, FakeClock(), database) as opened:
        yield opened


def fill(catalog: Catalog, clients: int) -> list[FakeImage]:
    """Images of many sources, newest first."""
    dice, pool = random.Random(3), FakePool()
    made = []
    for _ in range(120):
        client = dice.randrange(clients)
        labels = dice.choice([{}, {"policy": "files"}, {"policy": "mail"}])
        source = f"web{client}:/{dice.randrange(2)}"
        made.append(pool.backup({}, source, number=dice.randrange(9), labels=labels))
    for image in dice.sample(made, len(made)):
        catalog.record_image(image, pool.pool_id)
    return sorted(made, key=lambda one: (one.started_ns, one.id), reverse=True)


def everything(lists: ImageLists, wanted: WantedImages, limit: int) -> list[ListedImage]:
    found: list[ListedImage] = []
    while True:
        page = lists.images(wanted, limit=limit, after=found[-1].place if found else None)
        found += page
        if len(page) < limit:
            return found


@pytest.mark.parametrize("clients", [3, 40])
def test_pages_have_what_is_wanted_once_and_newest_first(
    catalog: Catalog, database: Database, clients: int
) -> None:
    made = fill(catalog, clients)
    lists = ImageLists(database)
    since, until = from_ns(made[90].started_ns), from_ns(made[20].started_ns)
    seen = Scope(("web1*", "web2"))
    for wanted, fits in (
        (WantedImages(), lambda _: True),
        (WantedImages(source="web2:/1"), lambda one: one.source == "web2:/1"),
        (WantedImages(client="web1"), lambda one: one.host == "web1"),
        (WantedImages(policy="mail"), lambda one: one.labels.get("policy") == "mail"),
        (
            WantedImages(since=since, until=until),
            lambda one: made[90].started_ns <= one.started_ns < made[20].started_ns,
        ),
        (WantedImages(visible=seen.condition), lambda one: seen.covers(one.host)),
        (
            WantedImages(client="web2", policy="files", since=since, visible=seen.condition),
            lambda one: (
                one.host == "web2"
                and one.labels.get("policy") == "files"
                and one.started_ns >= made[90].started_ns
            ),
        ),
        (WantedImages(client="nobody"), lambda _: False),
        (WantedImages(since=until, until=since), lambda _: False),
    ):
        expected = [one.id for one in made if fits(one)]
        for limit in (1, 7, 1000):
            assert [one.image.id for one in everything(lists, wanted, limit)] == expected


def test_what_comes_and_goes_between_two_pages_shifts_nothing(
    catalog: Catalog, database: Database
) -> None:
    made = fill(catalog, 3)
    lists = ImageLists(database)
    first = lists.images(WantedImages(), limit=10)
    catalog.expire(ImageId(made[9].id))
    catalog.expire(ImageId(made[3].id))
    late = FakePool("another")
    for _ in range(200):
        image = late.backup({}, "web0:/0")
    catalog.record_image(image, late.pool_id)
    second = lists.images(WantedImages(), limit=10, after=first[-1].place)
    assert [one.image.id for one in second] == [one.id for one in made[10:20]]
    assert lists.images(WantedImages(), limit=1)[0].image.id == image.id


def test_lists_say_what_is_held_and_locked(catalog: Catalog, database: Database) -> None:
    made = fill(catalog, 3)
    held = ImageId(made[2].id)
    end = FakeClock().now() + timedelta(days=9)
    catalog.hold(held, "case 17")
    catalog.lock(held, end)
    lists = ImageLists(database)
    kept = [one.protection for one in lists.images(WantedImages(), limit=4)]
    assert [one.holds for one in kept] == [(), (), ("case 17",), ()]
    assert kept[2] == lists.protection(held)
    assert kept[2].locked_until == end
    assert lists.protection(ImageId("0" * 32)).holds == ()


def test_clients_and_sources_come_by_name_as_far_as_they_are_seen(
    catalog: Catalog, database: Database
) -> None:
    made = fill(catalog, 12)
    lists = ImageLists(database)
    names = sorted({one.host for one in made})
    assert lists.clients(limit=100) == names
    assert lists.clients(limit=3, after=names[2]) == names[3:6]
    seen = Scope(("web1*",))
    assert lists.clients(seen.condition, limit=9) == [one for one in names if seen.covers(one)]
    sources = lists.sources(limit=100)
    assert [one.name for one in sources] == sorted({one.source for one in made})
    for one in sources:
        newest = next(image for image in made if image.source == one.name)
        assert (one.newest, one.client) == (newest.id, newest.host)
        assert one.newest_at == from_ns(newest.started_ns)
    some = lists.sources(visible=seen.condition, limit=100)
    assert some == [one for one in sources if seen.covers(one.client)]
    assert lists.sources("web1", limit=100) == [one for one in sources if one.client == "web1"]
    assert lists.sources(limit=100, after=sources[4].name) == sources[5:]
    assert lists.client_of(sources[0].name) == sources[0].client
    assert lists.client_of("nobody:/") is None
    for image in made:
        catalog.expire(ImageId(image.id))
    assert {one.newest for one in lists.sources(limit=100)} == {None}
