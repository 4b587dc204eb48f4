"""``holdfast service``: have the machine start the site, or its agent or media server of a site."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from holdfast.base.errors import (
    EXIT_OK,
    Invalid,
    NoPermission,
    Unsupported,
    storage_error,
)
from holdfast.base.files import write_whole
from holdfast.faces.cli import opening, options
from holdfast.faces.cli.screen import Screen
from holdfast.faces.cli.words import Group

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

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

AGENT_NAME = "holdfast-agent.service"

_AGENT_UNIT = """\
# Made by 'holdfast service install --role agent'.
[Unit]
Description=Holdfast agent of {home}
Wants=network-online.target
After=network-online.target

[Service]
Type=notify
ExecStart={program} agent run
Environment={environment}
Restart=on-failure
# A machine that was revoked comes back as soon as it has joined anew.
RestartSec=30
# What is at work is stopped in order, and is done again later.
TimeoutStopSec=90
KillMode=mixed
UMask=0077
Nice=5
# It reads every file, writes what is restored with owners, modes and devices, and runs commands
# of policies. So nothing hides a file, a device or a capability: no ProtectSystem=, PrivateTmp=,
# ProtectKernelModules= (it hides /usr/lib/modules), PrivateDevices=, RestrictSUIDSGID=.
NoNewPrivileges=yes
LockPersonality=yes
RestrictRealtime=yes
RestrictNamespaces=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
SystemCallArchitectures=native
SystemCallFilter=~@clock @cpu-emulation @module @obsolete @raw-io @reboot @swap
SystemCallErrorNumber=EPERM
KeyringMode=private
{machine}
[Install]
WantedBy={target}
"""

_FOR_THE_MACHINE = """\
ProtectKernelTunables=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
"""
"""What a user's own manager may not do."""

MEDIA_NAME = "holdfast-media.service"

_MEDIA_UNIT = """\
# Made by 'holdfast service install --role media'.
[Unit]
Description=Holdfast media server of {home}
Wants=network-online.target
After=network-online.target

[Service]
Type=notify
ExecStart={program} media run
Environment={environment}
Restart=on-failure
# A machine that was revoked comes back as soon as it has joined anew.
RestartSec=30
# What is at work goes to another media server, and is not sent again.
TimeoutStopSec=90
KillMode=mixed
UMask=0077
LimitNOFILE=65536
# It needs its home, its pool and the network, and nothing else of the machine.
NoNewPrivileges=yes
LockPersonality=yes
RestrictRealtime=yes
RestrictNamespaces=yes
RestrictSUIDSGID=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@resources
SystemCallErrorNumber=EPERM
KeyringMode=private
{machine}
[Install]
WantedBy={target}
"""

_MEDIA_FOR_THE_MACHINE = """\
# Files of its pool and its home may be another user's.
CapabilityBoundingSet=CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_FOWNER CAP_NET_BIND_SERVICE
ProtectSystem=strict
ReadWritePaths={writes}
PrivateTmp=yes
PrivateDevices=yes
ProtectClock=yes
ProtectHostname=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectProc=invisible
"""
"""Likewise. No ProtectHome=: a home of Holdfast may be in one."""


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
    type=click.Choice(("site", "agent", "media")),
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
@click.option("--user", is_flag=True, help="For this user's own manager, not the machine's.")
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
    made = _of_media_server(home, user, disks) if role == "media" else _UNITS[role](home, user)
    name, unit = made
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


def _of_site(home: Path, user: bool) -> tuple[str, str]:
    # A site that is not there can't be served.
    opening.open_site().close()
    return NAME, _filled(_UNIT, home, user)


def _of_agent(home: Path, user: bool) -> tuple[str, str]:
    from holdfast.movers import machine_home

    # Nor does a machine work for a site that it has not joined.
    machine_home.load(home)
    return AGENT_NAME, _filled(_AGENT_UNIT, home, user, _FOR_THE_MACHINE)


def _of_media_server(home: Path, user: bool, disks: Sequence[Path]) -> tuple[str, str]:
    from holdfast.faces.cli.media import require_media_server, site_of
    from holdfast.movers import machine_home
    from holdfast.site.own_pools import places
    from holdfast.vault.backends import open_store

    require_media_server(machine_home.load(home).identity)
    # A disk that is not there is no reason not to serve the others.
    own = [f"-{one}" for one in (*(str(one.absolute()) for one in disks), *places(home))]
    writes = [str(home), *dict.fromkeys(own)]
    site = site_of(home)
    if site is not None:
        with site:
            store = open_store(site.config.pool_url)
        # A pool in object storage is no directory of this machine.
        writes += [store] if isinstance(store, str) else []
    named = " ".join(map(_quoted, writes))
    machine = _MEDIA_FOR_THE_MACHINE.format(writes=named)
    return MEDIA_NAME, _filled(_MEDIA_UNIT, home, user, machine)


_UNITS: Mapping[str, Callable[[Path, bool], tuple[str, str]]] = {
    "site": _of_site,
    "agent": _of_agent,
}


def _filled(unit: str, home: Path, user: bool, machine: str = "") -> str:
    return unit.format(
        machine="" if user else machine,
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
