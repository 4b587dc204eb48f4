"""Names are found whatever their script, case, length or bytes."""

from __future__ import annotations

import random
import sqlite3
from typing import TYPE_CHECKING

import pytest

from holdfast.base.errors import Invalid, NotFound
from holdfast.base.ids import ImageId
from holdfast.control.catalog import Catalog
from holdfast.control.catalog.folding import fold_name, fold_text
from holdfast.control.catalog.on_sqlite import source_file
from holdfast.control.database import Database
from tests.kit import databases
from tests.kit.catalog_model import asked_versions, fed, found
from tests.kit.clock import FakeClock
from tests.kit.fake_pool import FakeImage, FakePool, Node, Tree, tree_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NAMES = [
    b"README.md",
    b"readme.txt",
    b"Makefile",
    b"a",
    b"ab",
    b"A.c",
    b"main.c",
    b"100%_done",
    b'quo"te',
    b"it's",
    b"[bracket]",
    b"star*name",
    b"new\nline",
    b"caf\xe9-latin1.txt",
    b"\xff\xfe\xfd",
    "Straße.txt".encode(),
    b"STRASSE.TXT",
    "ÄRGER.doc".encode(),
    "ärger.doc".encode(),
    "a\u0308rger.doc".encode(),
    "Σίσυφος".encode(),
    "ΣΊΣΥΦΟΣ".encode(),
    "Ёлка.TXT".encode(),
    "ﬁle".encode(),
    "日本語の名前.txt".encode(),
    "日本".encode(),
    "🎄tree".encode(),
    "İstanbul".encode(),
    "ſ-long-s".encode(),
]

TERMS = [
    "readme", "README", "e", "Ä", "ä", "ärger", "ÄRGER", "a\u0308rger", "strasse", "STRASSE",
    "straße", "ß", "σίσυφος", "ΣΊΣΥΦΟΣ", "ς", "ёл", "ЁЛКА", "file", "日", "日本", "本語の", "🎄",
    "🎄t", "i\u0307stan", "İSTANBUL", "s-long", "%", "_", "100%", '"', '"te', "'s", ".txt",
    "\n", "caf\udce9", "\udcff\udcfe", "\udcff\udcfe\udcfd", "latin1", "nowhere", "[br",
    "*.c", "*.C", "?", "??", "???", "*.TXT", "[ab]", "[!a]*", "m*n.c", "*STRASSE*", "stra[sx]se*",
    "[[]bracket]", "*日本*", "Ä*", "*", "star[*]name", "*e", "readme.*", "[a", "*.txt*", "**",
    "100%*", "*%_*", "?00%_done", "new?line", "日?", "????", "*_?one", "\\*", "caf?-latin1*",
    "?tree", "ÄRGER.???", "*\udcfe?",
]  # fmt: skip


@pytest.fixture
def catalog(tmp_path: Path, database: Database) -> Iterator[Catalog]:
    with Catalog.open(tmp_path, FakeClock(), database) as opened:
        yield opened


def everything() -> Tree:
    return tree_of(*NAMES_AS_PATHS, b"/dir/Deeper/README.md", b"/dir/readme/other")


NAMES_AS_PATHS = [b"/" + name for name in NAMES]


@pytest.fixture(scope="module", params=databases.KINDS)
def library(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Catalog, list[FakeImage]]]:
    """Every awkward name in one image, every other one in the next; not to be changed."""
    pool = FakePool(batch_rows=1000)
    directory = tmp_path_factory.mktemp("library")
    with (
        databases.opened(request, request.param, directory) as database,
        Catalog.open(directory, FakeClock(), database) as catalog,
    ):
        yield (
            catalog,
            [fed(catalog, pool, everything()), fed(catalog, pool, tree_of(*NAMES_AS_PATHS[::2]))],
        )


@pytest.mark.parametrize("term", TERMS)
def test_term_finds_what_comparing_every_name_finds(
    library: tuple[Catalog, list[FakeImage]], term: str
) -> None:
    catalog, images = library
    for every in (False, True):
        rows = catalog.find(term, versions=every)
        assert asked_versions(rows) == found(images, term, every=every)


