"""Waiting for a verb, and stopping it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest

from holdfast.base.errors import Cancelled, NoSpace
from holdfast.movers.drive import drive


class ScriptedRun:
    """A verb that needs some waits, then ends; `on_wait` happens in each wait."""

    def __init__(self, waits: int, on_wait: Callable[[], None] = lambda: None) -> None:
        self.left = waits
        self.on_wait = on_wait
        self.cancelled = False
        self.at_work = True
        self.error: Exception | None = None

    def wait(self, _timeout_s: float) -> bool:
        if not self.cancelled:
            self.on_wait()
        self.left -= 1
        self.at_work = self.left >= 0
        return not self.at_work

    def counters(self) -> int:
        return self.left

    def cancel(self) -> None:
        self.cancelled = True

    def result(self) -> str:
        if self.error is not None:
            raise self.error
        return "done"


def drive_scripted(run: ScriptedRun, report: Callable[[Any], None] | None = None) -> str:
    return cast("str", drive(cast("Any", run), report))


def test_the_result_is_handed_back_and_the_last_numbers_are_reported() -> None:
    seen: list[int] = []
    assert drive_scripted(ScriptedRun(3), seen.append) == "done"
    assert seen == [2, 1, 0, -1]


def test_a_verbs_own_error_comes_through() -> None:
    run = ScriptedRun(0)
    run.error = NoSpace("full")
    with pytest.raises(NoSpace):
        drive_scripted(run)


def test_an_interrupt_cancels_and_waits_until_the_verb_has_stopped() -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    run = ScriptedRun(5, interrupt)
    with pytest.raises(Cancelled):
        drive_scripted(run)
    assert run.cancelled
    assert not run.at_work


def test_a_reporter_that_fails_does_not_leave_a_verb_at_work() -> None:
    def fail(_counters: object) -> None:
        raise ZeroDivisionError

    run = ScriptedRun(5)
    with pytest.raises(ZeroDivisionError):
        drive_scripted(run, fail)
    assert run.cancelled
    assert not run.at_work
