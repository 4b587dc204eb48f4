"""What a machine that has joined a site keeps of that: which site, and who it is there.

Must not speak to anybody. Invariants: a machine has joined if and only if ``machine.toml`` is
there, and then all else is; the private key is readable by its owner alone.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from holdfast.base.config import toml_text
from holdfast.base.errors import (
    AlreadyExists,
    ConfigInvalid,
    NoPermission,
    SiteMissing,
    storage_error,
)
from holdfast.base.files import write_whole
from holdfast.wire.identity import Identity, MachineKey, MachineRole, machine_name

if TYPE_CHECKING:
    from pathlib import Path

NAME = "machine.toml"
DIRECTORY = "machine"
VERSION = 1
KEY, NEXT_KEY = "key.pem", "next-key.pem"


@dataclass(frozen=True, slots=True)
class MachineHome:
    """A machine's membership of a site, as its home directory has it.

    Attributes:
        home: The directory.
        masters: URLs at which its master servers answer machines; tried in this order.
        identity: Who it is.
    """

    home: Path
    masters: tuple[str, ...]
    identity: Identity


def has_joined(home: Path) -> bool:
    """Whether the machine of a home has joined a site."""
    return (home / NAME).exists()


def load(home: Path) -> MachineHome:
    """Read the membership.

    Raises:
        SiteMissing: It has not joined any.
        ConfigInvalid: It can't be understood.
        NoPermission: This user may not read it.
    """
    file = home / NAME
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
        read = {
            part: (home / DIRECTORY / f"{part}.pem").read_bytes()
            for part in ("key", "certificate", "authority")
        }
    except (FileNotFoundError, NotADirectoryError) as error:
        if has_joined(home):
            raise ConfigInvalid(
                f"{error.filename} is gone", "join anew: holdfast enroll URL --token T --again"
            ) from error
        raise SiteMissing(
            f"the machine of {home} has not joined a site",
            "make a token on the master with 'holdfast machine token', then here: "
            "holdfast enroll URL --token T",
        ) from error
    except PermissionError as error:
        raise NoPermission(
            f"may not read {error.filename}", "run as the user who joined"
        ) from error
    except (OSError, ValueError) as error:
        raise ConfigInvalid(f"{file} can't be read: {error}") from error
    return MachineHome(home, _masters(document, file), _identity(document, read, file))


def prepare_key(home: Path, *, again: bool = False) -> MachineKey:
    """The key with which to join: the one of a try that was cut off, or a new one, stored.

    Args:
        home: Where.
        again: The machine has joined, and wants to join anew: what there is stays until it has.

    Raises:
        StorageError: The home can't be written.
    """
    joined = has_joined(home)
    if joined and not again:
        raise AlreadyExists(f"the machine of {home} has joined a site")
    file = home / DIRECTORY / (NEXT_KEY if joined else KEY)
    try:
        (home / DIRECTORY).mkdir(mode=0o700, parents=True, exist_ok=True)
        if file.exists():
            return MachineKey(file.read_bytes())
        key = MachineKey.generate()
        write_whole(file, key.pem)
    except OSError as error:
        raise storage_error(error)(f"can't write in {home}: {error.strerror}") from error
    return key


def save(home: Path, masters: tuple[str, ...], identity: Identity) -> MachineHome:
    """Write a membership; durable on return, and there only when it is whole.

    Raises:
        StorageError: The home can't be written.
    """
    document: dict[str, int | str | list[str]] = {
        "version": VERSION,
        "site": identity.site_id,
        "masters": list(masters),
        "name": str(identity.name),
        "role": identity.role.value,
    }
    text = "# The membership of this machine in a Holdfast site.\n" + toml_text(document)
    try:
        (home / DIRECTORY).mkdir(mode=0o700, parents=True, exist_ok=True)
        (home / NAME).unlink(missing_ok=True)
        write_whole(home / DIRECTORY / KEY, identity.key.pem)
        (home / DIRECTORY / NEXT_KEY).unlink(missing_ok=True)
        write_whole(home / DIRECTORY / "authority.pem", identity.authority_pem)
        write_whole(home / DIRECTORY / "certificate.pem", identity.certificate_pem)
        write_whole(home / NAME, text.encode())
    except OSError as error:
        raise storage_error(error)(f"can't write in {home}: {error.strerror}") from error
    return MachineHome(home, masters, identity)


def renewed(known: MachineHome, certificate_pem: bytes) -> MachineHome:
    """Keep a machine's next certificate; durable on return.

    Raises:
        StorageError: The home can't be written.
    """
    who = known.identity
    next_one = Identity(
        who.role, who.name, who.site_id, certificate_pem, who.key, who.authority_pem
    )
    try:
        write_whole(known.home / DIRECTORY / "certificate.pem", certificate_pem)
    except OSError as error:
        raise storage_error(error)(f"can't write in {known.home}: {error.strerror}") from error
    return MachineHome(known.home, known.masters, next_one)


def _masters(document: dict[str, Any], file: Path) -> tuple[str, ...]:
    found = document.get("masters")
    if not isinstance(found, list) or not found or not all(isinstance(one, str) for one in found):
        raise ConfigInvalid(f"{file} names no master server", 'write: masters = ["https://…"]')
    return tuple(found)


def _identity(document: dict[str, Any], read: dict[str, bytes], file: Path) -> Identity:
    if document.get("version") != VERSION:
        raise ConfigInvalid(f"{file} is of version {document.get('version')}, not {VERSION}")
    try:
        role, name = MachineRole(document["role"]), machine_name(str(document["name"]))
        site_id = str(document["site"])
    except (KeyError, ValueError) as error:
        raise ConfigInvalid(f"{file} does not say who this machine is: {error}") from error
    return Identity(
        role, name, site_id, read["certificate"], MachineKey(read["key"]), read["authority"]
    )
