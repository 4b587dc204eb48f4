"""Of which disks a QEMU gives nothing back that its guest trims, as its command line tells.

Must not ask QEMU, whose monitor does not tell. Invariant: a disk of which that is not known, such
as one that was attached later, is not among them.
"""

from __future__ import annotations

import json
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

from holdfast.sources.machines.qmp.devices import options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdfast.sources.machines.qmp.devices import Device

HOW: Final = "start QEMU with discard=unmap for it"
_GIVES_BACK = ("unmap", "on")


def keeping(found: Sequence[Device], words: Sequence[str]) -> list[str]:
    """The names of those disks.

    Args:
        found: All disks of the machine.
        words: Its command line.
    """
    drives: dict[str, bool] = {}
    files: dict[str, bool] = {}
    nodes: dict[str, dict[str, Any]] = {}
    for option, value in pairwise(words):
        if option == "-drive":
            given = options(value)
            gives_back = given.get("discard") in _GIVES_BACK
            drives[given.get("id", "")] = files[given.get("file", "")] = gives_back
        elif option == "-blockdev" and (node := _node(value)).get("node-name"):
            nodes[str(node["node-name"])] = node
    kept = []
    for one in found:
        gives = True
        if one.node in nodes:
            gives = _gives_back(one.node, nodes)
        elif one.drive:
            gives = drives.get(one.drive, files.get(one.disk.place, True))
        if one.writable and not one.disk.left_out and not gives:
            kept.append(one.disk.name)
    return kept


def _node(value: str) -> dict[str, Any]:
    if not value.startswith("{"):
        return dict(options(value))
    try:
        found = json.loads(value)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _gives_back(name: str, nodes: dict[str, dict[str, Any]]) -> bool:
    """Whether it does, and the node below it, which does by itself where it has no own name."""
    node: dict[str, Any] | None = nodes[name]
    for _ in nodes:
        if node is None:
            return True
        if node.get("discard") not in _GIVES_BACK:
            return False
        below = node.get("file")
        node = nodes.get(below) if isinstance(below, str) else None
    return True
