"""A hypervisor of a site, and a virtual machine that was found on one. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from holdfast.base.errors import Invalid
from holdfast.base.ids import PLAIN_NAME_HINT, ClientName, is_plain_name, machine_source

if TYPE_CHECKING:
    from datetime import datetime

    from holdfast.base.ids import SourceName
    from holdfast.sources.machines.machine import Machine

DEFAULT_PER_HOST: Final = 2
DEFAULT_PER_DATASTORE: Final = 4
MOST_AT_ONCE: Final = 1000

_UNFIT = re.compile(r"[\s:,]+")
_LONGEST_CLIENT = 255


@dataclass(frozen=True, slots=True)
class Hypervisor:
    """One hypervisor, or one manager of many hosts.

    Attributes:
        name: To speak of it.
        kind: What its machines are reached with; see `sources.machines`.
        url: Where it is.
        proxy: The client whose agent reaches it; None for the master server itself.
        has_credentials: Whether there are any, sealed.
        per_host: How many backups run on one of its hosts at once.
        per_datastore: How many read from one of its datastores at once.
        created_at: When the site came to know it; None where that is not known.
        looked_at: When it told its machines last; None for never.
        tried_at: When it was asked last; None for never.
        problem: Why it did not tell them then; None if it did.
    """

    name: str
    kind: str
    url: str
    proxy: ClientName | None = None
    has_credentials: bool = False
    per_host: int = DEFAULT_PER_HOST
    per_datastore: int = DEFAULT_PER_DATASTORE
    created_at: datetime | None = None
    looked_at: datetime | None = None
    tried_at: datetime | None = None
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class VirtualMachine:
    """A virtual machine as it was found last.

    Attributes:
        hypervisor: The name of what it was found on.
        machine: What that said of it.
        first_seen_at: When it was found there first.
        last_seen_at: When it was found there last.
        is_there: Whether it was, when that was last looked at.
    """

    hypervisor: str
    machine: Machine
    first_seen_at: datetime
    last_seen_at: datetime
    is_there: bool = True

    @property
    def client(self) -> ClientName:
        """What its images are listed under."""
        return client_of(self.machine)

    @property
    def source(self) -> SourceName:
        """The name under which its images follow each other, wherever it goes."""
        return machine_source(self.machine.uuid)


def client_of(machine: Machine) -> ClientName:
    """What a machine's images are listed under."""
    return client_of_name(machine.name) or ClientName(machine.uuid)


def client_of_name(name: str) -> ClientName:
    """A machine's name, with ``-`` where it can't be a client's; empty if nothing is left."""
    printable = "".join(one if one.isprintable() else " " for one in name)
    return ClientName(_UNFIT.sub("-", printable.strip())[:_LONGEST_CLIENT])


def hypervisor_name(text: str) -> str:
    """Parse the name of a new hypervisor.

    Raises:
        Invalid: It can't be one.
    """
    if not is_plain_name(text):
        raise Invalid(f"'{text[:80]}' can't be the name of a hypervisor", PLAIN_NAME_HINT)
    return text


def require_at_once(count: int, what: str) -> None:
    """Refuse a limit that is none.

    Raises:
        Invalid: So it is.
    """
    if not 1 <= count <= MOST_AT_ONCE:
        raise Invalid(f"there can't be {count} backups at once on {what}", f"1 to {MOST_AT_ONCE}")
