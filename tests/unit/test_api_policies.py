"""Policies through the API."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from holdfast.base import errors
from holdfast.base.config import SiteConfig
from holdfast.base.ids import ClientName, pool_id
from holdfast.control.access import Role, Scope
from holdfast.control.policies import Format, Policy, parse, render, schema, to_plain
from holdfast.engine import Pool, PoolConfig
from holdfast.faces.cli.api_client import ApiClient, at
from tests.kit.api import Api
from tests.kit.policies import policy

HERE = ClientName(os.uname().nodename)


def mine(name: str = "servers", **others: Any) -> Policy:
    """A policy for this machine."""
    return policy(name, **{"clients": (HERE,), **others})


def body(*policies: Policy, **others: Any) -> dict[str, Any]:
    return {"policies": [to_plain(one) for one in policies], "live": False, **others}


def apply(client: ApiClient, *policies: Policy, **others: Any) -> Any:
    return client.post("/policy-document/apply", body(*policies, **others))


def faults(error: errors.HoldfastError) -> list[str]:
    assert isinstance(error, errors.PolicyInvalid)
    return [where for where, _, _ in error.faults]


def audited(api: Api) -> Any:
    """What the audit log has of the last document that was applied."""
    entries = [row.entry for row in api.audited() if row.entry.what == "apply_policies"]
    return json.loads(entries[-1].details)


def test_a_policy_is_made_looked_at_switched_and_removed(api: Api) -> None:
    client = api.client()
    done = apply(client, mine())
    assert (done["created"], done["changed"], done["removed"]) == (["servers"], [], [])
    shown = client.get("/policies/servers")
    assert shown["policy"] == to_plain(mine(), whole=True)
    assert (shown["revision"], shown["clients"]) == (1, [HERE])
    assert shown["changed_by"].startswith("local:")
    off = client.post("/policies/servers/deactivate", revision=1)
    assert (off["policy"]["active"], off["revision"]) == (False, 2)
    with pytest.raises(errors.EditConflict, match="revision 2"):
        client.post("/policies/servers/activate", revision=1)
    assert client.post("/policies/servers/activate")["revision"] == 3
    with pytest.raises(errors.EditConflict):
        client.delete("/policies/servers", revision=2)
    client.delete("/policies/servers", revision=3)
    for path in ("/policies/servers", "/policies/no such"):
        with pytest.raises(errors.PolicyMissing):
            client.get(path)
    acts = [one["act"] for one in client.pages("/policies/servers/revisions")]
    assert acts == ["removed", "changed", "changed", "created"]
    with pytest.raises(errors.PolicyMissing, match="never"):
        client.get("/policies/none/revisions")


def test_lists_come_in_pages_and_are_filtered(api: Api) -> None:
    client = api.client()
    apply(client, mine("a"), mine("b", active=False), mine("c"), mine("d", storage_unit="default"))
    page = client.get("/policies", limit=3)
    assert [row["name"] for row in page["items"]] == ["a", "b", "c"]
    rest = client.get("/policies", limit=3, cursor=page["next_cursor"])
    assert ([row["name"] for row in rest["items"]], rest["next_cursor"]) == (["d"], None)
    assert [row["name"] for row in client.pages("/policies", active=False)] == ["b"]
    assert list(client.pages("/policies", client="elsewhere")) == []
    (row,) = client.pages("/policies", text="a")
    assert row["schedules"] == [{"name": "nightly", "kind": "differential"}]


def test_what_is_wrong_is_refused_all_at_once(api: Api) -> None:
    client = api.client()
    wrong = mine(storage_unit="nowhere", encryption="none", selections=())
    with pytest.raises(errors.PolicyInvalid) as refused:
        apply(client, mine("good"), wrong)
    assert faults(refused.value) == [
        "policy 'servers', storage_unit",
        "policy 'servers', encryption",
        "policy 'servers', selections",
    ]
    assert refused.value.exit_status == 64
    assert list(client.pages("/policies")) == []
    assert audited(api)["code"] == "policy-invalid"


def test_a_text_is_validated_with_places(api: Api) -> None:
    client = api.client()
    text = render([mine(storage_unit="nowhere")], Format.YAML) + "  activ: true\n"
    answer = client.post(
        "/policy-document/validate", {"text": text, "format": "yaml", "live": False}
    )
    assert not answer["valid"]
    assert {(one["place"], one["policy"]) for one in answer["findings"]} == {
        ("activ", "servers"),
        ("storage_unit", "servers"),
    }
    assert client.post("/policy-document/validate", body(mine())) == {
        "valid": True,
        "findings": [],
    }


@pytest.mark.parametrize("given", [{}, {"text": "", "policies": []}, {"prune": True}])
def test_a_document_is_text_or_data(api: Api, given: dict[str, Any]) -> None:
    client = api.client()
    apply(client, mine())
    with pytest.raises(errors.Invalid):
        client.post("/policy-document/apply", given)
    assert len(list(client.pages("/policies"))) == 1


def test_a_plan_is_looked_at_and_then_carried_out_as_it_was(api: Api) -> None:
    client = api.client()
    apply(client, mine(), mine("others"), mine("third"))
    wanted = body(mine(priority=70), mine("third"), mine("new"), prune=True)
    plan = client.post("/policy-document/plan", wanted)
    assert plan["valid"]
    assert [one["name"] for one in plan["creates"]] == ["new"]
    assert [(one["name"], one["fields"]) for one in plan["changes"]] == [
        ("servers", [{"place": "priority", "old": 50, "new": 70}])
    ]
    assert plan["removals"] == [{"name": "others", "revision": 1}]
    assert (plan["unchanged"], plan["others"]) == (["third"], [])
    assert plan["revisions"] == {"new": 0, "servers": 1, "others": 1}
    assert len(list(client.pages("/policies"))) == 3
    apply(client, mine("others", priority=1))
    with pytest.raises(errors.EditConflict, match="'others'"):
        client.post("/policy-document/apply", wanted | {"revisions": plan["revisions"]})
    plan = client.post("/policy-document/plan", wanted)
    done = client.post("/policy-document/apply", wanted | {"revisions": plan["revisions"]})
    assert (done["created"], done["changed"], done["removed"]) == (
        ["new"],
        ["servers"],
        ["others"],
    )
    empty = client.post("/policy-document/plan", wanted)
    assert (empty["creates"], empty["changes"], empty["removals"]) == ([], [], [])


def test_an_act_repeated_with_its_key_is_done_once(api: Api) -> None:
    http = api.http(api.token(Role.ADMINISTRATOR))
    headers = {"Idempotency-Key": "one"}
    given = body(mine())
    first = http.post("/api/v1/policy-document/apply", json=given, headers=headers)
    again = http.post("/api/v1/policy-document/apply", json=given, headers=headers)
    assert first.json() == again.json()
    assert first.json()["created"] == ["servers"]


def test_what_is_exported_changes_nothing_when_it_is_applied(api: Api) -> None:
    client = api.client()
    apply(client, mine(), mine("others", priority=3))
    for form in Format:
        text = b"".join(client.text("/policy-document", format=form.value)).decode()
        assert set(parse(text, form).policies) == {mine(), mine("others", priority=3)}
        given = {"text": text, "format": form.value, "live": False, "prune": True}
        done = client.post("/policy-document/apply", given)
        assert (done["created"], done["changed"], done["removed"]) == ([], [], [])
    text = b"".join(client.text("/policy-document", name=["others"])).decode()
    assert [one.name for one in parse(text, Format.TOML).policies] == ["others"]
    with pytest.raises(errors.PolicyMissing):
        list(client.text("/policy-document", name=["none"]))


def test_a_query_has_this_machine_before_there_is_any_image(api: Api) -> None:
    client = api.client()
    apply(client, mine("all", clients=(), client_query="*"))
    assert client.get("/policies/all")["clients"] == [HERE]
    assert api.master.policies.known_clients().names == (HERE,)


def test_templates_are_listed_and_filled_in(api: Api) -> None:
    client = api.client()
    names = [row["name"] for row in client.pages("/policy-templates")]
    assert "server" in names
    filled = client.get("/policy-templates/server", policy="mine", client=[HERE])
    assert f'clients = ["{HERE}"]' in filled["text"]
    done = client.post("/policy-document/apply", {"text": filled["text"], "live": False})
    assert done["created"] == ["mine"]
    with pytest.raises(errors.NotFound):
        client.get("/policy-templates/none")


@pytest.fixture
def pool(api: Api, tmp_path: Path) -> Pool:
    """A pool that really is where the site's configuration says."""
    place = str(tmp_path / "pool")
    made = Pool.create(place, bytes(32), PoolConfig(), 1)
    api.master.site.config = SiteConfig(place, pool_id(made.id), "key-file")
    return made


