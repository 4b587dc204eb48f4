"""Rules that leave files out of a backup, in gitignore syntax, as the engine understands them.

For saying beforehand what is wrong with a rule, and what is left of a directory; a backup itself
asks the engine. Invariant: both judge alike, which a test holds. The engine's matcher is the
crate ``ignore`` over globs of the crate ``globset``; this follows
``GitignoreBuilder::add_line`` and ``globset::glob::Parser``.
"""

from __future__ import annotations

import itertools
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from holdfast.base.errors import Invalid

if TYPE_CHECKING:
    from collections.abc import Iterable

HINT = "write it as in a .gitignore, with '\\\\' before a character that means itself"

# What a pattern is made of: regular expressions over bytes, told apart where `**` asks.
_ANY = b"[^/]"
_MANY = b"[^/]*"
_PREFIX = b"(?:/?|.*/)"
_SUFFIX = b"/.*"
_BETWEEN = b"(?:/|/.*/)"


@dataclass(frozen=True, slots=True)
class _Rule:
    pattern: re.Pattern[bytes]
    is_exception: bool
    directories_only: bool


class Exclusion:
    """The rules for one path of a backup. Immutable.

    Raises:
        Invalid: A line is not a rule.
    """

    def __init__(self, root: bytes, lines: Iterable[str]) -> None:
        """Understand rules.

        Args:
            root: The absolute path that is backed up. Rules are relative to it; one that spells
                out an absolute path below it means that.
            lines: Rules; the last that matches decides.
        """
        rules = []
        for line in lines:
            try:
                rules.append(_rule(_below(root, line)))
            except _Wrong as wrong:
                raise Invalid(f"the rule '{line}' {wrong}", HINT) from wrong
        self._last_first = [one for one in reversed(rules) if one is not None]

    def leaves_out(self, path: bytes, *, is_directory: bool) -> bool:
        """Whether a path is left out, and all below it.

        Args:
            path: Relative to the root, which itself is never left out.
            is_directory: Whether it is one.
        """
        for rule in self._last_first:
            if (is_directory or not rule.directories_only) and rule.pattern.match(path):
                return not rule.is_exception
        return False


def fault(line: str) -> str | None:
    """What is wrong with a rule, in words that go on after it; None if nothing is."""
    try:
        _rule(line)
    except _Wrong as wrong:
        return str(wrong)
    return None


class _Wrong(Exception):  # noqa: N818 - never leaves this module
    """What is wrong with a rule."""


def _below(root: bytes, line: str) -> str:
    sign, rule = ("!", line[1:]) if line.startswith("!") else ("", line)
    try:
        above = root.decode().rstrip("/")
    except UnicodeDecodeError:
        return line
    rest = rule.removeprefix(above)
    if above and rest != rule and len(rest) > 1 and rest.startswith("/"):
        return sign + rest
    return line


def _rule(line: str) -> _Rule | None:
    if line.startswith("#"):
        return None
    glob = line if line.endswith("\\ ") else line.rstrip()
    if not glob:
        return None
    is_exception = anchored = False
    if glob.startswith(("\\!", "\\#")):
        glob = glob[1:]
        anchored = glob.startswith("/")
    else:
        if glob.startswith("!"):
            is_exception, glob = True, glob[1:]
        if glob.startswith("/"):
            anchored, glob = True, glob[1:]
    directories_only = glob.endswith("/")
    if directories_only:
        glob = glob[:-1].removesuffix("\\")
    if not anchored and "/" not in glob and not (glob == "**" or glob.startswith("**/")):
        glob = f"**/{glob}"
    if glob.endswith("/**"):
        glob += "/*"
    try:
        pattern = re.compile(_Glob(glob).expression(), re.DOTALL)
    except re.error as error:
        raise _Wrong("has a range in brackets that runs backwards") from error
    return _Rule(pattern, is_exception, directories_only)


