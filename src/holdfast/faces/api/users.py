"""Users: who may log in, and as what."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import Path, Response
from pydantic import Field, SecretStr

from holdfast.control import access
from holdfast.control.access import Principal, Role, Verb
from holdfast.control.access.accounts import MAX_LABEL, USER_NAME
from holdfast.control.access.passwords import MAX_CHARACTERS, MIN_CHARACTERS
from holdfast.control.access.provider_logins import IDENTITY, MAX_IDENTITY
from holdfast.control.access.scope import GLOB, MAX_GLOB, MAX_GLOBS
from holdfast.faces.api import document
from holdfast.faces.api.door import TheMaster, TheNote, make_router, may
from holdfast.faces.api.models import Model, Page
from holdfast.faces.api.paging import Pages

router = make_router("Users")

# What a book refuses in clear words stands in the document here, and is not judged twice.
UserName = Annotated[
    str,
    Field(
        description="Unique, never changed.",
        examples=["alice"],
        json_schema_extra={"pattern": f"^{USER_NAME}$"},
    ),
]
NamedUser = Annotated[
    str,
    Path(alias="name", pattern=r"^[^\x00]+$", description="Name of a user.", examples=["alice"]),
]
Glob = Annotated[
    str, Field(json_schema_extra={"pattern": f"^{GLOB}$", "minLength": 1, "maxLength": MAX_GLOB})
]
Globs = Annotated[
    list[Glob],
    Field(
        min_length=1,
        max_length=MAX_GLOBS,
        description="Which clients: names, in which * stands for anything and ? for one character.",
        examples=[["web*", "mail1"]],
    ),
]
DisplayName = Annotated[
    str,
    Field(max_length=MAX_LABEL, description="As people write it.", examples=["Alice Liddell"]),
]
NewPassword = Annotated[
    SecretStr,
    Field(
        description="Its length is what counts.",
        examples=["four words nobody guesses"],
        json_schema_extra={"minLength": MIN_CHARACTERS, "maxLength": MAX_CHARACTERS},
    ),
]
Identity = Annotated[
    str,
    Field(
        description="What the site's identity provider says in the claim `login.claim`.",
        examples=["alice@example.org"],
        json_schema_extra={"pattern": f"^{IDENTITY}$", "minLength": 1, "maxLength": MAX_IDENTITY},
    ),
]
Administrator = Annotated[Principal, may(Verb.MANAGE_USERS)]


class User(Model):
    """Somebody who may log in."""

    name: UserName
    display_name: DisplayName
    role: Role
    scope: Globs
    has_password: bool = Field(description="Whether a password was set.")
    identity: str | None = Field(
        description="Who that is at the site's identity provider.", examples=["alice@example.org"]
    )
    disabled: bool = Field(description="Nothing of this one is let in.")
    created_at: datetime

    @classmethod
    def of(cls, user: access.User) -> User:
        """As the book has it."""
        return cls(
            name=user.name,
            display_name=user.display_name,
            role=user.role,
            scope=list(user.scope.globs),
            has_password=user.has_password,
            identity=None if user.subject is None else user.subject[1],
            disabled=user.disabled,
            created_at=user.created_at,
        )


class NewUser(Model):
    """A user who is to be made."""

    name: UserName
    role: Role
    display_name: DisplayName = ""
    scope: Globs = Field(default=["*"])
    password: NewPassword | None = Field(
        default=None, description="Without one, there is no login by name and password."
    )
    identity: Identity | None = None


class UserChange(Model):
    """What is to be changed of a user; what is left out stays."""

    role: Role | None = None
    display_name: DisplayName | None = None
    scope: Globs | None = None
    disabled: bool | None = None


class IdentityChange(Model):
    """Who a user is at the site's identity provider."""

    identity: Identity | None = Field(description="Null for nobody.")


class PasswordChange(Model):
    """A new password."""

    password: NewPassword


@router.get("/users")
def list_users(_: Administrator, master: TheMaster, pages: Pages) -> Page[User]:
    """The users, by name."""
    after = pages.after(str)
    rows = master.access.users(limit=pages.fetch, after=str(after[0]) if after else None)
    return pages.page(rows, key=lambda row: (row.name,), show=User.of)


@router.post("/users", status_code=201, responses={404: document.response(404)})
def create_user(
    _: Administrator, master: TheMaster, body: NewUser, response: Response, note: TheNote
) -> User:
    """Make a user."""
    note.about = f"users/{body.name}"
    made = master.access.add_user(
        body.name,
        role=body.role,
        display_name=body.display_name,
        scope=access.Scope.of(body.scope),
        password=None if body.password is None else body.password.get_secret_value(),
        subject=None if body.identity is None else master.logins.subject(body.identity),
    )
    response.headers["Location"] = f"/api/v1/users/{made.name}"
    return User.of(made)


@router.get("/users/{name}")
def read_user(_: Administrator, master: TheMaster, name: NamedUser) -> User:
    """One user."""
    return User.of(master.access.user(name))


@router.patch("/users/{name}")
def change_user(_: Administrator, master: TheMaster, name: NamedUser, body: UserChange) -> User:
    """Change role, clients or display name of a user, or shut one out.

    It counts at once, for every token of that user.
    """
    return User.of(
        master.access.change_user(
            name,
            role=body.role,
            display_name=body.display_name,
            scope=None if body.scope is None else access.Scope.of(body.scope),
            disabled=body.disabled,
        )
    )


@router.put("/users/{name}/password", status_code=204)
def set_password(
    _: Administrator, master: TheMaster, name: NamedUser, body: PasswordChange
) -> None:
    """Give a user a new password. What that one has logged in ends."""
    master.access.set_password(name, body.password.get_secret_value())


@router.put("/users/{name}/identity")
def set_identity(
    _: Administrator, master: TheMaster, name: NamedUser, body: IdentityChange
) -> User:
    """Say who a user is at the site's identity provider, so that a login there lets that one in."""
    subject = None if body.identity is None else master.logins.subject(body.identity)
    return User.of(master.access.set_subject(name, subject))


@router.delete("/users/{name}", status_code=204)
def remove_user(_: Administrator, master: TheMaster, name: NamedUser) -> None:
    """Remove a user and all tokens of that one. The audit log keeps the name."""
    master.access.remove_user(name)
