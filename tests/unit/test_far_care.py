"""Work on a pool that a media server does: asked for once, whatever breaks meanwhile."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast.base.errors import Busy, Cancelled, HoldfastError, Unreachable
from holdfast.site import far_care as module
from holdfast.site.far_care import PATIENCE_S, far_care
from holdfast.wire.messages import WorkEvent

RUNNING = {"answer": "check", "running": True}
DONE = {
    "answer": "check",
    "events": [
        {"severity": "info", "cause": "checked", "message": "all is well", "path": "/a\udcff"}
    ],
}
AWAY = Unreachable("machine 'media1' is not connected")


class MediaServer:
    """One that says what a test wants, and is asked whatever it is asked."""

    def __init__(self, *answers: dict[str, Any] | HoldfastError) -> None:
        self.answers = list(answers)
        self.asked: list[dict[str, Any]] = []
        self.passed_s = 0.0
        self.reports = 0
        self.stop_at = 10**9

    def ask(self, order: dict[str, Any], _: float) -> dict[str, Any]:
        self.asked.append(order)
        if order["ask"] == "stop-work":
            return {"answer": "stop-work"}
        answer = self.answers.pop(0)
        if isinstance(answer, HoldfastError):
            self.passed_s += PATIENCE_S / 2 + 1
            raise answer
        return answer

    def report(self, _: object) -> None:
        self.reports += 1
        if self.reports == self.stop_at:
            raise Cancelled("stopped")

    def care(self) -> list[WorkEvent]:
        options = {"read_data": True}
        return far_care(self.ask, "check", "ab" * 16, self.report, options, lambda: self.passed_s)

    def stopped(self) -> bool:
        works = {one["work"] for one in self.asked}
        assert len(works) == 1
        return bool(self.asked[-1]["ask"] == "stop-work")


@pytest.fixture(autouse=True)
def _in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PAUSE_S", 0.0)


def test_it_is_asked_for_until_it_is_done() -> None:
    server = MediaServer(RUNNING, RUNNING, DONE)
    assert server.care() == [WorkEvent("info", "checked", "all is well", b"/a\xff")]
    assert (server.reports, server.stopped()) == (3, False)
    assert all(one["read_data"] and one["pool"] == "ab" * 16 for one in server.asked)


def test_a_session_that_breaks_meanwhile_costs_nothing() -> None:
    server = MediaServer(RUNNING, AWAY, AWAY, RUNNING, AWAY, AWAY, DONE)
    assert len(server.care()) == 1
    assert not server.stopped()


@pytest.mark.parametrize("before", [[], [RUNNING, AWAY, AWAY]])
def test_one_that_is_not_there_or_not_any_more_is_told_of(before: list[Any]) -> None:
    server = MediaServer(*before, AWAY)
    with pytest.raises(Unreachable, match="media1"):
        server.care()
    assert server.answers == []


def test_what_it_fails_of_is_raised() -> None:
    with pytest.raises(Busy, match="being worked on"):
        MediaServer(Busy("pool ab is being worked on")).care()


def test_who_is_told_to_stop_has_it_stopped_there() -> None:
    server = MediaServer(RUNNING, RUNNING)
    server.stop_at = 3
    with pytest.raises(Cancelled):
        server.care()
    assert server.stopped()


@pytest.mark.parametrize("answer", [{"events": [1]}, {"events": [{}]}, {"running": "x"}])
def test_an_answer_that_is_none_is_not_taken(answer: dict[str, Any]) -> None:
    with pytest.raises(HoldfastError) as caught:
        MediaServer(answer).care()
    assert caught.value.code == "invalid"


@pytest.mark.parametrize("was_there", [True, False])
def test_one_that_is_gone_before_it_said_that_it_began_is_waited_for(was_there: bool) -> None:
    lost = Unreachable("machine 'media1' is not connected any more")
    media = MediaServer(lost, DONE)
    options = {"read_data": True}

    def care() -> list[WorkEvent]:
        return far_care(
            media.ask,
            "check",
            "ab" * 16,
            media.report,
            options,
            lambda: media.passed_s,
            there=lambda: was_there,
        )

    if was_there:
        assert [one.cause for one in care()] == ["checked"]
        assert len({one["work"] for one in media.asked}) == 1
    else:
        # One that was not there at all is told of at once.
        with pytest.raises(Unreachable):
            care()
        assert len(media.asked) == 1
