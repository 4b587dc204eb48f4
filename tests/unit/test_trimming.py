"""A guest trims before it is frozen, and whatever becomes of that is said and stops nothing."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from holdfast.base.errors import Cancelled, HypervisorError, NotQuiesced, TooSlow
from holdfast.sources.machines import trimming
from holdfast.sources.machines.provider import SnapshotOrder
from holdfast.sources.machines.trimming import SocketGuest, trim, trim_before
from tests.kit.qemu import FakeAgent

ORDER = SnapshotOrder("ab", None, False, False, Path("/scratch"), "site-7", trim_s=5)
TWO = {"paths": [{"path": "/", "trimmed": 3 << 20, "minimum": 0}, {"path": "/srv", "trimmed": 0}]}


class Guest:
    """Answers as a test says."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, float]] = []
        self.free: list[Exception | None] = []
        self.closed = 0

    def ask(self, command: str, within_s: float) -> Any:
        self.asked.append((command, within_s))
        answer = self.answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def require_free(self) -> None:
        if error := self.free.pop(0):
            raise error

    def close(self) -> None:
        self.closed += 1


def alive() -> None:
    pass


def told(guest: Guest, order: SnapshotOrder = ORDER) -> tuple[str, str]:
    done = trim(guest, order, alive)
    assert not done.is_at_work
    assert guest.closed == 1
    (one,) = done.remarks
    return one.code, one.message


def test_what_a_guest_gave_back_is_said() -> None:
    guest = Guest(TWO)
    code, message = told(guest)
    assert code == "trimmed"
    assert message.startswith("the guest trimmed 2 of its file systems in 0.")
    assert message.endswith(" s, 3.00 MiB of them")
    assert guest.asked == [("guest-fstrim", 5)]


def test_an_old_agent_says_no_more_than_that_it_is_done() -> None:
    answers: list[Any] = [{}, 1, None, {"paths": []}, {"paths": 7}, {"paths": ["/"]}, [1]]
    for answer in answers:
        code, message = told(Guest(answer))
        assert code == "trimmed"
        assert message.startswith("the guest trimmed in ")


def test_file_systems_that_do_not_trim_are_named_unless_they_have_nothing_to_give() -> None:
    no = "trim not supported"
    paths = [{"path": f"/{one}", "error": no} for one in ("a", "b", "c", "d", "snap")]
    mounted = [{"mountpoint": "/snap", "type": "squashfs"}, {"mountpoint": "/a", "type": "ext4"}]
    done = trim(Guest({"paths": [*TWO["paths"], *paths]}, mounted), ORDER, alive)
    good, bad = done.remarks
    assert (good.severity, good.code) == ("info", "trimmed")
    assert (bad.severity, bad.code) == ("warning", "not-trimmed")
    assert bad.message == (
        "the guest did not trim '/a' (trim not supported), '/b' (trim not supported), "
        "'/c' (trim not supported) and 1 more; see what 'fstrim -v /a' says there"
    )
    code, _ = told(Guest({"paths": [*TWO["paths"], paths[-1]]}, mounted))
    assert code == "trimmed"
    # Who can't be asked which those are is believed.
    (bad,) = trim(Guest({"paths": paths[-1:]}, HypervisorError("no")), ORDER, alive).remarks
    assert "'/snap'" in bad.message


def test_a_guest_may_answer_anything() -> None:
    odd = {"paths": [{"path": ["/"], "error": {"a": 1}}, {"trimmed": "much"}, {"trimmed": -7}, 3]}
    mounted = [{"mountpoint": {}, "type": []}, 7]
    good, bad = trim(Guest(odd, mounted), ORDER, alive).remarks
    assert good.message.startswith("the guest trimmed 2 of its file systems in ")
    assert good.message.endswith(" s")
    assert "did not trim '['/']' ({'a': 1})" in bad.message
    (bad,) = trim(Guest({"paths": [{"error": "x" * 9000}]}, "no"), ORDER, alive).remarks
    assert len(bad.message) < 1000


def test_an_agent_that_does_not_know_the_command_is_told_of_with_what_to_do() -> None:
    for said in ("The command guest-fstrim has not been found", "Command … has been disabled"):
        code, message = told(Guest(NotQuiesced(said, "see that it runs")))
        assert code == "not-trimmed"
        assert message == (
            f"the guest did not trim: {said}; have its agent allow guest-fstrim: see "
            "'qemu-ga --help' there"
        )
    _, message = told(Guest(NotQuiesced("the guest agent is gone", "see that it runs")))
    assert message == "the guest did not trim: the guest agent is gone; see that it runs"