@pytest.mark.parametrize(
    ("term", "names"),
    [
        ("STRAßE", ["STRASSE.TXT", "Straße.txt"]),
        ("strass", ["STRASSE.TXT", "Straße.txt"]),
        ("äRG", ["a\u0308rger.doc", "ÄRGER.doc", "ärger.doc"]),
        ("σισυφοσ", []),
        ("ίσυφος", ["Σίσυφος", "ΣΊΣΥΦΟΣ"]),
        ("FILE", ["Makefile", "ﬁle"]),
        ("ёЛ", ["Ёлка.TXT"]),
        ("本", ["日本", "日本語の名前.txt"]),
    ],
)
def test_case_never_matters_in_any_script(
    library: tuple[Catalog, list[FakeImage]], term: str, names: list[str]
) -> None:
    catalog, _ = library
    paths = {row.path for row in catalog.find(term)}
    assert paths == {b"/" + name.encode() for name in names}


def test_search_without_an_index_finds_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_file, "search_index_supported", lambda: False)
    pool = FakePool(batch_rows=1000)
    with Catalog.open(tmp_path, FakeClock()) as catalog:
        images = [fed(catalog, pool, everything()), fed(catalog, pool, tree_of(b"/README.md"))]
        for term in TERMS:
            rows = catalog.find(term, versions=True)
            assert asked_versions(rows) == found(images, term, every=True), term
        pool.expire(images[0].id)
        catalog.expire(ImageId(images[0].id))
        assert asked_versions(catalog.find("e", versions=True)) == found(
            images[1:], "e", every=True
        )


def test_this_python_has_the_search_index() -> None:
    assert sqlite3.sqlite_version_info < (3, 34) or source_file.search_index_supported()


def test_random_names_are_found_by_any_part_of_them(catalog: Catalog) -> None:
    rng = random.Random(20240229)
    letters = "abcABCäÄßéÉσΣςñДд日本-_. 1"
    names = {"".join(rng.choices(letters, k=rng.randint(1, 12))).encode() for _ in range(300)}
    names -= {b".", b".."}
    pool = FakePool(batch_rows=1000)
    images = [fed(catalog, pool, tree_of(*(b"/d/" + name for name in sorted(names))))]
    for name in sorted(names):
        text = name.decode()
        begin = rng.randrange(len(text))
        part = text[begin : begin + rng.randint(1, 8)].swapcase()
        assert asked_versions(catalog.find(part)) == found(images, part, every=False)


def test_every_character_of_a_term_counts(catalog: Catalog) -> None:
    term = b"abcdefghijklmn"
    others = [term[:at] + b"x" + term[at + 1 :] for at in range(len(term))]
    fed(catalog, FakePool(batch_rows=1000), tree_of(*(b"/" + one for one in (term, *others))))
    for length in range(1, len(term) + 1):
        part = term[:length]
        wanted = sorted(b"/" + one for one in (term, *others) if part in one)
        assert sorted(row.path for row in catalog.find(part.decode())) == wanted


def test_answers_have_their_own_paths_however_many_there_are(catalog: Catalog) -> None:
    paths = [b"/thing", b"/top/thing", b"/a/b/c/d/e/f/g/thing"]
    paths += [b"/top%d/middle%d/low%d/thing" % (n % 2, n % 7, n) for n in range(70)]
    fed(catalog, FakePool(batch_rows=1000), tree_of(*paths))
    for _ in range(2):
        assert sorted(row.path for row in catalog.find("thing")) == sorted(paths)
    assert len({row.path for row in catalog.find("thing", limit=30)}) == 30


def test_names_that_expired_are_no_longer_found(catalog: Catalog) -> None:
    pool = FakePool()
    first = fed(catalog, pool, tree_of(b"/kept", b"/Vanished/thing"))
    fed(catalog, pool, tree_of(b"/kept"))
    assert [row.path for row in catalog.find("vanish")] == [b"/Vanished"]
    catalog.expire(ImageId(first.id))
    assert list(catalog.find("vanish")) == []
    assert list(catalog.find("thing")) == []
    fed(catalog, pool, tree_of(b"/kept", b"/VANISHED"))
    assert [row.path for row in catalog.find("vanish")] == [b"/VANISHED"]


def test_paths_are_those_of_now_though_others_were_found_before(catalog: Catalog) -> None:
    pool = FakePool()
    fed(catalog, pool, tree_of(b"/kept"))
    old = fed(catalog, pool, tree_of(b"/kept", b"/old/older/below/thing"))
    assert [row.path for row in catalog.find("thing")] == [b"/old/older/below/thing"]
    # what goes leaves its ids to what comes
    catalog.expire(ImageId(old.id))
    fed(catalog, pool, tree_of(b"/kept", b"/new/newer/below/thing"))
    assert [row.path for row in catalog.find("thing")] == [b"/new/newer/below/thing"]


