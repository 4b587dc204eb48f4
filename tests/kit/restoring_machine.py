"""A process that makes a machine of an image, and stands still at some step until it is killed.

Its image is read slowly, so that the place is where it is said to be. Steps are: ``written:N``,
a journal says that so much of a disk is written; ``sent:N``, so many bytes of disks were given to
the connection to the hypervisor; ``copied:N``, a journal there says that so much is copied;
``empty``, the first disk that is copied was made there, and has not a byte; ``headed:N``, so many
disks that were copied there have their first bytes; ``made``, all disks are there, and the machine
is not.
"""

from __future__ import annotations

import http.client
import json
import re
import sys
import threading
import time
from pathlib import Path
from typing import Any

from holdfast.base.ids import ImageId
from holdfast.engine import PosixStore
from holdfast.movers.machines import work as machine_work
from holdfast.movers.machines.ends import NearImage
from holdfast.sources.machines import unfinished
from holdfast.vault import PoolKey, open_pool_on
from holdfast.wire.machine_work import MachineRestoreWork, Reached

SECRET = bytes(range(32))
KEPT = 1 << 20
_BYTES_PER_S = 12 << 20


class SlowStore:
    """The store of a pool that gives so many bytes a second."""

    def __init__(self, path: str) -> None:
        self._store = PosixStore(path)
        self._turn = threading.Lock()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def get_range(self, key: str, offset: int, length: int) -> bytes:
        data = self._store.get_range(key, offset, length)
        with self._turn:
            time.sleep(len(data) / _BYTES_PER_S)
        return data


def _now() -> None:
    print("now", flush=True)
    time.sleep(600)


def _watch_journals(step: str, kinds: list[type], place: int) -> None:
    """Stand still when a journal of these kinds says that a disk is as far as that."""
    for kind in kinds:
        append = kind.append  # type: ignore[attr-defined]

        def watched(shelf: Any, data: bytes, append: Any = append) -> None:
            append(shelf, data)
            told = max((int(one) for one in re.findall(rb'"until": (\d+)', data)), default=-1)
            if told >= place:
                _now()

        kind.append = watched  # type: ignore[attr-defined]
    assert kinds, step


def _watch_sending(place: int) -> None:
    """Stand still when so much was given to a connection."""
    sent = 0

    def count(data: bytes) -> None:
        nonlocal sent
        sent += len(data)
        if sent >= place:
            _now()

    send = http.client.HTTPConnection.send

    def watched_send(connection: Any, data: Any) -> None:
        send(connection, data)
        if isinstance(data, bytes) and len(data) >= 1 << 20:  # a disk's
            count(data)

    http.client.HTTPConnection.send = watched_send  # type: ignore[assignment, method-assign]
    try:
        from holdfast.sources.machines.libvirt import volumes
    except ImportError:
        return
    send_all = volumes._send_all

    def watched_send_all(stream: Any, data: bytes) -> None:
        send_all(stream, data)
        if len(data) >= 1 << 16:
            count(data)

    volumes._send_all = watched_send_all


def _watch_making() -> None:
    """Stand still when a disk that is copied to another host's libvirt was made there."""
    from holdfast.sources.machines.libvirt import volumes

    create = volumes.create

    def watched(connection: Any, pool: Any, name: str, size: int, image_format: str) -> Any:
        made = create(connection, pool, name, size, image_format)
        if size == 0 and not name.startswith("."):  # and no journal
            _now()
        return made

    volumes.create = watched


def _watch_heads(place: int) -> None:
    """Stand still when so many disks at another host's libvirt have got their first bytes."""
    from holdfast.sources.machines.libvirt import far_making

    give, given = far_making.give_head, 0

    def watched(connection: Any, volume: Any, head: bytes) -> None:
        nonlocal given
        give(connection, volume, head)
        given += 1
        if given == place:
            _now()

    far_making.give_head = watched


def _far_shelves() -> tuple[list[type], list[type]]:
    """Journals of what is written, and of what is copied, at hypervisors that can be had here."""
    written: list[type] = [unfinished.NearShelf]
    copied: list[type] = []
    try:
        from holdfast.sources.machines.libvirt import far_making, there, volumes

        volumes.SENT_BYTES = KEPT
        written.append(there.FarShelf)
        copied.append(far_making.VolumeShelf)
    except ImportError:
        pass
    try:
        from holdfast.sources.machines.vmware import new_files

        copied.append(new_files.DatastoreShelf)
    except ImportError:
        pass
    return written, copied


def main(pool: str, cache: str, order: str, step: str) -> None:
    """Restore; at that step say so, and wait."""
    machine_work.KEEP_BYTES = KEPT
    written, copied = _far_shelves()
    what, _, place = step.partition(":")
    if what == "written":
        _watch_journals(step, written, int(place))
    elif what == "copied":
        _watch_journals(step, copied, int(place))
    elif what == "sent":
        _watch_sending(int(place))
    elif what == "empty":
        _watch_making()
    elif what == "headed":
        _watch_heads(int(place))
    else:
        assert what == "made", step
        unfinished.Journal.hand_over = lambda _: _now()  # type: ignore[assignment, method-assign]
    given = json.loads(order)
    del given["version"], given["work"]
    given["disks"] = tuple(given["disks"])
    if given["reached"] is not None:
        given["reached"] = Reached(**given["reached"])
    work = MachineRestoreWork(**given)
    store = SlowStore(pool)
    opened = open_pool_on(store, key=PoolKey(SECRET), cache_dir=Path(cache))
    end = NearImage(opened, ImageId(work.image))
    machine_work.restore_machine(work, end, lambda _: None, lambda _: None)
    print("whole", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
