"""A guest under libvirt that does not answer when it is to go on is told again until it does."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, cast

import pytest

pytest.importorskip("libvirt", reason="needs libvirt-python")

import libvirt

from holdfast.sources.machines.libvirt import running
from holdfast.sources.machines.libvirt.running import RunningSnapshot
from holdfast.sources.machines.machine import Machine
from holdfast.sources.machines.provider import SnapshotOrder


class Mute:
    """A domain whose agent hangs for so many questions; and the host that has it."""

    def __init__(self, hangs: int) -> None:
        self.hangs = hangs
        self.asked = 0
        self.frozen_at = -1
        self.timeouts: list[int] = []
        self.awake = threading.Event()

    url = "qemu:///system"

    def domain(self, _uuid: str) -> Mute:
        return self

    def agentSetResponseTimeout(self, timeout_s: int) -> None:  # noqa: N802 - as libvirt calls it
        self.timeouts.append(timeout_s)

    def fsFreeze(self) -> int:  # noqa: N802 - as libvirt calls it
        self.frozen_at = self.asked
        return 1

    def fsThaw(self) -> int:  # noqa: N802 - as libvirt calls it
        self.asked += 1
        if self.asked <= self.hangs:
            raise libvirt.libvirtError("Guest agent is not responding")
        self.awake.set()
        return 1


def made(host: Mute) -> RunningSnapshot:
    order = SnapshotOrder("u", None, True, False, Path("/scratch"), "site-1")
    given = cast("Any", host)
    return RunningSnapshot(given, order, Machine("u", "web", "kvm"), {}, (), cast("Any", None))


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "_THAW_AGAIN_S", 0.001)


def test_a_guest_that_goes_on_is_asked_once() -> None:
    host = Mute(0)
    snapshot = made(host)
    snapshot._thaw(host)
    assert (host.asked, list(snapshot.remarks)) == (1, [])


def test_a_guest_whose_agent_hangs_is_told_to_go_on_until_it_does() -> None:
    host = Mute(5)
    snapshot = made(host)
    snapshot._thaw(host)
    (told,) = snapshot.remarks
    assert (told.severity, told.code) == ("error", "thaw-unanswered")
    assert "until it answers, for 60 minutes" in told.message
    assert host.awake.wait(60)
    assert host.asked == 6
    assert host.timeouts == [running.THAW_TIMEOUT_S]


def test_a_guest_that_is_frozen_again_is_not_woken_by_an_earlier_backup() -> None:
    host = Mute(1 << 30)
    made(host)._thaw(host)
    late, _ = running._late[host.url, "u"]
    assert late.is_alive()
    assert made(host)._quiet(host)
    assert not late.is_alive()
    assert host.asked == host.frozen_at
