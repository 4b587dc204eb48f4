"""Queries that say which virtual machines are meant: ``tag=prod and not name=*-test``.

Pure. Must not look for machines. Invariants: what a query is written as is read back as the same
query; whatever is wrong is told with its place.

::

    query  = either
    either = both ("or" both)*
    both   = one ("and" one)*
    one    = "not" one | "(" query ")" | [FIELD comparison] VALUE

A value alone is compared with the name. Values are globs, without regard to capitals: ``*`` is any
text, ``?`` one character, ``[ab]`` one of some. White space, ``()<>!"`` and the words ``and``,
``or``, ``not`` stand in a value only between ``"``, where a backslash takes the next character as
it is. ``=`` may stand inside of one: ``tag=env=prod``.
"""

from __future__ import annotations

import fnmatch
import re
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NoReturn, Protocol, TypeAlias

from holdfast.base.errors import Invalid
from holdfast.base.units import parse_size

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from holdfast.sources.machines.machine import Machine

LONGEST: Final = 2000
"""Characters of a query."""

DEEPEST: Final = 30
"""Parentheses and negations inside of each other."""

HINT: Final = "such as: tag=prod and not name=*-test, or size<500GB"

_TOKEN = re.compile(
    r"\s+|(?P<mark>[()]|!=|<=|>=|=|<|>)|\"(?P<quoted>(?:[^\"\\]|\\.)*)\"|(?P<word>[^\s()<>=!\"]+)",
    re.DOTALL,
)
_PLAIN = re.compile(r"[^\s()<>=!\"]+")
_WORDS = frozenset({"and", "or", "not"})
_EQUAL, _OTHER = "=", "!="
_ORDERS: Mapping[str, Callable[[int, int], bool]] = {
    "=": lambda one, other: one == other,
    "!=": lambda one, other: one != other,
    "<": lambda one, other: one < other,
    "<=": lambda one, other: one <= other,
    ">": lambda one, other: one > other,
    ">=": lambda one, other: one >= other,
}


class Asked(Protocol):
    """What a query is asked of."""

    @property
    def hypervisor(self) -> str:
        """What reaches it."""
        ...

    @property
    def machine(self) -> Machine:
        """What is known of it."""
        ...


@dataclass(frozen=True, slots=True)
class Comparison:
    """One comparison.

    Attributes:
        field: One of `TEXTS` or `SIZES`.
        comparison: ``=``, ``!=``, or for sizes ``<``, ``<=``, ``>``, ``>=`` as well.
        value: As it was written.
    """

    field: str
    comparison: str
    value: str

    def matches(self, one: Asked) -> bool:
        """Whether it holds."""
        size = SIZES.get(self.field)
        if size is not None:
            return _ORDERS[self.comparison](size(one), parse_size(self.value))
        pattern = _pattern(self.value)
        found = any(pattern.match(text.casefold()) for text in TEXTS[self.field](one))
        return found == (self.comparison == _EQUAL)

    def __str__(self) -> str:
        return f"{self.field}{self.comparison}{_written(self.value)}"


@dataclass(frozen=True, slots=True)
class Not:
    """What does not hold."""

    query: Query

    def matches(self, one: Asked) -> bool:
        """Whether it holds."""
        return not self.query.matches(one)

    def __str__(self) -> str:
        return f"not {_inner(self.query, And, Or)}"


@dataclass(frozen=True, slots=True)
class And:
    """Two or more that all hold."""

    parts: tuple[Query, ...]

    def matches(self, one: Asked) -> bool:
        """Whether they do."""
        return all(part.matches(one) for part in self.parts)

    def __str__(self) -> str:
        return " and ".join(_inner(part, And, Or) for part in self.parts)


@dataclass(frozen=True, slots=True)
class Or:
    """Two or more of which one holds at least."""

    parts: tuple[Query, ...]

    def matches(self, one: Asked) -> bool:
        """Whether one does."""
        return any(part.matches(one) for part in self.parts)

    def __str__(self) -> str:
        return " or ".join(_inner(part, Or) for part in self.parts)


Query: TypeAlias = Comparison | Not | And | Or

TEXTS: Final[Mapping[str, Callable[[Asked], Sequence[str]]]] = {
    "name": lambda one: (one.machine.name,),
    "host": lambda one: (one.machine.host,),
    "hypervisor": lambda one: (one.hypervisor,),
    "folder": lambda one: (one.machine.folder,),
    "tag": lambda one: one.machine.tags,
    "guest": lambda one: (one.machine.guest,),
    "state": lambda one: (one.machine.state,),
    "datastore": lambda one: one.machine.datastores,
    "network": lambda one: tuple(card.network for card in one.machine.networks),
    "uuid": lambda one: (one.machine.uuid,),
}
"""What is compared with a glob; of what there are several, any."""

SIZES: Final[Mapping[str, Callable[[Asked], int]]] = {
    "size": lambda one: one.machine.size,
    "memory": lambda one: one.machine.memory,
}
"""What is compared as a number of bytes."""

FIELDS: Final = (*TEXTS, *SIZES)


def parse(text: str) -> Query:
    """Read a query.

    Raises:
        Invalid: It is none; the message tells at which character, counted from 1.
    """
    if len(text) > LONGEST:
        raise Invalid(f"a query has {LONGEST:,} characters at most, and this one {len(text):,}")
    reader = _Reader(_tokens(text), len(text))
    found = reader.either(0)
    reader.require_end()
    return found


