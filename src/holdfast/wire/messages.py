"""What a master and those who work for it tell each other about jobs.

Must not act. Invariants: every message of a worker names the job and the fence under which it
works, so that one who was given up can change nothing; every message is plain data that passes
JSON unchanged. Names of files are text in which bytes that are not UTF-8 are surrogate escapes.
"""

from __future__ import annotations

import enum
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, Protocol, TypeAlias

from holdfast.base.errors import Invalid

VERSION = 5
"""Of all messages together; a receiver refuses a newer one."""

SEALING_VERSION = 2
"""From here on a worker knows of client keys; one that does not must not take such work."""

HYPERVISOR_VERSION = 3
"""From here on a worker knows of virtual machines."""

COMMAND_VERSION = 4
"""From here on a worker knows of commands that are jobs of their own."""

INSTANT_VERSION = 5
"""From here on a worker has virtual machines run from their images."""


WHOLE_VERSION = 4
"""From here on a worker restores several images as one."""


@dataclass(frozen=True, slots=True)
class BackupWork:
    """A backup of one source.

    Attributes:
        client: Whose machine.
        source: The name under which the images follow each other.
        paths: Absolute.
        exclude: Rules in gitignore syntax.
        one_file_system: Stay on the file system that each path is on.
        compression: zstd level.
        read_all: Read every file, whatever an older image says of it.
        parent: The image to compare with; None for the newest of the source.
        labels: For the manifest; see `base.labels`.
        pre_command: Run before, without a shell; empty for none. Its failure is the job's.
        post_command: Run after, also where the backup failed.
        command_timeout_s: How long each of them may take.
        client_key: Seal everything with this key of the worker's machine, by name or id; None to
            leave that to the storage.
        sealed_names: Seal names and attributes of files too.
    """

    client: str
    source: str
    paths: tuple[str, ...]
    exclude: tuple[str, ...] = ()
    one_file_system: bool = False
    compression: int = 2
    read_all: bool = False
    parent: str | None = None
    labels: dict[str, str] = field(default_factory=dict)
    pre_command: tuple[str, ...] = ()
    post_command: tuple[str, ...] = ()
    command_timeout_s: float = 3600.0
    client_key: str | None = None
    sealed_names: bool = False

    def to_json(self) -> dict[str, Any]:
        """As plain data, with the version from which on it is understood."""
        plain = asdict(self)
        if self.client_key is not None:
            return {"version": SEALING_VERSION, "work": "backup", **plain}
        del plain["client_key"], plain["sealed_names"]
        return {"version": 1, "work": "backup", **plain}


@dataclass(frozen=True, slots=True)
class SiteWork:
    """Something to be done for the site as a whole, where its storage is.

    Attributes:
        verb: What; the site's steward has the list.
        images: Ids of the images that it is about, for verbs that take some; none: all.
        sources: Only images of these, for verbs that take some; None: of all.
        rules: What is kept, as `control.retention.Rules` has it, a duration in seconds; None for
            what each image's policy says.
        zone: Whose calendar counts for that; None for the site's.
        unit: Which storage unit it is about; None for the site's own pool.
    """

    verb: str
    images: tuple[str, ...] = ()
    sources: tuple[str, ...] | None = None
    rules: dict[str, float] | None = None
    zone: str | None = None
    unit: str | None = None

    def to_json(self) -> dict[str, Any]:
        """As plain data, with its version."""
        return {"version": 1, "work": "site", **asdict(self)}


@dataclass(frozen=True, slots=True)
class RestoreWork:
    """A restore of an image, or of parts of it, into a directory of the worker's machine.

    Attributes:
        image: Its id.
        paths: Absolute paths inside of it; empty for all of it.
        target: An absolute directory, made if it is missing.
        overwrite: ``never``, ``older`` or ``always``; None: the directory has to be empty.
        strip_components: How many leading parts of each path to leave out.
        verify: Read everything back and compare it with the image.
        client: Whose machine it is done on; None for the one that serves the site.
        also: Ids of images that are restored with it, into the same directory: those of the other
            streams of its path.
    """

    image: str
    paths: tuple[str, ...]
    target: str
    overwrite: Literal["never", "older", "always"] | None = None
    strip_components: int = 0
    verify: bool = False
    client: str | None = None
    also: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As plain data, with the version from which on it is understood."""
        plain = asdict(self)
        if self.also:
            return {"version": WHOLE_VERSION, "work": "restore", **plain}
        del plain["also"]
        return {"version": 1, "work": "restore", **plain}


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
        """As plain data, with the version from which on it is understood."""
        return {"version": HYPERVISOR_VERSION, "work": "machine", **asdict(self)}


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

    def to_json(self) -> dict[str, Any]:
        """As plain data, with the version from which on it is understood."""
        return {"version": HYPERVISOR_VERSION, "work": "machine-restore", **asdict(self)}


@dataclass(frozen=True, slots=True)
class CommandWork:
    """A command that a policy wants run once before, or after, several backups of one client.

    Attributes:
        client: Whose machine.
        pre_command: Run before all of them; empty where it is the turn of the one after.
        post_command: Run after all of them; with a `pre_command`, only if that is cut off.
        command_timeout_s: How long each of them may take.
        failed: Whether one of the backups did not come to a good end.
        labels: What images of those backups are labelled with; the commands are told.
    """

    client: str
    pre_command: tuple[str, ...] = ()
    post_command: tuple[str, ...] = ()
    command_timeout_s: float = 3600.0
    failed: bool = False
    labels: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As plain data, with the version from which on it is understood."""
        return {"version": COMMAND_VERSION, "work": "command", **asdict(self)}


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


