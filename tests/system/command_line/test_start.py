"""What a command loads before it works: a short backup is mostly that."""

from __future__ import annotations

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


DATABASE = {"sqlalchemy", "alembic", "sqlite3"}
DRAWING = {"rich"}
NEVER_NEEDED = {"typer", "pydantic", "asyncio", "socket", "logging", "importlib.metadata"}
OF_OTHERS = {"holdfast.faces.cli.quickstart", "holdfast.vault.recovery_kit", "getpass", "obstore"}


def loaded_by(site: Command, *words: str | Path) -> set[str]:
    """The modules that a command has loaded by its end."""
    ended = subprocess.run(
        [sys.executable, "-c", RUN, *words],
        env=site.environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    (line,) = [one for one in ended.stderr.splitlines() if one.startswith("loaded: ")]
    return set(line.split())


@pytest.mark.parametrize(
    "words",
    [
        "backup {tree} --json",
        "backup {tree}",
        "restore {image} --to {back} --json",
        "restore {image} --to {back}",
        "ls {image}:/",
        "verify",
    ],
)
def test_a_short_command_loads_little(
    site: Command, tree: Path, tmp_path: Path, words: str
) -> None:
    image = site("backup", tree, "--json").assert_ok().json()["id"]
    words = words.format(tree=tree, image=image, back=tmp_path / "back")
    loaded = loaded_by(site, *words.split())
    assert "holdfast.engine" in loaded
    assert not loaded & (DATABASE | DRAWING | NEVER_NEEDED | OF_OTHERS | {"cryptography"})


def test_a_search_of_a_catalog_that_has_all_files_loads_little(site: Command, tree: Path) -> None:
    site("backup", tree, "--json").assert_ok()
    assert "sqlalchemy" in loaded_by(site, "find", "level")  # it takes the image in first
    loaded = loaded_by(site, "find", "level")
    assert "sqlite3" in loaded
    needless = (DATABASE - {"sqlite3"}) | DRAWING | NEVER_NEEDED | OF_OTHERS
    assert not loaded & (needless | {"subprocess", "multiprocessing", "cryptography"})


def test_the_version_loads_no_command(site: Command) -> None:
    loaded = loaded_by(site, "--version")
    assert "holdfast.faces.cli.main" in loaded
    assert not loaded & (DATABASE | DRAWING | NEVER_NEEDED | OF_OTHERS)
    assert not loaded & {"holdfast.engine", "holdfast.faces.cli.backup", "cryptography", "tomllib"}
