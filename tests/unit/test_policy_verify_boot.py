"""What a policy says of booting its images: read, written, and judged."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from holdfast.control.policies import (
    MACHINES,
    KnownClients,
    MachineSelection,
    Severity,
    SiteFacts,
    VerifyBoot,
    from_plain,
    to_plain,
    validate,
)
from holdfast.control.schedule import BackupKind
from tests.kit.policies import policy
from tests.kit.virtual_machines import estate, machine

SITE = SiteFacts(
    clients=KnownClients(()),
    storage_units=frozenset({"default"}),
    now=datetime(2026, 11, 21, 12, tzinfo=UTC),
    zone=UTC,
    estate=estate(machine()),
)


def vms(**others: Any) -> Any:
    given: dict[str, Any] = {"type": MACHINES, "clients": (), "selections": ()}
    return policy(**given | {"machines": MachineSelection("*")} | others)


@pytest.mark.parametrize(
    "wanted",
    [
        VerifyBoot(serial="login:"),
        VerifyBoot("full", 90, port=22, agent=True, command=("/bin/true", "-x")),
        VerifyBoot(within_s=86_400, agent=True),
    ],
)
@pytest.mark.parametrize("whole", [True, False])
def test_what_is_written_is_read_back(wanted: VerifyBoot, *, whole: bool) -> None:
    given = vms(verify_boot=wanted)
    assert from_plain(to_plain(given, whole=whole)) == (given, [])


def test_only_what_is_not_as_usual_is_written() -> None:
    assert to_plain(vms(verify_boot=VerifyBoot(serial="login:")))["verify_boot"] == {
        "serial": "login:"
    }
    assert "verify_boot" not in to_plain(vms())
    assert "verify_boot" not in to_plain(vms(), whole=True)


@pytest.mark.parametrize(
    ("given", "place"),
    [
        ({"on": 3}, "verify_boot.on"),
        ({"within": "soon"}, "verify_boot.within"),
        ({"within": "2d"}, "verify_boot.within"),
        ({"port": 70_000}, "verify_boot.port"),
        ({"port": "ssh"}, "verify_boot.port"),
        ({"agent": "yes"}, "verify_boot.agent"),
        ({"command": "uptime"}, "verify_boot.command"),
        ({"command": [""]}, "verify_boot.command[0]"),
        ({"seriel": "login:"}, "verify_boot.seriel"),
    ],
)
def test_what_can_not_be_read_is_told_at_its_place(given: dict[str, Any], place: str) -> None:
    _, (told,) = from_plain(to_plain(vms()) | {"verify_boot": {"serial": "x"} | given})
    assert (told.place, told.severity) == (place, Severity.ERROR)


def found(given: Any) -> dict[str, Severity]:
    return {one.place: one.severity for one in validate([given], SITE)}


def test_what_can_not_be_judged_by_is_an_error() -> None:
    assert found(vms(verify_boot=VerifyBoot(serial="login:"))) == {}
    assert found(vms(verify_boot=VerifyBoot())) == {"verify_boot": Severity.ERROR}
    assert found(vms(verify_boot=VerifyBoot("never", agent=True))) == {
        "verify_boot.on": Severity.ERROR
    }
    assert found(vms(verify_boot=VerifyBoot(serial="("))) == {"verify_boot.serial": Severity.ERROR}


def test_fulls_that_are_never_made_are_a_warning() -> None:
    assert found(vms(verify_boot=VerifyBoot("full", agent=True))) == {
        "verify_boot.on": Severity.WARNING
    }


def test_files_are_not_booted() -> None:
    given = policy(verify_boot=VerifyBoot(agent=True), active=False)
    assert found(given)["verify_boot"] is Severity.ERROR


def test_which_backups_are_followed_by_a_boot_check() -> None:
    kinds = {one: VerifyBoot("full").wants(one) for one in BackupKind}
    assert {one for one, wants in kinds.items() if wants} == {BackupKind.FULL, BackupKind.SYNTHETIC}
    assert all(VerifyBoot("every").wants(one) for one in BackupKind)
