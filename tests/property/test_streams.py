"""Streams of a path: each file is in exactly one, whatever becomes of the tree; none is large."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from holdfast.base.errors import Invalid
from holdfast.base.exclusion import Exclusion
from holdfast.base.ids import ClientName
from holdfast.control.policies import (
    Split,
    SplitKey,
    may_be_by_prefix,
    require_fitting,
    streams_of,
)
from holdfast.engine import Pool, PoolConfig
from holdfast.movers import streams as dividing_of_paths
from holdfast.movers.drive import drive
from holdfast.movers.streams import FINE, Node, divide, divide_path
from holdfast.wire.dividing import DivideOrder, DivideReport, prefix_of
from tests.kit.clock import FakeClock

WEB1 = ClientName("web1")
NAMES = st.sampled_from(
    [
        *("a", "b", "big", "home", "tmp", "x.tmp", "keep.tmp", "[x]", "{y}", "#n", "!m", "c,d"),
        *("back\\s", "*", "**", "?", "café", " sp", "sp ", "a b", "dir", "rest", "\\", "a\nb"),
    ]
)
PATHS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)
TREES = st.dictionaries(PATHS, st.integers(0, 60_000), max_size=25)
RULES = st.lists(
    st.sampled_from(
        [
            "*.tmp",
            "!keep.tmp",
            "/a",
            "a/",
            "/big/*",
            "!/big/home",
            "**/dir",
            "tmp/",
            "[x]",
            "home/*",
        ]
    ),
    max_size=4,
).map(tuple)
STREAMS = st.integers(2, 5)


def make(root: Path, tree: dict[str, int]) -> None:
    """Files with so many bytes; what would have to be a file and a directory is left out."""
    for path, size in tree.items():
        place = root / path
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(b"x" * size)
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            continue


def taken(root: bytes, rules: tuple[str, ...]) -> set[bytes]:
    """Which files a backup by these rules takes, relative to the root."""
    exclusion = Exclusion(root, rules)

    def below(directory: bytes) -> Iterator[bytes]:
        for entry in os.scandir(directory):
            path = os.path.relpath(entry.path, root)
            is_directory = entry.is_dir(follow_symlinks=False)
            if exclusion.leaves_out(path, is_directory=is_directory):
                continue
            if is_directory:
                yield from below(entry.path)
            else:
                yield path

    return set(below(root))


def split_of(
    root: Path, rules: tuple[str, ...], streams: int, *, by_prefix: bool = False
) -> tuple[SplitKey, Split]:
    key = SplitKey(WEB1, str(root), rules, False, streams)
    order = DivideOrder(
        str(root), rules, one_file_system=False, streams=streams, by_prefix=by_prefix
    )
    report = divide_path(DivideOrder.from_json(json.loads(json.dumps(order.to_json()))))
    # As it is after a way over the wire.
    report = DivideReport.from_json(report.to_json())
    require_fitting(key, report.taken)
    return key, Split(1, report.taken, report.sizes)


def assert_divides(key: SplitKey, split: Split) -> None:
    root = os.fsencode(key.path)
    all_files = taken(root, key.exclude)
    of_streams = [taken(root, rules) for _, rules in streams_of(key, split)]
    assert set().union(*of_streams) == all_files
    assert sum(map(len, of_streams)) == len(all_files)


@given(tree=TREES, later=TREES, gone=st.sets(PATHS, max_size=5), rules=RULES, streams=STREAMS)
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_a_file_is_in_exactly_one_stream_also_when_the_tree_changes(
    tree: dict[str, int],
    later: dict[str, int],
    gone: set[str],
    rules: tuple[str, ...],
    streams: int,
) -> None:
    with tempfile.TemporaryDirectory() as made:
        # A name that is a directory's below it as well, so that paths can be taken for each other.
        root = Path(made) / "root" / "a"
        root.mkdir(parents=True)
        make(root, tree)
        make(root, {f"{str(root)[1:]}/{path}": 10 for path in list(tree)[:2]})
        key, split = split_of(root, rules, streams)
        assert len(split.taken) < streams
        assert_divides(key, split)
        for path in gone:
            place = root / path
            if place.is_dir():
                shutil.rmtree(place)
                place.write_bytes(b"a file now")
        make(root, later)
        assert_divides(key, split)


ALIKE = st.dictionaries(
    st.tuples(
        st.sampled_from(["", "home/", "a/"]),
        st.sampled_from(["u", "user-", "*", " ", "[", "ü"]),
        st.sampled_from(["", "1", "12", "2", "x.tmp", "\\", "dir"]),
        st.sampled_from(["f", "g/f", "x.tmp"]),
    ).map(lambda one: f"{one[0]}{one[1]}{one[2]}/{one[3]}"),
    st.integers(0, 20_000),
    max_size=40,
)


@given(tree=ALIKE, later=ALIKE, rules=RULES, streams=STREAMS)
@settings(
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    deadline=None,
)
def test_so_it_is_where_many_are_told_by_how_they_begin(
    monkeypatch: pytest.MonkeyPatch,
    tree: dict[str, int],
    later: dict[str, int],
    rules: tuple[str, ...],
    streams: int,
) -> None:
    monkeypatch.setattr(dividing_of_paths, "MANY", 2)
    monkeypatch.setattr(dividing_of_paths, "FINE", 1)
    with tempfile.TemporaryDirectory() as made:
        root = Path(made) / "root"
        root.mkdir()
        make(root, tree)
        by_prefix = may_be_by_prefix(SplitKey(WEB1, "/data", rules, False, streams))
        key, split = split_of(root, rules, streams, by_prefix=by_prefix)
        assert_divides(key, split)
        make(root, later)
        assert_divides(key, split)
        said = [prefix_of(one) for one in itertools.chain.from_iterable(split.taken)]
        assert by_prefix or not any(said)


def test_the_engine_takes_each_file_in_one_stream(tmp_path: Path) -> None:
    pool = Pool.create(str(tmp_path / "pool"), bytes(32), PoolConfig(), FakeClock().now_ns())
    root = tmp_path / "root"
    names = ("a", "[x]", "{y}", "#n", "!m", "c,d", "back\\s", "*", "?", "café", " sp", "a b")
    make(root, {f"{one}/{two}/f": 9000 for one, two in itertools.product(names, names)})
    make(root, {"own": 5, "a/own": 7, "a/x.tmp": 7, "[x]/keep.tmp": 7})
    key, split = split_of(root, ("*.tmp", "!keep.tmp"), 4)
    assert len(split.taken) == 3
    make(root, {"new/f": 5, "a/new/f": 5, "new file": 5})
    seen: list[bytes] = []
    for name, rules in streams_of(key, split):
        run = pool.backup(
            paths=[os.fsencode(root)], source=name, host="web1", started_ns=1, exclude=list(rules)
        )
        image = drive(run).id

        def below(path: bytes, image: str = image) -> Iterator[bytes]:
            for entry in pool.list_dir(image, path):
                at = os.path.join(path, entry.name)
                if entry.kind == "dir":
                    yield from below(at)
                else:
                    yield os.path.relpath(at, os.fsencode(root))

        seen += below(os.fsencode(root))
    assert sorted(seen) == sorted(taken(os.fsencode(root), key.exclude))


@st.composite
def nodes(draw: st.DrawFn, depth: int = 3) -> Node:
    names = draw(st.sets(st.sampled_from("abcdefgh"), max_size=6 if depth else 0))
    children = [draw(nodes(depth - 1)) for _ in names]
    for one, name in zip(children, sorted(names), strict=True):
        one.name = name
    return Node("", draw(st.integers(0, 1000) | st.integers(0, 100_000)), children)


@given(root=nodes(), streams=STREAMS)
@settings(max_examples=300, deadline=None)
def test_no_stream_is_larger_than_what_can_t_be_taken_apart(root: Node, streams: int) -> None:
    report = divide(root, streams)
    total = root.total()
    assert sum(report.sizes) == total
    found = dict(walked(root))
    share, fine = total / streams, total / (streams * FINE)
    for directories, size in zip(report.taken, report.sizes[:-1], strict=True):
        assert sum(found[one].total() for one in directories) == size
        whole = [found[one] for one in directories if found[one].total() > fine]
        # Those are without directories, or most of what they have lies in them directly.
        assert all(not one.children or one.own * FINE > one.total() for one in whole)
        assert size <= share + max(found[one].total() for one in directories)
    assert DivideReport.from_json(report.to_json()) == report


def walked(node: Node, path: str = "") -> Iterator[tuple[str, Node]]:
    for one in node.children:
        at = f"{path}/{one.name}" if path else one.name
        yield at, one
        yield from walked(one, at)


def test_like_directories_make_like_streams() -> None:
    root = Node("", 0, [Node(f"d{at:02}", 1000 + at) for at in range(40)])
    sizes = divide(root, 4).sizes
    assert len(sizes) == 4
    assert max(sizes) <= 1.05 * sum(sizes) / 4


@pytest.mark.parametrize("name", ["user{:05}", "{:05}", "{:x}-home", "u{:08b}x"])
def test_thousands_of_like_directories_make_like_streams(name: str) -> None:
    users = [Node(name.format(at * 7919 % 65_521), 9_000 + at % 2_000) for at in range(10_000)]
    root = Node("", 10, [Node("home", 20, users), Node("etc", 500)])
    report = divide(root, 4, by_prefix=True)
    assert max(report.sizes) <= 1.15 * root.total() / 4
    assert DivideReport.from_json(report.to_json()) == report
    # By names alone most of it would be the rest's.
    assert divide(root, 4).sizes[-1] > 0.9 * root.total()


def test_one_that_is_named_as_others_begin_is_taken_once() -> None:
    names = ["a", *(f"a{letter}{at}" for letter in "bcd" for at in range(30))]
    report = divide(Node("", 0, [Node(one, 1000) for one in names]), 8, by_prefix=True)
    assert DivideReport.from_json(report.to_json()) == report
    assert "a" in itertools.chain.from_iterable(report.taken)
    assert max(report.sizes) <= 1.5 * sum(report.sizes) / 8


def test_a_directory_that_dominates_is_taken_apart() -> None:
    users = [Node(f"user{at}", 10_000) for at in range(8)]
    root = Node("", 10, [Node("home", 20, users), Node("etc", 500)])
    report = divide(root, 4)
    assert max(report.sizes) <= 1.1 * root.total() / 4
    assert all(one.startswith("home/user") for part in report.taken for one in part if one != "etc")


def test_what_was_not_looked_at_in_time_falls_to_the_rest(tmp_path: Path) -> None:
    make(tmp_path, {f"d{at}/f": 5000 for at in range(10)})
    order = DivideOrder(str(tmp_path), (), one_file_system=False, streams=3, within_s=-1.0)
    assert divide_path(order).taken == ()
    whole = DivideOrder(str(tmp_path), (), one_file_system=False, streams=3)
    assert len(divide_path(whole).taken) == 2


@given(
    data=st.recursive(
        st.none()
        | st.integers()
        | st.text(max_size=5)
        | st.sampled_from(["a", "a/b", "../x", "/"]),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(st.sampled_from(["version", "taken", "sizes"]), inner, max_size=3)
        ),
        max_leaves=12,
    )
)
def test_whatever_a_machine_says_is_a_division_or_refused(data: object) -> None:
    assume(isinstance(data, dict))
    assert isinstance(data, dict)
    try:
        report = DivideReport.from_json({**data, "version": 1})
    except Invalid:
        return
    key = SplitKey(WEB1, "/data", (), False, 4)
    for _, rules in streams_of(key, Split(1, report.taken)):
        Exclusion(b"/data", rules)


@pytest.mark.parametrize(
    "taken",
    [
        [["a"], ["a"]],
        [["a", "a/b"]],
        [["a/b"], ["a"]],
        [["../a"]],
        [["/a"]],
        [["a//b"]],
        [[]],
        [["a\nb"]],
        [[1]],
        ["a"],
        [["a "]],
        [["a\\*"], ["ab"]],
        [["a\\*"], ["ab\\*"]],
        [["a\\*", "ab/c"]],
        [["d/a\\*"], ["d"]],
        [["d/a\\*"], ["d/a"]],
        [["\\*"]],
        [["d/\\*"]],
        [["a\\*\\*"]],
        [["a\\*/b"]],
    ],
)
def test_streams_that_share_or_leave_the_path_are_refused(taken: list[object]) -> None:
    said = {"version": 1, "taken": taken, "sizes": [1] * (len(taken) + 1)}
    with pytest.raises(Invalid):
        DivideReport.from_json(said)


def test_streams_are_told_by_prefix_only_where_rules_bring_nothing_back() -> None:
    key = SplitKey(WEB1, "/data", ("*.tmp",), False, 4)
    taken = (("d/[a\\*", "b"), ("d/c\\*",))
    require_fitting(key, taken)
    of_streams = [rules for _, rules in streams_of(key, Split(1, taken))]
    # What the policy leaves out has the last word.
    assert of_streams[0] == (
        "/data/*",
        "!/data/b",
        "!/data/d/",
        "/data/d/*",
        "!/data/d/\\[a*",
        "*.tmp",
    )
    assert of_streams[2] == ("*.tmp", "/data/b", "/data/d/\\[a*", "/data/d/c*")
    with pytest.raises(Invalid, match="bring something back"):
        require_fitting(SplitKey(WEB1, "/data", ("*.tmp", "!x.tmp"), False, 4), taken)


def test_streams_take_nothing_that_rules_leave_out() -> None:
    key = SplitKey(WEB1, "/data", ("/a",), False, 4)
    with pytest.raises(Invalid, match="rules leave out"):
        require_fitting(key, (("a/b",),))
