"""When hypervisors are asked for their virtual machines, and what becomes of the answers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from holdfast.base.errors import Unreachable
from holdfast.control.policies import MACHINES, MachineSelection
from holdfast.control.schedule import BackupKind, Calendar, Schedule
from holdfast.movers.machines import asking
from holdfast.site import discovering
from holdfast.site.discovering import AGAIN, AHEAD, DAILY, HOURLY, Discoverer
from tests.kit.policies import NIGHTLY, policy
from tests.kit.served import until
from tests.kit.virtual_machines import FakeHypervisor, hypervisor, machine

if TYPE_CHECKING:
    from tests.kit.api import Api

KEY = b"k" * 32
MINUTE = timedelta(minutes=1)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeHypervisor:
    made = FakeHypervisor([machine("web1", 1)])
    monkeypatch.setattr(asking, "open_provider", made.opener)
    return made


def protect(api: Api, **others: Any) -> None:
    wanted = MachineSelection("*", others.pop("on", ()))
    given = {"type": MACHINES, "clients": (), "selections": (), "machines": wanted}
    made = policy("vms", **given | others)
    api.master.policies.apply(api.master.policies.plan([made]), "a test")


def asked(api: Api, fake: FakeHypervisor) -> int:
    """How many hypervisors are asked by one look."""
    before = len(fake.opened)
    discoverer = Discoverer(api.master)
    for name in discoverer.due():
        discoverer._look(name)
    return len(fake.opened) - before


def test_every_hypervisor_is_asked_once_a_day(api: Api, fake: FakeHypervisor) -> None:
    assert Discoverer(api.master).due() == []
    api.master.hypervisors.add(hypervisor("a"), {}, KEY)
    api.master.hypervisors.add(hypervisor("b"), {}, KEY)
    assert asked(api, fake) == 2
    assert asked(api, fake) == 0
    api.clock.move(DAILY - MINUTE)
    assert asked(api, fake) == 0
    api.clock.move(MINUTE)
    assert asked(api, fake) == 2
    # A clock that was put back does not silence it.
    api.clock.move(-timedelta(days=400))
    assert asked(api, fake) == 2


def test_those_of_a_policy_are_asked_once_an_hour(api: Api, fake: FakeHypervisor) -> None:
    api.master.hypervisors.add(hypervisor("a"), {}, KEY)
    api.master.hypervisors.add(hypervisor("b"), {}, KEY)
    assert asked(api, fake) == 2
    protect(api, on=("a",), active=False, schedules=(NIGHTLY,))
    api.clock.move(HOURLY)
    assert asked(api, fake) == 0
    protect(api, on=("a",), schedules=(NIGHTLY,))
    assert asked(api, fake) == 1
    protect(api, schedules=(NIGHTLY,))
    api.clock.move(HOURLY)
    assert asked(api, fake) == 2


def test_before_a_policy_is_due_by_its_calendar_they_are_asked(
    api: Api, fake: FakeHypervisor
) -> None:
    api.master.zone = UTC
    daily = Calendar(("FREQ=DAILY;BYHOUR=21;BYMINUTE=0;BYSECOND=0",))
    by_calendar = Schedule("evening", BackupKind.DIFFERENTIAL, calendar=daily)
    protect(api, schedules=(by_calendar,))
    api.master.hypervisors.add(hypervisor("a"), {}, KEY)
    now = api.clock.now()
    evening = datetime(now.year, now.month, now.day, 21, tzinfo=UTC) + timedelta(days=1)
    api.clock.move(evening - AHEAD * 2 - now)
    assert asked(api, fake) == 1
    api.clock.move(AHEAD - MINUTE)
    assert asked(api, fake) == 0
    api.clock.move(2 * MINUTE)
    assert asked(api, fake) == 1
    api.clock.move(5 * MINUTE)
    assert asked(api, fake) == 0


def test_one_that_does_not_answer_is_asked_again_and_keeps_nobody_waiting(
    api: Api, fake: FakeHypervisor, caplog: pytest.LogCaptureFixture
) -> None:
    protect(api, schedules=(NIGHTLY,))
    api.master.hypervisors.add(hypervisor("a"), {"password": "s3cret"}, KEY)
    fake.error = Unreachable("nobody answers")
    assert asked(api, fake) == 1
    assert asked(api, fake) == 0
    api.clock.move(AGAIN)
    fake.error = RuntimeError("a defect")
    assert asked(api, fake) == 1
    api.clock.move(AGAIN)
    fake.error = None
    assert asked(api, fake) == 1
    assert len(api.master.hypervisors.estate().select()) == 1
    assert "hypervisor 'a' tells no machines: nobody answers" in caplog.text
    assert "s3cret" not in caplog.text


def test_they_are_asked_while_a_site_is_served(
    api: Api, fake: FakeHypervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(discovering, "LOOK_S", 0.05)
    api.master.hypervisors.add(hypervisor("a"), {}, KEY)
    discoverer = Discoverer(api.master)
    discoverer.start()
    try:
        until(lambda: api.master.hypervisors.estate().select(), "its machines to be told")
    finally:
        discoverer.close()
    assert len(fake.opened) == 1
