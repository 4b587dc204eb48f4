"""Which images of virtual machines are booted after their backup, and what is waited for.

Pure. Must not read text (see `plain_verify_boot`), nor boot anything.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from holdfast.control.policies.findings import Finding, error, inside, warning
from holdfast.control.policies.reading import shown
from holdfast.control.schedule import BackupKind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from holdfast.control.policies.policy import Policy

KEY: Final = "verify_boot"
EVERY, FULL = "every", "full"
OCCASIONS: Final = (EVERY, FULL)
"""``full``: only images of full and synthetic backups."""

DEFAULT_WITHIN_S: Final = 600
WITHIN_S: Final = range(1, 86_400 + 1)
PORTS: Final = range(1, 1 << 16)

_WHOLE = frozenset({BackupKind.FULL, BackupKind.SYNTHETIC})


@dataclass(frozen=True, slots=True)
class VerifyBoot:
    """What a machine does when it is well, and after which backups that is looked at.

    Attributes:
        on: After which backups, one of `OCCASIONS`.
        within_s: How long all of it may take, from power on.
        serial: A regular expression that something on its serial console matches.
        port: A TCP port where something answers.
        agent: Its guest agent answers.
        command: What the guest agent is to run, with success; empty for nothing.
    """

    on: str = EVERY
    within_s: int = DEFAULT_WITHIN_S
    serial: str | None = None
    port: int | None = None
    agent: bool = False
    command: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether nothing is waited for."""
        return self.serial is None and self.port is None and not self.agent and not self.command

    def wants(self, kind: str | None) -> bool:
        """Whether the image of a backup of this kind is booted."""
        return self.on == EVERY or kind in _WHOLE


def check_verify_boot(policy: Policy) -> Iterator[Finding]:
    """What is wrong with it, without looking at anything."""
    wanted = policy.verify_boot
    if wanted is None:
        return
    if wanted.on not in OCCASIONS:
        message = f"'{shown(wanted.on)}' says not when machines are booted"
        yield error(inside(KEY, "on"), message, f"it may be {', '.join(OCCASIONS)}")
    elif wanted.on == FULL and not any(one.kind in _WHOLE for one in policy.schedules):
        message = "no schedule of it makes fulls, so nothing is booted by itself"
        yield warning(inside(KEY, "on"), message, f'write on = "{EVERY}", or add a schedule')
    if wanted.is_empty:
        message = "nobody said what a machine does when it is well"
        hint = 'write for example verify_boot = {serial = "login:"}, or name port, agent or command'
        yield error(KEY, message, hint)
    try:
        re.compile(wanted.serial or "")
    except re.error as wrong:
        message = f"'{shown(str(wanted.serial))}' is no regular expression: {wrong}"
        yield error(inside(KEY, "serial"), message, r"write a text, and '\' before special signs")
