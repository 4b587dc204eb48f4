"""What a policy is: which clients, what of them, when, where to, for how long.

Must not check anything (see `validation`) nor read text (see `document`). Invariant: a policy
never changes; an edited one is another value, and the book keeps both.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from holdfast.base import ids
from holdfast.control.retention import Rules

if TYPE_CHECKING:
    from holdfast.base.ids import ClientName, PolicyName
    from holdfast.control.policies.machine_selection import MachineSelection
    from holdfast.control.policies.verify_boot import VerifyBoot
    from holdfast.control.schedule import Schedule

DEFAULT_TYPE = "files"
DEFAULT_STORAGE_UNIT = ids.DEFAULT_STORAGE_UNIT
DEFAULT_PRIORITY = 50
PRIORITIES = range(101)
"""Higher goes first."""
DEFAULT_COMPRESSION = 2
COMPRESSION_LEVELS = range(1, 20)
STREAMS = range(1, 65)
DEFAULT_ENCRYPTION = "pool"
CLIENT_ENCRYPTION = "client"
ENCRYPTION_MODES = (DEFAULT_ENCRYPTION, CLIENT_ENCRYPTION)
"""``pool``: the storage unit seals, with keys that no client has. ``client``: the client seals as
well, with a key that the site never has."""
DEFAULT_NAMES = "open"
SEALED_NAMES = "sealed"
NAME_MODES = (DEFAULT_NAMES, SEALED_NAMES)
"""Whether, where a client seals, the site can read names and attributes of files."""
DEFAULT_COMMAND_TIMEOUT_S = 3600


class Drives(enum.Enum):
    """Paths that each client finds out for itself."""

    ALL_LOCAL = "ALL_LOCAL_DRIVES"


ALL_LOCAL_DRIVES: Final = Drives.ALL_LOCAL
"""Every file system on a client's own disks, each a source of its own."""


@dataclass(frozen=True, slots=True)
class Selection:
    """What is taken of each client.

    Attributes:
        name: Names it among the selections of its policy.
        paths: Absolute paths, or `ALL_LOCAL_DRIVES`.
        exclude: Rules in gitignore syntax.
        one_file_system: Stay on the file system that each path is on.
    """

    name: str
    paths: tuple[str, ...] | Drives
    exclude: tuple[str, ...] = ()
    one_file_system: bool = False


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of a policy may run at once.

    Attributes:
        jobs: Of the policy; None for as many as other limits allow.
        streams_per_client: Of the policy on one client.
    """

    jobs: int | None = None
    streams_per_client: int = 1


@dataclass(frozen=True, slots=True)
class Policy:
    """What is backed up, when, where to, and how long it is kept.

    Attributes:
        name: One of a kind in a site.
        type: Names a registered type of policies, see `types`.
        active: An inactive policy starts nothing by itself; its retention goes on.
        clients: The clients by name, or
        client_query: a query over the known clients, see `clients`. Not both.
        selections: What is taken of each client.
        schedules: When.
        storage_unit: Where to.
        retention: What is kept of each source, unless a schedule has rules of its own.
        limits: How much may run at once.
        priority: 0 to 100, higher first.
        pre_command: Program and arguments, run on the client before a backup; its failure is
            the job's failure. No shell is between.
        post_command: The same, after it, however it ended.
        command_timeout_s: After so long a command is stopped, and has failed.
        compression: zstd level, 1 to 19.
        streams: Into how many streams at most each path of each client is divided, see `streams`.
        encryption: Who seals, one of `ENCRYPTION_MODES`.
        client_key: The client key of each client's own machine, by name or id, where clients seal.
        names: How names of files are kept where clients seal, one of `NAME_MODES`.
        machines: Which virtual machines it is for, in a policy that is for such; then it has
            neither clients nor selections.
        verify_boot: Which images of virtual machines are booted, and judged; None for none.
    """

    name: PolicyName
    type: str = DEFAULT_TYPE
    active: bool = True
    clients: tuple[ClientName, ...] = ()
    client_query: str | None = None
    selections: tuple[Selection, ...] = ()
    schedules: tuple[Schedule, ...] = ()
    storage_unit: str = DEFAULT_STORAGE_UNIT
    retention: Rules = field(default_factory=Rules)
    limits: Limits = field(default_factory=Limits)
    priority: int = DEFAULT_PRIORITY
    pre_command: tuple[str, ...] = ()
    post_command: tuple[str, ...] = ()
    command_timeout_s: int = DEFAULT_COMMAND_TIMEOUT_S
    compression: int = DEFAULT_COMPRESSION
    streams: int = 1
    encryption: str = DEFAULT_ENCRYPTION
    client_key: str | None = None
    names: str = DEFAULT_NAMES
    machines: MachineSelection | None = None
    verify_boot: VerifyBoot | None = None

    @property
    def sealing_key(self) -> str | None:
        """The client key that clients seal with; None where they don't."""
        return self.client_key if self.encryption == CLIENT_ENCRYPTION else None

    @property
    def has_sealed_names(self) -> bool:
        """Whether the site can't read names and attributes of files."""
        return self.sealing_key is not None and self.names == SEALED_NAMES
