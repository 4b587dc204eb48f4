"""Back up to, and restore from, a media server on another machine.

Must not touch the catalog, as `movers.backup_run` and `movers.restore_run`, whose like these are.
Invariant: whatever happens, no request is on its way when a run returns or raises, and an upload
that came to no image is given up.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar
from urllib.parse import urlsplit

from holdfast import __version__
from holdfast.base.errors import ClientKeyNeeded, Invalid
from holdfast.engine import client_key_of
from holdfast.movers.backup_run import require_compression
from holdfast.movers.drive import drive
from holdfast.movers.restore_run import require_empty
from holdfast.movers.transfer.client import DEADLINE_S, TransferLink
from holdfast.movers.transfer.paths import local_addresses, make_paths
from holdfast.movers.transfer.rate import RateLimit

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator

    from holdfast.base.clock import Clock
    from holdfast.engine import (
        ClientKey,
        Counters,
        DiskInput,
        DiskSink,
        FileReader,
        Image,
        Pool,
        RestoreResult,
    )
    from holdfast.movers.backup_run import BackupOrder
    from holdfast.movers.drive import Drivable, Reporter
    from holdfast.movers.restore_run import RestoreOrder
    from holdfast.movers.transfer.paths import Address

T = TypeVar("T")

DEFAULT_PORT = 443


class RemotePool(Protocol):
    """The engine's view of a pool that is elsewhere."""

    def replicate(self, pool: Pool, image: str, base: bytes | None, /) -> Drivable[Image]:
        """Begin to send an image of a pool that is here."""
        ...

    def backup(
        self,
        *,
        paths: list[bytes],
        source: str,
        host: str,
        started_ns: int,
        exclude: list[str],
        one_file_system: bool,
        compression: int,
        parent: bytes | None,
        read_all: bool,
        labels: dict[str, str],
        software: str,
    ) -> Drivable[Image]:
        """Begin to back up."""
        ...

    def restore(
        self,
        manifest: bytes,
        *,
        paths: list[bytes],
        to: bytes,
        overwrite: str,
        strip_components: int,
        verify: bool,
    ) -> Drivable[RestoreResult]:
        """Begin to restore."""
        ...

    def backup_machine(
        self,
        *,
        files: dict[str, bytes],
        disks: list[DiskInput],
        source: str,
        host: str,
        started_ns: int,
        compression: int,
        parent: bytes | None,
        labels: dict[str, str],
        software: str,
    ) -> Drivable[Image]:
        """Begin to back up a virtual machine."""
        ...

    def restore_disk(
        self, manifest: bytes, path: bytes, to: DiskSink, /, *, verify: bool
    ) -> Drivable[RestoreResult]:
        """Begin to write a file of an image as a disk."""
        ...

    def open_file(self, manifest: bytes, path: bytes, /) -> FileReader:
        """A file of an image."""
        ...


def no_client_key(wanted: str) -> ClientKey:
    """Raise for whoever has no client keys."""
    raise ClientKeyNeeded(f"this machine has no client key '{wanted}'")


@dataclass(frozen=True)
class TransferTarget:
    """A media server, and how to get there.

    Attributes:
        urls: Where it listens, ``https://address:port`` each.
        context: Has this machine's certificate and the site's authority.
        token: Gives a transfer token that is good for a while; asked for each request.
        remote_pool: The engine's `RemotePool`: makes one of terms and a link.
        check_peer: Is given the server's certificate in DER; raises if it is not a media server's.
        sources: This machine's addresses to use; none: all that it has.
        client_key: Gives a client key of this machine, by name or id; raises if it is not here.
        rate: What may go over all connections together.
        compress: Where new data is compressed: ``here``, ``there`` or ``measured``, as is faster. A
            media server that does not compress is sent all of it compressed.
        deadline_s: For how long nothing may go well before a run fails.
    """

    urls: tuple[str, ...]
    context: ssl.SSLContext
    token: Callable[[], str]
    remote_pool: Callable[..., RemotePool]
    check_peer: Callable[[bytes], None] = lambda _: None
    client_key: Callable[[str], ClientKey] = no_client_key
    sources: tuple[Address, ...] = ()
    rate: RateLimit = field(default_factory=RateLimit)
    compress: str = "measured"
    deadline_s: float = DEADLINE_S

    def link(self) -> TransferLink:
        """A link over every path that there is.

        Raises:
            Invalid: A URL is not one, or there is none; or no address that is to be used is of
                its kind.
        """
        servers = [_address(url) for url in self.urls]
        paths = make_paths(servers, local_addresses(), self.sources)
        if not servers:
            raise Invalid("the media server has no address")
        if not paths:
            own, there = ", ".join(map(str, self.sources)), ", ".join(one for one, _ in servers)
            raise Invalid(
                f"from {own} there is no way to the media server, which is at {there}",
                "let this machine use an address of that kind: 'holdfast agent run --address A'",
            )
        return TransferLink(
            paths=paths,
            context=self.context,
            token=self.token,
            check_peer=self.check_peer,
            rate=self.rate,
            # A commit can be said while the last body is on its way.
            bodies_ahead=1,
            deadline_s=self.deadline_s,
        )


