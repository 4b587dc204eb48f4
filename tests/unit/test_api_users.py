"""Users, tokens and logins through the API."""

from __future__ import annotations

from datetime import timedelta

import pytest

from holdfast.base import errors
from holdfast.control.access import Role, Scope
from holdfast.faces.cli.api_client import at
from tests.kit.api import Api

GOOD = "four words nobody guesses"
NEW = {"name": "bob", "role": "operator", "password": GOOD}


def log_in(api: Api, name: str = "bob", password: str = GOOD) -> str:
    answer = api.http().post("/api/v1/sessions", json={"name": name, "password": password})
    assert answer.status_code == 201, answer.text
    token: str = answer.json()["token"]
    return token


def test_a_user_is_made_looked_at_changed_and_removed(api: Api) -> None:
    client = api.client()
    made = client.post("/users", {**NEW, "display_name": "Bob", "scope": ["web*"]})
    assert made == client.get("/users/bob")
    assert (made["role"], made["scope"], made["has_password"]) == ("operator", ["web*"], True)
    changed = client.patch("/users/bob", {"role": "auditor", "scope": ["*"]})
    assert (changed["role"], changed["scope"], changed["display_name"]) == ("auditor", ["*"], "Bob")
    assert [user["name"] for user in client.pages("/users")] == ["bob"]
    with pytest.raises(errors.AlreadyExists, match="bob"):
        client.post("/users", NEW)
    client.delete("/users/bob")
    with pytest.raises(errors.NotFound, match="bob"):
        client.get("/users/bob")


def test_names_and_passwords_that_could_not_be_ones_are_refused(api: Api) -> None:
    client = api.client()
    for bad in ({"name": "local:root"}, {"name": "Bob"}, {"password": "short"}, {"role": "king"}):
        with pytest.raises(errors.Invalid):
            client.post("/users", NEW | bad)
    for easy in ("aaaaaaaaaaaaa", "bob12345678"):
        with pytest.raises(errors.Invalid, match="password"):
            client.post("/users", NEW | {"password": easy})
    assert list(client.pages("/users")) == []


def test_a_login_lasts_twelve_hours(api: Api) -> None:
    api.client().post("/users", NEW)
    client = api.client(log_in(api))
    assert client.get("/me")["name"] == "bob"
    api.clock.move(timedelta(hours=11, minutes=59))
    assert client.get("/me")["way"] == "session"
    api.clock.move(timedelta(minutes=1))
    with pytest.raises(errors.NotAuthenticated, match="expired"):
        client.get("/me")


def test_a_login_ends_when_one_logs_out(api: Api) -> None:
    api.client().post("/users", NEW)
    client = api.client(log_in(api))
    client.delete("/me/session")
    with pytest.raises(errors.NotAuthenticated, match="revoked"):
        client.get("/me")


def test_a_disabled_user_and_one_with_a_new_password_are_logged_out(api: Api) -> None:
    admin = api.client()
    admin.post("/users", NEW)
    client = api.client(log_in(api))
    admin.put("/users/bob/password", {"password": GOOD + "!"})
    with pytest.raises(errors.NotAuthenticated):
        client.get("/me")
    again = api.client(log_in(api, password=GOOD + "!"))
    admin.patch("/users/bob", {"disabled": True})
    with pytest.raises(errors.NotAuthenticated, match="disabled"):
        again.get("/me")
    with pytest.raises(errors.NotAuthenticated):
        api.client("hf_x").post("/sessions", {"name": "bob", "password": GOOD + "!"})
    admin.patch("/users/bob", {"disabled": False})
    with pytest.raises(errors.NotAuthenticated):
        again.get("/me")


def test_one_gives_oneself_a_new_password_by_knowing_the_old_one(api: Api) -> None:
    api.client().post("/users", NEW)
    client = api.client(log_in(api))
    with pytest.raises(errors.Forbidden, match="old password"):
        client.put("/me/password", {"old": "not this one", "new": GOOD + "!"})
    client.put("/me/password", {"old": GOOD, "new": GOOD + "!"})
    log_in(api, password=GOOD + "!")
    with pytest.raises(errors.NotFound, match="local:"):
        api.client().put("/me/password", {"old": GOOD, "new": GOOD + "!"})


def test_it_is_not_told_whether_a_name_or_a_password_is_wrong(api: Api) -> None:
    api.client().post("/users", NEW)
    answers = {
        api.http().post("/api/v1/sessions", json={"name": name, "password": "no such thing"}).text
        for name in ("bob", "nobody")
    }
    assert len(answers) == 1


