"""One measured thing, and whether it is what it is to be.

Must not measure anything but calls that it is given.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

LIST_GOAL_MS = 100.0


@dataclass(frozen=True, slots=True)
class Figure:
    """One row.

    Attributes:
        part: Of which part of the master, and on which database.
        name: What was done.
        value: What counts: of times the 95th percentile unless the name says otherwise.
        unit: Of the value, and of the median.
        median: Of times: the median.
        at_most: The goal; None if there is none, or another one.
        at_least: The same.
    """

    part: str
    name: str
    value: float
    unit: str
    median: float | None = None
    at_most: float | None = None
    at_least: float | None = None

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None without one."""
        if self.at_most is not None:
            return self.value <= self.at_most
        if self.at_least is not None:
            return self.value >= self.at_least
        return None

    def to_json(self) -> dict[str, Any]:
        """Fit for JSON."""
        found = {
            "part": self.part,
            "name": self.name,
            "value": round(self.value, 2),
            "unit": self.unit,
            "median": None if self.median is None else round(self.median, 2),
            "at_most": self.at_most,
            "at_least": self.at_least,
            "met": self.met,
        }
        return {key: value for key, value in found.items() if value is not None}


def times_ms(ask: Callable[[], object], rounds: int) -> list[float]:
    """How long each of some calls takes, in ms, after one that does not count."""
    ask()
    times = []
    for _ in range(rounds):
        begun_s = time.perf_counter()
        ask()
        times.append((time.perf_counter() - begun_s) * 1000)
    return times


def p95(times: list[float]) -> float:
    """The time that 95 of 100 calls stay under."""
    return statistics.quantiles(times, n=20)[-1] if len(times) > 1 else times[0]


def list_figures(
    part: str, questions: dict[str, Callable[[], object]], rounds: int
) -> list[Figure]:
    """Questions that a person waits for."""
    found = []
    for name, ask in questions.items():
        times = times_ms(ask, rounds)
        found.append(
            Figure(part, name, p95(times), "ms", statistics.median(times), at_most=LIST_GOAL_MS)
        )
    return found


def table(figures: list[Figure]) -> str:
    """Figures as text, at most 80 columns wide."""
    lines = []
    part = None
    for one in figures:
        if one.part != part:
            part = one.part
            lines += ["", part, f"{'':45} {'median':>9} {'value':>9} {'goal':>8} met"]
        goal = (
            ""
            if one.met is None
            else f"{one.at_least if one.at_most is None else one.at_most:,.0f}"
        )
        way = "" if one.met is None else ("<=" if one.at_most is not None else ">=")
        middle = "" if one.median is None else f"{one.median:,.2f}"
        met = {None: "", True: "yes", False: "no"}[one.met]
        name = f"{one.name}, {one.unit}"
        lines.append(f"{name:45.45} {middle:>9} {one.value:>9,.2f} {way + goal:>8} {met}".rstrip())
    return "\n".join(lines) + "\n"
