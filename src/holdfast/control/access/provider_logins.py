"""Logins that go on in a browser: from the first request to the code that comes back.

Must not speak to the provider itself. Invariants: a login is used once, within ten minutes, and by
who began it: what finishes it was never in a browser.
"""

from __future__ import annotations

import re
import secrets
import threading
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import sqlalchemy as sa

from holdfast.base.errors import Invalid, NotAuthenticated, NotFound, TooManyAttempts
from holdfast.control.access.accounts import secret_hash
from holdfast.control.access.provider import Pending, Provider
from holdfast.control.access.schema import provider_logins

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx

    from holdfast.base.clock import Clock
    from holdfast.control.access.accounts import Token
    from holdfast.control.access.book import AccessBook
    from holdfast.control.access.provider import Registration
    from holdfast.control.database import Database

LASTS = timedelta(minutes=10)
AT_A_TIME = 1000
"""More are not begun: strangers may begin them."""

_PORT = "([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
REDIRECT_URI = rf"http://(127\.0\.0\.1|\[::1\]):{_PORT}/[A-Za-z0-9/_-]{{0,200}}"
"""A port of the browser's own machine (RFC 8252, 7.3)."""

_ON_DEVICE = ""
"""Where a browser comes back to that was elsewhere: nowhere."""

IDENTITY = r"[^\x00-\x1f\x7f]+"
MAX_IDENTITY = 500

_IDENTITY = re.compile(IDENTITY)


@dataclass(frozen=True, slots=True)
class Begun:
    """A login that was begun.

    Attributes:
        url: Where a browser is to be sent.
        secret: What finishes the login, with the code; not for the browser.
        expires_in_s: How long that is possible.
    """

    url: str
    secret: str
    expires_in_s: int


@dataclass(frozen=True, slots=True)
class BegunOnDevice:
    """A login that was begun, to be finished in a browser of any device.

    Attributes:
        url: Where.
        code: What is to be entered there.
        whole_url: The same with the code in it, if there is such.
        secret: What asks whether it is finished.
        expires_in_s: How long that is possible.
        interval_s: How long to wait before asking again.
    """

    url: str
    code: str
    whole_url: str | None
    secret: str
    expires_in_s: int
    interval_s: int


