"""Fields of a JSON object that somebody else made, each of its type and within its bounds.

Must not know any message. Invariant: whatever is wrong is an `Invalid` that names the field and
never repeats more than a few characters of it.
"""

from __future__ import annotations

import math
from typing import Any, Final

from holdfast.base.errors import Invalid

MAX_TEXT: Final = 8192
MAX_LIST: Final = 1000
MAX_COUNT: Final = 2**63 - 1


class Reader:
    """One object that is being read."""

    def __init__(self, data: dict[str, Any], what: str) -> None:
        """Begin.

        Args:
            data: The object.
            what: What it is, in words.
        """
        self._data = data
        self._what = what

    def has(self, name: str) -> bool:
        """Whether there is something."""
        return self._data.get(name) is not None

    def text(self, name: str) -> str:
        """A text."""
        return self._text(self._data.get(name), name)

    def maybe_text(self, name: str) -> str | None:
        """A text, or nothing."""
        return self.text(name) if self.has(name) else None

    def texts(self, name: str) -> tuple[str, ...]:
        """Texts; none if the field is not there."""
        return tuple(self._text(one, name) for one in self._list(name, MAX_LIST))

    def texts_by_name(self, name: str) -> dict[str, str]:
        """Texts by name; none if the field is not there."""
        given = self.maybe_record(name) or {}
        self._require_few(given, name)
        return {self._text(key, name): self._text(one, name) for key, one in given.items()}

    def flag(self, name: str) -> bool:
        """Yes or no; no if the field is not there."""
        value = self._data.get(name, False)
        if not isinstance(value, bool):
            raise self._wrong(name, "true or false")
        return value

    def count(self, name: str) -> int:
        """A number of 0 or more."""
        return self._count(self._data.get(name), name)

    def number(self, name: str) -> float:
        """A number that is one."""
        return self._number(self._data.get(name), name)

    def pair(self, name: str) -> tuple[int, int]:
        """Two numbers of 0 or more."""
        return self._pair(self._data.get(name), name)

    def pairs(self, name: str, at_most: int) -> list[tuple[int, int]]:
        """Pairs of them; none if the field is not there."""
        return [self._pair(one, name) for one in self._list(name, at_most)]

    def record(self, name: str) -> dict[str, Any]:
        """An object."""
        value = self._data.get(name)
        if not isinstance(value, dict):
            raise self._wrong(name, "an object")
        return value

    def maybe_record(self, name: str) -> dict[str, Any] | None:
        """An object, or nothing."""
        return self.record(name) if self.has(name) else None

    def records(self, name: str, at_most: int) -> list[Reader]:
        """Objects; none if the field is not there."""
        found = self._list(name, at_most)
        if not all(isinstance(one, dict) for one in found):
            raise self._wrong(name, "objects")
        return [Reader(one, f"{self._what}: {name}") for one in found]

    def counts(self, name: str) -> dict[str, int]:
        """Numbers of 0 or more by name; none if the field is not there."""
        given = self.maybe_record(name) or {}
        self._require_few(given, name)
        return {self._text(key, name): self._count(one, name) for key, one in given.items()}

    def numbers(self, name: str) -> dict[str, float]:
        """Numbers by name; none if the field is not there."""
        given = self.maybe_record(name) or {}
        self._require_few(given, name)
        return {self._text(key, name): self._number(one, name) for key, one in given.items()}

    def _list(self, name: str, at_most: int) -> list[Any]:
        value = self._data.get(name)
        if value is None:
            return []
        if not isinstance(value, list):
            raise self._wrong(name, "a list")
        if len(value) > at_most:
            raise Invalid(f"{self._what} has {len(value)} of '{name}', more than {at_most}")
        return value

    def _require_few(self, given: dict[str, Any], name: str) -> None:
        if len(given) > MAX_LIST:
            raise Invalid(f"{self._what} has {len(given)} of '{name}', more than {MAX_LIST}")

    def _text(self, value: object, name: str) -> str:
        if not isinstance(value, str):
            raise self._wrong(name, "a text")
        if len(value) > MAX_TEXT:
            raise Invalid(f"{self._what} has {len(value)} characters of '{name}'")
        return value

    def _count(self, value: object, name: str) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_COUNT:
            raise self._wrong(name, "a number of 0 or more")
        return value

    def _number(self, value: object, name: str) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._wrong(name, "a number")
        if not math.isfinite(value) or abs(value) > MAX_COUNT:
            raise self._wrong(name, "a number that is one")
        return float(value)

    def _pair(self, value: object, name: str) -> tuple[int, int]:
        if not isinstance(value, list) or len(value) != 2:
            raise self._wrong(name, "two numbers")
        return self._count(value[0], name), self._count(value[1], name)

    def _wrong(self, name: str, wanted: str) -> Invalid:
        return Invalid(f"{self._what} has no '{name[:40]}' that is {wanted}")
