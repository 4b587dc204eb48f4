"""What a master asks a client to look at before a policy is taken, and what the client says.

Must not act. Invariant: every message is plain data that passes JSON unchanged. Names of files are
text in which bytes that are not UTF-8 are surrogate escapes.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from holdfast.base.errors import Invalid
from holdfast.wire.fields import MAX_LIST, Reader

VERSION = 1


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
        client_key: A client key that has to be there, by name or id.
        sealed_names: Name no file in the report that the order does not name.
    """

    paths: tuple[str, ...]
    exclude: tuple[str, ...] = ()
    one_file_system: bool = False
    programs: tuple[str, ...] = ()
    most_names: int = 20_000
    within_s: float = 5.0
    client_key: str | None = None
    sealed_names: bool = False

    def to_json(self) -> dict[str, Any]:
        """As plain data, with its version."""
        return {"version": VERSION, "ask": "look", **asdict(self)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> LookOrder:
        """Read what `to_json` made.

        Raises:
            Invalid: It is of a newer version, or not complete.
        """
        return _read_order(data)


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something that would be in a backup's way.

    Attributes:
        severity: ``error`` where nothing would come of it, ``warning`` where something would lack.
        cause: Stable word for the cause: ``missing``, ``no-permission``.
        message: The same in a sentence that names the true cause.
        hint: What can be done about it.
        about: The path, program or client key of the order that it is about; None for all of them.
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
        """Read what `to_json` made, whoever says so.

        Raises:
            Invalid: It is of a newer version, or not as it should be.
        """
        _require_known(data, "answer")
        given = Reader(data, "the report 'look'")
        return cls(
            reader=given.text("reader"),
            troubles=tuple(_trouble(one) for one in given.records("troubles", MAX_LIST)),
            names=given.count("names"),
            left_out=given.count("left_out"),
            size_bytes=given.count("size_bytes"),
            is_complete=data.get("is_complete") is True,
        )


def _trouble(given: Reader) -> Trouble:
    severity = given.text("severity")
    if severity not in {"error", "warning"}:
        raise Invalid(f"trouble is not '{severity[:40]}'")
    return Trouble(
        severity,
        given.text("cause"),
        given.text("message"),
        given.maybe_text("hint"),
        given.maybe_text("about"),
    )


def _read_order(data: dict[str, Any]) -> LookOrder:
    _require_known(data, "ask")
    names = {one.name for one in fields(LookOrder)}
    try:
        # What a newer master says beside that is passed over.
        return LookOrder(**{key: _frozen(value) for key, value in data.items() if key in names})
    except TypeError as error:
        raise Invalid(f"the message 'look' is not as it should be: {error}") from error


def _require_known(data: dict[str, Any], role: str) -> None:
    version, what = data.get("version"), data.get(role)
    if not isinstance(version, int) or version > VERSION or what != "look":
        raise Invalid(
            f"the message '{str(what)[:40]}', version {str(version)[:40]}, is not known here",
            f"this Holdfast knows 'look' up to version {VERSION}: update it",
        )


def _frozen(value: object) -> Any:
    return tuple(value) if isinstance(value, list) else value
