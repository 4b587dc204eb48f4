"""How fast answers go out, as it is measured while they do."""

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
    with rates.sending(job, mib * MIB):
        clock.now_s += took_s


def test_a_rate_is_known_once_enough_was_sent(clock: Clock) -> None:
    rates = LinkRates(clock)
    assert rates.bytes_per_s(1) is None
    send(rates, clock, 1, 8, 0.5)
    assert rates.bytes_per_s(1) is None
    clock.now_s += 60
    send(rates, clock, 1, 8, 0.5)
    assert rates.bytes_per_s(1) == 16 * MIB
    assert rates.bytes_per_s(2) is None


def test_what_goes_out_at_once_counts_together(clock: Clock) -> None:
    rates = LinkRates(clock)
    with rates.sending(1, 16 * MIB):
        clock.now_s += 1
        with rates.sending(1, 16 * MIB):
            clock.now_s += 1
        clock.now_s += 2
    assert rates.bytes_per_s(1) == 8 * MIB


def test_small_answers_and_those_that_break_tell_nothing(clock: Clock) -> None:
    rates = LinkRates(clock)
    for _ in range(100):
        with rates.sending(1, MIB - 1):
            clock.now_s += 0.001
    assert rates.bytes_per_s(1) is None
    send(rates, clock, 1, 64, 1.0)
    with pytest.raises(ConnectionError), rates.sending(1, 64 * MIB):
        raise ConnectionError
    assert rates.bytes_per_s(1) == 64 * MIB


def test_a_link_that_became_slow_is_noticed(clock: Clock) -> None:
    rates = LinkRates(clock)
    for _ in range(1000):
        send(rates, clock, 1, 8, 0.01)
    assert rates.bytes_per_s(1) == pytest.approx(800 * MIB)
    for _ in range(60):
        send(rates, clock, 1, 8, 1.0)
    assert rates.bytes_per_s(1) == pytest.approx(8 * MIB, rel=0.1)


def test_jobs_that_are_long_over_are_forgotten(clock: Clock) -> None:
    rates = LinkRates(clock)
    for job in range(JOBS_KEPT + 1):
        send(rates, clock, job, 64, 1.0)
    assert rates.bytes_per_s(0) is None
    assert rates.bytes_per_s(JOBS_KEPT) == 64 * MIB
