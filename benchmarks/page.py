"""The whole report of a run as text: the machine, the tools, tables, limits, goals.

Must not measure. Invariant: no line is longer than 80 columns; a result of an older format is
shown as far as it goes.
"""

from __future__ import annotations

from statistics import median
from textwrap import fill
from typing import TYPE_CHECKING, Any

from benchmarks import goals, limits
from benchmarks.report import (
    LIMIT,
    WORKS,
    Row,
    number,
    own_row,
    ratio,
    rows_of,
    table,
    time,
    written,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_AGAINST = {
    limits.ZSTD: ("first", "equal"),
    limits.DD: ("first", "restore"),
    limits.COPY: ("first", "restore"),
    limits.WALK: ("again",),
}
"""Which works each limit is held against."""


def page(result: dict[str, Any]) -> str:
    """The report."""
    text = "".join(fill(one, 80, subsequent_indent="  ") + "\n" for one in _head(result))
    for corpus in result["corpora"]:
        rows = rows_of(corpus["rows"])
        title = corpus["title"]
        if corpus.get("generations"):
            title += f", {corpus['generations']} days"
        text += "\n" + table(title, rows)
        for lines in (_limits(rows), _raw(corpus, rows), _load(corpus)):
            text += "".join(f"{line}\n" for line in lines)
    table_of_goals = goals.table(goals.judge(result))
    if table_of_goals:
        text += "\n" + table_of_goals
    for one in result["failures"]:
        words = one if isinstance(one, str) else one["words"]
        text += "\n" + fill(f"FAILED: {words}", 80, subsequent_indent="  ") + "\n"
    return text


def _head(result: dict[str, Any]) -> Iterator[str]:
    machine = result["machine"]
    yield (
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB, "
        f"{machine['system']}, {machine['file_system']}"
    )
    for one in result["tools"]:
        yield f"{one['name']} {one['version']} ({one['settings']}; {one['source']})"
    settings = [f"{one['name']} {one.get('equal_settings')}" for one in result["tools"]]
    if any(row["work"] == "equal" for corpus in result["corpora"] for row in corpus["rows"]):
        yield f"equal sizes: {', '.join(settings)}"
    for one in result["tools"]:
        if one.get("forgets"):
            yield f"{one['name']} does not bring back: {', '.join(one['forgets'])}"
    for name, why in result["missing"].items():
        yield f"{name} is missing: {why}"
    yield from result.get("notes", [])
    rounds = result.get("rounds")
    often = f"{rounds} rounds" if rounds else "the rounds"
    load = result.get("load")
    waiting = (
        f"; processes wanting to run, before and after: {load[0]:.1f}, {load[1]:.1f}"
        if load
        else ""
    )
    yield f"medians of {often} (least-most){waiting}"


def _limits(rows: Sequence[Row]) -> Iterator[str]:
    """Each limit, and how many times as long Holdfast takes."""
    found = [row for row in rows if row.work == LIMIT and row.rounds]
    if found:
        yield ""
        yield "limits: seconds, and how many times as long holdfast's work takes"
    for row in found:
        parts = []
        for work in _AGAINST.get(row.tool, ()):
            own = own_row(rows, work)
            times = ratio(own, row, lambda one: one.wall_s) if own else None
            if times:
                parts.append(f"{WORKS[work]} {number(times.median)}x")
        yield f"  {row.tool:13} {written(time(row)):>20}  {', '.join(parts)}".rstrip()


def _raw(corpus: dict[str, Any], rows: Sequence[Row]) -> Iterator[str]:
    """How many bytes of the images one stored byte stands for."""
    raw = corpus.get("raw_bytes")
    found = [row for row in rows if row.work == "days" and row.rounds]
    if raw and found:
        parts = []
        for row in found:
            pool = min(one.pool_bytes for one in row.rounds.values())
            parts.append(f"{row.tool} {number(raw / max(pool, 1))}")
        yield ""
        yield fill(f"raw bytes to one stored: {', '.join(parts)}", 80, subsequent_indent="  ")
    given = [part for row in found if (part := _given_back(row, rows))]
    if given:
        # A collection that gives little back is quick, so its time alone says nothing.
        yield fill(f"given back by collecting, MiB: {', '.join(given)}", 80, subsequent_indent="  ")


def _given_back(before: Row, rows: Sequence[Row]) -> str:
    for row in rows:
        shared = row.rounds.keys() & before.rounds.keys()
        if row.work == "collect" and row.tool == before.tool and shared:
            freed = (before.rounds[at].pool_bytes - row.rounds[at].pool_bytes for at in shared)
            return f"{row.tool} {number(median(freed) / (1 << 20))}"
    return ""


def _load(corpus: dict[str, Any]) -> Iterator[str]:
    load = corpus.get("load")
    if load:
        yield ""
        yield (
            f"{corpus['rounds']} rounds; processes wanting to run, before and after: "
            f"{load[0]:.1f}, {load[1]:.1f}"
        )
