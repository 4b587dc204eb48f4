"""Paths are divided into streams once, for good, and anew where that has become much better."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from holdfast.base.errors import Invalid, Unreachable, Unsupported
from holdfast.base.ids import ClientName
from holdfast.control.dispatch import SplitBook
from holdfast.control.machines import Standing
from holdfast.control.policies import UNDIVIDED, Selection, Split, SplitKey, sources
from holdfast.site import dividing
from holdfast.site.dividing import Divider
from holdfast.site.probing import this_client
from holdfast.wire.dividing import DivideReport
from holdfast.wire.messages import BackupWork
from tests.kit.clock import FakeClock
from tests.kit.dispatching import Stage
from tests.kit.policies import policy

if TYPE_CHECKING:
    from pathlib import Path

    from holdfast.control.database import Database

WEB1 = ClientName("web1")
KEY = SplitKey(WEB1, "/data", ("*.tmp",), False, 3)
REPORT = DivideReport((("a",), ("b", "c/d")), (10, 20, 5))


def test_a_split_is_kept_under_its_rules_and_has_a_number_of_its_own(database: Database) -> None:
    book = SplitBook(database)
    assert book.get(KEY) is None
    assert book.put(KEY, REPORT) == Split(1, REPORT.taken, REPORT.sizes)
    other = replace(KEY, exclude=())
    assert book.get(other) is None
    assert book.put(other, REPORT).number == 2
    assert book.put(KEY, DivideReport((("z",),), (1, 2))).number == 3
    again = SplitBook(database)
    assert again.get(KEY) == Split(3, (("z",),), (1, 2))
    assert again.get(other) == Split(2, REPORT.taken, REPORT.sizes)
    assert again.get(replace(KEY, path="/data/a")) is None


class Scene:
    """A divider with a machine and a catalog that say what a test wants."""

    def __init__(self, database: Database) -> None:
        self.said: DivideReport | Exception = REPORT
        self.asked: list[SplitKey] = []
        self.images: dict[str, tuple[str, int]] = {}
        self.passed_s = 0.0
        self.news = 0
        standing = Standing({}, frozenset({WEB1}), {})
        master: Any = SimpleNamespace(
            database=database,
            machines=SimpleNamespace(standing=lambda: standing),
            catalog=SimpleNamespace(
                newest_of=lambda names: {
                    one: self.images[one][0] for one in names if one in self.images
                },
                each_image=lambda ids: [
                    SimpleNamespace(size_bytes=size)
                    for image, size in self.images.values()
                    if image in ids
                ],
            ),
            news=self._news,
        )
        machines: Any = SimpleNamespace(divide=self._divide)
        self.divider = Divider(master, machines, now_s=lambda: self.passed_s)

    def _news(self) -> None:
        self.news += 1

    def _divide(self, client: ClientName, order: Any) -> DivideReport:
        path, rules = order.path, order.exclude
        self.asked.append(SplitKey(client, path, rules, order.one_file_system, order.streams))
        if isinstance(self.said, Exception):
            raise self.said
        return self.said

    def look(self, after_s: float = dividing.JUDGE_S) -> None:
        self.passed_s += after_s
        with ThreadPoolExecutor(1) as pool:
            self.divider.look_around(pool)

    def took(self, number: int, **sizes: int) -> None:
        """A backup of each stream of the split that counts."""
        split = self.divider.of(KEY)
        assert split is not None
        for name, size in sizes.items():
            stream = name.replace("_", "-")
            source = f"web1:split-{split.number}.{stream}:/data"
            self.images[source] = (f"{stream} {number}", size << 30)


@pytest.fixture
def scene(database: Database) -> Scene:
    return Scene(database)


def test_a_path_is_divided_once_and_for_all(scene: Scene, database: Database) -> None:
    assert scene.divider.of(KEY) is None
    scene.look()
    assert scene.asked == [KEY]
    assert scene.divider.of(KEY) == Split(1, REPORT.taken, REPORT.sizes)
    assert (scene.divider.version, scene.news) == (1, 1)
    scene.look()
    assert len(scene.asked) == 1
    # Another master knows it, too.
    assert Scene(database).divider.of(KEY) == scene.divider.of(KEY)


def test_a_machine_that_is_away_is_waited_for_not_too_long(scene: Scene) -> None:
    scene.said = Unreachable("it is not there")
    assert scene.divider.of(KEY) is None
    scene.look()
    assert scene.divider.of(KEY) is None
    scene.look(dividing.PATIENCE_S)
    assert scene.divider.of(KEY) == UNDIVIDED
    scene.said = REPORT
    scene.look()
    assert scene.divider.of(KEY) == UNDIVIDED
    scene.look(dividing.AGAIN_S)
    assert scene.divider.of(KEY) == Split(1, REPORT.taken, REPORT.sizes)


@pytest.mark.parametrize(
    "said",
    [
        Unsupported("it knows no answer to 'divide'"),
        Invalid("that is no division"),
        RuntimeError("a defect"),
        DivideReport((("x.tmp",),), (1, 1)),
        DivideReport((), (5,)),
    ],
)
def test_a_path_that_can_t_be_divided_is_taken_undivided(
    scene: Scene, said: DivideReport | Exception
) -> None:
    scene.said = said
    scene.divider.of(KEY)
    scene.look()
    assert scene.divider.of(KEY) == UNDIVIDED


def test_a_split_that_has_lost_its_balance_gives_way_to_one_that_has_it(scene: Scene) -> None:
    scene.divider.of(KEY)
    scene.look()
    scene.took(1, stream_1=2, stream_2=1, rest=3)
    scene.said = DivideReport((("a",), ("e",)), (2, 2, 2))
    scene.look()
    assert len(scene.asked) == 1
    # Less than twice its share, and then not judged before each stream has an image.
    scene.took(2, stream_1=2, rest=100)
    del scene.images["web1:split-1.stream-2:/data"]
    scene.look()
    assert len(scene.asked) == 1
    scene.took(2, stream_2=1)
    scene.look()
    assert scene.divider.of(KEY) == Split(2, (("a",), ("e",)), (2, 2, 2))
    scene.look()
    assert len(scene.asked) == 2


def test_a_split_stays_where_no_other_would_be_better(scene: Scene) -> None:
    scene.divider.of(KEY)
    scene.look()
    scene.took(1, stream_1=2, stream_2=1, rest=100)
    scene.said = DivideReport((("a",), ("e",)), (2, 1, 100))
    scene.look()
    scene.look()
    assert len(scene.asked) == 2
    assert scene.divider.of(KEY) == Split(1, REPORT.taken, REPORT.sizes)


def test_files_of_the_master_itself_are_divided_here(database: Database, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "root" / name).mkdir(parents=True)
        (tmp_path / "root" / name / "f").write_bytes(bytes(10_000))
    scene = Scene(database)
    key = SplitKey(this_client(), str(tmp_path / "root"), (), False, 2)
    scene.divider.of(key)
    scene.look()
    split = scene.divider.of(key)
    assert split is not None
    assert split.taken in {(("a",),), (("b",),)}
    assert scene.asked == []


def test_it_is_at_work_in_a_thread_and_a_person_waits_for_it(database: Database) -> None:
    scene = Scene(database)
    scene.divider.start()
    try:
        assert scene.divider.settled(KEY) == Split(1, REPORT.taken, REPORT.sizes)
    finally:
        scene.divider.close()
    assert scene.divider.settled(replace(KEY, path="/other")) is None


# -- sources ------------------------------------------------------------------------------


def taken_apart(splits: Any, **changes: Any) -> list[Any]:
    one = policy(
        selections=(Selection("all", ("/data", "/srv"), ("*.tmp",)),), streams=3, **changes
    )
    return list(sources(one, [WEB1], lambda _: ["/", "/home"], splits))


def test_each_path_is_divided_by_itself() -> None:
    asked: list[SplitKey] = []

    def splits(key: SplitKey) -> Split | None:
        asked.append(key)
        return Split(7, (("a",), ("b", "c/d"))) if key.path == "/data" else UNDIVIDED

    found = taken_apart(splits)
    assert [one.source for one in found] == [
        "web1:split-7.stream-1:/data",
        "web1:split-7.stream-2:/data",
        "web1:split-7.rest:/data",
        "web1:/srv",
    ]
    assert {one.paths for one in found} == {("/data",), ("/srv",)}
    assert asked == [replace(KEY), replace(KEY, path="/srv")]
    assert found[2].exclude == ("*.tmp", "/data/a", "/data/b", "/data/c/d")
    assert found[3].exclude == ("*.tmp",)


def test_what_is_yet_to_be_divided_is_there_and_not_due(database: Database, tmp_path: Path) -> None:
    known: dict[str, Split | None] = {"/data": None, "/srv": UNDIVIDED}
    version = [0]
    stage = Stage(database, tmp_path, FakeClock(), slots=9)
    stage.splits = lambda key: known[key.path]
    stage.splits_version = lambda: version[0]
    stage.restart()
    one = policy(selections=(Selection("all", ("/data", "/srv")),), streams=3, schedules=())
    every = replace(policy().schedules[0], windows=())
    stage.put(replace(one, schedules=(every,), limits=replace(one.limits, streams_per_client=3)))

    def offered() -> set[str]:
        return {cast("BackupWork", offer.work).source for offer in stage.step()}

    assert offered() == {"web1:/srv"}
    members = stage.dispatcher.agenda.roster.members(one.name)
    assert {member.of.source for member in members} == {"web1:/srv", "web1:/data"}
    known["/data"], version[0] = Split(1, (("a",),)), 1
    assert offered() == {"web1:split-1.stream-1:/data", "web1:split-1.rest:/data"}
    stage.close()
