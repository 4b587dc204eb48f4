"""Logins that fail make the next ones wait: by user and address, by address, by user.

Must not open transactions, nor compare passwords. Invariants: an attempt counts as failed from
before it is made, so attempts side by side do not get around the count; nobody is shut out for
longer than `Rule.longest`.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import sqlalchemy as sa

from holdfast.base.errors import TooManyAttempts
from holdfast.base.units import format_duration
from holdfast.control.access.schema import login_failures
from holdfast.control.database.upsert import insert

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True)
class Rule:
    """How failures against one subject make the next attempt wait.

    Attributes:
        free: How many may fail before the next waits.
        longest: Waiting doubles with each failure up to this.
    """

    free: int
    longest: timedelta


BOTH = Rule(5, timedelta(minutes=15))
ADDRESS = Rule(30, timedelta(minutes=15))
# An attacker with many addresses can make a user wait: not for long.
USER = Rule(50, timedelta(seconds=30))

FORGOTTEN = timedelta(hours=1)
"""Failures count no more when there was none for this long."""

_SECOND_NS = 1_000_000_000


def _subjects(user: str, address: str) -> Iterator[tuple[str, Rule]]:
    network = _network(address)
    yield f"user {user} from {network}", BOTH
    yield f"from {network}", ADDRESS
    yield f"user {user}", USER


def count(connection: sa.Connection, user: str, address: str, now_ns: int) -> None:
    """Let an attempt to log in begin, and count it as one that failed.

    Raises:
        TooManyAttempts: It has to wait; `wait_s` says how long. It is not counted.
    """
    forgotten_ns = now_ns - _ns(FORGOTTEN)
    connection.execute(sa.delete(login_failures).where(login_failures.c.last_ns < forgotten_ns))
    for subject, rule in _subjects(user, address):
        wait_ns = _wait_ns(connection, subject, rule, now_ns)
        if wait_ns > 0:
            wait_s = wait_ns / _SECOND_NS
            error = TooManyAttempts(
                f"too many logins failed: the next may be tried in {format_duration(wait_s)}"
            )
            error.wait_s = wait_s
            raise error
    for subject, _ in _subjects(user, address):
        connection.execute(
            insert(connection, login_failures)
            .values(subject=subject, failures=1, last_ns=now_ns)
            .on_conflict_do_update(
                index_elements=[login_failures.c.subject],
                set_={"failures": login_failures.c.failures + 1, "last_ns": now_ns},
            )
        )


def succeeded(connection: sa.Connection, user: str, address: str) -> None:
    """Take an attempt back that `count` let begin, since it did not fail."""
    (both, _), *others = _subjects(user, address)
    connection.execute(sa.delete(login_failures).where(login_failures.c.subject == both))
    for subject, _ in others:
        connection.execute(
            sa.update(login_failures)
            .where(login_failures.c.subject == subject, login_failures.c.failures > 0)
            .values(failures=login_failures.c.failures - 1)
        )


def _wait_ns(connection: sa.Connection, subject: str, rule: Rule, now_ns: int) -> int:
    row = connection.execute(
        sa.select(login_failures).where(login_failures.c.subject == subject)
    ).first()
    if row is None or row.failures < rule.free:
        return 0
    doublings = min(row.failures - rule.free, 30)
    delay_ns = min(_SECOND_NS << doublings, _ns(rule.longest))
    # A clock that was put back makes nobody wait for longer.
    return int(min(row.last_ns + delay_ns - now_ns, delay_ns))


def _network(address: str) -> str:
    """What one attacker is likely to have of addresses: with IPv6, a /64."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address[:100]
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)


def _ns(duration: timedelta) -> int:
    return duration // timedelta(microseconds=1) * 1000
