"""The side of a libvirt of another host: its files are opened there, or copied by libvirt.

Must not open a path of that host here, nor an unencrypted port that the URL does not ask for.
Invariant: what is made there is a volume of a storage pool whose name tells whose it is, so that it
is found and taken away by whoever comes next, without a shell.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import tempfile
import time
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import quoteattr

import libvirt

from holdfast.base.errors import (
    Forbidden,
    HoldfastError,
    NotFound,
    Unreachable,
    Unsupported,
)
from holdfast.sources import places
from holdfast.sources.machines import domain_xml
from holdfast.sources.machines.labels import PREFIX, TRIAL, directory_prefix
from holdfast.sources.machines.libvirt import there, volumes
from holdfast.sources.machines.libvirt.connection import asked
from holdfast.sources.machines.libvirt.far_making import CopiedMaking, FarMaking
from holdfast.sources.machines.libvirt.near import enough, within
from holdfast.sources.machines.libvirt.off import try_disk
from holdfast.sources.machines.libvirt.side import name_of, scratch_files
from holdfast.sources.machines.libvirt.tunnel import not_forwarded
from holdfast.sources.machines.machine import State
from holdfast.sources.machines.provider import Remark
from holdfast.sources.nbd import client
from holdfast.sources.nbd.qemu_nbd import Node, image_node, run_img, serving
from holdfast.sources.nbd.wire import Address

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from holdfast.sources.machines.domain_xml import DomainDisk
    from holdfast.sources.machines.libvirt.connection import Libvirt
    from holdfast.sources.machines.machine import Machine
    from holdfast.sources.machines.provider import NewMachine, SnapshotOrder
    from holdfast.sources.nbd.qemu_nbd import Served

_OF_DOMAINS = "/var/lib/libvirt/qemu"
"""Where libvirt gives the QEMU of each machine a directory of its own."""
_LOOK_S = 5.0
_COPY = "holdfast-copy-"
_OF = "of"
"""In the directory of a backup: the host and the machine that it is of."""
_FIRST_PORT, _PORTS = 49152, 16384


class FarGround:
    """See `Ground`: volumes of a pool there, and a server that is reached as the URL says."""

    flags = libvirt.VIR_DOMAIN_BACKUP_BEGIN_REUSE_EXTERNAL

    def __init__(self, host: Libvirt, order: SnapshotOrder, name: str, pool: Any) -> None:
        """Nothing is made yet."""
        self._host = host
        self._order = order
        self._name = name
        self._pool = pool
        self._directory = volumes.directory_of(pool)
        self._free: int | None = None
        self._looked = 0.0
        self._used = 0
        self._domain = ""
        self._listens = ""
        self._forwarded: list[str] = []
        self._address = Address("")

    @property
    def address(self) -> Address:
        """See `Ground.address`."""
        return self._address

    def server(self) -> str:
        """See `Ground.server`."""
        given = self._host.address
        if given.nbd == "socket":
            self._listens = f"{_OF_DOMAINS}/{self._domain}/{self._name}"
            self._address = Address(self._forward(self._listens))
            return f"<server transport='unix' socket={quoteattr(self._listens)}/>"
        port = _FIRST_PORT + secrets.randbelow(_PORTS)
        if given.nbd == "loopback":
            self._listens = f"127.0.0.1:{port}"
            self._address = Address(self._forward(self._listens))
            return f"<server transport='tcp' name='127.0.0.1' port='{port}'/>"
        self._listens = f"{given.host}:{port}"
        if given.nbd == "tls":
            raise Unsupported(
                f"disks of '{given.host}' can't be read by TLS",
                "reach it by ssh: qemu+ssh://HOST/system, or run an agent on that host",
            )
        self._address = Address(host=given.host, port=port)
        return f"<server transport='tcp' name={quoteattr(_bound(given.host))} port='{port}'/>"

    def scratch(self, disk: str) -> str:
        """See `Ground.scratch`."""
        return f"{self._directory}/{self._volume(disk)}"

    def prepare(self, domain: Any, sizes: dict[str, int]) -> None:
        """See `Ground.prepare`."""
        self._domain = f"domain-{domain.ID()}-{domain.name()[:20]}"
        self.room(0)
        for disk, size in sizes.items():
            volumes.create(self._host.get(), self._pool, self._volume(disk), size, "qcow2")

    def reach(self) -> None:
        """See `Ground.reach`."""
        try:
            client.list_exports(self._address)
        except (Unreachable, NotFound) as error:
            given = self._host.address
            if given.transport != "ssh":
                raise Unreachable(
                    f"QEMU at '{given.host}' listens on port {self._address.port}, and is not "
                    f"reached: {error.message}",
                    "let the proxy through the firewall there, or use qemu+ssh, which needs none",
                ) from error
            who = self._host.tunnel.who
            told = Forbidden(
                f"'{who}' may not connect to QEMU's socket '{self._listens}' there",
                "be root there (qemu+ssh://root@HOST/system), or let QEMU listen on that host's "
                "loopback address: ?holdfast_nbd=loopback",
            )
            other = not_forwarded(self._host.tunnel, "QEMU's socket", closed=True)
            raise other or told from error

    def room(self, used: int) -> None:
        """See `Ground.room`: libvirt looks how much is free, and not often."""
        within(used, self._order.scratch_bytes, f"in storage pool '{self._pool.name()}'")
        now = time.monotonic()
        if self._free is None or now > self._looked + _LOOK_S:
            self._free, self._looked, self._used = volumes.free_bytes(self._pool), now, used
        enough(self._free - (used - self._used), f"storage pool '{self._pool.name()}'")

    def close(self) -> None:
        """Take away what was made there."""
        with contextlib.suppress(HoldfastError):
            for one in self._forwarded:
                self._host.tunnel.cancel(one)
            volumes.delete_all(self._pool, f"{self._name}.")

    def _volume(self, disk: str) -> str:
        return f"{self._name}.{self._order.uuid}.{disk}"

    def _forward(self, listens: str) -> str:
        self._forwarded.append(listens)
        return self._host.tunnel.forward(listens)


@dataclass(frozen=True, slots=True)
class ThereDisk:
    """See `OffDisk`: opened by qemu's programs there."""

    host: Libvirt
    source: DomainDisk
    what: str

    def info(self) -> dict[str, Any]:
        """See `OffDisk.info`."""
        arguments = ["info", "-U", "--output=json", "-f", self.source.format, self.source.place]
        return dict(json.loads(there.run_img(self.host.tunnel, arguments, self.what)))

    def map(self, size: int, alive: Callable[[], None]) -> None:
        """See `OffDisk.map`: its files are not here."""

    def serving(self, bitmap: str | None) -> AbstractContextManager[Served]:
        """See `OffDisk.serving`."""
        node = {
            "driver": self.source.format,
            "file": _file_there(self.source),
            "read-only": True,
            "force-share": True,
        }
        return there.serving(self.host.tunnel, node, self.what, bitmap=bitmap)


