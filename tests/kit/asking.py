"""Questions to a served site over the socket in its home, as its superuser.

A question costs milliseconds where a command costs half a second of a processor, and takes that
from what is waited for. Must not change anything: what a user does, tests do with commands.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
from typing import TYPE_CHECKING, Any

from holdfast.site import local_socket
from tests.kit.served import until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kit.command import Command

PATIENCE_S = 180.0


class _Local(http.client.HTTPConnection):
    """A connection to the socket at a path."""

    def __init__(self, place: Path) -> None:
        super().__init__("holdfast", timeout=60)
        self._place = place

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(60)
        with local_socket.within_reach(self._place) as name:
            self.sock.connect(name)


def ask(home: Path, path: str) -> Any:
    """What the API of the site of a home says; None where nobody answers, or not with that."""
    try:
        with contextlib.closing(_Local(home / local_socket.NAME)) as connection:
            connection.request("GET", f"/api/v1{path}")
            answer = connection.getresponse()
            return json.loads(answer.read()) if answer.status == 200 else None
    except (OSError, http.client.HTTPException):
        return None


def job_of(site: Command, job: int) -> dict[str, Any]:
    """How a job is, from the site's server, or without it from its books."""
    found: dict[str, Any] | None = ask(site.home, f"/jobs/{job}")
    if found is None:
        found = site("jobs", "show", str(job), "--json").assert_ok().json()
    assert found is not None
    return found


def recovery_of(site: Command, number: int = 1) -> dict[str, Any]:
    """How a machine is that runs from its image."""
    found: dict[str, Any] | None = ask(site.home, f"/instant-recoveries/{number}")
    if found is None:
        found = site("instant", "show", str(number), "--json").assert_ok().json()
    assert found is not None
    return found


def machines_of(site: Command) -> list[dict[str, Any]]:
    """The machines that have joined, and whether they are connected."""
    found: dict[str, Any] | None = ask(site.home, "/machines?limit=1000")
    if found is None:
        return site("machine", "list", "--json").assert_ok().json_lines()
    machines: list[dict[str, Any]] = found["items"]
    return machines


def ended(site: Command, job: int, patience_s: float = PATIENCE_S) -> dict[str, Any]:
    """A job when it has ended."""

    def look() -> dict[str, Any] | None:
        found = job_of(site, job)
        return found if found["state"] == "ended" else None

    found = until(look, f"job {job} to end", patience_s)
    assert found is not None
    return found
