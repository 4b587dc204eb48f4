"""Words that several commands share: options, arguments, and opening the site.

Must not print data. Invariant: a person is asked for a passphrase only on a terminal.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from holdfast.base.clock import SystemClock
from holdfast.base.config import default_home
from holdfast.faces.cli.progress import counting

if TYPE_CHECKING:
    from holdfast.faces.cli.screen import Screen
    from holdfast.site.secrets import SecretSource
    from holdfast.site.site import Site

PLACE = click.Path(readable=False)
"""A path as it was typed. Whether it must be there and be readable is the command's to say."""

FILE = click.Path(readable=False, path_type=Path)
"""The same, of a file that Holdfast itself reads or writes."""

json_flag = click.option(
    "--json", "as_json", is_flag=True, help="Write JSON to stdout: an object, or one object a line."
)
source_option = click.option(
    "--source", metavar="S", help="Only this source, as 'holdfast images' shows it."
)


def home() -> Path:
    """The home directory of the embedded site of this process."""
    return default_home(os.environ, os.geteuid(), Path.home())


def secret_source(passphrase_file: Path | None = None) -> SecretSource:
    """Where a passphrase may come from, with a prompt if this is a terminal."""
    from holdfast.site.secrets import SecretSource

    ask = ask_passphrase if can_ask() else None
    return SecretSource.from_environment(os.environ, passphrase_file, ask)


def open_site() -> Site:
    """Open the embedded site of this process."""
    from holdfast.site.site import Site

    return Site.open(home(), secret_source(), SystemClock())


def catch_up(screen: Screen, site: Site) -> None:
    """Feed the catalog what an interrupted command left for later, and say so."""
    pending = len(site.catalog.pending())
    if not pending:
        return
    screen.say(f"the catalog catches up with {pending} image(s)")
    with counting(screen, "catalog: rows") as rows:
        site.catch_up(rows)


def can_ask() -> bool:
    """Tell whether there is a person at a terminal."""
    return sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()


def ask_passphrase(what: str) -> str:
    """Ask for a passphrase on the terminal, without showing it; a new one is asked twice."""
    from getpass import getpass

    first = getpass(f"{what}: ")
    if what.startswith("new "):
        while getpass("the same again: ") != first:
            sys.stderr.write("these were not the same; once more\n")
            first = getpass(f"{what}: ")
    return first
