"""Wait for a running verb of the engine, tell how far it is, stop it when told to.

Must not print: who wants to show numbers hands in a reporter. Invariant: when `drive` returns
or raises, the verb is no longer at work.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

from holdfast.base.errors import Cancelled

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast.engine import Counters

    Reporter = Callable[[Counters | None], None]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

REPORT_INTERVAL_S = 0.1
_CANCEL_POLL_S = 0.05


class Drivable(Protocol[T_co]):
    """A verb at work, as `holdfast.engine.Run` is one."""

    def counters(self) -> Counters:
        """The numbers so far."""
        ...

    def cancel(self) -> None:
        """Ask it to stop."""
        ...

    def wait(self, timeout_s: float, /) -> bool:
        """Wait; True when it has ended."""
        ...

    def result(self) -> T_co:
        """What came of it."""
        ...


def drive(
    run: Drivable[T], report: Reporter | None = None, interval_s: float = REPORT_INTERVAL_S
) -> T:
    """Wait for a verb's end and hand back its result.

    An interrupt from the keyboard, or any error of the reporter, cancels the verb and waits
    until its threads are done, so that a pool is sound and an image is there whole or not at
    all.

    Args:
        run: The verb, already at work.
        report: Is given the counters every ``interval_s`` and once at the end. (Who waits for a
            verb to begin gives it None.)
        interval_s: Seconds between two reports.

    Raises:
        Cancelled: Somebody pressed Ctrl-C.
        HoldfastError: Whatever the verb failed of.
    """
    try:
        while not run.wait(interval_s):
            if report is not None:
                report(run.counters())
        if report is not None:
            report(run.counters())
    except KeyboardInterrupt as interrupt:
        _stop(run)
        raise Cancelled(
            "interrupted; nothing half-done was left behind",
            "run the same command again to go on",
        ) from interrupt
    except BaseException:
        _stop(run)
        raise
    return run.result()


def _stop(run: Drivable[T]) -> None:
    run.cancel()
    while not run.wait(_CANCEL_POLL_S):
        pass
