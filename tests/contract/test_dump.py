"""A dump of the control database makes the same database, on either kind."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from holdfast.base.errors import CatalogDamaged, CatalogError, TargetNotEmpty
from holdfast.base.ids import ImageId
from holdfast.control.catalog import Catalog
from holdfast.control.database import Database, dump, facts
from holdfast.control.jobs import JobBook, JobKind, NewJob
from tests.kit.clock import FakeClock
from tests.kit.control_rows import ROWS, SCHEMA, contents, fill_every_table
from tests.kit.fake_pool import FakePool, tree_of

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def filled(database: Database, tmp_path: Path) -> Database:
    pool = FakePool()
    with Catalog.open(tmp_path, FakeClock(), database) as catalog:
        for number in range(5):
            made = pool.backup(tree_of(b"/a"), f"web{number}:/srv")
            catalog.record_image(made, pool.pool_id)
            catalog.hold(ImageId(made.id), 'a case: "quoted"\n\u2028 ö')
    facts.site_id(database)
    return database


@pytest.fixture(params=["sqlite", "postgresql"])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    sqlite = request.param == "sqlite"
    place = tmp_path / "empty.db" if sqlite else request.getfixturevalue("postgres_url")
    database = Database(place)
    yield database
    database.close()


def test_what_was_dumped_is_loaded(filled: Database, empty: Database, tmp_path: Path) -> None:
    file = tmp_path / "dump"
    rows = dump.write(filled, file)
    assert rows == 5 * 5 + 1
    assert dump.load(empty, file) == rows
    assert contents(empty) == contents(filled)
    assert facts.site_id(empty) == facts.site_id(filled)
    # Numbers that the database gives go on after those that were loaded.
    pool = FakePool()
    with Catalog.open(tmp_path, FakeClock(), empty) as catalog:
        catalog.record_image(pool.backup(tree_of(b"/a"), "web9:/srv"), pool.pool_id)
        assert len(catalog.sources()) == 6


def test_every_column_of_every_table_comes_back_as_it_was(
    database: Database, empty: Database, tmp_path: Path
) -> None:
    """Users, policies, jobs, machines, and whatever a migration adds, with values that are hard."""
    assert fill_every_table(database) == dump.write(database, tmp_path / "dump")
    dump.load(empty, tmp_path / "dump")
    there = contents(empty)
    assert there == contents(database)
    assert all(len(rows) == ROWS for name, rows in there.items() if name != SCHEMA)
    # Numbers of jobs go on, whoever gives them.
    (job,) = JobBook(empty, FakeClock()).enqueue([NewJob(kind=JobKind.BACKUP)])
    assert job.id == ROWS + 1


def test_two_dumps_of_one_state_are_the_same_bytes(filled: Database, tmp_path: Path) -> None:
    dump.write(filled, tmp_path / "one")
    dump.write(filled, tmp_path / "two")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_dump_of_every_length_but_its_own_is_refused_and_leaves_nothing(
    filled: Database, tmp_path: Path
) -> None:
    dump.write(filled, tmp_path / "dump")
    lines = (tmp_path / "dump").read_bytes().splitlines(keepends=True)
    for count in range(len(lines)):
        (tmp_path / "cut").write_bytes(b"".join(lines[:count]))
        target = Database(tmp_path / f"cut {count}.db")
        with pytest.raises(CatalogDamaged):
            dump.load(target, tmp_path / "cut")
        with target.read() as connection:
            assert sa.inspect(connection).get_table_names() == []
        target.close()
    (tmp_path / "cut").write_bytes(b"".join(lines)[:-20])
    target = Database(tmp_path / "cut.db")
    with pytest.raises(CatalogDamaged):
        dump.load(target, tmp_path / "cut")
    target.close()


def test_a_database_that_is_in_use_is_left_alone(filled: Database, tmp_path: Path) -> None:
    dump.write(filled, tmp_path / "dump")
    before = contents(filled)
    with pytest.raises(TargetNotEmpty):
        dump.load(filled, tmp_path / "dump")
    assert contents(filled) == before


def test_a_dump_of_a_newer_holdfast_is_refused(tmp_path: Path) -> None:
    target = Database(tmp_path / "new.db")
    for version, schema in ((2, "0001"), (1, "9999")):
        head = json.dumps({"holdfast-catalog": version, "schema": schema})
        (tmp_path / "dump").write_text(head + "\n")
        with pytest.raises(CatalogError, match="knows up to"):
            dump.load(target, tmp_path / "dump")
    (tmp_path / "dump").write_text('{"something": "else"}\n')
    with pytest.raises(CatalogDamaged, match="is not a dump"):
        dump.load(target, tmp_path / "dump")
    target.close()


def test_a_dump_of_an_older_schema_is_brought_up_to_date(tmp_path: Path) -> None:
    (tmp_path / "dump").write_text(
        '{"holdfast-catalog": 1, "schema": "0001"}\n'
        '{"table": "clients", "columns": ["id", "name"]}\n[4, "web1"]\n{"rows": 1}\n'
    )
    target = Database(tmp_path / "new.db")
    assert dump.load(target, tmp_path / "dump") == 1
    assert contents(target)["clients"] == [(4, "web1")]
    target.migrate()
    target.close()
