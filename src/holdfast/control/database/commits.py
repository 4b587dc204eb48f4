"""Writes of several threads that share one commit.

A commit waits for the disk; what other threads want to write meanwhile goes into the next one,
all at once. Must not know what is written. Invariants: a write is durable when its call returns;
one that is refused takes nothing of the others along; they are done in the order in which they
came.
"""

from __future__ import annotations

from threading import Condition
from typing import TYPE_CHECKING, Any, TypeVar, cast

from holdfast.base.errors import HoldfastError

if TYPE_CHECKING:
    from collections.abc import Callable

    import sqlalchemy as sa

    from holdfast.control.database.database import Database

T = TypeVar("T")


class _Write:
    """One thread's write."""

    __slots__ = ("act", "done", "error", "result")

    def __init__(self, act: Callable[[sa.Connection], Any]) -> None:
        self.act = act
        self.done = False
        self.result: Any = None
        self.error: Exception | None = None

    def run(self, connection: sa.Connection) -> None:
        self.result = self.act(connection)


class Commits:
    """The writes to one database. Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._changed = Condition()
        self._waiting: list[_Write] = []
        self._busy = False

    def write(self, act: Callable[[sa.Connection], T]) -> T:
        """Run something in a write transaction; durable on return.

        Args:
            act: Runs in this thread or in another's; once more from its beginning, if a
                transaction was given up before it was committed.

        Raises:
            HoldfastError: What it was refused with; nothing that it wrote is kept.
            Exception: What the transaction failed of; nothing of it is kept.
        """
        mine = _Write(act)
        with self._changed:
            self._waiting.append(mine)
            while self._busy and not mine.done:
                self._changed.wait()
            batch: list[_Write] = []
            if not mine.done:
                self._busy = True
                batch, self._waiting = self._waiting, []
        if batch:
            self._lead(mine, batch)
        if mine.error is not None:
            raise mine.error
        return cast("T", mine.result)

    def _lead(self, mine: _Write, batch: list[_Write]) -> None:
        """Do what several threads wait for."""
        again: list[_Write] = []
        try:
            self._run(batch)
        except Exception as error:  # noqa: BLE001 - each of them raises it
            for one in batch:
                one.error = error
        except BaseException:
            # This thread was interrupted, and the others were not.
            again = [one for one in batch if one is not mine]
            raise
        finally:
            with self._changed:
                for one in batch:
                    one.done = one not in again
                self._waiting = again + self._waiting
                self._busy = False
                self._changed.notify_all()

    def _run(self, batch: list[_Write]) -> None:
        with self._database.write() as connection:
            if len(batch) == 1:
                batch[0].run(connection)
                return
            for one in batch:
                one.error = None
                try:
                    with connection.begin_nested():
                        one.run(connection)
                except HoldfastError as error:
                    # Refused for what it is. What the database fails of concerns all of them.
                    one.error = error
