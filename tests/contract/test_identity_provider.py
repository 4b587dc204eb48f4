"""Logging in by a real OpenID Connect provider, and by one that lies."""

from __future__ import annotations

import contextlib
import io
import re
import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs

import httpx
import pytest

from holdfast.base.clock import SystemClock
from holdfast.base.errors import (
    Cancelled,
    ConfigInvalid,
    NotAuthenticated,
    Unsupported,
)
from holdfast.control.access import (
    ProviderLogins,
    Registration,
)
from holdfast.faces.cli import device_login
from holdfast.faces.cli.screen import Screen
from tests.kit import oidc_provider
from tests.kit.api import Api
from tests.kit.clock import FakeClock
from tests.kit.oidc_provider import RunningProvider

BACK = "http://127.0.0.1:8723/"


@pytest.fixture(scope="module")
def real() -> Iterator[RunningProvider]:
    directory = oidc_provider.installed()
    if directory is None:
        pytest.skip("there is no node or npm to run an OpenID Connect provider with")
    with oidc_provider.running(directory) as provider:
        yield provider


def logins_of(api: Api, issuer: str, *, public: bool = False, claim: str = "email") -> None:
    """Let the site of an API be a client of a provider."""
    registration = Registration(
        issuer,
        oidc_provider.PUBLIC_CLIENT if public else oidc_provider.CLIENT,
        "" if public else oidc_provider.SECRET,
        claim,
    )
    master = api.master
    clock = FakeClock(SystemClock().now())
    master.access._clock = clock
    master.logins = ProviderLogins(
        master.database, clock, master.access, registration, httpx.Client
    )


def come_back(api: Api, real: RunningProvider, name: str) -> dict[str, str]:
    """Begin a login, do it in a browser, and tell what finishes it."""
    begun = api.client().post("/sessions/provider", {"redirect_uri": BACK})
    place = real.log_in(begun["url"], name)
    assert str(place).startswith(BACK)
    said = parse_qs(place.query.decode())
    return {"login": begun["login"], "state": said["state"][0], "code": said["code"][0]}


@pytest.mark.parametrize("public", [False, True], ids=["with a secret", "without"])
@pytest.mark.parametrize(
    ("claim", "identity"),
    [
        ("email", "alice@example.org"),
        ("sub", "alice"),
        ("preferred_username", "alice"),
    ],
)
def test_whom_the_provider_recognises_is_let_in(
    api: Api, real: RunningProvider, public: bool, claim: str, identity: str
) -> None:
    logins_of(api, real.issuer, public=public, claim=claim)
    admin = api.client()
    made = admin.post("/users", {"name": "al", "role": "operator", "identity": identity})
    assert (made["identity"], made["has_password"]) == (identity, False)
    session = admin.post("/sessions/provider/code", come_back(api, real, "alice"))
    assert session["user"] == "al"
    assert api.client(session["token"]).get("/me")["way"] == "session"
    last = api.audited()[-1].entry
    assert (last.who, last.what, last.about) == ("al", "finish_provider_login", "users/al")
    assert session["token"] not in last.details


def test_a_login_is_used_once_and_by_who_began_it(api: Api, real: RunningProvider) -> None:
    logins_of(api, real.issuer)
    client = api.client()
    client.post("/users", {"name": "al", "role": "operator", "identity": "alice@example.org"})
    finish = come_back(api, real, "alice")
    for wrong in ({"login": "not it"}, {"login": ""}):
        with pytest.raises(NotAuthenticated, match="not begun here"):
            client.post("/sessions/provider/code", finish | wrong)
    client.post("/sessions/provider/code", finish)
    with pytest.raises(NotAuthenticated, match="not begun here"):
        client.post("/sessions/provider/code", finish)
    other = come_back(api, real, "alice")
    with pytest.raises(NotAuthenticated, match="not begun here"):
        client.post("/sessions/provider/code", other | {"state": finish["state"]})
    with pytest.raises(NotAuthenticated, match="not begun here"):
        client.post("/sessions/provider/code", other)