def test_a_guest_that_takes_too_long_is_not_waited_for() -> None:
    guest = Guest(TooSlow("no answer"))
    done = trim(guest, ORDER, alive)
    assert done.is_at_work
    (one,) = done.remarks
    assert (one.severity, one.code) == ("warning", "not-trimmed")
    assert "not done with trimming after 5.00 s, and goes on with it" in one.message
    assert "'trim_timeout'" in one.message
    assert guest.closed == 1


def test_one_that_has_to_come_to_rest_is_waited_for_once_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(trimming, "_AGAIN_S", 0.0)
    order = replace(ORDER, quiesce=True, require_quiesce=True)
    guest = Guest(TooSlow("no answer"))
    guest.free = [HypervisorError("busy"), HypervisorError("busy"), None]
    code, _ = told(guest, order)
    assert code == "not-trimmed"
    guest = Guest(TooSlow("no answer"))
    guest.free = [HypervisorError("busy")] * 1000
    monkeypatch.setattr(trimming, "_AGAIN_S", 0.3)
    assert trim(guest, replace(order, trim_s=1), alive).is_at_work


def test_a_job_that_is_cancelled_waits_for_no_guest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trimming, "_ALIVE_S", 0.02)
    go_on = threading.Event()

    class Slow(Guest):
        def ask(self, command: str, within_s: float) -> Any:
            go_on.wait(30)
            return super().ask(command, within_s)

    calls = []

    def cancelled() -> None:
        calls.append(1)
        if len(calls) == 3:
            raise Cancelled("somebody cancelled the job")

    guest = Slow(TWO)
    with pytest.raises(Cancelled):
        trim(guest, ORDER, cancelled)
    assert guest.closed == 1
    go_on.set()


def test_a_defect_is_none_of_the_guests() -> None:
    with pytest.raises(ValueError, match="a defect"):
        trim(Guest(ValueError("a defect")), ORDER, alive)


def test_nobody_is_asked_where_nothing_would_be_given_back() -> None:
    given: dict[str, Any] = {"disks": ["vda", "vdb"], "how": "do so"}
    guest = Guest(TWO)
    done = trim_before(ORDER, alive, guest=guest, kept=["vda", "vdb"], **given)
    assert guest.asked == []
    assert [one.about for one in done.remarks] == ["vda", "vdb"]
    assert {one.code for one in done.remarks} == {"not-trimmed"}
    assert done.remarks[0].message.endswith("it has no discard=unmap; do so")
    done = trim_before(ORDER, alive, guest=guest, kept=["vdb", "vdx"], **given)
    assert [one.code for one in done.remarks] == ["not-trimmed", "trimmed"]
    done = trim_before(ORDER, alive, guest="no agent", kept=[], **given)
    (one,) = done.remarks
    assert one.message.startswith("the guest was not asked to trim: no agent; see that")
    done = trim_before(ORDER, alive, guest=guest, disks=[], kept=[], how="")
    assert done.remarks == ()


def test_an_agent_at_a_socket_is_asked_and_let_go(tmp_path: Path) -> None:
    with FakeAgent(tmp_path / "qga") as agent:
        agent.returns = {"guest-fstrim": TWO}
        done = trim(SocketGuest(str(agent.path)), ORDER, alive)
        assert [one.code for one in done.remarks] == ["trimmed"]
        agent.refused = {"guest-fstrim"}
        done = trim(SocketGuest(str(agent.path)), ORDER, alive)
        assert "refused 'guest-fstrim': it would not" in done.remarks[0].message
        agent.refused, agent.silent = set(), {"guest-fstrim"}
        order = replace(ORDER, quiesce=True, require_quiesce=True, trim_s=1)
        done = trim(SocketGuest(str(agent.path)), order, alive)
        assert not done.is_at_work  # it listens again
        assert "not done with trimming" in done.remarks[0].message
        done = trim(SocketGuest(str(agent.path)), replace(order, require_quiesce=False), alive)
        assert done.is_at_work
    done = trim(SocketGuest(str(tmp_path / "nobody")), ORDER, alive)
    assert "there is no guest agent socket" in done.remarks[0].message