def test_what_a_look_finds_is_refused_unless_nobody_is_to_look(
    api: Api, pool: Pool, tmp_path: Path
) -> None:
    client = api.client()
    missing = mine(selections=(replace(mine().selections[0], paths=(f"{tmp_path}/gone",)),))
    with pytest.raises(errors.PolicyInvalid) as refused:
        apply(client, missing, live=True)
    assert faults(refused.value) == ["policy 'servers', selections[0].paths[0]"]
    inactive = replace(missing, active=False)
    assert apply(client, inactive, live=True)["created"] == ["servers"]
    assert apply(client, missing)["changed"] == ["servers"]
    # What is as it was is not looked at again by an apply; by a validation it is.
    assert apply(client, missing, live=True)["changed"] == []
    assert not client.post("/policy-document/validate", body(missing, live=True))["valid"]
    (tmp_path / "gone").mkdir()
    looked = client.post("/policy-document/validate", body(missing, live=True))
    assert looked["valid"]
    assert [one["severity"] for one in looked["findings"]] == ["warning"]


def test_storage_that_is_gone_is_told(api: Api) -> None:
    with pytest.raises(errors.PolicyInvalid) as refused:
        apply(api.client(), mine(), live=True)
    assert "policy 'servers', storage_unit" in faults(refused.value)


