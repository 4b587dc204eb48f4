"""An agent's data path in a process of its own.

`python -m tests.kit.agent_process DIRECTORY TOKEN URLS backup PATH`, or ``restore PATH IMAGE
[OVERWRITE]``: says how many bytes went over each path so far, again and again, and at last what
came of it.
"""

from __future__ import annotations

import json
import os
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast.base.clock import SystemClock
from holdfast.base.errors import HoldfastError
from holdfast.base.ids import ClientName, ImageId
from holdfast.engine import RemotePool
from holdfast.movers.backup_run import BackupOrder
from holdfast.movers.restore_run import RestoreOrder
from holdfast.movers.transfer.client import TransferLink
from holdfast.movers.transfer.remote_runs import TransferTarget, remote_backup, remote_restore
from tests.kit.clock import FakeClock
from tests.kit.machine_identities import client_context

if TYPE_CHECKING:
    from holdfast.movers.restore_run import Overwrite

LINKS: list[TransferLink] = []


class Target(TransferTarget):
    """Remembers its links."""

    def link(self) -> TransferLink:
        LINKS.append(super().link())
        return LINKS[-1]


def paths() -> dict[str, int]:
    """How many bytes went over each path, by the server's address."""
    return {one.path.host: one.moved_bytes for link in LINKS for one in link.states}


def main(
    directory: Path,
    token: str,
    urls: str,
    verb: str,
    path: str,
    image: str = "",
    overwrite: Overwrite | None = None,
) -> None:
    target = Target(
        urls=tuple(urls.split(",")),
        context=client_context(directory, "alpha"),
        token=lambda: token,
        remote_pool=RemotePool,
        deadline_s=60,
    )

    def report(_: object) -> None:
        print(json.dumps({"paths": paths()}), flush=True)

    began_s = time.monotonic()
    said: dict[str, object] = {}
    if verb == "backup":
        order = BackupOrder(ClientName("alpha"), (os.fsencode(path),))
        clock = FakeClock(SystemClock().now() + timedelta(minutes=1))
        image = remote_backup(target, order, clock, report).id
    else:
        restoring = RestoreOrder(ImageId(image), (), os.fsencode(path), overwrite)
        try:
            found = remote_restore(target, restoring, report).findings
        except HoldfastError as error:
            said, found = {"code": error.code}, []
        told = [
            {"code": one.code, "path": os.fsdecode(one.path), "message": one.message}
            for one in found
        ]
        said |= {"findings": told}
    took_s = time.monotonic() - began_s
    print(json.dumps({"paths": paths(), "image": image, "took_s": took_s, **said}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])  # type: ignore[arg-type]
