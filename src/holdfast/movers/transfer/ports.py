"""What the data path needs of others: of the engine, and of whoever knows about jobs.

Must not act. The engine's own classes have these shapes; tests have others that do, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from holdfast.base.units import MIB

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp import web

    from holdfast.base.clock import Clock
    from holdfast.engine import Image
    from holdfast.movers.transfer.refusals import Refusal
    from holdfast.wire.identity import Peer
    from holdfast.wire.transfer_tokens import TokenKey, TransferGrant


class Receiver(Protocol):
    """One backup, or image of another pool, being taken in. Thread-safe; calls may take long."""

    @property
    def terms(self) -> bytes:
        """What a client needs to know to cut and name chunks."""
        ...

    def missing(self, names: bytes) -> bytes:
        """Which of these chunks the pool lacks, as a bitmap."""
        ...

    def take(self, body: bytes) -> None:
        """Verify and store a body of blocks."""
        ...

    def commit(
        self, draft: bytes, *, source: str, host: str, labels: dict[str, str], finished_ns: int
    ) -> Image:
        """Make what was taken an image."""
        ...

    def vouch(self, image: str, /) -> bytes | None:
        """The manifest of an image that is here whole, and stays so until this ends."""
        ...

    def adopt(self, manifest: bytes, *, image: str, source: str) -> Image:
        """Make an image of another pool, of which everything is here, one of this pool, too."""
        ...

    def abandon(self) -> None:
        """Make no image of it; what was taken stays."""
        ...


class MediaPool(Protocol):
    """A pool of a media server. Thread-safe."""

    def receive(self, *, started_ns: int) -> Receiver:
        """Begin to take a backup in."""
        ...

    def deliver(self, wanted: bytes, *, link_bytes_per_s: int | None) -> bytes:
        """A body of the blocks that hold the wanted chunks."""
        ...

    def manifest(self, image: str, /) -> bytes:
        """An image's manifest."""
        ...

    @property
    def terms(self) -> bytes:
        """What a client needs to know to check and join chunks."""
        ...


@dataclass(frozen=True, slots=True)
class TransferLimits:
    """How much a media server takes on, and how long it waits.

    Attributes:
        body_bytes: The longest body of blocks.
        names_bytes: The longest question after names: 32 bytes a name.
        wanted_bytes: The longest list of wanted chunks.
        read_bytes: The most bytes of chunks that may be wanted at once.
        draft_bytes: The longest draft of a manifest.
        memory_bytes: Of all bodies at once.
        client_memory_bytes: Of all bodies of one client at once.
        client_bodies: Bodies of one client at once, however small.
        client_uploads: Uploads of one client at once.
        lease_s: For how long an upload waits for its client.
        gap_s: For how long a body may stand still.
        slowest_bytes_per_s: A body that arrives slower than this, after `gap_s`, is cut off.
        room_s: How long a body may have to wait for memory.
        sign_of_life_s: How often a client that waits for an answer is told that it is worked on.
        threads: Calls of the engine at once, of each of two kinds: those that bring blocks, and
            the rest.
    """

    body_bytes: int = 72 * MIB
    names_bytes: int = 4 * MIB
    wanted_bytes: int = 4 * MIB
    read_bytes: int = 64 * MIB
    draft_bytes: int = 16 * MIB
    memory_bytes: int = 768 * MIB
    client_memory_bytes: int = 288 * MIB
    client_bodies: int = 12
    client_uploads: int = 32
    lease_s: float = 600.0
    gap_s: float = 30.0
    slowest_bytes_per_s: float = 16 << 10
    room_s: float = 60.0
    sign_of_life_s: float = 5.0
    threads: int = 16


@dataclass(frozen=True, slots=True)
class TransferHost:
    """What the routes are given by whoever serves them. The calls may block.

    Attributes:
        key: With which the master's tokens are checked.
        peer: Who sent a request, by its certificate; raises if it has none that counts. The one
            call that must not block.
        pool: The pool of an id; raises if this media server does not have it.
        may_commit: Whether this fence still has this job; asked at the beginning and right before
            the commit.
        committed: Is told of each image before the client is; told again if it raised.
        refused: Is told of each request that was refused.
        clock: Tells the date.
        now_s: A clock that only goes forward.
        limits: See there.
    """

    key: TokenKey
    peer: Callable[[web.Request], Peer]
    pool: Callable[[str], MediaPool]
    may_commit: Callable[[int, int], bool]
    committed: Callable[[TransferGrant, Image], None]
    refused: Callable[[Refusal], None]
    clock: Clock
    now_s: Callable[[], float]
    limits: TransferLimits = TransferLimits()
