"""Hosts that are network namespaces: each with its own addresses, host name and ``/srv``.

They are plugged into switches, which are bridges in a namespace of their own. The machine that the
tests run on has a place at each switch, too, so that tests and servers of theirs are reached.
Invariant: nothing of it is left when the block ends, nor when the tests are killed but namespaces.
"""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import subprocess
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tests.kit.network import can_make_networks, inside

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Host", "Hosts", "can_make_networks", "hosts"]

OURS = 254
"""The last number of the address of the machine that the tests run on."""

_FIRST_SLOT, _SLOTS = 1, 250
_NUMBERS = itertools.count()
_BECOME = 'hostname "$1" && mount --bind "$2" /srv && shift 2 && exec "$@"'


@dataclass(frozen=True, slots=True)
class Host:
    """A machine of its own.

    Attributes:
        name: Its host name.
        namespace: Where its network is.
        addresses: One on each switch.
        srv: What it has as ``/srv``, as the tests see it.
        switch: The namespace of the switches.
        number: Which host that is.
    """

    name: str
    namespace: str
    addresses: tuple[str, ...]
    srv: Path
    switch: str
    number: int

    @property
    def address(self) -> str:
        """The one on the first switch."""
        return self.addresses[0]

    @property
    def prefix(self) -> tuple[str, ...]:
        """Words before a command that is run there; the process is the command's own."""
        become = ("sh", "-c", _BECOME, "become", self.name, os.fspath(self.srv))
        return tuple(inside(self.namespace, "unshare", "--uts", "--mount", *become))

    def cut(self, switch: int = 0) -> None:
        """Have a switch pass on nothing from it and to it; nobody is told."""
        _ip("-n", self.switch, "link", "set", f"p{self.number}n{switch}", "nomaster")

    def mend(self, switch: int = 0) -> None:
        """Have the switch do so again."""
        port = f"p{self.number}n{switch}"
        _ip("-n", self.switch, "link", "set", port, "master", f"br{switch}")

    def sent_bytes(self, switch: int = 0) -> int:
        """How much it has sent to a switch so far."""
        said = _ip("-n", self.namespace, "-json", "-s", "link", "show", f"eth{switch}")
        return int(json.loads(said)[0]["stats64"]["tx"]["bytes"])


@dataclass
class Hosts:
    """Hosts at the same switches.

    Attributes:
        ours: The addresses of the machine that the tests run on, one at each switch.
    """

    switch: str
    directory: Path
    networks: tuple[str, ...]
    ours: tuple[str, ...]
    _by_name: dict[str, Host] = field(default_factory=dict)

    def host(self, name: str) -> Host:
        """The host of this name; it is there from the first time on that it is asked for."""
        if name not in self._by_name:
            self._by_name[name] = self._made(name)
        return self._by_name[name]

    def _made(self, name: str) -> Host:
        number = len(self._by_name) + 1
        namespace = f"{self.switch}-{number}"
        srv = self.directory / f"srv of {name}"
        srv.mkdir(parents=True)
        addresses = tuple(f"{one}.{number}" for one in self.networks)
        host = Host(name, namespace, addresses, srv, self.switch, number)
        _ip("netns", "add", namespace)
        _ip("-n", namespace, "link", "set", "lo", "up")
        for at, address in enumerate(addresses):
            _ip(
                *("-n", self.switch, "link", "add", f"p{number}n{at}", "type", "veth"),
                *("peer", "name", f"eth{at}", "netns", namespace),
            )
            _ip("-n", self.switch, "link", "set", f"p{number}n{at}", "master", f"br{at}", "up")
            _ip("-n", namespace, "address", "add", f"{address}/24", "dev", f"eth{at}")
            _ip("-n", namespace, "link", "set", f"eth{at}", "up")
        return host

    def close(self) -> None:
        """Have them gone."""
        for host in self._by_name.values():
            _ip("netns", "delete", host.namespace)


@contextmanager
def hosts(directory: Path, switches: int = 1) -> Iterator[Hosts]:
    """Hosts at so many switches, each a network of its own, while the block lasts.

    Args:
        directory: Where what they have as ``/srv`` is made.
        switches: How many.
    """
    stem = f"hfs{os.getpid()}-{next(_NUMBERS)}"
    with ExitStack() as undone:
        slots = [undone.enter_context(_slot()) for _ in range(switches)]
        networks = tuple(f"10.78.{slot}" for slot in slots)
        _ip("netns", "add", stem)
        undone.callback(_ip, "netns", "delete", stem)
        for at, slot in enumerate(slots):
            # The device has to be one of its own: those of several test processes are side by side.
            ours = f"hfours{slot}"
            _ip("-n", stem, "link", "add", f"br{at}", "type", "bridge")
            _ip("-n", stem, "link", "set", f"br{at}", "up")
            subprocess.run(["ip", "link", "delete", ours], capture_output=True, check=False)
            _ip("link", "add", ours, "type", "veth", "peer", "name", f"ours{at}", "netns", stem)
            undone.callback(_ip, "link", "delete", ours)
            _ip("-n", stem, "link", "set", f"ours{at}", "master", f"br{at}", "up")
            _ip("address", "add", f"{networks[at]}.{OURS}/24", "dev", ours)
            _ip("link", "set", ours, "up")
        made = Hosts(stem, directory, networks, tuple(f"{one}.{OURS}" for one in networks))
        undone.callback(made.close)
        yield made


@contextmanager
def _slot() -> Iterator[int]:
    """A network that no other test process of this machine has now."""
    for slot in range(_FIRST_SLOT, _FIRST_SLOT + _SLOTS):
        with Path(f"/run/lock/holdfast-test-network-{slot}").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            yield slot
            return
    raise RuntimeError("every network is taken")


def _ip(*words: str) -> str:
    done = subprocess.run(("ip", *words), check=True, capture_output=True, text=True, timeout=30)
    return done.stdout
