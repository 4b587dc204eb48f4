"""``holdfast client-key``: keys of this machine with which it seals what it backs up."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

from holdfast.base.errors import EXIT_OK, InputOutput, Invalid
from holdfast.faces.cli import opening, options
from holdfast.faces.cli.screen import Screen, path_json, path_text
from holdfast.faces.cli.words import Group

if TYPE_CHECKING:
    from pathlib import Path

    from holdfast.movers.client_keys import ClientKeys, StoredKey

_MOST_TEXT = 64 << 10


@click.group(cls=Group, no_args_is_help=False, default="list")
def client_key() -> None:
    """Keys with which this machine seals its backups, so that the site can't read them."""


@client_key.command(
    arguments=[("NAME", "What to call it on this machine.")],
    examples=["holdfast client-key create office"],
)
@click.argument("name", metavar="NAME")
@options.json_flag
def create(name: str, as_json: bool) -> int:
    """Make a client key on this machine.

    It is nowhere else until it is exported. Without it, nobody brings back what was sealed with
    it: export it, print that, and keep it away from this machine.
    """
    screen = Screen(as_json=as_json)
    made = _keys().create(name)
    _tell(screen, made)
    screen.say(f"keep it elsewhere too, or its backups go with this machine: {_export(made)}")
    return EXIT_OK


@client_key.command(name="list", examples=["holdfast client-key list"])
@options.json_flag
def list_(as_json: bool) -> int:
    """List the client keys of this machine."""
    screen = Screen(as_json=as_json)
    found = _keys().all()
    if as_json:
        for one in found:
            screen.json({"name": one.name, "id": one.id})
        return EXIT_OK
    screen.table([("name", "left"), ("key", "left")], [[one.name, one.id] for one in found])
    if not found:
        screen.say("this machine has no client key: holdfast client-key create NAME")
    return EXIT_OK


@client_key.command(
    arguments=[("KEY", "Its name or its id.")], examples=["holdfast client-key show office"]
)
@click.argument("key", metavar="KEY")
@options.json_flag
def show(key: str, as_json: bool) -> int:
    """Show what a client key is called, without the key itself."""
    _tell(Screen(as_json=as_json), _keys().find(key))
    return EXIT_OK


@client_key.command(
    arguments=[("KEY", "Its name or its id.")],
    examples=[
        "holdfast client-key export office | lp",
        "holdfast client-key export office --output /media/stick/office.txt",
    ],
)
@click.argument("key", metavar="KEY")
@click.option(
    "--output", metavar="FILE", type=options.FILE, help="Into a new file, for its owner alone."
)
@options.json_flag
def export(key: str, output: Path | None, as_json: bool) -> int:
    """Write a client key as a page to print, or to carry to another machine.

    Whoever has the page can read all that was sealed with the key.
    """
    screen = Screen(as_json=as_json)
    found = _keys().find(key)
    text = found.text()
    if output is None and as_json:
        screen.json({"name": found.name, "id": found.id, "text": text})
    elif output is None:
        for line in text.splitlines():
            screen.line(line)
    if output is None:
        return EXIT_OK
    try:
        descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise InputOutput(f"can't write {output}: {error.strerror}") from error
    if as_json:
        screen.json({"name": found.name, "id": found.id, "output": str(output)})
    screen.say(f"written: {output}")
    return EXIT_OK


@client_key.command(
    name="import",
    arguments=[
        ("NAME", "What to call it on this machine."),
        ("FILE", "What 'export' wrote, or the lines of it; without it, or '-': stdin."),
    ],
    examples=[
        "holdfast client-key import office /media/stick/office.txt",
        "ssh web1 holdfast client-key export office | holdfast client-key import office",
    ],
)
@click.argument("name", metavar="NAME")
@click.argument("file", metavar="[FILE]", required=False, type=options.FILE)
@options.json_flag
def import_(name: str, file: Path | None, as_json: bool) -> int:
    """Bring a client key of another machine here."""
    from holdfast.movers.client_keys import read_text

    screen = Screen(as_json=as_json)
    _tell(screen, _keys().add(name, read_text(read_key_file(file))))
    return EXIT_OK


@client_key.command(
    arguments=[
        ("KEY", "Its name or its id."),
        ("PATH", "As the site shows it, such as /srv/sealed:mfrgg…; sealed and plain parts."),
    ],
    examples=["holdfast client-key reveal office /sealed:mfrggzdf/sealed:onswg4tf"],
)
@click.argument("key", metavar="KEY")
@click.argument("paths", metavar="PATH...", nargs=-1, required=True)
@options.json_flag
def reveal(key: str, paths: tuple[str, ...], as_json: bool) -> int:
    """Say what paths are called that the site shows with sealed names.

    What this key did not seal at that place stays as it is.
    """
    screen = Screen(as_json=as_json)
    found = _keys().find(key).key
    for path in paths:
        plain = found.open_path(os.fsencode(path))
        if as_json:
            screen.json({"sealed": path, **path_json(plain)})
        else:
            screen.line(path_text(plain))
    return EXIT_OK


def read_key_file(file: Path | None) -> str:
    """The text of a file that a person named; of stdin where none is, or '-'.

    Raises:
        Invalid: It is too long to be a key.
        InputOutput: It can't be read.
    """
    try:
        if file is None or str(file) == "-":
            text = sys.stdin.read(_MOST_TEXT + 1)
        else:
            with file.open(encoding="utf-8", errors="replace") as opened:
                text = opened.read(_MOST_TEXT + 1)
    except OSError as error:
        raise InputOutput(f"can't read {file}: {error.strerror}") from error
    if len(text) > _MOST_TEXT:
        raise Invalid("this is no client key: it has too many characters")
    return text


def _keys() -> ClientKeys:
    from holdfast.movers.client_keys import ClientKeys

    return ClientKeys(opening.home())


def _tell(screen: Screen, key: StoredKey) -> None:
    if screen.as_json:
        screen.json({"name": key.name, "id": key.id})
    else:
        screen.facts([("name", key.name), ("key", key.id)])


def _export(key: StoredKey) -> str:
    return f"holdfast client-key export {key.name}"
