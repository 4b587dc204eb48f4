"""What is known of a virtual machine, as whatever runs it says.

Must not ask anybody. Invariant: every value passes JSON unchanged (`to_json`, `from_json`), so that
what a proxy saw is what its master reads.
"""

from __future__ import annotations

import enum
from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection

NOT_WANTED = "whoever ordered it did not want it"
"""Why a disk is left out that could be held."""


class State(enum.StrEnum):
    """What a machine does."""

    RUNNING = "running"
    PAUSED = "paused"
    SUSPENDED = "suspended"
    OFF = "off"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Disk:
    """A virtual disk.

    Attributes:
        name: What the machine knows it by, and its file in an image is called: ``vda``.
        size: In bytes, as the machine sees it.
        place: Where its bytes are: a path or an address, for people.
        format: Of its file: ``qcow2``, ``raw``, ``vmdk``, …; ``block`` for a device.
        left_out: Why an image does not hold it, in words; None where it does.
        allocated: Bytes that it takes where it lies; None where that is not known.
    """

    name: str
    size: int
    place: str
    format: str
    left_out: str | None = None
    allocated: int | None = None


@dataclass(frozen=True, slots=True)
class Network:
    """A network card.

    Attributes:
        mac: Its address, ``52:54:00:12:34:56``; empty where the machine has none of its own yet.
        network: What it is connected to.
        model: What it pretends to be.
    """

    mac: str
    network: str = ""
    model: str = ""


@dataclass(frozen=True, slots=True)
class Machine:
    """A virtual machine.

    Attributes:
        uuid: What it is followed by, wherever it goes: lower case, with dashes.
        name: What people call it.
        host: Which host runs it, or would.
        state: What it does.
        folder: Where it is filed; empty for nowhere.
        tags: Of whoever filed it, ``key=value`` or a word.
        guest: Its system, as far as that is known: ``Debian GNU/Linux 12``.
        disks: In the order that the machine has them.
        networks: Its network cards.
        memory: In bytes.
        cpus: How many.
        datastores: Where its disks lie: names that limits are counted by.
    """

    uuid: str
    name: str
    host: str
    state: State = State.UNKNOWN
    folder: str = ""
    tags: tuple[str, ...] = ()
    guest: str = ""
    disks: tuple[Disk, ...] = ()
    networks: tuple[Network, ...] = ()
    memory: int = 0
    cpus: int = 0
    datastores: tuple[str, ...] = field(default=())

    @property
    def size(self) -> int:
        """The sizes of its disks together, in bytes."""
        return sum(disk.size for disk in self.disks)

    def without(self, names: Collection[str]) -> Machine:
        """The same, with the disks of these names left out, also such that can't be held."""
        disks = (
            replace(one, left_out=NOT_WANTED) if one.name in names else one for one in self.disks
        )
        return replace(self, disks=tuple(disks))

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Machine:
        """Read what `to_json` made; fields that this version does not know are passed over.

        Raises:
            KeyError, TypeError, ValueError: It is not what `to_json` made.
        """

        def known(kind: Any, given: dict[str, Any]) -> dict[str, Any]:
            return {one.name: given[one.name] for one in fields(kind) if one.name in given}

        found = known(cls, data)
        found["state"] = State(found["state"])
        for name in ("tags", "datastores"):
            found[name] = tuple(found.get(name, ()))
        found["disks"] = tuple(Disk(**known(Disk, one)) for one in found.get("disks", ()))
        networks = found.get("networks", ())
        found["networks"] = tuple(Network(**known(Network, one)) for one in networks)
        return cls(**found)
