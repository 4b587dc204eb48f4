"""``holdfast service``: have the machine start the site."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from holdfast.base.errors import EXIT_OK, NoPermission, Unsupported, storage_error
from holdfast.base.files import write_whole
from holdfast.faces.cli import opening, options
from holdfast.faces.cli.screen import Screen
from holdfast.faces.cli.words import Group

NAME = "holdfast.service"
SYSTEM_UNITS = Path("/etc/systemd/system")

_UNIT = """\
# Made by 'holdfast service install'.
[Unit]
Description=Holdfast backup site at {home}
Wants=network-online.target
After=network-online.target

[Service]
Type=notify
ExecStart={program} serve
Environment={environment}
Restart=on-failure
RestartSec=5
# What is at work is stopped in order, and goes on after the next start.
TimeoutStopSec=300
KillMode=mixed
UMask=0077
Nice=5

[Install]
WantedBy={target}
"""


@click.group(cls=Group, no_args_is_help=False)
def service() -> None:
    """Have the machine start the site."""


@service.command(
    examples=[
        "holdfast service install",
        "holdfast service install --user",
        "holdfast service install --print",
    ]
)
@click.option("--user", is_flag=True, help="For this user's own manager, not the machine's.")
@click.option("--print", "only_print", is_flag=True, help="Write the unit to stdout instead.")
@options.json_flag
def install(user: bool, only_print: bool, as_json: bool) -> int:
    """Write a systemd unit that serves the site of HOLDFAST_HOME.

    Nothing is started: the commands that do so are said. Only root can have the machine's manager
    start it, and only root may read every file of a machine.
    """
    screen = Screen(as_json=as_json)
    home = opening.home()
    # A site that is not there can't be served.
    opening.open_site().close()
    unit = _unit(home, user=user)
    if only_print:
        if as_json:
            screen.json({"unit": None, "text": unit})
        else:
            screen.line(unit.rstrip())
        return EXIT_OK
    directory = _user_units() if user else SYSTEM_UNITS
    if not user and os.geteuid() != 0:
        raise NoPermission(
            f"only root may write in {directory}", "run as root, or add --user for your own manager"
        )
    if not user and not directory.is_dir():
        raise Unsupported(f"there is no {directory}", "this machine is not run by systemd")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        write_whole(directory / NAME, unit.encode())
        (directory / NAME).chmod(0o644)
    except OSError as error:
        raise storage_error(error)(f"can't write {directory / NAME}: {error.strerror}") from error
    if as_json:
        screen.json({"unit": str(directory / NAME), "text": unit})
        return EXIT_OK
    manager = "systemctl --user" if user else "systemctl"
    screen.line(str(directory / NAME))
    screen.say(f"next: {manager} daemon-reload && {manager} enable --now {NAME}")
    if user:
        screen.say("      loginctl enable-linger, so that it runs while you are logged out")
    return EXIT_OK


def _unit(home: Path, *, user: bool) -> str:
    return _UNIT.format(
        home=_plain(str(home)),
        program=" ".join(map(_quoted, _program())),
        environment=_quoted(f"HOLDFAST_HOME={home}"),
        target="default.target" if user else "multi-user.target",
    )


def _program() -> list[str]:
    """How this very Holdfast is started."""
    script = Path(sys.argv[0])
    if script.name == "holdfast" and script.exists():
        return [str(script.absolute())]
    return [sys.executable, "-m", "holdfast"]


def _user_units() -> Path:
    named = os.environ.get("XDG_CONFIG_HOME", "")
    base = Path(named) if named.startswith("/") else Path.home() / ".config"
    return base / "systemd" / "user"


def _plain(text: str) -> str:
    return text.replace("%", "%%").replace("\n", " ")


def _quoted(text: str) -> str:
    """A word as systemd.syntax(7) and systemd.service(5) want it."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return '"' + escaped.replace("\n", "\\n") + '"'
