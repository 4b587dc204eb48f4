"""Hypervisors and virtual machines through the API."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from holdfast.base.errors import (
    AlreadyExists,
    Forbidden,
    HoldfastError,
    Invalid,
    NotFound,
    Unreachable,
    WrongState,
)
from holdfast.base.ids import PoolId
from holdfast.control.access import Role, Scope
from holdfast.control.policies import MACHINES, MachineSelection
from holdfast.movers.machines import asking
from holdfast.wire import hypervisors as wire
from holdfast.wire.messages import ImageNote
from tests.kit.policies import policy
from tests.kit.virtual_machines import FakeHypervisor, machine, uuid

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kit.api import Api

POOL = PoolId("0" * 32)
ESX: dict[str, Any] = {"name": "esx", "kind": "libvirt", "url": "qemu:///system"}


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeHypervisor:
    made = FakeHypervisor([machine("web1", 1), machine("db1", 2, tags=("test",))])
    monkeypatch.setattr(asking, "open_provider", made.opener)
    return made


def protect(api: Api, query: str, name: str = "vms", **others: Any) -> None:
    wanted = MachineSelection(query)
    given = {"type": MACHINES, "clients": (), "selections": (), "machines": wanted}
    api.master.policies.apply(api.master.policies.plan([policy(name, **given | others)]), "a test")


def names(rows: list[dict[str, Any]]) -> list[str]:
    return [row["name"] for row in rows]


def test_a_hypervisor_is_made_known_asked_changed_and_forgotten(
    api: Api, fake: FakeHypervisor
) -> None:
    client = api.client()
    credentials = {"user": "backup", "password": "s3cret"}
    made = client.post("/hypervisors", {**ESX, "credentials": credentials, "per_host": 3})
    assert (made["has_credentials"], made["virtual_machines"], made["looked_at"]) == (True, 0, None)
    asked = client.post("/hypervisors/esx/discover", {})
    assert asked["virtual_machines"] == 2
    assert fake.opened[0][:2] == ("libvirt", "qemu:///system")
    assert (fake.opened[0][2].user, fake.opened[0][2].password) == ("backup", "s3cret")
    changed = client.patch("/hypervisors/esx", {"per_datastore": 7})
    assert (changed["per_host"], changed["per_datastore"]) == (3, 7)
    assert changed["has_credentials"]
    emptied = client.patch("/hypervisors/esx", {"credentials": {}})
    assert not emptied["has_credentials"]
    assert names(client.get("/hypervisors")["items"]) == ["esx"]
    client.delete("/hypervisors/esx")
    with pytest.raises(NotFound):
        client.get("/hypervisors/esx")


def test_credentials_are_neither_shown_nor_noted(api: Api, fake: FakeHypervisor) -> None:
    client = api.client()
    made = client.post("/hypervisors", {**ESX, "credentials": {"user": "u", "password": "s3cret"}})
    client.patch("/hypervisors/esx", {"credentials": {"user": "u", "password": "s3cret2"}})
    client.post("/hypervisors/esx/discover", {})
    assert "s3cret" not in json.dumps([made, client.get("/hypervisors")])
    assert "s3cret" not in "".join(str(row) for row in api.audited())
    assert fake.opened[-1][2].password == "s3cret2"


def test_who_does_not_answer_is_told_of_and_what_is_known_is_kept(
    api: Api, fake: FakeHypervisor
) -> None:
    client = api.client()
    client.post("/hypervisors", ESX)
    client.post("/hypervisors/esx/discover", {})
    api.clock.move(timedelta(hours=1))
    fake.error = Unreachable("nobody answers at qemu:///system", "start libvirtd")
    with pytest.raises(Unreachable, match="nobody answers"):
        client.post("/hypervisors/esx/discover", {})
    (row,) = client.get("/hypervisors")["items"]
    assert row["problem"] == "nobody answers at qemu:///system"
    assert row["looked_at"] < row["tried_at"]
    assert names(list(client.pages("/virtual-machines"))) == ["db1", "web1"]


def test_what_can_not_be_is_refused(api: Api, fake: FakeHypervisor) -> None:
    client = api.client()
    client.post("/hypervisors", ESX)
    with pytest.raises(AlreadyExists):
        client.post("/hypervisors", ESX)
    with pytest.raises(Invalid, match="not a kind of hypervisor"):
        client.post("/hypervisors", {**ESX, "name": "b", "kind": "xen"})
    with pytest.raises(NotFound, match="no machine 'p1' with an agent"):
        client.post("/hypervisors", {**ESX, "name": "b", "proxy": "p1"})
    with pytest.raises(NotFound, match="no machine 'p1' with an agent"):
        client.patch("/hypervisors/esx", {"proxy": "p1"})
    protect(api, "*", machines=MachineSelection("*", ("esx",)))
    with pytest.raises(WrongState, match="named by 1 policies, such as 'vms'"):
        client.delete("/hypervisors/esx")
    assert fake.opened == []


def test_machines_are_listed_with_what_protects_them(api: Api, fake: FakeHypervisor) -> None:
    client = api.client()
    client.post("/hypervisors", ESX)
    client.post("/hypervisors/esx/discover", {})
    protect(api, "tag=prod")
    protect(api, "*", "asleep", active=False)
    of, when = f"machine:{uuid(1)}", 10**18
    note = ImageNote("ab" * 16, 1, of, "web1", when, when, None, "completed", {}, 0, "x", {})
    api.master.catalog.record_image(note, POOL)
    db1, web1 = client.pages("/virtual-machines")
    assert (web1["name"], web1["client"], web1["policies"]) == ("web1", "web1", ["vms"])
    assert (web1["image"], web1["backed_up_at"]) == ("ab" * 16, "2001-09-09T01:46:40Z")
    assert (db1["policies"], db1["image"], db1["present"]) == ([], None, True)
    assert web1["size_bytes"] == 50 << 30
    assert names(list(client.pages("/virtual-machines", unprotected=True))) == ["db1"]
    where = list(client.pages("/virtual-machines", where="tag=test or name=web*"))
    assert names(where) == ["db1", "web1"]
    assert names(client.get("/virtual-machines", limit=1)["items"]) == ["db1"]
    with pytest.raises(Invalid, match="character 1: there is no field 'nmae'"):
        client.get("/virtual-machines", where="nmae=web1")


def test_pages_of_machines_follow_each_other(api: Api, fake: FakeHypervisor) -> None:
    fake.has = [machine(f"M{n % 3}", n) for n in range(7)]
    client = api.client()
    client.post("/hypervisors", ESX)
    client.post("/hypervisors/esx/discover", {})
    cursor, found = None, []
    while True:
        page = client.get("/virtual-machines", limit=2, cursor=cursor)
        found += [row["uuid"] for row in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert found == [row["uuid"] for row in client.pages("/virtual-machines")]
    assert len(found) == len(set(found)) == 7


def test_one_machine_is_named_by_its_name_or_uuid(api: Api, fake: FakeHypervisor) -> None:
    client = api.client()
    client.post("/hypervisors", ESX)
    client.post("/hypervisors/esx/discover", {})
    assert client.get("/virtual-machines/WEB1")["uuid"] == uuid(1)
    assert client.get(f"/virtual-machines/{uuid(2)}")["name"] == "db1"
    with pytest.raises(NotFound):
        client.get("/virtual-machines/web9")
    fake.has = [machine("db1", 2), machine("DB1", 3)]
    client.post("/hypervisors/esx/discover", {})
    with pytest.raises(Invalid, match="several virtual machines"):
        client.get("/virtual-machines/db1")
    assert not client.get("/virtual-machines/web1")["present"]


def test_who_is_bounded_sees_machines_of_that_name_alone(api: Api, fake: FakeHypervisor) -> None:
    client = api.client()
    client.post("/hypervisors", ESX)
    client.post("/hypervisors/esx/discover", {})
    protect(api, "*")
    bounded = api.client(api.token(Role.ADMINISTRATOR, Scope.of(["web*"])))
    assert names(list(bounded.pages("/virtual-machines"))) == ["web1"]
    with pytest.raises(NotFound):
        bounded.get("/virtual-machines/db1")
    assert names(list(bounded.pages("/policies", client="web1"))) == ["vms"]
    assert names(list(bounded.pages("/policies", client="web2"))) == []
    # A policy with a query is for machines that nobody knows yet.
    assert bounded.get("/policies/vms")["clients"] == ["web1"]
    with pytest.raises(Forbidden, match="query for virtual machines"):
        bounded.delete("/policies/vms")


def test_thousands_of_machines_are_told_in_several_reports(
    api: Api, fake: FakeHypervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "MOST_AT_ONCE", 3)
    fake.has = [machine(f"m{n}", n) for n in range(10)]
    client = api.client()
    client.post("/hypervisors", ESX)
    assert client.post("/hypervisors/esx/discover", {})["virtual_machines"] == 10
    assert len(fake.opened) == 4
    monkeypatch.setattr(asking, "MAX_REPORT_BYTES", 1)
    assert client.post("/hypervisors/esx/discover", {})["virtual_machines"] == 10


def test_a_trial_has_the_scratch_that_a_backup_would(fake: FakeHypervisor, tmp_path: Path) -> None:
    from holdfast.wire.machine_work import Reached

    fake.has = [machine()]
    reached, own = Reached("esx", "libvirt", "qemu:///system", {}), tmp_path / "home" / "scratch"
    for named in (None, str(tmp_path / "named" / "below")):
        order = wire.TryOrder(reached, fake.has[0].uuid, named, leave_out=("vdb",))
        assert asking.try_machine(order, own).remarks == ()
        assert list(tmp_path.iterdir()) == [], "it is gone"
        assert fake.unwanted[-1] == ("vdb",)
    (tmp_path / "file").touch()
    with pytest.raises(HoldfastError, match=f"can't make scratch files in '{tmp_path}/file'"):
        asking.try_machine(wire.TryOrder(reached, fake.has[0].uuid), tmp_path / "file")


def test_what_travels_between_master_and_proxy_is_what_it_was() -> None:
    from holdfast.sources.machines.provider import Remark
    from holdfast.wire.machine_work import Reached

    reached = Reached("esx", "libvirt", "qemu:///system", {"user": "u"})
    for made, kind in (
        (wire.ListOrder(reached, "a"), wire.ListOrder),
        (wire.TryOrder(reached, uuid(1), "/scratch"), wire.TryOrder),
        (wire.TryOrder(reached, uuid(1), trim=True, leave_out=("vdb",)), wire.TryOrder),
        (wire.ListReport((machine(), machine("b", 2, disks=())), is_whole=False), wire.ListReport),
        (wire.TryReport((Remark("error", "no", "it can't", "vda"),)), wire.TryReport),
    ):
        data = json.loads(json.dumps(made.to_json()))
        assert kind.from_json(data) == made
        for wrong in ({"version": 2}, {"answer": "x", "ask": "x"}):
            with pytest.raises(Invalid, match="not known here"):
                kind.from_json({**data, **wrong})
    told = json.loads(json.dumps(wire.ListReport((machine(),)).to_json()))
    for key, wrong_value in (("name", 7), ("memory", -1), ("tags", "prod"), ("disks", [1])):
        broken = {**told, "machines": [{**told["machines"][0], key: wrong_value}]}
        with pytest.raises(Invalid, match=key):
            wire.ListReport.from_json(broken)
