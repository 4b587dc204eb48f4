"""A search without SQLAlchemy finds what the catalog finds, or leaves it to the catalog."""

from __future__ import annotations

import contextlib
import sqlite3
from typing import TYPE_CHECKING

import pytest

from holdfast.base.errors import Invalid
from holdfast.base.ids import FILES_OF
from holdfast.control.catalog import Catalog, glance
from holdfast.control.catalog.damage import DATABASE
from tests.contract.test_file_rows_search import TERMS, everything
from tests.kit.catalog_model import fed
from tests.kit.clock import FakeClock
from tests.kit.fake_pool import FakePool, tree_of

if TYPE_CHECKING:
    from pathlib import Path

WORDS = ["readme", "*.c", "nowhere", "/dir/*/other", "a"]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A catalog of three images of two sources, with nothing left to do."""
    pool = FakePool(batch_rows=1000)
    with Catalog.open(tmp_path, FakeClock()) as catalog:
        fed(catalog, pool, everything())
        fed(catalog, pool, tree_of(b"/readme", b"/gone/README.md"), "other:/srv")
        fed(catalog, pool, tree_of(b"/README.md", b"/late/readme"))
    return tmp_path


def changed(directory: Path, statement: str) -> None:
    with contextlib.closing(sqlite3.connect(directory / DATABASE)) as connection:
        connection.execute(statement)
        connection.commit()


@pytest.mark.parametrize("source", [None, "host:/data", "other:/srv"])
@pytest.mark.parametrize("versions", [False, True])
def test_what_is_found_is_what_the_catalog_finds(
    directory: Path, source: str | None, versions: bool
) -> None:
    answered = 0
    with Catalog.open(directory, FakeClock()) as catalog:
        for words in [*WORDS, *TERMS]:
            found = glance.find(directory, words, source=source, versions=versions)
            assert found is not None
            rows = list(found)
            assert rows == list(catalog.find(words, source=source, versions=versions))
            answered += len(rows)
    assert answered > 20


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE images SET catalog_state = 'pending' WHERE rowid = 1",
        "UPDATE images SET catalog_state = 'expiring' WHERE rowid = 1",
        "UPDATE alembic_version SET version_num = '0001'",
        "UPDATE alembic_version SET version_num = '9999'",
        "DROP TABLE alembic_version",
        f"UPDATE sources SET name = '{FILES_OF}host:/data' WHERE name = 'host:/data'",
    ],
)
def test_what_is_more_than_a_look_is_left_to_the_catalog(directory: Path, statement: str) -> None:
    assert glance.find(directory, "readme") is not None
    changed(directory, statement)
    assert glance.find(directory, "readme") is None


def test_a_source_that_is_not_there_is_left_to_the_catalog(directory: Path) -> None:
    assert glance.find(directory, "readme", source="no:/such") is None


def test_a_catalog_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    assert glance.find(tmp_path, "readme") is None
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_catalog_is_left_to_the_catalog(directory: Path) -> None:
    (directory / DATABASE).write_bytes(b"this is no database " * 1000)
    assert glance.find(directory, "readme") is None


def test_a_pattern_that_can_match_nothing_is_refused_at_once(directory: Path) -> None:
    with pytest.raises(Invalid):
        glance.find(directory, "no\0name")


def test_a_source_whose_file_was_made_anew_meanwhile_is_asked_there(directory: Path) -> None:
    found = glance.find(directory, "readme", source="host:/data")
    assert found is not None
    (file,) = (directory / "files").glob("1.*.db")
    generation = int(file.name.split(".")[1])
    # As a rebuild does it: the next generation beside this one, which then goes.
    file.rename(file.with_name(f"1.{generation + 1}.db"))
    changed(directory, f"UPDATE sources SET generation = {generation + 1} WHERE id = 1")
    assert list(found)
