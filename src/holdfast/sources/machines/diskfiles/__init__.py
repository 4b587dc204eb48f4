"""Machines by their disk files: a directory of qcow2, VMDK, VHD, VHDX, VDI and raw files.

Must not talk to a hypervisor. What is read is what `qemu-nbd` reads; machines have to be off.
"""

from __future__ import annotations

import socket
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

from holdfast.base.errors import Invalid, NotFound
from holdfast.sources.machines.diskfiles.provider import DiskFiles
from holdfast.sources.machines.diskfiles.store import Store

if TYPE_CHECKING:
    from holdfast.sources.machines.providers import Credentials

__all__ = ["DiskFiles", "open_url"]


def open_url(url: str, credentials: Credentials | None = None) -> DiskFiles:  # noqa: ARG001
    """Open a directory of disk files.

    Args:
        url: Its absolute path, ``/srv/machines``, or ``file:///srv/machines``. After a question
            mark: ``also=/srv/base`` allows disks in another directory too, and may come again;
            ``host=web`` is what machines have as their host, instead of this one's name.
        credentials: Not used: files are read as the user that this process is.

    Raises:
        Invalid: That is no such URL.
        NotFound: There is no such directory.
    """
    if url.startswith("/") and Path(url).is_dir():
        # Whatever its name is like: somebody's directory may well have a question mark in it.
        return DiskFiles(Store(_directory(url), (), socket.gethostname()))
    parts = urlsplit(url)
    query = parse_qs(parts.query, keep_blank_values=True)
    wrong = parts.scheme not in ("", "file") or parts.netloc or not parts.path.startswith("/")
    if wrong or set(query) - {"also", "host"} or parts.fragment:
        raise Invalid(
            f"'{url}' is no directory of disk files",
            "give its absolute path, for example: /srv/machines",
        )
    also = tuple(map(_directory, query.get("also", [])))
    host = query.get("host", [""])[-1] or socket.gethostname()
    return DiskFiles(Store(_directory(parts.path), also, host))


def _directory(path: str) -> Path:
    if not path.startswith("/") or not Path(path).is_dir():
        raise NotFound(
            f"there is no directory '{path}'", "see whether its file system is mounted here"
        )
    return Path(path).resolve()
