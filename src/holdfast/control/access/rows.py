"""Rows of users and tokens, as what they stand for, and what is asked of them again and again.

Must not open transactions. Every function runs on the caller's connection.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from holdfast.base.clock import from_ns, to_ns
from holdfast.base.errors import AlreadyExists, NotFound
from holdfast.control.access import accounts
from holdfast.control.access.accounts import Token, User
from holdfast.control.access.permissions import Role
from holdfast.control.access.schema import tokens, users
from holdfast.control.access.scope import Scope

if TYPE_CHECKING:
    from datetime import datetime

    Row = sa.Row[tuple[object, ...]]


def token_key(token: Token) -> tuple[int, str]:
    """Where a token stands in the list of all."""
    return to_ns(token.created_at), token.id


def find_user(connection: sa.Connection, wanted: sa.ColumnElement[bool]) -> Row | None:
    """The user that fits, if there is one."""
    return connection.execute(sa.select(users).where(wanted)).first()


def require_user(connection: sa.Connection, name: str) -> Row:
    """The user of a name.

    Raises:
        NotFound: There is none.
    """
    # What can't be a name, a database might not even be able to look for.
    row = find_user(connection, users.c.name == name) if accounts.is_user_name(name) else None
    if row is None:
        raise NotFound(f"there is no user '{name[:80]}'", "'holdfast user list' shows them")
    return row


def subject_text(subject: tuple[str, str] | None) -> str | None:
    """Issuer and identity as a column has them."""
    return None if subject is None else "\n".join(subject)


def require_nobody_else(connection: sa.Connection, name: str, subject: str | None) -> None:
    """Refuse a subject that another user is.

    Raises:
        AlreadyExists: So it is.
    """
    other = None if subject is None else find_user(connection, users.c.subject == subject)
    if other is not None and other.name != name:
        raise AlreadyExists(f"'{other.name}' is who that is at the identity provider")


def end_sessions(connection: sa.Connection, user: str, now_ns: int) -> None:
    """Revoke what a user has logged in."""
    connection.execute(
        sa.update(tokens)
        .where(tokens.c.user_name == user, tokens.c.session, tokens.c.revoked_ns.is_(None))
        .values(revoked_ns=now_ns)
    )


def forget_tokens(connection: sa.Connection, before_ns: int) -> None:
    """Forget tokens that have been worth nothing for long."""
    over = sa.or_(tokens.c.expires_ns < before_ns, tokens.c.revoked_ns < before_ns)
    connection.execute(sa.delete(tokens).where(over))


def user_of_row(row: Row) -> User:
    """A user, of a row."""
    subject = None
    if row.subject is not None:
        issuer, _, name = row.subject.partition("\n")
        subject = (issuer, name)
    return User(
        row.name,
        row.display_name,
        Role(row.role),
        scope_of_text(row.scope),
        row.password_hash is not None,
        subject,
        row.disabled,
        from_ns(row.created_ns),
    )


def token_of_row(row: Row) -> Token:
    """A token, of a row."""
    return Token(
        row.id,
        row.user_name,
        row.name,
        row.session,
        None if row.role is None else Role(row.role),
        None if row.scope is None else scope_of_text(row.scope),
        from_ns(row.created_ns),
        _moment(row.expires_ns),
        _moment(row.last_used_ns),
        _moment(row.revoked_ns),
    )


def _moment(at_ns: int | None) -> datetime | None:
    return None if at_ns is None else from_ns(at_ns)


def scope_of_text(text: str) -> Scope:
    """A scope, as a column has it."""
    return Scope(tuple(text.split("\n")))


def scope_text(scope: Scope) -> str:
    """What a column has of a scope."""
    return "\n".join(scope.globs)
