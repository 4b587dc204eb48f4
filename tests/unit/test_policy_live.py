"""What is found wrong with a policy by a look at clients, storage and history."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from holdfast.base.config import SiteConfig
from holdfast.base.errors import HoldfastError, NoSpace, NotAPool, Unreachable, WrongKey
from holdfast.base.ids import ClientName, SourceName, pool_id
from holdfast.control.policies import (
    ALL_LOCAL_DRIVES,
    Finding,
    PastBackup,
    Policy,
    Room,
    Selection,
    Severity,
    Split,
    SplitKey,
    check_live,
)
from holdfast.control.policies.live import MOST_CLIENTS
from holdfast.control.retention import Rules
from holdfast.control.schedule import Window
from holdfast.engine import Pool, PoolConfig
from holdfast.site import probing
from holdfast.site.probing import SiteProbe, this_client
from holdfast.site.site import Site
from holdfast.vault import try_writing
from holdfast.wire.looking import LookOrder, LookReport, Trouble
from tests.kit.policies import NIGHTLY, policy

WEB1, WEB2 = ClientName("web1"), ClientName("web2")
GIB = 1 << 30
SHORT = replace(NIGHTLY, windows=(Window(frozenset(range(5)), time(22), time(0)),))


@dataclass
class FakeProbe:
    """Sees what a test says."""

    reports: Mapping[Any, LookReport | HoldfastError] = field(default_factory=dict)
    free_bytes: int | None = 100 * GIB
    splits: dict[str, Split] = field(default_factory=dict)
    failure: HoldfastError | None = None
    past: Mapping[str, Sequence[PastBackup]] = field(default_factory=dict)
    asked: list[tuple[ClientName, LookOrder]] = field(default_factory=list)

    def look(self, client: ClientName, order: LookOrder) -> LookReport:
        self.asked.append((client, order))
        found = self.reports.get((client, order.paths), LookReport("root", (), 5, 0, GIB, True))
        if isinstance(found, HoldfastError):
            raise found
        return found

    def room(self, storage_unit: str) -> Room:
        if self.failure is not None:
            raise self.failure
        return Room(self.free_bytes)

    def history(self, source: SourceName) -> Sequence[PastBackup]:
        return self.past.get(source, ())

    def divided(self, key: SplitKey) -> Split | None:
        return self.splits.get(key.path)


def found(
    probe: FakeProbe, given: Policy | None = None, clients: Sequence[ClientName] = (WEB1,)
) -> dict[str, Finding]:
    findings = check_live(given or policy(), clients, probe)
    assert all(one.policy == "servers" for one in findings)
    places = {one.place: one for one in findings}
    assert len(places) == len(findings), [one.text for one in findings]
    return places


def seen(*troubles: Trouble) -> LookReport:
    return LookReport("root", troubles, 5, 0, 0, False)


def test_nothing_is_found_where_all_is_well() -> None:
    probe = FakeProbe()
    assert found(probe) == {}
    assert probe.asked == [(WEB1, LookOrder(("/etc", "/srv")))]


def test_what_a_client_saw_is_told_where_it_is_written() -> None:
    probe = FakeProbe(
        {
            ("web1", ("/etc", "/srv")): seen(
                Trouble("error", "missing", "there is no '/srv'", "look", "/srv"),
                Trouble("error", "missing", "there is no program", None, "/bin/dump"),
                Trouble("warning", "no-permission", "3 of 5 names", None, None),
            ),
            ("web1", ("ALL_LOCAL_DRIVES",)): seen(
                Trouble("warning", "empty", "nothing", None, "ALL_LOCAL_DRIVES")
            ),
        }
    )
    given = policy(
        pre_command=("/bin/dump", "/etc"),
        selections=(*policy().selections, Selection("all", ALL_LOCAL_DRIVES)),
    )
    findings = found(probe, given)
    assert {place: one.severity for place, one in findings.items()} == {
        "selections[0].paths[1]": Severity.ERROR,
        "pre_command[0]": Severity.ERROR,
        "selections[0]": Severity.WARNING,
        "selections[1]": Severity.WARNING,
    }
    assert findings["selections[0].paths[1]"].hint == "look"
    # Programs are looked for once, not for each selection.
    assert [order.programs for _, order in probe.asked] == [("/bin/dump",), ()]


def test_what_is_alike_on_several_clients_is_told_once() -> None:
    trouble = seen(Trouble("error", "missing", "there is no '/srv'", None, "/srv"))
    both = {(name, ("/etc", "/srv")): trouble for name in ("web1", "web2")}
    given = policy(clients=(WEB1, WEB2, ClientName("db1")))
    findings = found(FakeProbe(both), given, given.clients)
    assert findings["selections[0].paths[1]"].message == "on web1 and 1 more: there is no '/srv'"
    alone = {("web2", ("/etc", "/srv")): trouble}
    findings = found(FakeProbe(alone), given, given.clients)
    assert findings["selections[0].paths[1]"].message == "on web2: there is no '/srv'"


def test_a_client_that_does_not_answer_is_told_at_its_name() -> None:
    probe = FakeProbe({("web2", ("/etc", "/srv")): Unreachable("nobody is there", "join it")})
    named = found(probe, policy(clients=(WEB1, WEB2)), (WEB1, WEB2))
    assert named["clients[1]"].message == "on web2: it can't be reached: nobody is there"
    assert named["clients[1]"].hint == "join it"
    asked = found(probe, policy(clients=(), client_query="web*"), (WEB1, WEB2))
    assert list(asked) == ["client_query"]


def test_of_many_clients_some_are_looked_at() -> None:
    probe = FakeProbe()
    clients = [ClientName(f"web{number}") for number in range(1000)]
    findings = found(probe, policy(clients=(), client_query="web*"), clients)
    assert len(probe.asked) == MOST_CLIENTS
    assert findings["client_query"].severity is Severity.INFO
    assert "20 of 1,000" in findings["client_query"].message


def test_storage_that_can_not_be_written_is_told_with_its_cause() -> None:
    findings = found(FakeProbe(failure=NoSpace("the disk is full", "free some")))
    assert findings["storage_unit"].severity is Severity.ERROR
    assert findings["storage_unit"].message.endswith("can't be written: the disk is full")
    assert findings["storage_unit"].hint == "free some"


def runs(*hours: float, kept_bytes: int = GIB) -> list[PastBackup]:
    return [PastBackup(one * 3600, kept_bytes) for one in hours]


def test_a_window_too_short_for_what_backups_took_is_told() -> None:
    given = policy(schedules=(NIGHTLY, SHORT))
    source = "web1:/etc,/srv"
    assert found(FakeProbe(past={source: runs(1, 1, 1)}), given) == {}
    assert found(FakeProbe(past={source: runs(3, 3)}), given) == {}
    # One that took long once is not what is usual.
    assert found(FakeProbe(past={source: runs(*[1] * 19, 9)}), given) == {}
    findings = found(FakeProbe(past={source: runs(3, 3, 3)}), given)
    assert list(findings) == ["schedules[1].windows"]
    assert "take 3 h 00 m" in findings["schedules[1].windows"].message
    assert "open for 2 h 00 m" in findings["schedules[1].windows"].message


def test_sources_of_a_client_follow_each_other_as_its_streams_allow() -> None:
    one, other = Selection("one", ("/one",)), Selection("two", ("/two",))
    past = {"web1:/one": runs(1.5, 1.5, 1.5), "web1:/two": runs(1.5, 1.5, 1.5)}
    given = policy(schedules=(SHORT,), selections=(one, other))
    assert list(found(FakeProbe(past=past), given)) == ["schedules[0].windows"]
    parallel = replace(given, limits=replace(given.limits, streams_per_client=2))
    assert found(FakeProbe(past=past), parallel) == {}


def test_what_does_not_fit_is_told() -> None:
    source = "web1:/etc,/srv"
    first = found(FakeProbe(free_bytes=GIB - 1))
    assert list(first) == ["storage_unit"]
    assert "up to 1.00 GiB" in first["storage_unit"].message
    # Eleven images of a GiB stay; five are there.
    past = {source: runs(1, 1, 1, 1, 1)}
    assert found(FakeProbe(free_bytes=6 * GIB, past=past)) == {}
    later = found(FakeProbe(free_bytes=6 * GIB - 1, past=past))
    assert list(later) == ["retention"]
    assert "some 6.00 GiB more" in later["retention"].message
    assert found(FakeProbe(free_bytes=None)) == {}
    forever = policy(retention=Rules())
    assert found(FakeProbe(free_bytes=1, past=past), forever) == {}


def test_streams_are_looked_up_by_what_they_are_called() -> None:
    selection = Selection("data", ("/data",))
    limits = replace(policy().limits, streams_per_client=2)
    given = policy(selections=(selection,), streams=2, limits=limits, schedules=(SHORT,))
    splits = {"/data": Split(1, (("a",),))}
    past = {"web1:split-1.stream-1:/data": runs(1, 1, 1), "web1:split-1.rest:/data": runs(3, 3, 3)}
    # Both run at once, and the larger takes longer than the window.
    told = found(FakeProbe(past=past, splits=splits, free_bytes=100 * GIB), given)
    assert list(told) == ["schedules[0].windows"]
    # What is there already is no first backup.
    assert "storage_unit" not in found(
        FakeProbe(past=past, splits=splits, free_bytes=GIB - 1), given
    )
    assert "storage_unit" in found(FakeProbe(splits=splits, free_bytes=GIB - 1), given)


# What really looks.


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    return Pool.create(str(tmp_path / "pool"), bytes(32), PoolConfig(), 1)


def probe_of(tmp_path: Path, pool: Pool, images: Sequence[object] = ()) -> SiteProbe:
    config = SiteConfig(str(tmp_path / "pool"), pool_id(pool.id), "key-file")
    catalog = SimpleNamespace(images=lambda source: images if source == "a:/" else [])
    return SiteProbe(cast("Site", SimpleNamespace(config=config, catalog=catalog)))


def test_the_pool_is_tried_and_left_as_it_was(tmp_path: Path, pool: Pool) -> None:
    before = sorted(os.listdir(tmp_path / "pool"))
    room = probe_of(tmp_path, pool).room("default")
    assert room.free_bytes is not None
    assert room.free_bytes > 0
    assert sorted(os.listdir(tmp_path / "pool")) == before


def test_a_pool_that_is_gone_or_another_is_told(tmp_path: Path, pool: Pool) -> None:
    (tmp_path / "pool").rename(tmp_path / "away")
    with pytest.raises(NotAPool):
        probe_of(tmp_path, pool).room("default")
    other = Pool.create(str(tmp_path / "pool"), bytes(32), PoolConfig(), 1)
    assert try_writing(str(tmp_path / "pool")) == other.id
    with pytest.raises(WrongKey, match=other.id.hex()):
        probe_of(tmp_path, pool).room("default")


def test_this_machine_alone_can_be_looked_at(tmp_path: Path, pool: Pool) -> None:
    probe = probe_of(tmp_path, pool)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "file").touch()
    report = probe.look(this_client(), LookOrder((str(tmp_path / "data"),)))
    assert (report.names, report.troubles) == (1, ())
    with pytest.raises(Unreachable, match="'elsewhere' is not this machine"):
        probe.look(ClientName("elsewhere"), LookOrder(("/etc",)))


def test_a_probe_looks_once_and_not_for_ever(
    tmp_path: Path, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders: list[LookOrder] = []

    def look(order: LookOrder) -> LookReport:
        orders.append(order)
        return LookReport("root")

    monkeypatch.setattr(probing, "look", look)
    now_s = [0.0]
    probe = SiteProbe(probe_of(tmp_path, pool)._site, lambda: now_s[0])
    for path in ("/a", "/a", "/b"):
        probe.look(this_client(), LookOrder((path,)))
    assert [(one.paths, one.within_s) for one in orders] == [(("/a",), 5.0), (("/b",), 5.0)]
    now_s[0] = probing.PATIENCE_S - 1
    assert not probe.is_over
    probe.look(this_client(), LookOrder(("/c",)))
    assert orders[-1].within_s == 1.0
    now_s[0] += 1
    assert probe.is_over


def test_history_is_what_images_took(tmp_path: Path, pool: Pool) -> None:
    began = datetime(2026, 1, 1, tzinfo=UTC)
    image = SimpleNamespace(
        started_at=began, finished_at=began + timedelta(minutes=3), transmitted_bytes=7
    )
    probe = probe_of(tmp_path, pool, [image])
    assert probe.history(SourceName("a:/")) == [PastBackup(180, 7)]
    assert probe.history(SourceName("b:/")) == []


def test_a_client_is_asked_for_the_key_that_it_is_to_seal_with() -> None:
    sealing = policy(clients=(WEB1,), encryption="client", client_key="office")
    lacks = Trouble("error", "no-client-key", "it has none", "make one", "office")
    probe = FakeProbe({(WEB1, ("/etc", "/srv")): LookReport("root", (lacks,), 5, 0, GIB, True)})
    findings = check_live(sealing, [WEB1], probe)
    assert [order.client_key for _, order in probe.asked][:1] == ["office"]
    assert [(one.place, one.severity, one.hint) for one in findings] == [
        ("client_key", Severity.ERROR, "make one")
    ]
    probe.asked.clear()
    check_live(policy(clients=(WEB1,)), [WEB1], probe)
    assert {order.client_key for _, order in probe.asked} == {None}
