"""What strangers try in vain, in an audit log that must not grow with it.

Must not write: whoever appends to the log asks here whether it may.
"""

from __future__ import annotations

import threading

ROWS_A_MINUTE = 60
"""How much of what strangers try in vain is written down singly."""

_MINUTE_NS = 60_000_000_000


class Strangers:
    """Counts what strangers try in vain, so that the log tells of all and grows slowly."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._minute = -1
        self._written = 0
        self._unwritten = 0

    def row(self, now_ns: int) -> dict[str, object] | None:
        """Details for a row that may be written now; None where it may not."""
        minute = now_ns // _MINUTE_NS
        with self._turn:
            if minute != self._minute:
                self._minute, self._written = minute, 0
            if self._written >= ROWS_A_MINUTE:
                self._unwritten += 1
                return None
            self._written += 1
            more, self._unwritten = self._unwritten, 0
        return {"more_not_written": more} if more else {}
