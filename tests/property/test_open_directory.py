"""Objects of a directory come page by page, each once, whatever their keys are."""

from __future__ import annotations

import tempfile
from contextlib import closing
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.vault.backends.directory import DirectoryStore
from holdfast.vault.backends.open_directory import OpenDirectory

PART = st.text("ab-.0", min_size=1, max_size=3).filter(lambda text: not text.startswith("."))
KEY = st.lists(PART, min_size=1, max_size=3).map("/".join)


def fitting(keys: list[str]) -> set[str]:
    """Keys of which none is a directory of another."""
    found: set[str] = set()
    for key in keys:
        if not any(f"{one}/".startswith(f"{key}/") or key.startswith(f"{one}/") for one in found):
            found.add(key)
    return found


@settings(max_examples=40, deadline=None)
@given(st.lists(KEY, max_size=25).map(fitting), KEY, st.integers(1, 5))
def test_pages_hold_what_a_list_holds(keys: set[str], prefix: str, count: int) -> None:
    with tempfile.TemporaryDirectory() as place, closing(OpenDirectory(place)) as store:
        for key in keys:
            staged = store.stage()
            staged.write(key.encode())
            staged.publish(key)
            staged.discard()
        assert list(Path(place, "tmp").glob("*")) == []
        for asked in ("", f"{prefix}/"):
            found: list[tuple[str, int]] = []
            while True:
                page = store.page(asked, found[-1][0] if found else None, count)
                found += page
                if len(page) < count:
                    break
            assert found == [one for page in DirectoryStore(place).list(asked) for one in page]
            assert {key for key, _ in found} == {key for key in keys if key.startswith(asked)}
