"""Fixtures that tests of several kinds share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from holdfast.control.database import Database
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
