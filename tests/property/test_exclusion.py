"""Rules of exclusion judge as the engine judges in a backup."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from holdfast.base.errors import Invalid
from holdfast.base.exclusion import Exclusion, fault
from holdfast.engine import Pool, PoolConfig
from holdfast.movers.drive import drive
from tests.kit.clock import FakeClock

FILES = (
    b"a", b"b.tmp", b"keep.tmp", b"[x]", b"{y}", b"#n", b"!m", b"c,d", b"caf\xc3\xa9", b"bad\xff",
    b"dir/a", b"dir/b.tmp", b"dir/sub/a", b"dir/sub/deep/b", b"dir2/b", b"x-y", b"sp ", b"back\\s",
)  # fmt: skip
PIECES = st.sampled_from(
    [
        *("a", "b", "c", "dir", "sub", "deep", "tmp", "keep", ".tmp", "é", "x", "y", "n", "m", "2"),
        *("*", "**", "/", "/", "?", "[", "]", "{", "}", ",", "!", "#", "\\", "-", "^", " ", "."),
        *(
            "*a*",
            "*b*m",
            "*?*",
            "**/",
            "/**",
            "/**/",
            "[!a]",
            "[a-c]",
            "[]x]",
            "[^/]",
            "{a,b}",
            "{,a}",
            "{**,x}",
        ),
    ]
)
RULES = st.lists(PIECES, max_size=6).map("".join)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tree")
    for file in FILES:
        path = os.path.join(os.fsencode(root), file)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb"):
            pass
    return root


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    place = tmp_path_factory.mktemp("pools") / "pool"
    return Pool.create(str(place), bytes(32), PoolConfig(), FakeClock().now_ns())


def taken(pool: Pool, root: bytes, rules: list[str]) -> set[bytes]:
    """What the engine takes, relative to the root."""
    run = pool.backup(
        paths=[root], source="web1:/", host="web1", started_ns=1, exclude=rules, workers=1
    )
    image = drive(run)

    def below(path: bytes) -> Iterator[bytes]:
        for entry in pool.list_dir(image.id, path):
            name = os.path.join(path, entry.name)
            yield os.path.relpath(name, root)
            if entry.kind == "dir":
                yield from below(name)

    return set(below(root))


def predicted(root: bytes, rules: list[str]) -> set[bytes]:
    exclusion = Exclusion(root, rules)

    def below(path: bytes) -> Iterator[bytes]:
        for entry in os.scandir(path):
            name = os.path.relpath(entry.path, root)
            if exclusion.leaves_out(name, is_directory=entry.is_dir()):
                continue
            yield name
            if entry.is_dir():
                yield from below(entry.path)

    return set(below(root))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(RULES, max_size=3), st.booleans())
@example(["**"], False)
@example(["/dir/**", "!/dir/sub"], True)
@example(["*.tmp", "!keep.tmp", "dir/"], False)
@example(["dir/{sub,b*}", "[[]x]"], True)
@example(["caf??", "bad?", "\\#n", "\\!m", "sp\\ ", "{,a}", "c,d"], False)
@example(["[é]", "[a-é]*"], False)
@example(["[", "[x][a", "[b.tmp"], False)
@example(["*a*", "*e*p*", "d*r/*u*"], False)
@example(["*[!x]b*m*", "*?[!b]*a"], False)
@example(["{}"], False)
@example(["{,}", "!*.tmp"], False)
@example(["{}**", "d{}**/b"], False)
@example(["*{}*", "d*{}*r/*"], False)
def test_what_is_left_is_what_the_engine_takes(
    pool: Pool, tree: Path, rules: list[str], absolute: bool
) -> None:
    root = os.fsencode(tree)
    if absolute:
        rules = [f"{tree}{rule}" if rule.startswith("/") else rule for rule in rules]
    try:
        real = taken(pool, root, rules)
    except Invalid:
        with pytest.raises(Invalid):
            Exclusion(root, rules)
        return
    assert predicted(root, rules) == real


def test_many_stars_and_a_name_of_like_characters_are_no_trap() -> None:
    rule = "*a" * 30 + "*b"
    assert not Exclusion(b"/", [rule]).leaves_out(b"a" * 255, is_directory=False)
    assert Exclusion(b"/", [rule]).leaves_out(b"a" * 254 + b"b", is_directory=False)


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ("a[b", None),
        ("a{b", "'{'"),
        ("a}b", "'}'"),
        ("a\\", "escapes nothing"),
        ("[z-a]", "backwards"),
        ("*.tmp", None),
        ("", None),
        ("# [", None),
    ],
)
def test_what_is_wrong_with_a_rule_is_said(rule: str, words: str | None) -> None:
    said = fault(rule)
    assert said is None if words is None else words in (said or "")
