"""Work with virtual machines, as a master tells it to whoever reaches their hypervisor.

Must not act. Invariants: as in `messages`; and no credentials are part of what is written down or
logged: how a hypervisor is reached is added when a job is given out.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeAlias

HYPERVISOR_VERSION = 3
"""From here on a worker knows of virtual machines."""

CONTINUED_VERSION = 6
"""From here on a worker goes on with restores of virtual machines that were interrupted."""

TRIM_VERSION = 7
"""From here on a worker has guests trim; one that does not know of it backs up without."""

INSTANT_VERSION = 5
"""From here on a worker has virtual machines run from their images."""


@dataclass(frozen=True, slots=True)
class Reached:
    """How a hypervisor is reached, by whoever does the work.

    Attributes:
        hypervisor: Its name in the site.
        provider: Its kind: what `sources.machines` opens it with.
        url: Where it is.
        credentials: What it lets in with, such as ``user`` and ``password``. Never written down
            with a job, nor logged: they are added when the job is given out.
    """

    hypervisor: str
    provider: str
    url: str
    credentials: dict[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class MachineWork:
    """A backup of a virtual machine, done by whoever reaches its hypervisor.

    Attributes:
        client: What its images are listed under.
        source: The name under which they follow each other.
        machine: Its uuid.
        name: What people call it.
        hypervisor: Its hypervisor's name in the site.
        reached: How that is reached; None as long as the job is not given out.
        proxy: Whose agent does the work; None for the one that serves the site.
        parent: The image that it follows, which says itself since when changes are asked for; None
            to read everything.
        quiesce: Ask the guest's agent to bring its file systems to rest.
        require_quiesce: Fail where that can't be done.
        trim_s: Have the guest trim its file systems first, and wait so long for it; 0 for not.
        leave_out: Names of disks that are not wanted.
        keep: Checkpoints that images in other storage units are still followed by.
        read_all: Read everything, whatever an older image says.
        compression: zstd level.
        labels: For the manifest; see `base.labels`.
        scratch: A directory of the worker's machine for what the guest overwrites meanwhile; None
            for the worker's own.
        scratch_bytes: How much of that there may be; 0 for as much as the directory holds.
        pre_command: As in `BackupWork`, on the worker's machine; and so the next two.
        post_command: See there.
        command_timeout_s: See there.
    """

    client: str
    source: str
    machine: str
    name: str
    hypervisor: str
    reached: Reached | None = None
    proxy: str | None = None
    parent: str | None = None
    quiesce: bool = True
    require_quiesce: bool = False
    trim_s: int = 0
    leave_out: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    read_all: bool = False
    compression: int = 2
    labels: dict[str, str] = field(default_factory=dict)
    scratch: str | None = None
    scratch_bytes: int = 0
    pre_command: tuple[str, ...] = ()
    post_command: tuple[str, ...] = ()
    command_timeout_s: float = 3600.0

    def to_json(self) -> dict[str, Any]:
        """As plain data, with the version from which on it is understood.

        What is said of trimming is passed over by who does not know of it: see `TRIM_VERSION`.
        """
        plain = asdict(self)
        if not self.trim_s:
            del plain["trim_s"]
        return {"version": HYPERVISOR_VERSION, "work": "machine", **plain}


Unfinished: TypeAlias = Literal["continue", "restart", "discard"]


@dataclass(frozen=True, slots=True)
class MachineRestoreWork:
    """A virtual machine made of an image, on a hypervisor or as files in a directory.

    Attributes:
        image: Its id.
        hypervisor: The name of the hypervisor that is to have it; None where it goes to a
            directory.
        to_dir: An absolute directory of the worker's machine, made if it is missing; None where it
            goes to a hypervisor.
        reached: As in `MachineWork`, and so the next.
        proxy: See there.
        name: What it is to be called; None for what it was called.
        keep_identity: With its uuid and MAC addresses; else it gets new ones.
        networks: What its cards are connected to, for all of them; None: as they were; empty: to
            nothing.
        storage: Where the hypervisor puts its disks; None for its usual place.
        format: Of its disks: ``qcow2``, ``raw``, …
        start: Start it when it is whole.
        disks: Names of those that are wanted; none: all.
        verify: Read everything back and compare it with the image.
        unfinished: What becomes of a restore of the same that did not come to its end: it is gone
            on with, or begun anew; or thrown away, and nothing is restored.
    """

    image: str
    hypervisor: str | None = None
    to_dir: str | None = None
    reached: Reached | None = None
    proxy: str | None = None
    name: str | None = None
    keep_identity: bool = True
    networks: tuple[str, ...] | None = None
    storage: str | None = None
    format: str = "qcow2"
    start: bool = False
    disks: tuple[str, ...] = ()
    verify: bool = False
    unfinished: Unfinished = "continue"

    def to_json(self) -> dict[str, Any]:
        """As plain data, with the version from which on it is understood."""
        plain = asdict(self)
        if self.unfinished != "continue":
            return {"version": CONTINUED_VERSION, "work": "machine-restore", **plain}
        del plain["unfinished"]
        return {"version": HYPERVISOR_VERSION, "work": "machine-restore", **plain}


@dataclass(frozen=True, slots=True)
class BootCheckWork:
    """A virtual machine booted from its image, cut off from every network, and judged.

    Attributes:
        image: Its id.
        serial: A regular expression that something on its serial console matches.
        port: A TCP port where something answers.
        agent: Its guest agent answers.
        command: What the guest agent is to run, with success; empty for nothing.
        within_s: How long all of that may take, from power on.
    """

    image: str
    serial: str | None = None
    port: int | None = None
    agent: bool = False
    command: tuple[str, ...] = ()
    within_s: float = 600.0

    def to_json(self) -> dict[str, Any]:
        """As plain data, with the version from which on it is understood."""
        return {"version": HYPERVISOR_VERSION, "work": "boot-check", **asdict(self)}


InstantStep: TypeAlias = Literal["serve", "migrate", "discard"]


@dataclass(frozen=True, slots=True)
class InstantWork:
    """Something about a virtual machine that runs from its image.

    Attributes:
        image: Its id.
        step: ``serve``: serve its disks as long as it needs them, and begin it first; ``migrate``:
            bring what it reads onto disks of its own; ``discard``: stop it and take it away.
        label: Names it among all of this site and others, in a word that is part of a path.
        machine: The uuid that it has.
        name: What it is called.
        hypervisor: The name of the hypervisor that has it.
        reached: As in `MachineWork`, and so the next.
        proxy: See there.
        keep_identity: As in `MachineRestoreWork`, and so the next three.
        networks: See there.
        storage: See there.
        format: See there; ``qcow2`` or ``raw``, in the end.
        begun: It was up before: it is served, and never made anew. Said when it is given out.
    """

    image: str
    step: InstantStep
    label: str
    machine: str
    name: str
    hypervisor: str
    reached: Reached | None = None
    proxy: str | None = None
    keep_identity: bool = True
    networks: tuple[str, ...] | None = None
    storage: str | None = None
    format: str = "qcow2"
    begun: bool = False

    def to_json(self) -> dict[str, Any]:
        """As plain data, with the version from which on it is understood."""
        return {"version": INSTANT_VERSION, "work": "instant", **asdict(self)}
