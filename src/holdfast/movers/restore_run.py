"""Restore an image, or parts of it, into a directory.

Must not mix with what is in the directory already unless it was told how. Invariant: nothing
outside of the directory is ever written.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from holdfast.base.errors import Invalid, NoPermission, TargetNotEmpty
from holdfast.movers.drive import drive

if TYPE_CHECKING:
    from holdfast.base.ids import ImageId
    from holdfast.engine import ClientKey, Pool, RestoreResult
    from holdfast.movers.drive import Reporter

Overwrite = Literal["never", "older", "always"]


@dataclass(frozen=True, slots=True)
class RestoreOrder:
    """What to restore, and where to.

    Attributes:
        image: The image.
        paths: Absolute paths inside it; empty for all of it.
        target: Directory to restore into, made if it is missing.
        overwrite: What becomes of names that are there already; None: the directory must be
            empty.
        strip_components: How many leading parts of each path to leave out.
        verify: Read everything back from disk and compare it with the image.
    """

    image: ImageId
    paths: tuple[bytes, ...]
    target: bytes
    overwrite: Overwrite | None = None
    strip_components: int = 0
    verify: bool = False


def run_restore(
    pool: Pool,
    order: RestoreOrder,
    report: Reporter | None = None,
    key: ClientKey | None = None,
) -> RestoreResult:
    """Restore, and wait for it.

    Args:
        pool: Where the image is.
        order: What, and where to.
        report: Takes the counters.
        key: The client key that the image is sealed with; None for one that is not.

    Raises:
        TargetNotEmpty: The directory holds something, and nobody said what to do with it.
        Invalid: The target is no directory, or nothing would be left of the paths.
        Cancelled: Interrupted; what was restored so far stays.
        ClientKeyNeeded: The image is sealed with another key than is given.
        IntegrityError: The image is not as its key sealed it.
        HoldfastError: The restore failed.
    """
    if order.strip_components < 0:
        raise Invalid(f"can't strip {order.strip_components} components", "say 0 or more")
    if order.overwrite is None:
        require_empty(order.target)
    run = pool.restore(
        order.image,
        paths=list(order.paths),
        to=order.target,
        overwrite=order.overwrite or "never",
        strip_components=order.strip_components,
        verify=order.verify,
        client_key=key,
    )
    return drive(run, report)


def require_empty(directory: bytes) -> None:
    """Refuse a directory that holds anything; one that is not there yet is fine.

    Raises:
        TargetNotEmpty: It holds something.
        Invalid: It is not a directory.
        NoPermission: It may not be read.
    """
    shown = directory.decode("utf-8", "backslashreplace")
    try:
        with os.scandir(directory) as entries:
            first = next(entries, None)
    except FileNotFoundError:
        return
    except NotADirectoryError as error:
        raise Invalid(f"'{shown}' is not a directory", "restore into a directory") from error
    except PermissionError as error:
        raise NoPermission(
            f"may not read '{shown}'", "restore into a directory of yours"
        ) from error
    if first is not None:
        raise TargetNotEmpty(
            f"'{shown}' is not empty",
            "choose an empty or new directory, or say what becomes of files that are there: "
            "--overwrite never, older or always",
        )
