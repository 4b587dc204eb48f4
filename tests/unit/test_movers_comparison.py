"""The second opinion: what a comparison of two trees sees."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from holdfast.movers.comparison import compare_trees
from tests.kit.trees import make_tree


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    left, right = tmp_path / "left", tmp_path / "right"
    make_tree(left)
    shutil.copytree(
        left, right, symlinks=True, ignore=shutil.ignore_patterns("fifo", "null", "disk")
    )
    for name in ("fifo", "null", "disk"):
        (left / name).unlink(missing_ok=True)
    (right / "links" / "second").unlink()
    (right / "third").unlink()
    os.link(right / "links" / "first", right / "links" / "second")
    os.link(right / "links" / "first", right / "third")
    for one in [left, *left.rglob("*")]:
        state, other = one.lstat(), right / one.relative_to(left)
        os.chown(other, state.st_uid, state.st_gid, follow_symlinks=False)
        if not one.is_symlink():
            other.chmod(state.st_mode & 0o7777)
    for one in [*left.rglob("*"), left]:
        state, other = one.lstat(), right / one.relative_to(left)
        os.utime(other, ns=(state.st_atime_ns, state.st_mtime_ns), follow_symlinks=False)
    return left, right


def differences(left: Path, right: Path) -> list[tuple[bytes, str]]:
    found = compare_trees(os.fsencode(left), os.fsencode(right))
    assert found.differences_total == len(found.differences)
    return [(one.path, one.words) for one in found.differences]


def test_equal_trees_have_no_differences_and_every_name_is_counted(
    pair: tuple[Path, Path],
) -> None:
    left, right = pair
    found = compare_trees(os.fsencode(left), os.fsencode(right))
    assert found.differences == []
    assert found.entries == 1 + sum(1 for _ in left.rglob("*"))
    assert found.files > 400
    assert found.bytes_compared > 6 << 20


def keeping_time(change: Callable[[Path], None], right: Path, name: str) -> None:
    path = right / name
    kept = [(one, one.lstat().st_mtime_ns) for one in (path, path.parent)]
    change(path)
    for one, mtime_ns in kept:
        if one.exists():
            os.utime(one, ns=(0, mtime_ns))


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("noise", lambda path: flip_byte(path, 200_000), "content differs from byte 200000 on"),
        ("text", lambda path: os.truncate(path, 5), "sizes"),
        ("one", lambda path: path.chmod(0o644), "modes 0600 and 0644"),
        ("one", lambda path: path.unlink(), "is only left"),
        ("many/added", lambda path: path.write_bytes(b""), "is only right"),
        ("empty directory", lambda path: (path.rmdir(), path.touch()), "another type"),
    ],
)
def test_each_kind_of_difference_is_seen(
    pair: tuple[Path, Path], name: str, change: Callable[[Path], None], words: str
) -> None:
    left, right = pair
    if name == "many/added":
        (right / name).touch()
    keeping_time(change, right, name)
    shutil.copystat(left / "many", right / "many")
    found = [text for path, text in differences(left, right) if path == name.encode()]
    assert any(words in text for text in found), found


def flip_byte(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def test_a_nanosecond_is_a_difference(pair: tuple[Path, Path]) -> None:
    left, right = pair
    os.utime(right / "one", ns=(0, 1_234_567_890_123_456_788))
    assert [path for path, _ in differences(left, right)] == [b"one"]


def test_a_hard_link_that_became_a_file_of_its_own_is_seen(pair: tuple[Path, Path]) -> None:
    left, right = pair
    third = right / "third"
    kept, mtime_ns = third.read_bytes(), third.stat().st_mtime_ns
    parent_ns = right.stat().st_mtime_ns
    third.unlink()
    third.write_bytes(kept)
    third.chmod((left / "third").stat().st_mode & 0o7777)
    os.utime(third, ns=(0, mtime_ns))
    os.utime(right, ns=(0, parent_ns))
    found = differences(left, right)
    assert found
    assert all("hard link" in words for _, words in found)


def test_a_link_to_somewhere_else_is_seen(pair: tuple[Path, Path]) -> None:
    left, right = pair
    link = right / "links" / "to first"
    link.unlink()
    link.symlink_to("other")
    assert (b"links/to first", "is a symbolic link to somewhere else") in differences(left, right)


def test_what_changed_meanwhile_is_no_difference(pair: tuple[Path, Path]) -> None:
    left, right = pair
    before_ns = (left / "one").stat().st_ctime_ns + 1
    for one in [left, *left.rglob("*")]:
        before_ns = max(before_ns, one.lstat().st_ctime_ns + 1)
    # Wait by looking, not by sleeping, until the kernel's clock has moved on.
    while (left / "text").stat().st_ctime_ns < before_ns:
        (left / "text").write_bytes(b"changed meanwhile")
    found = compare_trees(os.fsencode(left), os.fsencode(right), since_ns=before_ns)
    assert found.differences == []
    assert found.changed_meanwhile > 0


def test_what_is_skipped_is_counted_and_not_compared(pair: tuple[Path, Path]) -> None:
    left, right = pair
    flip_byte(right / "noise", 3)
    found = compare_trees(
        os.fsencode(left),
        os.fsencode(right),
        skip=frozenset([b"noise"]),
        leave_out=lambda directory: directory.endswith(b"/many"),
    )
    assert found.differences == []
    assert found.skipped == 2


def test_a_difference_the_caller_knows_of_is_forgiven_and_others_are_not(
    pair: tuple[Path, Path],
) -> None:
    left, right = pair
    os.utime(right / "links", ns=(1, 1))
    (right / "links" / "first").chmod(0o600 if (left / "links" / "first").stat().st_mode & 1 else 1)
    found = compare_trees(
        os.fsencode(left), os.fsencode(right), forgive=lambda one: one.path == b"links"
    )
    assert found.forgiven == 1
    assert found.differences_total >= 1
    assert all(one.words.startswith("modes") for one in found.differences)
