"""Work on the pool of a unit that a media server owns: a job of the served site, waited for.

Must not do the work from here: over the network it takes many times as long. Invariants: what was
begun for a command that is stopped is stopped, too; a media server that is not there is told at
once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from holdfast.base import errors
from holdfast.base.errors import EXIT_FAILED, EXIT_OK, NotFound, Unreachable
from holdfast.faces.cli import acting
from holdfast.faces.cli.screen import printable

if TYPE_CHECKING:
    from holdfast.base.ids import ImageId
    from holdfast.faces.cli.api_client import ApiClient
    from holdfast.faces.cli.screen import Screen
    from holdfast.site.site import Site

_WATCH_S = 1.0


def owned(site: Site, unit: str | None) -> str | None:
    """The name of a unit, if a media server owns it; None if its pool is reached from here.

    Raises:
        NotFound: There is no such unit.
    """
    if unit is None or site.pools.is_near(site.pools.of_unit(unit)):
        return None
    return unit


def owned_with(site: Site, images: list[ImageId]) -> str | None:
    """The unit that a media server owns and that alone has these images; None if one is near."""
    pools = [set(site.pools.with_copy(image)) for image in images]
    common = set.intersection(*pools) if pools else set()
    if not common or any(site.pools.is_near(pool) for pool in common):
        return None
    return min(site.pools.unit_of(pool) for pool in common)


def work(screen: Screen, unit: str, path: str, body: dict[str, Any]) -> int:
    """Have something done where the disk of a unit is, and tell what came of it.

    Args:
        screen: Of the command.
        unit: A media server's own.
        path: Of the API, below ``/pool``.
        body: What is asked for.

    Returns:
        The exit status: that of a failure also where something was found to be wrong.

    Raises:
        Unreachable: Nobody speaks to the media server, or it is not there.
        HoldfastError: What the job failed of.
    """
    from holdfast.faces.cli.api_client import at, open_api

    acting.told_elsewhere()
    with open_api(None) as api:
        _require_there(api, unit)
        job = int(api.post(at("pool", path), {**body, "unit": unit})["job"])
        if not screen.as_json:
            screen.say(f"job {job} does it on the media server that owns storage unit '{unit}'")
        try:
            row = _ended(api, job)
        except KeyboardInterrupt:
            api.post(at("jobs", job, "cancel"))
            raise
        events = list(api.pages(at("jobs", job, "events"), sort="seq", order="ascending"))
    return _tell(screen, row, events)


def _require_there(api: ApiClient, unit: str) -> None:
    found = [one for one in api.get("/storage-units")["items"] if one["name"] == unit]
    if not found:
        raise NotFound(f"there is no storage unit '{unit}'", "list them: holdfast storage list")
    server = f"media server '{found[0]['server']}', which owns storage unit '{unit}'"
    if not api.is_served:
        raise Unreachable(f"{server}, is not spoken to", "serve the site: holdfast serve")
    if not found[0]["connected"]:
        why = found[0]["problem"]
        raise Unreachable(
            f"{server}, can't use its disk: {why}" if why else f"{server}, is not connected",
            "'holdfast storage list' says how it is",
        )


def _ended(api: ApiClient, job: int) -> dict[str, Any]:
    """A job, once it has ended."""
    from holdfast.faces.cli.api_client import at

    while True:
        row: dict[str, Any] = {}
        for event in api.events(at("jobs", job, "progress"), interval_s=_WATCH_S):
            row = event.json()
        if row.get("state") == "ended":
            return row


def _tell(screen: Screen, row: dict[str, Any], events: list[dict[str, Any]]) -> int:
    told = [one for one in events if one["severity"] != "info" or one["cause"] in _RESULTS]
    problems = [one for one in told if one["severity"] == "error"]
    if screen.as_json:
        kept = ("severity", "cause", "message", "path")
        lines = [{name: one[name] for name in kept} for one in told]
        screen.json({"job": row["id"], "outcome": row["outcome"], "events": lines})
    else:
        for one in told:
            at = f"{one['path']}: " if one["path"] else ""
            if one["severity"] == "info":
                screen.line(printable(one["message"]))
            else:
                screen.warn(printable(f"{at}{one['message']}"))
    error = row["error"]
    if error is not None:
        raise errors.from_code(error["code"], error["message"], error["hint"])
    return EXIT_OK if row["outcome"] == "completed" and not problems else EXIT_FAILED


_RESULTS = frozenset({"collected", "preview", "waiting", "verified", "checked", "rebuilt"})
