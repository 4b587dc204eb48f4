"""What reaches the screen: data on stdout, talk on stderr.

Must not decide anything. Invariants: stdout carries what was asked for and nothing else, so it
can be piped; off a terminal nothing is cut to a width; no meaning is carried by colour alone.
Rich is loaded for a table, a bar or a colour on a terminal, and for nothing else.
"""

from __future__ import annotations

import json
import os
import sys
from functools import cached_property
from typing import TYPE_CHECKING, Literal, TextIO

from holdfast.faces.cli.journal import (
    ERROR,
    INFO,
    WARNING,
    talks_to_journal,
    with_priority,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.console import Console

    from holdfast.base.errors import HoldfastError

Column = tuple[str, Literal["left", "right"]]

_FINDINGS_SHOWN = 20
_NARROWEST = 8


class Screen:
    """Where one command writes to.

    Attributes:
        as_json: The command was given ``--json``.
        data_is_terminal: Whether a person sees the data as it is written.
        talk_is_terminal: Whether a person sees the talk as it is written.
    """

    def __init__(self, *, as_json: bool = False) -> None:
        self.as_json = as_json
        self.data_is_terminal = _is_terminal(sys.stdout)
        self.talk_is_terminal = _is_terminal(sys.stderr)

    @cached_property
    def console(self) -> Console:
        """Rich's console on stderr."""
        from rich.console import Console

        return Console(stderr=True, highlight=False, soft_wrap=True)

    def say(self, text: str) -> None:
        """Tell a person something, on stderr."""
        _talk(text)

    def warn(self, text: str) -> None:
        """Tell a person about something that is not as it should be, on stderr."""
        if not self.talk_is_terminal:
            _talk(f"warning: {text}", WARNING)
            return
        from rich.text import Text

        self.console.print(Text(f"warning: {text}", style="yellow"))

    def line(self, text: str) -> None:
        """Write one line of data; names that are not UTF-8 come out as the bytes they are."""
        try:
            sys.stdout.buffer.write(text.encode("utf-8", "surrogateescape") + b"\n")
        except BrokenPipeError as error:
            raise ReaderGone from error

    def flush(self) -> None:
        """Let whoever reads our output see what was written so far."""
        try:
            sys.stdout.buffer.flush()
        except BrokenPipeError as error:
            raise ReaderGone from error

    def json(self, value: object) -> None:
        """Write one JSON document, on one line, pure ASCII."""
        self.line(json.dumps(value, ensure_ascii=True, separators=(", ", ": ")))

    def table(
        self,
        columns: Sequence[Column],
        rows: Iterable[Sequence[str]],
        *,
        gives_way: int | Sequence[int] = 1,
    ) -> None:
        """Write a table: whole off a terminal; on one, columns give way to its width.

        Args:
            columns: Titles and sides.
            rows: A cell for each column.
            gives_way: Which columns, counted from 0: the next only when the one before is narrow.
        """
        from rich.cells import cell_len

        lines = [[title for title, _ in columns], *rows]
        fitted = self.data_is_terminal
        if fitted:
            lines = [[printable(cell) for cell in line] for line in lines]
        widths = [max(cell_len(line[at]) for line in lines) for at in range(len(columns))]
        if fitted:
            from rich.console import Console

            too_wide = sum(widths) + 2 * len(widths) - 2 - Console().width
            for at in [gives_way] if isinstance(gives_way, int) else gives_way:
                cut = min(max(too_wide, 0), max(widths[at] - _NARROWEST, 0))
                widths[at] -= cut
                too_wide -= cut
        for line in lines:
            cells = [
                _cell(text, width, side)
                for text, width, (_, side) in zip(line, widths, columns, strict=True)
            ]
            self.line("  ".join(cells).rstrip())

    def facts(self, pairs: Sequence[tuple[str, str]]) -> None:
        """Write names and values, one a line."""
        width = max((len(name) for name, _ in pairs), default=0)
        for name, value in pairs:
            self.line(f"{name:<{width}}  {value}")


class ReaderGone(Exception):  # noqa: N818 - no error: whoever reads the output has seen enough
    """Nobody reads our data any more."""


def _is_terminal(stream: TextIO | None) -> bool:
    """Tell whether a person sees a stream, by the rules that Rich has."""
    compatible = os.environ.get("TTY_COMPATIBLE")
    if compatible in {"0", "1"}:
        return compatible == "1"
    forced = os.environ.get("FORCE_COLOR")
    if forced is not None:
        return forced != ""
    return stream is not None and stream.isatty()


def _talk(text: str, priority: int = INFO) -> None:
    # There is no stderr where whoever started us closed it.
    if sys.stderr is not None:
        told = with_priority(text, priority) if talks_to_journal() else text
        sys.stderr.write(f"{told}\n")


def _cell(text: str, width: int, side: Literal["left", "right"]) -> str:
    from rich.cells import cell_len, set_cell_size

    if cell_len(text) > width:
        text = set_cell_size(text, width - 1).rstrip() + "…"
    padding = " " * (width - cell_len(text))
    return padding + text if side == "right" else text + padding


def printable(text: str) -> str:
    """Make a name safe for a terminal: control characters and bad bytes are escaped."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    )


def path_text(path: bytes) -> str:
    """Turn a path into text that turns back into the same bytes."""
    return path.decode("utf-8", "surrogateescape")


def path_json(path: bytes, key: str = "path") -> dict[str, str]:
    """Write a path for JSON; one that is not UTF-8 also comes as base64 of its bytes."""
    try:
        return {key: path.decode("utf-8")}
    except UnicodeDecodeError:
        from base64 import b64encode

        encoded = b64encode(path).decode("ascii")
        return {key: path.decode("utf-8", "surrogateescape"), f"{key}_base64": encoded}


def tell_findings(
    screen: Screen, findings: Iterable[tuple[bytes, str, str]], total: int, what: str
) -> None:
    """Tell about single files: (path, severity, message), the first of them in words."""
    if not total:
        return
    shown = 0
    for path, severity, message in findings:
        if shown == _FINDINGS_SHOWN:
            break
        screen.say(f"  {severity}: {printable(path_text(path))}: {message}")
        shown += 1
    rest = f"; the first {shown} are shown" if total > shown else ""
    screen.warn(f"{total:,} {what}{rest}")


def tell_error(error: HoldfastError, *, as_json: bool) -> None:
    """Tell why the command failed, on stderr."""
    if as_json:
        body = {"code": error.code, "message": error.message, "hint": error.hint}
        _talk(json.dumps({"error": body}), ERROR)
        return
    parts = [("error: ", "bold red", error.message), ("hint: ", "bold", error.hint)]
    screen = Screen()
    for label, style, text in parts:
        if not text:
            continue
        if not screen.talk_is_terminal:
            _talk(label + printable(text), ERROR)
            continue
        from rich.text import Text

        screen.console.print(Text.assemble((label, style), printable(text)))
