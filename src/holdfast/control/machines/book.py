"""Machines of a site in the control database: who may join, who has, who is not let in any more.

Must not speak to machines: see `site.machines`. Invariants: what lets somebody in, or out, and its
row of the audit log are one transaction; a machine that is revoked has no certificate that is
let in; nothing here is enough to join with, nor to issue a certificate without the pool's key.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from holdfast.base.clock import to_ns
from holdfast.base.errors import AlreadyExists, Invalid, NotAuthenticated, NotFound, WrongState
from holdfast.base.ids import ClientName
from holdfast.control.access.chain import Entry, Outcome
from holdfast.control.database import facts
from holdfast.control.machines import joining, machine, sealing
from holdfast.control.machines.schema import (
    authority,
    enrollment_tokens,
    machine_certificates,
    machines,
)
from holdfast.wire.identity import (
    Authority,
    EnrollmentToken,
    MachineRole,
    key_fingerprint,
    machine_name,
    secret_hash,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from holdfast.base.clock import Clock
    from holdfast.control.access.audit import AuditLog
    from holdfast.control.database import Database
    from holdfast.control.machines.machine import Invitation, Machine, Said
    from holdfast.wire.identity import Peer

LEAST_VALID, MOST_VALID = timedelta(minutes=1), timedelta(days=30)
"""How long a token for joining may be good."""

KEPT = timedelta(days=30)
"""How long tokens and certificates that are worth nothing any more are still known."""

_THE_AUTHORITY = 1
_ROLES = (MachineRole.AGENT, MachineRole.MEDIA)


@dataclass(frozen=True, slots=True)
class Standing:
    """Who is let in, at one moment.

    Attributes:
        serials: Names by the certificates that are let in; an ended one is refused by TLS.
        agents: Every client that is an agent's, also of agents that are revoked.
        drives: What agents said of their drives.
        refused: Serials of certificates that were revoked before their end.
        revoked: Agents that are not let in any more.
    """

    serials: Mapping[str, ClientName]
    agents: frozenset[ClientName]
    drives: Mapping[ClientName, tuple[str, ...]]
    refused: frozenset[str] = frozenset()
    revoked: frozenset[ClientName] = frozenset()


class MachineBook:
    """The machines of one site. Thread-safe.

    Attributes:
        news: Called when somebody was let out; whoever serves machines ends their session.
        connected: Tells which machines are there; nobody, where no machines are served.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        audit: AuditLog,
        own: Iterable[ClientName] = (),
    ) -> None:
        """Prepare.

        Args:
            database: Where they are.
            clock: What tokens and certificates expire by.
            audit: Where joining is noted.
            own: Names that no machine may have: those of the site itself.
        """
        self._database = database
        self._clock = clock
        self._audit = audit
        self._own = tuple(own)
        self.news: Callable[[], None] = _nobody
        self.connected: Callable[[], Collection[ClientName]] = frozenset

    # -- the authority --------------------------------------------------------------------

    def authority_pem(self) -> bytes | None:
        """The certificate of the site's authority; None if there is none yet."""
        with self._database.read() as connection:
            found = connection.scalar(sa.select(authority.c.certificate))
        return None if found is None else str(found).encode("ascii")

    def authority(self, pool_key: bytes) -> Authority:
        """The site's authority, made when it is first asked for.

        Args:
            pool_key: Opens it.

        Raises:
            WrongKey: The key is not the one that it was sealed with.
        """
        with self._database.read() as connection:
            row = connection.execute(sa.select(authority)).first()
        if row is None:
            row = self._new_authority(pool_key)
        return sealing.unseal(row.certificate.encode("ascii"), row.sealed_key, pool_key)

    def _new_authority(self, pool_key: bytes) -> sa.Row[Any]:
        site_id = facts.site_id(self._database)
        with self._database.write() as connection:
            if connection.execute(sa.select(authority)).first() is None:
                made = Authority.create(site_id, self._clock.now())
                connection.execute(
                    sa.insert(authority).values(
                        id=_THE_AUTHORITY,
                        certificate=made.certificate_pem.decode("ascii"),
                        sealed_key=sealing.seal(made, pool_key),
                        created_ns=self._clock.now_ns(),
                    )
                )
            return connection.execute(sa.select(authority)).one()

    # -- joining --------------------------------------------------------------------------

    def invite(
        self, role: MachineRole, valid: timedelta, who: str, name: str | None = None
    ) -> tuple[Invitation, EnrollmentToken]:
        """Make a token that lets one machine in.

        Args:
            role: As what it may join.
            valid: For how long.
            who: Who makes it.
            name: Under which name alone. Only so may a machine get a name that somebody had.

        Returns:
            What is kept of it, and the token, which nobody can be told again.

        Raises:
            Invalid: The role, the name or the time can't be one.
            AlreadyExists: The name is that of the site itself.
            WrongState: The site has no authority yet.
        """
        if role not in _ROLES:
            raise Invalid(f"no machine can join as a {role}")
        if not LEAST_VALID <= valid <= MOST_VALID:
            raise Invalid("a token for joining is good for 1 minute to 30 days")
        wanted = None if name is None else machine_name(name)
        if wanted is not None and self._is_own(wanted):
            raise AlreadyExists(f"'{wanted}' is the machine of the master server itself")
        pem = self.authority_pem()
        if pem is None:
            raise WrongState(
                "this site takes no machines",
                "set serve.machines, such as to 0.0.0.0:8444, then: holdfast serve",
            )
        token = EnrollmentToken.generate(pem)
        now_ns = self._clock.now_ns()
        id_ = machine.new_id()
        with self._database.write() as connection:
            old = enrollment_tokens.c.expires_ns < now_ns - _ns(KEPT)
            connection.execute(sa.delete(enrollment_tokens).where(old))
            connection.execute(
                sa.insert(enrollment_tokens).values(
                    id=id_,
                    secret_hash=secret_hash(token.secret),
                    role=role.value,
                    name=wanted,
                    replaces=0 if wanted is None else joining.enrollment_of(connection, wanted),
                    created_ns=now_ns,
                    created_by=who,
                    expires_ns=now_ns + _ns(valid),
                )
            )
            mine = enrollment_tokens.c.id == id_
            row = connection.execute(sa.select(enrollment_tokens).where(mine)).one()
        return machine.invitation_of_row(row), token

    def enroll(
        self,
        ca: Authority,
        *,
        secret: str,
        csr_pem: bytes,
        role: MachineRole,
        name: ClientName,
        life: timedelta,
        details: Mapping[str, object],
    ) -> bytes:
        """Let a machine join that has a token.

        Args:
            ca: The site's authority.
            secret: The token's.
            csr_pem: Its request for a certificate.
            role: As what it wants to join.
            name: Under which name.
            life: How long its certificate is to be good.
            details: For the audit log, such as where it comes from.

        Returns:
            Its certificate.

        Raises:
            NotAuthenticated: The token is none, or was used, or has expired.
            Forbidden: It is for another name.
            Invalid: It is for another role, or the request is none.
            AlreadyExists: The name is somebody's.
        """
        asking = joining.Asking(
            secret_hash(secret), key_fingerprint(csr_pem), role, machine_name(name)
        )
        with self._database.write() as connection:
            now = self._clock.now()
            token = joining.token_for(connection, asking, self._own, to_ns(now))
            if isinstance(token, str):
                return token.encode("ascii")
            issued = ca.issue(csr_pem, role, name, now, life)
            joining.let_in(connection, token, asking, issued, to_ns(now))
            noted = {**details, "role": role.value, "token": token.id, "serial": issued.peer.serial}
            self._note(connection, name, "enroll", noted)
        return issued.pem

    def renew(self, ca: Authority, peer: Peer, csr_pem: bytes, life: timedelta) -> bytes:
        """Give a machine its next certificate. All but that and the one it came with end.

        So a copy of a machine's key that is used elsewhere can't go on beside it unnoticed.

        Raises:
            NotAuthenticated: It is not let in any more.
            Invalid: The request is none.
        """
        with self._database.write() as connection:
            now = self._clock.now()
            theirs = machine_certificates.c.serial == peer.serial
            row = connection.execute(sa.select(machine_certificates).where(theirs)).first()
            if row is None or row.revoked_ns is not None or row.machine != peer.name:
                raise NotAuthenticated(f"the certificate of '{peer.name}' was revoked")
            issued = ca.issue(csr_pem, peer.role, peer.name, now, life)
            joining.end_certificates(connection, peer.name, to_ns(now), but=peer.serial)
            joining.note_certificate(connection, peer.name, issued, to_ns(now))
            over = machine_certificates.c.expires_ns < to_ns(now - KEPT)
            connection.execute(sa.delete(machine_certificates).where(over))
            noted = {"serial": issued.peer.serial, "old_serial": peer.serial}
            self._note(connection, peer.name, "renew", noted)
        return issued.pem

    def revoke(self, name: ClientName) -> Machine:
        """Let a machine in no more, from now on; a second time changes nothing.

        Tokens that were made for its name are worth nothing any more either.

        Raises:
            NotFound: There is none of this name.
        """
        self.machine(name)
        now_ns = self._clock.now_ns()
        with self._database.write() as connection:
            named = (machines.c.name == name, machines.c.revoked_ns.is_(None))
            connection.execute(sa.update(machines).where(*named).values(revoked_ns=now_ns))
            joining.end_certificates(connection, name, now_ns)
            tokens = (enrollment_tokens.c.name == name, enrollment_tokens.c.expires_ns > now_ns)
            connection.execute(
                sa.update(enrollment_tokens).where(*tokens).values(expires_ns=now_ns)
            )
        self.news()
        return self.machine(name)

    # -- who there is ---------------------------------------------------------------------

    def machines(self, *, limit: int, after: str | None = None) -> list[Machine]:
        """Some machines, by name; those after one."""
        statement = _machines().order_by(machines.c.name).limit(limit)
        if after is not None:
            statement = statement.where(machines.c.name > after)
        with self._database.read() as connection:
            return [machine.machine_of_row(row) for row in connection.execute(statement)]

    def machine(self, name: str) -> Machine:
        """One machine.

        Raises:
            NotFound: There is none of this name.
        """
        try:
            wanted = machine_name(name)
        except Invalid:
            wanted = ClientName("")
        with self._database.read() as connection:
            row = connection.execute(_machines().where(machines.c.name == wanted)).first()
        if row is None:
            raise NotFound(
                f"there is no machine '{name[:80]}'", "'holdfast machine list' shows them"
            )
        return machine.machine_of_row(row)

    def standing(self) -> Standing:
        """Who is let in now."""
        live = sa.select(machine_certificates.c.serial, machine_certificates.c.machine).where(
            machine_certificates.c.revoked_ns.is_(None),
            machine_certificates.c.expires_ns > self._clock.now_ns(),
        )
        dead = sa.select(machine_certificates.c.serial).where(
            machine_certificates.c.revoked_ns.is_not(None),
            machine_certificates.c.expires_ns > self._clock.now_ns(),
        )
        agents = sa.select(machines).where(machines.c.role == MachineRole.AGENT.value)
        with self._database.read() as connection:
            serials = {row.serial: ClientName(row.machine) for row in connection.execute(live)}
            rows = connection.execute(agents).all()
            refused = frozenset(connection.scalars(dead))
        found = dict(_plain(row) for row in rows)
        out = frozenset(ClientName(row.name) for row in rows if row.revoked_ns is not None)
        return Standing(serials, frozenset(found), found, refused, out)

    def hear(self, said: Mapping[ClientName, Said]) -> None:
        """Note what machines say of themselves, and that they were heard of."""
        now_ns = self._clock.now_ns()
        with self._database.write() as connection:
            for name, one in said.items():
                connection.execute(
                    sa.update(machines)
                    .where(machines.c.name == name)
                    .values(
                        last_seen_ns=now_ns,
                        software=machine.plain_text(one.software),
                        addresses=machine.list_text(one.addresses),
                        drives=machine.list_text(one.drives),
                    )
                )

    def _is_own(self, name: str) -> bool:
        return machine.folded(name) in {machine.folded(one) for one in self._own}

    def _note(
        self, connection: sa.Connection, name: str, what: str, details: Mapping[str, object]
    ) -> None:
        entry = Entry.of(f"machine:{name}", what, f"machines/{name}", Outcome.DONE, details)
        self._audit.append_on(connection, entry)


def _nobody() -> None:
    """No machines are served here: a door elsewhere sees it within the second."""


def _machines() -> sa.Select[Any]:
    until = (
        sa.select(sa.func.max(machine_certificates.c.expires_ns))
        .where(
            machine_certificates.c.machine == machines.c.name,
            machine_certificates.c.revoked_ns.is_(None),
        )
        .scalar_subquery()
    )
    return sa.select(machines, until.label("certificate_until_ns"))


def _plain(row: sa.Row[Any]) -> tuple[ClientName, tuple[str, ...]]:
    import json

    return ClientName(row.name), tuple(json.loads(row.drives))


def _ns(duration: timedelta) -> int:
    return duration // timedelta(microseconds=1) * 1000
