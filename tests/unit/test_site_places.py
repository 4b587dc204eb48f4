"""How people name a pool, and which directories are Holdfast's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast.base.errors import Invalid
from holdfast.base.files import mark_as_cache
from holdfast.site import places


def test_a_directory_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert places.pool_place("here/pool") == str(tmp_path / "here/pool")
    assert places.pool_place(f"file://{tmp_path}/with%20space") == str(tmp_path / "with space")


def test_an_object_store_stays_a_url() -> None:
    assert places.pool_place("s3://bucket/prefix") == "s3://bucket/prefix"
    assert not places.is_directory_place("s3://bucket/prefix")


@pytest.mark.parametrize("text", ["", "file://server/share"])
def test_what_names_no_place_is_refused(text: str) -> None:
    with pytest.raises(Invalid):
        places.pool_place(text)


def test_a_pool_is_not_made_among_other_files(tmp_path: Path) -> None:
    places.require_room_for_pool(str(tmp_path))
    places.require_room_for_pool(str(tmp_path / "new"))
    (tmp_path / "letter").touch()
    with pytest.raises(Invalid, match="other files"):
        places.require_room_for_pool(str(tmp_path))
    with pytest.raises(Invalid, match="not a directory"):
        places.require_room_for_pool(str(tmp_path / "letter"))


def test_only_a_pool_inside_the_selection_is_excluded() -> None:
    pool = b"/mnt/my disk/my pool[1]"
    assert places.rules_against(pool, [b"/home", b"/mn"]) == ()
    assert places.rules_against(pool, [b"/"]) == ("/mnt/my\\ disk/my\\ pool\\[1\\]/",)
    assert places.rules_against(pool, [b"/home", b"/mnt/my disk"]) == (
        "/mnt/my disk/my\\ pool\\[1\\]/",
    )
    assert places.rules_against(b"/mnt/\xff/pool", [b"/"]) == ("/mnt/?/pool/",)
    assert places.rules_against(b"/mnt/\xff/pool", [b"/mnt/\xff"]) == ("/pool/",)


def test_a_cache_carries_its_mark(tmp_path: Path) -> None:
    for _ in range(2):
        mark_as_cache(tmp_path / "cache")
    tag = (tmp_path / "cache" / "CACHEDIR.TAG").read_bytes()
    assert tag.startswith(b"Signature: 8a477f597d28d172789f06886806bc55")


def test_nothing_is_restored_over_holdfasts_own_files(tmp_path: Path) -> None:
    home, pool = tmp_path / "home", tmp_path / "pool"
    own = [bytes(home), bytes(pool)]
    for directory in (home, pool):
        directory.mkdir()
    (tmp_path / "by another name").symlink_to(pool)
    for target in (home, home / "catalog", pool, tmp_path / "by another name" / "packs"):
        with pytest.raises(Invalid, match="keeps its own files"):
            places.require_outside(bytes(target), own)
    for target in (tmp_path, tmp_path / "home2", tmp_path / "back", Path("/")):
        places.require_outside(bytes(target), own)
