"""What the commands of the master server speak to the API with.

Over HTTPS where a URL is given, over the local socket where the site of this home is served, else
to the same application inside this process. Must not know any noun. Invariants: an error of the
API comes out as the error that it was; an act is repeated after a broken connection only with the
same idempotency key, so it is done once.
"""

from __future__ import annotations

import contextlib
import json
import os
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote, urlsplit

import httpx

from holdfast.base import errors
from holdfast.faces.cli import opening
from holdfast.site import local_socket

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping
    from pathlib import Path
    from types import TracebackType

PREFIX = "/api/v1"
TOKEN_VARIABLE = "HOLDFAST_TOKEN"  # noqa: S105 - the name of a variable

TIMEOUT_S = 60.0
CONNECT_TIMEOUT_S = 10.0
TRIES = 3

_SAFE = frozenset({"GET", "HEAD"})
_LOCAL = "http://holdfast"
_PROBLEM = "application/problem+json"


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """One event of a stream (HTML, "Server-sent events").

    Attributes:
        event: Its kind.
        data: What it says.
        id: Where a new stream could go on; empty where it has none.
    """

    event: str
    data: str
    id: str

    def json(self) -> Any:
        """What it says, read as JSON."""
        return json.loads(self.data)


def open_api(url: str | None = None, *, anonymous: bool = False) -> ApiClient:
    """Connect to the API of the site that this process is to speak to.

    Args:
        url: Where it is, if not on this machine; else HOLDFAST_URL says, if it is set.
        anonymous: Show no token.

    Raises:
        Invalid: The URL is none.
        SiteMissing: There is no site in this home.
        NoPermission: It is somebody else's.
    """
    token = None if anonymous else os.environ.get(TOKEN_VARIABLE) or None
    chosen = url or os.environ.get(opening.URL_VARIABLE)
    if chosen:
        return ApiClient.of_url(chosen, token)
    home = opening.home()
    path = home / local_socket.NAME
    try:
        served = local_socket.answers(path)
    except PermissionError as error:
        raise errors.NoPermission(
            f"may not use the site at {home}",
            "run as the user who made the site, or give its URL and a token",
        ) from error
    if served:
        return ApiClient.of_socket(path, token)
    return _in_process(home, token)


def _in_process(home: Path, token: str | None) -> ApiClient:
    from holdfast.base.clock import SystemClock
    from holdfast.faces.api.app import ByNoun
    from holdfast.site.master import Master

    master = Master.open(home, opening.secret_source(), SystemClock(), os.environ)
    try:
        return ApiClient.of_application(ByNoun(master), token, master.close)
    except BaseException:
        master.close()
        raise


