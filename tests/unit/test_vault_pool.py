"""Pools are made and opened by URL and secret, and nothing half made is left."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

import pytest

from holdfast.base.errors import (
    HoldfastError,
    InputOutput,
    Invalid,
    NewerFormat,
    NoSpace,
    NotAPool,
    PoolExists,
    SecretMissing,
    WrongKey,
)
from holdfast.vault import (
    KeyFile,
    Passphrase,
    PoolKey,
    add_slot,
    create_pool,
    keys,
    list_slots,
    open_pool,
    python_store,
    recovery_kit,
    unwrap,
)
from tests.kit.clock import FakeClock

if TYPE_CHECKING:
    from pathlib import Path

WORDS = Passphrase("correct horse battery staple")
CLOCK = FakeClock()


@pytest.fixture(autouse=True)
def cheap_passphrases(monkeypatch: pytest.MonkeyPatch) -> None:
    """Derive keys at the least cost: how slow guessing is has its own test."""
    cheap = keys.Cost(memory_kib=64, passes=1, lanes=1)
    real = keys.add_slot

    def add(store: Any, pool_id: bytes, pool_key: bytes, secret: Any) -> keys.Slot:
        return real(store, pool_id, pool_key, secret, cheap)

    monkeypatch.setattr(keys, "add_slot", add)


@pytest.fixture(params=["directory", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a pool may be made."""
    if request.param == "directory":
        return str(tmp_path / "deep" / "pool")
    return f"memory://{tmp_path.name}-{tmp_path.parent.name}"


def objects(url: str) -> list[str]:
    return [key for page in python_store(url).list("") for key, _ in page]


def test_a_pool_opens_with_the_passphrase_it_was_made_with(url: str) -> None:
    made = create_pool(url, secret=WORDS, clock=CLOCK)
    opened = open_pool(url, secret=WORDS, cache_dir=None)
    assert opened.id == made.id
    assert opened.config.chunk_avg == 32768
    assert [slot.kind for slot in list_slots(url)] == ["passphrase"]


def test_a_pool_opens_with_its_key_file(url: str, tmp_path: Path) -> None:
    key_file = KeyFile(tmp_path / "key")
    key_file.make()
    made = create_pool(url, secret=key_file, clock=CLOCK)
    assert open_pool(url, secret=key_file, cache_dir=None).id == made.id


def test_a_pool_made_with_the_naming_of_another_keeps_it(url: str, tmp_path: Path) -> None:
    first = create_pool(str(tmp_path / "first"), secret=PoolKey(bytes(32)), clock=CLOCK)
    made = create_pool(url, secret=WORDS, clock=CLOCK, naming=first.naming)
    opened = open_pool(url, secret=WORDS, cache_dir=None)
    assert made.naming == opened.naming == first.naming
    assert made.id != first.id
    alone = create_pool(str(tmp_path / "alone"), secret=PoolKey(bytes(range(32))), clock=CLOCK)
    assert alone.naming != first.naming


def test_naming_of_another_length_is_refused_and_nothing_is_made(url: str) -> None:
    with pytest.raises(Invalid, match="128 bytes"):
        create_pool(url, secret=WORDS, clock=CLOCK, naming=bytes(127))
    assert objects(url) == []


def test_a_wrong_passphrase_opens_nothing(url: str) -> None:
    create_pool(url, secret=WORDS, clock=CLOCK)
    with pytest.raises(WrongKey):
        open_pool(url, secret=Passphrase("wrong"), cache_dir=None)


def test_a_second_pool_is_not_made_over_the_first(url: str) -> None:
    made = create_pool(url, secret=WORDS, clock=CLOCK)
    before = objects(url)
    with pytest.raises(PoolExists):
        create_pool(url, secret=Passphrase("other"), clock=CLOCK)
    assert objects(url) == before
    assert open_pool(url, secret=WORDS, cache_dir=None).id == made.id


@pytest.mark.parametrize(
    ("number", "expected"), [(errno.ENOSPC, NoSpace), (errno.EIO, InputOutput)]
)
def test_a_pool_whose_slot_cannot_be_written_leaves_nothing_in_the_way(
    url: str, number: int, expected: type[HoldfastError], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_arguments: object) -> None:
        raise OSError(number, "the disk says no")

    with monkeypatch.context() as patch:
        patch.setattr(keys, "add_slot", fails)
        with pytest.raises(expected, match="the disk says no"):
            create_pool(url, secret=WORDS, clock=CLOCK)
    assert objects(url) == []
    create_pool(url, secret=WORDS, clock=CLOCK)
    open_pool(url, secret=WORDS, cache_dir=None)


def test_an_unusable_secret_is_refused_before_anything_is_written(url: str, tmp_path: Path) -> None:
    with pytest.raises(Invalid):
        create_pool(url, secret=Passphrase(""), clock=CLOCK)
    with pytest.raises(SecretMissing):
        create_pool(url, secret=KeyFile(tmp_path / "none"), clock=CLOCK)
    assert objects(url) == []


def test_a_place_without_a_pool_is_named(url: str, tmp_path: Path) -> None:
    for place in (url, str(tmp_path)):
        with pytest.raises(NotAPool) as caught:
            open_pool(place, secret=WORDS, cache_dir=None)
        assert place in str(caught.value)


def test_a_pool_of_a_newer_format_is_refused(url: str) -> None:
    create_pool(url, secret=WORDS, clock=CLOCK)
    store = python_store(url)
    raw = bytearray(store.get("pool"))
    raw[7] = 9
    store.put("pool", bytes(raw))
    with pytest.raises(NewerFormat, match="9"):
        open_pool(url, secret=WORDS, cache_dir=None)


def test_with_the_recovery_kit_a_pool_opens_when_all_slots_are_lost(url: str) -> None:
    made = create_pool(url, secret=WORDS, clock=CLOCK)
    kit = recovery_kit.make(made.id, url, unwrap(url, WORDS), CLOCK.now())
    store = python_store(url)
    for slot in list_slots(url):
        keys.remove_slot(store, slot.id)
    with pytest.raises(WrongKey, match="no key slots"):
        open_pool(url, secret=WORDS, cache_dir=None)

    pool_key = recovery_kit.read(kit.text)
    assert open_pool(url, secret=PoolKey(pool_key), cache_dir=None).id == made.id
    add_slot(url, pool_key, Passphrase("new words"))
    assert open_pool(url, secret=Passphrase("new words"), cache_dir=None).id == made.id


def test_a_slot_is_added_only_with_the_pools_own_key(url: str) -> None:
    create_pool(url, secret=WORDS, clock=CLOCK)
    before = objects(url)
    with pytest.raises(WrongKey):
        add_slot(url, bytes(32), Passphrase("words of a thief"))
    assert objects(url) == before


def test_a_pool_made_with_a_given_key_has_no_slot(url: str) -> None:
    made = create_pool(url, secret=PoolKey(bytes(range(32))), clock=CLOCK)
    assert list_slots(url) == []
    assert open_pool(url, secret=PoolKey(bytes(range(32))), cache_dir=None).id == made.id


def test_a_key_of_another_pool_is_told_from_damage(url: str) -> None:
    create_pool(url, secret=WORDS, clock=CLOCK)
    with pytest.raises(WrongKey):
        open_pool(url, secret=PoolKey(bytes(32)), cache_dir=None)
