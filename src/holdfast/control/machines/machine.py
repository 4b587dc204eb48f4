"""Machines and tokens as they are known.

Must not read or write.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from holdfast.base.clock import from_ns
from holdfast.base.ids import ClientName
from holdfast.wire.identity import MachineRole

if TYPE_CHECKING:
    from datetime import datetime

    import sqlalchemy as sa

_ID_BYTES = 6

MAX_SAID = 64
"""So many addresses, or drives, are kept of a machine."""

MAX_TEXT = 1024


@dataclass(frozen=True, slots=True)
class Machine:
    """A host that has joined.

    Attributes:
        name: That of the client it protects.
        role: What it is.
        enrollment: How often a machine of this name has joined.
        enrolled_at: When it did last.
        certificate_until: Until when its newest certificate is good; None if it has none.
        last_seen_at: When it was heard of last; None for never.
        revoked_at: Since when it is not let in; None if it is.
        addresses: Where it says to be.
        drives: Where it says that its own file systems are mounted.
        software: What runs there.
    """

    name: ClientName
    role: MachineRole
    enrollment: int
    enrolled_at: datetime
    certificate_until: datetime | None
    last_seen_at: datetime | None
    revoked_at: datetime | None
    addresses: tuple[str, ...]
    drives: tuple[str, ...]
    software: str


@dataclass(frozen=True, slots=True)
class Invitation:
    """A token for joining, without its secret.

    Attributes:
        id: To speak of it; no secret.
        role: As what a machine may join.
        name: Under which name alone; None for any that nobody has had.
        replaces: Which enrollment of that name it takes the place of; 0 for its first.
        expires_at: From when on it is worth nothing.
    """

    id: str
    role: MachineRole
    name: ClientName | None
    replaces: int
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Said:
    """What a machine says of itself; believed by nobody, shown to people.

    Attributes:
        software: What runs there.
        addresses: Where it is.
        drives: Where its own file systems are mounted.
    """

    software: str = ""
    addresses: tuple[str, ...] = ()
    drives: tuple[str, ...] = ()


def new_id() -> str:
    """The public id of a token."""
    return secrets.token_hex(_ID_BYTES)


def folded(name: str) -> str:
    """A name without regard to capitals: two that look alike are not two."""
    return name.casefold()


def list_text(texts: tuple[str, ...]) -> str:
    """Texts that a machine says, as a column has them: not too many, not too long."""
    plain = [one[:MAX_TEXT].replace("\0", "") for one in texts[:MAX_SAID]]
    return json.dumps(plain)


def plain_text(text: str) -> str:
    """A text that a machine says, fit to be shown in a line."""
    return "".join(one for one in text[:200] if one.isprintable())


def machine_of_row(row: sa.Row[Any]) -> Machine:
    """A machine, of a row that has `certificate_until_ns` too."""
    return Machine(
        name=ClientName(row.name),
        role=MachineRole(row.role),
        enrollment=row.enrollment,
        enrolled_at=from_ns(row.enrolled_ns),
        certificate_until=_moment(row.certificate_until_ns),
        last_seen_at=_moment(row.last_seen_ns),
        revoked_at=_moment(row.revoked_ns),
        addresses=tuple(json.loads(row.addresses)),
        drives=tuple(json.loads(row.drives)),
        software=row.software,
    )


def invitation_of_row(row: sa.Row[Any]) -> Invitation:
    """A token, of a row."""
    return Invitation(
        row.id,
        MachineRole(row.role),
        None if row.name is None else ClientName(row.name),
        row.replaces,
        from_ns(row.expires_ns),
    )


def _moment(at_ns: int | None) -> datetime | None:
    return None if at_ns is None else from_ns(at_ns)
