"""What the engine may rely on in a store, on every kind of store that there is."""

from __future__ import annotations

import errno
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from holdfast.engine import Store

THREADS = 16
MEBIBYTE = 1 << 20


def listed(store: Store, prefix: str) -> list[tuple[str, int]]:
    return [found for page in store.list(prefix) for found in page]


def test_what_was_put_is_read_back(store: Store) -> None:
    store.put("images/one", b"some bytes")
    assert store.get("images/one") == b"some bytes"
    assert type(store.get("images/one")) is bytes


def test_an_object_at_the_top_and_one_deep_down_are_both_there(store: Store) -> None:
    store.put("pool", b"top")
    store.put("packs/ab/abcdef", b"deep")
    assert store.get("pool") == b"top"
    assert store.get("packs/ab/abcdef") == b"deep"


def test_an_empty_object_is_an_object(store: Store) -> None:
    store.put("jobs/empty", b"")
    assert store.get("jobs/empty") == b""
    assert store.size("jobs/empty") == 0
    assert listed(store, "jobs/") == [("jobs/empty", 0)]


def test_a_second_put_replaces_the_first(store: Store) -> None:
    store.put("jobs/one", b"a long first version")
    store.put("jobs/one", b"second")
    assert store.get("jobs/one") == b"second"
    assert store.size("jobs/one") == 6


def test_an_object_of_many_parts_comes_back_whole(store: Store) -> None:
    block = bytes(range(256)) * 4096
    data = b"".join(number.to_bytes(4, "little") + block for number in range(40))
    store.put("packs/aa/large", data)
    assert store.size("packs/aa/large") == len(data)
    assert store.get("packs/aa/large") == data
    at = 33 * MEBIBYTE
    assert store.get_range("packs/aa/large", at, MEBIBYTE) == data[at : at + MEBIBYTE]


def test_an_absent_object_is_reported_as_such(store: Store) -> None:
    store.put("images/other", b"x")
    with pytest.raises(FileNotFoundError, match="images/one"):
        store.get("images/one")
    with pytest.raises(FileNotFoundError, match="images/one"):
        store.get_range("images/one", 0, 1)
    assert store.size("images/one") is None


def test_a_range_has_exactly_the_bytes_asked_for(store: Store) -> None:
    store.put("packs/aa/one", bytes(range(200)))
    assert store.get_range("packs/aa/one", 0, 200) == bytes(range(200))
    assert store.get_range("packs/aa/one", 17, 3) == bytes([17, 18, 19])
    assert store.get_range("packs/aa/one", 199, 1) == bytes([199])
    assert store.get_range("packs/aa/one", 5, 0) == b""


@pytest.mark.parametrize(("offset", "length"), [(0, 11), (9, 2), (10, 1), (500, 5)])
def test_a_range_past_the_end_is_an_error_and_never_short(
    store: Store, offset: int, length: int
) -> None:
    store.put("packs/aa/one", b"0123456789")
    with pytest.raises(OSError, match="packs/aa/one") as caught:
        store.get_range("packs/aa/one", offset, length)
    assert caught.value.errno == errno.EBADMSG


def test_put_if_absent_writes_once_and_leaves_the_first_alone(store: Store) -> None:
    assert store.put_if_absent("images/one", b"first") is True
    assert store.put_if_absent("images/one", b"second") is False
    assert store.get("images/one") == b"first"
    store.delete("images/one")
    assert store.put_if_absent("images/one", b"third") is True
    assert store.get("images/one") == b"third"


def test_put_if_absent_respects_what_put_has_written(store: Store) -> None:
    store.put("pool", b"first")
    assert store.put_if_absent("pool", b"second") is False
    assert store.get("pool") == b"first"


def test_a_store_says_where_it_is(store: Store) -> None:
    assert str(store) == getattr(store, "place", None)


def test_of_racing_creators_exactly_one_wins(store: Store) -> None:
    def create(key: str, number: int) -> int | None:
        start.wait()
        mine = bytes([number]) * 5000
        return number if store.put_if_absent(key, mine) else None

    for round_ in range(20):
        key = f"images/round-{round_}"
        start = threading.Barrier(THREADS)
        with ThreadPoolExecutor(THREADS) as threads:
            won = list(threads.map(lambda number: create(key, number), range(THREADS)))  # noqa: B023
        winners = [number for number in won if number is not None]
        assert len(winners) == 1, f"round {round_}: {winners}"
        assert store.get(key) == bytes([winners[0]]) * 5000
    assert len(listed(store, "images/")) == 20


