"""The search index that a first feed makes at once is the one that FTS5 makes name by name."""

from __future__ import annotations

import random
import sqlite3
from typing import TYPE_CHECKING

import pytest

from holdfast.control.catalog.folding import fold_name
from holdfast.control.catalog.on_sqlite import first_names, source_file
from holdfast.control.catalog.on_sqlite.first_names import FirstNames
from holdfast.control.catalog.on_sqlite.source_file import SEARCH_TEXT
from holdfast.engine import Trigrams

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from holdfast.control.catalog.file_rows import NewName
    from holdfast.engine import TrigramSegment

ODD = [
    b"", b"a", b"ab", b"abc", b"aaaaaaaa", b'quo"te', b'"""', b"100%_done", b"new\nline", b"README",
    b"\xff\xfe\xfd", b"caf\xe9.txt", "Straße.TXT".encode(), "日本語の名前.txt".encode(),
    "日本".encode(), "🎄🎄🎄tree".encode(), "Σίσυφος".encode(), "e\u0301te\u0301".encode(),
]  # fmt: skip


def made_names(count: int) -> list[NewName]:
    """Names that are in many lists, of which one goes over many pages, and some that are odd."""
    rng = random.Random(7)
    names = list(ODD)
    while len(names) < count:
        letters = "".join(rng.choices("abcdEFGHäж_0123", k=rng.randint(1, 12)))
        names.append(f"{letters}-{len(names)}.json".encode())
    return [
        (number * 3, name, None if name.isascii() else fold_name(name))
        for number, name in enumerate(names, 1)
    ]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[[str], sqlite3.Connection]]:
    made: list[sqlite3.Connection] = []

    def connect(name: str) -> sqlite3.Connection:
        made.append(source_file.create(tmp_path / name))
        return made[-1]

    yield connect
    for one in made:
        one.close()


def name_by_name(connection: sqlite3.Connection, names: list[NewName]) -> None:
    connection.executemany("INSERT INTO names VALUES (?, ?, ?)", names)
    connection.execute(
        f"INSERT INTO names_search (rowid, folded) SELECT id, {SEARCH_TEXT} FROM names"
    )


def at_once(connection: sqlite3.Connection, names: list[NewName]) -> bool:
    first = FirstNames(connection)
    for begin in range(0, len(names), 1000):
        some = names[begin : begin + 1000]
        connection.executemany("INSERT INTO names VALUES (?, ?, ?)", some)
        first.add(some)
    return first.finish()


def tables(connection: sqlite3.Connection) -> list[list[tuple[object, ...]]]:
    return [
        connection.execute(f"SELECT * FROM names_search_{table} ORDER BY 1, 2").fetchall()
        for table in ("data", "idx", "config")
    ]


def matching(connection: sqlite3.Connection, trigram: str) -> list[int]:
    quoted = '"' + trigram.replace('"', '""') + '"'
    query = "SELECT rowid FROM names_search WHERE names_search MATCH ? ORDER BY rowid"
    return [row[0] for row in connection.execute(query, (quoted,))]


def expected(names: list[NewName], trigram: str) -> list[int]:
    return [one for one, name, _ in names if trigram in fold_name(name)]


def check(connection: sqlite3.Connection) -> None:
    connection.execute("INSERT INTO names_search (names_search) VALUES ('integrity-check')")


@pytest.mark.parametrize("count", [0, 1, len(ODD), 500, 40_000])
def test_index_is_byte_for_byte_that_of_fts5(
    make: Callable[[str], sqlite3.Connection], count: int
) -> None:
    names = made_names(count)[:count]
    one, other = make("one"), make("other")
    name_by_name(one, names)
    assert at_once(other, names)
    if count:
        assert tables(other) == tables(one)
    check(other)


@pytest.mark.parametrize("begun", [False, True])
def test_index_goes_on_as_one_of_fts5(
    make: Callable[[str], sqlite3.Connection], begun: bool
) -> None:
    names = made_names(3000)
    connection = make("one")
    if begun:
        connection.execute("BEGIN")
    assert at_once(connection, names)
    more: list[NewName] = [(10_000 + n, b"zebra%d.json" % n, None) for n in range(2000)]
    connection.executemany("INSERT INTO names VALUES (?, ?, ?)", more)
    connection.executemany(
        "INSERT INTO names_search (rowid, folded) VALUES (?, ?)",
        [(one, fold_name(name)) for one, name, _ in more],
    )
    gone = names[::2]
    connection.executemany(
        "INSERT INTO names_search (names_search, rowid, folded) VALUES ('delete', ?, ?)",
        [(one, fold_name(name)) for one, name, _ in gone],
    )
    if begun:
        connection.execute("COMMIT")
    left = names[1::2] + more
    for _ in range(2):
        check(connection)
        for trigram in (".js", "zeb", "abc", "日本語", "ebr", "e.t"):
            assert matching(connection, trigram) == expected(left, trigram)
        connection.execute("INSERT INTO names_search (names_search) VALUES ('optimize')")


class InLittleSegments:
    """Makes a segment whenever it may."""

    is_full = True

    def __init__(self) -> None:
        self._trigrams = Trigrams()

    @property
    def tokens(self) -> int:
        return self._trigrams.tokens

    def add(self, names: list[NewName]) -> None:
        self._trigrams.add(names)

    def segment(self, number: int) -> TrigramSegment:
        return self._trigrams.segment(number)


def test_names_beyond_memory_become_many_segments(
    make: Callable[[str], sqlite3.Connection], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(first_names, "Trigrams", InLittleSegments)
    names = made_names(20_000)
    connection = make("one")
    assert at_once(connection, names)
    (segments,) = connection.execute(
        "SELECT count(DISTINCT segid) FROM names_search_idx"
    ).fetchone()
    assert segments == 20
    for _ in range(2):
        check(connection)
        for trigram in (".js", "abc", "日本語"):
            assert matching(connection, trigram) == expected(names, trigram)
        connection.execute("INSERT INTO names_search (names_search) VALUES ('optimize')")


def test_index_that_has_names_is_left_alone(make: Callable[[str], sqlite3.Connection]) -> None:
    names = made_names(300)
    connection = make("one")
    name_by_name(connection, names[:100])
    before = tables(connection)
    assert not at_once(connection, names[100:])
    assert tables(connection) == before


def test_what_this_sqlite_would_not_read_is_taken_back(
    make: Callable[[str], sqlite3.Connection], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FirstNames, "_finds", lambda _: False)
    names = made_names(3000)
    one, other = make("one"), make("other")
    name_by_name(one, names)
    assert not at_once(other, names)
    check(other)
    other.execute(f"INSERT INTO names_search (rowid, folded) SELECT id, {SEARCH_TEXT} FROM names")
    assert tables(other) == tables(one)
