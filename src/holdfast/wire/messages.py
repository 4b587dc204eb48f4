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
from holdfast.wire.machine_work import (
    BootCheckWork,
    InstantWork,
    MachineRestoreWork,
    MachineWork,
    Reached,
)

VERSION = 7
"""Of all messages together; a receiver refuses a newer one."""

SEALING_VERSION = 2
"""From here on a worker knows of client keys; one that does not must not take such work."""

COMMAND_VERSION = 4
"""From here on a worker knows of commands that are jobs of their own."""

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
