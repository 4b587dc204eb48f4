"""What jobs need, and of what there is only so much.

Must not say how much there is, nor who gets it: see broker. Invariant: a request names each
resource once, in the order of `Kind`.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

from holdfast.base.errors import Invalid

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from holdfast.base.ids import JobId

PRIORITIES = range(101)
"""Higher goes first."""


class Kind(enum.StrEnum):
    """What a resource is counted in.

    The order matters: an aged job takes them into its hand in this order, so what costs others
    little to go without comes first, and what whole sites wait for comes last.
    """

    MACHINE_SESSION = "machine-session"
    """There, or not: what is there takes any number of jobs, as far as that goes."""
    BOOT_CHECKS = "boot-checks"
    POLICY_JOBS = "policy-jobs"
    CLIENT_STREAMS = "client-streams"
    HOST_FULLS = "host-fulls"
    HOST_BACKUPS = "host-backups"
    DATASTORE_BACKUPS = "datastore-backups"
    MEDIA_SERVER_SLOTS = "media-server-slots"
    STORAGE_UNIT_SLOTS = "storage-unit-slots"

    @property
    def noun(self) -> str:
        """What has it: ``storage unit``."""
        return _WORDS[self][0]

    @property
    def units(self) -> str:
        """What is counted: ``slots``."""
        return _WORDS[self][1]

    @property
    def taken(self) -> str:
        """What is said of those that a job has: ``in use``."""
        return _WORDS[self][2]


_WORDS = {
    Kind.MACHINE_SESSION: ("machine", "sessions", "held"),
    Kind.BOOT_CHECKS: ("server", "boot checks", "running"),
    Kind.POLICY_JOBS: ("policy", "jobs", "running"),
    Kind.CLIENT_STREAMS: ("client", "streams", "in use"),
    Kind.HOST_FULLS: ("host", "full backups", "running"),
    Kind.HOST_BACKUPS: ("host", "backups", "running"),
    Kind.DATASTORE_BACKUPS: ("datastore", "backups", "running"),
    Kind.MEDIA_SERVER_SLOTS: ("media server", "slots", "in use"),
    Kind.STORAGE_UNIT_SLOTS: ("storage unit", "slots", "in use"),
}
_PLACES = {kind: place for place, kind in enumerate(Kind)}


@dataclass(frozen=True, slots=True)
class Resource:
    """Something that jobs share, such as the slots of one storage unit."""

    kind: Kind
    name: str

    def __str__(self) -> str:
        return f"{self.kind.noun} '{self.name}'"


@dataclass(frozen=True, slots=True)
class Need:
    """So much of one resource, for as long as a job runs."""

    resource: Resource
    amount: int = 1


@dataclass(frozen=True, slots=True)
class Request:
    """A job that waits for all that it needs.

    Attributes:
        job: Whose needs these are.
        needs: Each resource once, in the order in which they are taken; see `vector`.
        priority: 0 to 100, higher goes first.
        queued_at: Since when it waits, aware.
    """

    job: JobId
    needs: tuple[Need, ...]
    priority: int
    queued_at: datetime

    def __post_init__(self) -> None:
        if self.priority not in PRIORITIES:
            raise Invalid(
                f"job {self.job} has priority {self.priority}",
                f"a priority is {PRIORITIES[0]} to {PRIORITIES[-1]}, higher goes first",
            )
        object.__setattr__(self, "needs", vector(self.needs))


def vector(needs: Iterable[Need]) -> tuple[Need, ...]:
    """Put needs in order; what names the same resource twice is added up.

    Raises:
        Invalid: An amount is less than one.
    """
    amounts: dict[Resource, int] = {}
    for need in needs:
        if need.amount < 1:
            raise Invalid(f"{need.amount} {need.resource.kind.units} of {need.resource} is no need")
        amounts[need.resource] = amounts.get(need.resource, 0) + need.amount
    ordered = sorted(amounts, key=lambda one: (_PLACES[one.kind], one.name))
    return tuple(Need(resource, amounts[resource]) for resource in ordered)
