"""An OpenID Connect provider, as this site is its client: a code with PKCE, or another device.

Must not know users of the site, nor keep anything. Invariants: nothing of an id token is believed
before its signature, issuer, audience, time and nonce are right; the provider is spoken to over
HTTPS, or on this machine; the proof key goes to it with the code, and before that only its hash.

OpenID Connect Core 1.0, RFC 6749, RFC 7636 (S256), RFC 8628, OpenID Connect Discovery 1.0.
"""

from __future__ import annotations

import secrets
import threading
from base64 import urlsafe_b64encode
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

from holdfast.base.errors import Busy, ConfigInvalid, NotAuthenticated, Unreachable, Unsupported

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import httpx

    from holdfast.base.clock import Clock

ALGORITHMS = (
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512", "EdDSA"),
)
"""By key pairs only: with a shared secret, and with none, whoever knows it could be everybody."""

SCOPES = "openid email profile"

_LEEWAY_S = 120
_TIMEOUT_S = 20.0
_LONGEST_BYTES = 1 << 20
_NEAR = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True)
class Registration:
    """How a site is known to its provider.

    Attributes:
        issuer: The provider's URL, as its tokens name it.
        client_id: The site's name there.
        client_secret: The site's secret there; empty for a public client.
        claim: What of a token tells which user it is: ``sub``, ``email``, …
    """

    issuer: str
    client_id: str
    client_secret: str
    claim: str


@dataclass(frozen=True, slots=True)
class Begun:
    """A login that goes on in a browser.

    Attributes:
        url: Where the browser is to be sent.
        state: Comes back with the code.
        nonce: Comes back in the id token.
        verifier: The proof key: only who began can use the code.
    """

    url: str
    state: str
    nonce: str
    verifier: str


@dataclass(frozen=True, slots=True)
class OnDevice:
    """A login that goes on in a browser of any device (RFC 8628).

    Attributes:
        url: Where a person opens it.
        code: What that person enters there.
        whole_url: The same with the code in it, if the provider has such.
        device_code: What tells the provider which login is meant; a secret.
        expires_in_s: How long that is possible.
        interval_s: How long to wait before asking again.
    """

    url: str
    code: str
    whole_url: str | None
    device_code: str
    expires_in_s: int
    interval_s: int


@dataclass(frozen=True, slots=True)
class Pending:
    """Nobody has finished a login yet.

    Attributes:
        too_often: The provider was asked too soon: wait for longer from now on.
    """

    too_often: bool


