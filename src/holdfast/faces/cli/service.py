"""``holdfast service``: have the machine start the site, or its agent or media server of a site."""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import click

from holdfast.base.errors import (
    EXIT_OK,
    CommandFailed,
    Invalid,
    NoPermission,
    NotFound,
    Unsupported,
    WrongState,
    storage_error,
)
from holdfast.base.files import write_whole
from holdfast.faces.cli import opening, options, units
from holdfast.faces.cli.screen import Screen
from holdfast.faces.cli.words import Group

if TYPE_CHECKING:
    from collections.abc import Sequence

SYSTEM_UNITS = Path("/etc/systemd/system")

_RUNS = Path("/run/systemd/system")
"""There where systemd is what runs the machine; see sd_booted(3)."""

_OWN_MANAGER = click.option(
    "--user", is_flag=True, help="For this user's own manager, not the machine's."
)


@click.group(cls=Group, no_args_is_help=False)
def service() -> None:
    """Have the machine start the site, or its agent or media server of a site."""


@service.command(
    examples=[
        "holdfast service install",
        "holdfast service install --user",
        "holdfast service install --print",
        "holdfast service install --role agent",
        "holdfast service install --role media",
        "holdfast service install --role media --disk /srv/holdfast",
    ]
)
@click.option(
    "--role",
    type=click.Choice(tuple(units.ROLES)),
    default="site",
    show_default=True,
    help="site: serve the site that is here. agent, media: work for the site that was joined.",
)
@click.option(
    "--disk",
    "disks",
    metavar="DIR",
    multiple=True,
    type=click.Path(path_type=Path),
    help="A directory that pools of a media server's own may be made in; may be repeated.",
)
@_OWN_MANAGER
@click.option("--print", "only_print", is_flag=True, help="Write the unit to stdout instead.")
@options.json_flag
def install(role: str, disks: tuple[Path, ...], user: bool, only_print: bool, as_json: bool) -> int:
    """Write a systemd unit that serves the site of HOLDFAST_HOME, or works for the one it joined.

    Nothing is started: the commands that do so are said. Only root can have the machine's manager
    start it, and only root may read every file of a machine.
    """
    screen = Screen(as_json=as_json)
    home = opening.home()
    if disks and role != "media":
        raise Invalid("only a media server has disks of its own", "add --role media")
    name, unit = units.ROLES[role].unit, _text(role, home, user, disks)
    if only_print:
        if as_json:
            screen.json({"unit": None, "text": unit})
        else:
            screen.line(unit.rstrip())
        return EXIT_OK
    directory = _units_of(user)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        write_whole(directory / name, unit.encode())
        (directory / name).chmod(0o644)
    except OSError as error:
        raise storage_error(error)(f"can't write {directory / name}: {error.strerror}") from error
    if as_json:
        screen.json({"unit": str(directory / name), "text": unit})
        return EXIT_OK
    manager = "systemctl --user" if user else "systemctl"
    screen.line(str(directory / name))
    screen.say(f"next: {manager} daemon-reload && {manager} enable --now {name}")
    if user:
        screen.say("      loginctl enable-linger, so that it runs while you are logged out")
    return EXIT_OK


