"""Logging in by a provider that lies, or is none: nothing that it says is believed unproven."""

from __future__ import annotations

import json
import time
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
    ConfigInvalid,
    HoldfastError,
    Invalid,
    NotAuthenticated,
    NotFound,
    TooManyAttempts,
    Unreachable,
)
from holdfast.control.access import (
    AccessBook,
    ProviderLogins,
    Registration,
)
from holdfast.control.access.provider import Provider
from holdfast.control.access.schema import provider_logins as table
from holdfast.control.database import Database
from tests.kit.clock import FakeClock

BACK = "http://127.0.0.1:8723/"


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
