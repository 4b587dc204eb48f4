"""Whatever a tree has in it comes back from under a client key, and nothing else shows of it."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.base.errors import Invalid
from holdfast.engine import ClientKey, Pool, PoolConfig
from holdfast.movers.client_keys import StoredKey, read_text
from tests.kit import sealing
from tests.kit.trees import assert_same_tree

if TYPE_CHECKING:
    from collections.abc import Mapping

POOL_KEY = bytes(range(32))
SMALL = PoolConfig(chunk_min=64, chunk_avg=256, chunk_max=1024, block_bytes=4096)
SECRETS = st.binary(min_size=32, max_size=32)
MARKS = {b".nobackup", b"CACHEDIR.TAG"}
"""Files that have a backup leave out what is beside them."""
NAMES = st.binary(min_size=1, max_size=60).filter(
    lambda name: name not in {b".", b"..", *MARKS} and not {0, 47} & set(name)
)
CONTENTS = st.binary(max_size=3000) | st.integers(0, 40_000).map(lambda count: b"again " * count)
TREES: st.SearchStrategy[Mapping[bytes, object]] = st.recursive(
    st.dictionaries(NAMES, CONTENTS, max_size=5),
    lambda below: st.dictionaries(NAMES, CONTENTS | below, max_size=5),
    max_leaves=12,
)


def plant(at: bytes, tree: Mapping[bytes, object]) -> None:
    os.mkdir(at)
    for name, what in tree.items():
        path = os.path.join(at, name)
        if isinstance(what, bytes):
            with open(path, "wb") as file:
                file.write(what)
        else:
            assert isinstance(what, dict)
            plant(path, what)


@settings(deadline=None, max_examples=25)
@given(
    first=TREES,
    second=TREES,
    sealed_names=st.booleans(),
    secret=SECRETS,
)
def test_any_tree_comes_back_and_so_does_the_next_one(
    first: Mapping[bytes, object],
    second: Mapping[bytes, object],
    secret: bytes,
    *,
    sealed_names: bool,
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        top, key = Path(folder), ClientKey(secret)
        pool = Pool.create(str(top / "pool"), POOL_KEY, SMALL, 1)
        tree, parent = top / "tree", None
        tree.mkdir()
        for number, what in enumerate((first, second)):
            plant(os.fsencode(tree / str(number)), what)
            image = sealing.back_up(pool, tree, key, sealed_names=sealed_names, parent=parent)
            assert image.parent == parent
            parent = image.id
            to = top / f"back {number}"
            assert sealing.restore(pool, image.id, to, key).findings_total == 0
            assert_same_tree(tree, to / tree.relative_to("/"))


@given(secret=SECRETS, at=st.integers(0, 10_000), digit=st.integers(0, 15))
def test_a_key_on_paper_is_read_as_it_was_or_not_at_all(secret: bytes, at: int, digit: int) -> None:
    text = StoredKey("office", ClientKey(secret).id, secret).text()
    assert read_text(text) == secret
    places = [place for place, letter in enumerate(text) if letter in "0123456789abcdef"]
    place = places[at % len(places)]
    changed = f"{text[:place]}{digit:x}{text[place + 1 :]}"
    with contextlib.suppress(Invalid):
        assert read_text(changed) == secret
