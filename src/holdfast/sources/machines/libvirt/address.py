"""What the URL of a libvirt says: where it is, how it is reached, and what is Holdfast's of it.

Must not ask anybody. Invariant: data of a disk goes over a network unencrypted only where the URL
says so itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

from holdfast.base.errors import Invalid

SCRATCH = "holdfast_scratch"
NBD = "holdfast_nbd"
_SSH = ("ssh", "libssh", "libssh2")
_MEANS = {
    "ssh": ("socket", "loopback"),
    "tls": ("tls", "plain"),
    "tcp": ("tls", "plain"),
}


@dataclass(frozen=True, slots=True)
class LibvirtAddress:
    """Where a libvirt is.

    Attributes:
        url: As libvirt itself takes it.
        transport: ``ssh``, ``tls`` or ``tcp``; empty for this machine.
        host: Its name; empty for this machine.
        user: Who asks there, by ssh; empty for who asks here.
        port: Of ssh; 0 for the usual one.
        mode: ``system`` or ``session``.
        options: What else the URL says, by name.
        scratch: Storage pool, or directory there, for scratch files; empty for a usual one.
        nbd: How disks are read: ``socket`` or ``loopback`` (both within ssh), ``tls``, ``plain``.
    """

    url: str
    transport: str
    host: str
    user: str
    port: int
    mode: str
    options: dict[str, str]
    scratch: str
    nbd: str


def parse(url: str) -> LibvirtAddress:
    """Take a URL of libvirt apart.

    Raises:
        Invalid: It is none, or what is Holdfast's of it is not what it may be.
    """
    try:
        known = urlsplit(url)
        port = known.port or 0
    except ValueError as error:
        raise Invalid(f"'{url}' is no URL of libvirt: {error}") from error
    options = dict(parse_qsl(known.query, keep_blank_values=True))
    scratch, nbd = options.pop(SCRATCH, ""), options.pop(NBD, "")
    query = urlencode(options, quote_via=quote, safe="/")
    plain = urlunsplit((known.scheme, known.netloc, known.path, query, known.fragment))
    _, _, transport = known.scheme.partition("+")
    host = known.hostname or ""
    if not host:
        transport = ""
    elif transport in _SSH:
        transport = "ssh"
    else:
        transport = transport or "tls"
    means = _MEANS.get(transport, ("socket",))
    if nbd and nbd not in means:
        raise Invalid(
            f"'{url}' has {NBD}={nbd}, which is nothing there", f"use one of: {', '.join(means)}"
        )
    return LibvirtAddress(
        url=plain if host else url,
        transport=transport,
        host=host,
        user=known.username or "",
        port=port,
        mode=known.path.strip("/"),
        options=options,
        scratch=scratch,
        nbd=nbd or means[0],
    )