def test_logins_that_fail_make_the_next_wait_and_the_right_one_too(api: Api) -> None:
    api.client().post("/users", NEW)
    http = api.http()
    bad = {"name": "bob", "password": "wrong wrong wrong"}
    for _ in range(5):
        assert http.post("/api/v1/sessions", json=bad).status_code == 401
    refused = http.post("/api/v1/sessions", json=NEW | {"role": None} | bad)
    refused = http.post("/api/v1/sessions", json=bad)
    assert (refused.status_code, refused.json()["code"]) == (429, "too-many-attempts")
    wait_s = int(refused.headers["retry-after"])
    assert 0 < wait_s < 60
    right = {"name": "bob", "password": GOOD}
    assert http.post("/api/v1/sessions", json=right).status_code == 429
    api.clock.move(timedelta(seconds=wait_s))
    assert http.post("/api/v1/sessions", json=right).status_code == 201
    assert http.post("/api/v1/sessions", json=bad).status_code == 401


def test_a_token_works_until_it_expires_or_is_revoked(api: Api) -> None:
    api.client().post("/users", NEW)
    bob = api.client(log_in(api))
    made = bob.post("/tokens", {"name": "ci", "lifetime_s": 3600})
    assert made["secret"].startswith("hf_")
    program = api.client(made["secret"])
    assert program.get("/me")["way"] == "token"
    (listed,) = bob.pages("/tokens")
    assert listed["id"] == made["id"]
    assert "secret" not in listed
    assert listed["last_used_at"] is not None
    api.clock.move(timedelta(hours=1))
    with pytest.raises(errors.NotAuthenticated, match="'ci' expired at"):
        program.get("/me")
    bob = api.client(log_in(api))
    other = bob.post("/tokens", {"name": "ci"})
    bob.delete(at("tokens", other["id"]))
    with pytest.raises(errors.NotAuthenticated, match="revoked"):
        api.client(other["secret"]).get("/me")


def test_a_token_can_narrow_its_user_and_never_widen_it(api: Api) -> None:
    client = api.client()
    client.post("/users", {"name": "eve", "role": "restore-operator", "scope": ["web*"]})
    wide = client.post(
        "/tokens", {"name": "x", "user": "eve", "role": "administrator", "scope": ["*"]}
    )
    me = api.client(wide["secret"]).get("/me")
    assert me["permissions"] == ["see", "browse", "restore"]
    assert me["scopes"] == [["web*"], ["*"]]
    client.post("/users", {"name": "root", "role": "administrator"})
    narrow = client.post("/tokens", {"name": "x", "user": "root", "role": "auditor"})
    with pytest.raises(errors.Forbidden, match="manage-users"):
        api.client(narrow["secret"]).get("/users")


def test_a_token_cannot_make_itself_another(api: Api) -> None:
    client = api.client()
    client.post("/users", {"name": "bob", "role": "operator"})
    token = client.post("/tokens", {"name": "ci", "user": "bob", "lifetime_s": 60})
    with pytest.raises(errors.Forbidden):
        api.client(token["secret"]).post("/tokens", {"name": "for ever"})


def test_tokens_of_others_are_nobodys_business(api: Api) -> None:
    admin = api.client()
    for name in ("bob", "eve"):
        admin.post("/users", {"name": name, "role": "operator"})
    of_bob = admin.post("/tokens", {"name": "ci", "user": "bob"})
    eve = api.client(api.token(Role.OPERATOR, name="eve"))
    assert list(eve.pages("/tokens")) == []
    with pytest.raises(errors.Forbidden):
        eve.get("/tokens", user="bob")
    with pytest.raises(errors.Forbidden):
        eve.post("/tokens", {"name": "mine", "user": "bob"})
    with pytest.raises(errors.NotFound):
        eve.get(at("tokens", of_bob["id"]))
    with pytest.raises(errors.NotFound):
        eve.delete(at("tokens", of_bob["id"]))
    assert api.client(of_bob["secret"]).get("/me")["name"] == "bob"


def test_who_is_bounded_to_some_clients_cannot_manage_users(api: Api) -> None:
    bounded = api.client(api.token(Role.ADMINISTRATOR, Scope(("web*",)), "some"))
    with pytest.raises(errors.Forbidden):
        bounded.post("/users", {"name": "mine", "role": "administrator"})
    assert "manage-users" not in bounded.get("/me")["permissions"]


def test_the_local_superuser_has_no_tokens_of_its_own(api: Api) -> None:
    with pytest.raises(errors.Invalid, match="local:"):
        api.client().post("/tokens", {"name": "mine"})


def test_a_socket_of_somebody_else_is_a_stranger(api: Api) -> None:
    from holdfast.faces.api.app import make_app

    api.app = make_app(api.master, owners=frozenset({4_000_000}))
    with pytest.raises(errors.NotAuthenticated):
        api.client().get("/me")
