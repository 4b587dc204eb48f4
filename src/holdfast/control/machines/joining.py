"""Whether somebody with a token may join under a name, and that they have.

Must not open transactions: every function runs on the caller's connection, which has to be a
writing one. Invariants: a token lets one key in, once, however many ask at the same time; nobody
gets the name of another machine, nor of a client there are images of, but by a token that was made
for that name, after it was last given away.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from holdfast.base.clock import from_ns
from holdfast.base.errors import AlreadyExists, Forbidden, Invalid, NotAuthenticated
from holdfast.control.machines.machine import folded
from holdfast.control.machines.schema import enrollment_tokens, machine_certificates, machines

if TYPE_CHECKING:
    from collections.abc import Collection

    from holdfast.base.ids import ClientName
    from holdfast.wire.identity import Issued, MachineRole

_CLIENTS = sa.table("clients", sa.column("name", sa.Text))


@dataclass(frozen=True, slots=True)
class Asking:
    """Who wants to join.

    Attributes:
        secret_hash: Of the token's secret.
        key: SHA-256 of its public key.
        role: As what.
        name: Under which name.
    """

    secret_hash: str
    key: str
    role: MachineRole
    name: ClientName


def token_for(
    connection: sa.Connection, asking: Asking, own: Collection[ClientName], now_ns: int
) -> sa.Row[Any] | str:
    """The token with which somebody may join now, or the certificate that they got by it before.

    A machine whose answer was lost asks again, with the same key; nobody else has that.

    Raises:
        NotAuthenticated: The token is none, or was used, or has expired.
        Forbidden: It is for another name.
        Invalid: It is for another role.
        AlreadyExists: The name is somebody's.
    """
    token = connection.execute(
        sa.select(enrollment_tokens).where(enrollment_tokens.c.secret_hash == asking.secret_hash)
    ).first()
    if token is None:
        raise NotAuthenticated(
            "the enrollment token is not one of this site", "make one: holdfast machine token"
        )
    if token.used_ns is not None:
        return _given_before(connection, token, asking)
    if now_ns >= token.expires_ns:
        raise NotAuthenticated(
            f"the enrollment token expired at {from_ns(token.expires_ns):%Y-%m-%d %H:%M} UTC",
            "make another: holdfast machine token",
        )
    if token.role != asking.role:
        raise Invalid(
            f"the enrollment token is for the role '{token.role}', not '{asking.role}'",
            f"join with: --role {token.role}",
        )
    if token.name is not None and token.name != asking.name:
        raise Forbidden(
            f"the enrollment token is for the name '{token.name}', not '{asking.name}'",
            f"join with: --name {token.name}",
        )
    _require_free(connection, asking.name, token, own, now_ns)
    return token


def let_in(
    connection: sa.Connection, token: sa.Row[Any], asking: Asking, issued: Issued, now_ns: int
) -> None:
    """Note that somebody has joined: the token is used, older certificates of the name end."""
    mine = enrollment_tokens.c.id == token.id
    used = {"used_ns": now_ns, "used_by": asking.name, "used_key": asking.key}
    connection.execute(sa.update(enrollment_tokens).where(mine).values(**used))
    named = machines.c.name == asking.name
    values = {
        "role": asking.role.value,
        "enrollment": token.replaces + 1,
        "enrolled_ns": now_ns,
        "last_seen_ns": None,
        "revoked_ns": None,
        "addresses": "[]",
        "drives": "[]",
        "software": "",
    }
    if token.replaces:
        connection.execute(sa.update(machines).where(named).values(**values))
        end_certificates(connection, asking.name, now_ns)
    else:
        connection.execute(
            sa.insert(machines).values(name=asking.name, folded=folded(asking.name), **values)
        )
    note_certificate(connection, asking.name, issued, now_ns)


def note_certificate(
    connection: sa.Connection, name: ClientName, issued: Issued, now_ns: int
) -> None:
    """Note a certificate before anybody has it."""
    connection.execute(
        sa.insert(machine_certificates).values(
            serial=issued.peer.serial,
            machine=name,
            fingerprint=issued.peer.fingerprint,
            pem=issued.pem.decode("ascii"),
            issued_ns=now_ns,
            expires_ns=issued.peer.expires_ns,
        )
    )


def end_certificates(
    connection: sa.Connection, name: ClientName, now_ns: int, but: str | None = None
) -> None:
    """Let nobody in any more with the certificates of a machine, but one."""
    theirs = [machine_certificates.c.machine == name, machine_certificates.c.revoked_ns.is_(None)]
    if but is not None:
        theirs.append(machine_certificates.c.serial != but)
    connection.execute(sa.update(machine_certificates).where(*theirs).values(revoked_ns=now_ns))


def enrollment_of(connection: sa.Connection, name: ClientName) -> int:
    """How often a machine of a name has joined."""
    query = sa.select(machines.c.enrollment).where(machines.c.folded == folded(name))
    return connection.scalar(query) or 0


def _given_before(connection: sa.Connection, token: sa.Row[Any], asking: Asking) -> str:
    if (token.used_key, token.used_by) == (asking.key, asking.name):
        theirs = machine_certificates.c.machine == asking.name
        pem = connection.scalar(
            sa.select(machine_certificates.c.pem)
            .where(theirs, machine_certificates.c.revoked_ns.is_(None))
            .where(machine_certificates.c.issued_ns == token.used_ns)
        )
        if pem is not None:
            return str(pem)
    raise NotAuthenticated(
        f"the enrollment token was used already, at {from_ns(token.used_ns):%Y-%m-%d %H:%M} UTC "
        f"by '{token.used_by}'",
        "it lets one machine in: make another, and if it was not you who used that one, take that "
        f"machine out: holdfast machine revoke {token.used_by}",
    )


def _require_free(
    connection: sa.Connection,
    name: ClientName,
    token: sa.Row[Any],
    own: Collection[ClientName],
    now_ns: int,
) -> None:
    hint = (
        f"choose another name, or make a token for this one: holdfast machine token --name {name}"
    )
    if folded(name) in {folded(one) for one in own}:
        raise AlreadyExists(
            f"'{name}' is the machine of the master server itself", "choose another: --name NAME"
        )
    query = sa.select(machines).where(machines.c.folded == folded(name))
    there = connection.execute(query).first()
    if there is not None and there.name != name:
        raise AlreadyExists(f"there is a machine '{there.name}' already", "choose another name")
    if there is not None and token.replaces != there.enrollment:
        raise AlreadyExists(f"there is a machine '{name}' already", hint)
    if token.name is not None:
        return
    clients = connection.scalars(
        sa.select(_CLIENTS.c.name).where(sa.func.lower(_CLIENTS.c.name) == name.lower())
    )
    if clients.first() is not None:
        raise AlreadyExists(f"there are images of a client '{name}' already", hint)
    kept = connection.execute(
        sa.select(enrollment_tokens.c.id).where(
            sa.func.lower(enrollment_tokens.c.name) == name.lower(),
            enrollment_tokens.c.used_ns.is_(None),
            enrollment_tokens.c.expires_ns > now_ns,
        )
    ).first()
    if kept is not None:
        raise AlreadyExists(f"the name '{name}' is kept for a machine with a token of its own")
