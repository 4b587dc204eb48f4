"""The chain of images of a small machine, as a pool would keep it.

Each backup is compared with what the machine holds; a backup may be that of a proxy which is killed
on its way. The machine is one of `kit.qemu` or `kit.libvirtd`: it knows what was written to it.
"""

from __future__ import annotations

import functools
import json
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from holdfast.sources.machines.machine import Disk
from holdfast.sources.machines.provider import DiskTarget, Part, SnapshotOrder
from holdfast.sources.machines.providers import open_provider
from holdfast.sources.nbd import client
from tests.kit.qemu import read_disk


def snapshot_order(
    machine: Any, scratch: Path, since: str | None = None, /, **changed: Any
) -> SnapshotOrder:
    given: dict[str, Any] = {
        "uuid": machine.uuid,
        "since": since,
        "quiesce": False,
        "require_quiesce": False,
        "scratch": scratch,
        "label": "site-7",
    }
    return SnapshotOrder(**(given | changed))


def lost(snapshot: Any) -> list[str | None]:
    """The disks that are read whole because nobody knows what changed."""
    return [one.about for one in snapshot.remarks if one.code == "bitmap-lost"]


def writer(contents: dict[str, bytes]) -> Callable[[Disk, DiskTarget, Part], None]:
    """What fills the disks of a machine that is made again."""

    def write(disk: Disk, target: DiskTarget, _part: Part) -> None:
        with target.serve() as served:
            connection = client.connect(served.address)
            connection.write(0, contents[disk.name])
            connection.flush()
            connection.close()

    return write


@dataclass(frozen=True, slots=True)
class Death:
    """How a proxy ended that was to be killed at a step.

    Attributes:
        killed: It was; else there were not so many steps.
        said: The checkpoint that it made, as it said it.
        read: The disks that it had read.
    """

    killed: bool
    said: str
    read: dict[str, bytes]


class _DyingProxies:
    """The process whose forks are the proxies that die; it ends with this one."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.kit.dying_proxy"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def answer(self, order: str) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{order}\n")
        self._process.stdin.flush()
        assert select.select([self._process.stdout], [], [], 120)[0], "the proxy does not end"
        return int(self._process.stdout.readline())


@functools.cache
def _dying_proxies() -> _DyingProxies:
    return _DyingProxies()


def die(kind: str, url: str, order: dict[str, Any], step: int | str, place: Path) -> Death:
    """One backup by a proxy that is killed at a step, which leaves what it read at a place.

    Args:
        kind: Of the hypervisor.
        url: Of the hypervisor.
        order: As a `SnapshotOrder` has it.
        step: As `kit.dying_proxy` takes it.
        place: A directory.
    """
    given = order | {"scratch": str(order["scratch"])}
    words = [kind, url, given, str(step), str(place)]
    ended = _dying_proxies().answer(json.dumps(words))
    assert ended in (0, -signal.SIGKILL)
    read = {one.stem: one.read_bytes() for one in place.glob("*.read")}
    return Death(ended != 0, (place / "said").read_text().strip(), read)


class ImageChain:
    """Backups of one machine, each following the one before."""

    def __init__(
        self,
        machine: Any,
        kind: str,
        url: str,
        scratch: Path,
        left: Callable[[], list[str]] | None = None,
    ) -> None:
        """Begin one by a provider; `left` says what a backup left behind, else the machine does."""
        self.machine = machine
        self.kind = kind
        self.url = url
        self.scratch = scratch
        self.left: Callable[[], list[str]] = left or machine.leftovers
        self.provider: Any = open_provider(kind, url)
        self.checkpoint: str | None = None
        self.held: dict[str, bytes] = {}

    def order(self, **changed: Any) -> SnapshotOrder:
        """A snapshot with what changed since the last image."""
        return snapshot_order(self.machine, self.scratch, self.checkpoint, **changed)

    def read(self, snapshot: Any) -> dict[str, bytes]:
        """What an image of it would hold, over the last one."""
        return {one.name: read_disk(one, self.held.get(one.name)) for one in snapshot.disks}

    def back_up(self, **changed: Any) -> Any:
        """One backup; what it holds is compared with the machine, which nobody writes now."""
        with self.provider.snapshot(self.order(**changed)) as snapshot:
            read = self.read(snapshot)
            for name, content in self.machine.contents.items():
                assert read[name] == content.now, name
            snapshot.check()
            snapshot.keep_checkpoint()
        self.held, self.checkpoint = read, snapshot.checkpoint
        assert self.left() == []
        return snapshot

    def die_at(self, step: int | str, **changed: Any) -> Death:
        """One backup by a proxy that is killed at a step; if it committed, the chain goes on there.

        Args:
            step: As `kit.dying_proxy` takes it.
            changed: Of the order.
        """
        given = asdict(self.order(**changed))
        now = {name: bytes(one.now) for name, one in self.machine.contents.items()}
        with tempfile.TemporaryDirectory() as made:
            place = Path(made)
            for name, content in self.held.items():
                (place / f"{name}.before").write_bytes(content)
            died = die(self.kind, self.url, given, step, place)
            if (committed := place / "committed").exists():
                self.checkpoint, self.held = committed.read_text(), now
        return died