@dataclass(frozen=True, slots=True)
class CopiedDisk:
    """See `OffDisk`: a copy of its files on this machine."""

    files: list[tuple[Path, str]]
    what: str

    def info(self) -> dict[str, Any]:
        """See `OffDisk.info`."""
        path, image_format = self.files[0]
        arguments = ["info", "-U", "--output=json", "-f", image_format, str(path)]
        return dict(json.loads(run_img(arguments, self.what)))

    def map(self, size: int, alive: Callable[[], None]) -> None:
        """See `OffDisk.map`: it is read once, as it was copied."""

    def serving(self, bitmap: str | None) -> AbstractContextManager[Served]:
        """See `OffDisk.serving`."""
        node: Node | None = None
        for path, image_format in reversed(self.files):
            node = image_node(path, image_format, backing=node, **{"read-only": True})
        assert node is not None  # noqa: S101 - a disk has a file
        return serving(node, self.what, bitmap=bitmap)


class Far:
    """See `Side`."""

    def __init__(self, host: Libvirt) -> None:
        """Take a host whose files are not here."""
        self._host = host

    @contextlib.contextmanager
    def ground(self, order: SnapshotOrder, sources: Sequence[DomainDisk]) -> Iterator[FarGround]:
        """See `Side.ground`."""
        connection, wanted = self._host.get(), self._host.address.scratch
        with (
            places.private_directory(directory_prefix(order.label)) as place,
            volumes.pool_named(connection, wanted, sources) as pool,
            contextlib.closing(FarGround(self._host, order, place.name, pool)) as made,
        ):
            (place / _OF).write_text(f"{self._host.url}\n{order.uuid}")
            yield made

    def lives(self, backup: Any) -> bool | None:
        """See `Side.lives`."""
        name = name_of(backup)
        place = Path(tempfile.gettempdir(), name)
        return places.lives(place) if name and place.exists() else None

    def clear(self, domain: Any, backup: Any, prefix: str, order: SnapshotOrder | None) -> None:
        """See `Side.clear`."""
        connection, name = self._host.get(), name_of(backup)
        for path in [] if backup is None else scratch_files(backup):
            if Path(path).name.startswith(f"{name}."):
                with (
                    contextlib.suppress(libvirt.libvirtError, HoldfastError),
                    volumes.volume_at(connection, path) as volume,
                ):
                    volume.delete()
        if order is not None:
            with asked("libvirt does not tell of a machine"):
                known = domain_xml.disks(domain_xml.read(domain.XMLDesc()))
            with volumes.pool_named(connection, self._host.address.scratch, known) as pool:
                for one in (prefix, directory_prefix(TRIAL)):
                    volumes.delete_all(pool, one, order.uuid)
            for directory in self._dead(order.uuid):
                shutil.rmtree(directory, ignore_errors=True)

    def leftovers(self) -> list[str]:
        """See `Side.leftovers`."""
        connection, found = self._host.get(), []
        with asked("libvirt does not tell of storage pools"):
            pools = connection.listAllStoragePools(libvirt.VIR_CONNECT_LIST_STORAGE_POOLS_ACTIVE)
        for directory in self._dead(""):
            for pool in pools:
                if volumes.of_files(pool):
                    found += volumes.delete_all(pool, f"{directory.name}.")
            shutil.rmtree(directory, ignore_errors=True)
        return [f"scratch file '{one}'" for one in found]

    @contextlib.contextmanager
    def off_disk(
        self, source: DomainDisk, what: str, scratch: Path
    ) -> Iterator[ThereDisk | CopiedDisk]:
        """See `Side.off_disk`."""
        if self._opens:
            yield ThereDisk(self._host, source, what)
            return
        connection = self._host.get()
        with places.private_directory(_COPY, scratch) as directory:
            files = []
            for at, (path, image_format) in enumerate(volumes.chain(connection, source)):
                files.append((directory / str(at), image_format))
                with volumes.volume_at(connection, path) as volume:
                    volumes.download(connection, volume, files[-1][0])
            yield CopiedDisk(files, what)

    def state(self, source: DomainDisk) -> object:
        """See `Side.state`: of volumes of a pool, and devices; nothing is known of others."""
        if source.place.startswith("/dev/") and self._opens:
            return there.writes_of(self._host.tunnel, source.place)
        with contextlib.suppress(libvirt.libvirtError):
            known = domain_xml.read(self._host.get().storageVolLookupByPath(source.place).XMLDesc())
            return known.findtext("target/timestamps/mtime"), known.findtext("physical")
        return None

    def bitmap_tool(self) -> Callable[[Sequence[str], str], bytes] | None:
        """See `Side.bitmap_tool`."""
        if not self._opens:
            return None
        return lambda arguments, what: there.run_img(self._host.tunnel, arguments, what)

    def file(self, path: str) -> bytes:
        """See `Side.file`."""
        with places.private_directory(_COPY) as directory:
            return volumes.content(self._host.get(), path, directory / "file")

    @contextlib.contextmanager
    def making(self, order: NewMachine) -> Iterator[FarMaking]:
        """See `Side.making`."""
        connection = self._host.get()
        with volumes.pool_named(connection, order.storage or "") as pool:
            with contextlib.suppress(libvirt.libvirtError):
                pool.refresh()
            if self._opens:
                yield FarMaking(self._host, pool, order)
            else:
                with contextlib.ExitStack() as stack:
                    yield CopiedMaking(self._host, pool, order, stack)
            with contextlib.suppress(libvirt.libvirtError):
                pool.refresh()

    def try_out(
        self,
        machine: Machine,
        wanted: Sequence[DomainDisk],
        scratch: Path,
    ) -> list[Remark]:
        """See `Side.try_out`: of one that runs, only a backup shows it."""
        if machine.state is not State.OFF:
            return []
        found = []
        for source in wanted:
            if self._opens:
                found += try_disk(self, machine, source, scratch)
                continue
            what = f"disk '{source.name}' of '{machine.name}'"
            try:
                volumes.chain(self._host.get(), source)
                text = (
                    f"{what} is copied to the proxy before it is read, while the machine is off: "
                    "as root by ssh, with qemu-utils there, it would be read in its place"
                )
                found.append(Remark("info", "copied", text, source.name))
            except HoldfastError as error:
                found.append(Remark("error", "not-readable", there.reason(error), source.name))
        return found

    def _dead(self, uuid: str) -> list[Path]:
        """Directories here of backups from that host that died, of one machine or of all."""
        found = []
        for owner in Path(tempfile.gettempdir()).glob(f"{PREFIX}-*/{_OF}"):
            with contextlib.suppress(OSError, ValueError):
                of = owner.read_text()
                mine = owner.stat().st_uid == os.geteuid()
                mine = mine and of.startswith(f"{self._host.url}\n") and of.endswith(uuid)
                if mine and not places.lives(owner.parent):
                    found.append(owner.parent)
        return found

    @property
    def _opens(self) -> bool:
        """Whether we may open files there."""
        found = self._host.there()
        return found is not None and found.root and found.tools


def _file_there(source: DomainDisk) -> Node:
    kind = "host_device" if source.kind == "block" else "file"
    return {"driver": kind, "filename": source.place}


def _bound(host: str) -> str:
    """What QEMU listens on to be reached at a host."""
    with contextlib.suppress(ValueError):
        return str(ip_address(host))
    return "0.0.0.0"  # noqa: S104 - the URL asks for a port that is reached from afar
