"""What is told of a disk's ranges stays whole and safe, in however few extents it is kept."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.sources.nbd.extents import Extents
from holdfast.sources.nbd.protocol import ALLOCATION, DIRTY_BITMAP, HOLE, ZERO

RANGES = st.lists(
    st.tuples(st.integers(1, 40).map(lambda n: n * 16384), st.integers(0, 3)), max_size=60
)


@settings(deadline=None)
@given(RANGES, st.sampled_from([ALLOCATION, DIRTY_BITMAP + "b"]), st.integers(2, 50))
def test_extents_cover_the_disk_and_never_promise_what_was_not_said(
    ranges: list[tuple[int, int]], context: str, most: int
) -> None:
    extents = Extents(context, most)
    said: list[int] = []
    for length, flags in ranges:
        extents.add(length, flags)
        said += [flags] * (length // 16384)
    found = extents.extents()

    assert extents.end == sum(length for length, _ in ranges)
    assert len(found) <= most
    at = 0
    for one in found:
        assert one.offset == at
        assert one.length > 0
        for flags in said[at // 16384 : (at + one.length) // 16384]:
            if context == ALLOCATION:
                assert one.flags & ~flags & (HOLE | ZERO) == 0
            else:
                assert flags & ~one.flags == 0
        at += one.length
    assert at == extents.end
    assert all(a.flags != b.flags for a, b in itertools.pairwise(found))


@settings(deadline=None)
@given(RANGES)
def test_as_long_as_there_is_room_nothing_is_joined_that_differs(
    ranges: list[tuple[int, int]],
) -> None:
    extents = Extents(ALLOCATION)
    for length, flags in ranges:
        extents.add(length, flags)
    spread = [one.flags for one in extents.extents() for _ in range(one.length // 16384)]
    assert spread == [flags for length, flags in ranges for _ in range(length // 16384)]
