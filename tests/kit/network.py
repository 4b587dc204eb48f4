"""Machines that are network namespaces, with cables between them that have a rate."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_NUMBERS = itertools.count()


def can_make_networks() -> bool:
    """Whether this user may, and the programs are there."""
    if os.geteuid() != 0 or not shutil.which("ip") or not shutil.which("tc"):
        return False
    probe = f"hfprobe{os.getpid()}"
    if subprocess.run(["ip", "netns", "add", probe], capture_output=True, check=False).returncode:
        return False
    _ip("netns", "delete", probe)
    return True


@dataclass(frozen=True, slots=True)
class Cables:
    """Two machines and what connects them.

    Attributes:
        near: The namespace of one machine.
        far: That of the other.
        near_addresses: Its addresses, one for each cable.
        far_addresses: The other's, in the same order.
    """

    near: str
    far: str
    near_addresses: tuple[str, ...]
    far_addresses: tuple[str, ...]

    def cut(self, cable: int) -> None:
        """Pull a cable out at the far end: what is on it is lost, and nobody is told."""
        _ip("-n", self.far, "link", "set", f"far{cable}", "down")

    def mend(self, cable: int) -> None:
        """Put it in again."""
        _ip("-n", self.far, "link", "set", f"far{cable}", "up")


def inside(namespace: str, *command: str) -> list[str]:
    """A command as it is run on a machine."""
    return ["ip", "netns", "exec", namespace, *command]


@contextmanager
def cables(count: int, rate: str) -> Iterator[Cables]:
    """Connect two machines by so many cables, each a network of its own, with a rate for `tc`."""
    stem = f"hf{os.getpid() % 100_000}-{next(_NUMBERS)}"
    near, far = f"{stem}-a", f"{stem}-b"
    made: list[str] = []
    try:
        for namespace in (near, far):
            _ip("netns", "add", namespace)
            made.append(namespace)
            _ip("-n", namespace, "link", "set", "lo", "up")
        for cable in range(count):
            _ip(
                *("-n", near, "link", "add", f"near{cable}", "type", "veth"),
                *("peer", "name", f"far{cable}", "netns", far),
            )
            for namespace, end, last in ((near, "near", 1), (far, "far", 2)):
                device = f"{end}{cable}"
                _ip("-n", namespace, "address", "add", f"10.77.{cable}.{last}/24", "dev", device)
                _ip("-n", namespace, "link", "set", device, "up")
                shape = ("root", "tbf", "rate", rate, "burst", "128kb", "latency", "50ms")
                _run("tc", "-n", namespace, "qdisc", "add", "dev", device, *shape)
        yield Cables(
            near,
            far,
            tuple(f"10.77.{cable}.1" for cable in range(count)),
            tuple(f"10.77.{cable}.2" for cable in range(count)),
        )
    finally:
        for namespace in made:
            _ip("netns", "delete", namespace)


def _ip(*words: str) -> None:
    _run("ip", *words)


def _run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True, timeout=30)
