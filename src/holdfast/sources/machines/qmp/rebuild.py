"""Make a QEMU machine again: its command line with other disks, and a file that says how it starts.

Must not start anything by itself. Invariant: what can't be carried over is refused; a machine that
can't be made whole leaves nothing but disks by which the same restore goes on.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import uuid
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast.base.errors import (
    AlreadyExists,
    HypervisorError,
    Invalid,
    MachineMissing,
    Unsupported,
    storage_error,
)
from holdfast.sources.machines.machine import State
from holdfast.sources.machines.new_disks import BLANK, NewDisk, new_mac, write_rest
from holdfast.sources.machines.providers import KINDS
from holdfast.sources.machines.qmp.devices import networks
from holdfast.sources.machines.qmp.disk_words import with_disk
from holdfast.sources.machines.unfinished import Journal, NearShelf, thrown_away
from holdfast.sources.nbd.qemu_nbd import program

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast.sources.machines.machine import Machine
    from holdfast.sources.machines.provider import DiskWriter, NewMachine

COMMAND = "qemu.json"
VARIABLES = "nvram"
JOURNAL = ".holdfast-restore"
"""In the directory of a machine that is not whole yet."""
ENDING = ".machine"
_MAC = re.compile(r"(?<=mac=)[0-9A-Fa-f:]{17}|(?<=\"mac\":\")[0-9A-Fa-f:]{17}")
_DROPPED = {"-qmp": 1, "-monitor": 1, "-pidfile": 1, "-incoming": 1, "-daemonize": 0, "-S": 0}
_REFERENCE = re.compile(r"(?:file|filename|drive|backing)\"?[=:] ?\"?([^,\"}]+)")
_NAME = re.compile(r"(?:\bid|node-name)\"?[=:] ?\"?([^,\"}]+)")
_START_S = 60


def definitions(machine: Machine, words: list[str], variables: bytes | None) -> dict[str, bytes]:
    """What makes a machine again: its command line, and what its firmware keeps."""
    found = {}
    if words:
        places = {one.name: {"place": one.place, "format": one.format} for one in machine.disks}
        found[COMMAND] = json.dumps({"words": words, "disks": places}, indent=1).encode()
    if variables is not None:
        found[VARIABLES] = variables
    return found


def refuse(known: Machine) -> None:
    """Say that a machine is in the way."""
    raise AlreadyExists(
        f"machine '{known.name}' runs with the uuid {known.uuid}",
        "shut it down first, or restore with a new identity",
    )


def restore(
    order: NewMachine,
    write: DiskWriter,
    monitors: Path,
    make: Callable[[NewDisk, DiskWriter], None] | None = None,
) -> Machine:
    """Write the disks, and the file by which `start` starts the machine.

    Args:
        order: What is wanted.
        write: Writes a disk.
        monitors: Where the new machine's monitor will be.
        make: Makes the file of a disk, and has it written; None: as a restore does.

    Raises:
        AlreadyExists: A machine of that name was made here before.
        Invalid: Disks can't be of that format here, or that is no name.
        Unsupported: Its command line can't be carried over.
    """
    directory = directory_of(order.storage, order.name, monitors)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", order.name):
        raise Invalid(f"'{order.name}' can't be the name of a machine", "use letters and digits")
    KINDS["qmp"].format_of(order.format)
    startable = monitors / f"{order.name}{ENDING}"
    if startable.exists() or (monitors / f"{order.name}.qmp").exists():
        raise AlreadyExists(f"there is a machine '{order.name}' under '{monitors}'")
    disks = [
        NewDisk(one, directory / f"{one.name}.{order.format}", order.format)
        for one in order.machine.disks
        if one.left_out is None
    ]
    new_uuid = order.machine.uuid if order.keep_identity else order.uuid or str(uuid.uuid4())
    words = _command(order, disks, new_uuid, monitors, directory)
    if _is_others(directory):
        raise AlreadyExists(f"'{directory}' is there already")
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(error)(f"'{directory}' can't be made: {error.strerror}") from error
    with contextlib.closing(NearShelf(directory / JOURNAL)) as shelf:
        journal = Journal.opened(shelf, order)
        try:
            for one in disks:
                if make is not None:
                    make(one, write)
                else:
                    write_rest(one, write, journal)
            _make_startable(order, new_uuid, words, directory, startable, journal)
        except BaseException:
            if not journal.failed():
                shutil.rmtree(directory, ignore_errors=True)
            raise
    return replace(
        order.machine,
        uuid=new_uuid,
        name=order.name,
        state=State.OFF,
        networks=networks(words),
        disks=tuple(replace(one.disk, place=str(one.path), format=one.format) for one in disks),
    )


def throw_away(order: NewMachine, monitors: Path) -> list[str]:
    """Take away the directory of a machine that is not whole; which that was."""
    directory = directory_of(order.storage, order.name, monitors)
    if not (directory / JOURNAL).exists():
        return []
    with contextlib.closing(NearShelf(directory / JOURNAL)) as shelf:
        thrown_away(shelf, order)
        shutil.rmtree(directory)
    return [str(directory)]


def _is_others(directory: Path) -> bool:
    """Whether there is something that no restore left."""
    if not directory.exists():
        return False
    if not directory.is_dir():
        return True
    names = [one.name for one in directory.iterdir()]
    return JOURNAL not in names and any(not one.endswith(BLANK) for one in names)


def _make_startable(
    order: NewMachine,
    new_uuid: str,
    words: list[str],
    directory: Path,
    startable: Path,
    journal: Journal,
) -> None:
    if VARIABLES in order.definitions:
        (directory / VARIABLES).write_bytes(order.definitions[VARIABLES])
    text = json.dumps({"uuid": new_uuid, "directory": str(directory), "words": words}, indent=1)
    unfinished = startable.with_suffix(".unfinished")
    unfinished.write_text(text)
    journal.hand_over()
    unfinished.replace(startable)


def directory_of(storage: str | None, name: str, monitors: Path) -> Path:
    """Where the disks of a new machine go.

    Raises:
        Invalid: That is no place for them.
    """
    place = Path(storage) if storage is not None else monitors
    if not place.is_absolute():
        raise Invalid(f"'{place}' is no place for disks", "name a directory by its whole path")
    return place / name


def start(monitors: Path, wanted: str) -> None:
    """Start a machine that `restore` made.

    Raises:
        MachineMissing: There is none of that uuid.
        HypervisorError: QEMU does not start it, and what it says.
    """
    for path in monitors.glob(f"*{ENDING}"):
        kept = json.loads(path.read_text())
        if kept["uuid"] != wanted:
            continue
        words = [
            program("qemu-system-x86_64") if at == 0 and not os.path.exists(one) else one
            for at, one in enumerate(kept["words"])
        ]
        done = subprocess.run(
            words, capture_output=True, text=True, timeout=_START_S, check=False, cwd="/"
        )
        if done.returncode:
            raise HypervisorError(
                f"QEMU does not start '{path.stem}': {done.stderr.strip()[-500:]}"
            )
        return
    raise MachineMissing(f"no machine of uuid {wanted} was restored to '{monitors}'")


def _command(
    order: NewMachine, disks: list[NewDisk], new_uuid: str, monitors: Path, directory: Path
) -> list[str]:
    try:
        known = json.loads(order.definitions[COMMAND])
        words = [str(one) for one in known["words"]]
        places = known["disks"]
    except (KeyError, ValueError, TypeError) as error:
        raise Unsupported(
            f"the image of '{order.machine.name}' has no command line of QEMU",
            "restore its disks to a directory",
        ) from error
    words = _without(words)
    held = {one.disk.name for one in disks}
    for name, known_disk in places.items():
        if name not in held:
            words = _without_disk(words, str(known_disk["place"]))
    for one in disks:
        old = places[one.disk.name]
        words = with_disk(words, one, str(old["place"]), str(old["format"]))
    words = [re.sub(r"(?<=path=)[^,]*\.qga", f"{monitors}/{order.name}.qga", one) for one in words]
    if not order.keep_identity:
        words = [_MAC.sub(lambda _: new_mac(), one) for one in words]
    if order.networks is not None:
        words = _connected(words, order.networks)
    words = _option(words, "-uuid", new_uuid)
    words = _option(words, "-name", order.name)
    words += ["-qmp", f"unix:{monitors}/{order.name}.qmp,server=on,wait=off"]
    return [*words, "-pidfile", f"{directory}/pid", "-daemonize"]


def _without(words: list[str]) -> list[str]:
    kept, skip = [], 0
    for word in words:
        if skip:
            skip -= 1
        elif word in _DROPPED:
            skip = _DROPPED[word]
        else:
            kept.append(word)
    return kept


def _without_disk(words: list[str], place: str) -> list[str]:
    """Take a disk off, and what stands upon it: a new machine never opens the old one's files."""
    gone = {place}
    while True:
        kept: list[str] = []
        for at, word in enumerate(words):
            names = set(_REFERENCE.findall(word))
            if at and words[at - 1] in ("-drive", "-blockdev", "-device", "-hda") and names & gone:
                gone |= set(_NAME.findall(word))
                kept.pop()
            else:
                kept.append(word)
        if len(kept) == len(words):
            return words
        words = kept


def _connected(words: list[str], wanted: tuple[str, ...]) -> list[str]:
    found: list[str] = []
    at = 0
    for number, word in enumerate(words):
        if number and words[number - 1] == "-netdev":
            name = re.search(r"id=([^,]*)", word)
            identity = name.group(1) if name else f"net{at}"
            network = wanted[min(at, len(wanted) - 1)] if wanted else None
            found.append(
                f"bridge,id={identity},br={network}"
                if network
                else f"hubport,id={identity},hubid={at + 100}"
            )
            at += 1
        else:
            found.append(word)
    return found


def _option(words: list[str], option: str, value: str) -> list[str]:
    if option in words:
        at = words.index(option)
        return [*words[: at + 1], value, *words[at + 2 :]]
    return [*words, option, value]
