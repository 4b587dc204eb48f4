"""A rate holds over all threads, and changes for those who wait."""

from __future__ import annotations

import threading

import pytest

from holdfast.base.errors import Invalid
from holdfast.movers.transfer.rate import SLOWEST_BYTES_PER_S, RateLimit

MIB = 1 << 20


def test_without_a_rate_nobody_waits() -> None:
    RateLimit(now_s=lambda: 0.0).take(10**12)


def test_a_rate_is_never_exceeded_over_any_longer_while() -> None:
    now_s = 0.0
    rate = RateLimit(MIB, lambda: now_s)
    passed = 0
    for _ in range(1000):
        now_s += 0.01
        waited = [True]

        def once(waited: list[bool] = waited) -> bool:
            # The first look finds room or not; there is no second.
            waited[0] = not waited[0]
            return waited[0]

        before = rate._left
        rate.take(20_000, once)
        passed += 20_000 if rate._left < before else 0
    assert passed <= MIB * now_s + MIB * 0.1 + 20_000
    assert passed >= MIB * now_s * 0.9


def test_who_waits_goes_on_when_the_rate_is_lifted() -> None:
    rate = RateLimit(SLOWEST_BYTES_PER_S)
    rate.take(1)
    rate._left = -1e9
    done = threading.Event()

    def take() -> None:
        rate.take(1000)
        done.set()

    thread = threading.Thread(target=take)
    thread.start()
    assert not done.wait(0.05)
    rate.set(None)
    assert done.wait(5)
    thread.join()


def test_who_waits_goes_on_when_it_is_stopped() -> None:
    rate = RateLimit(SLOWEST_BYTES_PER_S)
    rate._left = -1e9
    rate.take(1000, lambda: True)


def test_a_rate_at_which_nothing_would_arrive_is_refused() -> None:
    with pytest.raises(Invalid, match="too few for a transfer"):
        RateLimit(SLOWEST_BYTES_PER_S - 1)
