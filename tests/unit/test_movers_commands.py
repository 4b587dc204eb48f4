"""Commands before and after a backup: their end, their output, and giving them up."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import pytest

from holdfast.base.errors import Cancelled, CommandFailed
from holdfast.movers.commands import OUTPUT_BYTES, run_command

if TYPE_CHECKING:
    from pathlib import Path


def python(text: str) -> list[str]:
    return [sys.executable, "-c", text]


def alive() -> None:
    pass


def test_what_a_command_says_comes_back_and_it_has_its_environment() -> None:
    said = run_command(
        python("import os, sys; print(os.environ['HOLDFAST_POLICY']); print('b', file=sys.stderr)"),
        {"HOLDFAST_POLICY": "files"},
        60,
        alive,
    )
    assert sorted(said.split()) == ["b", "files"]


def test_output_without_end_is_kept_from_its_end() -> None:
    said = run_command(python(f"print('x' * {OUTPUT_BYTES} * 4, 'last')"), {}, 60, alive)
    assert said.endswith("x last")
    assert len(said) <= OUTPUT_BYTES


def test_failure_names_the_status_and_the_last_line() -> None:
    with pytest.raises(CommandFailed, match=r"exit status 3: no disk$"):
        run_command(python("print('begin'); print('no disk'); raise SystemExit(3)"), {}, 60, alive)
    with pytest.raises(CommandFailed, match="signal 9"):
        run_command(python("import os; os.kill(os.getpid(), 9)"), {}, 60, alive)


def test_program_that_is_not_there_is_named() -> None:
    with pytest.raises(CommandFailed, match="can't run '/no/such dump'"):
        run_command(["/no/such", "dump"], {}, 60, alive)


def test_nothing_is_expanded_by_a_shell() -> None:
    assert run_command(["echo", "$HOME; echo no"], {}, 60, alive) == "$HOME; echo no"


def child_that_writes(marker: Path) -> list[str]:
    """A command whose child writes a file every 10 ms until it is killed."""
    child = f"import time\nwhile True: open({str(marker)!r}, 'a').write('x'); time.sleep(0.01)"
    return python(f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])")


def assert_dead(marker: Path) -> None:
    before = marker.stat().st_size if marker.exists() else 0
    time.sleep(0.1)
    assert (marker.stat().st_size if marker.exists() else 0) == before


def test_command_that_takes_too_long_is_gone_with_its_children(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match=r"took longer than 0\.60 s"):
        run_command(child_that_writes(tmp_path / "marker"), {}, 0.6, alive)
    assert_dead(tmp_path / "marker")


def test_command_ends_when_its_job_is_cancelled(tmp_path: Path) -> None:
    asked = iter(range(3))

    def told_to_stop() -> None:
        if next(asked, None) is None:
            raise Cancelled("job 7 was told to stop")

    with pytest.raises(Cancelled):
        run_command(child_that_writes(tmp_path / "marker"), {}, 60, told_to_stop)
    assert_dead(tmp_path / "marker")
