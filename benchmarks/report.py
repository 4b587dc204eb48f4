"""Medians, ratios and tables of what was measured.

Must not measure or print. Invariants: a ratio is taken within one round, where the tools ran
next to each other, and only then its median over the rounds; a table is at most 80 columns wide.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from statistics import median
from textwrap import wrap
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

FORMAT = 2
LIMIT = "limit"
"""The work of rows whose tool is no backup program: see limits."""
WORKS = {
    "first": "first backup",
    "again": "nothing new",
    "changed": "1 % changed",
    "restore": "restore",
    "one": "one file",
    "catalog": "catalog",
    "find": "find in ten",
    "equal": "equal sizes",
    "days": "all days",
    "expire": "expire half",
    "collect": "collect",
    "cold-first": "cold first",
    "cold-again": "cold again",
    "cold-restore": "cold restore",
    "cold-one": "cold one",
    LIMIT: "limits",
}
COLD = tuple(work for work in WORKS if work.startswith("cold-"))
STORING = ("first", "again", "changed", "equal", "days", "collect", "cold-first", "cold-again")
"""Works after which it matters what is stored."""
OWN = "holdfast"

_MIB = 1 << 20
_WIDTHS = (13, 9, 19, 18, 7, 7, 7)
_HEADS = ("", "", "seconds", "times ours", "CPU s", "peak", "pool")


@dataclass(frozen=True, slots=True)
class Measured:
    """One tool doing one work once.

    Attributes:
        wall_s: From start to end.
        cpu_s: Processor seconds.
        system_s: What of it the kernel took.
        peak_bytes: Largest resident size.
        engine_s: What the tool gives as the time of the work itself.
        pool_bytes: What its pool holds afterwards.
        state_bytes: What it keeps beside the pool: caches, keys, catalogs.
    """

    wall_s: float
    cpu_s: float
    system_s: float
    peak_bytes: int
    engine_s: float | None = None
    pool_bytes: int = 0
    state_bytes: int = 0


@dataclass(slots=True)
class Row:
    """One tool doing one work, in every round.

    Attributes:
        work: A key of `WORKS`.
        tool: Its name.
        rounds: By number of the round; a round in which the tool failed is not there.
    """

    work: str
    tool: str
    rounds: dict[int, Measured] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Spread:
    """A median, with the least and the most."""

    median: float
    least: float
    most: float

    @classmethod
    def over(cls, values: Iterable[float]) -> Spread:
        """Over at least one value."""
        known = list(values)
        return cls(median(known), min(known), max(known))


def time(row: Row) -> Spread:
    """Wall seconds of a row."""
    return Spread.over(one.wall_s for one in row.rounds.values())


def ratio(row: Row, own: Row, value: Callable[[Measured], float]) -> Spread | None:
    """How many times as much as Holdfast took, round by round; None if they share no round."""
    shared = sorted(row.rounds.keys() & own.rounds.keys())
    if not shared:
        return None
    return Spread.over(value(row.rounds[at]) / max(value(own.rounds[at]), 1e-9) for at in shared)


def own_row(rows: Sequence[Row], work: str) -> Row | None:
    """Holdfast's row of a work."""
    found = [row for row in rows if row.work == work and row.tool == OWN and row.rounds]
    return found[0] if found else None


def table(title: str, rows: Sequence[Row]) -> str:
    """One corpus' table."""
    lines = [f"{title}; peak memory and pool in MiB", "", _line(_HEADS)]
    before = ""
    for row in rows:
        if not row.rounds or row.work == LIMIT:
            continue
        if before and row.work != before:
            lines.append("")
        name = WORKS[row.work] if row.work != before else ""
        before = row.work
        lines.append(_line((name, row.tool, *_cells(row, own_row(rows, row.work)))))
    lines += _engine_lines(rows)
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _cells(row: Row, own: Row | None) -> tuple[str, ...]:
    spread = time(row)
    against = ratio(row, own, lambda one: one.wall_s) if own and row.tool != OWN else None
    measured = row.rounds.values()
    pool = number(median(m.pool_bytes for m in measured) / _MIB) if row.work in STORING else ""
    return (
        written(spread),
        written(against, "x") if against else "",
        number(median(m.cpu_s for m in measured)),
        number(median(m.peak_bytes for m in measured) / _MIB),
        pool,
    )


def _engine_lines(rows: Sequence[Row]) -> list[str]:
    """What of Holdfast's own time was the engine's."""
    parts = []
    for row in rows:
        engine = [one.engine_s for one in row.rounds.values() if one.engine_s is not None]
        if row.tool == OWN and engine:
            parts.append(f"{WORKS[row.work]} {number(median(engine))}")
    if not parts:
        return []
    words = f"seconds inside holdfast's engine: {', '.join(parts)}"
    return ["", *wrap(words, 80, subsequent_indent="  ")]


def number(value: float) -> str:
    """Three digits that mean something: 0.05, 1.23, 45.6, 789."""
    if value < 9.995:
        return f"{value:.2f}"
    return f"{value:.1f}" if value < 99.95 else f"{value:.0f}"


def written(spread: Spread, unit: str = "") -> str:
    """``1.50 (1.20-1.90)``."""
    return f"{number(spread.median)}{unit} ({number(spread.least)}-{number(spread.most)})"


def _line(cells: Sequence[str]) -> str:
    left = "".join(cell.ljust(width) for cell, width in zip(cells[:2], _WIDTHS, strict=False))
    right = zip(cells[2:], _WIDTHS[2:], strict=True)
    return left + "".join(cell.rjust(width) for cell, width in right)


def summary(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Rows as JSON: every sample, medians, and ratios."""
    found = []
    for row in rows:
        if not row.rounds:
            continue
        own = own_row(rows, row.work)
        known: dict[str, Any] = {
            "work": row.work,
            "tool": row.tool,
            "wall_s": asdict(time(row)),
            "cpu_s": asdict(Spread.over(one.cpu_s for one in row.rounds.values())),
            "peak_bytes": asdict(Spread.over(one.peak_bytes for one in row.rounds.values())),
            "rounds": {str(at): asdict(one) for at, one in sorted(row.rounds.items())},
        }
        if own is not None and row.tool != OWN:
            for name in ("wall_s", "cpu_s", "system_s", "peak_bytes", "pool_bytes"):
                spread = ratio(row, own, _value(name))
                known[f"{name}_ratio"] = asdict(spread) if spread else None
        found.append(known)
    return found


def _value(name: str) -> Callable[[Measured], float]:
    return lambda one: float(getattr(one, name))


def rows_of(known: Iterable[dict[str, Any]]) -> list[Row]:
    """Read back what `summary` made."""
    return [
        Row(
            one["work"],
            one["tool"],
            {int(at): Measured(**values) for at, values in one["rounds"].items()},
        )
        for one in known
    ]
