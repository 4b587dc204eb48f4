"""Which machines jobs need: those of their clients, those that own their storage; who is there.

Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from holdfast.control.broker import Kind, Need, Resource
from holdfast.control.jobs import OF_CLIENTS

if TYPE_CHECKING:
    from holdfast.base.ids import ClientName
    from holdfast.control.jobs import Job, Ready


@dataclass(frozen=True, slots=True)
class Presence:
    """Machines at one moment.

    Attributes:
        agents: Clients whose files a machine of their own reads and writes, be it there or not.
        connected: Machines that are there.
        revoked: Those that are not let in any more, until they join anew.
        owners: Storage units that a media server owns, each with that one.
    """

    agents: frozenset[ClientName] = frozenset()
    connected: frozenset[ClientName] = frozenset()
    revoked: frozenset[ClientName] = frozenset()
    owners: frozenset[tuple[str, ClientName]] = frozenset()

    @property
    def machines(self) -> frozenset[ClientName]:
        """Those that any job may need."""
        return self.agents.union(server for _, server in self.owners)

    def is_remote(self, job: Ready | Job) -> bool:
        """Whether a job is done by a machine that has joined."""
        return job.kind in OF_CLIENTS and job.done_by in self.agents

    def needs(self, job: Ready) -> tuple[Need, ...]:
        """What a job needs of machines."""
        client = job.done_by if self.is_remote(job) else None
        owners = (server for unit, server in self.owners if unit == job.storage_unit)
        wanted = dict.fromkeys(one for one in (client, *owners) if one is not None)
        return tuple(Need(session_of(one)) for one in wanted)

    def differs_for(self, job: Ready, other: Presence) -> bool:
        """Whether a job needs other machines now than it did."""
        return self.needs(job) != other.needs(job)


NOBODY = Presence()


def session_of(client: ClientName) -> Resource:
    """What a machine has to hold for jobs of its client to begin."""
    return Resource(Kind.MACHINE_SESSION, client)
