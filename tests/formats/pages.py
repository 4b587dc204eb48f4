"""Constants and vectors read out of the format pages.

A page carries them in fenced blocks: ```` ```constants ```` with ``name = value`` lines, and
```` ```vector name=… ```` with hexadecimal bytes (white space means nothing) or, with
``text``, the bytes of the block itself.
"""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

PAGES = Path(__file__).parents[2] / "docs" / "formats"

_FENCE = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@cache
def page(name: str) -> str:
    """Return the text of a page."""
    return (PAGES / f"{name}.md").read_text("utf-8")


@cache
def vectors(name: str) -> dict[str, bytes]:
    """Return all vectors of a page."""
    found: dict[str, bytes] = {}
    for language, options, body in _FENCE.findall(page(name)):
        if language != "vector":
            continue
        words = options.split()
        label = next(word.removeprefix("name=") for word in words if word.startswith("name="))
        assert label not in found, f"{name}.md has two vectors named {label}"
        found[label] = body.rstrip("\n").encode() if "text" in words else bytes.fromhex(body)
    return found


def vector(name: str, label: str) -> bytes:
    """Return one vector of a page."""
    return vectors(name)[label]


@cache
def constants(name: str) -> dict[str, int | bytes]:
    """Return all constants of a page; texts as bytes."""
    found: dict[str, int | bytes] = {}
    for language, _, body in _FENCE.findall(page(name)):
        if language != "constants":
            continue
        for line in body.splitlines():
            label, _, value = line.partition(" = ")
            parsed = ast.literal_eval(value)
            assert label not in found, f"{name}.md has two constants named {label}"
            found[label] = parsed.encode("ascii") if isinstance(parsed, str) else parsed
    return found
