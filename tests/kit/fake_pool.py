"""Trees in memory, and a pool of them that the catalog can be fed from.

A real model, not a recording: `FakePool.changes` compares two trees, in batches, with the shapes
and the errors of the engine; the questions that tests ask of the catalog are answered here by
brute force over the live images.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING

from holdfast.base.errors import ImageMissing, IntegrityError
from holdfast.control.catalog.rows import ADDED, CHANGED, KINDS, REMOVED

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from holdfast.control.catalog.rows import ChangeRow


@dataclass(frozen=True, slots=True)
class Node:
    """What an image says of one name."""

    kind: str = "file"
    size: int = 0
    mtime_ns: int = 1_700_000_000_000_000_000
    mode: int = 0o644
    uid: int = 1000
    gid: int = 1000
    inode: int = 1

    @property
    def columns(self) -> tuple[int, int, int, int, int, int, int]:
        kind = KINDS.index(self.kind)
        return (kind, self.size, self.mtime_ns, self.mode, self.uid, self.gid, self.inode)


DIR = Node(kind="dir", mode=0o755)

Tree = dict[bytes, Node]
"""Absolute paths to nodes, without the root; a parent of each is in it, too."""


def tree(**nodes: Node) -> Tree:
    """A tree of keyword-friendly names in the root."""
    return {b"/" + name.encode(): node for name, node in nodes.items()}


def tree_of(*paths: bytes, node: Node | None = None) -> Tree:
    """A tree with files at these paths, and the directories that they need."""
    made: Tree = {}
    for path in paths:
        parts = path.strip(b"/").split(b"/")
        for depth in range(1, len(parts)):
            made[b"/" + b"/".join(parts[:depth])] = DIR
        made[b"/" + b"/".join(parts)] = node or Node(size=len(path))
    return made


def split(path: bytes) -> tuple[bytes, bytes]:
    """Directory and name of a path."""
    parent, _, name = path.rpartition(b"/")
    return parent or b"/", name


@dataclass(frozen=True, slots=True)
class Batch:
    dirs: list[bytes]
    rows: list[ChangeRow]


def compare(old: Tree, new: Tree, batch_rows: int) -> Iterator[Batch]:
    """Differences in the order of a walk, in batches."""
    dirs: dict[bytes, int] = {}
    rows: list[ChangeRow] = []
    for path in sorted(old.keys() | new.keys(), key=lambda path: path.split(b"/")):
        before, after = old.get(path), new.get(path)
        if before == after:
            continue
        change = ADDED if before is None else REMOVED if after is None else CHANGED
        shown = after or before
        assert shown is not None
        parent, name = split(path)
        rows.append((dirs.setdefault(parent, len(dirs)), name, change, *shown.columns))
        if len(rows) == batch_rows:
            yield Batch(list(dirs), rows)
            dirs, rows = {}, []
    if rows:
        yield Batch(list(dirs), rows)


@dataclass(frozen=True, slots=True)
class FakeImage:
    id: str
    number: int
    source: str
    host: str
    started_ns: int
    finished_ns: int
    parent: str | None
    status: str
    stats: Mapping[str, int]
    findings_total: int
    software: str
    labels: Mapping[str, str]
    tree: Tree = field(repr=False)
    client_key: str | None = None
    has_sealed_names: bool = False


class FakePool:
    """Images with their trees. `asked` records what was compared with what."""

    def __init__(self, name: str = "pool", batch_rows: int = 7) -> None:
        self.id = hashlib.blake2b(name.encode(), digest_size=16).digest()
        self.batch_rows = batch_rows
        self.asked: list[tuple[str | None, str | None]] = []
        self.damaged: set[str] = set()
        self._images: dict[str, FakeImage] = {}
        self._made = 0

    @property
    def pool_id(self) -> str:
        return self.id.hex()

    def backup(
        self,
        tree: Tree,
        source: str = "host:/data",
        number: int | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> FakeImage:
        """Put an image of a tree into the pool."""
        assert all(split(path)[0] in ({b"/"} | tree.keys()) for path in tree)
        self._made += 1
        identity = hashlib.blake2b(self.id + b"%d" % self._made, digest_size=16).hexdigest()
        started_ns = (1_700_000_000 + self._made * 3600) * 10**9
        sizes = [node.size for node in tree.values()]
        image = FakeImage(
            id=identity,
            number=self._made if number is None else number,
            source=source,
            host=source.partition(":")[0],
            started_ns=started_ns,
            finished_ns=started_ns + 60 * 10**9,
            parent=None,
            status="completed",
            stats={
                "files": sum(node.kind == "file" for node in tree.values()),
                "bytes_found": sum(sizes),
                "bytes_online": sum(sizes) // 2,
                "bytes_new": sum(sizes) // 3,
                "bytes_transmitted": sum(sizes) // 4,
            },
            findings_total=0,
            software="holdfast test",
            labels=labels or {},
            tree=dict(tree),
        )
        self._images[image.id] = image
        return image

    def stats(self) -> SimpleNamespace:
        names = "packs pack_bytes chunks chunk_bytes index_segments index_bytes"
        return SimpleNamespace(**dict.fromkeys(names.split(), 0), images=len(self._images))

    def expire(self, image: str) -> None:
        del self._images[image]

    def images(self) -> list[FakeImage]:
        return sorted(self._images.values(), key=lambda one: one.number)

    def image(self, id: str, /) -> FakeImage:  # noqa: A002
        if id not in self._images:
            raise ImageMissing(f"the pool has no image {id}")
        return self._images[id]

    def changes(self, old: str | None, new: str | None, /) -> Iterator[Batch]:
        self.asked.append((old, new))
        before = {} if old is None else self.image(old).tree
        after = {} if new is None else self.image(new).tree
        for batch in compare(before, after, self.batch_rows):
            yield batch
            if self.damaged & {old, new}:
                raise IntegrityError(f"a tree of image {old} or {new} is damaged")
        if self.damaged & {old, new}:
            raise IntegrityError(f"a tree of image {old} or {new} is damaged")
