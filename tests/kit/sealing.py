"""Backups and restores under a client key, with both ends in one process and nothing between."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from holdfast.engine import Image, Pool, RemotePool, RestoreResult

if TYPE_CHECKING:
    from pathlib import Path

    from holdfast.engine import ClientKey, Receiver

STARTED_NS = 1_700_000_000_000_000_000


@dataclass
class Direct:
    """A link to a pool that is here."""

    pool: Pool
    source: str = "alpha:tree"
    receiver: Receiver | None = field(default=None)

    def missing(self, names: bytes) -> bytes:
        assert self.receiver is not None
        return self.receiver.missing(names)

    def send(self, body: bytes) -> None:
        assert self.receiver is not None
        self.receiver.take(body)

    def read(self, wanted: bytes) -> bytes:
        return self.pool.deliver(wanted)

    def commit(self, draft: bytes) -> bytes:
        assert self.receiver is not None
        said: dict[str, str] = {}
        image = self.receiver.commit(
            draft, source=self.source, host="alpha", labels=said, finished_ns=STARTED_NS + 10
        )
        return self.pool.manifest(image.id)


def back_up(
    pool: Pool,
    tree: Path,
    key: ClientKey | None,
    *,
    sealed_names: bool = False,
    parent: str | None = None,
    started_ns: int = STARTED_NS,
) -> Image:
    """Back a tree up, sealed with a key."""
    receiver = pool.receive(started_ns=started_ns)
    link = Direct(pool, receiver=receiver)
    remote = RemotePool(receiver.terms, link, None, key, sealed_names)
    return remote.backup(
        paths=[os.fsencode(tree)],
        source=link.source,
        host="alpha",
        started_ns=started_ns,
        parent=None if parent is None else pool.manifest(parent),
    ).result()


def restore(pool: Pool, image: str, to: Path, key: ClientKey | None) -> RestoreResult:
    """Restore all of an image."""
    remote = RemotePool(pool.terms, Direct(pool), None, key)
    run = remote.restore(pool.manifest(image), paths=[], to=os.fsencode(to), verify=True)
    return run.result()
