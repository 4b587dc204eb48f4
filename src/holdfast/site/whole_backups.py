"""Which images are one backup together: those of all streams of a path.

Must not read images. Invariant: of each stream there is one image at most, of the same split; where
a stream has none of the same job, it is its newest of before the next backup.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from holdfast.base.ids import SourceName, stream_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdfast.control.catalog import Catalog, ImageRow


@dataclass(frozen=True, slots=True)
class WholeBackup:
    """The images of one backup.

    Attributes:
        images: One of each stream, that which was asked for first.
        of_other_jobs: Those of them that another job made than most: a stream had failed.
        without: Streams that have no image of that time.
    """

    images: tuple[ImageRow, ...]
    of_other_jobs: tuple[ImageRow, ...] = ()
    without: tuple[SourceName, ...] = ()

    @property
    def remarks(self) -> list[str]:
        """What a person is to know of them, in sentences."""
        found = [
            f"image {one.id[:8]} of '{one.source}' is of another job, which began at "
            f"{one.started_at:%Y-%m-%d %H:%M:%S} UTC"
            for one in self.of_other_jobs
        ]
        return found + [f"there is no image of '{one}' of that time" for one in self.without]


def whole_backup(catalog: Catalog, image: ImageRow) -> WholeBackup:
    """The images that are one backup with an image; it alone, if it is of no stream."""
    stream = stream_of(image.source)
    if stream is None:
        return WholeBackup((image,))
    numbers = {
        one: known.number
        for one in catalog.sources()
        if (known := stream_of(one)) is not None and known.whole == stream.whole
    }
    # Jobs of one backup have numbers in a row, the rest's last.
    last = max((one for one in numbers.values() if one is not None), default=0) + 1
    places = {one: last if number is None else number for one, number in numbers.items()}
    rows: dict[SourceName, list[ImageRow]] = {one: [] for one in numbers}
    for row in catalog.images_of(set(numbers)):
        rows[row.source].append(row)
    chosen: list[ImageRow] = [image]
    apart: list[ImageRow] = []
    without: list[SourceName] = []
    for source in sorted(numbers, key=lambda one: places[one]):
        if source == image.source:
            continue
        offset = places[source] - places[image.source]
        found = _fitting(image, rows[image.source], rows[source], offset)
        if found is None:
            without.append(source)
            continue
        chosen.append(found[0])
        if not found[1]:
            apart.append(found[0])
    return WholeBackup(tuple(chosen), tuple(apart), tuple(without))


def _fitting(
    image: ImageRow, same: Sequence[ImageRow], others: Sequence[ImageRow], offset: int
) -> tuple[ImageRow, bool] | None:
    """The image of another stream that goes with one, and whether the same job made it."""
    site, number = _job_of(image)
    later = [row for row in same if row.started_at > image.started_at]
    following = min(later, key=lambda row: row.started_at, default=None)
    if number is not None:
        for one in others:
            if _job_of(one) == (site, number + offset):
                return one, True
    if following is None:
        fitting = list(others)
    else:
        first = _job_of(following)[1]
        fitting = [
            one
            for one in others
            if _is_before(one, following, None if first is None else first + offset)
        ]
    if not fitting:
        return None
    return max(fitting, key=lambda row: row.started_at), False


def _is_before(one: ImageRow, following: ImageRow, first: int | None) -> bool:
    """Whether an image is of before the backup that another one is of."""
    site, number = _job_of(one)
    if number is not None and first is not None and site == _job_of(following)[0]:
        return number < first
    return one.started_at < following.started_at


def _job_of(row: ImageRow) -> tuple[str, int | None]:
    """The site and the number of the job that made an image."""
    site, _, rest = (row.job or "").partition("/")
    number = rest.partition("/")[0]
    return site, int(number) if number.isdecimal() else None
