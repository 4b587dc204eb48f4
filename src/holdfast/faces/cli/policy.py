"""``holdfast policy``: what is backed up, when, where to, and how long it is kept."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from holdfast.base.errors import EXIT_OK, Cancelled, UsageError
from holdfast.faces.cli import options, policy_words
from holdfast.faces.cli.policy_files import apply, export, template, validate
from holdfast.faces.cli.policy_new import new
from holdfast.faces.cli.policy_running import preview, run
from holdfast.faces.cli.screen import Column, Screen
from holdfast.faces.cli.user import local_time
from holdfast.faces.cli.words import Group

if TYPE_CHECKING:
    from collections.abc import Sequence

name_argument = click.argument("name")


@click.group(cls=Group, no_args_is_help=False)
def policy() -> None:
    """What is backed up, when, where to, and how long it is kept."""


@policy.command(
    name="list",
    examples=["holdfast policy list", "holdfast policy list --client web1 --active"],
)
@click.option("--text", metavar="TEXT", help="Only those with this in their names.")
@click.option("--client", metavar="NAME", help="Only those that are for this client.")
@click.option("--active/--inactive", default=None, help="Only those that are so.")
@click.option("--storage-unit", metavar="NAME", help="Only those that write to this one.")
@options.url_option
@options.json_flag
def list_(url: str | None, as_json: bool, **wanted: Any) -> int:
    """List the policies."""
    from holdfast.faces.cli.api_client import open_api

    screen = Screen(as_json=as_json)
    with open_api(url) as api:
        rows = list(api.pages("/policies", **wanted))
    if as_json:
        for row in rows:
            screen.json(row)
        return EXIT_OK
    if not rows:
        given = any(value is not None for value in wanted.values())
        none = "no such policies" if given else "no policies yet: 'holdfast policy new' makes one"
        screen.say(none)
        return EXIT_OK
    columns: list[Column] = [
        ("name", "left"),
        ("state", "left"),
        ("clients", "left"),
        ("schedules", "left"),
        ("changed", "left"),
    ]
    screen.table(columns, [_cells(row) for row in rows], gives_way=(3, 2, 0))
    for row in rows:
        if row["unreadable"] is not None:
            screen.warn(f"policy '{row['name']}' starts nothing: {row['unreadable']}")
    return EXIT_OK


@policy.command(
    arguments=[("NAME", "The policy.")],
    examples=["holdfast policy show servers", "holdfast policy show servers --revisions"],
)
@name_argument
@click.option("--revisions", is_flag=True, help="Who changed it when, newest first.")
@options.url_option
@options.json_flag
def show(name: str, revisions: bool, url: str | None, as_json: bool) -> int:
    """Show one policy, or what became of it over time."""
    from holdfast.faces.cli.api_client import at, open_api

    screen = Screen(as_json=as_json)
    with open_api(url) as api:
        if revisions:
            rows = list(api.pages(at("policies", name, "revisions")))
        else:
            detail = api.get(at("policies", name))
    if revisions:
        _tell_revisions(screen, rows)
    elif as_json:
        screen.json(detail)
    else:
        pairs = policy_words.facts(detail, local_time(detail["changed_at"]))
        for line in policy_words.wrapped(screen, pairs):
            screen.line(line)
    return EXIT_OK


policy.add_command(new)
policy.add_command(run)
policy.add_command(preview)
policy.add_command(template)
policy.add_command(validate)
policy.add_command(export)
policy.add_command(apply)


@policy.command(
    arguments=[("NAME", "Policies.")],
    examples=["holdfast policy remove servers", "holdfast policy remove old older --yes"],
)
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.option("--yes", is_flag=True, help="Do not ask.")
@options.url_option
@options.json_flag
def remove(names: tuple[str, ...], yes: bool, url: str | None, as_json: bool) -> int:
    """Remove policies. Their images stay, and go by the rules that the policies had."""
    from holdfast.faces.cli.api_client import at, open_api

    screen = Screen(as_json=as_json)
    with open_api(url) as api:
        # All of them are looked at before the first of them goes.
        revisions = {name: api.get(at("policies", name))["revision"] for name in names}
        if not yes:
            _confirm(f"remove {', '.join(revisions)}?")
        for name, revision in revisions.items():
            api.delete(at("policies", name), revision=revision)
            _tell_done(screen, {"removed": name}, f"removed {name}")
    return EXIT_OK


@policy.command(arguments=[("NAME", "Policies.")], examples=["holdfast policy activate servers"])
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@options.url_option
@options.json_flag
def activate(names: tuple[str, ...], url: str | None, as_json: bool) -> int:
    """Let policies start backups by themselves."""
    return _set_active(names, url, "activate", as_json=as_json)


@policy.command(arguments=[("NAME", "Policies.")], examples=["holdfast policy deactivate servers"])
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@options.url_option
@options.json_flag
def deactivate(names: tuple[str, ...], url: str | None, as_json: bool) -> int:
    """Let policies start nothing by themselves. Their images are kept as before."""
    return _set_active(names, url, "deactivate", as_json=as_json)


def _set_active(names: Sequence[str], url: str | None, verb: str, *, as_json: bool) -> int:
    from holdfast.faces.cli.api_client import at, open_api

    screen = Screen(as_json=as_json)
    with open_api(url) as api:
        for name in names:
            api.get(at("policies", name))
        for name in names:
            detail = api.post(at("policies", name, verb))
            _tell_done(screen, detail, f"{verb}d {name}")
    return EXIT_OK


def _tell_revisions(screen: Screen, rows: Sequence[dict[str, Any]]) -> None:
    if screen.as_json:
        for row in rows:
            screen.json(row)
        return
    columns: list[Column] = [
        ("revision", "right"),
        ("when", "left"),
        ("who", "left"),
        ("what", "left"),
    ]
    cells = [[str(row["number"]), local_time(row["at"]), row["who"], _what(row)] for row in rows]
    screen.table(columns, cells, gives_way=(3, 2))


def _what(row: dict[str, Any]) -> str:
    policy = row["policy"]
    said = "" if policy is None else f": {policy_words.summary(policy)}"
    return f"{row['act']}{said}"


def _state(row: dict[str, Any]) -> str:
    if row["unreadable"] is not None:
        return "unreadable"
    return "active" if row["active"] else "inactive"


def _cells(row: dict[str, Any]) -> list[str]:
    return [
        row["name"],
        _state(row),
        policy_words.clients_of(row),
        ", ".join(one["name"] for one in row["schedules"]) or "none",
        local_time(row["changed_at"]),
    ]


def _confirm(question: str) -> None:
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError("nobody is here to ask", "add --yes")
    if not click.confirm(question, default=False, err=True):
        raise Cancelled("nothing was removed")


def _tell_done(screen: Screen, value: dict[str, Any], line: str) -> None:
    if screen.as_json:
        screen.json(value)
    else:
        screen.line(line)
