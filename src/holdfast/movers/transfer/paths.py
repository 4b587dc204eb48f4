"""Paths between this machine and a media server, and what is known of each.

Must not move data. A path is a local address and one of the server's; a local address that is in
the same network as one of the server's is used with that one, and where there is none every local
address is tried: a routing rule may send each over a link of its own. Invariants: a path that
failed rests, the longer the more often it failed, and is tried again for ever; of a machine that
was told which of its addresses to use no other is used, but to itself.
"""

from __future__ import annotations

import ipaddress
import json
import secrets
import subprocess
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from holdfast.base.errors import Invalid, Unreachable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

REST_S = 0.05
LONGEST_REST_S = 4.0

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Interface: TypeAlias = ipaddress.IPv4Interface | ipaddress.IPv6Interface

_RANDOM = secrets.SystemRandom()


@dataclass(frozen=True, slots=True)
class Path:
    """Two addresses that are used together.

    Attributes:
        host: The server's address, or name.
        port: The server's port.
        source: The local address; None for what the system chooses.
    """

    host: str
    port: int
    source: str | None = None

    def __str__(self) -> str:
        return f"{self.source or 'any address'} to {self.host}:{self.port}"


@dataclass
class PathState:
    """What is known of a path. Thread-safe.

    Attributes:
        path: Which.
        moved_bytes: Bodies that went over it, both ways.
        busy_s: For how long requests were on it, all connections together.
        failures: How often it failed since it last went well.
        broke_s: When a connection that had been made last broke.
        last_error: What it failed of, in words; empty for nothing.
        at_work: Bulky requests on it; the link counts them.
        idle: Connections for bulky requests that wait for one; the link counts them.
    """

    path: Path
    now_s: Callable[[], float]
    moved_bytes: int = 0
    busy_s: float = 0.0
    failures: int = 0
    broke_s: float = -1.0
    last_error: str = ""
    at_work: int = 0
    idle: int = 0
    _rests_until_s: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def rate_bytes_per_s(self) -> float:
        """How fast one connection was on the average."""
        return self.moved_bytes / self.busy_s if self.busy_s else 0.0

    def rest_s(self) -> float:
        """For how long it still rests; 0 if it may be tried."""
        return max(0.0, self._rests_until_s - self.now_s())

    def went_well(self, moved_bytes: int, took_s: float) -> None:
        """Note an answer."""
        with self._lock:
            self.moved_bytes += moved_bytes
            self.busy_s += took_s
            self.failures = 0
            self.last_error = ""

    def failed(self, error: Exception, *, broke: bool = False) -> None:
        """Note that a connection could not be made, or broke. Several in one rest count as one."""
        with self._lock:
            self.last_error = str(error) or type(error).__name__
            if broke:
                self.broke_s = self.now_s()
            if self.rest_s() > 0:
                return
            rest_s = min(LONGEST_REST_S, REST_S * 2.0**self.failures)
            self._rests_until_s = self.now_s() + rest_s * _RANDOM.uniform(0.5, 1.5)
            self.failures = min(self.failures + 1, 30)


def unreachable(states: Sequence[PathState], since_s: float) -> Unreachable:
    """What is said when nothing went well over any path for so long."""
    told = "; ".join(f"{one.path}: {one.last_error or 'no answer'}" for one in states[:4])
    return Unreachable(
        f"the media server could not be reached for {since_s:.0f} s ({told})",
        "see that the media server runs and the network is up; what was sent is kept",
    )


def make_paths(
    servers: Iterable[tuple[str, int]], local: Sequence[Interface], chosen: Sequence[Address] = ()
) -> list[Path]:
    """Which local addresses to use with which of the server's.

    Args:
        servers: Addresses, or names, and ports.
        local: This machine's own addresses with the sizes of their networks.
        chosen: Those of them that are to be used; none: all. One that is not there yet is tried.

    Returns:
        Empty if none of the chosen ones is of the kind of any of the server's.
    """
    known = list(dict.fromkeys(servers))
    if chosen:
        return _chosen_paths(known, local, chosen)
    return [Path(host, port, source) for host, port in known for source in _sources(host, local)]


def read_addresses(texts: Iterable[str]) -> tuple[Address, ...]:
    """Read this machine's addresses that are to be used, each once.

    Raises:
        Invalid: One is no address, or is none that data can come from.
    """
    found = []
    for text in texts:
        try:
            one = ipaddress.ip_address(text.strip())
        except ValueError as error:
            raise Invalid(
                f"'{text[:80]}' is not an address", "write for example 10.1.0.5 or 2001:db8::5"
            ) from error
        if one.is_unspecified or one.is_multicast:
            raise Invalid(f"data can't come from {one}", "name an address of this machine")
        found.append(one)
    return tuple(dict.fromkeys(found))


def _sources(host: str, local: Sequence[Interface]) -> list[str | None]:
    address = _address(host)
    # A name: the system finds the address, and the way to it.
    if address is None or address.is_loopback:
        return [None]
    same_kind = [one for one in local if one.version == address.version]
    near = [str(one.ip) for one in same_kind if address in one.network]
    if near:
        return list(near)
    # One of them, or None of them: then the system's choice is as good.
    return [str(one.ip) for one in same_kind] if len(same_kind) > 1 else [None]


def _chosen_paths(
    servers: Sequence[tuple[str, int]], local: Sequence[Interface], chosen: Sequence[Address]
) -> list[Path]:
    """Each with those of the server's in its network; one that has none there with all.

    With the others it would be the way that the system chooses that is used, not its own.
    """
    networks = {one.ip: one.network for one in local}
    at = [(Path(*one), _address(one[0])) for one in servers]
    made = [path for path, there in at if there is not None and there.is_loopback]
    for source in chosen:
        network = networks.get(source, ())
        fit = [
            (path, there)
            for path, there in at
            if path not in made and (there is None or there.version == source.version)
        ]
        near = [path for path, there in fit if there is not None and there in network]
        far = [path for path, _ in fit]
        made += [Path(one.host, one.port, str(source)) for one in near or far]
    return made


def _address(host: str) -> Address | None:
    """An address; None for a name."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def local_addresses() -> list[Interface]:
    """This machine's own addresses that reach beyond it; empty if nobody can tell."""
    try:
        said = subprocess.run(
            ["ip", "-json", "address", "show", "up", "scope", "global"],
            capture_output=True,
            check=True,
            timeout=10,
        ).stdout
        return list(_interfaces(json.loads(said)))
    except (OSError, subprocess.SubprocessError, ValueError):
        return []


def _interfaces(said: object) -> Iterable[Interface]:
    links = said if isinstance(said, list) else []
    for link in links:
        for one in link.get("addr_info", []) if isinstance(link, dict) else []:
            if one.get("deprecated") or one.get("tentative"):
                continue
            if "local" in one and "prefixlen" in one:
                yield ipaddress.ip_interface(f"{one['local']}/{one['prefixlen']}")