class Provider:
    """One provider. Thread-safe."""

    def __init__(
        self, registration: Registration, clock: Clock, client: Callable[[], httpx.Client]
    ) -> None:
        """Prepare; nothing is asked yet.

        Args:
            registration: How the site is known there.
            clock: What tokens expire by.
            client: Makes what requests go out with.

        Raises:
            ConfigInvalid: The issuer is not an HTTPS URL, or the site has no name there.
        """
        _require_safe(registration.issuer, "login.issuer")
        if not registration.client_id:
            raise ConfigInvalid(
                "login.client-id is not set", "set it to what the provider calls this site"
            )
        self.registration = registration
        self._clock = clock
        self._client = client
        self._turn = threading.Lock()
        self._asking = threading.Lock()
        self._known: dict[str, Any] | None = None
        self._keys: dict[str, Any] | None = None

    def begin(self, redirect_uri: str) -> Begun:
        """Begin a login.

        Args:
            redirect_uri: Where the provider is to send the browser back to, with a code.

        Raises:
            Unreachable: The provider does not answer.
            ConfigInvalid: It is not one, or not the one that is configured.
        """
        state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        challenge = urlsafe_b64encode(sha256(verifier.encode()).digest()).decode().rstrip("=")
        query = urlencode(
            {
                "response_type": "code",
                "client_id": self.registration.client_id,
                "redirect_uri": redirect_uri,
                "scope": SCOPES,
                "state": state,
                "nonce": nonce,
                "code_challenge": challenge,
                "code_challenge_method": "S256",
            }
        )
        place = self._endpoint("authorization_endpoint")
        return Begun(f"{place}{'&' if '?' in place else '?'}{query}", state, nonce, verifier)

    def finish(self, code: str, redirect_uri: str, nonce: str, verifier: str) -> str:
        """Find out who logged in.

        Args:
            code: What the browser came back with.
            redirect_uri: As `begin` had it.
            nonce: As `begin` gave it.
            verifier: As `begin` gave it.

        Returns:
            The value of the claim that tells which user it is.

        Raises:
            NotAuthenticated: The provider refuses, or what it says is not to be believed.
            Unreachable: It does not answer.
        """
        return self._identity(self._exchange(code, redirect_uri, verifier), nonce)

    def begin_on_device(self) -> OnDevice:
        """Begin a login that somebody finishes in a browser elsewhere.

        Raises:
            Unsupported: The provider offers none.
            Unreachable: It does not answer.
        """
        if _DEVICES not in self._discovered():
            raise Unsupported(
                "the identity provider offers no login on another device",
                "log in where there is a browser: holdfast user login",
            )
        what = self._as_client({"scope": SCOPES})
        given = self._ask("POST", self._endpoint(_DEVICES), refusal="the login", **what)
        url = _text(given, "verification_uri")
        _require_safe(url, "the identity provider's verification_uri")
        whole = given.get("verification_uri_complete")
        interval_s = _number(given, "interval") if "interval" in given else _INTERVAL_S
        return OnDevice(
            url,
            _text(given, "user_code"),
            whole if isinstance(whole, str) else None,
            _text(given, "device_code"),
            _bounded(_number(given, "expires_in"), 1, 1 << 30),
            _bounded(interval_s, 1, 60),
        )

    def finish_on_device(self, device_code: str) -> str | Pending:
        """Find out who logged in elsewhere, if anybody has.

        Raises:
            NotAuthenticated: Somebody refused, or nobody came in time.
            Unreachable: The provider does not answer.
        """
        form = {"grant_type": _DEVICE_GRANT, "device_code": device_code}
        given = self._ask(
            "POST",
            self._endpoint("token_endpoint"),
            refusal="the login",
            told=_PENDING,
            **self._as_client(form),
        )
        if given.get("error") in _PENDING:
            return Pending(given["error"] == _TOO_OFTEN)
        return self._identity(given, None)

    def _identity(self, given: Mapping[str, Any], nonce: str | None) -> str:
        """Which user somebody is to whom the provider gave tokens."""
        claims = self._believed(_text(given, "id_token"), nonce)
        wanted = self.registration.claim
        if wanted not in claims and "userinfo_endpoint" in self._discovered():
            more = self._user_info(_text(given, "access_token"))
            if more.get("sub") != claims["sub"]:
                raise NotAuthenticated("the identity provider told of somebody else")
            claims = {**more, **claims}
        if wanted == "email" and claims.get("email_verified") is not True:
            raise NotAuthenticated("the identity provider has not verified the mail address")
        return _text(claims, wanted)

    def _exchange(self, code: str, redirect_uri: str, verifier: str) -> dict[str, Any]:
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect_uri,
            "code_verifier": verifier,
        }
        place = self._endpoint("token_endpoint")
        return self._ask("POST", place, refusal="the code", **self._as_client(form))

    def _as_client(self, form: dict[str, str]) -> dict[str, Any]:
        """A form, with what shows that it is this site that sends it."""
        mine = self.registration
        auth = None
        supported = self._discovered().get("token_endpoint_auth_methods_supported")
        if not mine.client_secret:
            form = form | {"client_id": mine.client_id}
        elif supported and "client_secret_basic" not in supported:
            form = form | {"client_id": mine.client_id, "client_secret": mine.client_secret}
        else:
            # RFC 6749, 2.3.1: both are form-encoded before they are joined.
            auth = (_form(mine.client_id), _form(mine.client_secret))
        return {"data": form, "auth": auth}

    def _user_info(self, access_token: str) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {access_token}"}
        place = self._endpoint("userinfo_endpoint")
        return self._ask("GET", place, refusal="its own token", headers=headers)

    def _believed(self, id_token: str, nonce: str | None) -> dict[str, Any]:
        """The claims of an id token that is right (OpenID Connect Core 1.0, 3.1.3.7)."""
        claims = self._signed(id_token)
        mine = self.registration
        now_s = self._clock.now_ns() / 1e9
        audience = claims.get("aud")
        audiences = audience if isinstance(audience, list) else [audience]
        wrong = next(
            (
                name
                for name, right in (
                    ("iss", claims.get("iss") == mine.issuer),
                    ("aud", mine.client_id in audiences),
                    ("azp", claims.get("azp", mine.client_id) == mine.client_id),
                    ("azp", len(audiences) == 1 or "azp" in claims),
                    ("exp", _number(claims, "exp") > now_s - _LEEWAY_S),
                    ("iat", _number(claims, "iat") < now_s + _LEEWAY_S),
                    ("nonce", nonce is None or _same(str(claims.get("nonce")), nonce)),
                    ("sub", isinstance(claims.get("sub"), str) and bool(claims["sub"])),
                )
                if not right
            ),
            None,
        )
        if wrong is not None:
            raise NotAuthenticated(
                f"what the identity provider says is not to be believed: '{wrong}' is wrong",
                "see that the clocks of both are right, and that the site is the client it is for",
            )
        return claims

    def _signed(self, id_token: str) -> dict[str, Any]:
        from joserfc import jwt
        from joserfc.errors import JoseError

        for fresh in (False, True):
            # A key that is not known may be a new one.
            keys = self._key_set(fresh=fresh)
            try:
                return dict(jwt.decode(id_token, keys, algorithms=list(ALGORITHMS)).claims)
            except (JoseError, ValueError) as error:
                failure = error
        raise NotAuthenticated("the identity provider's signature is not right") from failure

    def _key_set(self, *, fresh: bool) -> Any:
        from joserfc.errors import JoseError
        from joserfc.jwk import KeySet

        with self._turn:
            known = None if fresh else self._keys
        if known is None:
            known = self._ask("GET", self._endpoint("jwks_uri"), refusal="its keys")
            with self._turn:
                self._keys = known
        # Keys of kinds that nobody here knows are none of ours.
        usable = [key for key in known.get("keys", []) if _is_usable(key)]
        try:
            return KeySet.import_key_set({"keys": usable})
        except (JoseError, ValueError, TypeError, KeyError) as error:
            raise NotAuthenticated("the identity provider's keys can't be read") from error

    def _endpoint(self, name: str) -> str:
        place = self._discovered().get(name)
        if not isinstance(place, str):
            raise ConfigInvalid(f"the identity provider names no {name}", _HINT)
        _require_safe(place, f"the identity provider's {name}")
        return place

    def _discovered(self) -> dict[str, Any]:
        with self._turn:
            known = self._known
        if known is not None:
            return known
        # Strangers begin logins: a provider that does not answer must not keep every thread busy.
        if not self._asking.acquire(blocking=False):
            raise Busy("the identity provider is being asked what it is", "try again in a moment")
        try:
            return self._discover()
        finally:
            self._asking.release()

    def _discover(self) -> dict[str, Any]:
        issuer = self.registration.issuer
        place = issuer.rstrip("/") + "/.well-known/openid-configuration"
        found = self._ask("GET", place, refusal="its description")
        if found.get("issuer") != issuer:
            raise ConfigInvalid(
                f"the identity provider calls itself '{found.get('issuer')}', not '{issuer}'", _HINT
            )
        with self._turn:
            self._known = found
        return found

    def _ask(
        self,
        method: str,
        place: str,
        *,
        refusal: str,
        told: frozenset[str] = frozenset(),
        **what: Any,
    ) -> dict[str, Any]:
        """What the provider answers; an error too, if it is one of those that are `told`."""
        import httpx

        try:
            with self._client() as client:
                answer = client.request(method, place, timeout=_TIMEOUT_S, **what)
        except httpx.HTTPError as error:
            raise Unreachable(
                f"the identity provider does not answer: {error}", "see that it runs"
            ) from error
        if answer.status_code >= 500:
            raise Unreachable(f"the identity provider has trouble: status {answer.status_code}")
        try:
            if len(answer.content) > _LONGEST_BYTES:
                raise ValueError("too long")
            found = answer.json()
        except ValueError as error:
            raise NotAuthenticated(
                f"the identity provider answers with what is none, at {place}", _HINT
            ) from error
        if answer.is_error and isinstance(found, dict) and found.get("error") in told:
            return found
        if answer.is_error or not isinstance(found, dict):
            said = found.get("error") if isinstance(found, dict) else None
            raise NotAuthenticated(
                f"the identity provider refuses {refusal}: {said or answer.status_code}",
                "begin the login again",
            )
        return found


