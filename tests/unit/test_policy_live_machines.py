"""What is found wrong with a policy for virtual machines by a look at hypervisors."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pytest

from holdfast.base.errors import (
    HoldfastError,
    LibraryMissing,
    NoSpace,
    NotAuthenticated,
    Unreachable,
)
from holdfast.control.access import local
from holdfast.control.policies import (
    MACHINES,
    Finding,
    MachineSelection,
    Policy,
    Room,
    Severity,
    VerifyBoot,
    check_live_machines,
    from_data,
    to_plain,
)
from holdfast.control.policies.live_machines import MOST_MACHINES
from holdfast.movers.machines import asking
from holdfast.site import policies as site_policies
from holdfast.site import probing
from holdfast.sources.machines.provider import Remark
from tests.kit.policies import policy
from tests.kit.virtual_machines import FakeHypervisor, estate, hypervisor, machine

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdfast.control.hypervisors import Estate, VirtualMachine
    from tests.kit.api import Api


@dataclass
class FakeProbe:
    """Sees what a test says."""

    found: Estate
    remarks: dict[str, Sequence[Remark] | HoldfastError] = field(default_factory=dict)
    silent: HoldfastError | None = None
    full: HoldfastError | None = None
    is_over: bool = False
    emulator: HoldfastError | None = None
    tried: list[str] = field(default_factory=list)
    trimmed: list[bool] = field(default_factory=list)
    unwanted: list[tuple[str, ...]] = field(default_factory=list)

    def room(self, _unit: str) -> Room:
        if self.full is not None:
            raise self.full
        return Room(None)

    def ask_hypervisor(self, _name: str) -> Estate:
        if self.silent is not None:
            raise self.silent
        return self.found

    def require_emulator(self) -> None:
        if self.emulator is not None:
            raise self.emulator

    def try_machine(
        self, one: VirtualMachine, _scratch: str | None, *, trim: bool, leave_out: tuple[str, ...]
    ) -> Sequence[Remark]:
        self.trimmed.append(trim)
        self.unwanted.append(leave_out)
        self.tried.append(one.machine.name)
        found = self.remarks.get(one.machine.name, ())
        if isinstance(found, HoldfastError):
            raise found
        return found


def vms(query: str = "*", **wanted: Any) -> Policy:
    selection = MachineSelection(query, **wanted)
    return policy(type=MACHINES, clients=(), selections=(), machines=selection)


def look(
    probe: FakeProbe, given: Policy | None = None, known: Estate | None = None
) -> list[Finding]:
    findings = check_live_machines(given or vms(), known or probe.found, probe)
    assert all(one.policy == "servers" for one in findings)
    return findings


def test_nothing_is_wrong_where_all_is_well() -> None:
    (told,) = look(FakeProbe(estate(machine("a", 1), machine("b", 2))))
    assert (told.severity, told.message) == (Severity.INFO, "it selects 2: a, b")


def test_what_was_found_just_now_counts() -> None:
    probe = FakeProbe(estate(*(machine(f"m{n}", n) for n in range(8))))
    (told,) = look(probe, known=estate())
    assert told.message == "it selects 8: m0, m1, m2, m3, m4 and 3 more"


def test_a_hypervisor_that_does_not_answer_is_told_with_the_cause() -> None:
    why = NotAuthenticated("esx does not take the password of 'backup'", "give it anew")
    first, second = look(FakeProbe(estate(machine()), silent=why))
    assert (first.severity, first.place, first.hint) == (
        Severity.ERROR,
        "machines.hypervisors",
        "give it anew",
    )
    assert "hypervisor 'esx' does not tell its machines: esx does not take" in first.message
    assert second.severity is Severity.INFO


def test_storage_that_can_not_be_written_is_told() -> None:
    first, _ = look(FakeProbe(estate(machine()), full=NoSpace("it is full")))
    assert (first.place, first.severity) == ("storage_unit", Severity.ERROR)


def test_what_is_in_the_way_of_machines_is_told_once_for_all_alike() -> None:
    alike = Remark("warning", "no-agent", "no guest agent answers")
    raw = Remark("error", "no-permission", "its image can't be read", "vdb")
    probe = FakeProbe(
        estate(machine("a", 1), machine("b", 2), machine("c", 3)),
        {"a": [alike], "b": [alike, raw], "c": Unreachable("it went away")},
    )
    told = {one.message: one.severity for one in look(probe)[1:]}
    assert told == {
        "machine 'a' and 1 more: no guest agent answers": Severity.WARNING,
        "machine 'b': disk 'vdb': its image can't be read": Severity.ERROR,
        "machine 'c': it can't be tried: it went away": Severity.ERROR,
    }
    # What is said of a disk that is not wanted is in nobody's way.
    told = {one.message: one.severity for one in look(probe, vms(leave_out=("vdb",)))[1:]}
    assert len(told) == 2
    assert probe.unwanted[-3:] == [("vdb",)] * 3
    (told_of_all,) = look(FakeProbe(estate(machine())), vms(leave_out=("*",)))[1:]
    assert told_of_all.place == "machines.leave_out"


def test_who_looks_is_told_that_guests_are_to_trim() -> None:
    keeps = Remark("warning", "not-trimmed", "it has no discard=unmap", "vdb")
    probe = FakeProbe(estate(machine("a", 1)), {"a": [keeps]})
    (told,) = look(probe, vms(trim=True))[1:]
    assert told.message == "machine 'a': disk 'vdb': it has no discard=unmap"
    look(probe)
    assert probe.trimmed == [True, False]


def test_an_emulator_that_is_missing_is_told_where_images_are_to_be_booted() -> None:
    why = LibraryMissing("qemu-system-x86_64 is not installed here", "apt-get install it")
    probe = FakeProbe(estate(machine()), emulator=why)
    assert len(look(probe)) == 1
    first, _ = look(probe, replace(vms(), verify_boot=VerifyBoot(agent=True)))
    assert (first.severity, first.place, first.hint) == (
        Severity.ERROR,
        "verify_boot",
        "apt-get install it",
    )
    assert "on the master server: qemu-system-x86_64 is not installed here" in first.message
    assert len(look(FakeProbe(estate(machine())), replace(vms(), verify_boot=VerifyBoot()))) == 1


@pytest.mark.parametrize("is_over", [True, False])
def test_so_many_machines_are_tried_and_no_more(*, is_over: bool) -> None:
    many = estate(*(machine(f"m{n:02}", n) for n in range(30)))
    probe = FakeProbe(many, is_over=is_over)
    last = look(probe)[-1]
    count = 0 if is_over else MOST_MACHINES
    assert last.message == f"{count} of 30 machines were tried"
    assert len(probe.tried) == count


def test_a_policy_is_looked_at_by_who_reaches_the_hypervisor(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeHypervisor([machine("web1")], [Remark("warning", "no-agent", "no agent answers")])
    monkeypatch.setattr(asking, "open_provider", fake.opener)
    monkeypatch.setattr(probing, "try_writing", lambda _: bytes.fromhex(api.master.site.pool_id))
    monkeypatch.setattr(probing, "_free_bytes", lambda _: None)
    api.master.hypervisors.add(hypervisor(), {"user": "u", "password": "p"}, b"k" * 32)
    document = from_data({"policy": [to_plain(vms())]})
    prepared = site_policies.prepare(api.master, document, local(0))
    assert [one.message for one in prepared.findings if one.place.startswith("machines")] == [
        "it selects none of 0 virtual machines",
        "it selects 1: web1",
        "machine 'web1': no agent answers",
    ]
    assert [one[2].user for one in fake.opened] == ["u", "u"]
    assert prepared.is_valid
    fake.error = Unreachable("nobody answers")
    refused = site_policies.prepare(api.master, document, local(0))
    assert not refused.is_valid
