"""``holdfast jobs``: what there is to do, who does it, and what came of it."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any

import click

from holdfast.base.errors import EXIT_OK, InternalError
from holdfast.base.units import format_count, format_duration, format_size
from holdfast.faces.cli import job_words, options
from holdfast.faces.cli.screen import Column, Screen, printable
from holdfast.faces.cli.words import Group

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdfast.faces.cli.api_client import ApiClient

_NAMED = 5
"""So many jobs that wait for the same are named; the others are counted."""


job_argument = click.argument("job", type=click.IntRange(min=1))
jobs_argument = click.argument(
    "jobs", metavar="JOB...", type=click.IntRange(min=1), nargs=-1, required=True
)
_JOBS = [("JOB", "Numbers of jobs, as 'holdfast jobs list' shows them.")]
_JOB = [("JOB", "Number of a job, as 'holdfast jobs list' shows it.")]


@click.group(cls=Group, default="list")
def jobs() -> None:
    """What there is to do, who does it, and what came of it; alone, 'list'."""


@jobs.command(
    name="list",
    examples=[
        "holdfast jobs list",
        "holdfast jobs list --open",
        "holdfast jobs list --outcome failed --since 7d",
        "holdfast jobs list --policy nightly --sort duration",
    ],
)
@click.option("--open", "is_open", is_flag=True, help="Only what has not ended.")
@click.option(
    "--state", type=click.Choice(job_words.STATES), multiple=True, help="Only in such a state."
)
@click.option("--parts-of", metavar="JOB", type=click.IntRange(min=1), help="The parts of a job.")
@job_words.chosen
@job_words.sorted_by(job_words.SORTS, "id")
@job_words.limit_option
@options.url_option
@options.json_flag
def list_(
    is_open: bool,
    state: tuple[str, ...],
    parts_of: int | None,
    sort: str,
    reverse: bool,
    limit: int,
    url: str | None,
    as_json: bool,
    **given: Any,
) -> int:
    """List jobs, the newest first; what those that wait are waiting for is said below.

    A job that has parts is listed with them.
    """
    from holdfast.base.clock import SystemClock
    from holdfast.faces.cli.api_client import open_api

    screen = Screen(as_json=as_json)
    now = SystemClock().now()
    wanted = job_words.parameters(now, **given)
    states = state or (job_words.STATES[:-1] if is_open else ())
    with open_api(url) as api:
        rows = list(
            api.pages(
                "/jobs",
                limit=limit,
                state=states,
                parent=parts_of,
                sort=sort,
                order=job_words.order(reverse=reverse),
                **wanted,
            )
        )
    if as_json:
        for row in rows:
            screen.json(row)
        return EXIT_OK
    if not rows:
        screen.say("no such jobs")
        return EXIT_OK
    columns: list[Column] = [
        ("job", "right"),
        ("status", "left"),
        ("policy", "left"),
        ("source", "left"),
        ("start", "left"),
        ("took", "right"),
    ]
    cells = [
        [
            str(row["id"]),
            job_words.status(row),
            row["policy"] or "-",
            job_words.what(row),
            job_words.moment(row["started_at"]),
            job_words.took(row, now),
        ]
        for row in rows
    ]
    screen.table(columns, cells, gives_way=(3, 2))
    _tell_waiting(screen, rows)
    return EXIT_OK


@jobs.command(arguments=_JOB, examples=["holdfast jobs show 4711"])
@job_argument
@options.url_option
@options.json_flag
def show(job: int, url: str | None, as_json: bool) -> int:
    """Show all about a job; of one that has parts, them too."""
    from holdfast.faces.cli.api_client import at, open_api

    screen = Screen(as_json=as_json)
    with open_api(url) as api:
        row = api.get(at("jobs", job))
        if as_json:
            screen.json(row)
            return EXIT_OK
        _tell(screen, row)
        if row["children"]:
            parts = list(api.pages("/jobs", parent=job, sort="id", order="ascending"))
            columns: list[Column] = [("part", "right"), ("status", "left"), ("source", "left")]
            cells = [[str(one["id"]), job_words.status(one), job_words.what(one)] for one in parts]
            screen.line("")
            screen.table(columns, cells, gives_way=2)
    return EXIT_OK


@jobs.command(arguments=_JOB, examples=["holdfast jobs watch 4711"])
@job_argument
@click.option(
    "--every",
    "interval_s",
    metavar="S",
    type=click.FloatRange(0.1, 60),
    default=1.0,
    show_default=True,
    help="Look for news so often, in seconds.",
)
@options.url_option
@options.json_flag
def watch(job: int, interval_s: float, url: str | None, as_json: bool) -> int:
    """Follow a job until it has ended.

    Exit status: 0 if it was completed, 1 with warnings or errors on single files, 2 if not. To
    stop watching, press Ctrl-C: the job goes on.
    """
    from holdfast.faces.cli.api_client import open_api

    screen = Screen(as_json=as_json)
    with open_api(url) as api:
        row = _follow(screen, api, job, interval_s)
    if not as_json:
        _tell(screen, row)
    return job_words.exit_status(row)


@jobs.command(arguments=_JOBS, examples=["holdfast jobs cancel 4711", "holdfast jobs cancel 7 8"])
@jobs_argument
@options.url_option
@options.json_flag
def cancel(jobs: tuple[int, ...], url: str | None, as_json: bool) -> int:
    """End jobs without their work being done. One at work ends when its worker has stopped."""
    return _act("cancel", jobs, url, as_json=as_json)


@jobs.command(arguments=_JOBS, examples=["holdfast jobs suspend 4711"])
@jobs_argument
@options.url_option
@options.json_flag
def suspend(jobs: tuple[int, ...], url: str | None, as_json: bool) -> int:
    """Keep jobs from beginning. One at work stops, and goes back to the queue."""
    return _act("suspend", jobs, url, as_json=as_json)


@jobs.command(arguments=_JOBS, examples=["holdfast jobs resume 4711"])
@jobs_argument
@options.url_option
@options.json_flag
def resume(jobs: tuple[int, ...], url: str | None, as_json: bool) -> int:
    """Let suspended jobs begin again. What a backup had stored is not stored again."""
    return _act("resume", jobs, url, as_json=as_json)


@jobs.command(arguments=_JOBS, examples=["holdfast jobs restart 4711"])
@jobs_argument
@options.url_option
@options.json_flag
def restart(jobs: tuple[int, ...], url: str | None, as_json: bool) -> int:
    """Run ended jobs again, as new ones; of one with parts, those that were not completed."""
    return _act("restart", jobs, url, as_json=as_json)


def _act(act: str, some: Sequence[int], url: str | None, *, as_json: bool) -> int:
    from holdfast.faces.cli.api_client import at, open_api

    screen = Screen(as_json=as_json)
    with open_api(url) as api:
        for job in some:
            row = api.post(at("jobs", job, act))
            if as_json:
                screen.json(row)
            elif act == "restart":
                screen.line(f"job {job} runs again as job {row['id']}")
            elif row["asked"]:
                screen.line(f"job {job}: its worker is told to stop")
            else:
                screen.line(f"job {job}: {row['status']}")
    return EXIT_OK


def _follow(screen: Screen, api: ApiClient, job: int, interval_s: float) -> dict[str, Any]:
    from holdfast.faces.cli.api_client import at

    told = ""
    while True:
        row: dict[str, Any] | None = None
        for event in api.events(at("jobs", job, "progress"), interval_s=interval_s):
            row = event.json()
            if screen.as_json:
                screen.json(row)
                screen.flush()
                continue
            words = _progress(row)
            if words != told and row["state"] != "ended":
                screen.say(f"job {job}: {printable(words)}")
                told = words
        if row is None:
            raise InternalError(f"nothing was said of job {job}")
        if row["state"] == "ended":
            return row


def _progress(row: dict[str, Any]) -> str:
    if row["waits_for"] and row["state"] == "queued":
        return f"waits for {row['waits_for']}"
    counters = row["counters"]
    if row["state"] == "queued" or not any(counters.values()):
        return job_words.status(row)
    return (
        f"{job_words.status(row)}, {format_count(counters['files'])} files, "
        f"{format_size(counters['transmitted_bytes'])} transmitted"
    )


def _tell_waiting(screen: Screen, rows: list[dict[str, Any]]) -> None:
    waiting = sorted(
        (row["waits_for"], row["id"])
        for row in rows
        if row["state"] == "queued" and row["waits_for"] and not row["children"]
    )
    for words, group in groupby(waiting, key=lambda one: one[0]):
        numbers = [str(number) for _, number in group]
        named = ", ".join(numbers[:_NAMED])
        more = f" and {len(numbers) - _NAMED} more" if len(numbers) > _NAMED else ""
        noun, verb = ("job", "waits") if len(numbers) == 1 else ("jobs", "wait")
        screen.say(f"{noun} {named}{more} {verb} for: {printable(words)}")


def _tell(screen: Screen, row: dict[str, Any]) -> None:
    """Everything that is known of a job, and nothing of what is not."""
    counters = row["counters"]
    error = row["error"]
    facts: list[tuple[str, str | None]] = [
        ("job", str(row["id"])),
        ("status", row["status"]),
        ("kind", " ".join(filter(None, (row["backup_kind"], row["kind"])))),
        ("policy", row["policy"]),
        ("schedule", row["schedule"]),
        ("client", row["client"]),
        ("source", row["source"]),
        ("storage unit", row["storage_unit"]),
        ("priority", str(row["priority"])),
        ("part of", row["parent_id"] and f"job {row['parent_id']}"),
        ("restart of", row["restart_of"] and f"job {row['restart_of']}"),
        ("due", row["due_at"] and job_words.moment(row["due_at"])),
        ("queued", job_words.moment(row["queued_at"])),
        ("not before", row["not_before"] and job_words.moment(row["not_before"])),
        ("started", row["started_at"] and job_words.moment(row["started_at"])),
        ("ended", row["ended_at"] and job_words.moment(row["ended_at"])),
        ("took", None if row["duration_s"] is None else format_duration(row["duration_s"])),
        ("attempt", str(row["attempt"]) if row["attempt"] > 1 else None),
        ("asked", row["asked"]),
        ("waits for", row["waits_for"]),
        ("files", counters["files"] and format_count(counters["files"])),
        ("size", counters["size_bytes"] and format_size(counters["size_bytes"])),
        ("online", counters["online_bytes"] and format_size(counters["online_bytes"])),
        ("new", counters["new_bytes"] and format_size(counters["new_bytes"])),
        (
            "transmitted",
            counters["transmitted_bytes"] and format_size(counters["transmitted_bytes"]),
        ),
        ("image", row["image_id"]),
        ("error", error and error["message"]),
        ("hint", error and error["hint"]),
        ("events", _events(row)),
    ]
    # Errors are in the words of whoever met them.
    screen.facts([(name, printable(value)) for name, value in facts if value])


def _events(row: dict[str, Any]) -> str | None:
    if not row["events"]:
        return None
    left_out = row["events_left_out"]
    more = f" (and {format_count(left_out)} more that were not kept)" if left_out else ""
    return f"{format_count(row['events'])}{more}: holdfast events {row['id']}"
