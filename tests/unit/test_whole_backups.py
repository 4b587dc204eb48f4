"""Which images are one backup together, and that they come back as one."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from holdfast.base.errors import PathMissing
from holdfast.base.ids import ImageId, stream_of
from holdfast.movers.restore_run import RestoreOrder
from holdfast.movers.whole_restore import restore_whole
from holdfast.site.whole_backups import whole_backup

if TYPE_CHECKING:
    from holdfast.control.catalog import Catalog, ImageRow

AT = datetime(2026, 3, 2, tzinfo=UTC)
HOUR = timedelta(hours=1)
ONE, TWO, REST = (f"web1:split-1.{name}:/data" for name in ("stream-1", "stream-2", "rest"))


@dataclass
class FakeCatalog:
    """Images, and nothing else."""

    rows: list[Any] = field(default_factory=list)

    def add(self, source: str, job: int | None, at: timedelta, site: str = "s") -> ImageRow:
        made = SimpleNamespace(
            id=f"{len(self.rows):032x}",
            source=source,
            job=None if job is None else f"{site}/{job}/1",
            started_at=AT + at,
        )
        self.rows.append(made)
        return cast("ImageRow", made)

    def run(self, first: int, at: timedelta, leave_out: str = "") -> list[ImageRow]:
        """Images of one job, one after another; the parent and a command before have numbers."""
        return [
            self.add(source, first + place, at + place * HOUR)
            for place, source in enumerate((ONE, TWO, REST))
            if source != leave_out
        ]

    def sources(self) -> list[str]:
        return list(dict.fromkeys(one.source for one in self.rows))

    def images_of(self, sources: set[str]) -> list[Any]:
        return [one for one in self.rows if one.source in sources]


@pytest.fixture
def catalog() -> FakeCatalog:
    made = FakeCatalog()
    made.add("web1:/data", 1, -HOUR)
    made.add("web1:split-2.stream-1:/data", 2, -HOUR)
    made.add("web1:split-1.rest:/srv", 3, -HOUR)
    made.add("web2:split-1.rest:/data", 4, -HOUR)
    return made


def ids(catalog: FakeCatalog, image: ImageRow) -> list[str]:
    return [one.id for one in whole_backup(cast("Catalog", catalog), image).images]


def test_names_of_streams_are_read() -> None:
    found = stream_of(TWO)
    assert found is not None
    assert (found.client, found.split, found.path, found.number) == ("web1", 1, "/data", 2)
    rest = stream_of("web1:split-12.rest:/a:b\nc")
    assert rest is not None
    assert (rest.path, rest.number) == ("/a:b\nc", None)
    for other in ("web1:/data", "web1:/split-1.rest:/data", "web1:split-x.rest:/a", ":machine:12"):
        assert stream_of(other) is None


def test_an_image_of_no_stream_is_alone(catalog: FakeCatalog) -> None:
    assert ids(catalog, catalog.rows[0]) == [catalog.rows[0].id]


def test_those_of_one_job_are_together_whenever_each_began(catalog: FakeCatalog) -> None:
    # The next job begins as soon as the last has ended, one stream after another.
    jobs = [catalog.run(10 * number, 3 * number * HOUR) for number in range(1, 5)]
    for job in jobs:
        for image in job:
            assert ids(catalog, image)[0] == image.id
            assert set(ids(catalog, image)) == {one.id for one in job}


def test_of_a_stream_that_failed_the_one_before_it_is_taken_and_that_is_told(
    catalog: FakeCatalog,
) -> None:
    first = catalog.run(10, HOUR)
    second = catalog.run(20, 10 * HOUR, leave_out=TWO)
    third = catalog.run(30, 20 * HOUR)
    found = whole_backup(cast("Catalog", catalog), second[0])
    assert {one.id for one in found.images} == {second[0].id, second[1].id, first[1].id}
    assert [one.id for one in found.of_other_jobs] == [first[1].id]
    (remark,) = found.remarks
    assert TWO in remark
    # What was restarted is taken.
    again = catalog.add(TWO, 25, 15 * HOUR)
    assert set(ids(catalog, second[0])) == {second[0].id, second[1].id, again.id}
    assert set(ids(catalog, third[2])) == {one.id for one in third}


def test_a_stream_without_any_image_of_that_time_is_told(catalog: FakeCatalog) -> None:
    first = catalog.run(10, HOUR, leave_out=REST)
    catalog.run(20, 10 * HOUR)
    found = whole_backup(cast("Catalog", catalog), first[0])
    assert {one.id for one in found.images} == {one.id for one in first}
    assert found.without == (REST,)
    assert REST in found.remarks[0]


def test_images_of_another_site_go_by_time(catalog: FakeCatalog) -> None:
    one = catalog.add(ONE, 7, HOUR, site="t")
    other = catalog.add(TWO, None, HOUR)
    catalog.add(ONE, 70, 9 * HOUR, site="t")
    catalog.add(TWO, None, 9 * HOUR)
    assert ids(catalog, one) == [one.id, other.id]


# -- restoring them -------------------------------------------------------------------------


@dataclass
class Images:
    """Restores that are remembered; an image has the paths that a test says."""

    having: dict[str, set[bytes]]
    orders: list[RestoreOrder] = field(default_factory=list)

    def __call__(self, order: RestoreOrder) -> Any:
        for path in order.paths:
            if path not in self.having[order.image]:
                raise PathMissing("no")
        self.orders.append(order)
        return SimpleNamespace(
            files=1, dirs=2, bytes=3, verified_files=1, findings=[order.image], findings_total=1
        )


ORDER = RestoreOrder(ImageId("a"), (), b"/to")
ALL = [ImageId("a"), ImageId("b"), ImageId("c")]


def test_all_go_into_one_directory_that_was_empty() -> None:
    images = Images({})
    done = restore_whole(ALL, ORDER, images)
    assert [(one.image, one.overwrite) for one in images.orders] == [
        ("a", None),
        ("b", "always"),
        ("c", "always"),
    ]
    assert (done.files, done.dirs, done.bytes, done.findings_total) == (3, 6, 9, 3)
    assert list(map(str, done.findings)) == ["a", "b", "c"]


def test_what_is_there_is_kept_where_that_was_said() -> None:
    images = Images({})
    restore_whole(ALL, replace(ORDER, overwrite="never"), images, "never")
    assert {one.overwrite for one in images.orders} == {"never"}


def test_paths_come_from_whichever_image_has_them() -> None:
    images = Images({"a": set(), "b": {b"/1"}, "c": {b"/1", b"/2"}})
    restore_whole(ALL, replace(ORDER, paths=(b"/1", b"/2")), images)
    assert [(one.image, one.paths, one.overwrite) for one in images.orders] == [
        ("b", (b"/1",), None),
        ("c", (b"/1", b"/2"), "always"),
    ]
    with pytest.raises(PathMissing, match="no image of this backup has '/3'"):
        restore_whole(ALL, replace(ORDER, paths=(b"/2", b"/3")), images)
    # Of one image, its own words.
    with pytest.raises(PathMissing, match=r"^no$"):
        restore_whole(ALL[:1], replace(ORDER, paths=(b"/3",)), images)
