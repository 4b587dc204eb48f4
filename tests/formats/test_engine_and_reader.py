"""Two programs that share no code read each other's pools."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from holdfast.base.errors import ClientKeyNeeded, IntegrityError
from holdfast.engine import ClientKey, DiskInput, DiskSource, Pool, PoolConfig
from tests.formats import golden, pages
from tests.formats.page_vectors import ZSTD_PLAIN
from tests.formats.test_read_pool import read, read_pool, write_pool
from tests.kit import sealing
from tests.kit.trees import assert_same_tree, change_tree, make_tree, snapshot

KEY = bytes(range(1, 33))
SMALL = {"chunk_min": 64, "chunk_avg": 256, "chunk_max": 1024, "block_bytes": 4096}


def backup(pool: Pool, tree: Path) -> str:
    run = pool.backup(
        paths=[os.fsencode(tree)], source=f"here:{tree}", host="here", started_ns=1_700_000_000
    )
    image = run.result()
    assert image.status == "completed", [finding.message for finding in run.findings()]
    return image.id


@pytest.mark.parametrize("config", [{}, SMALL | {"pack_bytes": 65536}], ids=["default", "small"])
def test_the_reader_extracts_what_the_engine_has_backed_up(
    tmp_path: Path, config: dict[str, int], capsys: pytest.CaptureFixture[str]
) -> None:
    tree, root = tmp_path / "tree", tmp_path / "pool"
    make_tree(tree)
    pool = Pool.create(str(root), KEY, PoolConfig(**config), 1)
    first, before = backup(pool, tree), snapshot(tree)
    change_tree(tree)
    second = backup(pool, tree)

    assert read(root, "--key", KEY.hex(), "images") == 0
    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert listed == [first, second]
    for image, expected in ((first, before), (second, snapshot(tree))):
        out = tmp_path / image
        assert read(root, "--key", KEY.hex(), "extract", image, out) == 0
        assert capsys.readouterr().err == ""
        extracted = snapshot(out / tree.relative_to("/"))
        assert extracted.keys() == expected.keys()
        for path, state in expected.items():
            assert extracted[path] == state, path


def test_the_reader_extracts_from_a_pool_that_names_chunks_as_another_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree, root = tmp_path / "tree", tmp_path / "pool"
    make_tree(tree)
    first = Pool.create(str(tmp_path / "first"), bytes(32), PoolConfig(), 1)
    second = Pool.create(str(root), KEY, PoolConfig(), 1, naming=first.naming)
    for pool in (first, second):
        image = backup(pool, tree)
    names = [read_pool.Pool(at, key) for at, key in ((tmp_path / "first", bytes(32)), (root, KEY))]
    mine, theirs = [
        {
            entry[17]
            for _, entry in read_pool.walk(pool, pool.images()[0]["root"][17], "")
            if 17 in entry
        }
        for pool in names
    ]
    assert mine
    assert mine == theirs, "a directory has one name in both"
    assert read(root, "--key", KEY.hex(), "extract", image, tmp_path / "out") == 0
    assert capsys.readouterr().err == ""
    assert_same_tree(tree, tmp_path / "out" / tree.relative_to("/"))


def test_the_reader_extracts_a_file_of_many_lists(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree, root = tmp_path / "tree", tmp_path / "pool"
    tree.mkdir()
    (tree / "large").write_bytes(random.Random(7).randbytes(3 << 20))
    for number in range(3000):
        (tree / f"{number:05}-{'x' * 60}").touch()
    pool = Pool.create(str(root), KEY, PoolConfig(**SMALL), 1)
    image = backup(pool, tree)
    reader = read_pool.Pool(root, KEY)
    (manifest,) = reader.images()
    found = dict(read_pool.walk(reader, manifest["root"][17], ""))
    assert found[str(tree / "large")][15][0] == 2, "a list of lists"
    assert len(list(reader.content(found[str(tree / "large")]))) > 4096
    assert read(root, "--key", KEY.hex(), "extract", image, tmp_path / "out") == 0
    assert_same_tree(tree, tmp_path / "out" / tree.relative_to("/"))


def test_the_reader_extracts_paths_longer_than_the_system_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree, root, name = tmp_path / "tree", tmp_path / "pool", "d" * 40
    tree.mkdir()
    monkeypatch.chdir(tree)  # and back again at the end
    for _ in range(150):
        os.mkdir(name)
        os.chdir(name)
    Path("leaf").write_bytes(b"deep down")
    os.chdir(tmp_path)
    pool = Pool.create(str(root), KEY, PoolConfig(), 1)
    image = backup(pool, tree)
    assert read(root, "--key", KEY.hex(), "extract", image, tmp_path / "out") == 0
    os.chdir(tmp_path / "out" / tree.relative_to("/"))
    for _ in range(150):
        os.chdir(name)
    assert Path("leaf").read_bytes() == b"deep down"


def test_the_engine_restores_what_the_golden_writer_has_written(tmp_path: Path) -> None:
    made = golden.golden_pool((ZSTD_PLAIN, pages.vector("pack", "zstd-frame")))
    root = write_pool(tmp_path / "pool", made.objects)
    pool = Pool.open(str(root), golden.POOL_KEY)
    (image,) = pool.images()
    assert image.id == golden.IMAGE_ID.hex()
    assert (image.number, image.source, image.status) == (
        1,
        "golden:/srv",
        "completed with errors",
    )
    assert [finding.code for finding in image.findings] == ["no-permission"]

    pool.restore(image.id, paths=[], to=os.fsencode(tmp_path / "ours")).result()
    assert read(root, "--key", golden.POOL_KEY.hex(), "extract", "latest", tmp_path / "theirs") == 1
    ours, theirs = snapshot(tmp_path / "ours"), snapshot(tmp_path / "theirs")
    assert b"srv/listed" in ours
    ours.pop(b"srv/socket", None)  # the reader makes no sockets
    assert ours.keys() == theirs.keys()
    for path in ours.keys() - {b"."}:
        assert ours[path] == theirs[path], path


def test_reader_and_engine_refuse_the_same_damage(tmp_path: Path) -> None:
    made = golden.golden_pool((ZSTD_PLAIN, pages.vector("pack", "zstd-frame")))
    root = write_pool(tmp_path / "pool", made.objects)
    manifest = next((root / "images").iterdir())
    raw = bytearray(manifest.read_bytes())
    raw[-20] ^= 1
    manifest.write_bytes(raw)
    with pytest.raises(IntegrityError, match=manifest.name):
        Pool.open(str(root), golden.POOL_KEY).images()
    with pytest.raises(read_pool.UnreadableError, match=manifest.name):
        read_pool.Pool(root, golden.POOL_KEY).images()


@pytest.mark.parametrize("sealed_names", [False, True])
def test_the_reader_opens_what_a_client_sealed_with_the_clients_key_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], *, sealed_names: bool
) -> None:
    tree, root = tmp_path / "tree", tmp_path / "pool"
    make_tree(tree)
    # More chunks than an entry holds, some of them compressed.
    (tree / "large").write_bytes(random.Random(7).randbytes(3 << 20) + b"again and " * 100_000)
    pool, secret = Pool.create(str(root), KEY, PoolConfig(**SMALL), 1), bytes(range(50, 82))
    image = sealing.back_up(pool, tree, ClientKey(secret), sealed_names=sealed_names)
    assert (image.client_key, image.has_sealed_names) == (ClientKey(secret).id, sealed_names)

    known: tuple[str, ...] = ("--key", KEY.hex())
    assert read(root, *known, "extract", "latest", tmp_path / "without") == 2
    assert "client key" in capsys.readouterr().err
    assert read(root, *known, "files", "latest") == 0
    listed = capsys.readouterr().out
    assert ("/large" in listed) is not sealed_names
    known += ("--client-key", secret.hex())
    assert read(root, *known, "extract", "latest", tmp_path / "out") == 0
    assert_same_tree(tree, tmp_path / "out" / tree.relative_to("/"))
    assert read(root, *known, "files", "latest") == 0
    assert "/large" in capsys.readouterr().out


@pytest.mark.parametrize("sealed_names", [False, True])
def test_the_engine_restores_what_it_sealed_and_refuses_without_the_key(
    tmp_path: Path, *, sealed_names: bool
) -> None:
    tree = tmp_path / "tree"
    make_tree(tree)
    pool = Pool.create(str(tmp_path / "pool"), KEY, PoolConfig(**SMALL), 1)
    key = ClientKey(bytes(range(50, 82)))
    image = sealing.back_up(pool, tree, key, sealed_names=sealed_names)
    assert sealing.restore(pool, image.id, tmp_path / "out", key).findings_total == 0
    assert_same_tree(tree, tmp_path / "out" / tree.relative_to("/"))
    for wrong in (None, ClientKey(bytes(32))):
        with pytest.raises(ClientKeyNeeded, match=key.id):
            sealing.restore(pool, image.id, tmp_path / "wrong", wrong)
    with pytest.raises(ClientKeyNeeded, match=key.id):
        pool.restore(image.id, paths=[], to=os.fsencode(tmp_path / "here")).result()
    run = pool.restore(image.id, paths=[], to=os.fsencode(tmp_path / "here"), client_key=key)
    assert run.result().findings_total == 0
    assert_same_tree(tree, tmp_path / "here" / tree.relative_to("/"))
    listed = pool.list_dir(image.id, b"/")
    assert all(one.name.startswith(b"sealed:") for one in listed) is sealed_names
    path = key.seal_path(os.fsencode(tree)) if sealed_names else os.fsencode(tree)
    file = next(one for one in pool.list_dir(image.id, path) if one.kind == "file")
    with pytest.raises(ClientKeyNeeded, match=key.id):
        pool.open_file(image.id, path + b"/" + file.name)
    with pytest.raises(ClientKeyNeeded, match=key.id):
        pool.mount(image.id, str(tmp_path))
    assert "50" not in repr(key)


def test_the_reader_extracts_a_disk_that_uses_parts_of_chunks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw, root, size = tmp_path / "disk", tmp_path / "pool", 6 << 20
    made = random.Random(1)
    content = bytearray(made.randbytes(size))
    pool = Pool.create(str(root), KEY, PoolConfig(**SMALL), 1)
    changed, image, read_bytes = [(0, size, 1)], None, 0
    for _ in range(4):
        raw.write_bytes(content)
        disk = DiskInput("vda", size, changed, DiskSource.file(str(raw)), 0)
        image = pool.backup_machine(
            files={"machine.json": b"{}"},
            disks=[disk],
            source="machine:a",
            host="here",
            started_ns=1,
            parent=image.id if image else None,
        ).result()
        read_bytes = image.stats["bytes_read"]
        at = made.randrange(size - 100_000)
        content[at : at + 70_000] = made.randbytes(70_000)
        changed = [(0, at, 2), (at, 70_000, 1), (at + 70_000, size - at - 70_000, 2)]
    assert image is not None
    assert read_bytes < 85_000
    out = tmp_path / "out"
    assert read(root, "--key", KEY.hex(), "extract", image.id, out) == 0
    assert capsys.readouterr().err == ""
    assert (out / "disks" / "vda").read_bytes() == raw.read_bytes()
