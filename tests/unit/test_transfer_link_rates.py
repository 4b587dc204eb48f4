"""How fast answers surely go out, as it is measured while they do."""

from __future__ import annotations

import pytest

from holdfast.base.units import MIB
from holdfast.movers.transfer.link_rates import JOBS_KEPT, LinkRates


class Clock:
    """Goes on when told."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def send(rates: LinkRates, clock: Clock, job: int, mib: int, took_s: float) -> None:
    rates.asked(job)
    clock.now_s += took_s
    rates.sent(job, mib * MIB)


def test_a_rate_is_known_once_enough_was_sent(clock: Clock) -> None:
    rates = LinkRates(clock)
    assert rates.bytes_per_s(1) is None
    send(rates, clock, 1, 32, 0.5)
    assert rates.bytes_per_s(1) is None
    send(rates, clock, 1, 32, 0.5)
    assert rates.bytes_per_s(1) == 64 * MIB
    assert rates.bytes_per_s(2) is None


def test_what_the_system_took_into_its_buffers_makes_no_link_fast(clock: Clock) -> None:
    rates = LinkRates(clock)
    # Each of four connections is rid of 8 MiB at once, and the link does 10 MiB a second.
    for _ in range(4):
        send(rates, clock, 1, 8, 0.0)
    for _ in range(100):
        send(rates, clock, 1, 8, 0.8)
    known = rates.bytes_per_s(1)
    assert known is not None
    assert 10 * MIB <= known < 11.5 * MIB


def test_time_in_which_nothing_was_asked_for_counts(clock: Clock) -> None:
    rates = LinkRates(clock)
    send(rates, clock, 1, 64, 1.0)
    clock.now_s += 3
    assert rates.bytes_per_s(1) == 16 * MIB


def test_an_answer_that_breaks_tells_nothing(clock: Clock) -> None:
    rates = LinkRates(clock)
    rates.asked(1)
    clock.now_s += 1
    assert rates.bytes_per_s(1) is None
    rates.sent(2, 64 * MIB)
    assert rates.bytes_per_s(2) is None


def test_a_link_that_became_slow_is_noticed(clock: Clock) -> None:
    rates = LinkRates(clock)
    for _ in range(1000):
        send(rates, clock, 1, 8, 0.01)
    assert rates.bytes_per_s(1) == pytest.approx(800 * MIB)
    for _ in range(120):
        send(rates, clock, 1, 8, 1.0)
    assert rates.bytes_per_s(1) == pytest.approx(8 * MIB, rel=0.15)


def test_jobs_that_are_long_over_are_forgotten(clock: Clock) -> None:
    rates = LinkRates(clock)
    for job in range(JOBS_KEPT + 1):
        send(rates, clock, job, 64, 1.0)
    assert rates.bytes_per_s(0) is None
    assert rates.bytes_per_s(JOBS_KEPT) == 64 * MIB
