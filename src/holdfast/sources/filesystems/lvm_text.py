"""The text in which LVM2 keeps what it knows: sections, and names with values.

Must not know what they mean. Invariants: sections lie in each other at most `DEPTH` deep; time and
memory are in proportion to the text.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, TypeAlias

from holdfast.sources.filesystems.disk import Malformed

if TYPE_CHECKING:
    from collections.abc import Iterator

DEPTH = 16

Value: TypeAlias = "int | float | str | list[Value] | Section"
Section: TypeAlias = "dict[str, Value]"

_TOKEN = re.compile(
    r"""
    (?: \s+ | \#[^\n]* )+                       # nothing
    | (?P<text> "(?:[^"\\]|\\.)*" )
    | (?P<float> -?[0-9]+\.[0-9]* )
    | (?P<int> -?[0-9]{1,19} (?![A-Za-z0-9_.+-]) )
    | (?P<name> [A-Za-z0-9_.+-]+ )
    | (?P<mark> [{}\[\]=,] )
    """,
    re.VERBOSE | re.DOTALL,
)


def parse(text: str) -> Section:
    """Read a whole text.

    Raises:
        Malformed: It is not one.
    """
    root: Section = {}
    open_sections = [root]
    name: str | None = None
    tokens = _tokens(text)
    for kind, word in tokens:
        if kind in ("name", "int") and name is None:
            name = word
        elif word == "{" and name is not None:
            if len(open_sections) > DEPTH:
                raise Malformed("sections lie too deep in each other")
            inner: Section = {}
            open_sections[-1][name] = inner
            open_sections.append(inner)
            name = None
        elif word == "=" and name is not None:
            open_sections[-1][name] = _value(tokens)
            name = None
        elif word == "}" and name is None and len(open_sections) > 1:
            open_sections.pop()
        else:
            raise Malformed(f"'{word[:20]}' is out of place")
    if name is not None or len(open_sections) != 1:
        raise Malformed("the text ends in the middle")
    return root


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise Malformed(f"'{text[at : at + 10]!r}' means nothing")
        at = match.end()
        if match.lastgroup is not None:
            yield match.lastgroup, match.group()


def _value(tokens: Iterator[tuple[str, str]]) -> Value:
    kind, word = next(tokens, ("", ""))
    if word != "[":
        return _scalar(kind, word)
    found: list[Value] = []
    for kind, word in tokens:
        if word == "]":
            return found
        if word == ",":
            continue
        found.append(_scalar(kind, word))
    raise Malformed("a list has no end")


def _scalar(kind: str, word: str) -> Value:
    if kind == "int":
        return int(word)
    if kind == "float":
        return float(word)
    if kind == "text":
        return re.sub(r"\\(.)", r"\1", word[1:-1], flags=re.DOTALL)
    raise Malformed(f"'{word[:20]}' is no value")
