"""Several writers on one pool in object storage at once, each a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from holdfast.vault import Passphrase, create_pool, open_pool, python_store, unwrap
from tests.formats.test_read_pool import read
from tests.kit.clock import FakeClock
from tests.kit.trees import assert_same_tree, change_tree, make_tree

if TYPE_CHECKING:
    from tests.kit.s3_server import S3Server

WORDS = Passphrase("words")
WRITERS = 3
TIMES = 2
CHECKOUT = Path(__file__).parents[2]


def start_writer(url: str, tree: Path) -> subprocess.Popen[str]:
    writer = subprocess.Popen(
        [sys.executable, "-m", "tests.kit.writer", url, tree, str(TIMES)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=CHECKOUT,
    )
    assert writer.stdout is not None
    assert writer.stdout.readline() == "ready\n"
    return writer


def test_writers_of_one_pool_do_not_disturb_each_other(
    s3_server: S3Server, s3_bucket: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    create_pool(s3_bucket, secret=WORDS, clock=FakeClock())
    trees = [tmp_path / f"tree-{number}" for number in range(WRITERS)]
    for number, tree in enumerate(trees):
        make_tree(tree)  # the same content, so that all want to store the same chunks
        change_tree(tree, seed=number)

    writers = [start_writer(s3_bucket, tree) for tree in trees]
    answers = []
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    for writer in writers:
        out, _ = writer.communicate(timeout=120)
        assert writer.returncode == 0
        answers.append(out.split())
    assert [len(answer) for answer in answers] == [TIMES] * WRITERS

    pool = open_pool(s3_bucket, secret=WORDS, cache_dir=tmp_path / "cache")
    assert {image.id for image in pool.images()} == {one for answer in answers for one in answer}
    for tree, images in zip(trees, answers, strict=True):
        for image in images:
            restored = tmp_path / "restored" / image
            pool.restore(image, paths=[], to=os.fsencode(restored), verify=True).result()
            assert_same_tree(tree, restored / tree.relative_to("/"))

    # The server keeps objects as files, so the independent reader can be asked as well.
    key = unwrap(s3_bucket, WORDS).hex()
    stored = s3_server.directory(s3_bucket)
    for tree, images in zip(trees, answers, strict=True):
        extracted = tmp_path / "extracted" / images[-1]
        assert read(stored, "--key", key, "extract", images[-1], extracted) == 0
        assert_same_tree(tree, extracted / tree.relative_to("/"))
    assert capsys.readouterr().err == ""
    assert not list(stored.glob("jobs/*")), "all jobs have withdrawn their records"


def test_a_second_backup_of_the_same_tree_stores_no_data_again(
    s3_bucket: str, tmp_path: Path
) -> None:
    create_pool(s3_bucket, secret=WORDS, clock=FakeClock())
    tree = tmp_path / "tree"
    make_tree(tree)
    writer = start_writer(s3_bucket, tree)
    writer.communicate("go\n", timeout=120)
    pool = open_pool(s3_bucket, secret=WORDS, cache_dir=None)
    first, second = pool.images()
    assert first.stats["bytes_new"] > 500_000
    assert second.stats["bytes_new"] < 50_000
    assert second.parent == first.id


def test_a_pack_cut_short_in_the_store_is_damage_and_not_a_failure_to_read(
    s3_bucket: str, tmp_path: Path
) -> None:
    create_pool(s3_bucket, secret=WORDS, clock=FakeClock())
    tree = tmp_path / "tree"
    make_tree(tree)
    start_writer(s3_bucket, tree).communicate("go\n", timeout=120)
    store = python_store(s3_bucket)
    for page in store.list("packs/"):
        for key, size in page:
            store.put(key, store.get(key)[: size // 2])
    pool = open_pool(s3_bucket, secret=WORDS, cache_dir=None)
    image = pool.images()[-1]
    result = pool.restore(image.id, paths=[], to=os.fsencode(tmp_path / "out")).result()
    assert {finding.code for finding in result.findings} == {"integrity"}
    assert all("too short" in finding.message for finding in result.findings)
