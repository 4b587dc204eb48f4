"""What reaches the screen: data on stdout, talk on stderr.

Must not decide anything. Invariants: stdout carries what was asked for and nothing else, so it
can be piped; off a terminal nothing is cut to a width; no meaning is carried by colour alone.
"""

from __future__ import annotations

import base64
import json
import sys
from typing import TYPE_CHECKING, Literal

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from holdfast.base.errors import HoldfastError

Column = tuple[str, Literal["left", "right"]]

_FINDINGS_SHOWN = 20
_NARROWEST = 8


class Screen:
    """Where one command writes to.

    Attributes:
        as_json: The command was given ``--json``.
        talk: The console on stderr.
    """

    def __init__(self, *, as_json: bool = False) -> None:
        self.as_json = as_json
        self.talk = Console(stderr=True, highlight=False, soft_wrap=True)
        self._data = Console(highlight=False)

    @property
    def data_is_terminal(self) -> bool:
        """Whether a person sees the data as it is written."""
        return self._data.is_terminal

    def say(self, text: str) -> None:
        """Tell a person something, on stderr."""
        self.talk.print(Text(text))

    def warn(self, text: str) -> None:
        """Tell a person about something that is not as it should be, on stderr."""
        self.talk.print(Text(f"warning: {text}", style="yellow"))

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

    def table(self, columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> None:
        """Write a table: whole off a terminal; on one, the second column gives way to its width."""
        lines = [[title for title, _ in columns], *rows]
        fitted = self._data.is_terminal
        if fitted:
            lines = [[printable(cell) for cell in line] for line in lines]
        widths = [max(cell_len(line[at]) for line in lines) for at in range(len(columns))]
        if fitted:
            too_wide = sum(widths) + 2 * len(widths) - 2 - self._data.width
            widths[1] = max(widths[1] - max(too_wide, 0), _NARROWEST)
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


def _cell(text: str, width: int, side: Literal["left", "right"]) -> str:
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
        encoded = base64.b64encode(path).decode("ascii")
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
        sys.stderr.write(json.dumps({"error": body}) + "\n")
        return
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print(Text.assemble(("error: ", "bold red"), printable(error.message)))
    if error.hint:
        console.print(Text.assemble(("hint: ", "bold"), printable(error.hint)))
