"""A new machine in a directory: its disks, and a definition that has them.

Must not touch another machine. Invariant: the machine's directory has its name only when all of it
is there and durable; before that it is one that begins with a dot, which goes with whatever fails,
or stays with a journal by which the same restore goes on.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import shutil
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast.base.errors import AlreadyExists, Invalid, NotFound, storage_error
from holdfast.sources import places
from holdfast.sources.machines import domain_xml
from holdfast.sources.machines.new_disks import make_empty, mended, new_mac, target_of
from holdfast.sources.machines.unfinished import PREFIX, Journal, NearShelf, write_part

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from holdfast.sources.machines.diskfiles.store import Store
    from holdfast.sources.machines.machine import Disk
    from holdfast.sources.machines.provider import DiskWriter, NewMachine

SUFFIXES = {
    "qcow2": ".qcow2",
    "raw": ".raw",
    "vmdk": ".vmdk",
    "vhdx": ".vhdx",
    "vdi": ".vdi",
    "vpc": ".vhd",
}
"""What a disk can be restored as, and how the name of its file ends."""

UNFINISHED = PREFIX
JOURNAL = ".journal"
"""In the directory of a machine that is not whole yet."""


def restore(store: Store, order: NewMachine, write: DiskWriter) -> Path:
    """Make a machine of a backup.

    Returns:
        Where its definition is.

    Raises:
        AlreadyExists: There is one of its name, or of the uuid that is to be kept.
        Invalid: The name or the format is not one.
        HoldfastError: It can't be made; nothing of it stays.
    """
    _check(store, order)
    parent = _parent(store, order.storage)
    final = parent / order.name
    if final.exists() or final.is_symlink():
        raise AlreadyExists(f"there is something at '{final}'", "give the machine another name")
    known = order.machine.uuid if order.keep_identity else str(uuid.uuid4())
    suffix = SUFFIXES[order.format]
    with _unfinished(parent, order) as (directory, journal):
        made: dict[str, tuple[str, str]] = {}
        for disk in order.machine.disks:
            if disk.left_out is None:
                path = directory / f"{disk.name}{suffix}"
                _write_disk(disk, path, order.format, write, journal)
                made[disk.name] = str(final / path.name), order.format
        definition = _define(order, known, made, directory, final)
        journal.drop_unwanted()
        _publish(directory, final)
        (final / JOURNAL).unlink(missing_ok=True)
    return final / definition


def throw_away(store: Store, order: NewMachine) -> list[str]:
    """Take away what restores of a machine of that name left; which directory that was.

    Raises:
        Busy: One is at work.
    """
    directory = _parent(store, order.storage) / f"{UNFINISHED}{order.name}"
    if not directory.is_dir():
        return []
    with places.alone(directory):
        shutil.rmtree(directory)
    return [str(directory)]


def unfinished(store: Store) -> Iterator[Path]:
    """Directories of restores that died, locked by nobody, and with which nobody can go on."""
    for root in store.roots:
        for directory in root.glob(f"{UNFINISHED}*"):
            if (directory / JOURNAL).exists():
                continue
            with contextlib.suppress(OSError):
                fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    yield directory
                finally:
                    os.close(fd)


def _check(store: Store, order: NewMachine) -> None:
    if order.format not in SUFFIXES:
        raise Invalid(
            f"'{order.format}' is not a format that a disk is restored as",
            f"use one of: {', '.join(SUFFIXES)}",
        )
    if not re.fullmatch(r"[^/\0.][^/\0]{0,200}", order.name):
        raise Invalid(f"'{order.name}' can't be the name of a machine's directory")
    for one in order.machine.disks:
        if not re.fullmatch(r"[^/\0.][^/\0]{0,200}", one.name):
            raise Invalid(f"'{one.name}' can't be the name of a disk's file")
    for known in store.definitions(strict=False):
        if known.name == order.name:
            raise AlreadyExists(
                f"there is a machine '{order.name}' in '{store.root}' already",
                "give the new one another name",
            )
        if order.keep_identity and known.uuid == order.machine.uuid:
            raise AlreadyExists(
                f"machine '{known.name}' in '{store.root}' has the uuid {known.uuid} already",
                "let the new one have a uuid of its own",
            )


def _parent(store: Store, storage: str | None) -> Path:
    if storage is None:
        return store.root
    path = Path(os.path.normpath(store.root / storage))
    if not path.is_dir():
        raise NotFound(f"there is no directory '{path}' to restore to", "make it first")
    real = path.resolve()
    if not any(real.is_relative_to(root) for root in store.roots):
        raise Invalid(
            f"'{path}' is outside of the datastore '{store.root}'",
            "name a directory in it, or reach that one by a URL of its own",
        )
    return real


@contextlib.contextmanager
def _unfinished(parent: Path, order: NewMachine) -> Iterator[tuple[Path, Journal]]:
    directory = parent / f"{UNFINISHED}{order.name}"
    try:
        directory.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise storage_error(error)(
            f"no directory can be made in '{parent}': {error.strerror}"
        ) from error
    with places.alone(directory), contextlib.closing(NearShelf(directory / JOURNAL)) as shelf:
        journal = Journal.opened(shelf, order)
        try:
            yield directory, journal
        except BaseException:
            if not journal.failed():
                shutil.rmtree(directory, ignore_errors=True)
            raise


def _write_disk(
    disk: Disk, path: Path, image_format: str, write: DiskWriter, journal: Journal
) -> None:
    what = f"disk '{disk.name}' at '{path.name}'"
    part = journal.part(disk, str(path), is_ours=True)
    if not part.is_new and not mended(path, image_format, what):
        journal.disbelieve(part)
    if part.is_new:
        make_empty(path, image_format, disk.size, what)
        part.made()

    write_part(part, target_of(path, image_format, what), write)
    _sync(path)


def _define(
    order: NewMachine,
    known: str,
    places: dict[str, tuple[str, str]],
    directory: Path,
    final: Path,
) -> str:
    """Write its definition; the name of that file."""
    kept = order.keep_identity
    macs = [
        card.mac if kept and card.mac else _mac_like(card.mac) for card in order.machine.networks
    ]
    nvram = order.definitions.get("nvram")
    if nvram is not None:
        (directory / "nvram").write_bytes(nvram)
    vmx = next((one for one in order.definitions if one.lower().endswith(".vmx")), None)
    if "domain.xml" in order.definitions:
        data = domain_xml.rewritten(
            order.definitions["domain.xml"],
            name=order.name,
            uuid=known,
            disks=places,
            macs=None if kept else macs,
            networks=order.networks,
            nvram=None if nvram is None else str(final / "nvram"),
        )
    elif vmx is not None and order.format == "vmdk":
        text = _vmx(order.definitions[vmx], order, known, places, None if kept else macs)
        (directory / f"{order.name}.vmx").write_bytes(text)
        return f"{order.name}.vmx"
    else:
        data = domain_xml.made_for(
            order.machine,
            name=order.name,
            uuid=known,
            disks=places,
            macs=macs,
            networks=order.networks,
        )
    (directory / "domain.xml").write_bytes(data)
    return "domain.xml"


def _vmx(
    data: bytes,
    order: NewMachine,
    known: str,
    places: dict[str, tuple[str, str]],
    macs: Sequence[str] | None,
) -> bytes:
    """A VMX file with other values where a new machine has others."""
    text = known.replace("-", "")
    pairs = [text[at : at + 2] for at in range(0, 32, 2)]
    bios = " ".join(pairs[:8]) + "-" + " ".join(pairs[8:])
    made: dict[str, str] = {"displayname": order.name, "uuid.bios": bios, "uuid.location": bios}
    made |= {"checkpoint.vmstate": ""}
    made |= {"nvram": "nvram"} if "nvram" in order.definitions else {}
    for name, (path, _) in places.items():
        made[f"{name.replace('-', ':')}.filename"] = Path(path).name
    lines, cards, dropped = [], 0, [one.name.replace("-", ":") for one in order.machine.disks]
    dropped = [one for one in dropped if f"{one}.filename" not in made]
    for line in data.decode(errors="surrogateescape").splitlines():
        setting = re.match(r'^\s*([\w:.\-]+)\s*=\s*"(.*)"\s*$', line)
        key = setting[1].lower() if setting else ""
        if any(key.startswith(f"{one}.") for one in dropped):
            continue
        if (card := re.match(r"^(ethernet\d+)\.", key)) and key.endswith(".present"):
            lines.append(line)
            lines += _vmx_card(card[1], macs, order.networks, cards)
            cards += 1
            continue
        if card and _is_replaced(key, macs, order.networks):
            continue
        if key in made:
            lines.append(f'{setting[1] if setting else key} = "{made.pop(key)}"')
        else:
            lines.append(line)
    lines += [f'{key} = "{value}"' for key, value in made.items() if value]
    return ("\n".join(lines) + "\n").encode(errors="surrogateescape")


def _is_replaced(key: str, macs: Sequence[str] | None, networks: Sequence[str] | None) -> bool:
    name = key.split(".", 1)[1]
    address = name in ("address", "addresstype", "generatedaddress", "generatedaddressoffset")
    if macs is not None and address:
        return True
    return networks is not None and name in ("networkname", "vnet", "startconnected")


def _vmx_card(
    card: str, macs: Sequence[str] | None, networks: Sequence[str] | None, at: int
) -> Iterator[str]:
    if macs is not None and at < len(macs):
        yield f'{card}.addressType = "static"'
        yield f'{card}.address = "{macs[at]}"'
    if networks:
        yield f'{card}.networkName = "{networks[min(at, len(networks) - 1)]}"'
    elif networks is not None:
        yield f'{card}.startConnected = "FALSE"'


def _mac_like(old: str) -> str:
    """An address that no other card has, of the maker that the old one had."""
    if not re.fullmatch(r"([0-9a-f]{2}:){5}[0-9a-f]{2}", old):
        return new_mac()
    # VMware takes addresses that people give from one quarter of its range alone.
    first = secrets.randbelow(0x40 if old.startswith("00:50:56") else 0x100)
    rest = secrets.token_bytes(2)
    return f"{old[:8]}:{first:02x}:{rest[0]:02x}:{rest[1]:02x}"


def _publish(directory: Path, final: Path) -> None:
    for file in directory.iterdir():
        _sync(file)
    _sync(directory)
    directory.chmod(0o755)
    try:
        # Replaces an empty directory, should one have come meanwhile; nothing else.
        directory.rename(final)
    except OSError as error:
        raise AlreadyExists(f"there is something at '{final}'") from error
    _sync(final.parent)


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
