"""Understand what a person searches for, and compare folded names with it.

Must not touch a database. Case never matters, in any script. A pattern with one of ``* ? [`` is a
glob over whole names, otherwise it is a part of a name. With a ``/`` it is about paths: a glob is
compared component by component from the right (``**`` stands for any number of them; one that
begins with ``/`` must match from the root), and a part must reach into the entry's own name.
"""

from __future__ import annotations

import fnmatch
import re
from dataclasses import dataclass

from holdfast.base.errors import Invalid
from holdfast.control.catalog.folding import fold_text

_MAGIC = re.compile(r"[*?[]")
_GLOB_PARTS = re.compile(r"\[!?\]?[^\]]*\]|[*?]")


@dataclass(frozen=True, slots=True)
class Pattern:
    """A search, ready to be run.

    Attributes:
        part: What a name must contain, for patterns that are no globs; else None.
        required: Trigrams that a name must contain, no more than have nearly every character of
            the pattern in them: the lists of all would take longer to compare than the few names
            that they rule out. Empty if the pattern is too short to have any.
        like: What SQL's LIKE with a backslash lets every name through that matches, and others.
    """

    part: str | None
    required: frozenset[str]
    like: str
    _like_is_exact: bool
    _name: re.Pattern[str] | None
    _above: tuple[re.Pattern[str] | None, ...]
    _head: str | None

    @property
    def needs_path(self) -> bool:
        """Whether `matches_above` has a say."""
        return bool(self._above) or self._head is not None

    @property
    def is_plain(self) -> bool:
        """Whether `like` lets through what matches, and nothing else."""
        return self._like_is_exact and not self.needs_path

    def matches_name(self, folded: str) -> bool:
        """Compare a folded name."""
        if self._name is not None:
            return self._name.match(folded) is not None
        if self._head is not None:
            return folded.startswith(self.part or "")
        return (self.part or "") in folded

    def matches_above(self, folded_directory: str) -> bool:
        """Compare the folded path of the directory; empty for the root, no slash at its end."""
        if self._head is not None:
            return folded_directory.endswith(self._head)
        return _components_match(self._above, folded_directory.split("/"))


def parse(text: str) -> Pattern:
    """Understand a pattern.

    Raises:
        Invalid: It holds a NUL or half of a surrogate pair, which no name can.
    """
    if "\0" in text:
        raise Invalid("the pattern holds a NUL, which no name can")
    folded = fold_text(text)
    try:
        folded.encode("utf-8")
    except UnicodeEncodeError as error:
        raise Invalid("the pattern is not a text: it holds half of a character") from error
    folded = folded.rstrip("/") if folded.strip("/") else ""
    if not _MAGIC.search(folded):
        head, slash, part = folded.rpartition("/")
        like = _verbatim(part) + "%" if slash else f"%{_verbatim(part)}%"
        return Pattern(part, _covering(part), like, True, None, (), head if slash else None)
    *above, name = _components(folded)
    required = frozenset[str]().union(*map(_covering, _GLOB_PARTS.split(name)))
    return Pattern(
        None,
        required,
        _like(name),
        all(one[0] != "[" for one in _GLOB_PARTS.findall(name)),
        re.compile(fnmatch.translate(name)),
        tuple(None if one == "**" else re.compile(fnmatch.translate(one)) for one in above),
        None,
    )


def _covering(text: str) -> frozenset[str]:
    last = len(text) - 3
    begins = [at for at in (*range(0, last, 3), last) if at >= 0]
    if len(begins) > 2 and begins[-2] == last - 1:
        # all that it adds to those beside it is one character
        del begins[-2]
    return frozenset(text[at : at + 3] for at in begins)


def _verbatim(text: str) -> str:
    return re.sub(r"([\\%_])", r"\\\1", text)


def _like(glob: str) -> str:
    """A glob over names for LIKE, which knows no sets of characters: any one will do there."""
    parts = []
    at = 0
    for magic in _GLOB_PARTS.finditer(glob):
        parts += [_verbatim(glob[at : magic.start()]), "%" if magic[0] == "*" else "_"]
        at = magic.end()
    return "".join(parts) + _verbatim(glob[at:])


def _components(glob: str) -> list[str]:
    parts = glob.split("/")
    if len(parts) > 1 and parts[0] != "":
        # not from the root: anywhere below it
        parts.insert(0, "**")
    if parts[-1] == "**":
        parts[-1:] = ["**", "*"]
    return parts


def _components_match(wanted: tuple[re.Pattern[str] | None, ...], parts: list[str]) -> bool:
    """Compare components; None among the wanted ones stands for any number of them."""
    # places in `parts` that what has been compared so far can have led to
    reached = {0}
    for one in wanted:
        if one is None:
            reached = set(range(min(reached), len(parts) + 1))
        else:
            reached = {
                at + 1 for at in reached if at < len(parts) and one.match(parts[at]) is not None
            }
        if not reached:
            return False
    return len(parts) in reached
