"""Read plain data (texts, numbers, lists, tables), with every fault noted at its place.

Must not know what a policy is, nor raise. Invariant: what could not be read is in the findings,
and a default stands in its place, so that reading goes on and finds the rest.
"""

from __future__ import annotations

import json
import re
from datetime import date, datetime, time
from difflib import get_close_matches
from typing import TYPE_CHECKING, TypeVar, overload

from holdfast.base.errors import Invalid
from holdfast.control.policies.findings import Finding, error, inside

if TYPE_CHECKING:
    import enum
    from collections.abc import Callable, Iterator, Mapping

    EnumT = TypeVar("EnumT", bound=enum.StrEnum)

T = TypeVar("T")

LONGEST_TEXT = 4096
LONGEST_WORD = 200
"""What has a shape of its own: names, windows, durations."""
LONGEST_LIST = 10_000
_SHOWN = 60
_DAY = re.compile("[0-9]{4}-[0-9]{2}-[0-9]{2}")


class Table:
    """One table of a document, read key by key. Not thread-safe.

    Attributes:
        place: Where it is.
        findings: What was wrong so far; shared with the tables inside of it.
    """

    def __init__(self, value: Mapping[str, object], place: str, findings: list[Finding]) -> None:
        # Nothing (null) is the same as a key that is not there.
        self._value = {key: one for key, one in value.items() if one is not None}
        self._known: set[str] = set()
        self.place = place
        self.findings = findings

    def __contains__(self, key: str) -> bool:
        return key in self._value

    def at(self, key: str) -> str:
        """The place of a key."""
        return inside(self.place, key)

    def fault(self, key: str, message: str, hint: str | None = None) -> None:
        """Note what is wrong with the value of a key."""
        self.findings.append(error(self.at(key), message, hint))

    def lacks(self, key: str, hint: str) -> None:
        """Note that a key is missing."""
        self.findings.append(error(self.at(key), f"there is no '{key}'", hint))

    @overload
    def text(self, key: str) -> str | None: ...
    @overload
    def text(self, key: str, default: str) -> str: ...
    def text(self, key: str, default: str | None = None) -> str | None:
        """The text of a key; the default if it is not there, or is none."""
        value = self._take(key)
        text = None if value is None else _text(value, self.at(key), self.findings)
        return default if text is None else text

    def flag(self, key: str, default: bool) -> bool:
        """True or false."""
        value = self._take(key)
        if value is None:
            return default
        if isinstance(value, bool):
            return value
        hint = "write true or false, without quotes"
        self.fault(key, f"it is {kind_of(value)}, not true or false", hint)
        return default

    @overload
    def number(self, key: str, allowed: range) -> int | None: ...
    @overload
    def number(self, key: str, allowed: range, default: int) -> int: ...
    def number(self, key: str, allowed: range, default: int | None = None) -> int | None:
        """A whole number in a range; the default if it is not there, or is none."""
        value = self._take(key)
        if value is None:
            return default
        if not isinstance(value, int) or isinstance(value, bool):
            self.fault(key, f"it is {kind_of(value)}, not a whole number")
            return default
        if value not in allowed:
            self.fault(key, f"{value} is not from {allowed[0]} to {allowed[-1]}")
            return default
        return value

    def choice(self, key: str, kinds: type[EnumT]) -> EnumT | None:
        """One of some words; None if it is not there, or is none of them."""
        text = self.text(key)
        if text is None:
            return None
        words = [one.value for one in kinds]
        if text not in words:
            near = get_close_matches(text, words, n=1)
            meant = f"did you mean '{near[0]}'?" if near else f"it may be {', '.join(words)}"
            self.fault(key, f"'{shown(text)}' is not known", meant)
            return None
        return kinds(text)

    def parsed(self, key: str, parse: Callable[[str], T]) -> T | None:
        """What a parser makes of a text; None if there is none, or the parser refuses it."""
        text = self.text(key)
        return None if text is None else self._parse(text, self.at(key), parse)

    def texts(self, key: str, example: str) -> tuple[str, ...]:
        """A list of texts."""
        return tuple(text for _, text in self._texts(key, example))

    def each(self, key: str, parse: Callable[[str], T], example: str) -> list[tuple[str, T]]:
        """What a parser makes of each text of a list, with its place."""
        read = (
            (place, self._parse(text, place, parse)) for place, text in self._texts(key, example)
        )
        return [(place, value) for place, value in read if value is not None]

    def dates(self, key: str) -> tuple[date, ...]:
        """A list of days: dates, or texts such as ``2026-12-31``."""
        found = []
        for place, value in self.items(key, '["2026-12-31"]'):
            day = _date(value)
            if day is None:
                message = f"{_quoted(value)} is not a date"
                self.findings.append(error(place, message, 'write for example "2026-12-31"'))
            else:
                found.append(day)
        return tuple(found)

    def table(self, key: str) -> Table | None:
        """The table of a key; None if it is not there, or is none."""
        value = self._take(key)
        return None if value is None else table(value, self.at(key), self.findings)

    def tables(self, key: str, example: str) -> list[Table]:
        """A list of tables."""
        read = (table(value, place, self.findings) for place, value in self.items(key, example))
        return [one for one in read if one is not None]

    def items(self, key: str, example: str) -> Iterator[tuple[str, object]]:
        """The items of a list, whatever they are, with their places."""
        value = self._take(key)
        if value is None:
            return
        if not isinstance(value, list):
            self.fault(key, f"it is {kind_of(value)}, not a list", f"write for example {example}")
            return
        if len(value) > LONGEST_LIST:
            self.fault(key, f"it has {len(value):,} items; {LONGEST_LIST:,} is the most")
            return
        for number, one in enumerate(value):
            yield inside(self.at(key), number), one

    def peek(self, key: str) -> object:
        """The value of a key as it stands, or None. It is still to be read."""
        return self._value.get(key)

    def end(self) -> None:
        """Note every key that nobody asked for."""
        for key in self._value:
            if key in self._known:
                continue
            near = get_close_matches(key, self._known, n=1)
            hint = (
                f"did you mean '{near[0]}'?"
                if near
                else f"it may have {', '.join(sorted(self._known))}"
            )
            self.findings.append(error(self.at(shown(key)), "this key is not known", hint))

    def _take(self, key: str) -> object:
        self._known.add(key)
        return self._value.get(key)

    def _texts(self, key: str, example: str) -> Iterator[tuple[str, str]]:
        for place, value in self.items(key, example):
            text = _text(value, place, self.findings)
            if text is not None:
                yield place, text

    def _parse(self, text: str, place: str, parse: Callable[[str], T]) -> T | None:
        if len(text) > LONGEST_WORD:
            message = f"it has {len(text):,} characters; {LONGEST_WORD} is the most"
            self.findings.append(error(place, message))
            return None
        try:
            return parse(text)
        except Invalid as refused:
            self.findings.append(error(place, refused.message, refused.hint))
            return None


