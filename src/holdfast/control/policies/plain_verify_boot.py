"""What a policy says of booting images, as plain data; see `plain`."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from holdfast.control.policies.texts import read_span, write_span
from holdfast.control.policies.verify_boot import (
    DEFAULT_WITHIN_S,
    EVERY,
    PORTS,
    WITHIN_S,
    VerifyBoot,
)

if TYPE_CHECKING:
    from holdfast.control.policies.reading import Table

_COMMAND_EXAMPLE = '["/bin/systemctl", "is-system-running"]; no shell is used'


def write_verify_boot(wanted: VerifyBoot | None, *, whole: bool) -> dict[str, Any] | None:
    """Write it; None for a policy that boots nothing."""
    if wanted is None:
        return None
    found: dict[str, Any] = {}
    if whole or wanted.on != EVERY:
        found["on"] = wanted.on
    if whole or wanted.within_s != DEFAULT_WITHIN_S:
        found["within"] = write_span(timedelta(seconds=wanted.within_s))
    if wanted.serial is not None:
        found["serial"] = wanted.serial
    if wanted.port is not None:
        found["port"] = wanted.port
    if whole or wanted.agent:
        found["agent"] = wanted.agent
    if whole or wanted.command:
        found["command"] = list(wanted.command)
    return found


def read_verify_boot(read: Table | None) -> VerifyBoot | None:
    """Read it."""
    if read is None:
        return None
    found = VerifyBoot(
        on=read.text("on", EVERY),
        within_s=_read_within(read),
        serial=read.text("serial"),
        port=read.number("port", PORTS),
        agent=read.flag("agent", default=False),
        command=_read_command(read),
    )
    read.end()
    return found


def _read_within(read: Table) -> int:
    span = read.parsed("within", read_span)
    if span is None:
        return DEFAULT_WITHIN_S
    within_s = int(span.total_seconds())
    if within_s not in WITHIN_S:
        read.fault("within", f"{write_span(span)} is not from 1s to 1d")
        return DEFAULT_WITHIN_S
    return within_s


def _read_command(read: Table) -> tuple[str, ...]:
    words = read.texts("command", _COMMAND_EXAMPLE)
    if words and not words[0]:
        read.fault("command[0]", "an empty text names no program")
    return words
