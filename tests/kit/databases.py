"""The control database of a test, once on SQLite and once on a real PostgreSQL."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from holdfast.control.database import Database
from tests.kit import postgres

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KINDS = ("sqlite", "postgresql")


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[postgres.Server]:
    """A server for all tests of a session."""
    binaries = postgres.programs()
    if binaries is None:
        pytest.skip("PostgreSQL is not installed (Debian's package postgresql)")
    with postgres.server(binaries) as running:
        yield running


@pytest.fixture(scope="session")
def migrated_template(postgres_server: postgres.Server) -> str:
    """A database with the newest schema, from which others are copied."""
    name, url = postgres_server.database()
    database = Database(url)
    database.migrate()
    database.close()
    return name


@pytest.fixture
def postgres_url(postgres_server: postgres.Server) -> Iterator[str]:
    """The URL of an empty database."""
    name, url = postgres_server.database()
    yield url
    postgres_server.drop(name)


@pytest.fixture(params=KINDS)
def database_place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path | str]:
    """Where a control database with the newest schema is: a file, or a URL."""
    if request.param == "sqlite":
        place = tmp_path / "control.db"
        database = Database(place)
        database.migrate()
        database.close()
        yield place
        return
    server: postgres.Server = request.getfixturevalue("postgres_server")
    template: str = request.getfixturevalue("migrated_template")
    name, url = server.database(template)
    yield url
    server.drop(name)


@pytest.fixture
def database(database_place: Path | str) -> Iterator[Database]:
    """A control database with the newest schema, open."""
    opened = Database(database_place)
    yield opened
    opened.close()