class ProviderLogins:
    """Logins by way of the site's identity provider. Thread-safe."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        book: AccessBook,
        registration: Registration | None,
        client: Callable[[], httpx.Client],
    ) -> None:
        """Prepare; what is wrong with the registration is told when somebody logs in by it.

        Args:
            database: Where logins are kept until they are finished.
            clock: The clock by which they are over.
            book: Who the users are.
            registration: How the site is known to its provider; None if it has none.
            client: Makes what speaks to the provider.
        """
        self._database = database
        self._clock = clock
        self._book = book
        self._registration = registration
        self._client = client
        self._turn = threading.Lock()
        self._provider: Provider | None = None

    def subject(self, identity: str) -> tuple[str, str]:
        """What is kept of what the provider calls a user.

        Raises:
            NotFound: The site has no provider.
            Invalid: It can't be what one calls a user.
        """
        issuer = self._there().registration.issuer
        if len(identity) > MAX_IDENTITY or _IDENTITY.fullmatch(identity) is None:
            raise Invalid(
                f"an identity has 1 to {MAX_IDENTITY} characters, and none that controls",
                "write what the provider says in the claim that login.claim names",
            )
        return issuer, identity

    def begin(self, redirect_uri: str) -> Begun:
        """Begin a login.

        Args:
            redirect_uri: Where the browser comes back to: somebody who listens on its machine.

        Raises:
            NotFound: The site has no provider.
            Invalid: The browser would be sent elsewhere.
            TooManyAttempts: Too many logins are under way.
            Unreachable: The provider does not answer.
        """
        provider = self._there()
        _require_loopback(redirect_uri)
        begun = provider.begin(redirect_uri)
        secret = self._remember(begun.state, begun.nonce, begun.verifier, redirect_uri)
        return Begun(begun.url, secret, int(LASTS.total_seconds()))

    def begin_on_device(self) -> BegunOnDevice:
        """Begin a login that somebody finishes in a browser elsewhere (RFC 8628).

        Raises:
            NotFound: The site has no provider.
            Unsupported: The provider offers none.
            TooManyAttempts: Too many logins are under way.
            Unreachable: The provider does not answer.
        """
        begun = self._there().begin_on_device()
        # The provider may forget it sooner; later than this site it is no use.
        secret = self._remember("", "", begun.device_code, _ON_DEVICE)
        return BegunOnDevice(
            begun.url,
            begun.code,
            begun.whole_url,
            secret,
            min(begun.expires_in_s, int(LASTS.total_seconds())),
            begun.interval_s,
        )

    def finish_on_device(self, secret: str) -> tuple[Token, str] | Pending:
        """Let in whom the provider recognised elsewhere, if anybody was.

        Raises:
            NotAuthenticated: It was not begun here, or is over; somebody refused it; or it is
                nobody of this site.
            NotFound: The site has no provider.
            Unreachable: The provider does not answer.
        """
        provider = self._there()
        mine = sa.and_(
            provider_logins.c.secret_hash == secret_hash(secret),
            provider_logins.c.redirect_uri == _ON_DEVICE,
            provider_logins.c.begun_ns >= self._clock.now_ns() - _LASTS_NS,
        )
        with self._database.read() as connection:
            row = connection.execute(sa.select(provider_logins).where(mine)).first()
        if row is None:
            raise _not_begun()
        try:
            identity = provider.finish_on_device(row.verifier)
        except NotAuthenticated:
            self._forget(mine)
            raise
        if isinstance(identity, Pending):
            return identity
        if not self._forget(mine):
            raise _not_begun()
        return self._let_in(identity)

    def _remember(self, state: str, nonce: str, verifier: str, redirect_uri: str) -> str:
        """Keep a login until it is finished; the secret that finishes it."""
        secret = secrets.token_urlsafe(32)
        now_ns = self._clock.now_ns()
        with self._database.write() as connection:
            old = provider_logins.c.begun_ns < now_ns - _LASTS_NS
            connection.execute(sa.delete(provider_logins).where(old))
            count = connection.scalar(sa.select(sa.func.count()).select_from(provider_logins))
            if (count or 0) >= AT_A_TIME:
                raise TooManyAttempts("too many logins are under way", "try again in some minutes")
            connection.execute(
                sa.insert(provider_logins).values(
                    secret_hash=secret_hash(secret),
                    state=state,
                    nonce=nonce,
                    verifier=verifier,
                    redirect_uri=redirect_uri,
                    begun_ns=now_ns,
                )
            )
        return secret

    def _forget(self, mine: sa.ColumnElement[bool]) -> bool:
        """Whether a login was there until now."""
        with self._database.write() as connection:
            return connection.execute(sa.delete(provider_logins).where(mine)).rowcount == 1

    def finish(self, secret: str, state: str, code: str) -> tuple[Token, str]:
        """Let in whom the provider recognised.

        Args:
            secret: What `begin` gave.
            state: What the browser came back with.
            code: Likewise.

        Returns:
            A token for a short time, and its secret.

        Raises:
            NotAuthenticated: It was not begun here, it was before, or it is nobody of this site.
            NotFound: The site has no provider.
            Unreachable: The provider does not answer.
        """
        provider = self._there()
        mine = sa.and_(
            provider_logins.c.secret_hash == secret_hash(secret),
            provider_logins.c.redirect_uri != _ON_DEVICE,
        )
        with self._database.write() as connection:
            row = connection.execute(sa.select(provider_logins).where(mine)).first()
            connection.execute(sa.delete(provider_logins).where(mine))
        late = row is not None and row.begun_ns < self._clock.now_ns() - _LASTS_NS
        if row is None or late or not secrets.compare_digest(row.state.encode(), _bytes(state)):
            raise _not_begun()
        return self._let_in(provider.finish(code, row.redirect_uri, row.nonce, row.verifier))

    def _let_in(self, identity: str) -> tuple[Token, str]:
        user = self._book.user_of(self.subject(identity))
        if user is None or user.disabled:
            raise NotAuthenticated(
                f"'{identity}' is no user of this site, or disabled",
                "an administrator makes one: holdfast user add NAME --identity …",
            )
        return self._book.open_session(user.name, "login by the identity provider")

    def _there(self) -> Provider:
        if self._registration is None:
            raise NotFound("this site has no identity provider", "set login.issuer in config.toml")
        with self._turn:
            if self._provider is None:
                self._provider = Provider(self._registration, self._clock, self._client)
            return self._provider


def _require_loopback(uri: str) -> None:
    if re.fullmatch(REDIRECT_URI, uri) is None:
        raise Invalid(
            f"a login can't come back to '{uri[:100]}'",
            "name a port of the browser's own machine, as http://127.0.0.1:PORT/",
        )


def _not_begun() -> NotAuthenticated:
    return NotAuthenticated("this login was not begun here, or is over", "begin it again")


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


_LASTS_NS = LASTS // timedelta(microseconds=1) * 1000
