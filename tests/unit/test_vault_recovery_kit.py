"""A pool key goes to paper and comes back, or the wrong word is named."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.base.errors import Invalid
from holdfast.vault import recovery_kit

POOL_ID = bytes(range(0xA0, 0xB0))
POOL_KEY = bytes(range(32))
MADE = datetime(2026, 11, 21, 12, 34, tzinfo=UTC)
KIT = recovery_kit.make(POOL_ID, "s3://bucket/<odd>&co", POOL_KEY, MADE)
WORDS = recovery_kit.to_words(POOL_ID, POOL_KEY)


@given(pool_id=st.binary(min_size=16, max_size=16), key=st.binary(min_size=32, max_size=32))
def test_every_key_comes_back_from_its_text_its_words_and_its_code(
    pool_id: bytes, key: bytes
) -> None:
    kit = recovery_kit.make(pool_id, "/srv/pool", key, MADE)
    assert recovery_kit.read(kit.text) == key
    assert recovery_kit.read(kit.payload) == key
    assert recovery_kit.from_words(recovery_kit.to_words(pool_id, key), pool_id) == key


def test_the_words_are_those_of_bip39() -> None:
    # the published test vector for 32 bytes of 7f
    published = "legal winner thank year wave sausage worth useful " * 2
    published += "legal winner thank year wave sausage worth title"
    assert recovery_kit.to_words(POOL_ID, b"\x7f" * 32)[:24] == published.split()


@pytest.mark.parametrize(
    "text",
    [
        " ".join(WORDS),
        "\n".join(WORDS),
        " ".join(WORDS[:24]),
        " ".join(WORDS).upper(),
        "\n".join(f"{at:02}. {word}" for at, word in enumerate(WORDS, 1)),
        "\n".join(reversed([f"{at:02} {word}" for at, word in enumerate(WORDS, 1)])),
        f"  {KIT.payload.lower()}\n",
        f"{POOL_KEY.hex()}\n",
        KIT.text.replace("\n", "\r\n"),
    ],
)
def test_a_key_is_read_however_a_person_brings_it(text: str) -> None:
    assert recovery_kit.read(text) == POOL_KEY


@pytest.mark.parametrize(
    ("at", "typed", "meant"),
    [(1, "abandn", "abandon"), (8, "gesturre", "gesture"), (24, "xart", "art")],
)
def test_a_word_that_is_none_is_named_with_its_place_and_the_nearest(
    at: int, typed: str, meant: str
) -> None:
    words = recovery_kit.to_words(POOL_ID, bytes(32))
    words[at - 1] = typed
    with pytest.raises(Invalid) as caught:
        recovery_kit.read(" ".join(words))
    assert f"word {at}, '{typed}', is not in the list, did you mean '{meant}'?" in str(caught.value)


def test_all_wrong_words_are_named_at_once() -> None:
    words = [*WORDS[:3], "qqqq", *WORDS[4:9], "zzzz", *WORDS[10:]]
    with pytest.raises(Invalid, match=r"word 4, 'qqqq'.*; word 10, 'zzzz'"):
        recovery_kit.read(" ".join(words))


def test_a_word_taken_for_another_is_found_and_named() -> None:
    for at, other in ((0, "zebra"), (11, "zoo"), (24, "zone")):
        words = [*WORDS[:at], other, *WORDS[at + 1 :]]
        with pytest.raises(Invalid, match=f"word {at + 1}, '{other}', should be '{WORDS[at]}'"):
            recovery_kit.from_words(words, POOL_ID)


def test_neighbours_in_the_wrong_order_are_named() -> None:
    words = WORDS.copy()
    words[5], words[6] = words[6], words[5]
    with pytest.raises(Invalid, match="words 6 and 7 are in the wrong order"):
        recovery_kit.from_words(words, POOL_ID)


def test_no_single_wrong_word_goes_unnoticed() -> None:
    for at, word in enumerate(WORDS):
        other = "zoo" if word != "zoo" else "zone"
        words = [*WORDS[:at], other, *WORDS[at + 1 :]]
        with pytest.raises(Invalid):
            recovery_kit.from_words(words, POOL_ID)


@pytest.mark.parametrize(
    "text", ["", "one two three", " ".join(WORDS[:23]), " ".join(WORDS + WORDS), "x" * 70_000]
)
def test_a_text_that_is_no_kit_is_refused(text: str) -> None:
    with pytest.raises(Invalid, match="recovery kit"):
        recovery_kit.read(text)


def test_a_kit_that_lacks_a_word_says_which() -> None:
    text = re.sub(r"17 \w+", "", KIT.text)
    with pytest.raises(Invalid, match="no word 17"):
        recovery_kit.read(text)


def test_a_wrong_digit_in_the_code_is_noticed() -> None:
    for at in (16, 40, 60, 110, len(KIT.payload) - 1):
        digit = "0" if KIT.payload[at] != "0" else "1"
        with pytest.raises(Invalid):
            recovery_kit.read(KIT.payload[:at] + digit + KIT.payload[at + 1 :])


def test_a_code_of_a_newer_kit_is_refused_with_advice() -> None:
    with pytest.raises(Invalid, match="version 2") as caught:
        recovery_kit.read(KIT.payload.replace("KIT:1:", "KIT:2:"))
    assert caught.value.hint == "use a newer Holdfast"


def test_the_text_fits_a_printed_page() -> None:
    assert all(len(line) <= 78 for line in KIT.text.splitlines())
    assert len(KIT.text.splitlines()) < 60
    assert POOL_ID.hex() in KIT.text
    assert "2026-11-21" in KIT.text


class Links(HTMLParser):
    """Collects what a page would fetch or run."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.items: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.items.append(tag)
        names = {"src", "href", "xlink:href", "data", "action"}
        self.found += [str(value) for name, value in attrs if name in names]
        if tag in {"script", "link", "iframe", "object", "img"}:
            self.found.append(tag)


def test_the_page_needs_nothing_from_anywhere() -> None:
    links = Links()
    links.feed(KIT.html)
    assert links.found == []
    assert "svg" in links.items
    assert "@import" not in KIT.html
    assert "url(" not in KIT.html


def test_the_page_carries_everything_and_quotes_what_it_was_given() -> None:
    assert "s3://bucket/&lt;odd&gt;&amp;co" in KIT.html
    assert POOL_ID.hex() in KIT.html
    assert "2026-11-21" in KIT.html
    assert re.findall(r"<li>(\w+)</li>", KIT.html) == WORDS


def test_a_kit_does_not_show_when_printed() -> None:
    assert WORDS[0] not in repr(KIT)
    assert POOL_KEY.hex().upper() not in repr(KIT)
