"""What the documents say of commands, options and errors is what there is."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from holdfast.base import errors
from holdfast.faces.cli.commands import holdfast
from holdfast.faces.cli.words import Group

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs" / "guides").glob("*.md"))]


def commands() -> dict[tuple[str, ...], set[str]]:
    """Every command's words, and the options it knows."""
    found: dict[tuple[str, ...], set[str]] = {}

    def visit(command: click.Command, words: tuple[str, ...]) -> None:
        context = click.Context(command)
        if isinstance(command, click.Group):
            for name in command.list_commands(context):
                child = command.get_command(context, name)
                assert child is not None, name
                visit(child, (*words, name))
            if isinstance(command, Group) and command.default is not None:
                found[words] = found[*words, command.default]
            return
        found[words] = {
            spelling for one in command.params for spelling in one.opts if spelling.startswith("-")
        }

    visit(holdfast, ())
    return found


def shell_lines(page: Path) -> list[str]:
    blocks = re.findall(r"```console\n(.*?)```", page.read_text(), re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if "holdfast " in line]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_line_on_a_page_is_one_that_exists(page: Path) -> None:
    known = commands()
    for line in shell_lines(page):
        words = shlex.split(line)
        words = words[words.index("holdfast") + 1 :]
        name = tuple(words[:2]) if tuple(words[:2]) in known else tuple(words[:1])
        assert name in known, line
        used = {word.split("=")[0] for word in words if word.startswith("-")}
        assert used <= known[name], line


def test_the_reference_names_every_command_and_every_option() -> None:
    page = (ROOT / "docs" / "reference" / "command-line.md").read_text()
    for words, options in commands().items():
        assert f"`{' '.join(words)}" in page, words
        for option in options - {"--json"}:
            assert option in page, (words, option)


def test_every_command_has_json() -> None:
    for words, options in commands().items():
        assert "--json" in options, words


def test_the_reference_lists_every_error_as_it_is() -> None:
    page = (ROOT / "docs" / "reference" / "exit-status.md").read_text()
    listed = re.findall(r"^\| `([\w-]+)` \| (\d+) \| ([\w ]+) \| (.*) \|$", page, re.MULTILINE)
    real = [
        (one.code, str(one.exit_status), one.retry.value, (one.__doc__ or "").split("\n")[0][:-1])
        for one in errors.BY_CODE.values()
    ]
    assert sorted(listed) == sorted(real)


def test_every_floor_is_on_the_architecture_page() -> None:
    page = (ROOT / "ARCHITECTURE.md").read_text()
    floors = [
        path.name
        for path in (ROOT / "src" / "holdfast").iterdir()
        if (path / "__init__.py").exists()
    ]
    assert len(floors) >= 9
    for floor in floors:
        assert re.search(rf"^([\w]+ \| )?{floor}\b", page, re.MULTILINE), floor
