"""Who asks, and what that one may do.

Must not find out who it is: see `book`. Invariant: what a token narrows is never wider than
what its user may do.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from holdfast.base.errors import Forbidden
from holdfast.base.local_users import local_name
from holdfast.control.access.permissions import PERMISSIONS, SITE_WIDE, Role, Verb
from holdfast.control.access.scope import ALL_CLIENTS, Scope

if TYPE_CHECKING:
    from collections.abc import Iterable

    import sqlalchemy as sa


class Way(StrEnum):
    """How somebody showed who they are."""

    LOCAL = "local"
    """As a user of the operating system who owns the site, on its own machine."""
    SESSION = "session"
    """By a login that is not long ago."""
    TOKEN = "token"  # noqa: S105 - a way, no secret
    """By a token that a program keeps."""


@dataclass(frozen=True, slots=True)
class Principal:
    """Somebody who asks.

    Attributes:
        name: The user's, or ``local:NAME`` for a user of the operating system.
        way: How that was shown.
        roles: All of them have to allow what is done: the user's, and the token's if it narrows.
        scopes: All of them have to cover the client.
        token: The public id of the token, if there is one.
    """

    name: str
    way: Way
    roles: tuple[Role, ...]
    scopes: tuple[Scope, ...] = (ALL_CLIENTS,)
    token: str | None = None

    @property
    def sees_all_clients(self) -> bool:
        """Whether no scope bounds this one."""
        return all(scope.is_all for scope in self.scopes)

    def may(self, verb: Verb) -> bool:
        """Whether this one may do that at all."""
        if verb in SITE_WIDE and not self.sees_all_clients:
            return False
        if verb is Verb.OWN_ACCOUNT and self.way is Way.TOKEN:
            # Else a token that was stolen, or narrowed, could make itself another.
            return False
        return all(verb in PERMISSIONS[role] for role in self.roles)

    def require(self, *verbs: Verb) -> None:
        """Refuse what this one may not do, neither as one of these verbs nor as another.

        Raises:
            Forbidden: So it is.
        """
        if not any(self.may(verb) for verb in verbs):
            named = " or ".join(f"'{verb}'" for verb in verbs)
            raise Forbidden(f"{self.name} may not do that: it takes the permission {named}")

    def sees(self, client: str) -> bool:
        """Whether a client is in the scope of this one."""
        return all(scope.covers(client) for scope in self.scopes)

    def require_clients(self, clients: Iterable[str]) -> None:
        """Refuse clients that are out of scope.

        Raises:
            Forbidden: The first of them.
        """
        for client in clients:
            if not self.sees(client):
                raise Forbidden(f"{self.name} may do nothing with the client '{client}'")

    def require_all_clients(self, what: str) -> None:
        """Refuse what concerns clients that can't be named one by one.

        Args:
            what: Named in the message.

        Raises:
            Forbidden: This one is bounded to some clients.
        """
        if not self.sees_all_clients:
            raise Forbidden(f"{self.name} may do nothing with {what}: it concerns all clients")

    def condition(
        self, connection: sa.Connection, client: sa.ColumnElement[str]
    ) -> sa.ColumnElement[bool]:
        """What rows this one sees, for a database to judge.

        Args:
            connection: The one that will ask.
            client: The column that has the name of a row's client.
        """
        import sqlalchemy as sa

        return sa.and_(sa.true(), *(scope.condition(connection, client) for scope in self.scopes))


def local(user_id: int) -> Principal:
    """A user of the operating system who could open the site's files anyway."""
    return Principal(local_name(user_id), Way.LOCAL, (Role.ADMINISTRATOR,))
