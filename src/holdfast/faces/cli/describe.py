"""Images, entries, findings and counters as rows for people and objects for programs.

Must not print. Invariant: JSON times are UTC in ISO 8601, sizes are bytes; people get local
time and short units.
"""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from holdfast.base.clock import from_ns
from holdfast.base.ids import machine_of
from holdfast.faces.cli.screen import path_json, path_text

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from holdfast.engine import Counters, Entry, Finding, Image
    from holdfast.movers.machines.file_restore import Found
    from holdfast.movers.machines.inside import InnerEntry

SHORT_ID = 8
"""How many digits of an id people are shown; any unique prefix is understood."""

COUNTER_NAMES = (
    "files", "dirs", "others", "bytes_found", "bytes_read", "bytes_online", "files_changed",
    "files_unchanged", "chunks_looked_up", "chunks_hit", "bytes_new", "bytes_transmitted",
    "bytes_left", "bytes_stored", "findings",
)  # fmt: skip

_TYPE_BITS = {
    "file": stat.S_IFREG,
    "dir": stat.S_IFDIR,
    "symlink": stat.S_IFLNK,
    "fifo": stat.S_IFIFO,
    "socket": stat.S_IFSOCK,
    "char": stat.S_IFCHR,
    "block": stat.S_IFBLK,
}


def source_words(source: str, client: str | None) -> str:
    """A source for a person: that of a virtual machine, with what it is called."""
    return source if machine_of(source) is None else f"{client or '?'} ({source})"


def local_time(moment: datetime) -> str:
    """Write a moment for a person, in the machine's time zone."""
    return moment.astimezone().strftime("%Y-%m-%d %H:%M")


def iso_time(moment: datetime) -> str:
    """Write a moment for a program."""
    return moment.isoformat().replace("+00:00", "Z")


def image_json(image: Image) -> dict[str, object]:
    """An image's manifest as an object."""
    return {
        "id": image.id,
        "number": image.number,
        "source": image.source,
        "host": image.host,
        "paths": [path_json(path) for path in image.paths],
        "started_at": iso_time(from_ns(image.started_ns)),
        "finished_at": iso_time(from_ns(image.finished_ns)),
        "parent": image.parent,
        "status": image.status,
        "stats": image.stats,
        "findings_total": image.findings_total,
        "findings": findings_json(image.findings),
    }


def findings_json(findings: Iterable[Finding | Found]) -> list[dict[str, str]]:
    """Findings as objects."""
    return [
        {**path_json(one.path), "code": one.code, "severity": one.severity, "message": one.message}
        for one in findings
    ]


def counters_json(counters: Counters) -> dict[str, object]:
    """Counters and stages as an object."""
    stages = [
        {
            "name": one.name,
            "items": one.items,
            "bytes": one.bytes,
            "busy_ns": one.busy_ns,
            "starved_ns": one.starved_ns,
            "blocked_ns": one.blocked_ns,
        }
        for one in counters.stages
    ]
    return {**{name: getattr(counters, name) for name in COUNTER_NAMES}, "stages": stages}


def finding_lines(findings: Iterable[Finding | Found]) -> list[tuple[bytes, str, str]]:
    """Findings as `tell_findings` wants them."""
    return [(one.path, one.severity, one.message) for one in findings]


def entry_mode(entry: Entry | InnerEntry) -> str:
    """Type and permissions as ``ls`` writes them."""
    return stat.filemode(_TYPE_BITS.get(entry.kind, 0) | entry.mode)


def entry_json(path: bytes, entry: Entry | InnerEntry) -> dict[str, object]:
    """An entry of an image as an object."""
    value: dict[str, object] = {
        **path_json(path),
        "kind": entry.kind,
        "mode": f"{entry.mode:04o}",
        "uid": entry.uid,
        "gid": entry.gid,
        "user": entry.user,
        "group": entry.group,
        "size": entry.size,
        "mtime_ns": entry.mtime_ns,
        "inode": entry.inode,
        "nlink": entry.nlink,
    }
    if entry.target is not None:
        value |= path_json(entry.target, "target")
    if entry.rdev is not None:
        value["rdev"] = list(entry.rdev)
    if entry.xattrs:
        value["xattrs"] = [path_text(name) for name in entry.xattrs]
    return value