def test_newest_version_is_found_and_says_whether_it_still_exists(catalog: Catalog) -> None:
    pool = FakePool()
    first = fed(catalog, pool, tree_of(b"/report", node=Node(size=1)))
    second = fed(catalog, pool, tree_of(b"/report", node=Node(size=2)))
    fed(catalog, pool, {})
    (row,) = catalog.find("report")
    assert (row.size_bytes, row.first_image, row.current) == (2, second.id, False)
    both = list(catalog.find("report", versions=True))
    assert [(row.size_bytes, row.last_image) for row in both] == [(1, first.id), (2, second.id)]


def test_every_source_is_searched_unless_one_is_named(catalog: Catalog) -> None:
    pool = FakePool()
    fed(catalog, pool, tree_of(b"/shared"), source="one:/")
    fed(catalog, pool, tree_of(b"/shared"), source="two:/")
    assert sorted(row.source for row in catalog.find("share")) == ["one:/", "two:/"]
    assert [row.source for row in catalog.find("share", source="two:/")] == ["two:/"]
    with pytest.raises(NotFound, match="three:/"):
        catalog.find("share", source="three:/")


def test_limit_ends_the_search(catalog: Catalog) -> None:
    pool = FakePool(batch_rows=1000)
    fed(catalog, pool, tree_of(*(b"/name%d" % n for n in range(50))))
    assert len(list(catalog.find("name", limit=7))) == 7
    assert len(list(catalog.find("name"))) == 50


def test_search_left_half_way_harms_nothing(catalog: Catalog) -> None:
    pool = FakePool(batch_rows=1000)
    fed(catalog, pool, tree_of(*(b"/name%d" % n for n in range(50))))
    search = catalog.find("name")
    next(search)
    second = fed(catalog, pool, tree_of(b"/name0"))
    del search
    assert [row.current for row in catalog.find("name0")] == [True]
    catalog.expire(ImageId(second.id))
    assert len(list(catalog.find("name"))) == 50


@pytest.mark.parametrize(
    ("pattern", "paths"),
    [
        ("docs/*.txt", [b"/docs/a.txt", b"/home/docs/b.TXT"]),
        ("/docs/*.txt", [b"/docs/a.txt"]),
        ("/home/**/*.txt", [b"/home/c.txt", b"/home/docs/b.TXT", b"/home/docs/old/d.txt"]),
        ("home/*/*.txt", [b"/home/docs/b.TXT"]),
        ("DOCS/OLD/*", [b"/home/docs/old/d.txt"]),
        ("/*", [b"/docs", b"/home"]),
        ("/docs/**", [b"/docs/a.txt"]),
        ("docs/a", [b"/docs/a.txt"]),
        ("/docs", [b"/docs", b"/home/docs"]),
        ("home/docs/", [b"/home/docs"]),
        ("me/docs/o", [b"/home/docs/old"]),
        ("nothing/docs", []),
    ],
)
def test_pattern_with_a_slash_is_about_paths(
    catalog: Catalog, pattern: str, paths: list[bytes]
) -> None:
    tree = tree_of(b"/docs/a.txt", b"/home/docs/b.TXT", b"/home/c.txt", b"/home/docs/old/d.txt")
    fed(catalog, FakePool(), tree)
    assert sorted(row.path for row in catalog.find(pattern)) == paths


def test_pattern_that_no_name_can_match_is_refused(catalog: Catalog) -> None:
    with pytest.raises(Invalid):
        catalog.find("a\0b")
    with pytest.raises(Invalid):
        catalog.find("\ud800")


def test_folding_twice_is_folding_once() -> None:
    for code in range(0x110000):
        character = chr(code)
        if 0xD800 <= code < 0xDC80 or 0xDD00 <= code < 0xE000:
            continue
        folded = fold_text(character)
        assert fold_text(folded) == folded, hex(code)


def test_folded_name_of_any_bytes_can_be_stored() -> None:
    for byte in range(1, 256):
        fold_name(bytes([byte])).encode("utf-8")
        fold_name(b"\xc3" + bytes([byte])).encode("utf-8")
