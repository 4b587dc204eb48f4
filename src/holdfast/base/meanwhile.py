"""A result that a thread works out while its caller does something else.

Must not hide an error: whoever asks for the result gets what the work failed of. Invariant: a
process does not end before the work has.
"""

from __future__ import annotations

from threading import Thread
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class Meanwhile(Generic[T]):
    """One piece of work, begun at once."""

    def __init__(self, work: Callable[[], T]) -> None:
        """Begin.

        Args:
            work: Runs once, in a thread of its own.
        """
        self._work = work
        self._done: list[T] = []
        self._error: BaseException | None = None
        # No daemon: a thread that is cut off inside of the engine would take the process with it.
        self._thread = Thread(target=self._run)
        self._thread.start()

    def result(self) -> T:
        """Wait for the work and hand back what came of it; as often as one likes.

        Raises:
            BaseException: What the work raised.
        """
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._done[0]

    def _run(self) -> None:
        try:
            self._done.append(self._work())
        except BaseException as error:  # noqa: BLE001 - it is raised where the result is asked for
            self._error = error