WEB = Scope(("web*",))


@pytest.fixture
def known(api: Api) -> None:
    """A site that knows some clients."""
    with api.master.database.write() as connection:
        connection.execute(
            sa.text("INSERT INTO clients (id, name) VALUES (1, 'web1'), (2, 'web2'), (3, 'db1')")
        )


@pytest.mark.usefixtures("known")
def test_who_is_bounded_sees_and_edits_policies_of_own_clients_alone(api: Api) -> None:
    web1, db1 = ClientName("web1"), ClientName("db1")
    both = policy("both", clients=(web1, db1))
    theirs, query = policy("theirs", clients=(db1,)), policy("query", clients=(), client_query="w*")
    apply(api.client(), policy("own"), both, theirs, query)
    bounded = api.client(api.token(Role.ADMINISTRATOR, WEB))
    assert [row["name"] for row in bounded.pages("/policies", limit=2)] == ["both", "own"]
    assert [row["name"] for row in bounded.pages("/policies")] == ["both", "own", "query"]
    shown = bounded.get("/policies/both")
    assert shown["clients"] == shown["policy"]["clients"] == ["web1"]
    assert bounded.get("/policies/query")["clients"] == ["web1", "web2"]
    for path in ("/policies/theirs", "/policies/theirs/revisions"):
        with pytest.raises(errors.PolicyMissing):
            bounded.get(path)
    with pytest.raises(errors.Forbidden):
        bounded.get("/policies/both/revisions")
    assert len(bounded.get("/policies/own/revisions")["items"]) == 1
    assert bounded.get("/policies", client="db1")["items"] == []
    apply(api.client(), policy("own", clients=(db1,)), policy("own2"))
    apply(api.client(), policy("own"))
    (_, before, _) = bounded.get("/policies/own/revisions")["items"]
    assert before["policy"]["clients"] == []
    exported = parse(b"".join(bounded.text("/policy-document")).decode(), Format.TOML)
    assert [one.name for one in exported.policies] == ["own", "own2"]
    assert apply(bounded, policy("own", priority=1))["changed"] == ["own"]
    # What nobody may see is not there to be named.
    with pytest.raises(errors.PolicyInvalid):
        apply(bounded, policy("new", clients=(db1,)))
    for refused in (policy("both", clients=(web1,)),
                    policy("new", clients=(db1,), active=False),
                    policy("new", clients=(), client_query="web*")):  # fmt: skip
        with pytest.raises(errors.Forbidden):
            apply(bounded, refused)
        for act in ("plan", "validate"):
            with pytest.raises(errors.Forbidden):
                bounded.post(at("policy-document", act), body(refused))
    with pytest.raises(errors.Forbidden):
        apply(bounded, policy("own", priority=1), prune=True)
    for name in ("both", "query"):
        with pytest.raises(errors.Forbidden):
            bounded.delete(at("policies", name))
        with pytest.raises(errors.Forbidden):
            bounded.post(at("policies", name, "deactivate"))
    bounded.delete("/policies/own")


@pytest.mark.usefixtures("known")
def test_who_is_bounded_is_not_told_of_other_clients(api: Api) -> None:
    bounded = api.client(api.token(Role.ADMINISTRATOR, WEB))
    answer = bounded.post("/policy-document/validate", body(policy(clients=(ClientName("db2"),))))
    assert "db1" not in json.dumps(answer)
    assert not answer["valid"]


def test_what_can_not_be_read_is_listed_with_its_reason(api: Api) -> None:
    client = api.client()
    apply(client, mine("a"), mine("b"), mine("c"))
    with api.master.database.write() as connection:
        table = schema.policies
        of_it = table.c.name == "b"
        text = connection.scalar(sa.select(table.c.document).where(of_it)) or ""
        strange = text.replace('"every"', '"zone":"Mars/Olympus","every"')
        connection.execute(sa.update(table).where(of_it).values(document=strange))
    rows = list(client.pages("/policies", limit=2))
    assert [(row["name"], row["unreadable"] is None) for row in rows] == [("a", True), ("b", False)]
    assert len(list(client.pages("/policies"))) == 3
    with pytest.raises(errors.CatalogError, match="Mars/Olympus"):
        client.get("/policies/b")
    apply(client, mine("b"))
    assert client.get("/policies/b")["policy"]["name"] == "b"


@pytest.mark.usefixtures("known")
def test_a_long_document_is_not_written_into_the_audit_log(api: Api) -> None:
    client = api.client()
    apply(client, *(policy(f"p{number:04}") for number in range(400)))
    details = audited(api)
    assert "body" not in details
    assert details["created"] == 400