class ApiClient:
    """A connection to one site's API. Thread-safe; close it, or use it in a ``with``.

    Attributes:
        is_served: Whether somebody is there to do what is asked for; else it is done when the
            site is served.
    """

    def __init__(
        self,
        transport: httpx.BaseTransport | None,
        base_url: str,
        where: str,
        token: str | None = None,
        closing: Callable[[], None] | None = None,
    ) -> None:
        """Prepare.

        Args:
            transport: What carries requests; None for the network.
            base_url: Scheme and host of all requests.
            where: What messages call the other end.
            token: What is shown at the door.
            closing: What is to be done after the last request.
        """
        self.is_served = True
        self._where = where
        self._closing = contextlib.ExitStack()
        if closing is not None:
            self._closing.callback(closing)
        self._client = httpx.Client(
            transport=transport,
            base_url=base_url,
            headers={"Authorization": f"Bearer {token}"} if token else {},
            timeout=httpx.Timeout(TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
            # Only what is said here counts: no proxies of the environment towards a socket.
            trust_env=transport is None,
        )

    @classmethod
    def of_url(cls, url: str, token: str | None) -> Self:
        """Speak to a site elsewhere.

        Args:
            url: ``https://host:port``.
            token: Who asks.

        Raises:
            Invalid: The URL is none, or would send the token in the clear.
        """
        try:
            parts = urlsplit(url)
            host = parts.hostname
            _ = parts.port
        except ValueError:
            host = None
        if host is None or parts.scheme not in {"http", "https"} or parts.path not in {"", "/"}:
            raise errors.Invalid(
                f"'{url}' is not the URL of a site", "write https://master.example.org:8443"
            )
        if parts.scheme == "http" and host not in {"localhost", "127.0.0.1", "::1"}:
            raise errors.Invalid(f"'{url}' would send the token for all to read", "write https://…")
        return cls(None, url.rstrip("/"), url.rstrip("/"), token)

    @classmethod
    def of_socket(cls, path: Path, token: str | None = None) -> Self:
        """Speak to the site that is served at a local socket."""
        stack = contextlib.ExitStack()
        name = stack.enter_context(local_socket.within_reach(path))
        return cls(httpx.HTTPTransport(uds=name), _LOCAL, str(path), token, stack.close)

    @classmethod
    def of_application(
        cls, app: Any, token: str | None = None, closing: Callable[[], None] | None = None
    ) -> Self:
        """Speak to an application in this process, as the user whose process it is."""
        from holdfast.faces.api.visitors import Peer, announce
        from holdfast.faces.cli.in_process import InProcess

        state: dict[str, Any] = {}
        announce(state, Peer(os.geteuid()))
        client = cls(InProcess(app, state), _LOCAL, "this process", token, closing)
        client.is_served = False
        return client

    def get(self, path: str, /, *, timeout_s: float = TIMEOUT_S, **parameters: object) -> Any:
        """Ask for something.

        Args:
            path: Below ``/api/v1``, made with `at`.
            timeout_s: How long nothing may come.
            parameters: Of the query; None and empty ones are left out.

        Raises:
            HoldfastError: What the API says went wrong.
            Unreachable: It does not answer.
        """
        return _read(self._send("GET", path, parameters=parameters, timeout_s=timeout_s))

    def post(
        self,
        path: str,
        body: object = None,
        *,
        timeout_s: float = TIMEOUT_S,
        **parameters: object,
    ) -> Any:
        """Have something done, or made; see `get`."""
        return _read(self._send("POST", path, body, parameters, timeout_s))

    def put(self, path: str, /, body: object = None, **parameters: object) -> Any:
        """Have something be so; see `get`."""
        return _read(self._send("PUT", path, body, parameters))

    def patch(self, path: str, /, body: object = None, **parameters: object) -> Any:
        """Have parts of something be so; see `get`."""
        return _read(self._send("PATCH", path, body, parameters))

    def delete(self, path: str, /, **parameters: object) -> None:
        """Have something removed; see `get`."""
        self._send("DELETE", path, parameters=parameters)

    def pages(
        self, path: str, /, *, limit: int | None = None, **parameters: object
    ) -> Iterator[dict[str, Any]]:
        """Everything of a list, page by page as it is read.

        Args:
            path: Of the list.
            limit: How many in all; None for everything.
            parameters: Of the query.
        """
        cursor: str | None = None
        left = limit
        while left is None or left > 0:
            size = 1000 if left is None else min(left, 1000)
            asked = {**parameters, "limit": size, "cursor": cursor}
            page = _read(self._send("GET", path, parameters=asked))
            yield from page["items"]
            cursor = page["next_cursor"]
            if cursor is None:
                return
            if left is not None:
                left -= len(page["items"])

    def text(self, path: str, **parameters: object) -> Iterator[bytes]:
        """A body that is not JSON, in pieces as they come."""
        with self._streaming(path, parameters) as response:
            yield from response.iter_bytes()

    def events(self, path: str, **parameters: object) -> Generator[ServerEvent, None, None]:
        """The events of a stream, until it ends or is closed."""
        headers = {"Accept": "text/event-stream"}
        with self._streaming(path, parameters, headers) as response:
            yield from _events(response.iter_lines())

    def close(self) -> None:
        """Give back what is held. More than once is fine."""
        self._client.close()
        self._closing.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _send(
        self,
        method: str,
        path: str,
        body: object = None,
        parameters: Mapping[str, object] | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> httpx.Response:
        headers = {} if method in _SAFE else {"Idempotency-Key": str(uuid.uuid4())}
        request = self._client.build_request(
            method,
            PREFIX + path,
            params=_query(parameters),
            json=body,
            headers=headers,
            timeout=httpx.Timeout(timeout_s, connect=CONNECT_TIMEOUT_S),
        )
        for left in reversed(range(TRIES)):
            try:
                response = self._client.send(request)
            except httpx.TransportError as error:
                if not left or isinstance(error, httpx.TimeoutException):
                    raise self._unreachable(error) from error
            else:
                break
        if response.is_error:
            raise _error(response)
        return response

    @contextlib.contextmanager
    def _streaming(
        self,
        path: str,
        parameters: Mapping[str, object],
        headers: Mapping[str, str] | None = None,
    ) -> Iterator[httpx.Response]:
        try:
            with self._client.stream(
                "GET", PREFIX + path, params=_query(parameters), headers=headers
            ) as response:
                if response.is_error:
                    response.read()
                    raise _error(response)
                yield response
        except httpx.TransportError as error:
            raise self._unreachable(error) from error

    def _unreachable(self, error: httpx.TransportError) -> errors.Unreachable:
        said = str(error) or type(error).__name__
        return errors.Unreachable(f"the site's API at {self._where} does not answer: {said}")


def at(*parts: str | int) -> str:
    """A path below ``/api/v1``, of parts that may be any text."""
    return "".join("/" + quote(str(part), safe="") for part in parts)


def _query(parameters: Mapping[str, object] | None) -> httpx.QueryParams:
    found: list[tuple[str, str]] = []
    for name, value in (parameters or {}).items():
        for one in value if isinstance(value, list | tuple) else [value]:
            if isinstance(one, bool):
                found.append((name, "true" if one else "false"))
            elif one is not None:
                found.append((name, str(one)))
    return httpx.QueryParams(tuple(found))


def _read(response: httpx.Response) -> Any:
    return response.json() if response.content else None


def _error(response: httpx.Response) -> errors.HoldfastError:
    if response.headers.get("content-type", "").partition(";")[0] == _PROBLEM:
        try:
            body = response.json()
            error = errors.from_code(body["code"], body["detail"], body.get("hint"))
            if isinstance(error, errors.PolicyInvalid):
                error.faults = tuple(
                    (one["where"], one["message"], one.get("hint"))
                    for one in body.get("errors") or ()
                )
            return error
        except (ValueError, KeyError, TypeError):
            pass
    return errors.Unreachable(
        f"what answers at {response.request.url.host} is not a site: "
        f"{response.status_code} {response.reason_phrase}",
        "see that the URL is the site's own, and not that of something before it",
    )


def _events(lines: Iterator[str]) -> Iterator[ServerEvent]:
    kind, last = "message", ""
    data: list[str] = []
    for line in lines:
        if not line:
            if data:
                yield ServerEvent(kind, "\n".join(data), last)
            kind, data = "message", []
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            data.append(value)
        elif name == "event":
            kind = value
        elif name == "id":
            last = value
