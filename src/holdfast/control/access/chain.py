"""The audit log as a chain: what a row is, how it is hashed, where a chain is broken.

Pure. Must not read or write any log. Invariants: a row's hash covers all of it and the hash of the
row before, so no row can be changed, taken out, put in or moved without breaking the chain at the
first such place; what is cut off at the end is seen by a head that was kept elsewhere.

Hash: SHA-256 over `DOMAIN`, then each field as its length in bytes (8, big-endian) and its bytes:
seq, at_ns (decimal), who, what, object, outcome, details (UTF-8), hash of the row before (32 bytes;
zeros before the first).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from math import isfinite
from typing import TYPE_CHECKING

from holdfast.base.errors import Invalid

if TYPE_CHECKING:
    from collections.abc import Iterable

DOMAIN = b"holdfast audit row v1\0"

NOTHING = "0" * 64
"""What stands for the hash before the first row."""

MAX_TEXT = 500
MAX_DETAILS_BYTES = 16_384

_HEAD = re.compile(r"(0|[1-9][0-9]{0,18}):([0-9a-f]{64})")


class Outcome(StrEnum):
    """How an act ended."""

    DONE = "done"
    REFUSED = "refused"
    """It was not begun, or what it asked for was refused; nothing is changed."""
    FAILED = "failed"
    UNKNOWN = "unknown"
    """The process ended before the act did; look whether it was done."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What a row tells.

    Attributes:
        who: The name of a principal.
        what: The operation, as the API's document names it.
        about: The thing, ``kind/name``; the column is ``object``.
        outcome: How it ended, one of `Outcome`.
        details: Canonical JSON, an object.
    """

    who: str
    what: str
    about: str
    outcome: str
    details: str = "{}"

    @classmethod
    def of(
        cls,
        who: str,
        what: str,
        about: str,
        outcome: Outcome,
        details: Mapping[str, object] | None = None,
    ) -> Entry:
        """Make an entry of any texts: what no database could hold is escaped, what is long is cut.

        Args:
            who: The name of a principal.
            what: The operation.
            about: The thing it was about.
            outcome: How it ended.
            details: What is not fit for JSON becomes text; far too many are replaced by their
                size and hash.
        """
        text = canonical({_whole(name): _plain(one) for name, one in (details or {}).items()})
        size = len(text)
        if size > MAX_DETAILS_BYTES:
            digest = sha256(text.encode()).hexdigest()
            text = canonical({"details_bytes": size, "details_sha256": digest})
        return cls(_clean(who), _clean(what), _clean(about), outcome.value, text)


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the log.

    Attributes:
        seq: Counts from 1 without a gap.
        at_ns: When it was written, by the site's clock, in ns since 1970.
        entry: What it tells.
        previous: Hash of the row before, 64 hexadecimal digits.
        hash: Hash of this one.
    """

    seq: int
    at_ns: int
    entry: Entry
    previous: str
    hash: str


@dataclass(frozen=True, slots=True)
class Head:
    """The end of a chain; kept elsewhere, it shows later that nothing before it was touched.

    Attributes:
        seq: Number of the last row; 0 for an empty log.
        hash: Its hash.
    """

    seq: int = 0
    hash: str = NOTHING

    def __str__(self) -> str:
        return f"{self.seq}:{self.hash}"

    @classmethod
    def parse(cls, text: str) -> Head:
        """Read what `str` wrote.

        Raises:
            Invalid: It is not a head.
        """
        found = _HEAD.fullmatch(text.strip())
        if found is None:
            raise Invalid(f"'{text[:80]}' is not a head of the audit log", "it is NUMBER:HASH")
        return cls(int(found[1]), found[2])


@dataclass(frozen=True, slots=True)
class Break:
    """Where a chain is not whole.

    Attributes:
        seq: The first row that is not what was written, or that is missing.
        why: In words.
    """

    seq: int
    why: str


@dataclass(frozen=True, slots=True)
class Verification:
    """What came of following a chain.

    Attributes:
        rows: How many rows are whole, from the first on.
        head: The last of these.
        broken: The first that is not; None if all are.
    """

    rows: int
    head: Head
    broken: Break | None


def canonical(value: Mapping[str, object]) -> str:
    """JSON of which there is one form: sorted keys, no spaces, ASCII."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    )


def hash_of(seq: int, at_ns: int, entry: Entry, previous: str) -> str:
    """The hash of a row, 64 hexadecimal digits."""
    state = sha256(DOMAIN)
    texts = (str(seq), str(at_ns), entry.who, entry.what, entry.about, str(entry.outcome))
    for field in (*(text.encode() for text in (*texts, entry.details)), bytes.fromhex(previous)):
        state.update(len(field).to_bytes(8, "big") + field)
    return state.hexdigest()


def next_row(head: Head, at_ns: int, entry: Entry) -> Row:
    """The row that follows a head."""
    seq = head.seq + 1
    return Row(seq, at_ns, entry, head.hash, hash_of(seq, at_ns, entry, head.hash))


def verify(rows: Iterable[Row], expected: Iterable[Head] = ()) -> Verification:
    """Follow a chain from its first row.

    Args:
        rows: All of them, in the order of their numbers.
        expected: Heads that the chain had at some time, and has to go through.
    """
    wanted: dict[int, str] = {}
    for one in expected:
        if wanted.setdefault(one.seq, one.hash) != one.hash:
            return Verification(0, Head(), Break(one.seq, "two heads contradict each other"))
    head = Head()
    fault = _passes(head, wanted)
    for row in rows if fault is None else ():
        fault = _fault(head, row)
        if fault is not None:
            break
        if wanted.get(row.seq, row.hash) != row.hash:
            fault = Break(row.seq, "it is not the row that the head was of")
            break
        head = Head(row.seq, row.hash)
    if fault is None and (last := max(wanted, default=0)) > head.seq:
        fault = Break(head.seq + 1, f"it is missing, and with it all up to row {last}")
    return Verification(head.seq, head, fault)


def _passes(head: Head, wanted: Mapping[int, str]) -> Break | None:
    if wanted.get(head.seq, head.hash) != head.hash:
        return Break(head.seq, "the head of an empty log has another hash")
    return None


def _fault(head: Head, row: Row) -> Break | None:
    if row.seq != head.seq + 1:
        return Break(head.seq + 1, f"it is missing; row {row.seq} comes next")
    if row.previous != head.hash:
        return Break(row.seq, "it does not follow from the row before")
    try:
        right = hash_of(row.seq, row.at_ns, row.entry, row.previous)
    except (AttributeError, TypeError, ValueError):
        return Break(row.seq, "it holds what was never written")
    if right != row.hash:
        return Break(row.seq, "it was changed after it was written")
    return None


def _clean(text: str) -> str:
    whole = _whole(text).replace("\0", "\\x00")
    return whole if len(whole) <= MAX_TEXT else whole[: MAX_TEXT - 1] + "…"


def _whole(text: str) -> str:
    """A text without halves of characters, such as those that stand for bytes of a path."""
    return text.encode("utf-8", "backslashreplace").decode()


def _plain(value: object) -> object:
    """The same, of what JSON has: an act that was done must not fail for being told."""
    if isinstance(value, str):
        return _whole(value)
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float) and isfinite(value):
        return value
    if isinstance(value, Mapping):
        return {_whole(str(name)): _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(one) for one in value]
    return _whole(str(value))
