"""What a person named, made definite."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from holdfast.base.errors import Invalid, PathMissing
from holdfast.base.ids import client_name
from holdfast.movers.backup_run import BackupOrder, absolute_paths
from holdfast.movers.restore_run import require_empty


def test_relative_paths_are_taken_from_the_working_directory(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    here = os.fsencode(tmp_path)
    assert absolute_paths([b"a/../a/."], here) == (here + b"/a",)


def test_order_repetition_and_nesting_make_no_other_source(tmp_path: Path) -> None:
    here = os.fsencode(tmp_path)
    for name in ("b", "a", "a/inside", "a-b"):
        (tmp_path / name).mkdir()
    wanted = (here + b"/a", here + b"/a-b", here + b"/b")
    assert absolute_paths([b"b", b"a-b", b"a", b"a/inside", b"b/"], here) == wanted
    order = BackupOrder(client_name("host"), wanted)
    assert order.source == "host:" + ",".join(os.fsdecode(path) for path in wanted)


def test_a_nested_path_counts_where_it_may_be_on_another_file_system(tmp_path: Path) -> None:
    here = os.fsencode(tmp_path)
    (tmp_path / "a" / "mounted").mkdir(parents=True)
    given = [b"a/mounted", b"a", b"a/mounted/"]
    assert absolute_paths(given, here, nested=True) == (here + b"/a", here + b"/a/mounted")


def test_a_symbolic_link_is_backed_up_as_itself(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("nowhere")
    here = os.fsencode(tmp_path)
    assert absolute_paths([b"link"], here) == (here + b"/link",)


@pytest.mark.parametrize("given", [b"missing", b"missing/below"])
def test_a_missing_path_is_named(tmp_path: Path, given: bytes) -> None:
    with pytest.raises(PathMissing, match="missing"):
        absolute_paths([given], os.fsencode(tmp_path))


@pytest.mark.parametrize("given", [[], [b""]])
def test_nothing_to_back_up_is_refused(tmp_path: Path, given: list[bytes]) -> None:
    with pytest.raises(Invalid):
        absolute_paths(given, os.fsencode(tmp_path))


def test_the_root_is_one_slash() -> None:
    assert absolute_paths([b"/", b"//", b"/.."], b"/") == (b"/",)


def test_a_file_is_no_directory_to_restore_into(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Invalid):
        require_empty(os.fsencode(tmp_path / "file"))
    require_empty(os.fsencode(tmp_path / "not there yet"))
