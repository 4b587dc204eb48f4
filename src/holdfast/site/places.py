"""Places: how people name a pool, and which directories are Holdfast's own.

Must not open anything. Invariant: a place that `pool_place` returns does not depend on the
working directory any more.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from holdfast.base.errors import Invalid, NoPermission, storage_error
from holdfast.base.files import write_whole

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_DIRECTORIES = "pool-directories"
"""In a home: a JSON list of what else is a pool, as the storage units say."""

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


def note_directories(home: Path, places: Iterable[str]) -> None:
    """Note which directories of this machine are pools, for backups that open no database.

    Raises:
        StorageError: It can't be written.
    """
    file = home / _DIRECTORIES
    text = json.dumps(sorted(one for one in places if is_directory_place(one)))
    try:
        if not file.exists() or file.read_text(encoding="utf-8") != text:
            write_whole(file, text.encode())
    except OSError as error:
        raise storage_error(error)(f"can't write {file}: {error.strerror}") from error


def noted_directories(home: Path) -> list[str]:
    """The directories of this machine that were noted; none where nothing can be read."""
    try:
        found = json.loads((home / _DIRECTORIES).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return [one for one in found if isinstance(one, str)] if isinstance(found, list) else []


def without_secrets(place: str) -> str:
    """A place as others may see it: without what a URL may say of how to get in."""
    if is_directory_place(place):
        return place
    parts = urlsplit(place)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


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


def require_outside(target: bytes, own: Iterable[bytes]) -> None:
    """Refuse to restore over Holdfast's own files: the pool might be the only copy.

    Raises:
        Invalid: The target is one of these directories, or lies in one, by whatever name.
    """
    found = os.path.realpath(target)
    for directory in map(os.path.realpath, own):
        if os.path.commonpath((found, directory)) == directory:
            shown = target.decode("utf-8", "backslashreplace")
            raise Invalid(
                f"'{shown}' is in {directory.decode('utf-8', 'backslashreplace')}, where "
                "Holdfast keeps its own files",
                "restore into another directory",
            )


def rules_against(directory: bytes, paths: Iterable[bytes]) -> tuple[str, ...]:
    """Write exclusion rules for a directory, for each path that it lies inside of.

    Args:
        directory: Absolute.
        paths: A backup selection: absolute.

    Returns:
        Rules in gitignore syntax. As the engine wants them: absolute, with the path of the
        selection as it is and only what is below it escaped.
    """
    rules = []
    for path in paths:
        root = path.rstrip(b"/")
        if directory.startswith(root + b"/"):
            above = root.decode("utf-8", "ignore") if _is_text(root) else ""
            rules.append(above + _escaped(directory[len(root) :]) + "/")
    return tuple(rules)


def _is_text(path: bytes) -> bool:
    try:
        path.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _escaped(path: bytes) -> str:
    # A byte that is not UTF-8 can't be written in a rule: any one byte stands for it.
    text = path.decode("utf-8", "surrogateescape")
    special = {one: f"\\{one}" for one in "\\*?[]!# "}
    return "".join("?" if "\udc80" <= one <= "\udcff" else special.get(one, one) for one in text)
