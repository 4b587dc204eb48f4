"""Machines without libvirt and their guest agents: the guest stands still for the moment alone."""

# Where a snapshot ends is where it fails: blocks within blocks say what happens in which.
# ruff: noqa: SIM117

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from holdfast.base.errors import Cancelled, NotQuiesced
from holdfast.sources.machines.provider import SnapshotOrder
from holdfast.sources.machines.providers import open_provider
from holdfast.sources.machines.qmp import QmpProvider
from tests.kit.image_chain import ImageChain, snapshot_order
from tests.kit.qemu import (
    FakeAgent,
    Qemu,
    needs_qemu,
)

pytestmark = needs_qemu


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Qemu]:
    with Qemu(tmp_path, formats=("qcow2", "raw")) as made:
        yield made


def provider(machine: Qemu) -> QmpProvider:
    made = open_provider("qmp", str(machine.run))
    assert isinstance(made, QmpProvider)
    return made


def order(machine: Qemu, **changed: Any) -> SnapshotOrder:
    return snapshot_order(machine, machine.directory, **changed)


def chain(machine: Qemu) -> ImageChain:
    return ImageChain(machine, "qmp", str(machine.run), machine.directory)


def quiesced(machine: Qemu, **changed: Any) -> SnapshotOrder:
    return order(machine, quiesce=True, **changed)


def test_the_guest_stands_still_for_the_moment_alone(machine: Qemu) -> None:
    with FakeAgent(machine.run / "web.qga") as agent:
        with provider(machine).snapshot(quiesced(machine)) as snapshot:
            assert not agent.frozen
            assert "guest-fsfreeze-freeze" in agent.asked
        assert not snapshot.remarks
        assert snapshot.frozen_s > 0
        assert snapshot.machine.guest.startswith("Debian")


def test_a_guest_without_agent_is_backed_up_with_a_remark_or_not_at_all(machine: Qemu) -> None:
    with provider(machine).snapshot(quiesced(machine)) as snapshot:
        assert [one.code for one in snapshot.remarks] == ["not-quiesced"]
    with pytest.raises(NotQuiesced, match="no socket of a guest agent"):
        with provider(machine).snapshot(quiesced(machine, require_quiesce=True)):
            pass
    assert machine.leftovers() == []
    assert machine.bitmaps() == set()


