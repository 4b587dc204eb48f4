"""Which clients a policy is for, and the sources that it stands for on them.

Pure: the known clients are handed in. Invariant: a query never names a client that is not
known; a list names what it names.
"""

from __future__ import annotations

import fnmatch
import os
import re
from bisect import bisect_left
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

from holdfast.base.ids import SourceName, source_name
from holdfast.control.policies.policy import Drives
from holdfast.control.policies.streams import UNDIVIDED, SplitKey, can_divide, streams_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from holdfast.base.ids import ClientName
    from holdfast.control.policies.policy import Policy, Selection
    from holdfast.control.policies.streams import Split

_WILD = re.compile(r"[*?\[]")
_BEYOND = "\U0010ffff"
"""After every name that begins with the text it is put behind."""


class KnownClients:
    """The clients of a site, in an order that makes queries quick. Immutable."""

    def __init__(self, names: Iterable[ClientName]) -> None:
        self.names: tuple[ClientName, ...] = tuple(sorted(set(names)))
        self._set = frozenset(self.names)

    def __contains__(self, name: object) -> bool:
        return name in self._set

    def __len__(self) -> int:
        return len(self.names)

    def matching(self, query: str) -> tuple[ClientName, ...]:
        """The clients that a query names, sorted.

        Args:
            query: Globs with commas between, such as ``web*,db?,!web-test*``: any of them, and
                none of those with ``!``. Capital letters count.
        """
        wanted: set[ClientName] = set()
        unwanted: set[ClientName] = set()
        for glob in globs(query):
            if glob.startswith("!"):
                unwanted.update(self._like(glob[1:]))
            else:
                wanted.update(self._like(glob))
        return tuple(sorted(wanted - unwanted))

    def of(self, policy: Policy) -> tuple[ClientName, ...]:
        """The clients that a policy is for."""
        if policy.client_query is not None:
            return self.matching(policy.client_query)
        return policy.clients

    def _like(self, glob: str) -> Iterator[ClientName]:
        # Thousands of policies ask thousands of clients: only those that begin alike are asked.
        wild = _WILD.search(glob)
        start = glob[: wild.start()] if wild else glob
        begin = bisect_left(self.names, start)
        end = bisect_left(self.names, start + _BEYOND)
        pattern = _pattern(glob)
        return (name for name in self.names[begin:end] if pattern.match(name))


def globs(query: str) -> list[str]:
    """The parts of a query, without white space around them."""
    return [part.strip() for part in query.split(",")]


@lru_cache(maxsize=4096)
def _pattern(glob: str) -> re.Pattern[str]:
    return re.compile(fnmatch.translate(glob))


@dataclass(frozen=True, slots=True)
class PolicySource:
    """One source of a policy: its images follow each other.

    Attributes:
        client: Whose it is.
        selection: The name of the selection that it comes from.
        paths: Absolute, sorted, none inside of another.
        exclude: Rules in gitignore syntax.
        one_file_system: Stay on the file system that each path is on.
        stream: Which stream of its path it is; empty for a source that is not divided.
        is_known: Whether it stays as it is; not as long as it is yet to be divided.
    """

    client: ClientName
    selection: str
    paths: tuple[str, ...]
    exclude: tuple[str, ...]
    one_file_system: bool
    stream: str = ""
    is_known: bool = True

    @property
    def source(self) -> SourceName:
        """The name of the source, as a backup of these paths given by hand has it too.

        A stream's has its name in it, where no path can be.
        """
        whole = source_name(self.client, [os.fsencode(path) for path in self.paths])
        if not self.stream:
            return whole
        return SourceName(f"{self.client}:{self.stream}:{whole.removeprefix(f'{self.client}:')}")


def sources_of(key: SplitKey, split: Split) -> list[SourceName]:
    """The names of all streams of a split."""
    of = PolicySource(key.client, "", (key.path,), (), key.one_file_system)
    return [replace(of, stream=stream).source for stream, _ in streams_of(key, split)]


def undivided(_key: SplitKey) -> Split:
    """For whoever does not ask how paths are divided."""
    return UNDIVIDED


def sources(
    policy: Policy,
    clients: Iterable[ClientName],
    drives: Callable[[ClientName], Sequence[str]],
    splits: Callable[[SplitKey], Split | None] = undivided,
) -> Iterator[PolicySource]:
    """Take a policy apart into what can be backed up side by side.

    Where a policy wants streams, each path is a source of its own, and divided by itself.

    Args:
        policy: Any.
        clients: Those that it is for, see `KnownClients.of`.
        drives: Where the local file systems of a client are mounted; asked only of a selection
            of `ALL_LOCAL_DRIVES`.
        splits: How a path is divided; None if that is not known yet.
    """
    for client in clients:
        for selection in policy.selections:
            for one in _whole(client, selection, drives):
                if policy.streams > 1:
                    yield from _divided(one, policy, splits)
                else:
                    yield one


def _whole(
    client: ClientName, selection: Selection, drives: Callable[[ClientName], Sequence[str]]
) -> Iterator[PolicySource]:
    if isinstance(selection.paths, Drives):
        for drive in drives(client):
            yield _source(client, selection, (drive,), one_file_system=True)
    else:
        paths = outermost(selection.paths, nested=selection.one_file_system)
        yield _source(client, selection, paths, selection.one_file_system)


def _divided(
    whole: PolicySource, policy: Policy, splits: Callable[[SplitKey], Split | None]
) -> Iterator[PolicySource]:
    sealed_by = policy.sealing_key if policy.has_sealed_names else None
    for path in whole.paths:
        one = replace(whole, paths=(path,))
        key = SplitKey(
            whole.client, path, whole.exclude, whole.one_file_system, policy.streams, sealed_by
        )
        split = splits(key) if can_divide(key) else UNDIVIDED
        if split is None:
            yield replace(one, is_known=False)
        elif not split.taken:
            yield one
        else:
            for stream, rules in streams_of(key, split):
                yield replace(one, stream=stream, exclude=rules)


def outermost(paths: Iterable[str], *, nested: bool = False) -> tuple[str, ...]:
    """Absolute paths in the order of their bytes, without repetition or nesting.

    Args:
        paths: Absolute.
        nested: Keep a path inside of another: where each stays on its own file system, one may
            lie on another than what surrounds it.
    """
    clean = {"/" + os.path.normpath(path).lstrip("/") for path in paths}
    return tuple(
        path for path in sorted(clean, key=os.fsencode) if nested or clean.isdisjoint(parents(path))
    )


def parents(path: str) -> list[str]:
    """The directories that a normal path lies in, ``/`` first."""
    if path == "/":
        return []
    parts = path.split("/")
    return ["/", *("/".join(parts[:end]) for end in range(2, len(parts)))]


def _source(
    client: ClientName, selection: Selection, paths: tuple[str, ...], one_file_system: bool
) -> PolicySource:
    return PolicySource(client, selection.name, paths, selection.exclude, one_file_system)
