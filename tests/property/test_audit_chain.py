"""Whatever is done to an audit log, it is found, and the first broken row is named."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime

from hypothesis import assume, given
from hypothesis import strategies as st

from holdfast.control.access import Entry, Head, Outcome, Row
from holdfast.control.access.chain import (
    MAX_DETAILS_BYTES,
    MAX_TEXT,
    canonical,
    hash_of,
    next_row,
    verify,
)

TEXT = st.text(max_size=20)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(TEXT, inside, max_size=3),
    max_leaves=5,
)
ENTRIES = st.builds(
    Entry.of,
    who=TEXT,
    what=TEXT,
    about=TEXT,
    outcome=st.sampled_from(Outcome),
    details=st.dictionaries(TEXT, JSON, max_size=3),
)


def sealed(entries: list[tuple[int, Entry]], head: Head | None = None) -> list[Row]:
    rows = []
    end = head or Head()
    for at_ns, entry in entries:
        row = next_row(end, at_ns, entry)
        rows.append(row)
        end = Head(row.seq, row.hash)
    return rows


LOGS = st.lists(st.tuples(st.integers(-(2**63), 2**63 - 1), ENTRIES), min_size=1, max_size=12).map(
    sealed
)
HEX = st.text("0123456789abcdef", min_size=64, max_size=64)


@given(LOGS)
def test_a_log_that_nobody_touched_is_whole_and_goes_through_each_of_its_heads(
    log: list[Row],
) -> None:
    heads = [Head(), *(Head(row.seq, row.hash) for row in log)]
    found = verify(log, heads)
    assert found.broken is None
    assert (found.rows, found.head) == (len(log), heads[-1])
    assert all(Head.parse(str(head)) == head for head in heads)


@given(LOGS, st.data())
def test_any_edit_of_any_field_is_found_at_its_row(log: list[Row], data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(log) - 1))
    row = log[at]
    field = data.draw(st.sampled_from(("at_ns", "previous", "hash", *Entry.__dataclass_fields__)))
    if field == "at_ns":
        forged = replace(row, at_ns=data.draw(st.integers(-(2**63), 2**63 - 1)))
    elif field == "previous":
        forged = replace(row, previous=data.draw(HEX))
    elif field == "hash":
        forged = replace(row, hash=data.draw(HEX))
    else:
        forged = replace(row, entry=replace(row.entry, **{field: data.draw(TEXT)}))
    assume(forged != row)
    found = verify([*log[:at], forged, *log[at + 1 :]])
    assert found.broken is not None
    assert (found.broken.seq, found.rows) == (row.seq, at)


@given(LOGS, st.data())
def test_rows_that_are_gone_from_the_middle_are_found(log: list[Row], data: st.DataObject) -> None:
    assume(len(log) > 1)
    first = data.draw(st.integers(0, len(log) - 2))
    last = data.draw(st.integers(first, len(log) - 2))
    found = verify([*log[:first], *log[last + 1 :]])
    assert found.broken is not None
    assert found.broken.seq == log[first].seq


@given(LOGS, st.data())
def test_rows_in_another_order_are_found(log: list[Row], data: st.DataObject) -> None:
    order = data.draw(st.permutations(log))
    assume(order != log)
    first = next(at for at, row in enumerate(log) if order[at] != row)
    found = verify(order)
    assert found.broken is not None
    assert found.broken.seq == log[first].seq


@given(LOGS, st.data())
def test_contents_that_change_places_under_their_numbers_are_found(
    log: list[Row], data: st.DataObject
) -> None:
    order = data.draw(st.permutations([row.entry for row in log]))
    assume(order != [row.entry for row in log])
    moved = [replace(row, entry=entry) for row, entry in zip(log, order, strict=True)]
    first = next(row for row, was in zip(moved, log, strict=True) if row != was)
    found = verify(moved)
    assert found.broken is not None
    assert found.broken.seq == first.seq


@given(LOGS, ENTRIES, st.data())
def test_a_row_that_is_put_in_is_found(log: list[Row], entry: Entry, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(log) - 1))
    before = Head(log[at - 1].seq, log[at - 1].hash) if at else Head()
    put_in = next_row(before, 0, entry)
    assume(put_in != log[at])
    found = verify([*log[:at], put_in, *log[at:]])
    assert found.broken is not None
    assert found.broken.seq in {put_in.seq, put_in.seq + 1}


@given(LOGS, st.data())
def test_a_log_that_is_cut_off_is_found_by_a_head_that_was_kept(
    log: list[Row], data: st.DataObject
) -> None:
    length = data.draw(st.integers(0, len(log) - 1))
    kept = data.draw(st.integers(length, len(log) - 1))
    assert verify(log[:length]).broken is None
    found = verify(log[:length], [Head(log[kept].seq, log[kept].hash)])
    assert found.broken is not None
    assert (found.broken.seq, found.rows) == (length + 1, length)


@given(LOGS, ENTRIES, st.data())
def test_a_log_that_was_written_anew_is_found_by_a_head_that_was_kept(
    log: list[Row], entry: Entry, data: st.DataObject
) -> None:
    """Whoever can write the table can seal a forged row, and all rows after it, again."""
    at = data.draw(st.integers(0, len(log) - 1))
    assume(entry != log[at].entry)
    forged = [(row.at_ns, row.entry) for row in log]
    forged[at] = (forged[at][0], entry)
    anew = sealed(forged)
    assert verify(anew).broken is None
    kept = data.draw(st.integers(at, len(log) - 1))
    found = verify(anew, [Head(log[kept].seq, log[kept].hash)])
    assert found.broken is not None
    assert found.broken.seq == log[kept].seq


@given(st.text(max_size=2000), st.text(max_size=2000), JSON)
def test_no_text_fails_a_database_or_grows_a_log(who: str, about: str, inside: object) -> None:
    entry = Entry.of(who, "what", about, Outcome.DONE, {"inside": inside, "long": "x" * len(who)})
    for text in (entry.who, entry.about, entry.details):
        assert "\0" not in text
        assert len(text.encode()) <= max(4 * MAX_TEXT, MAX_DETAILS_BYTES)
    assert len(entry.who) <= MAX_TEXT


@given(st.binary(max_size=8), st.floats(), st.text(max_size=5))
def test_details_of_any_kind_are_told(path: bytes, number: float, text: str) -> None:
    said = {
        "path": path.decode("utf-8", "surrogateescape"),
        "number": number,
        text: {text: (datetime(2026, 1, 1, tzinfo=UTC), path, {text})},
    }
    details = json.loads(Entry.of("a", "b", "c", Outcome.DONE, said).details)
    # It can be written as JSON again, and sent.
    json.dumps(details, allow_nan=False, ensure_ascii=False).encode()


def test_details_that_are_far_too_many_are_replaced_by_their_hash() -> None:
    entry = Entry.of("a", "b", "c", Outcome.DONE, {"body": "x" * 50_000})
    assert "details_sha256" in entry.details
    assert len(entry.details) < 200


def test_heads_that_contradict_each_other_are_found() -> None:
    log = sealed([(1, Entry("a", "b", "c", "done"))])
    found = verify(log, [Head(1, log[0].hash), Head(1, "0" * 64)])
    assert found.broken is not None


def test_what_was_never_written_is_no_crash() -> None:
    log = sealed([(1, Entry("a", "b", "c", "done"))])
    for forged in (
        replace(log[0], seq="one"),  # type: ignore[arg-type]
        replace(log[0], hash=None),  # type: ignore[arg-type]
        replace(log[0], entry=replace(log[0].entry, who=b"a")),  # type: ignore[arg-type]
    ):
        found = verify([forged])
        assert found.broken is not None
        assert found.broken.seq == 1


def test_the_hash_is_the_one_that_is_documented() -> None:
    """Fixed: a log that was written once has to verify for ever."""
    entry = Entry("alice", "create_user", "users/bob", "done", canonical({"from": "local"}))
    assert hash_of(1, 1_795_270_000_000_000_000, entry, "0" * 64) == (
        "1cde5e7c3c739fd584981841b044c1ec1dc18e208bc3284752ba377eb5947122"
    )
