"""Draw a result as SVG: bars of seconds for each corpus, lines of what ten days store.

Must not measure, and needs no library. Invariants: the same result gives the same file; no
meaning is carried by colour alone: every bar and line has its name beside it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape

from benchmarks.report import LIMIT, WORKS, Row, number, rows_of, time

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_COLOURS = {
    "holdfast": "#1b6ca8",
    "restic": "#c98b2c",
    "rustic": "#a8503a",
    "kopia": "#6b8f3f",
    "borg": "#7d6b99",
}
_WIDTH = 720
_BAR, _GAP = 15, 12
_LEFT, _RIGHT = 190, 130
_MIB = 1 << 20


def write(result: dict[str, Any], directory: Path) -> list[Path]:
    """Draw everything that can be drawn.

    Returns:
        The files, named after the mode and the corpus.
    """
    directory.mkdir(parents=True, exist_ok=True)
    made = []
    for corpus in result["corpora"]:
        drawn = {f"{result['mode']}-{corpus['name']}.svg": bars(corpus)}
        if corpus.get("days"):
            drawn[f"{result['mode']}-{corpus['name']}-pool.svg"] = lines(corpus)
        for name, text in drawn.items():
            (directory / name).write_text(text)
            made.append(directory / name)
    return made


def bars(corpus: dict[str, Any]) -> str:
    """Seconds of every tool, a group for each work; each group has a scale of its own."""
    rows = [row for row in rows_of(corpus["rows"]) if row.work != LIMIT and row.rounds]
    parts: list[str] = []
    top = 34
    for work in dict.fromkeys(row.work for row in rows):
        group = [row for row in rows if row.work == work]
        parts += _group(work, group, top)
        top += len(group) * _BAR + _GAP
    return _picture(f"{corpus['title']}: seconds, shorter is better", parts, top)


def _group(work: str, group: Sequence[Row], top: int) -> list[str]:
    longest = max(time(row).most for row in group)
    room = _WIDTH - _LEFT - _RIGHT
    parts = [_text(8, top + _BAR - 4, WORKS[work], "font-weight='bold'")]
    for at, row in enumerate(group):
        spread = time(row)
        y = top + at * _BAR
        length = spread.median / longest * room
        low, high = (_LEFT + one / longest * room for one in (spread.least, spread.most))
        middle = y + (_BAR - 3) / 2
        parts += [
            _text(_LEFT - 6, y + _BAR - 5, row.tool, "text-anchor='end'"),
            _bar(row.tool, y, length),
            f"<path d='M{low:.1f} {middle}H{high:.1f}' stroke='#333' stroke-width='1'/>",
            _text(max(high, _LEFT + length) + 6, y + _BAR - 5, f"{number(spread.median)} s"),
        ]
    return parts


def _bar(tool: str, y: int, length: float) -> str:
    colour = _COLOURS.get(tool, "#777")
    return f"<rect x='{_LEFT}' y='{y}' width='{length:.1f}' height='{_BAR - 3}' fill='{colour}'/>"


def lines(corpus: dict[str, Any]) -> str:
    """What each pool holds after each day."""
    series = {
        name: [day["pool_bytes"] / _MIB for day in days]
        for name, days in corpus["days"].items()
        if days
    }
    height, top, left = 260, 40, 60
    most = max((max(days) for days in series.values()), default=1.0)
    width = _WIDTH - left - 160
    parts = [
        f"<path d='M{left} {top}V{top + height}H{left + width}' stroke='#333' fill='none'/>",
        _text(left - 6, top + 4, f"{most:.0f}", "text-anchor='end'"),
        _text(left - 6, top + height, "0", "text-anchor='end'"),
    ]
    taken: list[float] = []
    for name, days in sorted(series.items(), key=lambda one: -one[1][-1]):
        step = width / max(len(days) - 1, 1)
        points = [
            (left + at * step, top + height * (1 - day / most)) for at, day in enumerate(days)
        ]
        words = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        colour = _COLOURS.get(name, "#777")
        # Names keep clear of each other, from the top down.
        y = max(points[-1][1] + 4, (taken[-1] + 14) if taken else 0)
        taken.append(y)
        parts += [
            f"<polyline points='{words}' fill='none' stroke='{colour}' stroke-width='2'/>",
            _text(left + width + 8, y, f"{name} {number(days[-1])} MiB"),
        ]
    longest = max((len(days) for days in series.values()), default=1)
    parts += [
        _text(left, top + height + 16, "day 1", "text-anchor='middle'"),
        _text(left + width, top + height + 16, f"day {longest}", "text-anchor='middle'"),
    ]
    title = f"{corpus['title']}: MiB stored, lower is better"
    return _picture(title, parts, top + height + 20)


def _picture(title: str, parts: Sequence[str], height: float) -> str:
    body = "\n".join(parts)
    heading = _text(8, 18, title, "font-size='13'")
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {_WIDTH} {height + 8:.0f}' "
        "font-family='sans-serif' font-size='11' role='img'>\n"
        f"<title>{escape(title)}</title>\n"
        f"<rect width='{_WIDTH}' height='{height + 8:.0f}' fill='white'/>\n"
        f"{heading}\n{body}\n</svg>\n"
    )


def _text(x: float, y: float, words: str, more: str = "") -> str:
    return f"<text x='{x:.1f}' y='{y:.1f}' {more}>{escape(words)}</text>"
