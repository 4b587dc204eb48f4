"""Which clients are worked for by machines of their own, and which of those are there.

Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from holdfast.control.broker import Kind, Need, Resource
from holdfast.control.jobs import JobKind

if TYPE_CHECKING:
    from holdfast.base.ids import ClientName
    from holdfast.control.jobs import Job, Ready


@dataclass(frozen=True, slots=True)
class Presence:
    """Machines at one moment.

    Attributes:
        agents: Clients whose files a machine of their own reads and writes, be it there or not.
        connected: Those that are there.
        revoked: Those that are not let in any more, until they join anew.
    """

    agents: frozenset[ClientName] = frozenset()
    connected: frozenset[ClientName] = frozenset()
    revoked: frozenset[ClientName] = frozenset()

    def is_remote(self, job: Ready | Job) -> bool:
        """Whether a job is done by a machine of its client."""
        return job.kind in _OF_CLIENTS and job.client in self.agents

    def needs(self, job: Ready) -> tuple[Need, ...]:
        """What a job needs of machines."""
        if job.client is None or not self.is_remote(job):
            return ()
        return (Need(session_of(job.client)),)


_OF_CLIENTS = frozenset({JobKind.BACKUP, JobKind.RESTORE})

NOBODY = Presence()


def session_of(client: ClientName) -> Resource:
    """What a machine has to hold for jobs of its client to begin."""
    return Resource(Kind.MACHINE_SESSION, client)
