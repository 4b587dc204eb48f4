"""A site of its own for each test, driven by the real command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.kit.command import Command
from tests.kit.trees import make_tree

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.kit.agents import MachineSite


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
def network(site: Command, tmp_path: Path) -> Iterator[MachineSite]:
    """That site, served, with machines that join it."""
    from tests.kit.agents import machine_site

    (tmp_path / "machines").mkdir()
    with machine_site(site, tmp_path / "machines") as made:
        yield made


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree with every kind of entry."""
    root = tmp_path / "tree"
    make_tree(root)
    return root
