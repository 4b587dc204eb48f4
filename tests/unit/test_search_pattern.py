"""What the search index is asked for is little, and leaves next to nothing of a pattern out."""

from __future__ import annotations

import string

import pytest

from holdfast.control.catalog.pattern import parse


@pytest.mark.parametrize("length", range(15))
def test_trigrams_have_nearly_every_character_of_a_term_in_them(length: int) -> None:
    term = string.ascii_lowercase[:length]
    trigrams = parse(term).required
    assert all(one in term for one in trigrams)
    left_out = set(term) - set("".join(trigrams))
    if length < 3:
        assert not trigrams
    elif length % 3 == 1 and length > 4:
        # a list more for the sake of one character would cost more than it rules out
        assert (len(left_out), len(trigrams)) == (1, length // 3)
    else:
        assert (len(left_out), len(trigrams)) == (0, -(-length // 3))


def test_ends_of_a_term_are_asked_for() -> None:
    assert parse("invoice").required == {"inv", "ice"}
    assert parse("0123456789").required == {"012", "345", "789"}
    assert parse("*.json").required == {".js", "son"}
