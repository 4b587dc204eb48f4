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
from holdfast.control.access.provider import Provider
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
                    state=begun.state,
                    nonce=begun.nonce,
                    verifier=begun.verifier,
                    redirect_uri=redirect_uri,
                    begun_ns=now_ns,
                )
            )
        return Begun(begun.url, secret, int(LASTS.total_seconds()))

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
        mine = provider_logins.c.secret_hash == secret_hash(secret)
        with self._database.write() as connection:
            row = connection.execute(sa.select(provider_logins).where(mine)).first()
            connection.execute(sa.delete(provider_logins).where(mine))
        late = row is not None and row.begun_ns < self._clock.now_ns() - _LASTS_NS
        if row is None or late or not secrets.compare_digest(row.state.encode(), _bytes(state)):
            raise NotAuthenticated("this login was not begun here, or is over", "begin it again")
        identity = provider.finish(code, row.redirect_uri, row.nonce, row.verifier)
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


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


_LASTS_NS = LASTS // timedelta(microseconds=1) * 1000
