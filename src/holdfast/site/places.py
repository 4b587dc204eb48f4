"""Places: how people name a pool, and which directories are Holdfast's own.

Must not open anything. Invariant: a place that `pool_place` returns does not depend on the
working directory any more.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from holdfast.base.errors import Invalid, NoPermission

if TYPE_CHECKING:
    from collections.abc import Iterable

POOL_HEADER = "pool"
"""The object that makes a directory a pool; see docs/formats."""


def pool_place(text: str) -> str:
    """Make what a person wrote after ``--pool`` definite.

    Args:
        text: A directory, ``file:///directory``, or a URL of an object store such as
            ``s3://bucket/prefix``.

    Returns:
        An absolute directory, or the URL as it is.

    Raises:
        Invalid: It is empty, or a file URL names another machine.
    """
    if not text:
        raise Invalid("an empty --pool names no place", "name a directory or URL")
    if "://" not in text:
        return os.path.abspath(os.path.expanduser(text))
    parts = urlsplit(text)
    if parts.scheme != "file":
        return text
    if parts.netloc not in ("", "localhost"):
        raise Invalid(
            f"'{text}' is on another machine",
            "write file:///directory, with three slashes, for a directory of this one",
        )
    return os.path.abspath(unquote(parts.path, errors="surrogateescape"))


def is_directory_place(place: str) -> bool:
    """Tell whether a place is a directory of this machine."""
    return "://" not in place


def require_room_for_pool(place: str) -> None:
    """Refuse to make a pool among the files of something else.

    A directory that is not there, or is empty, is fine; one that holds a pool is left to the
    engine, which says so.

    Raises:
        Invalid: The directory holds other files, or is none.
        NoPermission: It may not be read.
    """
    if not is_directory_place(place):
        return
    try:
        names = os.listdir(place)
    except FileNotFoundError:
        return
    except NotADirectoryError as error:
        raise Invalid(f"'{place}' is not a directory", "a pool wants a directory") from error
    except PermissionError as error:
        raise NoPermission(f"may not read '{place}'", "choose a directory of yours") from error
    if names and POOL_HEADER not in names:
        raise Invalid(
            f"'{place}' holds other files ({len(names)}), and no pool",
            "a new pool wants an empty or new directory",
        )


def own_directories(home: Path, place: str) -> list[bytes]:
    """Name the directories of a site that would only back up themselves."""
    own = [os.fsencode(home / "cache")]
    if is_directory_place(place):
        own.append(os.fsencode(Path(place)))
    return own


def rules_against(directories: Iterable[bytes], paths: Iterable[bytes]) -> tuple[str, ...]:
    """Write exclusion rules, in gitignore syntax, for directories that lie inside of paths."""
    roots = [path.rstrip(b"/") + b"/" for path in paths]
    inside = [one for one in directories if any(one.startswith(root) for root in roots)]
    return tuple(_rule(one) for one in inside)


def _rule(directory: bytes) -> str:
    text = directory.decode("utf-8", "surrogateescape")
    escaped = "".join(f"\\{one}" if one in "\\*?[]!# " else one for one in text)
    return f"{escaped}/"
