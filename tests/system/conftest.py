"""A site of its own for each test, driven by the real command."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kit.command import Command
from tests.kit.trees import make_tree


@pytest.fixture
def holdfast(tmp_path: Path) -> Command:
    """The command, with a home that has no site yet."""
    return Command(tmp_path / "home")


@pytest.fixture
def site(holdfast: Command) -> Command:
    """The command, with a site and an empty pool."""
    holdfast("init").assert_ok()
    return holdfast


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree with every kind of entry."""
    root = tmp_path / "tree"
    make_tree(root)
    return root
