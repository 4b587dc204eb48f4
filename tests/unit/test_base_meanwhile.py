"""Work that a thread does while its caller does something else."""

from __future__ import annotations

import threading

import pytest

from holdfast.base.errors import WrongKey
from holdfast.base.meanwhile import Meanwhile


def test_the_caller_goes_on_and_then_waits_for_the_result() -> None:
    may_end = threading.Event()

    def work() -> str:
        may_end.wait(60)
        return threading.current_thread().name

    begun = Meanwhile(work)
    may_end.set()
    assert begun.result() != threading.current_thread().name
    assert begun.result() == begun.result()


def test_what_it_failed_of_is_raised_whenever_it_is_asked_for() -> None:
    def work() -> int:
        raise WrongKey("the passphrase does not open the pool")

    begun = Meanwhile(work)
    for _ in range(2):
        with pytest.raises(WrongKey, match="does not open"):
            begun.result()
