"""Moments and nanoseconds."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from holdfast.base.clock import SystemClock, from_ns, to_ns
from tests.kit.clock import FakeClock


def test_the_system_clock_tells_aware_utc_and_agrees_with_itself() -> None:
    clock = SystemClock()
    assert clock.now().utcoffset() == timedelta(0)
    assert abs(to_ns(clock.now()) - clock.now_ns()) < 60 * 10**9


@given(st.integers(min_value=-(10**20), max_value=10**20))
def test_any_time_of_a_file_becomes_a_moment(moment_ns: int) -> None:
    moment = from_ns(moment_ns)
    assert moment.tzinfo is UTC
    if datetime.min.replace(tzinfo=UTC) < moment < datetime.max.replace(tzinfo=UTC):
        assert to_ns(moment) == moment_ns // 1000 * 1000


def test_a_fake_clock_moves_only_when_it_is_moved() -> None:
    clock = FakeClock()
    before = clock.now_ns()
    assert clock.now_ns() == before
    clock.move(timedelta(seconds=2))
    assert clock.now_ns() - before == 2 * 10**9
