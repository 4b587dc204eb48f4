"""Restore several images as one: those of all streams of a path.

Must not say which images those are. Invariants: each is restored into the same directory, which has
to be empty before the first of them if nobody said what becomes of what is there; a path that was
asked for is in one of them at least.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from holdfast.base.errors import PathMissing

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from holdfast.base.ids import ImageId
    from holdfast.engine import Finding, RestoreResult
    from holdfast.movers.machines.file_restore import FileRestore, Found
    from holdfast.movers.restore_run import Overwrite, RestoreOrder


@dataclass(slots=True)
class WholeRestore:
    """What came of it, of all images together.

    Attributes:
        of: The same for each image from which anything was restored.
    """

    of: list[tuple[ImageId, RestoreResult | FileRestore]] = field(default_factory=list)

    @property
    def files(self) -> int:
        """How many were restored."""
        return sum(one.files for _, one in self.of)

    @property
    def dirs(self) -> int:
        """Likewise; one that is in several images is counted in each."""
        return sum(one.dirs for _, one in self.of)

    @property
    def bytes(self) -> int:
        """Of all files."""
        return sum(one.bytes for _, one in self.of)

    @property
    def verified_files(self) -> int:
        """How many were read back."""
        return sum(one.verified_files for _, one in self.of)

    @property
    def findings(self) -> list[Finding | Found]:
        """About single files."""
        return [each for _, one in self.of for each in one.findings]

    @property
    def findings_total(self) -> int:
        """How many there were."""
        return sum(one.findings_total for _, one in self.of)


def restore_whole(
    images: Sequence[ImageId],
    order: RestoreOrder,
    restore: Callable[[RestoreOrder], RestoreResult | FileRestore],
    then: Overwrite = "always",
) -> WholeRestore:
    """Restore images one after another, and wait for it.

    Args:
        images: Which, the first of them as `order` says.
        order: What of each, and where to.
        restore: Restores one.
        then: What becomes of names that are there when it is the turn of the others: if nobody said
            anything else, these are of the images before, with which they have none but directories
            in common.

    Raises:
        PathMissing: None of them has one of the paths; what others have of the others is restored.
        HoldfastError: As `restore`.
    """
    done = WholeRestore()
    if len(images) == 1:
        done.of.append((images[0], restore(replace(order, image=images[0]))))
        return done
    missing = dict.fromkeys(order.paths)
    for image in images:
        one = replace(order, image=image, overwrite=then if done.of else order.overwrite)
        for paths, result in _as_they_are_there(one, restore, then):
            done.of.append((image, result))
            for path in paths:
                missing.pop(path, None)
    if missing:
        shown = next(iter(missing)).decode("utf-8", "backslashreplace")
        raise PathMissing(f"no image of this backup has '{shown}'")
    return done


def _as_they_are_there(
    order: RestoreOrder,
    restore: Callable[[RestoreOrder], RestoreResult | FileRestore],
    then: Overwrite,
) -> list[tuple[tuple[bytes, ...], RestoreResult | FileRestore]]:
    """Restore those paths that an image has."""
    try:
        return [(order.paths, restore(order))]
    except PathMissing:
        if len(order.paths) <= 1:
            if not order.paths:
                raise
            return []
    found: list[tuple[tuple[bytes, ...], RestoreResult | FileRestore]] = []
    for path in order.paths:
        one = replace(order, paths=(path,), overwrite=then if found else order.overwrite)
        found += _as_they_are_there(one, restore, then)
    return found
