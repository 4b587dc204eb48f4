"""Which store a URL opens, and what a directory holds when writing to it fails."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from holdfast.base.errors import Invalid
from holdfast.vault import open_store, python_store
from holdfast.vault.backends.directory import DirectoryStore


def test_a_path_opens_the_directory_it_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert open_store("/srv/pool") == "/srv/pool"
    assert open_store("file:///srv/my%20pool") == "/srv/my pool"
    assert open_store("pool") == str(tmp_path / "pool")
    assert isinstance(python_store("/srv/pool"), DirectoryStore)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "ftp://host/x",
        "http://host/x",
        "file://host/x",
        "s3://",
        "s3://bucket?colour=blue",
        "s3://bucket?endpoint=",
        "gs://bucket?region=x",
        "s3://AKIA:secret@bucket/x",
    ],
)
def test_a_url_that_names_no_store_is_refused_with_advice(url: str) -> None:
    with pytest.raises(Invalid) as caught:
        open_store(url)
    assert caught.value.hint
    assert "secret" not in str(caught.value)


def test_one_memory_url_is_one_store_in_a_process() -> None:
    python_store("memory://one-test").put("pool", b"x")
    assert python_store("memory://one-test/").get("pool") == b"x"
    assert python_store("memory://another-test").size("pool") is None


def test_a_put_that_fails_leaves_the_old_object_and_no_litter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = DirectoryStore(tmp_path)
    store.put("keys/one", b"old")

    def full(_handle: int) -> None:
        raise OSError(errno.ENOSPC, "no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="no space"):
            store.put("keys/one", b"new")
        with pytest.raises(OSError, match="no space"):
            store.put_if_absent("keys/two", b"new")
    assert store.get("keys/one") == b"old"
    assert [path.name for path in (tmp_path / "keys").iterdir()] == ["one"]


def test_a_file_on_its_way_is_no_object(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    store.put("keys/one", b"x")
    (tmp_path / "keys" / ".one.0123456789abcdef").write_bytes(b"half")
    assert list(store.list("keys/")) == [[("keys/one", 1)]]


def test_bytes_and_their_directory_are_synced_before_a_put_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    real = os.fsync

    def watched(handle: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{handle}").readlink()))
        real(handle)

    monkeypatch.setattr(os, "fsync", watched)
    DirectoryStore(tmp_path).put("keys/deep/one", b"x")
    assert synced[:2] == [str(tmp_path), str(tmp_path / "keys")], "new directories first"
    assert synced[2].startswith(str(tmp_path / "keys/deep/.one."))
    assert synced[3:] == [str(tmp_path / "keys/deep")]
