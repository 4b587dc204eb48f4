"""What a master asks a client to look at before a policy is taken, and what the client says.

Must not act. Invariant: every message is plain data that passes JSON unchanged. Names of files are
text in which bytes that are not UTF-8 are surrogate escapes.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Self, TypeVar

from holdfast.base.errors import Invalid

VERSION = 1

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class LookOrder:
    """What to look at, as the process that would read it in a backup.

    Attributes:
        paths: Absolute, or the word ``ALL_LOCAL_DRIVES`` alone.
        exclude: Rules in gitignore syntax.
        one_file_system: Stay on the file system that each path is on.
        programs: That have to be there to be run.
        most_names: How many names to look at at most.
        within_s: How long to look at most.
    """

    paths: tuple[str, ...]
    exclude: tuple[str, ...] = ()
    one_file_system: bool = False
    programs: tuple[str, ...] = ()
    most_names: int = 20_000
    within_s: float = 5.0

    def to_json(self) -> dict[str, Any]:
        """As plain data, with its version."""
        return {"version": VERSION, "ask": "look", **asdict(self)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Read what `to_json` made.

        Raises:
            Invalid: It is of a newer version, or not complete.
        """
        return _read(cls, data, "ask")


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something that would be in a backup's way.

    Attributes:
        severity: ``error`` where nothing would come of it, ``warning`` where something would lack.
        cause: Stable word for the cause: ``missing``, ``no-permission``.
        message: The same in a sentence that names the true cause.
        hint: What can be done about it.
        about: The path or program of the order that it is about; None for all of them.
    """

    severity: str
    cause: str
    message: str
    hint: str | None = None
    about: str | None = None


@dataclass(frozen=True, slots=True)
class LookReport:
    """What was seen.

    Attributes:
        reader: Who looked, in words: ``user backup (uid 1000)``.
        troubles: What is in the way.
        names: How many names would be taken, of those looked at.
        left_out: How many are left out by rules, without what is below them.
        size_bytes: Of the files that would be taken, of those looked at.
        is_complete: Whether everything was looked at, so that the numbers are those of a backup.
    """

    reader: str
    troubles: tuple[Trouble, ...] = ()
    names: int = 0
    left_out: int = 0
    size_bytes: int = 0
    is_complete: bool = False

    def to_json(self) -> dict[str, Any]:
        """As plain data, with its version."""
        return {"version": VERSION, "answer": "look", **asdict(self)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Read what `to_json` made.

        Raises:
            Invalid: It is of a newer version, or not complete.
        """
        return _read(cls, data, "answer")


def _read(kind: type[T], data: dict[str, Any], role: str) -> T:
    given = dict(data)
    version, what = given.pop("version", None), given.pop(role, None)
    if not isinstance(version, int) or version > VERSION or what != "look":
        raise Invalid(
            f"the message '{what}', version {version}, is not known here",
            f"this Holdfast knows 'look' up to version {VERSION}: update it",
        )
    try:
        given = {name: _frozen(value) for name, value in given.items()}
        if "troubles" in given:
            given["troubles"] = tuple(Trouble(**one) for one in given["troubles"])
        return kind(**given)
    except TypeError as error:
        raise Invalid(f"the message 'look' is not as it should be: {error}") from error


def _frozen(value: object) -> Any:
    return tuple(value) if isinstance(value, list) else value
