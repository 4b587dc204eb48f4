"""Whatever somebody says over a session, it is read as it was meant or refused."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from holdfast.base.errors import Invalid, Unsupported
from holdfast.wire import sessions
from holdfast.wire.looking import LookOrder, LookReport, Trouble
from holdfast.wire.messages import (
    Answer,
    BackupWork,
    WorkEnded,
    WorkError,
    WorkEvent,
    WorkOffer,
    WorkProgress,
)

TEXT = st.text(max_size=30)
COUNT = st.integers(0, 2**63 - 1)
NUMBER = st.floats(-1e12, 1e12)
ID = COUNT
KEYS = st.tuples(COUNT, COUNT)
COUNTERS = st.dictionaries(TEXT, COUNT, max_size=4)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=12,
)
OBJECT = st.dictionaries(TEXT, st.none() | st.booleans() | COUNT | TEXT, max_size=4)
ERROR = st.builds(WorkError, TEXT, TEXT, st.none() | TEXT)
EVENT = st.builds(
    WorkEvent,
    st.sampled_from(["info", "warning", "error"]),
    TEXT,
    TEXT,
    st.none() | st.binary(max_size=20),
)
WORK = st.builds(BackupWork, TEXT, TEXT, st.lists(TEXT, max_size=3).map(tuple))
ENDED = st.builds(
    WorkEnded,
    COUNT,
    COUNT,
    st.none(),
    st.lists(EVENT, max_size=3).map(tuple),
    COUNT,
    COUNTERS,
    st.none() | ERROR,
)
MESSAGE = st.one_of(
    st.builds(
        sessions.Hello,
        KEYS,
        TEXT,
        TEXT,
        TEXT,
        TEXT,
        st.lists(KEYS, max_size=3).map(tuple),
        st.lists(TEXT, max_size=3).map(tuple),
        st.lists(TEXT, max_size=3).map(tuple),
    ),
    st.builds(sessions.Welcome, COUNT, NUMBER, NUMBER),
    st.builds(sessions.Offer, st.builds(WorkOffer, COUNT, COUNT, NUMBER, WORK), st.none() | OBJECT),
    st.builds(sessions.Tell, ID, st.builds(WorkProgress, COUNT, COUNT, COUNTERS) | ENDED),
    st.builds(sessions.Answered, ID, st.none() | st.sampled_from(Answer), st.none() | ERROR),
    st.builds(sessions.Ask, ID, OBJECT),
    st.builds(sessions.Report, ID, st.none() | OBJECT, st.none() | ERROR),
    st.builds(sessions.Heartbeat, st.dictionaries(TEXT, NUMBER, max_size=3)),
)
KINDS = st.sampled_from(
    ["hello", "welcome", "offer", "tell", "answered", "ask", "report", "heartbeat", "moon"]
)


def refused(text: str) -> str | None:
    """How a text is refused; None if it is not."""
    try:
        sessions.from_text(text)
    except Invalid as error:
        return error.message
    return None


@given(MESSAGE, st.dictionaries(st.text("xyz", min_size=1), JSON, max_size=2))
def test_a_message_comes_back_as_it_was_whatever_else_it_says(
    message: sessions.Message, more: dict[str, Any]
) -> None:
    text = sessions.to_text(message)
    assert sessions.from_text(text) == message
    assert sessions.from_text(json.dumps(more | json.loads(text))) == message


@given(st.one_of(TEXT, JSON.map(json.dumps), st.just("[" * 100_000)))
def test_rubbish_is_refused_and_nothing_else(text: str) -> None:
    assert len(refused(text) or "") < 300


@given(KINDS, st.data())
def test_a_message_with_wrong_fields_is_refused_or_read(kind: str, data: st.DataObject) -> None:
    right = json.loads(sessions.to_text(data.draw(MESSAGE)))
    names = [*right, "protocols", "events", "ended", "work", "counters", "error"]
    wrong = data.draw(st.dictionaries(st.sampled_from(names), JSON, max_size=4))
    assert len(refused(json.dumps(right | wrong | {"say": kind})) or "") < 300


@given(OBJECT | JSON)
def test_what_was_seen_is_read_or_refused(given_: Any) -> None:
    data = given_ if isinstance(given_, dict) else {"troubles": given_}
    right = LookReport("root", (Trouble("error", "a", "b"),), 1, 2, 3).to_json()
    for read, base in ((LookReport, right), (LookOrder, LookOrder(("/etc",)).to_json())):
        try:
            read.from_json(json.loads(json.dumps(base | data)))
        except Invalid:
            continue


@given(KEYS, KEYS)
def test_both_ends_agree_on_the_same_version_or_on_none(
    ours: tuple[int, int], theirs: tuple[int, int]
) -> None:
    def agreed(one: tuple[int, int], other: tuple[int, int]) -> int | None:
        try:
            return sessions.agree(one, other)
        except Unsupported:
            return None

    found = agreed(ours, theirs)
    assert found == agreed(theirs, ours)
    if found is not None:
        assert ours[0] <= found <= ours[1]
        assert theirs[0] <= found <= theirs[1]
