"""What the benchmark backs up: the same each time, anywhere."""

from __future__ import annotations

import os
from pathlib import Path
from random import Random

import pytest

from benchmarks import (
    content,
    corpora,
)
from benchmarks.corpora import disk_images
from holdfast.movers.comparison import compare_trees

SMALL = corpora.Shape("small", 150, 7)


LARGE = corpora.Shape("large", 1 << 20, 7)


TINY = corpora.Shape("tiny", 250, 7)


IMAGES = corpora.Shape("images", 2 << 20, 7)


@pytest.mark.parametrize("shape", [SMALL, LARGE, TINY, IMAGES], ids=lambda shape: shape.name)
def test_a_seed_gives_the_same_files_anywhere(shape: corpora.Shape, tmp_path: Path) -> None:
    one = corpora.provide(shape, tmp_path / "one")
    other = corpora.provide(shape, tmp_path / "other")
    assert (one.digest, one.files, one.size_bytes) == (other.digest, other.files, other.size_bytes)
    # Not only what the generator says of itself: what is on the disk.
    same = compare_trees(os.fsencode(one.root), os.fsencode(other.root))
    assert same.differences == []
    assert same.files >= one.files
    assert same.bytes_compared >= one.size_bytes


def test_another_seed_gives_other_files(tmp_path: Path) -> None:
    one = corpora.provide(SMALL, tmp_path)
    other = corpora.provide(corpora.Shape("small", 150, 8), tmp_path)
    assert one.root != other.root
    assert one.digest != other.digest


def test_the_source_tree_has_links_copies_and_many_directories(tmp_path: Path) -> None:
    corpus = corpora.provide(corpora.Shape("small", 1500, 1), tmp_path)
    paths = [Path(above, one) for above, _, names in os.walk(corpus.root) for one in names]
    assert any(path.is_symlink() for path in paths)
    assert any(path.stat().st_nlink == 2 for path in paths if not path.is_symlink())
    contents = [path.read_bytes() for path in paths if not path.is_symlink()]
    assert len(set(contents)) < corpus.files
    assert len({path.parent for path in paths}) > 50


def test_a_corpus_that_is_there_is_used_again(tmp_path: Path) -> None:
    first = corpora.provide(SMALL, tmp_path)
    mark = first.root / "mark"
    mark.touch()
    assert corpora.provide(SMALL, tmp_path) == first
    assert mark.exists()


def test_what_an_interrupted_run_left_is_not_used(tmp_path: Path) -> None:
    whole = corpora.provide(SMALL, tmp_path / "whole")
    place = tmp_path / "broken"
    (place / f"{whole.root.name}.unfinished").mkdir(parents=True)
    (place / f"{whole.root.name}.unfinished" / "half a file").touch()
    (place / whole.root.name).mkdir()
    again = corpora.provide(SMALL, place)
    assert again.digest == whole.digest
    assert not compare_trees(os.fsencode(whole.root), os.fsencode(again.root)).differences_total


@pytest.mark.parametrize("size", [0, 1, 255, 300_000])
def test_each_content_has_exactly_the_size_that_was_asked_for(size: int) -> None:
    words = content.vocabulary(Random(1), 50)
    for pieces in (
        content.source_text(Random(1), words, size),
        content.machine_code(Random(1), size),
        content.log_text(Random(1), size),
        content.database_pages(Random(1), size),
        content.incompressible(Random(1), size),
    ):
        assert len(b"".join(pieces)) == size


def test_a_newer_version_shares_most_with_the_older_one_but_shifts_it() -> None:
    old = list(content.incompressible(Random(1), 8 << 20))
    new = list(content.edited(old, Random(2)))
    same = sum(one == other for one, other in zip(old, new, strict=True))
    assert len(old) / 2 < same < len(old)
    assert len(b"".join(new)) > 8 << 20


@pytest.mark.parametrize("shape", [SMALL, LARGE], ids=lambda shape: shape.name)
def test_one_percent_changes_and_is_put_back(shape: corpora.Shape, tmp_path: Path) -> None:
    corpus = corpora.provide(shape, tmp_path / "one")
    other = corpora.provide(shape, tmp_path / "other")
    corpus.change()
    seen = compare_trees(os.fsencode(corpus.root), os.fsencode(other.root))
    changed = {one.path for one in seen.differences}
    assert len(changed) == (corpus.files if corpus.few else 1)
    # What an interrupted run left changed is put back by the next.
    again = corpora.provide(shape, tmp_path / "one")
    assert not compare_trees(os.fsencode(again.root), os.fsencode(other.root)).differences
    assert not list((tmp_path / "one").glob("*.journal"))


def test_disk_images_share_most_of_the_system_and_no_work_data(tmp_path: Path) -> None:
    corpus = corpora.provide(corpora.Shape("images", 4 << 20, 1), tmp_path)

    def blocks(number: int) -> list[bytes]:
        data = (corpus.root / disk_images.name(number)).read_bytes()
        size = disk_images.BLOCK_BYTES
        return [data[at : at + size] for at in range(0, len(data), size)]

    one, other = blocks(0), blocks(1)
    system = int(len(one) * 0.42)
    shared = set(one[:system]) & set(other[:system])
    assert len(shared) > system * 0.8
    assert one[:system] != other[:system]
    zero = bytes(disk_images.BLOCK_BYTES)
    assert not (set(one[system:]) & set(other[system:])) - {zero}
    assert one[-1] == zero


def test_a_generation_changes_little_and_is_the_same_anywhere(tmp_path: Path) -> None:
    made = [
        corpora.provide(corpora.Shape("images", 4 << 20, 1), tmp_path / name)
        for name in ("one", "other", "before")
    ]
    for corpus in made[:2]:
        disk_images.advance(corpus.root, 1, 1)
    one, other, before = ((corpus.root / disk_images.name(3)).read_bytes() for corpus in made)
    assert one == other
    assert len(one) == len(before)
    size = disk_images.BLOCK_BYTES
    places = range(0, len(one), size)
    changed = sum(one[at : at + size] != before[at : at + size] for at in places)
    assert 0 < changed < len(places) * 0.03