@service.command(
    examples=[
        "holdfast service uninstall",
        "holdfast service uninstall --role agent",
        "holdfast service uninstall --user",
    ]
)
@click.option(
    "--role",
    type=click.Choice(tuple(units.ROLES)),
    default="site",
    show_default=True,
    help="Whose unit.",
)
@_OWN_MANAGER
@options.json_flag
def uninstall(role: str, user: bool, as_json: bool) -> int:
    """Stop what 'holdfast service install' has had started, and remove its unit.

    What is at work is stopped in order first, which may take minutes. The home and the pool stay as
    they are, and so does what 'systemctl edit' has added to the unit.
    """
    screen = Screen(as_json=as_json)
    file = _units_of(user) / units.ROLES[role].unit
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError as error:
        raise NotFound(
            f"there is no {file}",
            "name the role that was installed: --role site, agent or media"
            + ("" if user else "; or --user"),
        ) from error
    except OSError as error:
        raise storage_error(error)(f"can't read {file}: {error.strerror}") from error
    if not text.startswith(units.MARK):
        raise WrongState(
            f"{file} was not made by 'holdfast service install'", "remove it by hand, if it may go"
        )
    running = _RUNS.is_dir()
    if not as_json:
        screen.say(f"stopping {file.name}" if running else f"removing {file.name}")
    # Without a manager that runs there is nothing to be stopped, and links can be removed.
    _manage(user, "disable", *(("--now",) if running else ()), file.name)
    try:
        file.unlink()
    except OSError as error:
        raise storage_error(error)(f"can't remove {file}: {error.strerror}") from error
    if running:
        _manage(user, "daemon-reload")
        with contextlib.suppress(CommandFailed):
            # It has no failure to be reminded of, as a rule.
            _manage(user, "reset-failed", file.name)
    left = [one for one in (file.with_name(f"{file.name}.d"),) if one.exists()]
    if as_json:
        screen.json({"unit": str(file), "left": [str(one) for one in left]})
        return EXIT_OK
    screen.line(str(file))
    for one in left:
        screen.say(f"left, since it is not ours: {one}")
    return EXIT_OK


def _text(role: str, home: Path, user: bool, disks: Sequence[Path]) -> str:
    from holdfast.movers import machine_home

    writes: list[str] = []
    if role == "site":
        # A site that is not there can't be served.
        opening.open_site().close()
    elif role == "agent":
        # Nor does a machine work for a site that it has not joined.
        machine_home.load(home)
    else:
        writes = _places_of_media_server(home, disks)
    return units.text_of(role, home, user=user, writes=writes)


def _places_of_media_server(home: Path, disks: Sequence[Path]) -> list[str]:
    from holdfast.faces.cli.media import require_media_server, site_of
    from holdfast.movers import machine_home
    from holdfast.site.own_pools import places
    from holdfast.vault.backends import open_store

    require_media_server(machine_home.load(home).identity)
    # A disk that is not there is no reason not to serve the others.
    own = [f"-{one}" for one in (*(str(one.absolute()) for one in disks), *places(home))]
    writes = list(dict.fromkeys(own))
    site = site_of(home)
    if site is not None:
        with site:
            store = open_store(site.config.pool_url)
        # A pool in object storage is no directory of this machine.
        writes += [store] if isinstance(store, str) else []
    return writes


def _units_of(user: bool) -> Path:
    """Where units are written, by who may do so."""
    if user:
        return _user_units()
    if os.geteuid() != 0:
        raise NoPermission(
            f"only root may write in {SYSTEM_UNITS}",
            "run as root, or add --user for your own manager",
        )
    if not SYSTEM_UNITS.is_dir():
        raise Unsupported(f"there is no {SYSTEM_UNITS}", "this machine is not run by systemd")
    return SYSTEM_UNITS


def _user_units() -> Path:
    named = os.environ.get("XDG_CONFIG_HOME", "")
    base = Path(named) if named.startswith("/") else Path.home() / ".config"
    return base / "systemd" / "user"


def _manage(user: bool, *words: str) -> None:
    """Have systemd do something.

    Raises:
        Unsupported: There is no systemctl.
        CommandFailed: It did not do it.
    """
    command = ["systemctl", *(("--user",) if user else ()), *words]
    shown = " ".join(command)
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise Unsupported("there is no systemctl", "this machine is not run by systemd") from error
    if done.returncode:
        said = done.stderr.strip().splitlines()
        tail = f": {said[-1]}" if said else ""
        raise CommandFailed(
            f"'{shown}' ended with exit status {done.returncode}{tail}", f"say it yourself: {shown}"
        )
