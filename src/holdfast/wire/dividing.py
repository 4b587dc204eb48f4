"""What a master asks a client about how one path divides into streams, and what the client says.

Must not act. Invariant: every message is plain data that passes JSON unchanged, and what is read
here is what it says: streams of relative directories, none in another, none twice. One may stand
for many like ones: all in a directory whose names begin so. Where names are sealed, a client says
directories as the pool shows them, and no master takes others.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from holdfast.base.errors import Invalid
from holdfast.wire.fields import MAX_TEXT, Reader

VERSION = 1
SEALED_VERSION = 2
"""Of an order for sealed names: who does not know of those refuses it, and tells none."""

SEALED = "sealed:"
"""What a name begins with that a client key has sealed."""

MAX_STREAMS = 64
MAX_DIRECTORIES = 256
"""Of all streams of one path together."""

Taken = tuple[tuple[str, ...], ...]
"""For each stream but the rest, the directories that it takes, relative to the path, or all whose
names begin so; see `prefix_of`."""

_BEGINS_SO = "\\*"
"""At the end of what a stream takes: all that begins so. No directory that a stream takes by its
name has a backslash."""


@dataclass(frozen=True, slots=True)
class DivideOrder:
    """What to divide.

    Attributes:
        path: Absolute.
        exclude: Rules in gitignore syntax.
        one_file_system: Stay on the file system that the path is on.
        streams: Into how many at most, 2 or more.
        within_s: How long to look at most.
        by_prefix: Whether many like directories may be told by how their names begin.
        sealed_by: Say directories by the names that this client key seals them to; None for names
            in the open.
    """

    path: str
    exclude: tuple[str, ...]
    one_file_system: bool
    streams: int
    within_s: float = 120.0
    by_prefix: bool = False
    sealed_by: str | None = None

    def to_json(self) -> dict[str, Any]:
        """As plain data, with its version."""
        plain = asdict(self)
        if self.sealed_by is None:
            del plain["sealed_by"]
        version = VERSION if self.sealed_by is None else SEALED_VERSION
        return {"version": version, "ask": "divide", **plain}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> DivideOrder:
        """Read what `to_json` made.

        Raises:
            Invalid: It is of a newer version, or not complete.
        """
        is_sealed = data.get("sealed_by") is not None
        _require_version(data, SEALED_VERSION if is_sealed else VERSION)
        read = Reader(data, "what to divide")
        made = cls(
            path=read.text("path"),
            exclude=read.texts("exclude"),
            one_file_system=data.get("one_file_system") is True,
            streams=read.count("streams"),
            within_s=read.number("within_s"),
            by_prefix=data.get("by_prefix") is True,
            sealed_by=read.maybe_text("sealed_by"),
        )
        if not made.path.startswith("/") or not 2 <= made.streams <= MAX_STREAMS:
            raise Invalid("what is to be divided is no path, or not into 2 to 64 streams")
        return made


@dataclass(frozen=True, slots=True)
class DivideReport:
    """How a path divides.

    Attributes:
        taken: See `Taken`; none if it can't be divided.
        sizes: What was found for each of those, and at last for the rest, in bytes.
    """

    taken: Taken
    sizes: tuple[int, ...]

    def to_json(self) -> dict[str, Any]:
        """As plain data, with its version."""
        taken = [list(one) for one in self.taken]
        return {
            "version": VERSION,
            "answer": "divide",
            "taken": taken,
            "sizes": list(self.sizes),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> DivideReport:
        """Read what `to_json` made, by a machine that may say anything.

        Raises:
            Invalid: It is of a newer version, or is no division.
        """
        _require_version(data)
        taken, sizes = data.get("taken"), data.get("sizes")
        if not isinstance(taken, list) or not isinstance(sizes, list):
            raise Invalid("how a path divides is not said")
        found = require_taken(taken)
        if len(sizes) != len(found) + 1 or not all(_is_size(one) for one in sizes):
            raise Invalid("how a path divides is said without its sizes")
        return cls(found, tuple(sizes))


def require_taken(data: list[Any]) -> Taken:
    """Streams of directories, if that is what they are.

    Raises:
        Invalid: They are not.
    """
    found: list[tuple[str, ...]] = []
    for one in data:
        if not isinstance(one, list) or not one or not all(_is_directory(each) for each in one):
            raise Invalid("a stream is no list of relative directories")
        found.append(tuple(one))
    named = [each for one in found for each in one]
    known = set(named)
    if len(found) >= MAX_STREAMS or len(named) > MAX_DIRECTORIES or len(known) != len(named):
        raise Invalid("there are too many streams or directories, or one of them twice")
    for one in named:
        parts = one.split("/")
        if any("/".join(parts[:end]) in known for end in range(1, len(parts))):
            raise Invalid("a directory of one stream lies in one of another")
    _require_apart(named)
    return tuple(found)


def require_sealed(taken: Taken) -> None:
    """Make sure that no name is in the open.

    Raises:
        Invalid: One is.
    """
    for directories in taken:
        for one in directories:
            if not all(part.startswith(SEALED) for part in one.split("/")):
                raise Invalid("a stream names a directory that its client is to keep to itself")


def _require_apart(named: list[str]) -> None:
    """Make sure that nothing begins as what another one takes begins.

    Raises:
        Invalid: It does.
    """
    parts = [one.removesuffix(_BEGINS_SO).split("/") for one in named]
    for at, one in enumerate(named):
        if prefix_of(one) is None:
            continue
        *above, prefix = parts[at]
        for other, theirs in enumerate(parts):
            depth = len(above)
            if other == at or theirs[:depth] != above or len(theirs) <= depth:
                continue
            if theirs[depth].startswith(prefix):
                raise Invalid("a directory of one stream begins as those of another")


def all_beginning(prefix: str) -> str:
    """What stands for all names that begin so, after the directory that they are in."""
    return prefix + _BEGINS_SO


def prefix_of(taken: str) -> str | None:
    """How all begin that a stream takes by this, with the directory they are in; None for one."""
    return taken.removesuffix(_BEGINS_SO) if taken.endswith(_BEGINS_SO) else None


def is_plain(name: str) -> bool:
    """Whether a name of a directory can be said in a rule that means it and nothing else."""
    return (
        name not in ("", ".", "..")
        and "/" not in name
        and "\\" not in name
        and name == name.strip()
        and name.isprintable()
    )


def _is_directory(value: object) -> bool:
    if not isinstance(value, str) or not 0 < len(value) <= MAX_TEXT:
        return False
    return all(is_plain(part) for part in value.removesuffix(_BEGINS_SO).split("/"))


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _require_version(data: dict[str, Any], version: int = VERSION) -> None:
    if data.get("version") != version:
        raise Invalid("a message about streams is of another version", "update Holdfast")
