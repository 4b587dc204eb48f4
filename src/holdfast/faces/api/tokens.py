"""Tokens: what programs log in with."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated

from fastapi import Path, Query, Response
from pydantic import Field

from holdfast.base.errors import Forbidden, Invalid, NotFound
from holdfast.control import access
from holdfast.control.access import Principal, Role, Verb
from holdfast.control.access.accounts import MAX_LABEL
from holdfast.faces.api import document
from holdfast.faces.api.door import TheMaster, make_router, may
from holdfast.faces.api.models import Model, Page
from holdfast.faces.api.paging import Pages
from holdfast.faces.api.users import Globs, UserName

router = make_router("Tokens")

MIN_LIFETIME_S = 60
MAX_LIFETIME_S = 10 * 366 * 86_400

NamedToken = Annotated[
    str,
    Path(
        alias="id", pattern=r"^[^\x00]+$", description="Id of a token.", examples=["0c5bd1f5a2e9"]
    ),
]
Owner = Annotated[Principal, may(Verb.OWN_ACCOUNT, Verb.MANAGE_USERS)]


class Token(Model):
    """What stands for a user, without its secret."""

    id: str = Field(description="To speak of it.", examples=["0c5bd1f5a2e9"])
    user: UserName
    name: str = Field(description="What it is for.", examples=["nightly reports"])
    session: bool = Field(description="It came from a login.")
    role: Role | None = Field(description="Narrows the user's.")
    scope: list[str] | None = Field(description="Narrows the user's.", examples=[["web*"]])
    created_at: datetime
    expires_at: datetime | None = Field(description="From when on it is worth nothing.")
    last_used_at: datetime | None = Field(description="To the minute.")
    revoked_at: datetime | None

    @classmethod
    def of(cls, token: access.Token) -> Token:
        """As the book has it."""
        return cls(
            id=token.id,
            user=token.user,
            name=token.name,
            session=token.session,
            role=token.role,
            scope=None if token.scope is None else list(token.scope.globs),
            created_at=token.created_at,
            expires_at=token.expires_at,
            last_used_at=token.last_used_at,
            revoked_at=token.revoked_at,
        )


class MadeToken(Token):
    """A token that was just made, with its secret, which is told this once."""

    secret: str = Field(description="Give it as `Authorization: Bearer …`.", examples=["hf_…"])


class NewToken(Model):
    """A token that is to be made."""

    name: str = Field(
        min_length=1, max_length=MAX_LABEL, description="What it is for.", examples=["ci"]
    )
    user: UserName | None = Field(default=None, description="Whose; one's own if left out.")
    lifetime_s: int | None = Field(
        default=None,
        ge=MIN_LIFETIME_S,
        le=MAX_LIFETIME_S,
        description="In seconds; for ever if left out.",
        examples=[7_776_000],
    )
    role: Role | None = Field(default=None, description="Narrows the user's: both have to allow.")
    scope: Globs | None = Field(default=None, description="Narrows the user's likewise.")


@router.get("/tokens")
def list_tokens(
    who: Owner,
    master: TheMaster,
    pages: Pages,
    user: Annotated[
        str | None,
        Query(pattern=r"^[^\x00]+$", description="Only of this user.", examples=["alice"]),
    ] = None,
    sessions: Annotated[bool, Query(description="Also those that came from logins.")] = False,
) -> Page[Token]:
    """Tokens, oldest first: one's own, or everybody's for who manages users."""
    if not who.may(Verb.MANAGE_USERS):
        if user not in {None, who.name}:
            raise Forbidden(f"{who.name} may look at no tokens but the own ones")
        user = who.name
    after = pages.after(int, str)
    rows = master.access.tokens(
        limit=pages.fetch,
        user=user,
        sessions=sessions,
        after=(int(after[0] or 0), str(after[1])) if after else None,
    )
    return pages.page(rows, key=access.token_key, show=Token.of)


@router.post("/tokens", status_code=201, responses={404: document.response(404)})
def create_token(
    who: Annotated[Principal, may(Verb.OWN_ACCOUNT, Verb.MANAGE_USERS, secret=True)],
    master: TheMaster,
    body: NewToken,
    response: Response,
) -> MadeToken:
    """Make a token. Its secret is in this answer and nowhere else."""
    user = who.name if body.user is None else body.user
    if user != who.name and not who.may(Verb.MANAGE_USERS):
        raise Forbidden(f"{who.name} may make no tokens but own ones")
    if ":" in user:
        raise Invalid(
            f"{user} is no user of the site", "say whose it is to be, such as --user alice"
        )
    lifetime = None if body.lifetime_s is None else timedelta(seconds=body.lifetime_s)
    token, secret = master.access.create_token(
        user,
        body.name,
        expires_at=None if lifetime is None else master.clock.now() + lifetime,
        role=body.role,
        scope=None if body.scope is None else access.Scope.of(body.scope),
    )
    response.headers["Location"] = f"/api/v1/tokens/{token.id}"
    return MadeToken(**Token.of(token).model_dump(), secret=secret)


@router.get("/tokens/{id}")
def read_token(who: Owner, master: TheMaster, token: NamedToken) -> Token:
    """One token."""
    return Token.of(_mine(who, master, token))


@router.delete("/tokens/{id}", status_code=204)
def revoke_token(who: Owner, master: TheMaster, token: NamedToken) -> None:
    """Take a token back: it is worth nothing from now on."""
    _mine(who, master, token)
    master.access.revoke(token)


def _mine(who: Principal, master: TheMaster, token: str) -> access.Token:
    found = master.access.token(token)
    if found.user != who.name and not who.may(Verb.MANAGE_USERS):
        # As if it were not there: whose tokens there are is nobody else's business.
        raise NotFound(f"there is no token '{token[:80]}' of {who.name}")
    return found
