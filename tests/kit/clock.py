"""A clock that stands still until a test moves it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from holdfast.base.clock import to_ns


class FakeClock:
    """A `holdfast.base.clock.Clock` under the control of a test."""

    def __init__(self, start: datetime = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)) -> None:
        self._now = start

    def now(self) -> datetime:
        return self._now

    def now_ns(self) -> int:
        return to_ns(self._now)

    def move(self, by: timedelta) -> None:
        self._now += by
