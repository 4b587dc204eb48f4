"""What a command loads before it works: a short backup is mostly that."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kit.command import Command

RUN = """
import sys
from holdfast.faces.cli.main import run
status = run(sys.argv[1:])
sys.stderr.write("loaded: " + " ".join(sorted(sys.modules)) + "\\n")
sys.exit(status)
"""


@pytest.mark.parametrize("words", ["backup {tree}", "restore latest --to {back}", "ls latest:/"])
def test_what_needs_no_database_loads_none(
    site: Command, tree: Path, tmp_path: Path, words: str
) -> None:
    site("backup", tree).assert_ok()
    arguments = words.format(tree=tree, back=tmp_path / "back").split()
    ended = subprocess.run(
        [sys.executable, "-c", RUN, *arguments],
        env={**os.environ, "HOLDFAST_HOME": str(site.home)},
        capture_output=True,
        text=True,
        check=True,
    )
    (line,) = [one for one in ended.stderr.splitlines() if one.startswith("loaded: ")]
    loaded = set(line.split())
    assert "holdfast.engine" in loaded
    assert not loaded & {"sqlalchemy", "alembic", "sqlite3", "holdfast.faces.cli.quickstart"}
