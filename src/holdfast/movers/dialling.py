"""How a machine reaches a master: where that is, and what goes wrong on the way, in words.

Must not send anything. Invariant: whatever fails is a `HoldfastError` that names the master's URL
and says what can be done.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Final
from urllib.parse import urlsplit

import aiohttp

from holdfast.base.errors import (
    ClockDoubtful,
    HoldfastError,
    Invalid,
    NotAuthenticated,
    Unreachable,
)

DEFAULT_PORT: Final = 8444
CONNECT_S: Final = 10.0
ANSWER_S: Final = 30.0
MOST_BYTES: Final = 64 << 10
TLS_ENDS_S: Final = 0.25
"""So long a loop goes on after its last connection was closed, as aiohttp wants it."""

_NOT_YET_VALID, _EXPIRED = 9, 10
"""Of OpenSSL: X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED."""


def master_url(text: str) -> str:
    """The URL of a master's door for machines, as a person writes it.

    Args:
        text: With or without ``https://``, and with or without a port.

    Raises:
        Invalid: It can't be one.
    """
    hint = f"write for example https://master.example.org:{DEFAULT_PORT}"
    given = text.strip()
    parts = urlsplit(given if "://" in given else f"https://{given}")
    try:
        port = parts.port or DEFAULT_PORT
    except ValueError as error:
        raise Invalid(f"'{text}' is not the URL of a master", hint) from error
    if parts.scheme != "https":
        raise Invalid(f"machines are spoken to over https, not {parts.scheme}", hint)
    if not parts.hostname or parts.username or parts.path.strip("/") or parts.query:
        raise Invalid(f"'{text}' is not the URL of a master", hint)
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"https://{host}:{port}"


def timeout(total_s: float | None = ANSWER_S) -> aiohttp.ClientTimeout:
    """How long to wait for a master."""
    return aiohttp.ClientTimeout(total=total_s, sock_connect=CONNECT_S)


async def body_of(answer: aiohttp.ClientResponse) -> bytes:
    """The body of an answer, which is never long.

    Raises:
        Unreachable: It is.
    """
    found = bytearray()
    async for part in answer.content.iter_chunked(MOST_BYTES):
        found += part
        if len(found) > MOST_BYTES:
            raise Unreachable(f"{answer.url.origin()} does not answer as a master does")
    return bytes(found)


async def require_answer(http: aiohttp.ClientSession, url: str, context: ssl.SSLContext) -> None:
    """Ask a master what it tells everybody.

    Raises:
        Unreachable: It does not answer.
        aiohttp.ClientError, OSError: It can't be reached.
    """
    async with http.get(f"{url}/v1/authority", ssl=context, timeout=timeout()) as answer:
        await body_of(answer)
        if answer.status != 200:
            raise Unreachable(f"{url} does not answer as a master does (status {answer.status})")


def not_taken(url: str) -> NotAuthenticated:
    """A door hangs up on who shows this machine's certificate."""
    return NotAuthenticated(
        f"{url} does not take the certificate of this machine",
        "it may have ended, or be of another site: join anew with a token that was made for "
        "this machine's name",
    )


def in_words(error: BaseException, url: str) -> HoldfastError:
    """What went wrong with a master."""
    if isinstance(error, HoldfastError):
        return error
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return _of_certificate(error.certificate_error, url)
    found = _ssl_error(error)
    if found is not None:
        return _of_tls(found, url)
    if isinstance(error, asyncio.TimeoutError):
        return Unreachable(f"{url} does not answer in time", _LOOK)
    if isinstance(error, aiohttp.ClientConnectorError):
        return Unreachable(f"can't reach {url}: {error.os_error.strerror or error}", _LOOK)
    return Unreachable(
        f"the connection to {url} broke: {str(error) or type(error).__name__}", _LOOK
    )


_LOOK = "see that the site is served there with serve.machines set, and that no firewall is between"


def _of_certificate(error: Exception, url: str) -> HoldfastError:
    code = getattr(error, "verify_code", None)
    if code in {_NOT_YET_VALID, _EXPIRED}:
        what = "not good yet" if code == _NOT_YET_VALID else "good no more"
        return ClockDoubtful(
            f"by the clock of this machine the certificate of {url} is {what}",
            "set the clocks of both machines right, then try again",
        )
    said = getattr(error, "verify_message", "") or str(error.args[-1] if error.args else error)
    return NotAuthenticated(
        f"what answers at {url} is not the master of this machine's site: {said}",
        "see that the URL is right; if it is, somebody is in between, or the site was made anew",
    )


def _of_tls(error: ssl.SSLError, url: str) -> HoldfastError:
    reason = error.reason or ""
    if "ALERT" in reason:
        return not_taken(url)
    return Unreachable(
        f"what answers at {url} does not speak as a master does to machines ({reason.lower()})",
        "the port has to be that of serve.machines",
    )


def _ssl_error(error: BaseException | None) -> ssl.SSLError | None:
    while error is not None:
        # aiohttp has one that wraps OpenSSL's, and is of its class as well.
        for one in (getattr(error, "os_error", None), error):
            if isinstance(one, ssl.SSLError) and not isinstance(one, aiohttp.ClientError):
                return one
        error = error.__cause__ or error.__context__
    return None
