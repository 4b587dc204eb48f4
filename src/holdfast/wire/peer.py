"""Who makes a request, for whoever answers machines of a site over aiohttp.

Must not let anybody in by what the request itself says. Invariant: a `Peer` that is handed out had
a certificate of the site's authority in this very connection, and was not revoked a moment ago.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from holdfast.base.errors import Forbidden, NotAuthenticated
from holdfast.wire.identity import Peer, identity_of

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Collection

    from holdfast.wire.identity import MachineRole

SITE_ID: web.AppKey[str] = web.AppKey("site-id", str)
"""Of the application: the site whose machines are answered."""

IS_REVOKED: web.AppKey[Callable[[str], bool]] = web.AppKey("is-revoked")
"""Of the application: whether the certificate of a serial is to be refused."""


def name_shown(transport: asyncio.BaseTransport | None) -> str:
    """Whom the certificate of a connection names, whether or not it counts; empty for nobody.

    To tell who was refused, and for nothing else.
    """
    ssl_object = None if transport is None else transport.get_extra_info("ssl_object")
    der = None if ssl_object is None else ssl_object.getpeercert(binary_form=True)
    if not der:
        return ""
    try:
        return str(identity_of(der).name)
    except NotAuthenticated:
        return ""


def peer_of(request: web.Request, roles: Collection[MachineRole] | None = None) -> Peer:
    """Who makes a request.

    Args:
        request: Of an application, or one below it, that has `SITE_ID` and `IS_REVOKED`.
        roles: As what it has to be known; None for whatever.

    Raises:
        NotAuthenticated: Nobody with a certificate, or it was revoked.
        Forbidden: It is known as something else.
    """
    known = request.config_dict
    ssl_object = None
    if request.transport is not None:
        ssl_object = request.transport.get_extra_info("ssl_object")
    der = None if ssl_object is None else ssl_object.getpeercert(binary_form=True)
    if not der:
        raise NotAuthenticated(
            "this takes a certificate of the site", "join the site with: holdfast enroll"
        )
    peer = identity_of(der)
    if peer.site_id != known[SITE_ID]:
        raise NotAuthenticated(f"{peer.name} is of another site")
    if known[IS_REVOKED](peer.serial):
        raise NotAuthenticated(
            f"the certificate of '{peer.name}' was revoked",
            "an administrator can make a token to join anew: holdfast machine token --name "
            + peer.name,
        )
    if roles is not None and peer.role not in roles:
        raise Forbidden(f"{peer.role} '{peer.name}' may not do that", "it is for another role")
    return peer