_DEVICES = "device_authorization_endpoint"
_DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
_TOO_OFTEN = "slow_down"
_PENDING = frozenset({"authorization_pending", _TOO_OFTEN})
_INTERVAL_S = 5.0

_HINT = "see that login.issuer is the provider's URL, as it names itself"


def _require_safe(place: str, what: str) -> None:
    try:
        parts = urlsplit(place)
        host = parts.hostname
    except ValueError:
        host = None
    safe = host is not None and (
        parts.scheme == "https" or (parts.scheme == "http" and host in _NEAR)
    )
    if not safe:
        raise ConfigInvalid(f"{what} is '{place}', which is no https:// URL", _HINT)


def _text(where: Mapping[str, Any], name: str) -> str:
    value = where.get(name)
    if not isinstance(value, str) or not value:
        raise NotAuthenticated(f"the identity provider did not say '{name}'", _CLAIM_HINT)
    return value


_CLAIM_HINT = "see what it tells of its users, and what login.claim is"


def _number(where: Mapping[str, Any], name: str) -> float:
    value = where.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return float("nan")
    return float(value)


def _bounded(number: float, least: int, most: int) -> int:
    # What is no number is the least.
    return int(min(max(number, least), most)) if number == number else least


def _same(one: str, other: str) -> bool:
    return secrets.compare_digest(one.encode("utf-8", "surrogatepass"), other.encode())


def _form(text: str) -> str:
    return urlencode({"": text})[1:]


def _is_usable(key: object) -> bool:
    return (
        isinstance(key, dict)
        and key.get("kty") in {"RSA", "EC", "OKP"}
        and key.get("use", "sig") == "sig"
    )
