"""What Holdfast is to reach, and whether a run shows that it does.

Must not measure. Invariants: a goal whose rows a run does not have is left out, and never counts
as met; ratios are medians over rounds, as in the tables.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from benchmarks.report import LIMIT, OWN, Measured, Row, number, own_row, ratio, rows_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_CORPORA = {
    "small": "source tree",
    "tiny": "tiny files",
    "large": "large files",
    "images": "disk images",
}


@dataclass(frozen=True, slots=True)
class Goal:
    """One goal, as a run sees it.

    Attributes:
        work: What is done, to which corpus.
        wanted: The goal, in words.
        measured: What was reached, in words.
        met: Whether that is enough.
    """

    work: str
    wanted: str
    measured: str
    met: bool


def judge(result: dict[str, Any]) -> list[Goal]:
    """All goals that a run says something about."""
    found: list[Goal] = []
    for corpus in result["corpora"]:
        name, rows = corpus["name"], rows_of(corpus["rows"])
        found += _speed(name, rows)
        found += _limits(name, rows)
        found += _pool(name, rows, corpus.get("raw_bytes"))
        found += _memory(name, rows)
    return found


def table(goals: Sequence[Goal]) -> str:
    """The goals as text, at most 80 columns wide; empty if there are none."""
    if not goals:
        return ""
    lines = ["goals", "", f"{'':29} {'goal':26} {'measured':18} met"]
    for goal in goals:
        columns = (wrap(goal.work, 28), wrap(goal.wanted, 25), wrap(goal.measured, 17))
        for at in range(max(map(len, columns))):
            cells = [column[at] if at < len(column) else "" for column in columns]
            met = ("yes" if goal.met else "no") if at == 0 else ""
            lines.append(f"{cells[0]:29} {cells[1]:26} {cells[2]:18} {met}".rstrip())
    return "\n".join(lines) + "\n"


def markdown(goals: Sequence[Goal]) -> str:
    """The goals as a table of a page."""
    lines = ["| work | goal | measured | met |", "|---|---|---|---|"]
    for goal in goals:
        met = "yes" if goal.met else "**no**"
        lines.append(f"| {goal.work} | {goal.wanted} | {goal.measured} | {met} |")
    return "\n".join(lines) + "\n"


_ALL_PEERS = ""
_SPEED: dict[tuple[str, str], tuple[tuple[str, float], ...]] = {
    # corpus, work: peers and how many times as long they are to take
    ("large", "first"): (("restic", 2), ("rustic", 1.5), ("kopia", 1.5), ("borg", 4)),
    ("small", "first"): ((_ALL_PEERS, 2),),
    ("tiny", "first"): ((_ALL_PEERS, 2),),
    ("small", "again"): ((_ALL_PEERS, 3),),
    ("tiny", "again"): ((_ALL_PEERS, 3),),
    ("large", "again"): ((_ALL_PEERS, 3),),
    ("large", "changed"): ((_ALL_PEERS, 2),),
    ("small", "restore"): ((_ALL_PEERS, 2),),
    ("tiny", "restore"): ((_ALL_PEERS, 2),),
    ("large", "restore"): ((_ALL_PEERS, 2),),
    ("small", "one"): ((_ALL_PEERS, 2),),
    ("small", "find"): (("restic", 10),),
    ("images", "collect"): ((_ALL_PEERS, 3),),
}
_WORDS = {
    "first": "first backup",
    "again": "again, nothing changed",
    "changed": "again, 1 % changed",
    "restore": "restore of everything",
    "one": "restore of one file",
    "find": "search of ten backups for a name",
    "collect": "garbage collection, half the backups gone",
}


def _speed(name: str, rows: Sequence[Row]) -> Iterator[Goal]:
    for (corpus, work), wanted in _SPEED.items():
        own = own_row(rows, work)
        if corpus != name or own is None:
            continue
        for peer, times in wanted:
            reached = {
                row.tool: spread.median
                for row in rows
                if row.work == work and row.tool != OWN and peer in (_ALL_PEERS, row.tool)
                if (spread := ratio(row, own, lambda one: one.wall_s))
            }
            if not reached:
                continue
            least = min(reached, key=reached.__getitem__)
            yield Goal(
                f"{_WORDS[work]}, {_CORPORA[name]}",
                f"at least {times:g}x {peer or 'the fastest peer'}",
                f"{number(reached[least])}x" + ("" if peer else f" ({least})"),
                reached[least] >= times,
            )


def _limits(name: str, rows: Sequence[Row]) -> Iterator[Goal]:
    for corpus, work, limit, most in (
        # 80 % of a speed is 1.25 times the time.
        ("large", "first", "zstd -1 -T0", 1.25),
        ("small", "again", "lstat walk", 1.5),
        ("tiny", "again", "lstat walk", 1.5),
    ):
        own = own_row(rows, work)
        floor = [row for row in rows if row.work == LIMIT and row.tool == limit and row.rounds]
        spread = ratio(own, floor[0], lambda one: one.wall_s) if own and floor else None
        if corpus != name or spread is None:
            continue
        words = (
            (f"at least 80 % of the speed of {limit}", f"{100 / spread.median:.0f} %")
            if work == "first"
            else (f"at most {most:g}x a parallel {limit}", f"{number(spread.median)}x")
        )
        yield Goal(f"{_WORDS[work]}, {_CORPORA[name]}", *words, spread.median <= most)


def _pool(name: str, rows: Sequence[Row], raw: int | None) -> Iterator[Goal]:
    work = "days" if name == "images" else "first"
    sizes = {row.tool: _median(row, _pool_bytes) for row in rows if row.work == work and row.rounds}
    own = sizes.pop(OWN, 0.0)
    if own and sizes:
        least = min(sizes, key=sizes.__getitem__)
        times = sizes[least] / own
        least_times, wanted = (
            (1.3, "at least 1.3x smaller than the smallest peer")
            if name == "images"
            else (1.0, "not above the smallest peer")
        )
        measured = f"{number(times)}x smaller" if times >= 1 else f"{number(1 / times)}x larger"
        yield Goal(
            f"pool size, {_CORPORA[name]}", wanted, f"{measured} ({least})", times >= least_times
        )
    if own and raw:
        yield Goal(
            f"pool size, {_CORPORA[name]}",
            "25:1 against raw bytes",
            f"{number(raw / own)}:1",
            raw / own >= 25,
        )


def _memory(name: str, rows: Sequence[Row]) -> Iterator[Goal]:
    """Below restic's in every row: one goal a corpus, with the row where it is worst."""
    worst: tuple[float, str] | None = None
    above = total = 0
    for row in rows:
        own = own_row(rows, row.work)
        if row.tool != "restic" or not row.rounds or own is None:
            continue
        times = _median(own, _peak_bytes) / max(_median(row, _peak_bytes), 1)
        total += 1
        above += times >= 1
        if worst is None or times > worst[0]:
            worst = (times, row.work)
    if worst is not None:
        yield Goal(
            f"peak memory, {_CORPORA[name]}",
            "below restic's in every row",
            f"above in {above} of {total}; at most {number(worst[0])}x ({worst[1]})",
            above == 0,
        )


def _median(row: Row, value: Callable[[Measured], float]) -> float:
    return median(value(one) for one in row.rounds.values())


def _pool_bytes(one: Measured) -> float:
    return one.pool_bytes


def _peak_bytes(one: Measured) -> float:
    return one.peak_bytes