@dataclass(frozen=True, slots=True)
class _Token:
    """A piece of a query: a mark, a word, or a text that was quoted."""

    text: str
    at: int
    end: int
    is_mark: bool = False
    is_quoted: bool = False

    def is_word(self, word: str) -> bool:
        return not self.is_quoted and not self.is_mark and self.text.casefold() == word

    @property
    def is_reserved(self) -> bool:
        return not self.is_quoted and not self.is_mark and self.text.casefold() in _WORDS


def _tokens(text: str) -> list[_Token]:
    found, at = [], 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            if text[at] == '"':
                _fail(at, "a quotation mark is not closed", 'end it with "')
            _fail(
                at,
                f"'{text[at]}' means nothing here",
                f"put a value that has it into quotes; {HINT}",
            )
        if match["mark"]:
            found.append(_Token(match["mark"], at, match.end(), is_mark=True))
        elif match["quoted"] is not None:
            plain = re.sub(r"\\(.)", r"\1", match["quoted"], flags=re.DOTALL)
            found.append(_Token(plain, at, match.end(), is_quoted=True))
        elif match["word"]:
            found.append(_Token(match["word"], at, match.end()))
        at = match.end()
    return found


class _Reader:
    """Reads tokens, once, from the left."""

    def __init__(self, tokens: Sequence[_Token], end: int) -> None:
        self._tokens = tokens
        self._end = end
        self._next = 0

    def either(self, depth: int) -> Query:
        parts = [self._both(depth)]
        while self._take_word("or"):
            parts.append(self._both(depth))
        return parts[0] if len(parts) == 1 else Or(tuple(parts))

    def _both(self, depth: int) -> Query:
        parts = [self._one(depth)]
        while self._take_word("and"):
            parts.append(self._one(depth))
        return parts[0] if len(parts) == 1 else And(tuple(parts))

    def _one(self, depth: int) -> Query:
        token = self._require("a comparison")
        if depth > DEEPEST:
            _fail(token.at, f"it is more than {DEEPEST} levels deep")
        if token.is_word("not"):
            self._next += 1
            return Not(self._one(depth + 1))
        if token.is_mark and token.text == "(":
            self._next += 1
            inner = self.either(depth + 1)
            closing = self._peek()
            if closing is None or closing.text != ")" or not closing.is_mark:
                self._unexpected(
                    closing, f"the parenthesis of character {token.at + 1} is not closed"
                )
            self._next += 1
            return inner
        return self._test()

    def _test(self) -> Comparison:
        first = self._value("a name, or a field and a value")
        mark = self._peek()
        if mark is None or not mark.is_mark or mark.text in "()":
            return Comparison("name", _EQUAL, first.text)
        if first.is_quoted or first.text.casefold() not in FIELDS:
            near = get_close_matches(first.text.casefold(), FIELDS, n=1)
            meant = f"did you mean '{near[0]}'?" if near else f"there is {', '.join(FIELDS)}"
            _fail(first.at, f"there is no field '{first.text[:40]}'", meant)
        field = first.text.casefold()
        self._next += 1
        if field not in SIZES and mark.text not in (_EQUAL, _OTHER):
            _fail(
                mark.at, f"'{field}' is text, which '{mark.text}' does not compare", "use = or !="
            )
        value = self._joined(self._value(f"what '{field}' is compared with"))
        if field in SIZES:
            try:
                parse_size(value.text)
            except Invalid as error:
                _fail(value.at, error.message, error.hint)
            except OverflowError:
                _fail(value.at, f"'{value.text[:40]}…' is not a size of anything")
        return Comparison(field, mark.text, value.text)

    def _value(self, wanted: str) -> _Token:
        token = self._require(wanted)
        if token.is_mark or token.is_reserved:
            _fail(token.at, f"here is '{token.text}' instead of {wanted}", HINT)
        self._next += 1
        return token

    def _joined(self, first: _Token) -> _Token:
        """A value with ``=`` in it, as tags have it: ``tag=env=prod``."""
        text, end = first.text, first.end
        while len(parts := self._tokens[self._next : self._next + 2]) == 2:
            mark, more = parts
            apart = mark.at != end or more.at != mark.end or more.is_mark
            if apart or not mark.is_mark or mark.text != "=":
                break
            text, end = f"{text}={more.text}", more.end
            self._next += 2
        return _Token(text, first.at, end, is_quoted=True)

    def require_end(self) -> None:
        token = self._peek()
        if token is not None:
            hint = "write 'and' or 'or' between two comparisons, and quotes around a value of words"
            _fail(token.at, f"'{token.text[:40]}' is not expected here", hint)

    def _unexpected(self, token: _Token | None, why: str) -> NoReturn:
        _fail(self._end if token is None else token.at, why, "close it with )")

    def _require(self, wanted: str) -> _Token:
        token = self._peek()
        if token is None:
            _fail(self._end, f"it ends where {wanted} is expected", HINT)
        return token

    def _take_word(self, word: str) -> bool:
        token = self._peek()
        if token is None or not token.is_word(word):
            return False
        self._next += 1
        return True

    def _peek(self) -> _Token | None:
        return self._tokens[self._next] if self._next < len(self._tokens) else None


def _fail(at: int, why: str, hint: str | None = None) -> NoReturn:
    raise Invalid(f"the query can't be understood at character {at + 1}: {why}", hint)


def _inner(query: Query, *kinds: type) -> str:
    return f"({query})" if isinstance(query, kinds) else str(query)


def _written(value: str) -> str:
    if _PLAIN.fullmatch(value) and value.casefold() not in _WORDS:
        return value
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


@lru_cache(maxsize=1024)
def _pattern(value: str) -> re.Pattern[str]:
    return re.compile(fnmatch.translate(value.casefold()))
