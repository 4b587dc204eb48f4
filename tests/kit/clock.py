"""A clock that stands still until a test moves it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from holdfast.base.clock import ClockMark, to_ns


class FakeClock:
    """A `holdfast.base.clock.Clock` under the control of a test."""

    def __init__(self, start: datetime = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)) -> None:
        self._start = self._now = start
        self._set_by = timedelta()
        self.boot = "a boot"

    def now(self) -> datetime:
        return self._now

    def now_ns(self) -> int:
        return to_ns(self._now)

    def mark(self) -> ClockMark:
        passed = self._now - self._start - self._set_by
        return ClockMark(self.now_ns(), passed // timedelta(microseconds=1) * 1000, self.boot)

    def move(self, by: timedelta) -> None:
        """Let time pass."""
        self._now += by

    def restart(self, boot: str) -> None:
        """Start the machine anew: the clock that nobody can set begins at nothing."""
        if boot != self.boot:
            self.boot, self._start, self._set_by = boot, self._now, timedelta()

    def set_by(self, by: timedelta) -> None:
        """Set the clock on the wall forward, or back, without time passing."""
        self._now += by
        self._set_by += by
