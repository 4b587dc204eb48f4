"""Fixtures that tests of several kinds share."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from holdfast.control.database import Database
from tests.kit import turns
from tests.kit.databases import (
    database,
    database_place,
    migrated_template,
    new_file,
    postgres_server,
    postgres_url,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.kit.api import Api

__all__ = [
    "api",
    "api_on_both",
    "database",
    "database_place",
    "migrated_template",
    "postgres_server",
    "postgres_url",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have those that share the tests begin with the slow ones; alone, keep to what was asked."""
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if processes > 1:
        marked = [(one, one.path, one.get_closest_marker("slow") is not None) for one in items]
        items[:] = turns.of_items(marked, processes)


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    """An API of its own, on SQLite."""
    from tests.kit.api import make_api

    database = new_file(tmp_path / "control.db")
    with make_api(database, tmp_path) as made:
        yield made
    database.close()


@pytest.fixture
def api_on_both(database: Database, tmp_path: Path) -> Iterator[Api]:
    """An API of its own, once on SQLite and once on PostgreSQL."""
    from tests.kit.api import make_api

    with make_api(database, tmp_path) as made:
        yield made
