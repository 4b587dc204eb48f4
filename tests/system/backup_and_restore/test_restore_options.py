"""Parts of an image, into directories that are not empty, without leading parts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.kit.command import Command


@pytest.fixture
def small(site: Command, tmp_path: Path) -> Path:
    """A small tree that was backed up."""
    root = tmp_path / "small"
    (root / "a" / "b").mkdir(parents=True)
    for name in ("top", "a/middle", "a/b/bottom"):
        (root / name).write_text(f"image: {name}")
        os.utime(root / name, (1_000_000, 1_000_000))
    site("backup", root).assert_ok()
    return root


def files(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): path.read_text() for path in root.rglob("*") if path.is_file()
    }


def test_only_the_named_paths_are_restored(site: Command, small: Path, tmp_path: Path) -> None:
    site("restore", "latest", small / "a" / "b", f"{small}/top", "--to", tmp_path / "x").assert_ok()
    below = str(small)[1:]
    assert set(files(tmp_path / "x")) == {f"{below}/a/b/bottom", f"{below}/top"}


def test_a_path_can_be_written_behind_the_image(site: Command, small: Path, tmp_path: Path) -> None:
    site("restore", f"latest:{small}/a/middle", "--to", tmp_path / "x").assert_ok()
    assert list(files(tmp_path / "x").values()) == ["image: a/middle"]


def test_leading_components_are_stripped(site: Command, small: Path, tmp_path: Path) -> None:
    depth = len(small.parts) - 1
    words = ("restore", "latest", "--to", tmp_path / "x", "--strip-components", str(depth))
    site(*words).assert_ok()
    assert set(files(tmp_path / "x")) == {"top", "a/middle", "a/b/bottom"}


@pytest.mark.parametrize(
    ("overwrite", "old_kept", "new_kept"),
    [("never", True, True), ("older", False, True), ("always", False, False)],
)
def test_overwrite_says_what_becomes_of_files_that_are_there(
    site: Command, small: Path, tmp_path: Path, overwrite: str, old_kept: bool, new_kept: bool
) -> None:
    back = tmp_path / "back"
    inside = Path(f"{back}{small}")
    (inside / "a").mkdir(parents=True)
    for name, moment in (("top", 1), ("a/middle", 2_000_000_000), ("mine", 1)):
        (inside / name).write_text("was there")
        os.utime(inside / name, (moment, moment))
    done = site("restore", "latest", "--to", back, "--overwrite", overwrite)
    assert done.status in (0, 1), done.err
    found = files(inside)
    assert found["top"] == ("was there" if old_kept else "image: top")
    assert found["a/middle"] == ("was there" if new_kept else "image: a/middle")
    assert found["a/b/bottom"] == "image: a/b/bottom"
    assert found["mine"] == "was there"
