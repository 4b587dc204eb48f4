"""Back up paths of this machine into a pool.

Must not touch the catalog: the image that comes back is for the caller to record. Invariant:
images of one source share a source name, whatever order its paths were given in.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from holdfast import __version__
from holdfast.base.errors import Invalid, NoPermission, PathMissing, Unsupported
from holdfast.base.ids import source_name
from holdfast.movers.drive import drive

if TYPE_CHECKING:
    from collections.abc import Mapping

    from holdfast.base.clock import Clock
    from holdfast.base.ids import ClientName, ImageId, SourceName
    from holdfast.engine import Image, Pool
    from holdfast.movers.drive import Reporter

COMPRESSION_LEVELS = range(1, 20)
DEFAULT_COMPRESSION = 2


@dataclass(frozen=True, slots=True)
class BackupOrder:
    """What to back up, and how.

    Attributes:
        client: The machine's name, the first part of the source name.
        paths: Absolute paths as bytes; see `absolute_paths`.
        exclude: Rules in gitignore syntax.
        one_file_system: Stay on the file system that each path is on.
        compression: zstd level, 1 to 19.
        read_all: Read every file, whatever an older image says of it: a full backup.
        parent: The image to compare with; None, or one that is gone, for the newest of the source.
        name: The source's name, where it does not follow from the paths.
        labels: What the image's manifest is to say of who ordered it; see `base.labels`.
        client_key: Seal everything with this key of this machine, by name or id; None to leave
            that to the storage.
        sealed_names: Seal names and attributes of files too.
    """

    client: ClientName
    paths: tuple[bytes, ...]
    exclude: tuple[str, ...] = field(default=())
    one_file_system: bool = False
    compression: int = DEFAULT_COMPRESSION
    read_all: bool = False
    parent: ImageId | None = None
    name: SourceName | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    client_key: str | None = None
    sealed_names: bool = False

    @property
    def source(self) -> SourceName:
        """The name under which this order's images follow each other."""
        return self.name or source_name(self.client, self.paths)


def absolute_paths(
    given: list[bytes], working_directory: bytes, *, nested: bool = False
) -> tuple[bytes, ...]:
    """Make what a person named absolute, sorted, without repetition or nesting.

    Symbolic links in a path are left alone: what is backed up is what was named.

    Args:
        given: Absolute paths, or paths relative to the working directory.
        working_directory: Absolute.
        nested: Keep a path inside of another: where each stays on its own file system, one may
            lie on another than what surrounds it.

    Raises:
        Invalid: Nothing was named, or an empty path was.
        PathMissing: Something is not there.
        NoPermission: Something may not be looked at.
    """
    if not given:
        raise Invalid("there is nothing to back up", "name at least one path")
    wanted: set[bytes] = set()
    for path in given:
        if not path:
            raise Invalid("an empty path names nothing", "name a file or directory")
        absolute = os.path.normpath(os.path.join(working_directory, path))
        # POSIX lets a leading "//" mean something else; Linux does not.
        absolute = b"/" + absolute.lstrip(b"/")
        _require(absolute)
        wanted.add(absolute)
    return tuple(
        path
        for path in sorted(wanted)
        if nested or not any(_inside(path, other) for other in wanted)
    )


def run_backup(
    pool: Pool, order: BackupOrder, clock: Clock, report: Reporter | None = None
) -> Image:
    """Back up, and wait for it.

    Returns:
        The committed image. Its findings name the single files that could not be taken as they
        are.

    Raises:
        Cancelled: Interrupted; a second run sends nothing twice.
        Unsupported: It is to be sealed with a client key: who has the pool can read it anyway.
        HoldfastError: The backup failed; the pool is as sound as before.
    """
    require_compression(order.compression)
    if order.client_key is not None:
        raise Unsupported(
            f"'{order.client}' is backed up by the site itself, which has the pool's key: there a "
            "client key would keep nothing from anybody",
            "have the machine join with an agent of its own: holdfast machine token",
        )
    run = pool.backup(
        paths=list(order.paths),
        source=order.source,
        host=order.client,
        started_ns=clock.now_ns(),
        exclude=list(order.exclude),
        one_file_system=order.one_file_system,
        compression=order.compression,
        parent=order.parent,
        read_all=order.read_all,
        labels=dict(order.labels),
        software=f"holdfast {__version__}",
    )
    return drive(run, report)


def require_compression(level: int) -> None:
    """Make sure that there is such a level.

    Raises:
        Invalid: There is none.
    """
    if level not in COMPRESSION_LEVELS:
        raise Invalid(
            f"compression level {level} does not exist",
            f"say {COMPRESSION_LEVELS[0]} (quick) to {COMPRESSION_LEVELS[-1]} (small)",
        )


def _require(path: bytes) -> None:
    shown = path.decode("utf-8", "backslashreplace")
    try:
        mode = os.lstat(path).st_mode
        readable = not stat.S_ISDIR(mode) or os.access(path, os.R_OK | os.X_OK)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise PathMissing(f"there is no '{shown}' on this machine", "check the spelling") from error
    except PermissionError as error:
        raise NoPermission(f"may not look at '{shown}'", "run as a user who may read it") from error
    except OSError as error:
        raise PathMissing(f"can't look at '{shown}': {error.strerror}") from error
    if not readable:
        raise NoPermission(f"may not read '{shown}'", "run as a user who may read it")


def _inside(path: bytes, other: bytes) -> bool:
    return path != other and path.startswith(other.rstrip(b"/") + b"/")
