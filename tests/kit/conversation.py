"""Talk with a command on one pseudo terminal, as a person would."""

from __future__ import annotations

import os
import pty
import select
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kit.command import Command

TIMEOUT_S = 60


class Conversation:
    """A command that asks, and what was seen of it so far."""

    def __init__(self, command: Command, *words: str | Path, columns: int = 80) -> None:
        self._end, theirs = pty.openpty()
        self.seen = ""
        self._process = subprocess.Popen(
            command.line(*words),
            env=command.environment() | {"COLUMNS": str(columns), "TERM": "xterm"},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)

    def answer(self, question: str, text: str = "") -> None:
        """Wait for a question, and answer it; with nothing, its default is taken."""
        self._read_until(question)
        os.write(self._end, text.encode() + b"\n")

    def end(self) -> int:
        """Read to the end; tell the exit status."""
        self._read_until(None)
        os.close(self._end)
        return self._process.wait(TIMEOUT_S)

    def _read_until(self, text: str | None) -> None:
        begin = len(self.seen)
        while text is None or text not in self.seen[begin:]:
            ready, _, _ = select.select([self._end], [], [], TIMEOUT_S)
            assert ready, f"it says nothing more: {self.seen}"
            try:
                piece = os.read(self._end, 65536)
            except OSError:
                piece = b""
            if not piece:
                assert text is None, f"it ended before it asked {text!r}: {self.seen}"
                return
            self.seen += piece.decode("utf-8", "replace").replace("\r\n", "\n")
