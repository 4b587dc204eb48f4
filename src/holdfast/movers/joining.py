"""Join a site, and have one's certificate renewed.

Must not store anything: see `machine_home`. Invariants: the secret of a token is shown to nobody
but the holder of the authority's key that the token names; what comes back is taken only if it is
a certificate of that authority, for this machine's own key.
"""

from __future__ import annotations

import json
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

import aiohttp

from holdfast.base.errors import ClockDoubtful, NotAuthenticated, Unreachable
from holdfast.movers import dialling
from holdfast.wire.identity import (
    Identity,
    client_context,
    first_context,
    key_matches,
    unverified_context,
    valid_between,
)
from holdfast.wire.identity.authority import BEFORE
from holdfast.wire.problem import error_of

if TYPE_CHECKING:
    import ssl
    from datetime import datetime

    from holdfast.base.clock import Clock
    from holdfast.base.ids import ClientName
    from holdfast.wire.identity import EnrollmentToken, MachineKey, MachineRole

RENEW_AFTER = 2 / 3
"""Of its life a certificate is renewed."""


async def join(
    url: str,
    token: EnrollmentToken,
    *,
    key: MachineKey,
    role: MachineRole,
    name: ClientName,
    clock: Clock,
) -> Identity:
    """Join the site of a master.

    Args:
        url: The master's, see `dialling.master_url`.
        token: What an administrator made there.
        key: This machine's own.
        role: As what to join.
        name: Under which name.
        clock: This machine's.

    Raises:
        Unreachable: Nobody answers there as a master does.
        NotAuthenticated: It is another site's master, or the token is none, used or expired.
        ClockDoubtful: The two clocks differ by too much for certificates.
        Forbidden, Invalid, AlreadyExists: What the site says to role and name.
    """
    authority_pem = await _authority(url, token, clock)
    asked = {
        "secret": token.secret,
        "csr": key.csr_pem().decode("ascii"),
        "role": role.value,
        "name": name,
    }
    answer = await _post(f"{url}/v1/enroll", asked, first_context(authority_pem), url)
    certificate, site_id = answer.get("certificate"), answer.get("site")
    if not isinstance(certificate, str) or not isinstance(site_id, str):
        raise Unreachable(f"{url} does not answer as a master does")
    pem = certificate.encode()
    peer = key_matches(pem, key)
    if peer is None or (peer.site_id, peer.role, peer.name) != (site_id, role, name):
        raise NotAuthenticated(f"{url} gave a certificate that is not for this machine")
    return Identity(role, name, site_id, pem, key, authority_pem)


async def renew(url: str, identity: Identity) -> bytes:
    """Get the next certificate for a machine's key.

    Raises:
        Unreachable: The master does not answer.
        NotAuthenticated: It lets this machine in no more.
    """
    asked = {"csr": identity.key.csr_pem().decode("ascii")}
    answer = await _post(f"{url}/v1/renew", asked, client_context(identity), url)
    pem = str(answer.get("certificate", "")).encode()
    peer = key_matches(pem, identity.key)
    wanted = (identity.site_id, identity.role, identity.name)
    if peer is None or (peer.site_id, peer.role, peer.name) != wanted:
        raise NotAuthenticated(f"{url} gave a certificate that is not for this machine")
    return pem


def renewal_due(certificate_pem: bytes) -> tuple[datetime, datetime]:
    """When a certificate is to be renewed, and when it ends."""
    begins, ends = valid_between(certificate_pem)
    begins += BEFORE
    return begins + (ends - begins) * RENEW_AFTER, ends


async def _authority(url: str, token: EnrollmentToken, clock: Clock) -> bytes:
    """The authority's certificate, as anybody may tell it, if it is the one the token names."""
    try:
        async with (
            aiohttp.ClientSession(timeout=dialling.timeout()) as session,
            session.get(f"{url}/v1/authority", ssl=unverified_context()) as answer,
        ):
            body = await dialling.body_of(answer)
            said_at = answer.headers.get("Date")
            status = answer.status
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        raise dialling.in_words(error, url) from error
    if status != 200 or not body.startswith(b"-----BEGIN CERTIFICATE-----"):
        raise Unreachable(
            f"what answers at {url} takes no machines (status {status})",
            "the port has to be that of serve.machines, not that of serve.listen",
        )
    if not token.is_of(body):
        raise NotAuthenticated(
            f"what answers at {url} is not the site that the token was made for",
            "see that URL and token belong together; if they do, somebody is in between: the "
            "token was not shown to them",
        )
    _require_near(said_at, clock.now(), url)
    return body


def _require_near(said_at: str | None, now: datetime, url: str) -> None:
    """Tell of clocks that differ, before TLS fails of it. What is said is not proven."""
    try:
        there = parsedate_to_datetime(said_at or "")
    except ValueError:
        return
    if there.tzinfo is None or abs(there - now) < BEFORE:
        return
    raise ClockDoubtful(
        f"the clock of this machine says {now:%Y-%m-%d %H:%M} UTC, that of {url} "
        f"{there:%Y-%m-%d %H:%M} UTC",
        "set the one that is wrong, then try again",
    )


async def _post(
    url: str, body: dict[str, str], context: ssl.SSLContext, master: str
) -> dict[str, Any]:
    try:
        async with (
            aiohttp.ClientSession(timeout=dialling.timeout()) as session,
            session.post(url, json=body, ssl=context) as answer,
        ):
            if answer.status != 200:
                raise error_of(answer.status, await dialling.body_of(answer))
            found = json.loads(await dialling.body_of(answer))
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        raise dialling.in_words(error, master) from error
    except ValueError as error:
        raise Unreachable(f"{master} does not answer as a master does") from error
    if not isinstance(found, dict):
        raise Unreachable(f"{master} does not answer as a master does")
    return found
