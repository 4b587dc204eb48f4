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
    from tests.kit.hosts import Hosts


@pytest.fixture
def holdfast(tmp_path: Path) -> Command:
    """The command, with a home that has no site yet."""
    return Command(tmp_path / "home")


@pytest.fixture
def site(holdfast: Command) -> Command:
    """The command, with a site and an empty pool."""
    holdfast("init").assert_ok()
    return holdfast


@pytest.fixture(scope="session")
def namespaces() -> bool:
    """Whether hosts can be made here."""
    from tests.kit.hosts import can_make_networks

    return can_make_networks()


@pytest.fixture
def own_hosts(namespaces: bool, tmp_path: Path) -> Iterator[Hosts | None]:
    """Hosts, where this user may make some; None where all machines have to be this one."""
    from tests.kit.hosts import hosts

    if not namespaces:
        yield None
        return
    with hosts(tmp_path / "hosts") as made:
        yield made


@pytest.fixture
def true_hosts(own_hosts: Hosts | None) -> Hosts:
    """Hosts; a test that means nothing without them is skipped where there are none."""
    if own_hosts is None:
        pytest.skip("may not make network namespaces here")
    return own_hosts


@pytest.fixture
def network(site: Command, tmp_path: Path, own_hosts: Hosts | None) -> Iterator[MachineSite]:
    """That site, served, with machines that join it: each a host of its own, where that can be."""
    from tests.kit.agents import machine_site

    (tmp_path / "machines").mkdir()
    with machine_site(site, tmp_path / "machines", hosts=own_hosts) as made:
        yield made


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree with every kind of entry."""
    root = tmp_path / "tree"
    make_tree(root)
    return root
