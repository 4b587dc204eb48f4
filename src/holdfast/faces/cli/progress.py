"""Show how far a running verb is: a bar on a terminal, a plain line now and then off it.

Must not slow the work down: it only reads counters. Everything here goes to stderr.
"""

from __future__ import annotations

import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from holdfast.base.units import format_count, format_duration, format_rate, format_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from holdfast.engine import Counters
    from holdfast.faces.cli.bar import Bar
    from holdfast.faces.cli.screen import Screen
    from holdfast.movers.drive import Reporter

BAR_AFTER_S = 0.1
"""What ends sooner needs no bar."""

PLAIN_INTERVAL_S = 10.0


class Meter:
    """Turns counters into how much is done, out of how much.

    Attributes:
        last: The counters of the newest report, None before the first.
    """

    def __init__(self, verb: str) -> None:
        self.verb = verb
        self.last: Counters | None = None

    def done_bytes(self, counters: Counters) -> int:
        """How many of the bytes to go through are behind us."""
        if self.verb == "backup":
            # Files that did not change are behind us without being read.
            return counters.bytes_read + max(counters.bytes_found - counters.bytes_online, 0)
        if self.verb == "restore":
            return next((one.bytes for one in counters.stages if one.name == "write"), 0)
        return counters.bytes_read

    def words(self, counters: Counters) -> str:
        """What was gone through so far."""
        files = f"{format_count(counters.files)} files, " if counters.files else ""
        return f"{files}{format_size(self.done_bytes(counters))}"


@contextmanager
def reporting(screen: Screen, verb: str, quiet: bool = False) -> Iterator[tuple[Meter, Reporter]]:
    """Show progress of one verb while the block runs.

    Args:
        screen: Where to.
        verb: ``backup``, ``restore``, ``verify``, …; also the word that is shown.
        quiet: Show nothing, only keep the counters.

    Yields:
        The meter, which keeps the last counters, and the reporter to hand to a mover.
    """
    meter = Meter(verb)
    if quiet:
        yield meter, _remember(meter)
    elif screen.talk_is_terminal:
        with ExitStack() as drawn:
            yield meter, _onto_bar(meter, screen, drawn)
    else:
        yield meter, _onto_lines(meter, screen)


@contextmanager
def counting(screen: Screen, what: str) -> Iterator[Callable[[int], None]]:
    """Show a number that grows, on a terminal only."""
    if not screen.talk_is_terminal:
        yield lambda _count: None
        return
    with screen.console.status(what) as status:
        yield lambda count: status.update(f"{what} {format_count(count)}")


def _remember(meter: Meter) -> Reporter:
    def report(counters: Counters | None) -> None:
        meter.last = counters

    return report


def _onto_bar(meter: Meter, screen: Screen, drawn: ExitStack) -> Reporter:
    started = time.monotonic()
    bar: Bar | None = None

    def report(counters: Counters | None) -> None:
        nonlocal bar
        meter.last = counters
        if counters is None:
            return
        if bar is None:
            if time.monotonic() - started < BAR_AFTER_S:
                return
            from holdfast.faces.cli.bar import Bar

            bar = drawn.enter_context(Bar(screen.console, meter.verb))
        done = meter.done_bytes(counters)
        total = max(counters.bytes_total, done) if counters.bytes_total else None
        bar.show(done, total, meter.words(counters))

    return report


def _onto_lines(meter: Meter, screen: Screen) -> Reporter:
    started = last = time.monotonic()

    def report(counters: Counters | None) -> None:
        nonlocal last
        meter.last = counters
        now = time.monotonic()
        if counters is None or now - last < PLAIN_INTERVAL_S:
            return
        last = now
        done, elapsed = meter.done_bytes(counters), now - started
        line = f"{meter.verb}: {meter.words(counters)}, {format_rate(done / elapsed)}"
        if counters.bytes_total > done > 0:
            left = (counters.bytes_total - done) * elapsed / done
            line += f", {done * 100 // counters.bytes_total} %, {format_duration(left)} left"
        screen.say(line)

    return report
