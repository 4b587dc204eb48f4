"""Units of systemd: of the site, of an agent and of a media server.

Must not write them anywhere. Invariant: whatever a path holds, systemd reads it as that path. What
each unit allows is told to users in docs/guides/services.md.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

MARK: Final = "# Made by 'holdfast service install"
"""What the first line of each of them begins with."""

_BEGIN = """\
{mark}'.
[Unit]
Description=Holdfast {what} {home}
Wants=network-online.target
After={after}
RequiresMountsFor={path}

[Service]
Type=notify
ExecStart={program} {words}
Environment={environment}
Restart=on-failure
"""

_END = """\
[Install]
WantedBy={target}
"""

_SITE = """\
RestartSec=5
# After an update the control database is brought to its new form first, however large it is.
TimeoutStartSec=infinity
# What is at work is stopped in order, and goes on after the next start.
TimeoutStopSec=300
"""

_AGENT = """\
# Soon enough that its jobs wait for it; one that was revoked comes back when it has joined anew.
RestartSec=10
# What is at work is stopped in order, and is done again later.
TimeoutStopSec=90
"""

_WORKER = """\
KillMode=mixed
# A helper that takes too much memory ends alone: its job fails, the others go on.
OOMPolicy=continue
UMask=0077
Nice=5
LimitNOFILE=65536
# Its memory holds keys.
LimitCORE=0
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
"""

_FOR_THE_MACHINE = """\
ProtectKernelTunables=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
"""
"""What a user's own manager may not do."""

_MEDIA = """\
# Soon enough that its jobs wait for it; one that was revoked comes back when it has joined anew.
RestartSec=10
# What is at work goes to another media server, and is not sent again.
TimeoutStopSec=90
KillMode=mixed
UMask=0077
LimitNOFILE=65536
# Its memory holds keys.
LimitCORE=0
# It needs its home, its pools and the network, and nothing else of the machine.
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

_NETWORK = "network-online.target remote-fs.target"


@dataclass(frozen=True, slots=True)
class Role:
    """What a unit runs.

    Attributes:
        unit: Its name.
        what: Before the home, in what describes it.
        words: After ``holdfast``.
        service: What stands in ``[Service]`` besides how it is started.
        machine: What only the machine's own manager may do.
        after: What is started first, where it is there at all.
    """

    unit: str
    what: str
    words: str
    service: str
    machine: str
    after: str = _NETWORK


ROLES: Final = {
    "site": Role(
        "holdfast.service",
        "backup site at",
        "serve",
        _SITE + _WORKER,
        _FOR_THE_MACHINE,
        # The control database may be there.
        f"{_NETWORK} postgresql.service",
    ),
    "agent": Role(
        "holdfast-agent.service", "agent of", "agent run", _AGENT + _WORKER, _FOR_THE_MACHINE
    ),
    "media": Role(
        "holdfast-media.service", "media server of", "media run", _MEDIA, _MEDIA_FOR_THE_MACHINE
    ),
}


def text_of(role: str, home: Path, *, user: bool, writes: Sequence[str] = ()) -> str:
    """Write a unit.

    Args:
        role: One of `ROLES`.
        home: Whose; absolute.
        user: For a user's own manager.
        writes: Where a media server may write besides its home; a ``-`` before a path says that it
            need not be there.
    """
    known = ROLES[role]
    begin = _BEGIN.format(
        mark=MARK if role == "site" else f"{MARK} --role {role}",
        what=known.what,
        home=_plain(str(home)),
        after=known.after,
        path=_quoted(str(home)),
        # Only in command lines a $ is the beginning of a variable.
        program=" ".join(_quoted(one).replace("$", "$$") for one in _program()),
        words=known.words,
        environment=_quoted(f"HOLDFAST_HOME={home}"),
    )
    own = known.machine.format(writes=" ".join(map(_quoted, (str(home), *writes))))
    service = known.service.format(machine="" if user else own)
    return begin + service + _END.format(target="default.target" if user else "multi-user.target")


def _program() -> list[str]:
    """How this very Holdfast is started."""
    script = Path(sys.argv[0])
    if script.name == "holdfast" and script.exists():
        return [str(script.absolute())]
    return [sys.executable, "-m", "holdfast"]


def _plain(text: str) -> str:
    return text.replace("%", "%%").replace("\n", " ")


def _quoted(text: str) -> str:
    """A word as systemd.syntax(7) and systemd.service(5) want it."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return '"' + escaped.replace("\n", "\\n") + '"'
