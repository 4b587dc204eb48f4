"""Which secrets open a pool, and what a hostile or damaged slot can't do."""

from __future__ import annotations

import json
import stat
import time
import unicodedata
from typing import TYPE_CHECKING, Any

import pytest

from holdfast.base.errors import (
    InputOutput,
    IntegrityError,
    Invalid,
    NewerFormat,
    NotFound,
    SecretMissing,
    WrongKey,
)
from holdfast.vault import keys
from holdfast.vault.backends.directory import DirectoryStore
from holdfast.vault.secrets import KeyFile, Passphrase, PoolKey

if TYPE_CHECKING:
    from pathlib import Path

POOL_ID = bytes(range(16))
POOL_KEY = bytes(range(32))
CHEAP = keys.Cost(memory_kib=64, passes=1, lanes=1)


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path / "pool")


def add(store: DirectoryStore, words: str) -> keys.Slot:
    return keys.add_slot(store, POOL_ID, POOL_KEY, Passphrase(words), CHEAP)


def changed(store: DirectoryStore, slot: keys.Slot, **fields: Any) -> None:
    """Write a slot again with some fields of its JSON text replaced."""
    key = f"keys/{slot.id}.json"
    store.put(key, json.dumps(json.loads(store.get(key)) | fields).encode())


def test_every_secret_that_has_a_slot_opens_the_pool(store: DirectoryStore, tmp_path: Path) -> None:
    key_file = KeyFile(tmp_path / "key")
    key_file.make()
    add(store, "first words")
    add(store, "other words")
    keys.add_slot(store, POOL_ID, POOL_KEY, key_file)
    for secret in (Passphrase("first words"), Passphrase("other words"), key_file):
        assert keys.unwrap(store, POOL_ID, secret) == POOL_KEY
    assert sorted(slot.kind for slot in keys.list_slots(store, POOL_ID)) == [
        "key-file",
        "passphrase",
        "passphrase",
    ]


def test_the_bare_pool_key_needs_no_slot(store: DirectoryStore) -> None:
    assert keys.unwrap(store, POOL_ID, PoolKey(POOL_KEY)) == POOL_KEY


def test_the_default_cost_is_64_mib_3_passes_4_lanes(store: DirectoryStore) -> None:
    slot = keys.add_slot(store, POOL_ID, POOL_KEY, Passphrase("words"))
    assert slot.cost == keys.Cost(memory_kib=32768, passes=3, lanes=4)
    assert keys.unwrap(store, POOL_ID, Passphrase("words")) == POOL_KEY


def test_a_wrong_passphrase_is_named_as_such_and_not_repeated(store: DirectoryStore) -> None:
    add(store, "right words")
    with pytest.raises(WrongKey, match="passphrase does not open") as caught:
        keys.unwrap(store, POOL_ID, Passphrase("wrong words"))
    assert caught.value.code == "wrong-key"
    assert "wrong words" not in f"{caught.value} {caught.value.hint}"


def test_a_wrong_kind_of_secret_is_told_which_kind_is_wanted(
    store: DirectoryStore, tmp_path: Path
) -> None:
    key_file = KeyFile(tmp_path / "key")
    key_file.make()
    add(store, "words")
    with pytest.raises(WrongKey, match="can't be opened by a key file") as caught:
        keys.unwrap(store, POOL_ID, key_file)
    assert caught.value.hint == "use the passphrase"


def test_a_pool_without_slots_asks_for_its_recovery_kit(store: DirectoryStore) -> None:
    with pytest.raises(WrongKey, match="no key slots") as caught:
        keys.unwrap(store, POOL_ID, Passphrase("words"))
    assert "recovery kit" in str(caught.value.hint)


def test_a_slot_of_another_pool_is_not_used(store: DirectoryStore) -> None:
    slot = keys.add_slot(store, b"another pool id!", POOL_KEY, Passphrase("words"), CHEAP)
    with pytest.raises(WrongKey):
        keys.unwrap(store, POOL_ID, Passphrase("words"))
    changed(store, slot, pool=POOL_ID.hex())
    with pytest.raises(WrongKey):
        keys.unwrap(store, POOL_ID, Passphrase("words"))


@pytest.mark.parametrize(
    "fields",
    [
        {"argon2id": {"memory_kib": 65, "passes": 1, "lanes": 1}},
        {"argon2id": {"memory_kib": 64, "passes": 2, "lanes": 1}},
        {"kind": "key-file"},
        {"salt": "00" * 32},
        {"nonce": "00" * 12},
        {"wrapped": "00" * 48},
    ],
)
def test_no_field_of_a_slot_can_be_exchanged(store: DirectoryStore, fields: dict[str, Any]) -> None:
    slot = add(store, "words")
    changed(store, slot, **fields)
    with pytest.raises(WrongKey):
        keys.unwrap(store, POOL_ID, Passphrase("words"))