class _Glob:
    """One glob on its way to a regular expression. Not thread-safe."""

    def __init__(self, glob: str) -> None:
        self._glob = glob
        self._at = 0
        self._branches: list[list[bytes]] = [[]]
        self._open: list[int] = []
        self._classes = True

    def expression(self) -> bytes:
        """The expression that matches what the glob matches, from the beginning to the end."""
        while (one := self._next()) is not None:
            self._take(one)
        if self._open:
            raise _Wrong("has a '{' without its '}'")
        tokens = self._branches[0]
        return b".*\\Z" if tokens == [_PREFIX] else _joined(tokens) + b"\\Z"

    def _take(self, one: str) -> None:
        tokens = self._branches[-1]
        if one == "?":
            tokens.append(_ANY)
        elif one == "*":
            self._star(tokens)
        elif one == "[" and self._classes:
            tokens.append(self._class())
        elif one == "{":
            self._open.append(len(self._branches))
            self._branches.append([])
        elif one == "}":
            self._close()
        elif one == "," and self._open:
            self._branches.append([])
        elif one == "\\":
            escaped = self._next()
            if escaped is None:
                raise _Wrong("ends with a '\\' that escapes nothing")
            tokens.append(_literal(escaped))
        else:
            tokens.append(_literal(one))

    def _close(self) -> None:
        if not self._open:
            raise _Wrong("has a '}' without its '{'")
        start = self._open.pop()
        parts = [_joined(one) for one in self._branches[start:]]
        del self._branches[start:]
        found = b"|".join(one for one in parts if one)
        # Braces with nothing in them match nothing, and are there all the same: what is before
        # them does not stand alone.
        self._branches[-1].append(b"(?:" + found + b")" if found else b"")

    def _star(self, tokens: list[bytes]) -> None:
        before = self._glob[self._at - 2] if self._at > 1 else None
        if self._peek() != "*":
            tokens.append(_MANY)
            return
        self._next()
        following = self._peek()
        if not tokens:
            if following in (None, "/"):
                tokens.append(_PREFIX)
                self._next()
            else:
                tokens.append(_MANY)
            return
        in_braces = len(self._branches) > 1
        if before != "/" and not (in_braces and before in (",", "{")):
            tokens.append(_MANY)
            return
        if following == "/":
            self._next()
            between = _BETWEEN
        elif following is None or (in_braces and following in (",", "}")):
            between = _SUFFIX
        else:
            tokens.append(_MANY)
            return
        last = tokens.pop()
        tokens.append(last if last in (_PREFIX, _SUFFIX) else between)

    def _class(self) -> bytes:
        begin = self._at
        negated = self._peek() in ("!", "^")
        if negated:
            self._next()
        ranges: list[tuple[str, str]] = []
        first, in_range = True, False
        while (one := self._next()) != "]" or first:
            if one is None:
                # Without its end, this one and all that follow mean themselves.
                self._at, self._classes = begin, False
                return _literal("[")
            if one == "-" and not first and not in_range:
                in_range = True
            elif in_range:
                ranges[-1] = (ranges[-1][0], one)
                if one < ranges[-1][0]:
                    raise _Wrong("has a range in brackets that runs backwards")
                in_range = False
            else:
                ranges.append((one, one))
            first = False
        if in_range:
            ranges.append(("-", "-"))
        inside = b"".join(
            _literal(low) if low == high else _literal(low) + b"-" + _literal(high)
            for low, high in ranges
        )
        return (b"[^" if negated else b"[") + inside + b"]"

    def _next(self) -> str | None:
        one = self._peek()
        self._at += 1
        return one

    def _peek(self) -> str | None:
        return self._glob[self._at] if self._at < len(self._glob) else None


def _joined(tokens: list[bytes]) -> bytes:
    """One expression of all tokens.

    What stands between two stars is taken where it comes first, once and for all: the second star
    makes up for what the first might have taken more. Otherwise a name of many like characters
    would be tried in more ways than there is time for.
    """
    stars = [at for at, one in enumerate(tokens) if one == _MANY]
    found, done = b"", 0
    for star, following in itertools.pairwise(stars):
        found += b"".join(tokens[done:star])
        between = tokens[star + 1 : following]
        if not all(_is_one_character(one) for one in between):
            found += b"".join(tokens[star:following])
        elif between:
            found += b"(?>[^/]*?" + b"".join(between) + b")"
        done = following
    return found + b"".join(tokens[done:])


def _is_one_character(token: bytes) -> bool:
    """Whether a token stands for one character that is no slash."""
    return token == _ANY or token[:1] not in (b"[", b"(", b"/")


def _literal(one: str) -> bytes:
    return re.escape(os.fsencode(one))
