"""Divide what lies below a path into streams of like size.

Must not read the content of files, nor say what a stream is called: see `control.policies.streams`.
Invariants: a directory is in one stream at most, and whatever no stream names is in the rest; where
there was no time to look at everything, the parts are worse balanced and no less a division.
"""

from __future__ import annotations

import heapq
import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from holdfast.base.errors import Invalid, PathMissing
from holdfast.base.exclusion import Exclusion
from holdfast.movers.alike import Alike
from holdfast.movers.mounts import KERNEL_ONLY, mounts
from holdfast.movers.survey import mark_of
from holdfast.wire.dividing import MAX_DIRECTORIES, DivideOrder, DivideReport, is_plain

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from holdfast.engine import ClientKey
    from holdfast.movers.mounts import Mount

NAME_BYTES: Final = 1024
"""A name is as much work as so many bytes of data."""

FINE: Final = 4
"""A directory larger than this part of a stream's share is taken apart, if it has directories."""

MANY: Final = 64
"""A directory with more like ones in it has them told by how their names begin."""

_DEEPEST: Final = 6
_MOST_CHILDREN: Final = 50_000
_MOST_NODES: Final = 100_000


@dataclass(slots=True, eq=False)
class Node:
    """A directory, with what is in it.

    Attributes:
        name: Of the directory, in its parent.
        own: What is in it and in none of its children, in bytes.
        children: Directories in it that a stream may take.
    """

    name: str
    own: int = 0
    children: list[Node] = field(default_factory=list)

    def total(self) -> int:
        """All that is in it; no deeper than `_DEEPEST` nodes."""
        return self.own + sum(one.total() for one in self.children)


def divide_path(
    order: DivideOrder,
    listed: Sequence[Mount] | None = None,
    now_s: Callable[[], float] = time.monotonic,
    stopped: Callable[[], bool] = lambda: False,
    key: ClientKey | None = None,
) -> DivideReport:
    """Look at a path of this machine, and divide it.

    Args:
        order: What, and into how many streams.
        listed: What is mounted; None for what is mounted here.
        now_s: A clock that only goes forward.
        stopped: Whether nobody wants to know any more.
        key: What seals names, where the order wants that; then nothing that is told depends on
            what they are.

    Raises:
        PathMissing: It is no directory.
        Invalid: A rule is none, or names are to be sealed without a key.
    """
    if (key is None) != (order.sealed_by is None):
        raise Invalid("names are sealed by the machine that has their key", "name its client key")
    path = os.fsencode(order.path)
    if not os.path.isdir(path) or os.path.islink(path):
        raise PathMissing(f"there is no directory '{order.path}' on this machine")
    known = mounts() if listed is None else listed
    not_into = {one.place for one in known if order.one_file_system or one.kind in KERNEL_ONLY}
    ends_s = now_s() + order.within_s
    root = weigh(path, order.exclude, not_into, lambda: stopped() or now_s() > ends_s, key)
    return divide(root, order.streams, by_prefix=order.by_prefix and key is None)


def weigh(
    root: bytes,
    rules: Sequence[str],
    not_into: set[bytes],
    is_over: Callable[[], bool],
    key: ClientKey | None = None,
) -> Node:
    """Walk over what a backup would take below a path, and sum it up by directory.

    With a key, directories are called by their sealed names.
    """
    exclusion = Exclusion(root, rules)
    top = Node("")
    waiting: list[tuple[bytes, Node, int]] = [(root, top, 0)]
    nodes = 1
    while waiting and not is_over():
        directory, node, depth = waiting.pop()
        for name, path in _look_into(root, directory, node, exclusion):
            if path in not_into:
                continue
            separate = (
                depth < _DEEPEST
                and nodes < _MOST_NODES
                and len(node.children) < _MOST_CHILDREN
                and is_plain(name)
            )
            if separate:
                child = Node(name if key is None else _sealed(key, path))
                node.children.append(child)
                nodes += 1
                waiting.append((path, child, depth + 1))
            else:
                waiting.append((path, node, _DEEPEST))
    return top


def _sealed(key: ClientKey, path: bytes) -> str:
    """The sealed name of what is at a path."""
    return key.seal_path(path).rpartition(b"/")[2].decode("ascii")


