"""Jobs as rows for people, and the options by which they are chosen.

Must not print.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from holdfast.base.errors import EXIT_FAILED, EXIT_FINDINGS, EXIT_OK, UsageError
from holdfast.base.units import format_duration, format_size
from holdfast.faces.cli import describe, moments

if TYPE_CHECKING:
    from collections.abc import Callable

STATES = ("queued", "active", "ending", "ended")
OUTCOMES = (
    *("completed", "completed-with-warnings", "completed-with-errors"),
    *("missed", "cancelled", "failed"),
)
KINDS = (
    *("backup", "restore", "verify", "collect", "expire", "catalog-backup", "catalog", "index"),
    *("command-before", "command-after"),
    *("replicate", "boot-check", "instant", "instant-migrate", "instant-discard"),
)
"""As the control floor has them; to load that for a help text would take long."""

SORTS = (
    *("id", "queued_at", "due_at", "started_at", "ended_at", "duration", "kind", "policy"),
    *("schedule", "client", "source", "backup_kind", "storage_unit", "priority", "state"),
    *("outcome", "attempt", "files", "size_bytes", "online_bytes", "new_bytes"),
    *("transmitted_bytes", "findings"),
)
EVENT_SORTS = ("seq", "at", "severity", "cause", "message", "matters", "path")

_SHORT = {"completed-with-warnings": "warnings", "completed-with-errors": "errors"}
_STATUS = {
    "completed": EXIT_OK,
    "completed-with-warnings": EXIT_FINDINGS,
    "completed-with-errors": EXIT_FINDINGS,
}


def chosen(command: Callable[..., int]) -> Callable[..., int]:
    """The options by which lists of jobs are filtered; see `parameters`."""
    given = [
        click.option("--since", metavar="WHEN", help="Began not before; such as 2027-01-31 or 7d."),
        click.option("--until", metavar="WHEN", help="Began not after; such as 2027-01-31 or 7d."),
        click.option("--client", metavar="C", multiple=True, help="Of a client; may be repeated."),
        click.option("--policy", metavar="P", multiple=True, help="Of a policy; may be repeated."),
        click.option(
            "--source", metavar="S", multiple=True, help="Of a backup set; may be repeated."
        ),
        click.option("--kind", type=click.Choice(KINDS), multiple=True, help="Only such work."),
        click.option(
            "--outcome",
            type=click.Choice(OUTCOMES),
            multiple=True,
            help="Ended so; may be repeated.",
        ),
    ]
    for option in reversed(given):
        command = option(command)
    return command


def sorted_by(
    names: tuple[str, ...], default: str
) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """The options that say in which order."""

    def decorate(command: Callable[..., int]) -> Callable[..., int]:
        command = click.option(
            "--reverse", is_flag=True, help="The other way round: what is largest comes last."
        )(command)
        return click.option(
            "--sort",
            metavar="COLUMN",
            type=click.Choice(names),
            default=default,
            show_default=True,
            help=f"One of {', '.join(names)}.",
        )(command)

    return decorate


limit_option = click.option(
    "--limit",
    metavar="N",
    type=click.IntRange(min=1),
    default=50,
    show_default=True,
    help="So many at most.",
)


def parameters(now: datetime, since: str | None, until: str | None, **given: Any) -> dict[str, Any]:
    """What was given to `chosen`, as the API wants it.

    Raises:
        Invalid: A moment is none.
        UsageError: The time ends before it begins.
    """
    begin = None if since is None else moments.since(since, now)
    end = None if until is None else moments.past_until(until, now)
    if begin is not None and end is not None and end < begin:
        raise UsageError(f"--until {until} is before --since {since}", "name the earlier first")
    return {
        "since": None if begin is None else begin.isoformat(),
        "until": None if end is None else end.isoformat(),
        **given,
    }


def order(*, reverse: bool) -> str:
    """The order as the API wants it."""
    return "ascending" if reverse else "descending"


def status(row: dict[str, Any]) -> str:
    """State or outcome in one word."""
    if row["outcome"] is not None:
        outcome = str(row["outcome"])
        return _SHORT.get(outcome, outcome)
    return "suspended" if row.get("suspended") else str(row["state"])


def exit_status(row: dict[str, Any]) -> int:
    """What a command ends with that waited for a job."""
    return _STATUS.get(row["outcome"], EXIT_FAILED)


def what(row: dict[str, Any]) -> str:
    """What a job is about: its set, else its parts, else its client, else what it does."""
    parts = f"{row['children']} parts" if row.get("children") else None
    source = row["source"] and describe.source_words(row["source"], row["client"])
    return str(source or parts or row["client"] or row["kind"])


def moment(text: str | None) -> str:
    """A moment of the API for a person."""
    return "-" if text is None else describe.local_time(datetime.fromisoformat(text))


def short_moment(text: str | None, now: datetime) -> str:
    """The same, without the year if that is this one."""
    whole = moment(text)
    return whole.removeprefix(f"{now.astimezone():%Y}-")


def took(row: dict[str, Any], now: datetime) -> str:
    """How long a job took, or has been at work."""
    if row["duration_s"] is not None:
        return format_duration(row["duration_s"])
    if row["started_at"] is None or row["outcome"] is not None or row["state"] == "queued":
        return "-"
    begun = datetime.fromisoformat(row["started_at"])
    return format_duration((now - begun).total_seconds())


def size(count: int) -> str:
    """A number of bytes, if there are any."""
    return format_size(count) if count else "-"
