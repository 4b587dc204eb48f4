"""One's own account: logging in and out, who one is, one's password."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import Request
from pydantic import Field, SecretStr

from holdfast.base.errors import Forbidden, NotFound
from holdfast.control.access import Pending, Principal, Role, Token, Verb, Way
from holdfast.control.access.passwords import MAX_CHARACTERS
from holdfast.control.access.provider_logins import REDIRECT_URI
from holdfast.faces.api import document, visitors
from holdfast.faces.api.door import TheMaster, TheNote, anybody, make_router, may
from holdfast.faces.api.models import Model
from holdfast.faces.api.users import NewPassword, UserName

router = make_router("Own account")

GivenPassword = Annotated[
    SecretStr, Field(max_length=MAX_CHARACTERS, examples=["four words nobody guesses"])
]


class Login(Model):
    """What a user logs in with."""

    name: UserName
    password: GivenPassword


class Session(Model):
    """A login: a token for a short time."""

    token: str = Field(description="Give it as `Authorization: Bearer …`.", examples=["hf_…"])
    id: str = Field(description="To speak of it.", examples=["0c5bd1f5a2e9"])
    user: UserName
    expires_at: datetime | None


class ProviderLogin(Model):
    """A login that is to go on in a browser."""

    redirect_uri: str = Field(
        description="Where the browser comes back to, with `code` and `state`: a port of its own "
        "machine.",
        examples=["http://127.0.0.1:8723/"],
        json_schema_extra={"pattern": f"^{REDIRECT_URI}$"},
    )


class BegunLogin(Model):
    """A login that was begun."""

    url: str = Field(description="Where the browser is to be sent.")
    login: str = Field(description="What finishes it. A secret: not for the browser.")
    expires_in_s: int


class BegunOnDevice(Model):
    """A login that was begun, to be finished in a browser of any device."""

    url: str = Field(description="Where.", examples=["https://id.example.org/device"])
    code: str = Field(description="What is to be entered there.", examples=["WDJB-MJHT"])
    whole_url: str | None = Field(description="The same with the code in it, if there is such.")
    login: str = Field(description="What asks whether it is finished. A secret.")
    expires_in_s: int
    interval_s: int = Field(description="How long to wait before asking, in seconds.")


class DeviceLogin(Model):
    """Which login is meant."""

    login: SecretStr = Field(description="As the login's beginning gave it.", max_length=200)


class OnDevice(Model):
    """What has come of a login on another device."""

    session: Session | None = Field(description="Null as long as nobody has finished it.")
    too_often: bool = Field(description="Wait five seconds longer from now on, before asking.")


class ProviderCode(Model):
    """What a browser came back with."""

    login: SecretStr = Field(description="As the login's beginning gave it.", max_length=200)
    state: SecretStr = Field(max_length=2000, examples=["b7c1e6a0"])
    code: SecretStr = Field(max_length=2000)


class Me(Model):
    """Who asks."""

    name: str = Field(
        description="A user, or `local:NAME` for one of the operating system.", examples=["alice"]
    )
    way: Way = Field(description="How that was shown.")
    roles: list[Role] = Field(description="All of them have to allow what is done.")
    permissions: list[Verb] = Field(description="What comes of that.")
    scopes: list[list[str]] = Field(
        description="All of them have to cover a client.", examples=[[["web*"]]]
    )


class OwnPassword(Model):
    """One's old password and the new one."""

    old: GivenPassword
    new: NewPassword


@router.post(
    "/sessions",
    status_code=201,
    responses={401: document.response(401), 429: document.busy()},
)
def log_in(
    _: Annotated[None, anybody(act=True)],
    master: TheMaster,
    body: Login,
    request: Request,
    note: TheNote,
) -> Session:
    """Log in with name and password. What comes of it lasts for twelve hours."""
    if master.access.has_user(body.name):
        # Else it may well be a password that slipped into the wrong field.
        note.about = f"users/{body.name}"
    token, secret = master.access.log_in(
        body.name, body.password.get_secret_value(), visitors.address(request)
    )
    note.who = token.user
    note.details["token"] = token.id
    return Session(token=secret, id=token.id, user=token.user, expires_at=token.expires_at)


