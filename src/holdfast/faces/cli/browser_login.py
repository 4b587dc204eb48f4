"""Log in by a site's identity provider: in a browser, which comes back to a port of this machine.

RFC 8252. Must not keep what it gets. Invariants: the port is open to this machine only, and closed
when somebody came back with the right state, or after ten minutes.
"""

from __future__ import annotations

import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from holdfast.base.errors import Cancelled, NotAuthenticated
from holdfast.faces.cli.screen import printable

if TYPE_CHECKING:
    from holdfast.faces.cli.api_client import ApiClient
    from holdfast.faces.cli.screen import Screen

_DONE = b"<!doctype html><meta charset=utf-8><title>Holdfast</title><p>%s"
_LOOK_S = 0.5


class _Waiting(HTTPServer):
    """Waits for the browser.

    Attributes:
        state: What it has to come back with.
        said: What it came back with.
    """

    state: str
    said: dict[str, str] | None = None


class _Answer(BaseHTTPRequestHandler):
    server: _Waiting
    # Browsers open connections ahead that they may never use.
    timeout = 5.0

    def do_GET(self) -> None:
        """Take what the provider sent along."""
        said = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
        right = said.get("state") == self.server.state
        if right:
            self.server.said = said
        text = b"You can close this page." if right else b"This is not the login that was begun."
        body = _DONE % text
        self.send_response(200 if right else 404)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *_: object) -> None:  # noqa: A002 - as it is called
        """Nothing: what a browser asks for is not the command's talk."""


def log_in(api: ApiClient, screen: Screen) -> dict[str, Any]:
    """Have somebody log in, and wait for it.

    Returns:
        The session, as the API has it.

    Raises:
        NotAuthenticated: The provider refuses.
        Cancelled: Nobody came back in time.
    """
    with _Waiting(("127.0.0.1", 0), _Answer) as server:
        server.timeout = _LOOK_S
        place = f"http://127.0.0.1:{server.server_port}/"
        begun = api.post("/sessions/provider", {"redirect_uri": place})
        server.state = parse_qs(urlsplit(begun["url"]).query)["state"][0]
        screen.say("open this in a browser on this machine, and log in:")
        screen.say(printable(begun["url"]))
        deadline = time.monotonic() + begun["expires_in_s"]
        while server.said is None:
            if time.monotonic() > deadline:
                raise Cancelled("nobody logged in", "run the same command again")
            server.handle_request()
    said = server.said
    if "code" not in said:
        why = said.get("error_description") or said.get("error") or "without a reason"
        raise NotAuthenticated(f"the identity provider refuses: {why}", "begin again")
    body = {"login": begun["login"], "state": said["state"], "code": said["code"]}
    session: dict[str, Any] = api.post("/sessions/provider/code", body)
    return session