def _look_into(
    root: bytes, directory: bytes, node: Node, exclusion: Exclusion
) -> list[tuple[str, bytes]]:
    """Count what is in a directory; the directories in it. What can't be read counts nothing."""
    found = []
    at = len(root.rstrip(b"/")) + 1
    try:
        mark = mark_of(directory)
        with os.scandir(directory) as entries:
            for entry in entries:
                is_directory = entry.is_dir(follow_symlinks=False)
                if mark is not None and entry.name != mark:
                    continue
                if exclusion.leaves_out(entry.path[at:], is_directory=is_directory):
                    continue
                node.own += NAME_BYTES
                if is_directory:
                    found.append((os.fsdecode(entry.name), entry.path))
                elif entry.is_file(follow_symlinks=False):
                    node.own += _size_of(entry)
    except OSError:
        return found
    return found


def _size_of(entry: os.DirEntry[bytes]) -> int:
    try:
        state = entry.stat(follow_symlinks=False)
    except OSError:
        return 0
    # Holes are read quickly.
    return min(state.st_size, state.st_blocks * 512)


def divide(root: Node, streams: int, *, by_prefix: bool = False) -> DivideReport:
    """Give directories to streams, the heaviest first, each to the one that has least.

    Args:
        root: What there is.
        streams: How many, the rest being one of them.
        by_prefix: Whether many like directories may be told by how their names begin.
    """
    total = root.total()
    units = _Units(root, total / (streams * FINE), by_prefix=by_prefix).found()
    left = total - sum(weight for weight, _ in units)
    # Of two that have as much the first named one is filled, and the rest last.
    loads = [(0, number) for number in range(streams - 1)]
    heapq.heappush(loads, (left, streams - 1))
    taken: list[list[str]] = [[] for _ in range(streams)]
    sizes = [0] * (streams - 1) + [left]
    for weight, path in sorted(units, key=lambda one: (-one[0], one[1])):
        load, number = heapq.heappop(loads)
        taken[number].append(path)
        sizes[number] += weight
        heapq.heappush(loads, (load + weight, number))
    named = [(tuple(sorted(one)), size) for one, size in zip(taken, sizes, strict=True)][:-1]
    filled = [one for one in named if one[0]]
    return DivideReport(tuple(one for one, _ in filled), (*(size for _, size in filled), sizes[-1]))


class _Units:
    """What is to be given to streams: top-level directories, or what is in those that dominate."""

    def __init__(self, root: Node, fine: float, *, by_prefix: bool) -> None:
        self._fine = fine
        self._by_prefix = by_prefix
        self._open: list[tuple[int, str, int, Node | Alike]] = []
        self._closed: list[tuple[int, str]] = []
        self._pushed = 0
        self._spread(root, "")

    def found(self) -> list[tuple[int, str]]:
        """Weights and what stands for them, `MAX_DIRECTORIES` at most."""
        while self._open and len(self._open) + len(self._closed) < MAX_DIRECTORIES:
            self._take_apart(*heapq.heappop(self._open))
        for negative, above, _, one in self._open:
            self._close(-negative, above, one)
        return heapq.nlargest(MAX_DIRECTORIES, self._closed)

    def _take_apart(self, negative: int, above: str, _: int, one: Node | Alike) -> None:
        """The heaviest, where it is too heavy and can be."""
        weight = -negative
        if weight > self._fine and isinstance(one, Alike) and len(one.members) > 1:
            self._part(one, above)
        # What lies in it directly goes to the rest when it is taken apart.
        elif (
            weight > self._fine
            and isinstance(one, Node)
            and one.children
            and one.own * FINE <= weight
        ):
            self._spread(one, f"{above}{one.name}/")
        else:
            self._close(weight, above, one)

    def _spread(self, node: Node, above: str) -> None:
        weighed = [(one, weight) for one in node.children if (weight := one.total())]
        largest = max((weight for _, weight in weighed), default=0)
        if self._by_prefix and len(weighed) > MANY and largest <= self._fine:
            self._part(Alike(tuple((one.name, weight) for one, weight in weighed)), above)
            return
        for one, weight in weighed:
            self._push(weight, above, one)

    def _part(self, alike: Alike, above: str) -> None:
        for one in alike.parts():
            self._push(one.weight, above, one)

    def _push(self, weight: int, above: str, one: Node | Alike) -> None:
        # The number tells those apart that are alike otherwise.
        self._pushed += 1
        heapq.heappush(self._open, (-weight, above, self._pushed, one))

    def _close(self, weight: int, above: str, one: Node | Alike) -> None:
        taken = one.name if isinstance(one, Node) else one.taken()
        if taken is not None:
            self._closed.append((weight, above + taken))