Work: TypeAlias = (
    BackupWork
    | RestoreWork
    | SiteWork
    | MachineWork
    | MachineRestoreWork
    | CommandWork
    | BootCheckWork
    | InstantWork
)


def work_from_json(data: dict[str, Any]) -> Work:
    """Read what ``to_json`` of some work made.

    Raises:
        Invalid: It is of a newer version, of an unknown kind, or lacks something.
    """
    given = dict(data)
    version, kind = given.pop("version", None), given.pop("work", None)
    known: dict[Any, type[Work]] = {
        "backup": BackupWork,
        "restore": RestoreWork,
        "site": SiteWork,
        "machine": MachineWork,
        "machine-restore": MachineRestoreWork,
        "command": CommandWork,
        "boot-check": BootCheckWork,
        "instant": InstantWork,
    }
    if not isinstance(version, int) or version > VERSION or kind not in known:
        raise Invalid(
            f"work of the kind '{kind}', version {version}, is not known here",
            f"this Holdfast knows {', '.join(known)} up to version {VERSION}: update it",
        )
    made = known[kind]
    names = {one.name for one in fields(made)}
    # What is a list on the way is a tuple here.
    plain: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in given.items()
        if name in names
    }
    try:
        if plain.get("reached") is not None:
            plain["reached"] = Reached(**plain["reached"])
        work: Work = made(**plain)
    except TypeError as error:
        raise Invalid(f"work of the kind '{kind}' is not complete: {error}") from error
    return work


@dataclass(frozen=True, slots=True)
class WorkOffer:
    """One job, for one worker, under one fence.

    Attributes:
        job_id: Which job.
        fence: Higher each time that the job is given out.
        lease_s: For how long without an answer it stays this worker's.
        work: What to do.
    """

    job_id: int
    fence: int
    lease_s: float
    work: Work


@dataclass(frozen=True, slots=True)
class WorkEvent:
    """Something about a job that a person may want to know.

    Attributes:
        severity: ``info``, ``warning`` or ``error``.
        cause: Stable word for the cause: ``no-permission``, ``vanished``.
        message: The same in a sentence.
        path: Which file; None for the job itself.
    """

    severity: str
    cause: str
    message: str
    path: bytes | None = None


@dataclass(frozen=True, slots=True)
class WorkProgress:
    """A sign of life; it renews the lease."""

    job_id: int
    fence: int
    counters: dict[str, int]


@dataclass(frozen=True, slots=True)
class ImageNote:
    """What a catalog keeps of a committed image's manifest."""

    id: str
    number: int
    source: str
    host: str
    started_ns: int
    finished_ns: int
    parent: str | None
    status: str
    stats: dict[str, int]
    findings_total: int
    software: str
    labels: dict[str, str]
    client_key: str | None = None
    has_sealed_names: bool = False


@dataclass(frozen=True, slots=True)
class WorkError:
    """Why a job failed; `base.errors.from_code` makes the error of it."""

    code: str
    message: str
    hint: str | None


@dataclass(frozen=True, slots=True)
class WorkEnded:
    """The end of a job, well or not.

    Attributes:
        job_id: Which job.
        fence: Under which it was worked on.
        image: What was committed, if anything was.
        events: About single files and commands; the first of them.
        events_total: How many there were.
        counters: The last.
        error: Why it failed; None if it did not.
    """

    job_id: int
    fence: int
    image: ImageNote | None
    events: tuple[WorkEvent, ...]
    events_total: int
    counters: dict[str, int]
    error: WorkError | None


WorkMessage: TypeAlias = WorkProgress | WorkEnded


class Answer(enum.StrEnum):
    """What a master says to a message."""

    GO_ON = "go on"
    STOP = "stop"
    """Somebody cancelled the job, or it is to be suspended."""
    FENCED = "fenced"
    """The job is another's now: stop, and commit nothing."""


class Master(Protocol):
    """Whom a worker reports to. Thread-safe."""

    def hear(self, message: WorkMessage) -> Answer:
        """Take a message.

        Raises:
            HoldfastError: It could not be taken; the worker may say it again.
        """
        ...
