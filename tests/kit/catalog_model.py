"""What a catalog must answer, by brute force over trees; and the same asked of a catalog."""

from __future__ import annotations

import fnmatch
from typing import TYPE_CHECKING

from holdfast.base.ids import ImageId
from holdfast.control.catalog.folding import fold_name, fold_text
from holdfast.control.catalog.timeline import to_signed
from tests.kit.fake_pool import Node, Tree, split

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from holdfast.control.catalog import Catalog, FileRow, FileVersion
    from tests.kit.fake_pool import FakeImage, FakePool

Version = tuple[str, bytes, Node, str, str, int, bool]
"""(source, path, node, first image, last image, images, current)."""


def fed(
    catalog: Catalog,
    pool: FakePool,
    tree: Tree,
    source: str = "host:/data",
    number: int | None = None,
) -> FakeImage:
    """Back a tree up, record the image and feed it."""
    image = pool.backup(tree, source, number)
    catalog.record_image(image, pool.pool_id)
    catalog.ingest(pool, ImageId(image.id))
    return image


def node_of(row: FileRow | FileVersion) -> Node:
    return Node(
        kind=row.kind,
        size=row.size_bytes,
        mtime_ns=row.mtime_ns,
        mode=row.mode,
        uid=row.uid,
        gid=row.gid,
        inode=row.inode,
    )


def listing(tree: Tree, directory: bytes) -> list[tuple[bytes, Node]]:
    """What a directory of a tree holds."""
    found = [(split(path)[1], node) for path, node in tree.items() if split(path)[0] == directory]
    return sorted(found)


def versions(images: Sequence[FakeImage], path: bytes) -> list[Version]:
    """Versions of a path: neighbouring images that show the same are one."""
    found: list[Version] = []
    for place, image in enumerate(images):
        node = image.tree.get(path)
        if node is None:
            continue
        current = image is images[-1]
        if place and found and images[place - 1].tree.get(path) == node:
            source, _, _, first, _, count, _ = found[-1]
            found[-1] = (source, path, node, first, image.id, count + 1, current)
        else:
            found.append((image.source, path, node, image.id, image.id, 1, current))
    return found


def all_versions(images: Sequence[FakeImage]) -> list[Version]:
    paths = sorted(set().union(*(image.tree.keys() for image in images)))
    return [version for path in paths for version in versions(images, path)]


def found(images: Sequence[FakeImage], pattern: str, *, every: bool) -> list[Version]:
    """What a search for a pattern without a slash finds."""
    wanted = fold_text(pattern)
    glob = any(magic in pattern for magic in "*?[")
    answer: list[Version] = []
    for path in sorted(set().union(*(image.tree.keys() for image in images))):
        name = fold_name(split(path)[1])
        if fnmatch.fnmatchcase(name, wanted) if glob else wanted in name:
            known = versions(images, path)
            answer += known if every else known[-1:]
    return answer


def asked_version(row: FileVersion) -> Version:
    node = node_of(row)
    return (row.source, row.path, node, row.first_image, row.last_image, row.images, row.current)


def asked_versions(rows: Iterable[FileVersion]) -> list[Version]:
    return sorted(map(asked_version, rows), key=lambda version: (version[0], version[1]))


def assert_answers(catalog: Catalog, images: Sequence[FakeImage], source: str) -> None:
    """Every question about one source is answered as the model answers it."""
    listed = catalog.images(source)
    assert [row.id for row in listed] == [image.id for image in images]
    assert {row.catalog_state.value for row in listed} <= {"indexed"}
    for image in images:
        directories = [b"/", *(path for path, node in image.tree.items() if node.kind == "dir")]
        for directory in directories:
            rows = catalog.list_directory(ImageId(image.id), directory)
            assert [(row.name, node_of(row)) for row in rows] == listing(image.tree, directory)
        assert_tree(catalog, image, b"/")
        for directory in directories[1:3]:
            assert_tree(catalog, image, directory)
    expected = all_versions(images)
    assert asked_versions(catalog.find("", source=source, versions=True)) == expected
    for path in {version[1] for version in expected}:
        rows_of_path = catalog.versions(source, path)
        assert [asked_version(row) for row in rows_of_path] == versions(images, path)


def assert_tree(catalog: Catalog, image: FakeImage, top: bytes) -> None:
    """What is below a directory, all at once, is what is there."""
    below = top.rstrip(b"/") + b"/"
    found = [
        (batch.directories[directory] + b"/" + name, [kind, size, mtime_ns, mode, uid, gid, inode])
        for batch in catalog.tree(ImageId(image.id), top)
        for directory, name, alike, size, mtime_ns, inode in batch.rows
        for kind, mode, uid, gid in [batch.attributes[alike]]
    ]
    assert sorted(found) == sorted(
        (path, [*node.columns[:-1], to_signed(node.inode)])
        for path, node in image.tree.items()
        if path.startswith(below)
    )