def test_a_reader_sees_the_old_object_or_the_new_but_never_a_part(store: Store) -> None:
    versions = {bytes([number]) * (100_000 + number) for number in range(8)}
    store.put("jobs/one", min(versions))
    done = threading.Event()

    def read() -> int:
        reads = 0
        while not done.is_set() or reads < 10:
            assert store.get("jobs/one") in versions
            reads += 1
        return reads

    with ThreadPoolExecutor(4) as threads:
        readers = [threads.submit(read) for _ in range(3)]
        try:
            for _ in range(5):
                for version in versions:
                    store.put("jobs/one", version)
        finally:
            done.set()
        assert all(reader.result() >= 10 for reader in readers)


def test_many_threads_write_and_read_at_once(store: Store) -> None:
    def work(number: int) -> bool:
        keys = [f"packs/{number:02x}/{step}" for step in range(10)]
        for key in keys:
            store.put(key, key.encode() * 50)
        return all(store.get(key) == key.encode() * 50 for key in keys)

    with ThreadPoolExecutor(THREADS) as threads:
        assert all(threads.map(work, range(THREADS)))
    assert len(listed(store, "packs/")) == THREADS * 10


def test_a_list_names_every_object_under_a_prefix_once_with_its_size(store: Store) -> None:
    expected = {f"packs/{number % 7:02x}/{number:04}": number % 13 for number in range(2300)}
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda item: store.put(item[0], b"x" * item[1]), expected.items()))
    store.put("images/other", b"x")
    pages = list(store.list("packs/"))
    assert len(pages) > 1, "a large list comes in pages"
    found = [entry for page in pages for entry in page]
    assert len(found) == len(expected)
    assert dict(found) == expected


def test_a_list_goes_by_whole_parts_of_keys(store: Store) -> None:
    store.put("packs/ab/one", b"1")
    store.put("packs/abc/two", b"22")
    store.put("packs2/ab/three", b"333")
    assert listed(store, "packs/ab/") == [("packs/ab/one", 1)]
    assert sorted(listed(store, "packs/")) == [("packs/ab/one", 1), ("packs/abc/two", 2)]


def test_a_list_of_everything_has_every_object(store: Store) -> None:
    keys = ["pool", "packs/ab/one", "keys/a-b_c.json", "x/tmp", "a..b"]
    for key in keys:
        store.put(key, b"x")
    assert sorted(listed(store, "")) == [(key, 1) for key in sorted(keys)]


def test_a_list_of_nothing_is_empty(store: Store) -> None:
    assert listed(store, "marks/") == []
    store.put("images/one", b"x")
    assert listed(store, "marks/") == []


def test_a_deleted_object_is_gone_and_deleting_it_again_is_fine(store: Store) -> None:
    store.put("marks/one", b"x")
    store.put("marks/two", b"x")
    store.delete("marks/one")
    store.delete("marks/one")
    store.delete("marks/never")
    store.delete("nowhere/never")
    assert store.size("marks/one") is None
    assert listed(store, "marks/") == [("marks/two", 1)]


@pytest.mark.parametrize(
    "key",
    [
        "",
        "/",
        "/pool",
        "pool/",
        "a//b",
        "../pool",
        "a/../b",
        "a/./b",
        ".hidden",
        "a/.hidden",
        "a\0b",
        "a\\b",
        "ä",
        "a b",
        "tmp",
        "tmp/x",
        "a" * 256,
        "a/" * 600 + "a",
    ],
    ids=lambda key: repr(key[:20]),
)
def test_a_key_that_could_climb_or_needs_quoting_is_refused(store: Store, key: str) -> None:
    for refused in (
        lambda: store.get(key),
        lambda: store.put(key, b"x"),
        lambda: store.put_if_absent(key, b"x"),
        lambda: store.size(key),
        lambda: store.delete(key),
        lambda: list(store.list(f"{key}/")),
        lambda: list(store.list(f"{key}x")),
    ):
        with pytest.raises(ValueError, match=r"can't be the key|is not a prefix"):
            refused()
