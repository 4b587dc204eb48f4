"""A bar on a terminal: how much of a verb is done, how fast, how long it will take.

Must not be imported where nothing is drawn: Rich takes longer to load than a short verb to run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
)
from rich.text import Text

from holdfast.base.units import format_duration, format_rate

if TYPE_CHECKING:
    from types import TracebackType

    from rich.console import Console
    from rich.progress import Task


class Bar:
    """One verb's bar, there while the ``with`` lasts and gone after it."""

    def __init__(self, console: Console, verb: str) -> None:
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=12),
            TaskProgressColumn(),
            TextColumn("{task.fields[words]}"),
            _Rate(),
            _TimeLeft(),
            console=console,
            transient=True,
        )
        self._task = self._progress.add_task(verb, total=None, words="")

    def show(self, done_bytes: int, total_bytes: int | None, words: str) -> None:
        """Move it; without a total it only says that work goes on."""
        self._progress.update(self._task, completed=done_bytes, total=total_bytes, words=words)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(format_rate(speed) if speed else "", style="progress.data.speed")


class _TimeLeft(ProgressColumn):
    max_refresh = 0.5

    def render(self, task: Task) -> Text:
        left = task.time_remaining if task.total else None
        return Text(f"{format_duration(left)} left" if left else "", style="progress.remaining")
