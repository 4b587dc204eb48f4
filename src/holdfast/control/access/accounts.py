"""Users and tokens as they are known, without what could log in.

Must not read or write. Invariant: names of users are lower-case and hold no colon, so no user can
have the name of a local one (``local:NAME``).
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING

from holdfast.base.errors import Invalid

if TYPE_CHECKING:
    from datetime import datetime

    from holdfast.control.access.permissions import Role
    from holdfast.control.access.scope import Scope

USER_NAME = r"[a-z0-9][a-z0-9._@-]{0,63}"
MAX_LABEL = 100
"""Characters of a display name, and of a token's name."""

PREFIX = "hf_"
_SECRET_BYTES = 32
_ID_BYTES = 6

_USER_NAME = re.compile(USER_NAME)


@dataclass(frozen=True, slots=True)
class User:
    """Somebody who may log in.

    Attributes:
        name: Unique, never changed.
        display_name: As people write it.
        role: What this one is here for.
        scope: Which clients this one is concerned with.
        has_password: Whether one was set.
        subject: Who that is at an identity provider: (issuer, subject).
        disabled: Nothing of this one is let in.
        created_at: When the account was made.
    """

    name: str
    display_name: str
    role: Role
    scope: Scope
    has_password: bool
    subject: tuple[str, str] | None
    disabled: bool
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Token:
    """What stands for a user; its secret is known to whom it was given.

    Attributes:
        id: To speak of it; no secret.
        user: Whose it is.
        name: What it is for.
        session: It came from a login, not from being made.
        role: Narrows the user's, if there is one.
        scope: Narrows the user's, if there is one.
        created_at: When it was given.
        expires_at: From when on it is worth nothing; None for never.
        last_used_at: To the minute.
        revoked_at: When it was taken back.
    """

    id: str
    user: str
    name: str
    session: bool
    role: Role | None
    scope: Scope | None
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None

    def is_live(self, now: datetime) -> bool:
        """Whether it would be let in, if its user is."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


def user_name(text: str) -> str:
    """Check the name of a user.

    Raises:
        Invalid: It can't be one.
    """
    if not is_user_name(text):
        raise Invalid(
            f"'{text[:80]}' can't be the name of a user",
            "1 to 64 of a-z, 0-9, '.', '_', '@' and '-', a letter or digit first",
        )
    return text


def is_user_name(text: str) -> bool:
    """Whether a text can be the name of a user."""
    return _USER_NAME.fullmatch(text) is not None


def label(text: str, what: str) -> str:
    """Make a name that is for people only fit to be shown: what can't be seen is left out.

    Raises:
        Invalid: It is too long.
    """
    if len(text) > MAX_LABEL:
        raise Invalid(f"{what} has up to {MAX_LABEL} characters, not {len(text)}")
    seen = " ".join(text.split())
    return "".join(character for character in seen if character.isprintable())


def new_secret() -> str:
    """A secret for a token: 256 random bits."""
    return PREFIX + secrets.token_urlsafe(_SECRET_BYTES)


def new_id() -> str:
    """The public id of a token."""
    return secrets.token_hex(_ID_BYTES)


def secret_hash(secret: str) -> str:
    """What is kept of a secret. Nobody guesses 256 bits, so it takes no salt and no time."""
    return sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