def test_a_code_of_somebody_else_is_of_no_use(api: Api, real: RunningProvider) -> None:
    """Without the proof key of the login that it came of (PKCE)."""
    logins_of(api, real.issuer)
    client = api.client()
    client.post("/users", {"name": "al", "role": "operator", "identity": "alice@example.org"})
    hers, mine = come_back(api, real, "alice"), come_back(api, real, "mallory")
    with pytest.raises(NotAuthenticated, match="refuses the code: invalid_grant"):
        client.post("/sessions/provider/code", mine | {"code": hers["code"]})


def test_who_is_no_user_or_disabled_or_has_no_verified_address_stays_outside(
    api: Api, real: RunningProvider
) -> None:
    logins_of(api, real.issuer)
    client = api.client()
    with pytest.raises(NotAuthenticated, match=r"'bob@example\.org' is no user"):
        client.post("/sessions/provider/code", come_back(api, real, "bob"))
    client.post("/users", {"name": "m", "role": "operator", "identity": "mallory@example.org"})
    with pytest.raises(NotAuthenticated, match="not verified"):
        client.post("/sessions/provider/code", come_back(api, real, "mallory"))
    client.post("/users", {"name": "al", "role": "operator"})
    client.put("/users/al/identity", {"identity": "alice@example.org"})
    client.patch("/users/al", {"disabled": True})
    with pytest.raises(NotAuthenticated, match="disabled"):
        client.post("/sessions/provider/code", come_back(api, real, "alice"))
    client.patch("/users/al", {"disabled": False})
    client.put("/users/al/identity", {"identity": None})
    with pytest.raises(NotAuthenticated, match="no user"):
        client.post("/sessions/provider/code", come_back(api, real, "alice"))


def test_a_login_is_over_after_ten_minutes(api: Api, real: RunningProvider) -> None:
    logins_of(api, real.issuer)
    finish = come_back(api, real, "alice")
    api.master.logins._clock.move(timedelta(minutes=10, seconds=1))  # type: ignore[attr-defined]
    with pytest.raises(NotAuthenticated, match="is over"):
        api.client().post("/sessions/provider/code", finish)


def test_the_command_waits_for_the_browser(
    api: Api, real: RunningProvider, capsys: pytest.CaptureFixture[str]
) -> None:
    from holdfast.faces.cli.browser_login import log_in
    from holdfast.faces.cli.screen import Screen

    logins_of(api, real.issuer)
    client = api.client()
    client.post("/users", {"name": "al", "role": "operator", "identity": "alice@example.org"})

    class Told(Screen):
        def say(self, text: str) -> None:
            if text.startswith("http"):
                browser = threading.Thread(target=browse, args=(text,))
                browser.start()
                threads.append(browser)

    def browse(url: str) -> None:
        place = real.log_in(url, "alice")
        back = f"{place.scheme}://{place.netloc.decode()}/"
        answers.append(httpx.get(back, params={"state": "another", "code": "x"}).status_code)
        answers.append(httpx.get(place).status_code)

    threads: list[threading.Thread] = []
    answers: list[int] = []
    session = log_in(client, Told())
    for thread in threads:
        thread.join()
    assert session["user"] == "al"
    assert answers == [404, 200]


@pytest.mark.parametrize("public", [False, True], ids=["with a secret", "without"])
def test_whom_the_provider_recognises_on_another_device_is_let_in(
    api: Api, real: RunningProvider, public: bool
) -> None:
    logins_of(api, real.issuer, public=public)
    client = api.client()
    client.post("/users", {"name": "al", "role": "operator", "identity": "alice@example.org"})
    begun = client.post("/sessions/provider/device")
    assert begun["whole_url"].startswith(begun["url"])
    body = {"login": begun["login"]}
    before = len(api.audited())
    pending = {"session": None, "too_often": False}
    assert client.post("/sessions/provider/device/session", body) == pending
    # That nothing has come of it yet is nothing to write down.
    assert len(api.audited()) == before
    real.log_in_on_device(begun["url"], begun["code"], "alice")
    session = client.post("/sessions/provider/device/session", body)["session"]
    assert session["user"] == "al"
    assert api.client(session["token"]).get("/me")["way"] == "session"
    last = api.audited()[-1].entry
    assert (last.who, last.what, last.about) == ("al", "finish_device_login", "users/al")
    assert session["token"] not in last.details
    with pytest.raises(NotAuthenticated, match="not begun here"):
        client.post("/sessions/provider/device/session", body)