def test_an_agent_that_hangs_in_its_freeze_is_told_to_thaw(
    machine: Qemu, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holdfast.sources.machines.guest_agent.FREEZE_TIMEOUT_S", 0.3)
    with FakeAgent(machine.run / "web.qga") as agent:
        agent.silent = {"guest-fsfreeze-freeze"}
        with pytest.raises(NotQuiesced, match="did not answer 'guest-fsfreeze-freeze'"):
            with provider(machine).snapshot(quiesced(machine, require_quiesce=True)):
                pass
        assert not agent.frozen
        with provider(machine).snapshot(quiesced(machine)) as snapshot:
            assert [one.code for one in snapshot.remarks] == ["not-quiesced"]
        assert not agent.frozen
    assert machine.leftovers() == []


def test_an_agent_that_hangs_in_its_thaw_is_told_of(
    machine: Qemu, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holdfast.sources.machines.guest_agent.THAW_TIMEOUT_S", 0.3)
    with FakeAgent(machine.run / "web.qga") as agent:
        agent.silent = {"guest-fsfreeze-thaw"}
        with provider(machine).snapshot(quiesced(machine)) as snapshot:
            assert [one.code for one in snapshot.remarks] == ["thaw-unanswered"]


@pytest.fixture
def trimming_one(tmp_path: Path) -> Iterator[Qemu]:
    """One whose disks give back what its guest trims."""
    with Qemu(tmp_path, formats=("qcow2", "raw"), more=",discard=unmap") as made:
        yield made


def test_a_guest_trims_before_it_stands_still(trimming_one: Qemu) -> None:
    machine = trimming_one
    with FakeAgent(machine.run / "web.qga") as agent:
        agent.returns = {"guest-fstrim": {"paths": [{"path": "/", "trimmed": 3 << 20}]}}
        with provider(machine).snapshot(quiesced(machine, trim_s=30)) as snapshot:
            pass
        (told,) = snapshot.remarks
        assert (told.severity, told.code) == ("info", "trimmed")
        assert "3.00 MiB" in told.message
        assert snapshot.frozen_s > 0
        asked = [one for one in agent.asked if one in ("guest-fstrim", "guest-fsfreeze-freeze")]
        assert asked == ["guest-fstrim", "guest-fsfreeze-freeze"]
        with provider(machine).snapshot(quiesced(machine)):
            assert agent.asked.count("guest-fstrim") == 1
    with provider(machine).snapshot(quiesced(machine, trim_s=30)) as snapshot:
        told, no_rest = snapshot.remarks
    assert (told.code, no_rest.code) == ("not-trimmed", "not-quiesced")
    assert "nobody listens at the guest agent socket" in told.message


def test_a_guest_whose_disks_keep_what_it_trims_is_not_asked(machine: Qemu, tmp_path: Path) -> None:
    with FakeAgent(machine.run / "web.qga") as agent:
        order = quiesced(machine, trim_s=30, leave_out=("disk1",))
        with provider(machine).snapshot(order) as snapshot:
            (told,) = snapshot.remarks
        assert (told.code, told.about) == ("not-trimmed", "disk0")
        assert "guest-fstrim" not in agent.asked
        found = provider(machine).try_out(machine.uuid, tmp_path, trim=True)
    assert [one.about for one in found if one.code == "not-trimmed"] == ["disk0", "disk1"]


def test_a_guest_that_trims_on_is_not_told_to_stand_still(trimming_one: Qemu) -> None:
    machine = trimming_one
    with FakeAgent(machine.run / "web.qga") as agent:
        agent.silent = {"guest-fstrim"}
        with provider(machine).snapshot(quiesced(machine, trim_s=1)) as snapshot:
            assert not agent.frozen
        assert [one.code for one in snapshot.remarks] == ["not-trimmed", "not-quiesced"]
        assert "still busy with trimming" in snapshot.remarks[1].message
        assert "guest-fsfreeze-freeze" not in agent.asked
        # One that has to come to rest is waited for; this one listens again at once.
        needed = quiesced(machine, trim_s=1, require_quiesce=True)
        with provider(machine).snapshot(needed) as snapshot:
            assert snapshot.frozen_s > 0
        assert [one.code for one in snapshot.remarks] == ["not-trimmed"]
        agent.refused, agent.silent = {"guest-fstrim"}, set()
        with provider(machine).snapshot(needed) as snapshot:
            assert snapshot.frozen_s > 0
        assert "it would not" in snapshot.remarks[0].message
    assert machine.leftovers() == []


def test_a_backup_that_is_cancelled_while_its_guest_trims_leaves_nothing(
    trimming_one: Qemu, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holdfast.sources.machines.trimming._ALIVE_S", 0.02)
    machine, calls = trimming_one, [0]

    def alive() -> None:
        calls[0] += 1
        if calls[0] == 4:
            raise Cancelled("somebody cancelled the job")

    with FakeAgent(machine.run / "web.qga") as agent:
        agent.silent = {"guest-fstrim"}
        with pytest.raises(Cancelled):
            with provider(machine).snapshot(quiesced(machine, trim_s=60), alive):
                pass
        assert agent.asked[-1] == "guest-fstrim"
        with provider(machine).snapshot(quiesced(machine)) as snapshot:
            assert not snapshot.remarks
    assert machine.leftovers() == []
    assert machine.bitmaps() == set()


def test_a_guest_is_thawed_although_the_proxy_was_killed_while_it_stood_still(
    machine: Qemu,
) -> None:
    with FakeAgent(machine.run / "web.qga") as agent:
        for step in range(20, 46, 2):
            chain(machine).die_at(step, quiesce=True)
            until = time.monotonic() + 60
            while agent.frozen:
                assert time.monotonic() < until, f"nobody thaws the guest: step {step}"
                time.sleep(0.01)
        assert agent.asked.count("guest-fsfreeze-thaw") >= 3
