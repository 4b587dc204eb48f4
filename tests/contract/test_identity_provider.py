"""Logging in by a real OpenID Connect provider, and by one that lies."""

from __future__ import annotations

import contextlib
import io
import json
import re
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
import sqlalchemy as sa
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, OctKey, RSAKey

from holdfast.base.clock import SystemClock
from holdfast.base.errors import (
    Busy,
    Cancelled,
    ConfigInvalid,
    HoldfastError,
    Invalid,
    NotAuthenticated,
    NotFound,
    TooManyAttempts,
    Unreachable,
    Unsupported,
)
from holdfast.control.access import (
    AccessBook,
    ProviderLogins,
    Registration,
)
from holdfast.control.access.provider import Provider
from holdfast.control.access.schema import provider_logins as table
from holdfast.control.database import Database
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


# a provider that lies

ISSUER = "https://id.example.org"
KEY = RSAKey.generate_key(2048, {"kid": "one", "use": "sig"})
OTHER = RSAKey.generate_key(2048, {"kid": "one", "use": "sig"})


class Liar:
    """A provider that says what a test tells it to."""

    def __init__(self) -> None:
        self.now = int(time.time())
        self.claims: dict[str, Any] = {
            "iss": ISSUER,
            "aud": "site",
            "sub": "subject",
            "exp": self.now + 300,
            "iat": self.now,
            "email": "alice@example.org",
            "email_verified": True,
        }
        self.header: dict[str, Any] = {"alg": "RS256", "kid": "one"}
        self.key: Any = KEY
        self.keys: list[dict[str, Any]] = [dict(KEY.as_dict(private=False))]
        self.description: dict[str, Any] = {
            "issuer": ISSUER,
            "authorization_endpoint": f"{ISSUER}/auth?tenant=1",
            "token_endpoint": f"{ISSUER}/token",
            "jwks_uri": f"{ISSUER}/keys",
        }
        self.answers: dict[str, httpx.Response] = {}
        self.asked: list[httpx.Request] = []

    def client(self) -> httpx.Client:
        return httpx.Client(transport=httpx.MockTransport(self.answer))

    def answer(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        if request.url.path in self.answers:
            return self.answers[request.url.path]
        if request.url.path == "/.well-known/openid-configuration":
            return httpx.Response(200, json=self.description)
        if request.url.path == "/keys":
            return httpx.Response(200, json={"keys": self.keys})
        if request.url.path == "/userinfo":
            return httpx.Response(200, json={"sub": "another", "email": "root@example.org"})
        token = jwt.encode(self.header, self.claims, self.key, algorithms=[self.header["alg"]])
        return httpx.Response(200, json={"id_token": token, "access_token": "at"})

    def finish(self, claim: str = "email") -> str:
        clock = FakeClock(SystemClock().now())
        provider = Provider(Registration(ISSUER, "site", "s", claim), clock, self.client)
        begun = provider.begin(BACK)
        self.claims.setdefault("nonce", begun.nonce)
        assert begun.url.startswith(f"{ISSUER}/auth?tenant=1&")
        return provider.finish("code", BACK, begun.nonce, begun.verifier)


def test_a_provider_that_says_what_is_right_is_believed() -> None:
    assert Liar().finish() == "alice@example.org"
    assert Liar().finish("sub") == "subject"


@pytest.mark.parametrize(
    ("claims", "said"),
    [
        ({"iss": "https://evil.example.org"}, "'iss'"),
        ({"iss": None}, "'iss'"),
        ({"aud": "another"}, "'aud'"),
        ({"aud": None}, "'aud'"),
        ({"aud": ["site", "another"]}, "'azp'"),
        ({"azp": "another"}, "'azp'"),
        ({"exp": 1}, "'exp'"),
        ({"exp": None}, "'exp'"),
        ({"exp": "tomorrow"}, "'exp'"),
        ({"exp": True}, "'exp'"),
        ({"iat": 99_999_999_999}, "'iat'"),
        ({"iat": None}, "'iat'"),
        ({"nonce": "another"}, "'nonce'"),
        ({"nonce": None}, "'nonce'"),
        ({"sub": ""}, "'sub'"),
        ({"sub": 7}, "'sub'"),
        ({"email_verified": "true"}, "not verified"),
        ({"email_verified": None}, "not verified"),
        ({"email": ""}, "did not say 'email'"),
        ({"email": ["alice@example.org"]}, "did not say 'email'"),
    ],
)
def test_a_claim_that_is_wrong_is_not_believed(claims: dict[str, Any], said: str) -> None:
    liar = Liar()
    liar.claims |= claims
    with pytest.raises(NotAuthenticated, match=said):
        liar.finish()


def test_a_token_for_several_is_believed_if_it_was_given_to_this_site() -> None:
    liar = Liar()
    liar.claims |= {"aud": ["site", "another"], "azp": "site"}
    assert liar.finish() == "alice@example.org"


def test_a_signature_of_another_key_is_not_believed() -> None:
    liar = Liar()
    liar.key = OTHER
    with pytest.raises(NotAuthenticated, match="signature"):
        liar.finish()


def test_no_signature_and_one_by_a_shared_secret_are_not_believed() -> None:
    liar = Liar()
    public = json.dumps(KEY.as_dict(private=False)).encode()
    liar.header = {"alg": "HS256", "kid": "one"}
    liar.key = OctKey.import_key(public)
    with pytest.raises(NotAuthenticated, match="signature"):
        liar.finish()
    for forged in ("eyJhbGciOiJub25lIn0.e30.", "", "a.b.c", "ä"):
        liar.answers["/token"] = httpx.Response(200, json={"id_token": forged})
        with pytest.raises(NotAuthenticated):
            liar.finish()


def test_a_new_key_is_fetched_and_one_of_a_kind_that_nobody_knows_is_no_obstacle() -> None:
    liar = Liar()
    clock = FakeClock(SystemClock().now())
    provider = Provider(Registration(ISSUER, "site", "", "email"), clock, liar.client)
    for key in (KEY, ECKey.generate_key("P-256", {"kid": "two"})):
        begun = provider.begin(BACK)
        liar.claims["nonce"] = begun.nonce
        liar.key = key
        liar.header = {"alg": "RS256" if key is KEY else "ES256", "kid": key.kid}
        liar.keys = [
            {"kty": "AKP", "alg": "ML-DSA-44", "pub": "AA", "kid": "post-quantum"},
            dict(key.as_dict(private=False)),
        ]
        assert provider.finish("code", BACK, begun.nonce, begun.verifier) == "alice@example.org"
    assert isinstance(KeySet([KEY]), KeySet)


def test_what_is_told_of_somebody_else_is_not_believed() -> None:
    liar = Liar()
    del liar.claims["email"]
    liar.description["userinfo_endpoint"] = f"{ISSUER}/userinfo"
    with pytest.raises(NotAuthenticated, match="somebody else"):
        liar.finish()


def test_a_secret_goes_the_way_that_the_provider_knows() -> None:
    for methods, basic in ((None, True), (["client_secret_post"], False)):
        liar = Liar()
        if methods:
            liar.description["token_endpoint_auth_methods_supported"] = methods
        liar.finish()
        (asked,) = [request for request in liar.asked if request.url.path == "/token"]
        assert ("authorization" in asked.headers) == basic
        assert (b"client_secret=s" in asked.content) != basic


def test_a_provider_that_is_another_or_none_is_told_so() -> None:
    changes: list[tuple[dict[str, Any], type[HoldfastError]]] = [
        ({"issuer": "https://another.example.org"}, ConfigInvalid),
        ({"authorization_endpoint": None}, ConfigInvalid),
        ({"authorization_endpoint": "http://id.example.org/auth"}, ConfigInvalid),
        ({"token_endpoint": "ftp://id.example.org/token"}, ConfigInvalid),
    ]
    for change, error in changes:
        liar = Liar()
        liar.description |= change
        with pytest.raises(error):
            liar.finish()
    answers: list[tuple[httpx.Response, type[HoldfastError]]] = [
        (httpx.Response(404, text="nothing"), NotAuthenticated),
        (httpx.Response(200, text="<html>"), NotAuthenticated),
        (httpx.Response(200, json=[]), NotAuthenticated),
        (httpx.Response(503), Unreachable),
        (httpx.Response(400, json={"error": "invalid_grant"}), NotAuthenticated),
    ]
    for answer, error in answers:
        for path in ("/.well-known/openid-configuration", "/keys", "/token"):
            liar = Liar()
            liar.answers[path] = answer
            with pytest.raises(error):
                liar.finish()


def test_a_provider_that_does_not_answer_keeps_one_thread_busy() -> None:
    liar = Liar()
    inside: list[Exception] = []

    def answer(request: httpx.Request) -> httpx.Response:
        with pytest.raises(Busy) as caught:
            provider.begin(BACK)
        inside.append(caught.value)
        raise httpx.ConnectTimeout("no answer", request=request)

    liar.answer = answer  # type: ignore[method-assign]
    clock = FakeClock(SystemClock().now())
    provider = Provider(Registration(ISSUER, "site", "", "email"), clock, liar.client)
    for _ in range(2):
        with pytest.raises(Unreachable, match="no answer"):
            provider.begin(BACK)
    assert len(inside) == 2


def test_a_registration_that_cannot_be_is_told_when_it_is_used(
    database: Database, tmp_path: object
) -> None:
    clock = FakeClock()
    book = AccessBook(database, clock)
    for issuer, client_id in (("http://id.example.org", "x"), ("nonsense", "x"), (ISSUER, "")):
        registration = Registration(issuer, client_id, "", "email")
        logins = ProviderLogins(database, clock, book, registration, httpx.Client)
        with pytest.raises(ConfigInvalid):
            logins.begin(BACK)
    with pytest.raises(NotFound, match="no identity provider"):
        ProviderLogins(database, clock, book, None, httpx.Client).begin(BACK)


@pytest.mark.parametrize(
    "uri",
    [
        "https://127.0.0.1:80/",
        "http://example.org:80/",
        "http://127.0.0.1/",
        "http://127.0.0.1.example.org:80/",
        "http://localhost:80/",
        "http://127.0.0.1:80/#x",
        "http://127.0.0.1:99999/",
        "http://[::1",
        "",
        "http://127.0.0.1:80/\n",
    ],
)
def test_a_browser_is_sent_back_to_its_own_machine_only(database: Database, uri: str) -> None:
    liar = Liar()
    clock = FakeClock()
    registration = Registration(ISSUER, "site", "", "email")
    book = AccessBook(database, clock)
    logins = ProviderLogins(database, clock, book, registration, liar.client)
    with pytest.raises(Invalid, match="come back"):
        logins.begin(uri)
    assert liar.asked == []


def test_strangers_begin_so_many_logins_and_no_more(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holdfast.control.access.provider_logins.AT_A_TIME", 3)
    clock = FakeClock()
    registration = Registration(ISSUER, "site", "", "email")
    book = AccessBook(database, clock)
    logins = ProviderLogins(database, clock, book, registration, Liar().client)
    for _ in range(3):
        begun = logins.begin(BACK)
    with pytest.raises(TooManyAttempts):
        logins.begin(BACK)
    with database.read() as connection:
        rows = connection.execute(sa.select(table)).all()
    assert begun.secret not in repr(rows)
    clock.move(timedelta(minutes=11))
    logins.begin(BACK)
    query = parse_qs(urlsplit(begun.url).query)
    assert query["code_challenge_method"] == ["S256"]
    assert query["redirect_uri"] == [BACK]


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
