"""Users and tokens in the control database, and who stands behind a token.

Must not judge what somebody may do: a `Principal` does. Invariants: a user who is disabled, or
whose role is changed, is so for every token at once; a secret is handed out once, never stored.
"""

from __future__ import annotations

import contextlib
from datetime import timedelta
from typing import TYPE_CHECKING

import sqlalchemy as sa

from holdfast.base.clock import from_ns, to_ns
from holdfast.base.errors import (
    AlreadyExists,
    Forbidden,
    Invalid,
    NotAuthenticated,
    NotFound,
    StorageError,
)
from holdfast.control.access import accounts, passwords, rows, throttle
from holdfast.control.access.accounts import Token, User
from holdfast.control.access.passwords import Cost, Passwords
from holdfast.control.access.permissions import Role
from holdfast.control.access.principal import Principal, Way
from holdfast.control.access.schema import tokens, users
from holdfast.control.access.scope import ALL_CLIENTS, Scope

if TYPE_CHECKING:
    from datetime import datetime

    from holdfast.base.clock import Clock
    from holdfast.control.database import Database

SESSION = timedelta(hours=12)
"""How long a login lasts."""

KEPT = timedelta(days=30)
"""How long a token that is worth nothing any more is still listed."""

_USED_AGAIN = timedelta(minutes=1)

_NOBODY = "(nobody)"
"""Whom failures count against where the name can't be one."""


