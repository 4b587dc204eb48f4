"""An index of the files inside of a machine's image: an image of its own, of names alone.

Must not touch the catalog, nor decide when. Invariants: the index image names the image that it is
of (`labels.INDEX_OF`), and is committed whole or not at all; a volume that can't be read is left
out and told of, and the others are indexed; an error of the pool ends it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from holdfast.base import labels
from holdfast.base.errors import InputOutput
from holdfast.base.ids import SourceName, files_source
from holdfast.movers.machines.inside import Inside
from holdfast.sources.filesystems.entries import DIRECTORY, FILE, ROOT, SYMLINK, FilesUnreadable
from holdfast.sources.machines.provider import Remark

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from holdfast.base.ids import ImageId
    from holdfast.engine import Image, Pool
    from holdfast.movers.machines.inside import InnerEntry
    from holdfast.sources.filesystems.entries import Batch, Entry

Row = tuple[bytes, int, int, int, int, int, int, int, int, bytes | None]
"""As the engine's ``TreeWriter.add_dir`` takes it."""


@dataclass(frozen=True, slots=True)
class Indexed:
    """What came of it.

    Attributes:
        image: The index image.
        names: Files, directories and further streams in it.
        remarks: What is not in it, and why.
    """

    image: Image
    names: int
    remarks: tuple[Remark, ...]


def index_image(
    pool: Pool,
    image: ImageId,
    alive: Callable[[int], None] = lambda _: None,
) -> Indexed:
    """Index the files inside of an image.

    Args:
        pool: Where the image is, and its index goes.
        image: Of a machine.
        alive: Called with the names so far; may raise to stop.

    Raises:
        PathMissing: It is no image of a machine.
        HoldfastError: The pool can't be read or written.
    """
    of = pool.image(image)
    names = 0
    remarks: list[Remark] = []
    with Inside.of_image(pool, image) as inside:
        writer = pool.write_index(
            source=files_source(SourceName(of.source)),
            host=of.host,
            started_ns=of.started_ns,
            labels=_labels(of, image),
            software=of.software,
            parent=image,
        )
        try:
            read: list[tuple[bytes, InnerEntry]] = []
            for volume in inside.volumes:
                top = b"/" + volume.name.encode()
                try:
                    # before anything of it is told: this may fail already
                    read.append((top, inside.entry(top)))
                    for directory, entries in told_after(inside.walk(volume)):
                        path = top if directory == ROOT else top + directory
                        writer.add_dir(path, [_row(one) for one in entries])
                        names += len(entries)
                        alive(names)
                except (FilesUnreadable, InputOutput) as error:
                    said = f"{error}: its files are not, or not all, in the index"
                    remarks.append(Remark("error", "volume-not-read", said, volume.name))
                finally:
                    # a reader may be a whole guest, of which one at a time is enough
                    inside.done_with(volume)
            for path, rows in _above(read):
                writer.add_dir(path, rows)
            made = writer.finish()
        except BaseException:
            writer.abandon()
            raise
        remarks += inside.remarks
    return Indexed(made, names, tuple(remarks))


def told_after(batches: Iterable[Batch]) -> Iterator[tuple[bytes, list[Entry]]]:
    """Directories with all that is in them, each after those below it.

    Args:
        batches: As `Files.tree` tells them, each directory before those below it. Where they end
            by an error, what was met is told, and then the error is raised.

    Raises:
        FilesUnreadable: They are in another order.
    """
    met: list[tuple[bytes, list[Entry]]] = []
    try:
        for batch in batches:
            entries: dict[int, list[Entry]] = {}
            for one in batch.entries:
                entries.setdefault(one.directory, []).append(one)
            for place, directory in enumerate(batch.directories):
                if met and met[-1][0] == directory:
                    met[-1][1].extend(entries.get(place, ()))
                    continue
                parent = directory.rpartition(b"/")[0] or ROOT
                while met and met[-1][0] != parent:
                    yield met.pop()
                if not met and directory != ROOT:
                    raise FilesUnreadable("its directories are told in no order")
                met.append((directory, entries.get(place, [])))
    except FilesUnreadable:
        yield from reversed(met)
        raise
    yield from reversed(met)


def _above(read: list[tuple[bytes, InnerEntry]]) -> Iterator[tuple[bytes, list[Row]]]:
    """The directories above some volumes, each after those below it; the root is the last."""
    inside: dict[bytes, dict[bytes, Row]] = {b"": {}}
    for path, one in read:
        above, _, name = path.rpartition(b"/")
        row = (name, DIRECTORY, one.mode, one.uid, one.gid, 0, one.mtime_ns, 0, one.inode, None)
        while True:
            inside.setdefault(above, {})[name] = row
            if not above:
                break
            above, _, name = above.rpartition(b"/")
            row = (name, DIRECTORY, 0o755, 0, 0, 0, 0, 0, 0, None)
    for path in sorted(inside, key=lambda one: one.count(b"/"), reverse=True):
        yield path or ROOT, list(inside[path].values())


def _row(one: Entry) -> Row:
    kind, target = one.kind, None
    if kind == SYMLINK:
        # nothing that leads nowhere can be in an image
        kind, target = (SYMLINK, one.target) if one.target else (FILE, None)
    return (
        one.name,
        kind,
        one.mode,
        one.uid,
        one.gid,
        one.size,
        one.mtime_ns,
        one.ctime_ns,
        one.inode,
        target,
    )


def _labels(of: Image, image: ImageId) -> dict[str, str]:
    found: dict[str, str] = {labels.INDEX_OF: image}
    if labels.SITE in of.labels:
        found[labels.SITE] = of.labels[labels.SITE]
    return found
