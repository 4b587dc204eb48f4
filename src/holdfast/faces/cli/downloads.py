"""Lists that are written as text, CSV or an Excel workbook, to stdout or into a new file."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

from holdfast.base.errors import EXIT_OK, InputOutput, UsageError, storage_error
from holdfast.base.zones import machine_zone
from holdfast.faces.cli import options
from holdfast.faces.cli.screen import ReaderGone

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from holdfast.faces.cli.screen import Screen

FORMATS = ("text", "csv", "xlsx")
"""As the control floor has them; to load that for a help text would take long."""


def as_file(command: Callable[..., int]) -> Callable[..., int]:
    """The options that have a list written as a file."""
    given = [
        click.option(
            "--format",
            "form",
            type=click.Choice(FORMATS),
            help="Write all of the list so, and not what fits here; xlsx is an Excel workbook.",
        ),
        click.option("--to", metavar="F", type=options.FILE, help="Into a new file, not stdout."),
        click.option(
            "--zone",
            metavar="Z",
            help="Whose time text and workbooks have, such as Europe/Berlin; else ours.",
        ),
    ]
    for option in reversed(given):
        command = option(command)
    return command


def form_of(form: str | None, to: Path | None) -> str | None:
    """What a list is to be written as, None for a table on the screen.

    Raises:
        UsageError: A file is named, and not what is to be in it.
    """
    if form is None and to is not None:
        suffix = to.suffix.lower().lstrip(".")
        form = "text" if suffix == "txt" else suffix
        if form not in FORMATS:
            raise UsageError(f"what is to be in '{to}'?", "add --format text, csv or xlsx")
    return form


def zone_of(zone: str | None) -> str:
    """The name of the zone that is meant; this machine's if none is, UTC if that has no name."""
    if zone is not None:
        return zone
    ours = str(machine_zone())
    return "UTC" if ours == "local" else ours


def write(screen: Screen, pieces: Iterable[bytes], form: str, to: Path | None) -> int:
    """Write what the API answers with.

    Args:
        screen: For what is to be said.
        pieces: The file, in pieces.
        form: One of `FORMATS`.
        to: A new file; None for stdout.

    Raises:
        UsageError: A workbook would go to a terminal.
        InputOutput: The file is there already, or can't be written.
    """
    if to is None:
        if form == "xlsx" and screen.data_is_terminal:
            raise UsageError("a workbook is nothing for a terminal", "add --to FILE.xlsx")
        try:
            for piece in pieces:
                sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
        except BrokenPipeError as error:
            raise ReaderGone from error
        return EXIT_OK
    try:
        descriptor = os.open(to, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise InputOutput(f"'{to}' is there already", "choose another name") from error
    except OSError as error:
        raise storage_error(error)(f"can't write '{to}': {error.strerror}") from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            for piece in pieces:
                file.write(piece)
    except OSError as error:
        to.unlink(missing_ok=True)
        raise storage_error(error)(f"can't write '{to}': {error.strerror}") from error
    except BaseException:
        to.unlink(missing_ok=True)
        raise
    screen.say(f"written to {to}")
    return EXIT_OK
