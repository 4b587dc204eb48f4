"""Virtual machines for tests: plain ones, an estate, and a hypervisor that does as it is told."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

from holdfast.base.errors import MachineMissing
from holdfast.base.ids import ClientName
from holdfast.control.hypervisors import Estate, Hypervisor, VirtualMachine
from holdfast.sources.machines.machine import Disk, Machine, Network, State
from holdfast.sources.machines.provider import Remark

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path

    from holdfast.sources.machines.provider import Provider
    from holdfast.sources.machines.providers import Credentials

GIB = 1 << 30
NOW = datetime(2026, 3, 1, tzinfo=UTC)


def uuid(number: int) -> str:
    return f"0b5c1f2e-0000-4000-8000-{number:012d}"


def machine(name: str = "web1", number: int = 1, **others: Any) -> Machine:
    given: dict[str, Any] = {
        "uuid": uuid(number),
        "name": name,
        "host": "esx7",
        "state": State.RUNNING,
        "tags": ("prod",),
        "guest": "Debian GNU/Linux 12",
        "disks": (
            Disk("vda", 20 * GIB, "/d/a.qcow2", "qcow2"),
            Disk("vdb", 30 * GIB, "/d/b.raw", "raw"),
        ),
        "networks": (Network("52:54:00:00:00:01", "dmz"),),
        "memory": 4 * GIB,
        "cpus": 2,
        "datastores": ("fast",),
    }
    return Machine(**given | others)


def hypervisor(name: str = "esx", **others: Any) -> Hypervisor:
    given: dict[str, Any] = {"kind": "libvirt", "url": "qemu:///system"}
    return Hypervisor(name, **given | others)


def found(one: Machine, on: str = "esx", *, is_there: bool = True) -> VirtualMachine:
    return VirtualMachine(on, one, NOW, NOW, is_there)


def estate(*machines: Machine, proxy: str | None = None, **limits: Any) -> Estate:
    """One hypervisor, ``esx``, with these machines."""
    reached_by = None if proxy is None else ClientName(proxy)
    version = proxy, tuple(machines), tuple(limits.items())
    return Estate(
        [hypervisor(proxy=reached_by, **limits)], [found(one) for one in machines], version
    )


@dataclass
class FakeHypervisor:
    """Tells machines and remarks, or fails, as it is told; notes with what it was opened."""

    has: list[Machine] = field(default_factory=list)
    remarks: list[Remark] = field(default_factory=list)
    error: Exception | None = None
    opened: list[tuple[str, str, Credentials]] = field(default_factory=list)
    trims: list[bool] = field(default_factory=list)
    unwanted: list[tuple[str, ...]] = field(default_factory=list)

    def machines(self) -> list[Machine]:
        if self.error is not None:
            raise self.error
        return list(self.has)

    def try_out(
        self, uuid: str, scratch: Path, *, trim: bool = False, leave_out: Collection[str] = ()
    ) -> list[Remark]:
        self.trims.append(trim)
        self.unwanted.append(tuple(leave_out))
        assert scratch.is_dir()
        if self.error is not None:
            raise self.error
        if uuid not in {one.uuid for one in self.has}:
            raise MachineMissing(f"there is no machine {uuid}")
        return list(self.remarks)

    @property
    def opener(self) -> Callable[[str, str, Credentials], Provider]:
        """In place of `open_provider`."""

        def open_it(kind: str, url: str, credentials: Credentials) -> Provider:
            self.opened.append((kind, url, credentials))
            return cast("Provider", self)

        return open_it