def table(value: object, place: str, findings: list[Finding]) -> Table | None:
    """Take a value as a table; None, and a finding, if it is none."""
    if not isinstance(value, dict):
        findings.append(error(place, f"it is {kind_of(value)}, not a table"))
        return None
    return Table(value, place, findings)


def kind_of(value: object) -> str:
    """What a value is, in words."""
    if isinstance(value, bool):
        return str(value).lower()
    for kind, words in _KINDS:
        if isinstance(value, kind):
            return words
    return f"a {type(value).__name__}"


_KINDS: tuple[tuple[type, str], ...] = (
    (str, "text"),
    (int, "a number"),
    (float, "a number"),
    (list, "a list"),
    (dict, "a table"),
    (datetime, "a moment"),
    (date, "a date"),
    (time, "a time"),
    (type(None), "nothing"),
)


def shown(text: str) -> str:
    """A text that is fit to stand in a sentence."""
    printable = text if text.isprintable() else json.dumps(text)[1:-1]
    return printable if len(printable) <= _SHOWN else printable[: _SHOWN - 1] + "…"


def _text(value: object, place: str, findings: list[Finding]) -> str | None:
    message, hint = None, None
    if not isinstance(value, str):
        message = f"it is {kind_of(value)}, not text"
        hint = f'write it in quotes: "{shown(str(value))}"' if _is_scalar(value) else None
    elif len(value) > LONGEST_TEXT:
        message = f"it has {len(value):,} characters; {LONGEST_TEXT:,} is the most"
    elif "\0" in value:
        message = f"'{shown(value)}' has a NUL character, which no name can have"
    elif not _is_utf8(value):
        message = f"'{shown(value)}' is not UTF-8"
        hint = "a policy can only name what is; name the directory above it"
    else:
        return value
    findings.append(error(place, message, hint))
    return None


def _is_scalar(value: object) -> bool:
    return isinstance(value, int | float | date | time)


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _date(value: object) -> date | None:
    if isinstance(value, datetime):
        return None
    if isinstance(value, date):
        return value
    # Weeks and days without dashes, which Python reads as well, are for nobody to puzzle over.
    if not isinstance(value, str) or _DAY.fullmatch(value) is None:
        return None
    try:
        return date.fromisoformat(value)
    except ValueError:
        return None


def _quoted(value: object) -> str:
    return f"'{shown(value)}'" if isinstance(value, str) else kind_of(value)
