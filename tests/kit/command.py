"""Run the real ``holdfast`` command in a process of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest


@dataclass(frozen=True)
class Ended:
    """What became of a command."""

    status: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        return self.out.decode("utf-8", "surrogateescape")

    def json(self) -> Any:
        """The one JSON document on stdout."""
        return json.loads(self.out)

    def json_lines(self) -> list[Any]:
        """The JSON documents on stdout, one a line."""
        return [json.loads(line) for line in self.out.splitlines()]

    def assert_ok(self) -> Ended:
        assert self.status == 0, self.err
        return self

    def assert_failed(self, status: int, *words: str) -> None:
        """Fail unless it ended as documented, with one clear sentence and a hint."""
        lines = self.err.strip().splitlines()
        assert self.status == status, self.err
        assert "Traceback" not in self.err
        assert self.out == b""
        assert lines, "it said nothing"
        assert len([line for line in lines if line.startswith("error: ")]) == 1, self.err
        assert len([line for line in lines if line.startswith("hint: ")]) == 1, self.err
        for word in words:
            assert word in self.err


UNWANTED = ("HOLDFAST_", "COLUMNS", "FORCE_COLOR", "TTY_", "PYTHONDONTWRITEBYTECODE")
"""Variables that a command would heed. The last has each of thousands compile every module anew,
which is most of what a short command would do."""


@dataclass
class Command:
    """The command line of one embedded site."""

    home: Path
    environ: dict[str, str] = field(default_factory=dict)
    prefix: tuple[str, ...] = ()

    def __call__(
        self, *words: str | bytes | Path, cwd: Path | None = None, patience_s: float = 240
    ) -> Ended:
        done = subprocess.run(
            self.line(*words),
            capture_output=True,
            env=self.environment(),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            timeout=patience_s,
            check=False,
        )
        return Ended(done.returncode, done.stdout, done.stderr.decode("utf-8", "replace"))

    def start(self, *words: str | bytes | Path) -> subprocess.Popen[bytes]:
        """Start it and go on. It hears Ctrl-C, whoever runs the tests.

        A shell lets what it starts in the background ignore SIGINT, and that is inherited: such
        a command would rightly go on. What has a handler here has the default in a new program.
        """
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        return subprocess.Popen(
            self.line(*words),
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def line(self, *words: str | bytes | Path) -> list[str | bytes | Path]:
        return [*self.prefix, sys.executable, "-m", "holdfast", *words]

    def environment(self) -> dict[str, str]:
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith(UNWANTED)
        }
        return inherited | {"HOLDFAST_HOME": str(self.home)} | self.environ

    def without_privileges(self) -> Command:
        """The same, unable to read what permissions forbid, even if the tests run as root."""
        if os.geteuid() != 0:
            return self
        if shutil.which("setpriv") is None:
            pytest.skip("running as root, and there is no setpriv to drop privileges with")
        prefix = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")
        return Command(self.home, self.environ, prefix)
