"""Fill the empty search index of a file with the names of a first feed, at once.

For FTS5 that takes longer than anything else of a first feed. The engine sorts the trigrams of
many names in a fraction of the time, and makes the blocks that FTS5 itself would have written; here
they are stored. Must not touch an index that has anything in it. Invariant: the index is what
FTS5 would have made of the same names; or `finish` says no, and it is as empty as before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.control.catalog.on_sqlite.source_file import SEARCH_TEXT
from holdfast.engine import Trigrams

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

    from holdfast.control.catalog.file_rows import NewName

_AVERAGES = 1
_STRUCTURE = 10
"""Ids of the two records of ``names_search_data`` that are of no segment."""

_COOKIE_BYTES = 4
_NO_SEGMENTS = bytes(3)

# FTS5 merges more of one level by itself, and twice as many at once.
_SEGMENTS_OF_A_LEVEL = 8

# What FTS5 has read of the structure it keeps until something of the index is undone.
_READ_AGAIN = (
    "SAVEPOINT read_again",
    "INSERT INTO names_search (names_search, rank) VALUES ('automerge', 4)",
    "ROLLBACK TO read_again",
    "RELEASE read_again",
)


class FirstNames:
    """The names of a first feed, on their way into the search index."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._trigrams = Trigrams()
        self._pages: list[int] = []
        self._names = 0
        self._cookie, structure = self._structure()
        self._possible = structure == _NO_SEGMENTS

    def add(self, names: Sequence[NewName]) -> None:
        """Take names that are new, in the order of their ids."""
        if self._possible:
            self._trigrams.add(names)
            self._names += len(names)
            if self._trigrams.is_full:
                self._store()

    def finish(self) -> bool:
        """Complete the index; False if it has to be made in another way, and is empty."""
        if not self._possible:
            return False
        self._store()
        totals = _varints(self._names, self._trigrams.tokens)
        self._describe(totals, _structure_of(self._pages))
        if self._finds():
            return True
        self._connection.execute("DELETE FROM names_search_data WHERE id > ?", (_STRUCTURE,))
        self._connection.execute("DELETE FROM names_search_idx")
        self._describe(b"", _NO_SEGMENTS)
        return False

    def _store(self) -> None:
        segment = self._trigrams.segment(len(self._pages) + 1)
        if segment.pages:
            self._pages.append(segment.pages)
            insert = self._connection.executemany
            insert("INSERT INTO names_search_data VALUES (?, ?)", segment.blocks)
            insert("INSERT INTO names_search_idx VALUES (?, ?, ?)", segment.terms)

    def _structure(self) -> tuple[bytes, bytes]:
        """The number of the index's configuration, and what segments there are."""
        found = self._connection.execute(
            "SELECT block FROM names_search_data WHERE id = ?", (_STRUCTURE,)
        ).fetchone()
        structure = b"" if found is None else bytes(found[0])
        return structure[:_COOKIE_BYTES], structure[_COOKIE_BYTES:]

    def _describe(self, totals: bytes, structure: bytes) -> None:
        self._connection.executemany(
            "INSERT OR REPLACE INTO names_search_data VALUES (?, ?)",
            [(_AVERAGES, totals), (_STRUCTURE, self._cookie + structure)],
        )
        for statement in _READ_AGAIN:
            self._connection.execute(statement)

    def _finds(self) -> bool:
        """Whether this SQLite reads what was written: some name is found by its beginning."""
        found = self._connection.execute(
            f"SELECT id, {SEARCH_TEXT} FROM names WHERE length({SEARCH_TEXT}) > 2 LIMIT 1"  # noqa: S608
        ).fetchone()
        if found is None:
            return True
        begin = '"' + found[1][:3].replace('"', '""') + '"'
        return (
            self._connection.execute(
                "SELECT 1 FROM names_search WHERE names_search MATCH ? AND rowid = ?",
                (begin, found[0]),
            ).fetchone()
            is not None
        )


def _structure_of(pages: Sequence[int]) -> bytes:
    """What segments there are, numbered from 1, each with so many pages; oldest first."""
    segments = [_varints(number, 1, last) for number, last in enumerate(pages, 1)]
    # the newest are on the lowest level
    levels: list[list[bytes]] = []
    while segments:
        levels.append(segments[-_SEGMENTS_OF_A_LEVEL:])
        del segments[-_SEGMENTS_OF_A_LEVEL:]
    structure = _varints(len(levels), len(pages), sum(pages))
    for level in levels:
        # none of them is being merged
        structure += _varints(0, len(level)) + b"".join(level)
    return structure


def _varints(*numbers: int) -> bytes:
    """SQLite's variable-length numbers, below 2^56."""
    return b"".join(map(_varint, numbers))


def _varint(number: int) -> bytes:
    found = [number & 0x7F]
    while number := number >> 7:
        found.append(number & 0x7F | 0x80)
    return bytes(reversed(found))
