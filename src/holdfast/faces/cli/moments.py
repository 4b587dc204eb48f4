"""Moments as people write them: a date, a moment in ISO 8601, or a duration from now.

Must not ask what time it is. Invariant: what names no time zone is meant in the machine's own.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from holdfast.base.errors import Invalid
from holdfast.base.units import parse_duration

_A_DATE = len("2026-01-31")


def until(text: str, now: datetime) -> datetime:
    """The moment up to which a person means, in UTC: a date to its end, a duration from now on.

    Raises:
        Invalid: It is none, or too far away.
    """
    try:
        moment = _stated(text, timedelta(days=1))
        return moment or now + timedelta(seconds=parse_duration(text))
    except (Invalid, OverflowError) as error:
        raise _unclear(text) from error


def since(text: str, now: datetime) -> datetime:
    """The moment from which a person means, in UTC: a date from its beginning, a duration back.

    Raises:
        Invalid: It is none, or too far away.
    """
    try:
        return _stated(text, timedelta()) or now - timedelta(seconds=parse_duration(text))
    except (Invalid, OverflowError) as error:
        raise _unclear(text) from error


def past_until(text: str, now: datetime) -> datetime:
    """The same where what is asked for is past: a date to its end, a duration back.

    Raises:
        Invalid: It is none, or too far away.
    """
    try:
        datetime.fromisoformat(text.strip())
    except ValueError:
        return since(text, now)
    return until(text, now)


def _stated(text: str, whole_day: timedelta) -> datetime | None:
    stripped = text.strip()
    try:
        moment = datetime.fromisoformat(stripped)
    except ValueError:
        return None
    if len(stripped) <= _A_DATE:
        moment += whole_day
    return moment.astimezone(UTC)


def _unclear(text: str) -> Invalid:
    return Invalid(
        f"'{text}' is no date, or too far away",
        "write for example 2027-01-31, 2027-01-31T18:00 or 90d",
    )
