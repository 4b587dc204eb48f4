"""Every act through the API is in the audit log, and what was refused."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from holdfast.base import errors
from holdfast.control.access import ROWS_A_MINUTE, Role
from tests.kit.api import Api

SECRET = "four words nobody guesses"


def told(api: Api) -> list[tuple[str, str, str, str]]:
    rows = (row.entry for row in api.audited())
    return [(one.who.partition(":")[0], one.what, one.about, one.outcome) for one in rows]


def test_acts_are_told_with_who_what_and_how_they_ended(api: Api) -> None:
    client = api.client()
    client.post("/users", {"name": "bob", "role": "operator", "password": SECRET})
    client.patch("/users/bob", {"disabled": False})
    with pytest.raises(errors.AlreadyExists):
        client.post("/users", {"name": "bob", "role": "auditor"})
    with pytest.raises(errors.NotFound):
        client.delete("/users/eve")
    with pytest.raises(errors.Invalid):
        client.post("/users", {"name": "bob", "role": "king"})
    client.get("/users/bob")
    assert told(api) == [
        ("local", "create_user", "users/bob", "done"),
        ("local", "change_user", "users/bob", "done"),
        ("local", "create_user", "users/bob", "refused"),
        ("local", "remove_user", "users/eve", "refused"),
        ("local", "create_user", "users", "refused"),
    ]
    first = json.loads(api.audited()[0].entry.details)
    assert first["body"]["name"] == "bob"
    assert first["from"] == "local"
    third, _, fifth = (json.loads(row.entry.details) for row in api.audited()[2:])
    assert third["code"] == "already-exists"
    assert fifth["faults"]


def test_no_secret_is_in_the_log_nor_anywhere_in_the_database(api: Api) -> None:
    client = api.client()
    client.post("/users", {"name": "bob", "role": "operator", "password": SECRET})
    login = client.post("/sessions", {"name": "bob", "password": SECRET})
    with pytest.raises(errors.NotAuthenticated):
        client.post("/sessions", {"name": "bob", "password": SECRET + "!"})
    made = api.client(login["token"]).post("/tokens", {"name": "ci"})
    api.client(login["token"]).put("/me/password", {"old": SECRET, "new": SECRET + "?"})
    with api.master.database.read() as connection:
        tables = sa.inspect(connection).get_table_names()
        everything = repr(
            [connection.execute(sa.text(f"SELECT * FROM {one}")).all() for one in tables]
        )
    for secret in (SECRET, login["token"], made["secret"]):
        assert secret not in everything
    assert "**********" in everything


def test_what_somebody_may_not_do_is_told_reads_too(api: Api) -> None:
    eve = api.client(api.token(Role.OPERATOR, name="eve"))
    with pytest.raises(errors.Forbidden):
        eve.get("/users")
    with pytest.raises(errors.Forbidden):
        eve.post("/users", {"name": "mine", "role": "administrator"})
    assert told(api) == [
        ("eve", "list_users", "users", "refused"),
        ("eve", "create_user", "users", "refused"),
    ]


def test_logins_are_told_under_the_name_only_if_there_is_such_a_user(api: Api) -> None:
    client = api.client()
    client.post("/users", {"name": "bob", "role": "operator", "password": SECRET})
    client.post("/sessions", {"name": "bob", "password": SECRET})
    for name in ("bob", "my-password-typed-here"):
        with pytest.raises(errors.NotAuthenticated):
            client.post("/sessions", {"name": name, "password": "wrong"})
    rows = [row.entry for row in api.audited()[1:]]
    assert [(row.who, row.outcome) for row in rows] == [
        ("bob", "done"),
        ("(unknown)", "refused"),
        ("(unknown)", "refused"),
    ]
    assert [row.about for row in rows] == ["users/bob", "users/bob", "sessions"]
    assert "my-password" not in rows[2].details


def test_strangers_cannot_fill_the_log(api: Api) -> None:
    http = api.http()
    for _ in range(ROWS_A_MINUTE + 40):
        assert http.post("/api/v1/users", json={}).status_code == 401
    assert len(api.audited()) == ROWS_A_MINUTE
    api.clock.move(timedelta(minutes=1))
    http.post("/api/v1/users", json={})
    last = api.audited()[-1].entry
    assert json.loads(last.details)["more_not_written"] == 40


def test_a_repetition_is_no_second_act(api: Api) -> None:
    http = api.http(api.token(Role.ADMINISTRATOR))
    for _ in range(3):
        answer = http.post(
            "/api/v1/users",
            json={"name": "bob", "role": "operator"},
            headers={"Idempotency-Key": "one"},
        )
        assert answer.status_code == 201
    assert [what for _, what, _, _ in told(api)] == ["create_user"]


def test_an_act_whose_process_died_is_told_as_of_unknown_end(api: Api) -> None:
    admin = api.client()
    begin = api.master.acts.end
    api.master.acts.end = lambda *_a, **_k: None  # type: ignore[method-assign]
    admin.post("/users", {"name": "bob", "role": "operator"})
    api.master.acts.end = begin  # type: ignore[method-assign]
    admin.post("/users", {"name": "eve", "role": "operator"})
    assert [outcome for _, _, _, outcome in told(api)] == ["done"]
    api.clock.move(timedelta(hours=1, seconds=1))
    admin.post("/users", {"name": "kim", "role": "operator"})
    rows = [row.entry for row in api.audited()]
    assert [row.outcome for row in rows] == ["done", "unknown", "done"]
    assert json.loads(rows[1].details)["body"]["name"] == "bob"


def test_the_log_is_listed_filtered_and_verified(api: Api) -> None:
    client = api.client()
    for name in ("bob", "eve", "kim"):
        client.post("/users", {"name": name, "role": "operator"})
        api.clock.move(timedelta(hours=1))
    client.delete("/users/eve")
    assert [row["seq"] for row in client.pages("/audit")] == [4, 3, 2, 1]
    assert [row["seq"] for row in client.pages("/audit", order="oldest")] == [1, 2, 3, 4]
    cases: list[tuple[dict[str, Any], list[int]]] = [
        ({"what": "remove_user"}, [4]),
        ({"object": "users/eve"}, [4, 2]),
        ({"object": "users/"}, [4, 3, 2, 1]),
        ({"object": "users"}, []),
        ({"outcome": "refused"}, []),
        ({"since": "2026-01-02T05:04:05Z"}, [4, 3]),
        ({"until": "2026-01-02T05:04:05+01:00"}, [1]),
        (
            {"since": "0001-01-01T00:00:00+14:00", "until": "9999-12-31T23:59:59-14:00"},
            [4, 3, 2, 1],
        ),
    ]
    for wanted, seqs in cases:
        assert [row["seq"] for row in client.pages("/audit", **wanted)] == seqs, wanted
    head = client.get("/audit/head")["head"]
    found = client.get("/audit/verification", head=[head])
    assert found == {"intact": True, "rows": 4, "head": head, "broken": None}
    with api.master.database.write() as connection:
        connection.execute(sa.text("UPDATE audit SET who = 'nobody' WHERE seq = 2"))
    found = client.get("/audit/verification")
    assert (found["intact"], found["rows"], found["broken"]["seq"]) == (False, 1, 2)
