"""``holdfast audit``: the log of every act."""

from __future__ import annotations

import json
import os
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from holdfast.base.errors import (
    EXIT_FAILED,
    EXIT_OK,
    InputOutput,
    Invalid,
    PathMissing,
    storage_error,
)
from holdfast.base.units import format_count
from holdfast.faces.cli import describe, moments, options
from holdfast.faces.cli.screen import Column, Screen
from holdfast.faces.cli.words import Group

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from holdfast.control.access import Row


EMPTY = "0:" + "0" * 64
"""The head of a log without rows."""

_PATIENCE_S = 3600.0

OUTCOMES = ("done", "refused", "failed", "unknown")
"""As the control floor has them; to load that for a help text would take long."""


@click.group(cls=Group, default="list")
def audit() -> None:
    """The log of every act; alone, 'list'."""


@audit.command(
    name="list",
    examples=[
        "holdfast audit list --since 7d --who alice",
        "holdfast audit list --outcome refused",
        "holdfast audit list --about users/ --json | jq .details",
    ],
)
@click.option("--who", metavar="NAME", help="Only of this user.")
@click.option("--what", metavar="ACT", help="Only such acts, as the list names them.")
@click.option("--about", metavar="THING", help="Only about this; 'users/' stands for all users.")
@click.option("--outcome", type=click.Choice(OUTCOMES), help="Only so.")
@click.option("--since", metavar="WHEN", help="Not before a date, a moment, or such as 7d ago.")
@click.option("--until", metavar="WHEN", help="Not after a date, a moment, or such as 7d ago.")
@click.option(
    "--limit",
    metavar="N",
    type=click.IntRange(min=1),
    default=50,
    show_default=True,
    help="The newest N.",
)
@options.url_option
@options.json_flag
def list_(
    limit: int, since: str | None, until: str | None, url: str | None, as_json: bool, **wanted: Any
) -> int:
    """List who did what, newest last."""
    from holdfast.base.clock import SystemClock
    from holdfast.faces.cli.api_client import open_api

    screen = Screen(as_json=as_json)
    now = SystemClock().now()
    wanted["object"] = wanted.pop("about")
    wanted["since"] = None if since is None else moments.since(since, now).isoformat()
    wanted["until"] = None if until is None else moments.past_until(until, now).isoformat()
    with open_api(url) as api:
        rows = list(api.pages("/audit", limit=limit, **wanted))[::-1]
    if as_json:
        for row in rows:
            screen.json(row)
        return EXIT_OK
    if not rows:
        screen.say("no such acts")
        return EXIT_OK
    columns: list[Column] = [
        ("time", "left"),
        ("who", "left"),
        ("what", "left"),
        ("about", "left"),
        ("outcome", "left"),
    ]
    screen.table(columns, [_cells(row) for row in rows], gives_way=(3, 1))
    return EXIT_OK


@audit.command(
    examples=[
        "holdfast audit verify --head 4711:9f86d081…",
        "holdfast audit verify --file audit.jsonl",
    ]
)
@click.option(
    "--head",
    "heads",
    metavar="HEAD",
    multiple=True,
    help="A head that was kept elsewhere: the log has to go through it. May be repeated.",
)
@click.option("--file", metavar="F", type=options.FILE, help="Not the site's log but an export.")
@options.url_option
@options.json_flag
def verify(heads: tuple[str, ...], file: Path | None, url: str | None, as_json: bool) -> int:
    """Follow the whole log from its first row. Exit status 2 if it is not what was written.

    What was cut off at its end is seen only with a head that was kept elsewhere.
    """
    from holdfast.control.access import Head
    from holdfast.faces.cli.api_client import open_api

    screen = Screen(as_json=as_json)
    stated = [str(Head.parse(text)) for text in heads]
    if file is not None:
        found = _verify_file(file, stated)
    else:
        with open_api(url) as api:
            found = api.get("/audit/verification", timeout_s=_PATIENCE_S, head=stated)
    broken = found["broken"]
    if as_json:
        screen.json(found)
    else:
        screen.line(f"{format_count(found['rows'])} rows are as they were written")
        screen.line(f"head {found['head']}")
    if broken is not None:
        screen.warn(f"row {format_count(broken['seq'])} is the first that is not: {broken['why']}")
        return EXIT_FAILED
    if not stated:
        screen.say("keep the head elsewhere: with it, what is cut off later is seen")
    return EXIT_OK


@audit.command(
    examples=["holdfast audit export --to audit.jsonl", "holdfast audit export | gzip > audit.gz"]
)
@click.option("--to", metavar="F", type=options.FILE, help="Write to a new file, not to stdout.")
@options.url_option
@options.json_flag
def export(to: Path | None, url: str | None, as_json: bool) -> int:
    """Write the whole log, one JSON object a row, oldest first; and say its head.

    The head is what 'holdfast audit verify --head' takes; keep it elsewhere.
    """
    from holdfast.faces.cli.api_client import open_api

    screen = Screen(as_json=as_json)
    with open_api(url) as api:
        rows = api.pages("/audit", order="oldest")
        last = _write(rows, screen) if to is None else _write_file(rows, to)
    screen.say(f"head {last}")
    return EXIT_OK


def _write(rows: Iterable[dict[str, Any]], screen: Screen) -> str:
    last = EMPTY
    for row in rows:
        screen.json(row)
        last = f"{row['seq']}:{row['hash']}"
    return last


def _write_file(rows: Iterable[dict[str, Any]], path: Path) -> str:
    last = EMPTY
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            for row in rows:
                file.write(json.dumps(row) + "\n")
                last = f"{row['seq']}:{row['hash']}"
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError as error:
        raise InputOutput(f"'{path}' is there already", "choose another name") from error
    except OSError as error:
        raise storage_error(error)(f"can't write '{path}': {error.strerror}") from error
    return last


def _verify_file(path: Path, heads: list[str]) -> dict[str, Any]:
    from holdfast.control.access import Head, chain

    try:
        with path.open(encoding="utf-8") as file:
            rows = (_row(line, path) for line in file)
            found = chain.verify(rows, [Head.parse(text) for text in heads])
    except FileNotFoundError as error:
        raise PathMissing(f"there is no file '{path}'", "name an export of the log") from error
    except OSError as error:
        raise storage_error(error)(f"can't read '{path}': {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise Invalid(f"'{path}' is no export of an audit log: it is not text") from error
    broken = found.broken
    return {
        "intact": broken is None,
        "rows": found.rows,
        "head": str(found.head),
        "broken": None if broken is None else {"seq": broken.seq, "why": broken.why},
    }


def _row(line: str, path: Path) -> Row:
    from holdfast.control.access import Entry, Row, chain

    try:
        row = json.loads(line)
        details = row["details"]
        text = details if isinstance(details, str) else chain.canonical(details)
        entry = Entry(row["who"], row["what"], row["object"], row["outcome"], text)
        return Row(row["seq"], row["at_ns"], entry, row["previous"], row["hash"])
    except (ValueError, KeyError, TypeError) as error:
        raise Invalid(
            f"'{path}' has a line that is no row of an audit log: {line[:60]!r}"
        ) from error


def _cells(row: dict[str, Any]) -> list[str]:
    at = describe.local_time(datetime.fromisoformat(row["at"]))
    return [at, row["who"], row["what"], row["object"], row["outcome"]]