class AccessBook:
    """The users and tokens of one site. Thread-safe."""

    def __init__(self, database: Database, clock: Clock, cost: Cost | None = None) -> None:
        """Prepare.

        Args:
            database: Where they are.
            clock: What tokens expire by.
            cost: What a password's hash costs.
        """
        self._database = database
        self._clock = clock
        self._passwords = Passwords(cost or Cost())

    # users

    def users(self, *, limit: int, after: str | None = None) -> list[User]:
        """Some users, by name; those after one."""
        statement = sa.select(users).order_by(users.c.name).limit(limit)
        if after is not None:
            statement = statement.where(users.c.name > after)
        with self._database.read() as connection:
            return [rows.user_of_row(row) for row in connection.execute(statement)]

    def user(self, name: str) -> User:
        """One user.

        Raises:
            NotFound: There is none of this name.
        """
        with self._database.read() as connection:
            return rows.user_of_row(rows.require_user(connection, name))

    def has_user(self, name: str) -> bool:
        """Whether there is a user of this name."""
        with self._database.read() as connection:
            return accounts.is_user_name(name) and (
                rows.find_user(connection, users.c.name == name) is not None
            )

    def count_users(self) -> int:
        """How many users there are."""
        with self._database.read() as connection:
            return connection.scalar(sa.select(sa.func.count()).select_from(users)) or 0

    def add_user(
        self,
        name: str,
        *,
        role: Role,
        display_name: str = "",
        scope: Scope = ALL_CLIENTS,
        password: str | None = None,
        subject: tuple[str, str] | None = None,
    ) -> User:
        """Make a user.

        Args:
            name: Unique.
            role: What this one is here for.
            display_name: As people write it.
            scope: Which clients this one is concerned with.
            password: Without one, only tokens and the identity provider let this one in.
            subject: Who that is at an identity provider.

        Raises:
            Invalid: The name or the password can't be one.
            AlreadyExists: There is a user of this name, or with this subject.
        """
        accounts.user_name(name)
        shown = accounts.label(display_name, "a display name")
        kept = None
        if password is not None:
            passwords.require_good(password, name)
            kept = self._passwords.hash(password)
        values = {
            "name": name,
            "display_name": shown,
            "role": role.value,
            "scope": rows.scope_text(scope),
            "password_hash": kept,
            "subject": rows.subject_text(subject),
            "disabled": False,
            "created_ns": self._clock.now_ns(),
        }
        with self._database.write() as connection:
            if rows.find_user(connection, users.c.name == name) is not None:
                raise AlreadyExists(f"there is a user '{name}' already")
            rows.require_nobody_else(connection, name, rows.subject_text(subject))
            connection.execute(sa.insert(users).values(**values))
            return rows.user_of_row(rows.require_user(connection, name))

    def change_user(
        self,
        name: str,
        *,
        role: Role | None = None,
        display_name: str | None = None,
        scope: Scope | None = None,
        disabled: bool | None = None,
    ) -> User:
        """Change what is given of a user.

        Raises:
            NotFound: There is none of this name.
            Invalid: The display name can't be one.
        """
        values: dict[str, object] = {}
        if role is not None:
            values["role"] = role.value
        if display_name is not None:
            values["display_name"] = accounts.label(display_name, "a display name")
        if scope is not None:
            values["scope"] = rows.scope_text(scope)
        if disabled is not None:
            values["disabled"] = disabled
        with self._database.write() as connection:
            rows.require_user(connection, name)
            if values:
                connection.execute(sa.update(users).where(users.c.name == name).values(**values))
            if disabled:
                rows.end_sessions(connection, name, self._clock.now_ns())
            return rows.user_of_row(rows.require_user(connection, name))

    def set_subject(self, name: str, subject: tuple[str, str] | None) -> User:
        """Say who a user is at an identity provider.

        Args:
            name: The user.
            subject: Issuer and identity; None for nobody.

        Raises:
            NotFound: There is none of this name.
            AlreadyExists: Another user is that one.
        """
        text = rows.subject_text(subject)
        with self._database.write() as connection:
            rows.require_user(connection, name)
            rows.require_nobody_else(connection, name, text)
            connection.execute(sa.update(users).where(users.c.name == name).values(subject=text))
            return rows.user_of_row(rows.require_user(connection, name))

    def user_of(self, subject: tuple[str, str]) -> User | None:
        """Who somebody at an identity provider is here; None for nobody."""
        with self._database.read() as connection:
            row = rows.find_user(connection, users.c.subject == rows.subject_text(subject))
        return None if row is None else rows.user_of_row(row)

    def set_password(self, name: str, password: str) -> None:
        """Give a user a new password. Logins that were made with the old one end.

        Raises:
            NotFound: There is none of this name.
            Invalid: The password is too easy.
        """
        passwords.require_good(password, name)
        kept = self._passwords.hash(password)
        with self._database.write() as connection:
            rows.require_user(connection, name)
            connection.execute(
                sa.update(users).where(users.c.name == name).values(password_hash=kept)
            )
            rows.end_sessions(connection, name, self._clock.now_ns())

    def change_own_password(self, name: str, old: str, new: str, address: str) -> None:
        """Give a user who knows the old password a new one.

        Raises:
            Forbidden: The old password is another.
            TooManyAttempts: Too many were wrong.
            Invalid: The new password is too easy.
        """
        passwords.require_good(new, name)
        if not self._fits(name, old, address):
            raise Forbidden("the old password is another", "an administrator can set a new one")
        self.set_password(name, new)

    def remove_user(self, name: str) -> None:
        """Remove a user, and every token of that one. The audit log keeps the name.

        Raises:
            NotFound: There is none of this name.
        """
        with self._database.write() as connection:
            rows.require_user(connection, name)
            connection.execute(sa.delete(tokens).where(tokens.c.user_name == name))
            connection.execute(sa.delete(users).where(users.c.name == name))

    # logins and tokens

    def log_in(self, name: str, password: str, address: str) -> tuple[Token, str]:
        """Let a user in by name and password.

        Args:
            name: What somebody says to be.
            password: What that one gives.
            address: Where it comes from, to count failures.

        Returns:
            A token for a short time, and its secret.

        Raises:
            NotAuthenticated: Whatever is wrong: it is not told what.
            TooManyAttempts: The next attempt has to wait.
        """
        if not self._fits(name, password, address):
            raise NotAuthenticated(
                "name and password do not fit, or the user is disabled", "try again"
            )
        return self.open_session(name, "login")

    def open_session(self, user: str, how: str) -> tuple[Token, str]:
        """Give a token for a short time to a user who was recognised.

        Raises:
            NotFound: There is none of this name.
        """
        return self._give(user, how, session=True, expires_at=self._clock.now() + SESSION)

    def create_token(
        self,
        user: str,
        name: str,
        *,
        expires_at: datetime | None = None,
        role: Role | None = None,
        scope: Scope | None = None,
    ) -> tuple[Token, str]:
        """Make a token for a program.

        Args:
            user: Whose it is.
            name: What it is for.
            expires_at: From when on it is worth nothing; None for never.
            role: Narrows what the user may do: both have to allow it.
            scope: Narrows the clients likewise.

        Returns:
            The token, and its secret, which nobody can be told again.

        Raises:
            NotFound: There is no such user.
            Invalid: The name is too long, or the end is past.
        """
        stated = accounts.label(name, "the name of a token") or "unnamed"
        if expires_at is not None and expires_at <= self._clock.now():
            raise Invalid("the token would have expired already", "name a later moment")
        return self._give(
            user, stated, session=False, expires_at=expires_at, role=role, scope=scope
        )

    def tokens(
        self,
        *,
        limit: int,
        user: str | None = None,
        sessions: bool = False,
        after: tuple[int, str] | None = None,
    ) -> list[Token]:
        """Some tokens, oldest first.

        Args:
            limit: How many at most.
            user: Only of this one.
            sessions: Also those that came from logins.
            after: `token_key` of the one before.
        """
        statement = sa.select(tokens).order_by(tokens.c.created_ns, tokens.c.id).limit(limit)
        if user is not None:
            statement = statement.where(tokens.c.user_name == user)
        if not sessions:
            statement = statement.where(tokens.c.session.is_(False))
        if after is not None:
            created_ns, id_ = after
            statement = statement.where(
                sa.or_(
                    tokens.c.created_ns > created_ns,
                    sa.and_(tokens.c.created_ns == created_ns, tokens.c.id > id_),
                )
            )
        with self._database.read() as connection:
            return [rows.token_of_row(row) for row in connection.execute(statement)]

    def token(self, id_: str) -> Token:
        """One token.

        Raises:
            NotFound: There is none of this id.
        """
        with self._database.read() as connection:
            row = connection.execute(sa.select(tokens).where(tokens.c.id == id_)).first()
        if row is None:
            raise NotFound(f"there is no token '{id_[:80]}'", "'holdfast token list' shows them")
        return rows.token_of_row(row)

    def revoke(self, id_: str) -> Token:
        """Take a token back; a second time changes nothing.

        Raises:
            NotFound: There is none of this id.
        """
        with self._database.write() as connection:
            connection.execute(
                sa.update(tokens)
                .where(tokens.c.id == id_, tokens.c.revoked_ns.is_(None))
                .values(revoked_ns=self._clock.now_ns())
            )
        return self.token(id_)

    def principal_of(self, secret: str) -> Principal:
        """Who stands behind a token.

        Args:
            secret: What somebody gave.

        Raises:
            NotAuthenticated: Nobody.
        """
        now = self._clock.now()
        statement = (
            sa.select(
                tokens,
                users.c.role.label("user_role"),
                users.c.scope.label("user_scope"),
                users.c.disabled,
            )
            .join(users, users.c.name == tokens.c.user_name)
            .where(tokens.c.secret_hash == accounts.secret_hash(secret))
        )
        with self._database.read() as connection:
            row = connection.execute(statement).first()
        if row is None:
            raise NotAuthenticated("the token is not one of this site")
        token = rows.token_of_row(row)
        if row.disabled:
            raise NotAuthenticated(f"the user '{token.user}' is disabled")
        if token.revoked_at is not None:
            raise NotAuthenticated(f"the token '{token.name}' was revoked")
        if token.expires_at is not None and now >= token.expires_at:
            at = f"{token.expires_at:%Y-%m-%d %H:%M} UTC"
            raise NotAuthenticated(f"the token '{token.name}' expired at {at}")
        self._use(token, now)
        roles = [Role(row.user_role), *([token.role] if token.role else [])]
        scopes = [rows.scope_of_text(row.user_scope), *([token.scope] if token.scope else [])]
        way = Way.SESSION if token.session else Way.TOKEN
        return Principal(token.user, way, tuple(roles), tuple(scopes), token.id)

    def _fits(self, name: str, password: str, address: str) -> bool:
        if not accounts.is_user_name(name):
            name = _NOBODY
        with self._database.write() as connection:
            throttle.count(connection, name, address, self._clock.now_ns())
        with self._database.read() as connection:
            row = rows.find_user(connection, users.c.name == name)
        usable = row is not None and not row.disabled
        kept = row.password_hash if row is not None and usable else None
        if not self._passwords.fits(password, kept):
            return False
        with self._database.write() as connection:
            throttle.succeeded(connection, name, address)
        if kept is not None and self._passwords.is_dated(kept):
            renewed = self._passwords.hash(password)
            same = sa.and_(users.c.name == name, users.c.password_hash == kept)
            with self._database.write() as connection:
                connection.execute(sa.update(users).where(same).values(password_hash=renewed))
        return True

    def _give(
        self,
        user: str,
        name: str,
        *,
        session: bool,
        expires_at: datetime | None,
        role: Role | None = None,
        scope: Scope | None = None,
    ) -> tuple[Token, str]:
        secret = accounts.new_secret()
        # As the database has it: to the microsecond.
        now = from_ns(self._clock.now_ns())
        token = Token(
            accounts.new_id(), user, name, session, role, scope, now, expires_at, None, None
        )
        with self._database.write() as connection:
            rows.require_user(connection, user)
            rows.forget_tokens(connection, to_ns(now - KEPT))
            connection.execute(
                sa.insert(tokens).values(
                    id=token.id,
                    secret_hash=accounts.secret_hash(secret),
                    user_name=user,
                    name=name,
                    session=session,
                    role=None if role is None else role.value,
                    scope=None if scope is None else rows.scope_text(scope),
                    created_ns=to_ns(now),
                    expires_ns=None if expires_at is None else to_ns(expires_at),
                )
            )
        return token, secret

    def _use(self, token: Token, now: datetime) -> None:
        if token.last_used_at is not None and now - token.last_used_at < _USED_AGAIN:
            return
        # Who comes to free some space has to be let in where there is none.
        with contextlib.suppress(StorageError), self._database.write() as connection:
            connection.execute(
                sa.update(tokens).where(tokens.c.id == token.id).values(last_used_ns=to_ns(now))
            )