def test_a_login_on_another_device_that_is_refused_or_over_is_none(
    api: Api, real: RunningProvider
) -> None:
    logins_of(api, real.issuer)
    client = api.client()
    begun = client.post("/sessions/provider/device")
    body = {"login": begun["login"]}
    real.log_in_on_device(begun["url"], begun["code"], "alice", consent=False)
    for why in ("access_denied", "not begun here"):
        with pytest.raises(NotAuthenticated, match=why):
            client.post("/sessions/provider/device/session", body)
    assert api.audited()[-1].entry.outcome == "refused"
    stranger = client.post("/sessions/provider/device")
    real.log_in_on_device(stranger["url"], stranger["code"], "bob")
    with pytest.raises(NotAuthenticated, match="' is no user of this site"):
        client.post("/sessions/provider/device/session", {"login": stranger["login"]})
    late = client.post("/sessions/provider/device")
    clock = api.master.logins._clock
    assert isinstance(clock, FakeClock)
    clock.move(timedelta(minutes=11))
    with pytest.raises(NotAuthenticated, match="not begun here"):
        client.post("/sessions/provider/device/session", {"login": late["login"]})


def test_logins_of_the_two_kinds_are_not_taken_for_each_other(
    api: Api, real: RunningProvider
) -> None:
    logins_of(api, real.issuer)
    client = api.client()
    device = client.post("/sessions/provider/device")["login"]
    with pytest.raises(NotAuthenticated, match="not begun here"):
        client.post("/sessions/provider/code", {"login": device, "state": "", "code": "x"})
    browser = client.post("/sessions/provider", {"redirect_uri": BACK})["login"]
    with pytest.raises(NotAuthenticated, match="not begun here"):
        client.post("/sessions/provider/device/session", {"login": browser})


def test_the_command_waits_until_somebody_has_logged_in_elsewhere(
    api: Api, real: RunningProvider
) -> None:
    logins_of(api, real.issuer)
    client = api.client()
    client.post("/users", {"name": "al", "role": "operator", "identity": "alice@example.org"})
    told = io.StringIO()
    waited: list[float] = []

    def pause(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 3:
            found = re.search(r"(http://\S+/device)  (\S+)", told.getvalue())
            assert found is not None
            real.log_in_on_device(found[1], found[2], "alice")

    with contextlib.redirect_stderr(told):
        session = device_login.log_in(client, Screen(as_json=False), pause)
    assert (session["user"], len(waited)) == ("al", 3)
    assert waited[0] == 5


def mocked(api: Api, **said: dict[str, Any]) -> None:
    """Let the provider of a site be one that says the same each time, by the ends of its paths."""

    def answer(request: httpx.Request) -> httpx.Response:
        here = f"https://{request.url.host}"
        name = request.url.path.rpartition("/")[2]
        if name == "openid-configuration":
            ends = {f"{one}_endpoint": f"{here}/{one}" for one in said}
            return httpx.Response(200, json={"issuer": here, **ends})
        return httpx.Response(400 if "error" in said[name] else 200, json=said[name])

    master = api.master
    registration = Registration("https://id.example.org", "site", "", "email")
    master.logins = ProviderLogins(
        master.database,
        master.clock,
        master.access,
        registration,
        lambda: httpx.Client(transport=httpx.MockTransport(answer)),
    )


def test_a_provider_without_logins_on_devices_is_named(api: Api) -> None:
    mocked(api, token={})
    with pytest.raises(Unsupported, match="no login on another device"):
        api.client().post("/sessions/provider/device")


def test_a_provider_is_asked_less_often_when_it_says_so_and_not_for_ever(api: Api) -> None:
    begun = {
        "device_code": "d",
        "user_code": "U",
        "verification_uri": "https://id.example.org/device",
        "expires_in": 12,
    }
    mocked(api, device_authorization=begun, token={"error": "slow_down"})
    waited: list[float] = []
    with pytest.raises(Cancelled, match="nobody logged in"):
        device_login.log_in(api.client(), Screen(as_json=False), waited.append)
    assert waited == [5, 10]
    mocked(api, device_authorization=begun | {"verification_uri": "http://far.example.org/"})
    with pytest.raises(ConfigInvalid, match="verification_uri"):
        api.client().post("/sessions/provider/device")
