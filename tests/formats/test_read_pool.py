"""The independent reader, on a pool that an independent writer has made."""

from __future__ import annotations

import importlib.util
import os
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import zstandard

from tests.formats import golden, pages

if TYPE_CHECKING:
    from types import ModuleType

READER = Path(__file__).parents[2] / "tools" / "read_pool.py"
PLAIN = b"again and " * 100


def load_reader() -> ModuleType:
    spec = importlib.util.spec_from_file_location("read_pool", READER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["read_pool"] = module
    spec.loader.exec_module(module)
    return module


read_pool: Any = load_reader()


def write_pool(root: Path, objects: dict[str, bytes]) -> Path:
    for key, data in objects.items():
        path = root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    made = golden.golden_pool((PLAIN, zstandard.compress(PLAIN)))
    return write_pool(tmp_path / "pool", made.objects)


def read(*words: object) -> int:
    before = Path.cwd()
    try:
        status: int = read_pool.main([str(word) for word in words])
    finally:
        os.chdir(before)
    return status


KEY = ("--key", golden.POOL_KEY.hex())


def test_images_are_listed_with_id_number_source_and_status(
    pool: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert read(pool, *KEY, "images") == 0
    assert capsys.readouterr().out == (
        f"{'e1' * 16} 1 2023-11-14 22:13:20Z golden:/srv (completed with errors)\n"
    )


def test_files_are_listed_with_mode_size_and_path(
    pool: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert read(pool, *KEY, "files", "latest") == 0
    lines = capsys.readouterr().out.splitlines()
    assert "-4755         1256 /srv/parts" in lines
    assert "d0700            0 /srv/large" in lines
    assert "-0644            0 /srv/large/n006" in lines
    assert r"-0600           15 /srv/deep/\xff\xfe not text" in lines
    assert len(lines) == 1 + 14 + 1 + 7


def test_an_image_is_extracted_as_it_was(
    pool: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert read(pool, *KEY, "extract", "e1e1", out) == 1
    assert "a socket is not made" in capsys.readouterr().err
    srv = out / "srv"
    assert sorted(path.name for path in srv.iterdir()) == [
        "deep",
        "empty",
        "empty-dir",
        "fifo",
        "hole",
        "large",
        "link",
        "linked-1",
        "linked-2",
        "listed",
        "parts",
        "sparse",
        "text",
    ]
    assert (srv / "text").read_bytes() == b"hello holdfast\n"
    assert (srv / "parts").read_bytes() == bytes(range(256)) + PLAIN
    assert (srv / "listed").read_bytes() == b"".join(bytes([n]) * (n + 1) for n in range(6))
    assert (srv / "empty").read_bytes() == b""
    assert (srv / "hole").read_bytes() == bytes(1 << 20)
    expected = bytearray(300_000)
    expected[4096:4596] = b"S" * 500
    expected[70_132:70_632] = b"S" * 500
    assert (srv / "sparse").read_bytes() == bytes(expected)
    assert (srv / "sparse").stat().st_blocks * 512 < 100_000, "holes stay holes"
    assert (srv / "hole").stat().st_blocks == 0
    assert os.fsencode((srv / "link").readlink()) == b"text/../\xff"
    assert (srv / "linked-1").samefile(srv / "linked-2")
    assert (srv / "fifo").is_fifo()
    assert len(list((srv / "large").iterdir())) == 7
    odd = srv / "deep" / os.fsdecode(b"\xff\xfe not text")
    assert odd.read_bytes() == b"hello holdfast\n"
    modes = {"parts": 0o4755, "empty-dir": 0o1777, "linked-1": 0o604, "fifo": 0o622}
    for name, mode in modes.items():
        assert stat.S_IMODE((srv / name).stat().st_mode) == mode
    moment = golden.MTIME[0] * 10**9 + golden.MTIME[1]
    for path in srv.iterdir():
        assert path.lstat().st_mtime_ns == moment, path
    assert os.getxattr(srv / "text", "user.colour") == b"blue\0"


def test_extraction_mixes_with_nothing(
    pool: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_bytes(b"x")
    assert read(pool, *KEY, "extract", "latest", tmp_path / "out") == 2
    assert "is not empty" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]


@pytest.mark.parametrize("key", ["00" * 32, "00" * 31])
def test_another_key_opens_nothing(
    pool: Path, key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert read(pool, "--key", key, "images") == 2
    assert capsys.readouterr().out == ""


def test_a_foreign_directory_is_no_pool(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert read(tmp_path, *KEY, "images") == 2
    (tmp_path / "pool").write_bytes(b"something else entirely")
    assert read(tmp_path, *KEY, "images") == 2
    assert "is not a Holdfast pool" in capsys.readouterr().err


def test_a_newer_format_is_refused(pool: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw = bytearray((pool / "pool").read_bytes())
    raw[7] = 3
    (pool / "pool").write_bytes(raw)
    assert read(pool, *KEY, "images") == 2
    assert "format version 3" in capsys.readouterr().err


def test_the_index_is_not_needed(pool: Path, tmp_path: Path) -> None:
    for path in (pool / "index").iterdir():
        path.unlink()
    assert read(pool, *KEY, "extract", "latest", tmp_path / "out") == 1


@pytest.mark.parametrize("kind", ["passphrase", "key-file"])
def test_the_slots_of_the_page_open_a_pool_with_their_secret(
    pool: Path, tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (pool / "keys").mkdir()
    (pool / "keys" / "00.json").write_bytes(pages.vector("key-slots", f"{kind}-slot"))
    secret = tmp_path / "secret"
    secret.write_bytes(pages.vector("key-slots", kind) + b"\n")
    assert read(pool, f"--{kind}" + "-file" * (kind == "passphrase"), secret, "images") == 0
    assert "golden:/srv" in capsys.readouterr().out
    secret.write_bytes(pages.vector("key-slots", kind).replace(b"4", b"5").replace(b"co", b"ho"))
    assert read(pool, f"--{kind}" + "-file" * (kind == "passphrase"), secret, "images") == 2
    assert "none of 1" in capsys.readouterr().err


def read_everything(root: Path) -> int:
    """Read all names and contents of all images; returns how many bytes that were."""
    pool = read_pool.Pool(root, golden.POOL_KEY)
    images = pool.images()
    assert images
    total = 0
    for image in images:
        for path, entry in read_pool.walk(pool, image["root"][17], ""):
            total += len(path) + sum(map(len, pool.content(entry)))
    return total


def test_no_flipped_byte_is_ever_read_as_right(pool: Path) -> None:
    assert read_everything(pool) > 2500
    paths = [path for path in sorted(pool.rglob("*")) if path.is_file()]
    paths = [path for path in paths if path.parent.name != "index"]
    assert len(paths) == 5, "header, three packs, one image"
    for path in paths:
        raw = path.read_bytes()
        for at in range(0, len(raw), 1 if len(raw) < 1000 else 3):
            bad = bytearray(raw)
            bad[at] ^= 1 << at % 8
            path.write_bytes(bad)
            with pytest.raises(read_pool.UnreadableError):
                read_everything(pool)
        path.write_bytes(raw)
    assert read_everything(pool) > 2500