@pytest.mark.parametrize(
    "cost",
    [
        {"memory_kib": 1 << 30, "passes": 1, "lanes": 1},
        {"memory_kib": 64, "passes": 1 << 40, "lanes": 1},
        {"memory_kib": 1 << 20, "passes": 1, "lanes": 17},
        {"memory_kib": 8, "passes": 1, "lanes": 2},
        {"memory_kib": 0, "passes": 1, "lanes": 1},
        {"memory_kib": -8, "passes": 1, "lanes": 1},
        {"memory_kib": True, "passes": 1, "lanes": 1},
        {"memory_kib": 64.0, "passes": 1, "lanes": 1},
        {"memory_kib": "64", "passes": 1, "lanes": 1},
        {"memory_kib": 64, "passes": 1},
        {"memory_kib": 64, "passes": 1, "lanes": 1, "more": 1},
        [],
        None,
    ],
)
def test_a_hostile_slot_cannot_ask_for_unreasonable_work(store: DirectoryStore, cost: Any) -> None:
    slot = add(store, "words")
    changed(store, slot, argon2id=cost)
    began = time.monotonic()
    with pytest.raises(IntegrityError, match=slot.id):
        keys.unwrap(store, POOL_ID, Passphrase("words"))
    assert time.monotonic() - began < 1, "it must be refused before any work is done"


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b"7",
        b"{}",
        b'{"format": "another"}',
        b"[" * 60_000,
        b'{"format": "holdfast key slot", "version": 1, "kind": "key-file", "pool": "zz"}',
    ],
)
def test_a_damaged_slot_is_named_unless_another_opens(store: DirectoryStore, raw: bytes) -> None:
    store.put("keys/0000.json", raw)
    with pytest.raises(IntegrityError, match="key slot '0000' is damaged"):
        keys.unwrap(store, POOL_ID, Passphrase("words"))
    add(store, "words")
    assert keys.unwrap(store, POOL_ID, Passphrase("words")) == POOL_KEY


def test_a_huge_slot_is_not_read(store: DirectoryStore) -> None:
    store.put("keys/0000.json", b" " * (keys.MAX_SLOT_BYTES + 1))
    with pytest.raises(IntegrityError, match="65537 bytes"):
        keys.unwrap(store, POOL_ID, Passphrase("words"))


@pytest.mark.parametrize("fields", [{"version": 2}, {"kind": "smart-card"}])
def test_a_slot_of_a_newer_format_is_refused_with_advice(
    store: DirectoryStore, fields: dict[str, Any]
) -> None:
    changed(store, add(store, "words"), **fields)
    with pytest.raises(NewerFormat) as caught:
        keys.unwrap(store, POOL_ID, Passphrase("words"))
    assert caught.value.hint == "use a newer Holdfast"


def test_a_passphrase_is_the_same_however_unicode_spells_it(store: DirectoryStore) -> None:
    words = "Schlüssel für später"
    add(store, unicodedata.normalize("NFD", words))
    assert keys.unwrap(store, POOL_ID, Passphrase(words)) == POOL_KEY


def test_a_removed_slot_opens_nothing(store: DirectoryStore) -> None:
    slot = add(store, "words")
    keys.remove_slot(store, slot.id)
    with pytest.raises(WrongKey):
        keys.unwrap(store, POOL_ID, Passphrase("words"))
    with pytest.raises(NotFound):
        keys.remove_slot(store, slot.id)


def test_the_pool_key_is_in_no_slot_in_the_clear(store: DirectoryStore, tmp_path: Path) -> None:
    add(store, "words")
    key_file = KeyFile(tmp_path / "key")
    key_file.make()
    keys.add_slot(store, POOL_ID, POOL_KEY, key_file)
    stored = b"".join(store.get(key) for page in store.list("keys/") for key, _ in page)
    assert POOL_KEY not in stored
    assert POOL_KEY.hex().encode() not in stored
    assert key_file.read().hex().encode() not in stored


def test_secrets_do_not_show_when_printed() -> None:
    assert "hunter2" not in repr(Passphrase("hunter2"))
    assert POOL_KEY.hex() not in repr(PoolKey(POOL_KEY))
    assert repr(POOL_KEY) not in repr(PoolKey(POOL_KEY))


def test_a_key_file_is_its_owners_alone_and_never_overwritten(tmp_path: Path) -> None:
    key_file = KeyFile(tmp_path / "key")
    key_file.make()
    assert stat.S_IMODE(key_file.path.stat().st_mode) == 0o600
    secret = key_file.read()
    assert len(secret) == 32
    with pytest.raises(Invalid, match="exists already"):
        key_file.make()
    assert key_file.read() == secret


@pytest.mark.parametrize("raw", [b"", b"words\n", b"holdfast key file v1: 00ff\n", b"\xff" * 80])
def test_a_foreign_file_is_no_key_file(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "key").write_bytes(raw)
    with pytest.raises(Invalid, match="not a Holdfast key file"):
        KeyFile(tmp_path / "key").read()


def test_a_missing_key_file_is_a_missing_secret(tmp_path: Path) -> None:
    with pytest.raises(SecretMissing, match="no key file"):
        KeyFile(tmp_path / "key").read()


def test_a_directory_is_no_key_file_and_no_passphrase_file(tmp_path: Path) -> None:
    with pytest.raises(InputOutput, match="key file"):
        KeyFile(tmp_path).read()
    with pytest.raises(InputOutput, match="passphrase file"):
        Passphrase.read(tmp_path)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [(b"words", "words"), (b"words\n", "words"), (b"words \r\n", "words "), (b"a\n\n", "a\n")],
)
def test_a_passphrase_file_gives_its_text_without_the_line_end(
    tmp_path: Path, raw: bytes, expected: str
) -> None:
    (tmp_path / "words").write_bytes(raw)
    assert Passphrase.read(tmp_path / "words").text == expected


@pytest.mark.parametrize("raw", [b"", b"\n", b"\xff\xfe\n", b"x" * 5000])
def test_an_unusable_passphrase_file_is_refused(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "words").write_bytes(raw)
    with pytest.raises(Invalid, match="passphrase file"):
        Passphrase.read(tmp_path / "words")
