"""``holdfast config``: what is set for the site, and by whom."""

from __future__ import annotations

import click

from holdfast.base.errors import EXIT_OK
from holdfast.faces.cli import options
from holdfast.faces.cli.screen import Screen
from holdfast.faces.cli.words import Group


@click.group(cls=Group, no_args_is_help=False)
def config() -> None:
    """What is set for the site, and by whom."""


@config.command(examples=["holdfast config show", "HOLDFAST_JOBS_SLOTS=4 holdfast config show"])
@options.json_flag
def show(as_json: bool) -> int:
    """Show every setting, its value, and who set it: default, file or environment.

    The file is config.toml in the site's home: 'jobs.slots' is 'slots' under [jobs]. A variable of
    the environment goes before it. A site that is served has what was set when it was started.
    """
    from holdfast.faces.cli.api_client import open_api

    screen = Screen(as_json=as_json)
    with open_api() as api:
        rows = api.get("/settings")["items"]
    if as_json:
        for row in rows:
            screen.json(row)
        return EXIT_OK
    screen.table(
        [("setting", "left"), ("value", "left"), ("set by", "left"), ("meaning", "left")],
        [[row["key"], _shown(row["value"]), _by(row), row["meaning"]] for row in rows],
        gives_way=3,
    )
    return EXIT_OK


def _shown(value: str | None) -> str:
    return "(secret)" if value is None else value or "-"


def _by(row: dict[str, str]) -> str:
    origin = row["origin"]
    return "" if origin == "default" else origin
