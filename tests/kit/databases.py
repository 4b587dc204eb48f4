"""The control database of a test, once on SQLite and once on a real PostgreSQL."""

from __future__ import annotations

import contextlib
import functools
from typing import TYPE_CHECKING

import pytest

from holdfast.control.database import Database
from tests.kit import postgres, quick_disk

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


@functools.cache
def _newest() -> bytes:
    """A file with the newest schema: two dozen migrations, done once for all."""
    with quick_disk.directory() as made:
        database = Database(made / "control.db")
        database.migrate()
        database.close()
        return (made / "control.db").read_bytes()


def new_file(file: Path) -> Database:
    """A control database in a new file, with the newest schema."""
    file.write_bytes(_newest())
    return Database(file)


@contextlib.contextmanager
def place(request: pytest.FixtureRequest, kind: str, directory: Path) -> Iterator[Path | str]:
    """Where a control database of a kind with the newest schema is: a file, or a URL."""
    if kind == "sqlite":
        new_file(directory / "control.db").close()
        yield directory / "control.db"
        return
    server: postgres.Server = request.getfixturevalue("postgres_server")
    template: str = request.getfixturevalue("migrated_template")
    name, url = server.database(template)
    yield url
    server.drop(name)


@contextlib.contextmanager
def opened(request: pytest.FixtureRequest, kind: str, directory: Path) -> Iterator[Database]:
    """The same, open: for fixtures of a wider scope than `database`."""
    with place(request, kind, directory) as found:
        database = Database(found)
        yield database
        database.close()


@pytest.fixture(params=KINDS)
def database_place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path | str]:
    """Where a control database with the newest schema is: a file, or a URL."""
    with place(request, request.param, tmp_path) as found:
        yield found


@pytest.fixture
def database(database_place: Path | str) -> Iterator[Database]:
    """A control database with the newest schema, open."""
    opened = Database(database_place)
    yield opened
    opened.close()
