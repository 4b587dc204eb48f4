"""Whatever a command does can be done over the API, or belongs to its machine."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest

from holdfast.faces.cli.commands import holdfast

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.kit.api import Api

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "api.md"
MACHINE_ONLY = frozenset(
    {
        *(
            "quickstart",
            "init",
            "mount",
            "serve",
            "service install",
            "service uninstall",
            "pool recovery-kit",
            "recover",
        ),
        *("enroll", "agent run", "media run"),
        *(f"client-key {one}" for one in ("create", "list", "show", "export", "import", "reveal")),
    }
)
"""A command goes in here only if nobody far away could have a use for it."""

_ROW = re.compile(r"^\| `([a-z -]+)` \| (.*) \|$", re.MULTILINE)
_ROUTE = re.compile(r"`(GET|POST|PUT|PATCH|DELETE) (/[^` ]*)`")


def commands(command: click.Command, context: click.Context, name: str = "") -> Iterator[str]:
    """The names of all commands below one."""
    if not isinstance(command, click.Group):
        yield name
        return
    for part in command.list_commands(context):
        found = command.get_command(context, part)
        assert found is not None
        yield from commands(found, context, f"{name} {part}".strip())


@pytest.fixture(scope="module")
def every_command() -> set[str]:
    return set(commands(holdfast, click.Context(holdfast)))


def told() -> tuple[dict[str, str], dict[str, str]]:
    """The page's two tables: routes of commands, and why others have none."""
    section = PAGE.read_text().partition("## Commands and routes")[2].partition("\n## ")[0]
    routes, _, reasons = section.partition("have no route:")
    return dict(_ROW.findall(routes)), dict(_ROW.findall(reasons))


def test_every_command_has_a_route_or_belongs_to_its_machine(every_command: set[str]) -> None:
    routes, reasons = told()
    assert set(reasons) == MACHINE_ONLY
    assert routes.keys() | reasons.keys() == every_command
    assert not routes.keys() & reasons.keys()
    assert all(_ROUTE.search(row) for row in routes.values())


def test_every_route_of_the_table_is_there(api: Api) -> None:
    paths = api.app.openapi()["paths"]
    routes, reasons = told()
    for command, row in (routes | reasons).items():
        for method, path in _ROUTE.findall(row):
            assert method.lower() in paths.get(f"/api/v1{path}", {}), (command, method, path)


def test_a_route_that_no_command_needs_is_told_apart(api: Api) -> None:
    """Whoever adds a route says which command does the same, or adds it to these."""
    without = {
        ("GET", "/me"),
        ("DELETE", "/me/session"),
        ("GET", "/clients"),
        ("GET", "/sources"),
    }
    routes, _ = told()
    named = {route for row in routes.values() for route in _ROUTE.findall(row)}
    there = {
        (method.upper(), path.removeprefix("/api/v1"))
        for path, operations in api.app.openapi()["paths"].items()
        if path.startswith("/api/v1/")
        for method in operations
    }
    assert there - named == without
