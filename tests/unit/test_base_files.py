"""Files that are whole or not there."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from holdfast.base.files import remove_unfinished, write_whole, writing_whole

if TYPE_CHECKING:
    from pathlib import Path

KILLED = """
import os, pathlib, signal, sys
from holdfast.base.files import writing_whole
with writing_whole(pathlib.Path(sys.argv[1])) as file:
    file.write(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_had_half_written_goes_and_nothing_else(tmp_path: Path) -> None:
    write_whole(tmp_path / "whole.json", b"whole")
    write_whole(tmp_path / ".hidden.json", b"whole")
    subprocess.run([sys.executable, "-c", KILLED, tmp_path / "half.json"], check=False)
    assert len(list(tmp_path.iterdir())) == 3
    with writing_whole(tmp_path / "on its way") as file:
        file.write(b"more")
        remove_unfinished(tmp_path)
        assert len(list(tmp_path.iterdir())) == 3
    assert {one.name for one in tmp_path.iterdir()} == {"whole.json", ".hidden.json", "on its way"}
    remove_unfinished(tmp_path / "nowhere")


def test_an_error_leaves_what_was_there(tmp_path: Path) -> None:
    write_whole(tmp_path / "a", b"old")
    with pytest.raises(TypeError), writing_whole(tmp_path / "a") as file:
        file.write("no bytes")  # type: ignore[call-overload]
    assert (tmp_path / "a").read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1
