"""What a command line of QEMU says of the file of a disk, and of its format.

Must not make disks. Invariant: a disk whose format is said in a way that is not known here is
refused, and not guessed at.
"""

from __future__ import annotations

import json
import re
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from holdfast.base.errors import Unsupported
from holdfast.sources.machines.providers import KINDS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from holdfast.sources.machines.new_disks import NewDisk

_OTHER_FILES = ("backing", "data-file", "encrypt", "offset", "size")
"""What an old file may have needed, and a new one is whole and plain without."""

_OF_QCOW2 = (
    "cache-clean-interval",
    "cache-size",
    "discard-no-unref",
    "l2-cache-entry-size",
    "l2-cache-size",
    "lazy-refcounts",
    "overlap-check",
    "pass-discard-other",
    "pass-discard-request",
    "pass-discard-snapshot",
    "refcount-cache-size",
)
"""What QEMU refuses of any other format."""


def with_disk(words: Sequence[str], disk: NewDisk, place: str, old_format: str) -> list[str]:
    """A command line with a disk at another place, or of another format.

    Args:
        words: The command line.
        disk: The new disk.
        place: Of the old one's file.
        old_format: Of that.

    Raises:
        Unsupported: It does not name the old one, or its format in a way that is known.
    """
    path = str(disk.path)
    pattern = re.compile(r"(?<=[=:\"])" + re.escape(place) + r"(?=[,\"]|$)")
    if not any(pattern.search(word) for word in words):
        raise Unsupported(
            f"the command line of QEMU does not name the file of disk '{disk.disk.name}'",
            "restore the disks to a directory",
        )
    found = [pattern.sub(lambda _: path, word) for word in words]
    is_told = old_format == disk.format
    for at, given, prefix in _above(found, path):
        is_drive = _option(found[at - 1]) == "-drive"
        key = "format" if is_drive and f"{prefix}driver" not in given else f"{prefix}driver"
        if given.get(key, old_format) != old_format or (key not in given and not is_drive):
            continue
        gone = _OTHER_FILES if disk.format == old_format else (*_OTHER_FILES, *_OF_QCOW2)
        kept = {name: value for name, value in given.items() if not _is_of(name, prefix, gone)}
        if old_format != disk.format:
            kept[key] = disk.format
        if kept != given:
            found[at] = _written(kept, is_json=found[at].startswith("{"))
        is_told = True
    if not is_told:
        same = f"restore with the format {old_format}, or its disks to a directory"
        raise Unsupported(
            f"disk '{disk.disk.name}' can't be changed from {old_format} to {disk.format}"
            " on this command line",
            same if old_format in KINDS["qmp"].disk_formats else "restore its disks to a directory",
        )
    return found


def _above(words: Sequence[str], path: str) -> Iterator[tuple[int, dict[str, Any], str]]:
    """The formats that a file is read by.

    Yields:
        At which word, what that says, and what its keys begin with: nothing, or names of nodes that
        lie over it in the same word, as ``backing.``.
    """
    nodes: set[str] = set()
    drives = [
        (at, _read(word, is_drive=_option(option) == "-drive"))
        for at, (option, word) in enumerate(pairwise(words), start=1)
        if _option(option) in ("-drive", "-blockdev")
    ]
    for at, given in drives:
        for key, value in given.items():
            if value != path:
                continue
            if key == "filename":  # a node of the file alone, which others name
                nodes.add(str(given.get("node-name", "")))
            elif key in ("file", "file.filename") or key.endswith(".file.filename"):
                yield at, given, key.removesuffix(".filename").removesuffix("file")
    for at, given in drives:
        for key, value in given.items():
            names_a_file = key == "file" or key.endswith(".file")
            if names_a_file and isinstance(value, str) and value in nodes:
                yield at, given, key.removesuffix("file")


def _option(word: str) -> str:
    """An option as it is written mostly: QEMU takes two dashes as well."""
    return f"-{word.lstrip('-')}"


def _is_of(name: str, prefix: str, gone: Sequence[str]) -> bool:
    """Whether a key belongs to one of these of the node with that prefix."""
    return name.startswith(prefix) and name.removeprefix(prefix).partition(".")[0] in gone


def _read(word: str, *, is_drive: bool) -> dict[str, Any]:
    """What a word says; keys within others have their names before them, with a dot."""
    if word.startswith("{"):
        try:
            return _flat(json.loads(word))
        except ValueError:
            return {}
    found: dict[str, Any] = {}
    for at, part in enumerate(word.replace(",,", "\0").split(",")):
        name, equals, value = part.replace("\0", ",").partition("=")
        if at == 0 and not equals and not is_drive:
            name, equals, value = "driver", "=", name
        found[name] = value if equals else None
    return found


def _flat(given: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in given.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found


def _written(given: dict[str, Any], *, is_json: bool) -> str:
    """The word that says that."""
    if not is_json:
        pairs = ((name, value) for name, value in given.items() if name or value is not None)
        return ",".join(
            name if value is None else f"{name}={str(value).replace(',', ',,')}"
            for name, value in pairs
        )
    tree: dict[str, Any] = {}
    for name, value in given.items():
        *above, last = name.split(".")
        node = tree
        for one in above:
            node = node.setdefault(one, {})
        node[last] = value
    return json.dumps(tree)