@router.post(
    "/sessions/provider",
    status_code=201,
    responses={404: document.response(404), 429: document.busy()},
)
def begin_provider_login(
    _: Annotated[None, anybody()], master: TheMaster, body: ProviderLogin
) -> BegunLogin:
    """Begin a login by the site's identity provider (OpenID Connect, with PKCE)."""
    begun = master.logins.begin(body.redirect_uri)
    return BegunLogin(url=begun.url, login=begun.secret, expires_in_s=begun.expires_in_s)


@router.post(
    "/sessions/provider/code",
    status_code=201,
    responses={401: document.response(401), 404: document.response(404)},
)
def finish_provider_login(
    _: Annotated[None, anybody(act=True)], master: TheMaster, body: ProviderCode, note: TheNote
) -> Session:
    """Finish it: let in whom the provider recognised. It lasts for twelve hours."""
    token, secret = master.logins.finish(
        body.login.get_secret_value(), body.state.get_secret_value(), body.code.get_secret_value()
    )
    return _session(token, secret, note)


@router.post(
    "/sessions/provider/device",
    status_code=201,
    responses={
        401: document.response(401),
        404: document.response(404),
        429: document.busy(),
        501: document.response(501),
    },
)
def begin_device_login(_: Annotated[None, anybody()], master: TheMaster) -> BegunOnDevice:
    """Begin a login by the site's identity provider for a machine without a browser (RFC 8628)."""
    begun = master.logins.begin_on_device()
    return BegunOnDevice(
        url=begun.url,
        code=begun.code,
        whole_url=begun.whole_url,
        login=begun.secret,
        expires_in_s=begun.expires_in_s,
        interval_s=begun.interval_s,
    )


@router.post(
    "/sessions/provider/device/session",
    responses={401: document.response(401), 404: document.response(404)},
)
def finish_device_login(
    _: Annotated[None, anybody(act=True)], master: TheMaster, body: DeviceLogin, note: TheNote
) -> OnDevice:
    """Ask whether somebody has finished it; the login then lasts for twelve hours."""
    found = master.logins.finish_on_device(body.login.get_secret_value())
    if isinstance(found, Pending):
        note.nothing_yet = True
        return OnDevice(session=None, too_often=found.too_often)
    return OnDevice(session=_session(*found, note), too_often=False)


@router.get("/me")
def read_me(who: Annotated[Principal, may()]) -> Me:
    """Who asks, and what that one may do."""
    return Me(
        name=who.name,
        way=who.way,
        roles=list(who.roles),
        permissions=[verb for verb in Verb if who.may(verb)],
        scopes=[list(scope.globs) for scope in who.scopes],
    )


@router.put(
    "/me/password", status_code=204, responses={404: document.response(404), 429: document.busy()}
)
def change_own_password(
    who: Annotated[Principal, may(Verb.OWN_ACCOUNT)],
    master: TheMaster,
    body: OwnPassword,
    request: Request,
) -> None:
    """Give oneself a new password. All logins end, this one too."""
    if who.way is Way.LOCAL:
        raise NotFound(f"{who.name} has no password here", "log in as a user of the site")
    master.access.change_own_password(
        who.name,
        body.old.get_secret_value(),
        body.new.get_secret_value(),
        visitors.address(request),
    )


@router.delete("/me/session", status_code=204)
def log_out(who: Annotated[Principal, may()], master: TheMaster) -> None:
    """End the login by which one asks."""
    if who.way is not Way.SESSION or who.token is None:
        raise Forbidden("this is no login that could end", "a token is revoked: DELETE /tokens/ID")
    master.access.revoke(who.token)


def _session(token: Token, secret: str, note: TheNote) -> Session:
    note.who = token.user
    note.about = f"users/{token.user}"
    note.details["token"] = token.id
    return Session(token=secret, id=token.id, user=token.user, expires_at=token.expires_at)