def remote_backup(
    target: TransferTarget, order: BackupOrder, clock: Clock, report: Reporter | None = None
) -> Image:
    """Back up to a media server, and wait for it.

    The parent is the one that the token names; that of the order is not looked at.

    Returns:
        The committed image.

    Raises:
        Cancelled: Interrupted; a second run sends nothing twice.
        ClientKeyNeeded: It is to be sealed with a key that is not here; nothing is sent.
        HoldfastError: The backup failed; the pool is as sound as before.
    """
    require_compression(order.compression)
    sealing: dict[str, Any] = {}
    if order.client_key is not None:
        sealing["client_key"] = target.client_key(order.client_key)
        sealing["sealed_names"] = order.sealed_names
    started_ns = clock.now_ns()
    with linked(target) as link:
        opened = link.open_upload(
            read_all=order.read_all, at_work=lambda: None if report is None else report(None)
        )
        compress = target.compress if opened.compresses else "here"
        run = target.remote_pool(opened.terms, link, compress=compress, **sealing).backup(
            paths=list(order.paths),
            source=order.source,
            host=order.client,
            started_ns=started_ns,
            exclude=list(order.exclude),
            one_file_system=order.one_file_system,
            compression=order.compression,
            parent=opened.parent,
            read_all=order.read_all,
            labels=dict(order.labels),
            software=f"holdfast {__version__}",
        )
        return drive(LinkedRun(run, link), report)


def remote_restore(
    target: TransferTarget, order: RestoreOrder, report: Reporter | None = None
) -> RestoreResult:
    """Restore from a media server, and wait for it.

    Raises:
        TargetNotEmpty: The directory holds something, and nobody said what to do with it.
        Invalid: The target is no directory, or nothing would be left of the paths.
        Cancelled: Interrupted; what was restored so far stays.
        ClientKeyNeeded: The image is sealed with a key that is not here.
        IntegrityError: The image is not as its key sealed it.
        HoldfastError: The restore failed.
    """
    if order.strip_components < 0:
        raise Invalid(f"can't strip {order.strip_components} components", "say 0 or more")
    if order.overwrite is None:
        require_empty(order.target)
    with linked(target) as link:
        terms, manifest = link.terms_and_manifest(order.image)
        wanted = client_key_of(manifest)
        sealing = {} if wanted is None else {"client_key": _key_of(target, order, wanted)}
        run = target.remote_pool(terms, link, **sealing).restore(
            manifest,
            paths=list(order.paths),
            to=order.target,
            overwrite=order.overwrite or "never",
            strip_components=order.strip_components,
            verify=order.verify,
        )
        return drive(LinkedRun(run, link), report)


def _key_of(target: TransferTarget, order: RestoreOrder, wanted: str) -> ClientKey:
    """The key that an image is sealed with."""
    try:
        return target.client_key(wanted)
    except ClientKeyNeeded as error:
        raise ClientKeyNeeded(
            f"image {order.image} is sealed with client key {wanted}, which is not on this machine",
            "bring it here with 'holdfast client-key import', or restore on a machine that has it",
        ) from error


@dataclass(frozen=True, slots=True)
class LinkedRun(Generic[T]):
    """A run whose threads may wait for the link: who stops the one stops the other."""

    run: Drivable[T]
    link: TransferLink

    def counters(self) -> Counters:
        """See `Drivable`."""
        return self.run.counters()

    def cancel(self) -> None:
        """Stop both."""
        self.run.cancel()
        self.link.cancel()

    def wait(self, timeout_s: float, /) -> bool:
        """See `Drivable`."""
        return self.run.wait(timeout_s)

    def result(self) -> T:
        """See `Drivable`."""
        return self.run.result()


@contextmanager
def linked(target: TransferTarget) -> Iterator[TransferLink]:
    """A link for as long as it is needed; what was begun over it and fails is given up."""
    link = target.link()
    try:
        yield link
    except BaseException:
        link.cancel()
        link.abandon()
        raise
    finally:
        link.close()


def _address(url: str) -> tuple[str, int]:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise Invalid(f"'{url}' is not where a media server can be") from error
    if parts.scheme != "https" or not host or parts.path not in ("", "/"):
        raise Invalid(f"'{url}' is not where a media server can be", "write https://address:port")
    return host, port or DEFAULT_PORT
